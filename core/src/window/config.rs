//! `[window]`: how much of the recent past the lanes share.

use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The keys of `[window]`.
pub const KEYS: &[&str] = &["bytes_max"];

/// The shared ring of recent events.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Events and their JSON together never take more. 64 KiB to 64 GiB, default 16 MiB.
    pub bytes_max: u64,
}

impl Config {
    /// Reads the table.
    ///
    /// # Errors
    /// A wrong value.
    pub fn read(section: &Section<'_>) -> Result<Config, ConfigError> {
        Ok(Config { bytes_max: section.bytes("bytes_max", 64 << 10..=64 << 30, 16 << 20)? })
    }
}
