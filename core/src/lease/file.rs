//! The lease as a lock on the file `<name>.lock` in the folder of the checkpoints, for instances on one machine.
//!
//! The operating system gives a lock to one process and takes it back only when that process ends, however it ends. So it never
//! runs out, and there is nothing to renew. The folder must be on a local disk: a network file system may lose a lock without
//! saying so. What is written into the file is for people and for the logs: who has it, and how often it was taken.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::lease::{Answer, LeaseError, Renewal};

/// Longer than any content of the file.
const CONTENT_MAX: u64 = 1024;

/// The lock of one deployment name, as one instance sees it.
pub struct FileArbiter {
    path: PathBuf,
    instance: String,
    lock: Option<Lock>,
}

/// A lock that is held; free when it is dropped.
pub struct Lock(File);

impl FileArbiter {
    /// In the folder of the checkpoints; does nothing yet.
    pub fn new(folder: &Path, name: &str, instance: &str) -> Self {
        FileArbiter { path: Lock::path(folder, name), instance: instance.to_owned(), lock: None }
    }

    /// Takes the lock where nobody has it. Does not wait.
    pub(super) fn take(&mut self) -> Result<Answer, LeaseError> {
        self.try_take().map_err(|error| self.failed("lock", &error))
    }

    fn try_take(&mut self) -> io::Result<Answer> {
        let Some(mut lock) = Lock::try_take(&self.path)? else {
            let holder = File::open(&self.path).and_then(|mut file| content(&mut file)).ok();
            return Ok(Answer::Held { holder: holder.and_then(|(_, holder)| holder), remaining: None });
        };
        let (epoch, _) = content(&mut lock.0)?;
        let epoch = epoch + 1;
        lock.0.set_len(0)?;
        lock.0.rewind()?;
        writeln!(lock.0, "{epoch} {}", self.instance)?;
        self.lock = Some(lock);
        // When the one before ended is not known.
        Ok(Answer::Granted { epoch, before: None })
    }

    /// Proves that the locked file is still the one that others would lock.
    pub(super) fn renew(&mut self, _epoch: u64) -> Result<Renewal, LeaseError> {
        let is_there = match &self.lock {
            Some(lock) => lock.is_at(&self.path).map_err(|error| self.failed("look at", &error))?,
            None => false,
        };
        if is_there {
            return Ok(Renewal::Kept);
        }
        self.lock = None;
        Ok(Renewal::Lost { holder: None })
    }

    /// Frees the lock.
    pub(super) fn release(&mut self, _epoch: u64) -> Result<(), LeaseError> {
        self.lock = None;
        Ok(())
    }

    fn failed(&self, what: &'static str, error: &io::Error) -> LeaseError {
        LeaseError::File { what, path: self.path.display().to_string(), reason: error.to_string() }
    }
}

impl Lock {
    /// The file of a deployment name. Names are [a-z0-9_-], so it is no file of a checkpoint.
    pub fn path(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.lock"))
    }

    /// `None` when another has it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn try_take(path: &Path) -> io::Result<Option<Lock>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lock = Lock(file);
        // Removed between opening and locking, it would be locked for nobody else.
        Ok(lock.is_at(path)?.then_some(lock))
    }

    /// False when the file was removed, or another has its name.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let held = self.0.metadata()?;
        Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
    }
}

/// How often the lock was taken, and by whom last; zero and nobody where that cannot be read.
fn content(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let mut bytes = Vec::new();
    file.take(CONTENT_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (epoch, holder) = text.trim_end().split_once(' ').unwrap_or_default();
    Ok((epoch.parse().unwrap_or(0), (!holder.is_empty()).then(|| holder.to_owned())))
}
