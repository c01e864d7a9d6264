//! `[dead_letters]`: where events that could not be delivered are kept, how many of them, and how long.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The keys of `[dead_letters]`.
pub const KEYS: &[&str] = &["store", "path", "bytes_max", "expire_after"];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where dead letters are kept, and their bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where they are kept. Default: MongoDB.
    pub place: Place,
    /// All letters of this deployment name together; when they take so much, an output that needs to write one stops. 1 MiB to
    /// 1 TiB, default 1 GiB.
    pub bytes_max: u64,
    /// A letter is removed this long after it was last written. 1 s to 3650 d, default 30 d.
    pub expire_after: Duration,
}

/// A place for dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The database `tailwater` of the deployment that is watched.
    MongoDb,
    /// A folder on this machine.
    File {
        /// The folder; it is created when it does not exist.
        path: PathBuf,
    },
}

impl Config {
    /// Whether they are kept in a folder, which one process owns.
    pub fn is_file(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// Reads the table.
    ///
    /// # Errors
    /// A wrong value, `path` without `store = "file"` or the other way round.
    pub fn read(section: &Section<'_>) -> Result<Config, ConfigError> {
        let file = section.choice("store", &[("mongodb", false), ("file", true)], false)?;
        let place = match (file, section.get("path")) {
            (true, Some(path)) => Place::File { path: path.path()? },
            (true, None) => return Err(section.error("store = \"file\" needs path, add path = \"dead-letters\"")),
            (false, Some(path)) => return Err(path.error("is used only with store = \"file\", remove it or set that")),
            (false, None) => Place::MongoDb,
        };
        Ok(Config {
            place,
            bytes_max: section.bytes("bytes_max", 1 << 20..=1 << 40, 1 << 30)?,
            expire_after: section.duration("expire_after", Duration::from_secs(1)..=3650 * DAY, 30 * DAY)?,
        })
    }
}
