//! Dead letters: events that could not be delivered, kept until an operator replays or drops them, or they expire. Both stores
//! behave the same; which one is a matter of the config. Knows nothing of lanes.

pub mod api;
pub mod config;
pub mod file;
pub mod letter;
pub mod metrics;
pub mod mongodb;
pub mod record;
pub mod selection;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use ::mongodb::Client;
use tracing::warn;

pub use self::letter::{Kind, Letter, LetterKey, Stored, Summary};
use self::metrics::DeadLetterMetrics;
pub use self::selection::{Chosen, Filter, Letters, Selection};
use crate::event::EventId;

/// How often [`tend`] counts anew and removes what has expired.
const TEND_INTERVAL: Duration = Duration::from_secs(60);

/// Where dead letters are kept.
pub struct Store {
    backend: Backend,
    metrics: DeadLetterMetrics,
}

enum Backend {
    MongoDb(mongodb::MongoDbStore),
    File(file::FileStore),
}

/// How much there is. In MongoDB as it was counted last, with what this process has done since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// What all letters of the deployment name take.
    pub bytes: u64,
    /// Letters per output; an output that had some and has none any more is there with 0.
    pub letters: BTreeMap<String, u64>,
}

/// A page of a list, in stream order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The letters, without their events.
    pub letters: Vec<Summary>,
    /// There are more behind the last one.
    pub more: bool,
}

/// How many letters a selection matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Matched {
    /// All of them.
    pub letters: u64,
    /// Those among them that are only stubs and cannot be replayed.
    pub stubs: u64,
}

/// Why dead letters could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The server did not take or give them. A retry may help; what was written before it failed is overwritten then.
    #[error("{what} dead letters in MongoDB: {reason}")]
    MongoDb {
        /// `read`, `write`, …
        what: &'static str,
        /// The server's words, and what to do.
        reason: String,
        /// The user may not: a retry does not help.
        denied: bool,
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
    /// A letter cannot be read back. A retry does not help.
    #[error("dead letter {letter} is damaged ({reason}); drop it with `tailwater dead-letters drop`")]
    Damaged {
        /// Which, as far as that is known.
        letter: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process holds the folder.
    #[error(
        "dead_letters.path {path} is in use by another tailwater: ask that one (--admin URL), stop it, or give this one a \
         folder of its own"
    )]
    InUse {
        /// The folder.
        path: String,
    },
    /// The bound is reached. Nothing was written. A retry helps when an operator has made room, or letters have expired.
    #[error(
        "dead letters are full: {bytes} more bytes do not fit beside {used} of dead_letters.bytes_max = {bytes_max}; replay or \
         drop some (tailwater dead-letters list), or raise dead_letters.bytes_max"
    )]
    Full {
        /// What the letters there are take.
        used: u64,
        /// What the new ones would take in addition.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
}

impl Store {
    /// Opens the store of one deployment name and counts what is there. In MongoDB it makes the indexes; where it may not,
    /// it warns and letters do not expire. The client does nothing for a store of files.
    ///
    /// # Errors
    /// The server does not answer, or the folder cannot be used. A retry may help.
    pub async fn open(
        config: &config::Config,
        name: &str,
        client: &Client,
        metrics: DeadLetterMetrics,
    ) -> Result<Store, DeadLetterError> {
        match &config.place {
            config::Place::MongoDb => {
                let store = mongodb::MongoDbStore::open(config, name, client).await?;
                Ok(Store::new(Backend::MongoDb(store), config, metrics))
            }
            config::Place::File { .. } => Store::open_file(config, name, metrics).await,
        }
    }

    /// For a command that reads or drops: in MongoDB it makes no indexes, leaves the time of expiry as it is, and counts nothing;
    /// to read, the privilege to find is enough.
    ///
    /// # Errors
    /// The folder cannot be used, or another process holds it.
    pub async fn open_as_it_is(config: &config::Config, name: &str, client: &Client) -> Result<Store, DeadLetterError> {
        let metrics = DeadLetterMetrics::default();
        match &config.place {
            config::Place::MongoDb => {
                let store = mongodb::MongoDbStore::open_as_it_is(config, name, client);
                Ok(Store::new(Backend::MongoDb(store), config, metrics))
            }
            config::Place::File { .. } => Store::open_file(config, name, metrics).await,
        }
    }

    /// The same for a store of files, without a client. In a config that says MongoDB there is no folder: that is refused.
    ///
    /// # Errors
    /// The folder cannot be used, or another process holds it.
    pub async fn open_file(
        config: &config::Config,
        name: &str,
        metrics: DeadLetterMetrics,
    ) -> Result<Store, DeadLetterError> {
        Ok(Store::new(Backend::File(file::FileStore::open(config, name).await?), config, metrics))
    }

    fn new(backend: Backend, config: &config::Config, metrics: DeadLetterMetrics) -> Store {
        let store = Store { backend, metrics };
        store.metrics.bound(config.bytes_max);
        store.tell();
        store
    }

    fn tell(&self) {
        self.metrics.tell(&self.account());
    }

    /// How much there is, without asking the server.
    pub fn account(&self) -> Account {
        match &self.backend {
            Backend::MongoDb(store) => store.account(),
            Backend::File(store) => store.account(),
        }
    }

    /// Keeps letters: after `Ok` they survive a power cut of this machine, or the loss of a minority of the set. One that is
    /// there already, of the same output and event, is overwritten. An event that is too large is kept as a stub.
    ///
    /// Not cancel safe in this sense: dropped in the middle, some may have been written. Putting them again mends it.
    ///
    /// # Errors
    /// [`DeadLetterError::Full`]: nothing was written. Otherwise some may have been; putting all of them again is safe.
    pub async fn put(&self, letters: &[Letter]) -> Result<(), DeadLetterError> {
        if letters.is_empty() {
            return Ok(());
        }
        let put = match &self.backend {
            Backend::MongoDb(store) => store.put(letters).await,
            Backend::File(store) => store.put(letters).await,
        };
        if put.is_err() {
            let outputs: BTreeSet<&str> = letters.iter().map(|letter| letter.output.as_str()).collect();
            outputs.into_iter().for_each(|output| self.metrics.failed(output));
        }
        self.tell();
        put
    }

    /// A page of letters in stream order, without their events.
    ///
    /// # Errors
    /// See [`DeadLetterError`].
    pub async fn list(&self, filter: &Filter) -> Result<Page, DeadLetterError> {
        match &self.backend {
            Backend::MongoDb(store) => store.list(filter).await,
            Backend::File(store) => store.list(filter).await,
        }
    }

    /// One letter as a whole.
    ///
    /// # Errors
    /// See [`DeadLetterError`].
    pub async fn get(&self, key: &LetterKey) -> Result<Option<Stored>, DeadLetterError> {
        match &self.backend {
            Backend::MongoDb(store) => store.get(key).await,
            Backend::File(store) => store.get(key).await,
        }
    }

    /// How many letters are chosen.
    ///
    /// # Errors
    /// See [`DeadLetterError`].
    pub async fn count(&self, chosen: &Chosen) -> Result<Matched, DeadLetterError> {
        match &self.backend {
            Backend::MongoDb(store) => store.count(chosen).await,
            Backend::File(store) => store.count(chosen).await,
        }
    }

    /// The next letters of an output to deliver again, in stream order: behind `after`, at most `limit` of them and, except
    /// for the first, at most `bytes_max` bytes of events. Empty at the end. Nothing is taken away: [`Store::remove`] what was
    /// delivered. Stubs are among them; [`Stored::letter`] says so.
    ///
    /// # Errors
    /// See [`DeadLetterError`].
    pub async fn load(
        &self,
        output: &str,
        letters: &Letters,
        after: Option<EventId>,
        limit: usize,
        bytes_max: u64,
    ) -> Result<Vec<Stored>, DeadLetterError> {
        match &self.backend {
            Backend::MongoDb(store) => store.load(output, letters, after, limit, bytes_max).await,
            Backend::File(store) => store.load(output, letters, after, limit, bytes_max).await,
        }
    }

    /// A letter was tried again without success: notes the reason and the number of attempts. `false` when it is gone.
    ///
    /// # Errors
    /// See [`DeadLetterError`]; the old reason, or this one, is there.
    pub async fn update(&self, key: &LetterKey, reason: &str, attempts: u32) -> Result<bool, DeadLetterError> {
        match &self.backend {
            Backend::MongoDb(store) => store.update(key, reason, attempts).await,
            Backend::File(store) => store.update(key, reason, attempts).await,
        }
    }

    /// Removes letters for good and tells how many there were. At most a few thousand at once.
    ///
    /// # Errors
    /// See [`DeadLetterError`]; some may be gone, removing them again is safe.
    pub async fn remove(&self, keys: &[LetterKey]) -> Result<u64, DeadLetterError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let removed = match &self.backend {
            Backend::MongoDb(store) => store.remove(keys).await,
            Backend::File(store) => store.remove(keys).await,
        };
        self.tell();
        removed
    }

    /// Removes all letters that are chosen and tells how many there were.
    ///
    /// # Errors
    /// See [`DeadLetterError`]; some may be gone.
    pub async fn drop_chosen(&self, chosen: &Chosen) -> Result<u64, DeadLetterError> {
        let dropped = match &self.backend {
            Backend::MongoDb(store) => store.drop_chosen(chosen).await,
            Backend::File(store) => store.drop_chosen(chosen).await,
        };
        self.tell();
        dropped
    }

    /// Counts anew: letters expire, and other instances write too. A store of files removes what has expired.
    ///
    /// # Errors
    /// See [`DeadLetterError`]. A retry may help.
    pub async fn refresh(&self) -> Result<(), DeadLetterError> {
        let refreshed = match &self.backend {
            Backend::MongoDb(store) => store.refresh().await,
            Backend::File(store) => store.refresh().await,
        };
        self.tell();
        refreshed
    }
}

/// Refreshes a store once a minute, as long as there is one: for a task beside the lanes. Cancel safe.
pub async fn tend(store: Weak<Store>) {
    loop {
        tokio::time::sleep(TEND_INTERVAL).await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.refresh().await {
            warn!("{error}");
        }
    }
}
