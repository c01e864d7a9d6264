//! Checkpoints: the place of an output made durable. Both stores behave the same; which one is a matter of the config.

pub mod config;
pub mod file;
pub mod mongodb;

use crate::source::place::{Place, PlaceError};

/// Where checkpoints are kept.
pub enum Store {
    /// In the deployment that is watched.
    MongoDb(mongodb::MongoDbStore),
    /// In a folder of this machine.
    File(file::FileStore),
}

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The server did not take or give it. A retry may help.
    #[error("{what} checkpoint of {output} in MongoDB: {reason}")]
    MongoDb {
        /// `read` or `write`.
        what: &'static str,
        /// Whose.
        output: String,
        /// The server's words.
        reason: String,
    },
    /// The file system did not. A retry may help.
    #[error("{what} {path}: {reason}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file or folder.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// What is stored cannot be read back. A retry does not help.
    #[error("checkpoint of {output} is damaged ({error}); restore it, or remove it to begin at source.start")]
    Damaged {
        /// Whose.
        output: String,
        /// What is wrong.
        error: PlaceError,
    },
    /// Another instance delivers this output now. A retry does not help.
    #[error("write checkpoint of {output}: another instance has taken over")]
    Fenced {
        /// Whose.
        output: String,
    },
    /// Another process holds the folder.
    #[error(
        "checkpoint.path {path} is in use by another tailwater; stop that one, or give this one a folder of its own"
    )]
    InUse {
        /// The folder.
        path: String,
    },
}

impl Store {
    /// The place an output had reached, `None` for a new output.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub async fn load(&self, output: &str) -> Result<Option<Place>, CheckpointError> {
        match self {
            Store::MongoDb(store) => store.load(output).await,
            Store::File(store) => store.load(output).await,
        }
    }

    /// Makes a place durable: after `Ok` it survives a power cut of this machine, or the loss of a minority of the set.
    ///
    /// # Errors
    /// See [`CheckpointError`]; the old place, or this one, is still there.
    pub async fn save(&self, output: &str, place: &Place) -> Result<(), CheckpointError> {
        match self {
            Store::MongoDb(store) => store.save(output, place).await,
            Store::File(store) => store.save(output, place).await,
        }
    }
}
