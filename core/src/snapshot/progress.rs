//! How far a snapshot has come, in what is settled: all that a start after a crash needs. Pure.
//!
//! Bounded: the form in which it is stored stays under 8 MiB whatever the documents' `_id`s are. Collections and ranges that
//! are done are only counted. Where an `_id` is too long to be stored, its range begins further back after a restart: rows are
//! delivered again, never skipped.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocument, doc};

use crate::snapshot::range::{Range, RangeNumber};
use crate::snapshot::row::RowId;
use crate::source::token::Timestamp64;

/// Most collections in one snapshot; their names alone are then up to 3 MB.
pub const COLLECTIONS_MAX: usize = 10_000;

/// A longer `_id`, in bytes, is not stored as the place in a range: the last one that was short enough is.
const AFTER_BYTES_MAX: usize = 64 << 10;

/// Bytes of all places in ranges together in the stored form.
const LOWER_BYTES_MAX: usize = 2 << 20;

/// Bytes of all cuts of all collections together.
pub(crate) const CUTS_BYTES_MAX: usize = 1 << 20;

/// What of a snapshot is settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    time: Timestamp64,
    sharded: bool,
    collections: Vec<Namespace>,
    ranges: Vec<Range>,
    open: usize,
    total: u64,
    settled: u64,
    version: u64,
}

/// A collection by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    /// The database.
    pub db: String,
    /// The collection; may contain dots.
    pub coll: String,
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.db, self.coll)
    }
}

/// Why stored progress could not be read back. A retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read stored progress of a snapshot: {0}; begin the snapshot again with `tailwater snapshot`")]
pub struct ProgressError(String);

impl Progress {
    /// A snapshot that has not begun: about `total` documents, in these ranges of these collections, as of `time` or later.
    /// `sharded`: the same `_id` may be there once on each shard.
    pub fn new(
        time: Timestamp64,
        sharded: bool,
        collections: Vec<Namespace>,
        ranges: Vec<Range>,
        total: u64,
    ) -> Progress {
        let open = ranges.iter().filter(|range| !range.done).count();
        Progress { time, sharded, collections, ranges, open, total, settled: 0, version: 0 }
    }

    /// The snapshot's time: rows are as of then or later, the stream that follows begins there, inclusive.
    pub fn time(&self) -> Timestamp64 {
        self.time
    }

    /// Whether the deployment is a sharded cluster.
    pub fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// All rows of all ranges are settled.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// Documents that there were, about, when the snapshot began.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Rows that are settled.
    pub fn rows_settled(&self) -> u64 {
        self.settled
    }

    /// Rises with every change: whoever stores progress sees by it whether there is something new.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The ranges that are not done, with their collections.
    pub fn open_ranges(&self) -> impl Iterator<Item = (RangeNumber, &Namespace, &Range)> {
        let numbered = self.ranges.iter().enumerate().filter(|(_, range)| !range.done);
        numbered.filter_map(|(number, range)| {
            Some((RangeNumber(number as u32), self.collections.get(range.collection)?, range))
        })
    }

    /// The row `id` of the range and all rows of the range before it are settled; `rows` of them since the last call.
    pub fn settled(&mut self, number: RangeNumber, id: RowId, rows: u64) {
        self.settled += rows;
        self.version += 1;
        if let Some(range) = self.ranges.get_mut(number.0 as usize).filter(|range| !range.done) {
            // One that cannot be stored does not replace one that can.
            if id.bytes() <= AFTER_BYTES_MAX {
                range.after = Some(id);
            }
        }
    }

    /// All rows of the range are settled and there are no more.
    pub fn finished(&mut self, number: RangeNumber) {
        if let Some(range) = self.ranges.get_mut(number.0 as usize).filter(|range| !range.done) {
            range.done = true;
            (range.from, range.until, range.after) = (None, None, None);
            self.open -= 1;
            self.version += 1;
        }
    }

    /// The form in which progress is stored; below 8 MiB.
    pub fn to_document(&self) -> Document {
        let mut room = LOWER_BYTES_MAX;
        let mut stored: Vec<Bson> = Vec::new();
        let mut ranges: Vec<Bson> = Vec::new();
        let mut open = self.open_ranges().peekable();
        while let Some((_, namespace, range)) = open.next() {
            let mut entry = Document::new();
            let mut lower = |id: Option<&RowId>| -> Option<Bson> {
                let id = id.filter(|id| id.bytes() <= AFTER_BYTES_MAX.min(room))?;
                room -= id.bytes();
                Some(bound(id))
            };
            if let Some(after) = lower(range.after.as_ref()) {
                entry.insert("after", after);
            } else if let Some(from) = lower(range.from.as_ref()) {
                entry.insert("from", from);
            }
            if let Some(until) = range.until.as_ref().map(bound) {
                entry.insert("until", until);
            }
            ranges.push(entry.into());
            if open.peek().is_none_or(|(_, _, next)| next.collection != range.collection) {
                let ranges = std::mem::take(&mut ranges);
                stored.push(doc! { "db": &namespace.db, "coll": &namespace.coll, "ranges": ranges }.into());
            }
        }
        doc! {
            "time": Bson::Timestamp(self.time.into()),
            "sharded": self.sharded,
            "total": i64::try_from(self.total).unwrap_or(i64::MAX),
            "settled": i64::try_from(self.settled).unwrap_or(i64::MAX),
            "collections": stored,
        }
    }

    /// Reads what [`Progress::to_document`] wrote. Ranges have new numbers.
    ///
    /// # Errors
    /// When a field is missing or of another type. A retry does not help.
    pub fn from_document(stored: &Document) -> Result<Progress, ProgressError> {
        let number = |field: &str| stored.get_i64(field).map(|number| number.max(0) as u64);
        let time = stored.get_timestamp("time").map_err(wrong)?;
        let (mut collections, mut ranges) = (Vec::new(), Vec::new());
        for collection in stored.get_array("collections").map_err(wrong)? {
            let collection = collection.as_document().ok_or_else(|| wrong("a collection is no document"))?;
            let text = |field: &str| collection.get_str(field).map(str::to_owned).map_err(wrong);
            for range in collection.get_array("ranges").map_err(wrong)? {
                let range = range.as_document().ok_or_else(|| wrong("a range is no document"))?;
                let after = read_bound(range.get("after"))?;
                ranges.push(Range {
                    // Where the next place cannot be stored, this one still can.
                    from: read_bound(range.get("from"))?.or_else(|| after.clone()),
                    until: read_bound(range.get("until"))?,
                    after,
                    ..Range::new(collections.len(), None, None)
                });
            }
            collections.push(Namespace { db: text("db")?, coll: text("coll")? });
        }
        let total = number("total").map_err(wrong)?;
        let sharded = stored.get_bool("sharded").map_err(wrong)?;
        let settled = number("settled").map_err(wrong)?;
        Ok(Progress { settled, ..Progress::new(time.into(), sharded, collections, ranges, total) })
    }
}

/// An `_id` as a stored bound: in its own bytes, because not every value survives being taken apart and put together, nor the
/// way through JSON.
fn bound(id: &RowId) -> Bson {
    Binary { subtype: BinarySubtype::Generic, bytes: id.as_bytes().to_owned() }.into()
}

fn read_bound(stored: Option<&Bson>) -> Result<Option<RowId>, ProgressError> {
    match stored {
        None => Ok(None),
        Some(Bson::Binary(stored)) => {
            let id = RawDocument::from_bytes(&stored.bytes).ok().and_then(RowId::of);
            id.map(Some).ok_or_else(|| wrong("a bound holds no _id"))
        }
        Some(_) => Err(wrong("a bound is not binary")),
    }
}

fn wrong(reason: impl ToString) -> ProgressError {
    ProgressError(reason.to_string())
}

#[cfg(test)]
mod tests;
