//! `[checkpoint]`: where and how often positions are made durable.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The keys of `[checkpoint]`.
pub const KEYS: &[&str] = &["store", "path", "interval", "idle_interval"];

/// Where checkpoints live, and their write rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where they live. Default: MongoDB.
    pub store: Store,
    /// At most one write per output in this time while events are settled. 10 ms to 10 min, default 1 s.
    pub interval: Duration,
    /// The same while only the stream's own position moves. At least `interval`, at most 1 h, default 30 s.
    pub idle_interval: Duration,
}

/// A place for checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// The database `tailwater` of the deployment that is watched.
    MongoDb,
    /// A folder on this machine.
    File {
        /// The folder; it is created when it does not exist.
        path: PathBuf,
    },
}

impl Config {
    /// Reads the table.
    ///
    /// # Errors
    /// A wrong value, `path` without `store = "file"` or the other way round.
    pub fn read(section: &Section<'_>) -> Result<Config, ConfigError> {
        let file = section.choice("store", &[("mongodb", false), ("file", true)], false)?;
        let store = match (file, section.get("path")) {
            (true, Some(path)) => Store::File { path: path.path()? },
            (true, None) => return Err(section.error("store = \"file\" needs path, add path = \"state\"")),
            (false, Some(path)) => return Err(path.error("is used only with store = \"file\", remove it or set that")),
            (false, None) => Store::MongoDb,
        };
        let (shortest, hour) = (Duration::from_millis(10), Duration::from_secs(3600));
        let interval = section.duration("interval", shortest..=Duration::from_secs(600), Duration::from_secs(1))?;
        let idle_default = interval.max(Duration::from_secs(30));
        let idle_interval = section.duration("idle_interval", shortest..=hour, idle_default)?;
        if idle_interval < interval {
            let entry = section.require("idle_interval", "\"30s\"")?;
            return Err(entry.error("is shorter than checkpoint.interval, write at least as long a time"));
        }
        Ok(Config { store, interval, idle_interval })
    }
}
