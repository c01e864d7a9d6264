//! Checkpoints: how far each output has come, made durable. Both stores behave the same; which one is a matter of the config.
//! Who may write is decided elsewhere ([`crate::lease`]); here a writer whose time is over is turned away.

pub mod config;
pub mod file;
pub mod mongodb;

use bson::Document;

use crate::source::place::{Place, PlaceError};

/// What is stored of one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// All events up to here are settled.
    pub place: Place,
    /// How far an unfinished snapshot has come. Opaque here.
    pub snapshot: Option<Document>,
    /// An operator paused the output: it stays so after a restart.
    pub paused: bool,
}

/// Where checkpoints are kept. Clones share what is behind it.
#[derive(Clone)]
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
        /// `read`, `write`, …
        what: &'static str,
        /// Whose.
        output: String,
        /// The server's words.
        reason: String,
        /// A retry helps.
        passing: bool,
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
    /// Another instance has taken over since: what this one knows of the output is out of date. A retry does not help.
    #[error("{what} checkpoint of {output}: another instance has taken over, the lease of epoch {epoch} is over")]
    Fenced {
        /// `read`, `write`, …
        what: &'static str,
        /// Whose.
        output: String,
        /// Of the one that was turned away.
        epoch: u64,
    },
    /// Only an output that has a place can be paused. A retry helps once it has run.
    #[error("{what} {output}: it has no checkpoint yet; start it once")]
    Missing {
        /// `pause` or `resume`.
        what: &'static str,
        /// Whose.
        output: String,
    },
}

impl Checkpoint {
    /// For operators: where an output is, and whether the config still has it. `event_id` is from where an id alone would go on.
    pub fn to_json(&self, output: &str, configured: bool) -> serde_json::Value {
        serde_json::json!({
            "output": output,
            "place": self.place.to_string(),
            "time": self.place.time().seconds(),
            "event_id": crate::event::EventId::at(self.place.time()).as_str(),
            "snapshot": self.snapshot.is_some(),
            "paused": self.paused,
            "configured": configured,
        })
    }
}

impl Store {
    /// The same store for one holding of the lease. Each lane gets a store of the epoch it was started in, so that a late write
    /// of an earlier lane is turned away even when its own process has the lease again.
    pub fn with_epoch(&self, epoch: u64) -> Store {
        match self {
            Store::MongoDb(store) => Store::MongoDb(store.with_epoch(epoch)),
            Store::File(store) => Store::File(store.clone()),
        }
    }

    /// The checkpoint of an output, `None` for a new output. Claims it for this store's epoch: from then on every write of an
    /// older epoch fails, also where this one has not written yet.
    ///
    /// # Errors
    /// See [`CheckpointError`]. `Fenced` when a newer epoch has it.
    pub async fn load(&self, output: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        match self {
            Store::MongoDb(store) => store.load(output).await,
            Store::File(store) => store.load(output).await,
        }
    }

    /// The same without claiming it: for those who only look.
    ///
    /// # Errors
    /// See [`CheckpointError`]; never `Fenced`.
    pub async fn peek(&self, output: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        match self {
            Store::MongoDb(store) => store.peek(output).await,
            Store::File(store) => store.peek(output).await,
        }
    }

    /// All outputs that have a checkpoint, also those that are no longer configured, by name. Claims nothing.
    ///
    /// # Errors
    /// See [`CheckpointError`]; never `Fenced`.
    pub async fn list(&self) -> Result<Vec<(String, Checkpoint)>, CheckpointError> {
        match self {
            Store::MongoDb(store) => store.list().await,
            Store::File(store) => store.list().await,
        }
    }

    /// Makes a place durable, and how far an unfinished snapshot has come (`None` = there is none); whether the output is paused
    /// stays. After `Ok` it survives a power cut of this machine, or the loss of a minority of the set.
    ///
    /// # Errors
    /// See [`CheckpointError`]. The old checkpoint, or this one, is still there; after `Fenced` certainly not this one.
    pub async fn save(&self, output: &str, place: &Place, snapshot: Option<&Document>) -> Result<(), CheckpointError> {
        match self {
            Store::MongoDb(store) => store.save(output, place, snapshot).await,
            Store::File(store) => store.save(output, place, snapshot).await,
        }
    }

    /// Makes durable whether an output is paused. As durable as [`Store::save`].
    ///
    /// # Errors
    /// See [`CheckpointError`]. `Missing` for an output without a checkpoint.
    pub async fn pause(&self, output: &str, paused: bool) -> Result<(), CheckpointError> {
        match self {
            Store::MongoDb(store) => store.pause(output, paused).await,
            Store::File(store) => store.pause(output, paused).await,
        }
    }

    /// Forgets the checkpoint of an output, which then begins at `source.start`; no error where there is none.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub async fn remove(&self, output: &str) -> Result<(), CheckpointError> {
        match self {
            Store::MongoDb(store) => store.remove(output).await,
            Store::File(store) => store.remove(output).await,
        }
    }
}

/// The verb of [`CheckpointError`] for [`Store::pause`].
fn pause_or_resume(paused: bool) -> &'static str {
    if paused { "pause" } else { "resume" }
}
