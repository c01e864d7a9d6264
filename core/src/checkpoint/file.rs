//! Checkpoints in a folder: one small file per output, replaced as a whole (temporary file, fsync, rename, fsync of the
//! folder). The folder is locked as long as the store lives.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bson::{Bson, Document};

use crate::checkpoint::CheckpointError;
use crate::source::place::{Place, PlaceError};

/// Checkpoints of one deployment name.
pub struct FileStore {
    folder: PathBuf,
    name: String,
    /// Held, never read: the lock ends with it.
    _lock: File,
}

impl FileStore {
    /// Makes the folder when it is not there, and locks it.
    ///
    /// # Errors
    /// [`CheckpointError::InUse`], or what the file system says.
    pub fn open(folder: &Path, name: &str) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(|e| failed("create checkpoint folder", folder, &e))?;
        // The folder itself must survive a power cut, or the outputs would begin anew.
        if let Some(parent) = folder.canonicalize().ok().as_deref().and_then(Path::parent) {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(|e| failed("sync", parent, &e))?;
        }
        let path = folder.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| failed("open", &path, &e))?;
        match lock.try_lock() {
            Ok(()) => Ok(FileStore { folder: folder.to_owned(), name: name.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse { path: folder.display().to_string() }),
            Err(TryLockError::Error(e)) => Err(failed("lock", &path, &e)),
        }
    }

    fn path(&self, output: &str) -> PathBuf {
        // Both names are [a-z0-9_-]: the dot between them cannot be part of either.
        self.folder.join(format!("{}.{output}.json", self.name))
    }

    /// See [`crate::checkpoint::Store::load`].
    pub async fn load(&self, output: &str) -> Result<Option<Place>, CheckpointError> {
        let path = self.path(output);
        let text = match tokio::fs::read(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read checkpoint", &path, &error)),
        };
        let damaged = |error| CheckpointError::Damaged { output: output.to_owned(), error };
        let stored = document(&text).map_err(|reason| damaged(PlaceError::Unknown(reason)))?;
        Place::from_document(&stored).map(Some).map_err(damaged)
    }

    /// See [`crate::checkpoint::Store::save`].
    pub async fn save(&self, output: &str, place: &Place) -> Result<(), CheckpointError> {
        let path = self.path(output);
        let temporary = path.with_extension("json.new");
        let text = Bson::Document(place.to_document()).into_canonical_extjson().to_string();
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || {
            replace(&folder, &temporary, &path, text.as_bytes()).map_err(|e| failed("write checkpoint", &path, &e))
        });
        written.await.unwrap_or_else(|e| Err(failed("write checkpoint", &self.folder, &io::Error::other(e))))
    }
}

fn replace(folder: &Path, temporary: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    // The rename itself must survive a power cut too.
    File::open(folder)?.sync_all()
}

fn document(text: &[u8]) -> Result<Document, String> {
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    Document::try_from(value).map_err(|e| e.to_string())
}

fn failed(what: &'static str, path: &Path, error: &io::Error) -> CheckpointError {
    CheckpointError::File { what, path: path.display().to_string(), reason: error.to_string() }
}
