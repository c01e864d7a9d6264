//! Reads what is open of a snapshot: a few ranges at once, each row with the range it is of, into one small bounded buffer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use mongodb::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::snapshot::SnapshotError;
use crate::snapshot::cursor::RangeCursor;
use crate::snapshot::metrics::SnapshotMetrics;
use crate::snapshot::progress::{Namespace, Progress};
use crate::snapshot::range::{Range, RangeNumber};
use crate::snapshot::row::Row;
use crate::source::token::Timestamp64;

/// Ranges of one snapshot that are read at once: more would take the server's cores from those it works for. Each needs a
/// connection.
pub const RANGES_AT_ONCE: usize = 4;

/// Rows and memory (KiB) that wait to be taken. Beyond them, each range that is read holds one reply of the server.
const ROWS_MAX: usize = 1024;
const BUFFER_KIB: u32 = 4096;

/// What the reader finds.
#[derive(Clone, Debug)]
pub enum Read {
    /// A document.
    Row(Row),
    /// The range has no more rows.
    Exhausted(RangeNumber),
}

/// The reading end of a snapshot. Dropped, all its reading ends.
pub struct SnapshotReader {
    found: mpsc::Receiver<Result<Found, SnapshotError>>,
    /// Taken out by [`SnapshotReader::more`].
    next: Option<Found>,
    failed: Option<SnapshotError>,
    /// Ranges that are not exhausted.
    open: usize,
    metrics: SnapshotMetrics,
    _tasks: JoinSet<()>,
}

struct Found {
    read: Read,
    /// Given back when the row is taken.
    _room: Option<OwnedSemaphorePermit>,
}

/// What all reading tasks of a snapshot share.
#[derive(Clone)]
struct Reading {
    client: Client,
    time: Timestamp64,
    sharded: bool,
    waiting: Arc<Mutex<VecDeque<(RangeNumber, Namespace, Range)>>>,
    room: Arc<Semaphore>,
    found: mpsc::Sender<Result<Found, SnapshotError>>,
    metrics: SnapshotMetrics,
}

impl SnapshotReader {
    /// Begins to read what is open in `progress`, each range behind its last settled row.
    pub fn start(client: &Client, progress: &Progress, metrics: &SnapshotMetrics) -> SnapshotReader {
        let waiting: VecDeque<_> = progress
            .open_ranges()
            .map(|(number, namespace, range)| (number, namespace.clone(), range.clone()))
            .collect();
        let open = waiting.len();
        let (sender, found) = mpsc::channel(ROWS_MAX);
        let reading = Reading {
            client: client.clone(),
            time: progress.time(),
            sharded: progress.is_sharded(),
            waiting: Arc::new(Mutex::new(waiting)),
            room: Arc::new(Semaphore::new(BUFFER_KIB as usize)),
            found: sender,
            metrics: metrics.clone(),
        };
        let mut tasks = JoinSet::new();
        for _ in 0..RANGES_AT_ONCE.min(open) {
            tasks.spawn(reading.clone().run());
        }
        SnapshotReader { found, next: None, failed: None, open, metrics: metrics.clone(), _tasks: tasks }
    }

    /// All ranges are exhausted, and all rows were taken.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// The next row or the end of a range; `None` when all is read. Cancel-safe.
    ///
    /// # Errors
    /// What no retry mends; the same again with each call.
    pub async fn next(&mut self) -> Result<Option<Read>, SnapshotError> {
        loop {
            if let Some(read) = self.try_next() {
                return Ok(Some(read));
            }
            if self.is_done() {
                return Ok(None);
            }
            self.more().await?;
        }
    }

    /// The same without waiting: `None` when there is nothing at the moment, and at the end.
    pub fn try_next(&mut self) -> Option<Read> {
        if self.next.is_none() {
            match self.found.try_recv() {
                Ok(Ok(found)) => self.next = Some(found),
                Ok(Err(error)) => self.failed = Some(error),
                Err(_) => {}
            }
        }
        let read = self.next.take()?.read;
        match &read {
            Read::Row(row) => {
                self.metrics.rows.inc();
                self.metrics.bytes.inc_by(row.event.raw().as_bytes().len() as u64);
            }
            Read::Exhausted(_) => self.open -= 1,
        }
        Some(read)
    }

    /// Waits until [`SnapshotReader::try_next`] has something; without end when all is read. Cancel-safe.
    ///
    /// # Errors
    /// As [`SnapshotReader::next`].
    pub async fn more(&mut self) -> Result<(), SnapshotError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.next.is_some() {
            return Ok(());
        }
        if self.is_done() {
            std::future::pending::<()>().await;
        }
        match self.found.recv().await {
            Some(Ok(found)) => {
                self.next = Some(found);
                Ok(())
            }
            other => {
                let error = other.and_then(Result::err).unwrap_or(SnapshotError::Ended);
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }
}

impl Reading {
    /// One range after the other, as long as there are some.
    async fn run(self) {
        loop {
            let range = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((number, namespace, range)) = range else { return };
            let found = match self.read(number, namespace, range).await {
                Ok(()) => Ok(Found { read: Read::Exhausted(number), _room: None }),
                Err(error) => Err(error),
            };
            let failed = found.is_err();
            if self.found.send(found).await.is_err() || failed {
                return;
            }
        }
    }

    async fn read(&self, number: RangeNumber, namespace: Namespace, range: Range) -> Result<(), SnapshotError> {
        let ns = namespace.to_string();
        let damaged =
            |error: &dyn std::fmt::Display| SnapshotError::Undecodable { ns: ns.clone(), reason: error.to_string() };
        let (client, metrics) = (self.client.clone(), self.metrics.clone());
        let mut cursor = RangeCursor::new(client, namespace, range, self.time, self.sharded, metrics)?;
        while let Some(reply) = cursor.next().await? {
            for document in reply.doc_slices().map_err(|error| damaged(&error))? {
                let document = document.map_err(|error| damaged(&error))?;
                let document = document.as_document().ok_or_else(|| damaged(&"it is not a document"))?;
                let Some(event) = cursor.take(document)? else { continue };
                let kib = u32::try_from(event.bytes() >> 10).unwrap_or(BUFFER_KIB).clamp(1, BUFFER_KIB);
                // Neither is ever closed while this task runs, except when the reader goes and the task with it.
                let Ok(room) = Arc::clone(&self.room).acquire_many_owned(kib).await else { return Ok(()) };
                let read = Read::Row(Row { event: Arc::new(event), range: number });
                if self.found.send(Ok(Found { read, _room: Some(room) })).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
