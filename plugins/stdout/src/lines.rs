//! A file that whole lines are appended to. Knows nothing of events.
//!
//! Whatever is the same file to the operating system is one [`Lines`], so that two outputs never write into each other's lines
//! and one that takes back half a line takes back nothing of the other's.

use std::{
    collections::HashMap,
    fs::{File, Metadata, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::{Arc, Mutex, Weak},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
};
use tailwater_sdk::tokio::sync::Mutex as AsyncMutex;

/// One open file, shared by every output that writes to it. The lock is async: who waits for a slow pipe holds no thread.
pub(crate) type Shared = Arc<AsyncMutex<Lines>>;

/// Device and inode: what makes a file the same.
type Identity = (u64, u64);

/// An open file and the state of its end.
pub(crate) struct Lines {
    file: File,
    identity: Identity,
    /// A regular file: what was half written can be taken back.
    regular: bool,
    /// The file ends within a line that must not be continued.
    torn: bool,
}

/// Standard output.
pub(crate) fn stdout() -> io::Result<Shared> {
    // A handle of its own, past the buffer of std's `Stdout`: a batch is one write, and an error is known when it happens.
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // The file behind it, where it was redirected to one: what was inherited is open for writing only.
    share(file, Path::new("/proc/self/fd/1"))
}

/// The end of the file at `path`, which is made where it does not exist.
///
/// # Errors
/// `ENXIO` where it is a named pipe that nobody reads. To wait for a reader would hold a thread that nothing can interrupt.
pub(crate) fn append_to(path: &Path) -> io::Result<Shared> {
    let file =
        OpenOptions::new().append(true).create(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    // Only the opening must not wait; a writer that waits for a slow reader is the way to slow down.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    share(file, path)
}

/// The one `Lines` of this file. `readable` is a path that leads to the same file, for a look at its end.
fn share(file: File, readable: &Path) -> io::Result<Shared> {
    type Open = HashMap<Identity, Weak<AsyncMutex<Lines>>>;
    static OPEN: Mutex<Option<Open>> = Mutex::new(None);

    let metadata = file.metadata()?;
    let identity = identity_of(&metadata);
    let mut open = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let open = open.get_or_insert_default();
    open.retain(|_, lines| lines.strong_count() > 0);
    if let Some(lines) = open.get(&identity).and_then(Weak::upgrade) {
        return Ok(lines);
    }
    let regular = metadata.is_file();
    // Where nobody may read it, an empty line does less harm than an event behind half of another one.
    let torn = regular && metadata.len() > 0 && ends_within_a_line(readable).unwrap_or(true);
    let lines = Arc::new(AsyncMutex::new(Lines { file, identity, regular, torn }));
    open.insert(identity, Arc::downgrade(&lines));
    Ok(lines)
}

fn identity_of(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// True where a process was killed while it wrote.
fn ends_within_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

impl Lines {
    /// False where `path` leads to another file by now, or to none: it was rotated or deleted, and nobody would ever find what
    /// is written here. Where the system does not say, it is taken for the same.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        match path.metadata() {
            Ok(metadata) => !self.regular || identity_of(&metadata) == self.identity,
            Err(error) => !self.regular || error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Writes `lines`, which end with a newline. After an error nothing was written as far as possible, and no half of a line is
    /// ever continued.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let before = if self.regular { Some(self.file.seek(SeekFrom::End(0))?) } else { None };
        let written = match self.torn {
            true => self.write_all(b"\n").and_then(|()| self.write_all(lines)),
            false => self.write_all(lines),
        };
        match written {
            Ok(()) => self.torn = false,
            // The events come again. Where the half that was written cannot be taken back, they begin on a line of their own.
            Err(_) => self.torn |= before.is_none_or(|length| self.file.set_len(length).is_err()),
        }
        written
    }

    /// As `Write::write_all`, but waits where the file was inherited as non-blocking: another process may have set that on the
    /// terminal or pipe that it shares with us, and half a batch would be left behind.
    fn write_all(&self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match (&self.file).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
    fn the_end_of_a_redirected_standard_output_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let table: [(&str, bool); 3] = [("", false), ("{}\n", false), ("{}\n{", true)];
        for (text, torn) in table {
            std::fs::write(&path, text).expect("a file");
            // As a shell's `>>`: for writing only, and looked at through the handle.
            let file = OpenOptions::new().append(true).open(&path).expect("it opens");
            let readable = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let lines = share(file, Path::new(&readable)).expect("it is shared");
            assert_eq!(lines.blocking_lock().torn, torn, "{text:?}");
        }
        let file = OpenOptions::new().append(true).open(&path).expect("it opens");
        let lines = share(file, Path::new("/nowhere")).expect("it is shared");
        assert!(lines.blocking_lock().torn, "an end that nobody may see is taken for torn");
    }

    #[test]
    fn a_non_blocking_pipe_is_waited_for() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        fcntl_setfl(&writer, OFlags::NONBLOCK).expect("a flag");
        let lines = share(File::from(std::os::fd::OwnedFd::from(writer)), Path::new("/nowhere")).expect("it is shared");
        // More than a pipe holds.
        let text = vec![b'x'; 1 << 20];
        let (length, sent) = (text.len(), text.clone());
        let writing = std::thread::spawn(move || lines.blocking_lock().write(&sent));
        let mut read = vec![0; length];
        reader.read_exact(&mut read).expect("all of it");
        assert!(read == text);
        writing.join().expect("no panic").expect("all of it was written");
    }

    #[test]
    fn a_file_that_was_moved_away_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let lines = append_to(&path).expect("it opens");
        let is_there = || lines.blocking_lock().is_at(&path);
        assert!(is_there());
        std::fs::rename(&path, folder.path().join("events.jsonl.1")).expect("a rotation");
        assert!(!is_there(), "moved away");
        std::fs::write(&path, "").expect("a file");
        assert!(!is_there(), "another file");
        assert!(append_to(Path::new("/dev/null")).expect("it opens").blocking_lock().is_at(&path), "no regular file");
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
