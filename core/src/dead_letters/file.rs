//! Dead letters in a folder: one journal of JSON Lines per deployment name. The folder is locked as long as the store lives.
//! What is done to the journal is done on a thread where it may block, to its end, one after the other.

mod index;
mod journal;
mod line;
#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bson::DateTime;

use self::journal::Journal;
use super::config::{Config, Place};
use super::record::{Form, Record};
use super::{Account, Chosen, DeadLetterError, Filter, Letter, LetterKey, Letters, Matched, Page, Stored};
use crate::event::EventId;

/// Its own name: the folder may be that of the checkpoints.
const LOCK: &str = "dead-letters.lock";

/// Dead letters of one deployment name.
pub struct FileStore {
    shared: Arc<Shared>,
    folder: PathBuf,
}

struct Shared {
    name: String,
    /// Held for a whole operation, only on threads that may block.
    journal: Mutex<Journal>,
    /// As the last operation left it, for who may not block.
    account: Mutex<Account>,
    /// Held, never read: the lock ends with it.
    _lock: File,
}

impl FileStore {
    /// Makes the folder when it is not there, locks it, reads the journal and removes what has expired. A last line that was
    /// torn by a crash is cut off, with a warning.
    ///
    /// # Errors
    /// [`DeadLetterError::InUse`], or what the file system says.
    pub async fn open(config: &Config, name: &str) -> Result<Self, DeadLetterError> {
        let Place::File { path: folder } = &config.place else {
            let reason = "dead_letters.store is not \"file\"".to_owned();
            return Err(DeadLetterError::File { what: "open", path: "dead_letters.path".to_owned(), reason });
        };
        let (folder, name) = (folder.clone(), name.to_owned());
        let (bytes_max, expire_after) = (config.bytes_max, config.expire_after);
        let opened = tokio::task::spawn_blocking(move || {
            let lock = lock(&folder)?;
            // Names are [a-z0-9_-]: the dot cannot be part of one.
            let path = folder.join(format!("{name}.dead-letters.jsonl"));
            let journal = Journal::open(&path, bytes_max, expire_after, now())?;
            let account = Mutex::new(journal.account());
            let shared = Shared { name, journal: Mutex::new(journal), account, _lock: lock };
            Ok(FileStore { shared: Arc::new(shared), folder })
        });
        let path = &config.place;
        opened.await.unwrap_or_else(|error| Err(ended(Path::new(&format!("{path:?}")), error)))
    }

    /// Does it to the journal, off the async threads, and to its end even when nobody waits for it any more.
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Journal) -> Result<T, DeadLetterError> + Send + 'static,
    ) -> Result<T, DeadLetterError> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || {
            let mut journal = shared.journal.lock().unwrap_or_else(PoisonError::into_inner);
            let done = act(&mut journal);
            *shared.account() = journal.account();
            done
        });
        done.await.unwrap_or_else(|error| Err(ended(&self.folder, error)))
    }

    /// See [`super::Store::account`].
    pub fn account(&self) -> Account {
        self.shared.account().clone()
    }

    /// See [`super::Store::refresh`].
    pub async fn refresh(&self) -> Result<(), DeadLetterError> {
        self.with(|journal| journal.prune(now())).await
    }

    /// See [`super::Store::put`].
    pub async fn put(&self, letters: &[Letter]) -> Result<(), DeadLetterError> {
        let (letters, shared) = (letters.to_vec(), Arc::clone(&self.shared));
        self.with(move |journal| {
            let record = |letter| line::exact(|form: Form| Record::new(&shared.name, letter, form));
            let records = letters.iter().map(record).collect();
            journal.put(records, now())
        })
        .await
    }

    /// See [`super::Store::list`].
    pub async fn list(&self, filter: &Filter) -> Result<Page, DeadLetterError> {
        let filter = filter.clone();
        self.with(move |journal| journal.list(&filter)).await
    }

    /// See [`super::Store::get`].
    pub async fn get(&self, key: &LetterKey) -> Result<Option<Stored>, DeadLetterError> {
        let key = key.clone();
        self.with(move |journal| journal.get(&key)).await
    }

    /// See [`super::Store::count`].
    pub async fn count(&self, chosen: &Chosen) -> Result<Matched, DeadLetterError> {
        let chosen = chosen.clone();
        self.with(move |journal| Ok(journal.count(&chosen))).await
    }

    /// See [`super::Store::load`].
    pub async fn load(
        &self,
        output: &str,
        letters: &Letters,
        after: Option<EventId>,
        limit: usize,
        bytes_max: u64,
    ) -> Result<Vec<Stored>, DeadLetterError> {
        let (output, letters) = (output.to_owned(), letters.clone());
        self.with(move |journal| journal.load(&output, &letters, after, limit, bytes_max)).await
    }

    /// See [`super::Store::update`].
    pub async fn update(&self, key: &LetterKey, reason: &str, attempts: u32) -> Result<bool, DeadLetterError> {
        let (key, reason) = (key.clone(), reason.to_owned());
        self.with(move |journal| journal.update(&key, &reason, attempts, now())).await
    }

    /// See [`super::Store::remove`].
    pub async fn remove(&self, keys: &[LetterKey]) -> Result<u64, DeadLetterError> {
        let keys = keys.to_vec();
        self.with(move |journal| journal.remove(&keys)).await
    }

    /// See [`super::Store::drop_chosen`].
    pub async fn drop_chosen(&self, chosen: &Chosen) -> Result<u64, DeadLetterError> {
        let chosen = chosen.clone();
        self.with(move |journal| journal.drop_chosen(&chosen)).await
    }
}

impl Shared {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(folder: &Path) -> Result<File, DeadLetterError> {
    fs::create_dir_all(folder).map_err(|error| failed("create dead letter folder", folder, &error))?;
    // The folder itself must survive a power cut.
    if let Some(parent) = folder.canonicalize().ok().as_deref().and_then(Path::parent) {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| failed("sync", parent, &error))?;
    }
    let path = folder.join(LOCK);
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(|error| failed("open", &path, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DeadLetterError::InUse { path: folder.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path, &error)),
    }
}

fn now() -> DateTime {
    DateTime::from_system_time(SystemTime::now())
}

/// `at` and `later` in milliseconds since 1970.
fn later(at: DateTime, later: Duration) -> i64 {
    at.timestamp_millis().saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX))
}

fn failed(what: &'static str, path: &Path, error: &io::Error) -> DeadLetterError {
    DeadLetterError::File { what, path: path.display().to_string(), reason: error.to_string() }
}

fn ended(path: &Path, error: tokio::task::JoinError) -> DeadLetterError {
    failed("work on dead letters in", path, &io::Error::other(error))
}
