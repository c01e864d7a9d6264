//! A file that whole lines are appended to. Knows nothing of events.
//!
//! Whatever is the same file to the operating system is one [`Lines`], so that two outputs never write into each other's lines
//! and one that takes back half a line takes back nothing of the other's.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    sync::{Arc, Mutex, Weak},
};

use tailwater_sdk::tokio::sync::Mutex as AsyncMutex;

/// One open file, shared by every output that writes to it. The lock is async: who waits for a slow pipe holds no thread.
pub(crate) type Shared = Arc<AsyncMutex<Lines>>;

/// An open file and the state of its end.
pub(crate) struct Lines {
    file: File,
    /// A regular file: what was half written can be taken back.
    regular: bool,
    /// The file ends within a line that must not be continued.
    torn: bool,
}

/// Standard output.
pub(crate) fn stdout() -> io::Result<Shared> {
    // A handle of its own, past the buffer of std's `Stdout`: a batch is one write, and an error is known when it happens.
    share(File::from(io::stdout().as_fd().try_clone_to_owned()?), None)
}

/// The end of the file at `path`, which is made where it does not exist.
pub(crate) fn append_to(path: &Path) -> io::Result<Shared> {
    share(OpenOptions::new().append(true).create(true).open(path)?, Some(path))
}

/// The one `Lines` of this file. `path` allows a look at what the file ends with.
fn share(file: File, path: Option<&Path>) -> io::Result<Shared> {
    /// By device and inode.
    type Open = HashMap<(u64, u64), Weak<AsyncMutex<Lines>>>;
    static OPEN: Mutex<Option<Open>> = Mutex::new(None);

    let metadata = file.metadata()?;
    let identity = (metadata.dev(), metadata.ino());
    let mut open = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let open = open.get_or_insert_default();
    open.retain(|_, lines| lines.strong_count() > 0);
    if let Some(lines) = open.get(&identity).and_then(Weak::upgrade) {
        return Ok(lines);
    }
    let regular = metadata.is_file();
    let torn = match path {
        Some(path) if regular => ends_within_a_line(path)?,
        _ => false,
    };
    let lines = Arc::new(AsyncMutex::new(Lines { file, regular, torn }));
    open.insert(identity, Arc::downgrade(&lines));
    Ok(lines)
}

/// True where a process was killed while it wrote.
fn ends_within_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

impl Lines {
    /// Writes `lines`, which end with a newline. After an error nothing was written as far as possible, and no half of a line is
    /// ever continued.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let before = if self.regular { Some(self.file.seek(SeekFrom::End(0))?) } else { None };
        let written = match self.torn {
            true => self.file.write_all(b"\n").and_then(|()| self.file.write_all(lines)),
            false => self.file.write_all(lines),
        };
        match written {
            Ok(()) => self.torn = false,
            // The events come again. Where the half that was written cannot be taken back, they begin on a line of their own.
            Err(_) => self.torn |= before.is_none_or(|length| self.file.set_len(length).is_err()),
        }
        written
    }

    /// Forces what was written onto the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.regular { self.file.sync_data() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).expect("the file can be read")
    }

    #[test]
    fn a_half_line_left_by_a_killed_process_is_not_continued() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "{\"id\":1}\n{\"id").expect("a file");
        let lines = append_to(&path).expect("it opens");
        lines.blocking_lock().write(b"{\"id\":2}\n").expect("a write");
        lines.blocking_lock().write(b"{\"id\":3}\n").expect("a write");
        assert_eq!(read(&path), "{\"id\":1}\n{\"id\n{\"id\":2}\n{\"id\":3}\n");
    }

    #[test]
    fn one_file_under_two_names_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let lines = append_to(&first).expect("it opens");
        std::fs::hard_link(&first, &second).expect("a link");
        assert!(Arc::ptr_eq(&lines, &append_to(&second).expect("it opens")));
        drop(lines);
        assert_eq!(Arc::strong_count(&append_to(&second).expect("it opens again")), 1);
    }

    #[test]
    fn what_cannot_be_taken_back_is_ended_before_the_next_line() {
        // /dev/full takes nothing and cannot be cut: the state after it must be "torn".
        let lines = append_to(Path::new("/dev/full")).expect("it opens");
        let mut lines = lines.blocking_lock();
        assert_eq!(lines.write(b"x\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(lines.torn);
    }
}
