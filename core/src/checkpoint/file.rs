//! Checkpoints in a folder: one small file per output, replaced as a whole (temporary file, fsync, rename, fsync of the
//! folder).
//!
//! Here no epoch is needed: who delivers holds a lock of the operating system ([`crate::lease::file`]), which lasts as long as
//! the process and cannot run out while that is stopped. There is no instance that still believes in a lock it has lost.
//!
//! A file holds the stored place and, beside it, `snapshot` and `paused` where there are; files of before there were those
//! are read as they are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bson::{Bson, Document};

use crate::checkpoint::{Checkpoint, CheckpointError, pause_or_resume};
use crate::source::place::{Place, PlaceError};

/// Checkpoints of one deployment name.
#[derive(Clone)]
pub struct FileStore {
    folder: PathBuf,
    name: String,
    /// Held from reading a file to replacing it, so that a pause and a place do not undo each other.
    writing: Arc<Mutex<()>>,
}

impl FileStore {
    /// Makes the folder when it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: &Path, name: &str) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(|e| failed("create checkpoint folder", folder, &e))?;
        // The folder itself must survive a power cut, or the outputs would begin anew.
        if let Some(parent) = folder.canonicalize().ok().as_deref().and_then(Path::parent) {
            sync(parent).map_err(|e| failed("sync", parent, &e))?;
        }
        Ok(FileStore { folder: folder.to_owned(), name: name.to_owned(), writing: Arc::default() })
    }

    fn path(&self, output: &str) -> PathBuf {
        // Both names are [a-z0-9_-]: the dot between them cannot be part of either.
        self.folder.join(format!("{}.{output}.json", self.name))
    }

    /// See [`crate::checkpoint::Store::load`].
    pub async fn load(&self, output: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        let output = output.to_owned();
        self.blocking(move |store| store.read(&output)).await
    }

    /// See [`crate::checkpoint::Store::peek`].
    pub async fn peek(&self, output: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        self.load(output).await
    }

    /// See [`crate::checkpoint::Store::list`].
    pub async fn list(&self) -> Result<Vec<(String, Checkpoint)>, CheckpointError> {
        self.blocking(FileStore::read_all).await
    }

    /// See [`crate::checkpoint::Store::save`].
    pub async fn save(&self, output: &str, place: &Place, snapshot: Option<&Document>) -> Result<(), CheckpointError> {
        let (output, place, snapshot) = (output.to_owned(), place.clone(), snapshot.cloned());
        self.blocking(move |store| {
            let paused = store.read(&output)?.is_some_and(|stored| stored.paused);
            store.replace(&output, &Checkpoint { place, snapshot, paused })
        })
        .await
    }

    /// See [`crate::checkpoint::Store::pause`].
    pub async fn pause(&self, output: &str, paused: bool) -> Result<(), CheckpointError> {
        let output = output.to_owned();
        self.blocking(move |store| match store.read(&output)? {
            Some(stored) => store.replace(&output, &Checkpoint { paused, ..stored }),
            None => Err(CheckpointError::Missing { what: pause_or_resume(paused), output }),
        })
        .await
    }

    /// See [`crate::checkpoint::Store::remove`].
    pub async fn remove(&self, output: &str) -> Result<(), CheckpointError> {
        let output = output.to_owned();
        self.blocking(move |store| {
            let path = store.path(&output);
            let removed = match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed.and_then(|()| sync(&store.folder)),
            };
            removed.map_err(|e| failed("remove checkpoint", &path, &e))
        })
        .await
    }

    /// Does it on a thread that may wait for the disk, one at a time. It is done to its end even when nobody waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FileStore) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = store.writing.lock().unwrap_or_else(PoisonError::into_inner);
            work(&store)
        });
        done.await.unwrap_or_else(|e| Err(failed("use checkpoints in", &self.folder, &io::Error::other(e))))
    }

    fn read(&self, output: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        let path = self.path(output);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read checkpoint", &path, &error)),
        };
        let damaged = |error| CheckpointError::Damaged { output: output.to_owned(), error };
        let stored = document(&text).map_err(|reason| damaged(PlaceError::Unknown(reason)))?;
        Ok(Some(Checkpoint {
            place: Place::from_document(&stored).map_err(damaged)?,
            snapshot: stored.get_document("snapshot").ok().cloned(),
            paused: stored.get_bool("paused").unwrap_or(false),
        }))
    }

    fn read_all(&self) -> Result<Vec<(String, Checkpoint)>, CheckpointError> {
        let reading = |e: &io::Error| failed("read checkpoint folder", &self.folder, e);
        let mut outputs = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| reading(&e))? {
            let file = entry.map_err(|e| reading(&e))?.file_name();
            let output = file.to_str().and_then(|file| file.strip_prefix(&self.name)?.strip_prefix('.'));
            outputs.extend(output.and_then(|output| output.strip_suffix(".json")).map(str::to_owned));
        }
        outputs.sort();
        let mut checkpoints = Vec::new();
        for output in outputs {
            if let Some(checkpoint) = self.read(&output)? {
                checkpoints.push((output, checkpoint));
            }
        }
        Ok(checkpoints)
    }

    fn replace(&self, output: &str, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut stored = checkpoint.place.to_document();
        if let Some(snapshot) = &checkpoint.snapshot {
            stored.insert("snapshot", snapshot.clone());
        }
        if checkpoint.paused {
            stored.insert("paused", true);
        }
        let path = self.path(output);
        let text = Bson::Document(stored).into_canonical_extjson().to_string();
        replace(&self.folder, &path, text.as_bytes()).map_err(|e| failed("write checkpoint", &path, &e))
    }
}

fn replace(folder: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself must survive a power cut too.
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn document(text: &[u8]) -> Result<Document, String> {
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    Document::try_from(value).map_err(|e| e.to_string())
}

fn failed(what: &'static str, path: &Path, error: &io::Error) -> CheckpointError {
    CheckpointError::File { what, path: path.display().to_string(), reason: error.to_string() }
}
