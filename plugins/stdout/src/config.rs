//! The keys of `[outputs.NAME.options]`. The form of the JSON is the output's own `json` key.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Options of the plugin `stdout`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// File to append to; made where it does not exist. Absent: standard output.
    pub path: Option<PathBuf>,
    /// When a file is forced onto the disk.
    pub fsync: Fsync,
}

/// When a file is forced onto the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// When the operating system likes: lines survive a crash of the daemon, not one of the machine.
    #[default]
    Never,
    /// Before each batch is acknowledged: lines survive a crash of the machine, too.
    Batch,
}
