//! `[plugins]`: where plugin libraries are found.

use std::path::PathBuf;

use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The keys of `[plugins]`.
pub const KEYS: &[&str] = &["dir"];

/// The one folder plugins are loaded from.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `None`: `plugins/` beside the running executable, else the executable's own folder.
    pub dir: Option<PathBuf>,
}

impl Config {
    /// Reads the table.
    ///
    /// # Errors
    /// A wrong value.
    pub fn read(section: &Section<'_>) -> Result<Config, ConfigError> {
        Ok(Config { dir: section.get("dir").map(|entry| entry.path()).transpose()? })
    }
}
