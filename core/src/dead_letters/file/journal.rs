//! A file of JSON Lines to which letters and their removals are appended. An append is in the file when it has reached the
//! disk, whole; what a crash has left of one is cut off at the next opening. Lines that count no more are left out when they
//! take more than the others: the file is written anew beside itself and put in its place. So it takes twice `bytes_max` at
//! most, and as much again while it is written anew. Blocks; time is passed in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bson::DateTime;
use tracing::warn;

use super::index::{Index, Line};
use super::line::{self, Head};
use super::{failed, later};
use crate::dead_letters::record::Record;
use crate::dead_letters::{Account, Chosen, DeadLetterError, Filter, LetterKey, Letters, Matched, Page, Stored};
use crate::event::EventId;

/// Less than this is not worth writing the file anew.
const GARBAGE_BYTES_MIN: u64 = 1 << 20;

/// How many removals are written at once.
const REMOVED_AT_ONCE: usize = 10_000;

/// The journal of one deployment name.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    index: Index,
    /// Up to here the file is whole and on the disk. Behind it may stand what a failed append has left.
    length: u64,
    /// Something may stand behind `length`: to be cut off before anything else is written.
    torn: bool,
    /// The name of the file may not have reached the disk: what is written to it next would be lost with it.
    unnamed: bool,
    bytes_max: u64,
    expire_after: Duration,
}

impl Journal {
    /// Reads a journal, or begins one. What is torn at its end is cut off; lines that are damaged before it go into a file
    /// beside it; both with a warning.
    pub fn open(
        path: &Path,
        bytes_max: u64,
        expire_after: Duration,
        now: DateTime,
    ) -> Result<Journal, DeadLetterError> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(|error| failed("open", path, &error))?;
        sync_folder(path)?;
        let index = Index::default();
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            index,
            length: 0,
            torn: false,
            unnamed: false,
            bytes_max,
            expire_after,
        };
        journal.read_all()?;
        // A full disk must not keep anybody from the letters, nor an operator from making room.
        if let Err(error) = journal.prune(now) {
            warn!("{error}; letters that have expired stay for now");
        }
        Ok(journal)
    }

    fn read_all(&mut self) -> Result<(), DeadLetterError> {
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let (mut line, mut damaged, mut number) = (Vec::new(), Vec::new(), 0);
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(|error| failed("read", &self.path, &error))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            number += 1;
            match line::read_head(&line) {
                Ok(Head::Letter { key, stub, updated }) => {
                    let (offset, updated_ms) = (self.length, updated.timestamp_millis());
                    self.index.insert(&key, Line { offset, bytes: bytes as u32, stub, updated_ms });
                }
                Ok(Head::Removed(key)) => drop(self.index.remove(&key)),
                Err(reason) => {
                    warn!("{} line {number}: {reason}", self.path.display());
                    damaged.extend_from_slice(&line);
                }
            }
            self.length += bytes as u64;
        }
        if !line.is_empty() {
            let (path, bytes) = (self.path.display(), line.len());
            warn!("{path}: cut off {bytes} bytes of a dead letter that was being written when the process ended");
            self.cut()?;
        }
        if !damaged.is_empty() {
            self.set_aside(&damaged)?;
        }
        Ok(())
    }

    /// Keeps damaged lines for whoever can make something of them, once, and the journal without them.
    fn set_aside(&mut self, damaged: &[u8]) -> Result<(), DeadLetterError> {
        let path = self.path.with_extension("damaged");
        let kept = File::options().create(true).append(true).open(&path);
        let kept = kept.and_then(|mut file| file.write_all(damaged).and_then(|()| file.sync_all()));
        kept.map_err(|error| failed("write", &path, &error))?;
        warn!("damaged lines of {} are kept in {}", self.path.display(), path.display());
        self.compact()
    }

    /// Takes away what stands behind the last whole append.
    fn cut(&mut self) -> Result<(), DeadLetterError> {
        self.torn = true;
        let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
        cut.map_err(|error| failed("cut", &self.path, &error))?;
        self.torn = false;
        Ok(())
    }

    /// Makes lines durable at the end, all of them or none.
    fn append(&mut self, lines: &[u8]) -> Result<(), DeadLetterError> {
        if self.torn {
            self.cut()?;
        }
        self.name()?;
        let written = self.file.write_all_at(lines, self.length).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if let Err(error) = self.cut() {
                warn!("{error}; tried again before the next letter");
            }
            return Err(failed("write dead letters to", &self.path, &error));
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// As after a compaction whose last step failed.
    #[cfg(test)]
    pub fn unname(&mut self) {
        self.unnamed = true;
    }

    /// After this the file survives a power cut under its name.
    fn name(&mut self) -> Result<(), DeadLetterError> {
        if self.unnamed {
            sync_folder(&self.path)?;
            self.unnamed = false;
        }
        Ok(())
    }

    pub fn account(&self) -> Account {
        self.index.account()
    }

    /// All of them, or none.
    pub fn put(&mut self, records: Vec<Record>, now: DateTime) -> Result<(), DeadLetterError> {
        let (mut lines, mut more, mut places) = (Vec::new(), 0, BTreeMap::new());
        for record in &records {
            let buried = match self.index.get(&record.key) {
                // One that is damaged is mended by this.
                Some(old) => self.read(&record.key, old).map_or(now, |old| old.summary.buried_at),
                None => now,
            };
            let text = line::write(&record.document, buried, now).map_err(|reason| damaged(&record.key, reason))?;
            let (offset, bytes) = (self.length + lines.len() as u64, text.len() as u32);
            let place = Line { offset, bytes, stub: record.stub, updated_ms: now.timestamp_millis() };
            // Of one letter twice the last counts.
            let before = places.insert(record.key.clone(), place).or_else(|| self.index.get(&record.key));
            more += i64::from(bytes) - before.map_or(0, |old| i64::from(old.bytes));
            lines.extend_from_slice(&text);
        }
        let (used, bytes) = (self.index.bytes(), u64::try_from(more).unwrap_or(0));
        let replaces_only = places.keys().all(|key| self.index.get(key).is_some());
        if used + bytes > self.bytes_max && !replaces_only {
            return Err(DeadLetterError::Full { used, bytes, bytes_max: self.bytes_max });
        }
        self.append(&lines)?;
        for (key, place) in places {
            self.index.insert(&key, place);
        }
        self.compact_if_worth();
        Ok(())
    }

    fn text(&self, line: Line) -> Result<Vec<u8>, DeadLetterError> {
        let mut text = vec![0; line.bytes as usize];
        let read = self.file.read_exact_at(&mut text, line.offset);
        read.map_err(|error| failed("read", &self.path, &error))?;
        Ok(text)
    }

    fn read(&self, key: &LetterKey, line: Line) -> Result<Stored, DeadLetterError> {
        line::read(&self.text(line)?).map_err(|reason| damaged(key, reason))
    }

    pub fn list(&self, filter: &Filter) -> Result<Page, DeadLetterError> {
        let wanted = |key: &LetterKey| filter.output.as_ref().is_none_or(|output| *output == key.output);
        let mut page = Page::default();
        for (key, line) in self.index.behind(filter.after.as_ref()).filter(|(key, _)| wanted(key)) {
            if page.letters.len() == filter.limit() {
                page.more = true;
                break;
            }
            page.letters.push(self.read(&key, line)?.summary);
        }
        Ok(page)
    }

    pub fn get(&self, key: &LetterKey) -> Result<Option<Stored>, DeadLetterError> {
        self.index.get(key).map(|line| self.read(key, line)).transpose()
    }

    pub fn count(&self, chosen: &Chosen) -> Matched {
        self.index.count(chosen)
    }

    pub fn load(
        &self,
        output: &str,
        letters: &Letters,
        after: Option<EventId>,
        limit: usize,
        bytes_max: u64,
    ) -> Result<Vec<Stored>, DeadLetterError> {
        let all: Box<dyn Iterator<Item = (LetterKey, Line)>> = match after {
            Some(after) => Box::new(self.index.behind_event(after)),
            None => Box::new(self.index.behind(None)),
        };
        let wanted = |key: &LetterKey| match letters {
            _ if key.output != output => false,
            Letters::All => true,
            Letters::Of(ids) => ids.contains(&key.id),
        };
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (key, line) in all.filter(|(key, _)| wanted(key)).take(limit) {
            bytes += u64::from(line.bytes);
            if bytes > bytes_max && !page.is_empty() {
                break;
            }
            page.push(self.read(&key, line)?);
        }
        Ok(page)
    }

    pub fn update(
        &mut self,
        key: &LetterKey,
        reason: &str,
        attempts: u32,
        now: DateTime,
    ) -> Result<bool, DeadLetterError> {
        let Some(old) = self.index.get(key) else { return Ok(false) };
        let text = line::with_reason(&self.text(old)?, reason, attempts, now);
        let text = text.map_err(|reason| damaged(key, reason))?;
        let offset = self.length;
        self.append(&text)?;
        let updated_ms = now.timestamp_millis();
        self.index.insert(key, Line { offset, bytes: text.len() as u32, updated_ms, ..old });
        self.compact_if_worth();
        Ok(true)
    }

    pub fn remove(&mut self, keys: &[LetterKey]) -> Result<u64, DeadLetterError> {
        let mut there: Vec<&LetterKey> = keys.iter().filter(|key| self.index.get(key).is_some()).collect();
        there.sort_unstable();
        there.dedup();
        for keys in there.chunks(REMOVED_AT_ONCE) {
            self.append(&keys.iter().flat_map(|key| line::write_removed(key)).collect::<Vec<u8>>())?;
            for key in keys {
                self.index.remove(key);
            }
        }
        self.compact_if_worth();
        Ok(there.len() as u64)
    }

    pub fn drop_chosen(&mut self, chosen: &Chosen) -> Result<u64, DeadLetterError> {
        let keys: Vec<LetterKey> = self.index.behind(None).map(|(key, _)| key).filter(|key| chosen.has(key)).collect();
        self.remove(&keys)
    }

    /// Removes what was last written longer than `expire_after` ago.
    pub fn prune(&mut self, now: DateTime) -> Result<(), DeadLetterError> {
        let old =
            |line: &Line| later(DateTime::from_millis(line.updated_ms), self.expire_after) <= now.timestamp_millis();
        let keys: Vec<LetterKey> = self.index.behind(None).filter(|(_, line)| old(line)).map(|(key, _)| key).collect();
        self.remove(&keys).map(|_| ())
    }

    fn compact_if_worth(&mut self) {
        let garbage = self.length - self.index.bytes();
        if garbage > self.index.bytes().max(GARBAGE_BYTES_MIN) {
            // What was asked for is done and durable; that the file is longer than it need be hurts nobody yet.
            if let Err(error) = self.compact() {
                warn!("{error}; the file stays longer than it need be");
            }
        }
    }

    /// Writes the file anew with only the lines that count, and puts it in the place of the old one.
    fn compact(&mut self) -> Result<(), DeadLetterError> {
        let temporary = self.path.with_extension("jsonl.new");
        let (file, index, length) = self.copy(&temporary).map_err(|error| failed("write", &temporary, &error))?;
        fs::rename(&temporary, &self.path).map_err(|error| failed("replace", &self.path, &error))?;
        // From here on the new file is the journal, whether or not the next step fails.
        (self.file, self.index, self.length) = (file, index, length);
        self.unnamed = true;
        self.name()
    }

    fn copy(&self, temporary: &Path) -> io::Result<(File, Index, u64)> {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(temporary)?;
        let mut writer = BufWriter::with_capacity(1 << 20, &file);
        let (mut index, mut length, mut text) = (Index::default(), 0, Vec::new());
        for (key, line) in self.index.behind(None) {
            text.resize(line.bytes as usize, 0);
            self.file.read_exact_at(&mut text, line.offset)?;
            writer.write_all(&text)?;
            index.insert(&key, Line { offset: length, ..line });
            length += u64::from(line.bytes);
        }
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        index.remember(&self.index);
        Ok((file, index, length))
    }
}

/// A new name in a folder, or a file in the place of another, must survive a power cut too.
fn sync_folder(path: &Path) -> Result<(), DeadLetterError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed("sync", folder, &error))
}

fn damaged(key: &LetterKey, reason: String) -> DeadLetterError {
    DeadLetterError::Damaged { letter: key.to_string(), reason }
}
