//! One range, read to its end: opened with index bounds, read in raw batches, opened again behind the last row handed out when
//! something passing goes wrong. Knows no other range and no progress.

use std::time::Duration;

use bson::raw::cstr;
use bson::{RawBson, RawDocument, RawDocumentBuf, doc, rawdoc};
use futures::StreamExt;
use mongodb::Client;
use mongodb::error::Error;
use mongodb::options::ReadPreference;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::event::{Event, RowHead};
use crate::snapshot::SnapshotError;
use crate::snapshot::metrics::SnapshotMetrics;
use crate::snapshot::plan::failed;
use crate::snapshot::progress::Namespace;
use crate::snapshot::range::Range;
use crate::snapshot::row::RowId;
use crate::source::error::{Class, classify, code, one_line};
use crate::source::token::Timestamp64;

/// What a reply should hold, in bytes. The server is only ever told a number of documents, which follows from their size.
const REPLY_BYTES: usize = 1 << 20;

/// A reply larger than this has the cursor opened again with fewer documents in each.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// Documents in the first reply, before their size is known, and the most in any.
const BATCH_FIRST: u32 = 100;
const BATCH_MAX: u32 = 2000;

/// A server that has not answered by then is given up, and asked for less.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Between attempts to go on.
const AGAIN: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(10) };

/// QueryPlanKilled and NamespaceNotFound: mostly a collection that was dropped or renamed.
const GONE: [i32; 2] = [175, 26];

/// Passing for a read of documents: CappedPositionLost, ReadConcernMajorityNotAvailableYet, SnapshotUnavailable, MaxTimeMSExpired.
const PASSING: [i32; 4] = [136, 134, 246, 50];

/// `max` is not above `min`: nothing is in between.
const EMPTY_BOUNDS: i32 = 51175;

/// The reading end of one range.
pub struct RangeCursor {
    client: Client,
    namespace: Namespace,
    head: RowHead,
    /// `after` is the last row handed out.
    range: Range,
    time: Timestamp64,
    /// The last row goes out again after an interruption: on another shard there may be one with the same `_id`.
    repeats: bool,
    metrics: SnapshotMetrics,
    stage: Stage,
    batch_size: u32,
    /// Documents taken out of the last reply, and the bytes of all in it.
    last: (usize, usize),
    failures: u32,
}

/// Where reading stands.
enum Stage {
    /// To be opened behind `range.after`.
    Closed,
    /// Between its bounds. `bounded`: with a lower one, so that the highest document of all is to be asked for by name.
    Open { cursor: Box<RawBatchCursor>, bounded: bool },
    /// All but a document whose `_id` is MaxKey, which index bounds leave out.
    Last,
    /// Nothing more.
    Ended,
}

/// What stands in the way of the next reply.
enum Trouble {
    Driver(Error),
    Late,
}

impl RangeCursor {
    /// Begins behind the last settled row of the range.
    ///
    /// # Errors
    /// When the names are none.
    pub fn new(
        client: Client,
        namespace: Namespace,
        range: Range,
        time: Timestamp64,
        repeats: bool,
        metrics: SnapshotMetrics,
    ) -> Result<RangeCursor, SnapshotError> {
        let head = RowHead::new(time, &namespace.db, &namespace.coll)
            .map_err(|error| SnapshotError::Undecodable { ns: namespace.to_string(), reason: error.to_string() })?;
        let (stage, batch_size, last, failures) = (Stage::Closed, BATCH_FIRST, (0, 0), 0);
        Ok(RangeCursor { client, namespace, head, range, time, repeats, metrics, stage, batch_size, last, failures })
    }

    /// The next documents, in the order of `_id`; `None` at the end. Each is to be given to [`RangeCursor::take`] before the next
    /// call. Waits as long as it takes, trying again after passing trouble. Not cancel-safe: run it in a task of its own.
    ///
    /// # Errors
    /// What no retry mends.
    pub async fn next(&mut self) -> Result<Option<RawBatch>, SnapshotError> {
        self.adapt();
        loop {
            match self.step().await {
                Ok(Some(reply)) => {
                    self.failures = 0;
                    let bytes = reply.doc_slices().map_or(0, |documents| documents.as_bytes().len());
                    self.last = (0, bytes);
                    return Ok(Some(reply));
                }
                Ok(None) if matches!(self.stage, Stage::Ended) => return Ok(None),
                Ok(None) => {}
                Err(trouble) => self.bear(trouble).await?,
            }
        }
    }

    /// The event of a document out of a reply; `None` where it was taken before.
    ///
    /// # Errors
    /// When it is none.
    pub fn take(&mut self, document: &RawDocument) -> Result<Option<Event>, SnapshotError> {
        self.last.0 += 1;
        let undecodable = |reason: String| SnapshotError::Undecodable { ns: self.namespace.to_string(), reason };
        let id = RowId::of(document).ok_or_else(|| undecodable("it has no _id".to_owned()))?;
        if self.range.after.as_ref() == Some(&id) && !self.repeats {
            return Ok(None);
        }
        let event = Event::from_row(&self.head, document).map_err(|error| undecodable(error.to_string()))?;
        self.range.after = Some(id);
        Ok(Some(event))
    }

    /// One exchange with the server; `None` where it led to another stage.
    async fn step(&mut self) -> Result<Option<RawBatch>, Trouble> {
        match &mut self.stage {
            Stage::Closed => self.stage = self.open().await?,
            Stage::Open { cursor, bounded } => {
                let reply = in_time(cursor.next()).await?.transpose().map_err(Trouble::Driver)?;
                if reply.is_some() {
                    return Ok(reply);
                }
                self.stage = if *bounded && self.range.until.is_none() { Stage::Last } else { Stage::Ended };
            }
            Stage::Last => {
                let reply = self.read_last().await?;
                self.stage = Stage::Ended;
                return Ok(reply);
            }
            Stage::Ended => {}
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<Stage, Trouble> {
        let mut command = self.command();
        let from = self.range.after.as_ref().or(self.range.from.as_ref()).and_then(RowId::document);
        let until = self.range.until.as_ref().and_then(RowId::document);
        for (name, bound) in [(cstr!("min"), from), (cstr!("max"), until)] {
            if let Some(bound) = bound {
                command.append(name, bound);
            }
        }
        let bounded = from.is_some();
        command.append(cstr!("hint"), rawdoc! { "_id": 1 });
        command.append(cstr!("sort"), rawdoc! { "_id": 1 });
        command.append(cstr!("batchSize"), i64::from(self.batch_size));
        // Not where: an `_id` may be anyone's secret.
        debug!(namespace = %self.namespace, again = self.range.after.is_some(), "open a range");
        let cursor = in_time(self.run(command)).await?.map_err(Trouble::Driver)?;
        Ok(Stage::Open { cursor: Box::new(cursor), bounded })
    }

    /// The document with the highest `_id` that there can be, if it is there.
    async fn read_last(&mut self) -> Result<Option<RawBatch>, Trouble> {
        let mut command = self.command();
        command.append(cstr!("filter"), rawdoc! { "_id": RawBson::MaxKey });
        command.append(cstr!("limit"), 1i64);
        command.append(cstr!("singleBatch"), true);
        let mut cursor = in_time(self.run(command)).await?.map_err(Trouble::Driver)?;
        in_time(cursor.next()).await?.transpose().map_err(Trouble::Driver)
    }

    /// Where the operator lets reads go in `source.uri`; the driver itself runs commands on the primary.
    async fn run(&mut self, command: RawDocumentBuf) -> Result<RawBatchCursor, Error> {
        let criteria = self.client.selection_criteria().cloned();
        let criteria = criteria.unwrap_or_else(|| ReadPreference::Primary.into());
        let database = self.client.database(&self.namespace.db);
        let cursor = database.run_raw_cursor_command(command).selection_criteria(criteria);
        cursor.batch_size(self.batch_size).batch().await
    }

    /// What all reads have in common. Majority alone could show a state from before the snapshot's time, whose changes the
    /// stream would not bring.
    fn command(&self) -> RawDocumentBuf {
        rawdoc! {
            "find": self.namespace.coll.as_str(),
            "readConcern": { "level": "majority", "afterClusterTime": bson::Timestamp::from(self.time) },
            "comment": "tailwater snapshot",
        }
    }

    /// Asks for as many documents as make a reply of the wanted size. The driver asks for the same number until the end, so
    /// another one needs another cursor.
    fn adapt(&mut self) {
        let (documents, bytes) = std::mem::take(&mut self.last);
        let Some(average) = bytes.checked_div(documents) else { return };
        let wanted = u32::try_from(REPLY_BYTES / average.max(1)).unwrap_or(BATCH_MAX).clamp(1, BATCH_MAX);
        let too_large = bytes > REPLY_BYTES_MAX && wanted < self.batch_size;
        let too_small = documents >= self.batch_size as usize && wanted / 4 >= self.batch_size;
        if (too_large || too_small) && matches!(self.stage, Stage::Open { .. }) {
            self.batch_size = wanted;
            self.stage = Stage::Closed;
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn bear(&mut self, trouble: Trouble) -> Result<(), SnapshotError> {
        let namespace = self.namespace.to_string();
        let reason = match &trouble {
            Trouble::Driver(error) => {
                let code = code(error).unwrap_or_default();
                if code == EMPTY_BOUNDS {
                    // What has the highest `_id` is above all bounds.
                    self.stage = if self.range.until.is_none() { Stage::Last } else { Stage::Ended };
                    return Ok(());
                }
                if GONE.contains(&code) && self.is_gone().await {
                    info!(
                        "{namespace} was dropped or renamed while the snapshot read it: its other documents are left out"
                    );
                    self.stage = Stage::Ended;
                    return Ok(());
                }
                let passes = classify(error) == Class::Passing || GONE.contains(&code) || PASSING.contains(&code);
                if !passes {
                    return Err(failed(error, &format!("read {namespace} for the snapshot")));
                }
                one_line(error)
            }
            Trouble::Late => {
                self.batch_size = (self.batch_size / 4).max(1);
                format!("no answer within {REPLY_WAIT_MAX:?}")
            }
        };
        // The last stage is taken up again as it is.
        if matches!(self.stage, Stage::Open { .. }) {
            self.stage = Stage::Closed;
        }
        self.failures = self.failures.saturating_add(1);
        self.metrics.interruptions.inc();
        let wait = AGAIN.delay(self.failures, rand::random());
        warn!(%namespace, ?wait, "reading for the snapshot broke, going on behind the last row: {reason}");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn is_gone(&mut self) -> bool {
        let database = self.client.database(&self.namespace.db);
        let names = database.list_collection_names().filter(doc! { "name": &self.namespace.coll }).await;
        names.is_ok_and(|names| names.is_empty())
    }
}

/// Bounds the wait for the server.
async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::time::timeout(REPLY_WAIT_MAX, answer).await.map_err(|_| Trouble::Late)
}
