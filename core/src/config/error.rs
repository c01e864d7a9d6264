//! What can be wrong with a configuration, as one line an operator can act on.

use std::path::PathBuf;

/// Why a configuration was refused. Reading it again does not help until the file (or the environment) has changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself cannot be read.
    #[error("read {}: {source}, pass --config FILE", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A key, a value or a combination of them is wrong.
    #[error("{place}: {message}")]
    Invalid {
        /// `file:line:column`, or the file alone where no single place is to blame.
        place: String,
        /// The full dotted key, what is wrong with it and what to do.
        message: String,
    },
}
