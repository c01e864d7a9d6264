//! A range of `_id`s of one collection, and where to cut a collection into ranges. Pure.
//!
//! Bounds are index bounds (`min`, `max` with a hint), not a query: `$gt` compares only within one BSON type, index bounds over
//! all of them, in the collection's own collation. Tried on mongod 6.0.5 with every type that an `_id` may have, with a default
//! collation, and on clustered collections:
//!
//! - `min` is inclusive, `max` exclusive; equal numbers of different types are the same place;
//! - `min` without `max` leaves out a document whose `_id` is MaxKey (on the `_id` index, not on a clustered one): the cursor
//!   asks for that one by name;
//! - `max` not above `min` is error 51175, which is an empty range.

use crate::snapshot::row::RowId;

/// Documents in a range, about: enough that a range's own queries cost nothing, few enough that several are read at once.
pub const RANGE_ROWS: u64 = 50_000;

/// Most ranges of one collection.
pub const RANGES_MAX: u64 = 64;

/// Documents looked at for each range when a collection is cut: with fewer the ranges become very uneven.
pub const SAMPLES_PER_RANGE: usize = 10;

/// A longer `_id` is not cut at, in bytes: the bounds are part of every checkpoint until the range is done.
const BOUND_BYTES_MAX: usize = 1024;

/// Number of a range within one [`Progress`](crate::snapshot::Progress); another start may number them otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeNumber(pub u32);

/// From one `_id` to another in one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Index of its collection.
    pub collection: usize,
    /// Inclusive; `None` = from the lowest.
    pub from: Option<RowId>,
    /// Exclusive; `None` = to the highest.
    pub until: Option<RowId>,
    /// The last row that is settled; all before it in the range are too.
    pub after: Option<RowId>,
    /// All rows are settled and there are no more.
    pub done: bool,
}

impl Range {
    /// One that nothing was read of.
    pub fn new(collection: usize, from: Option<RowId>, until: Option<RowId>) -> Range {
        Range { collection, from, until, after: None, done: false }
    }
}

/// Into how many ranges to cut a collection with about this many documents.
pub fn count_for(rows: u64) -> u64 {
    rows.div_ceil(RANGE_ROWS).clamp(1, RANGES_MAX)
}

/// Where to cut into `count` ranges, from `samples` in the order of the index. Fewer where the samples do not give as many; at
/// most `bytes_max` together.
pub fn cuts(samples: &[RowId], count: u64, bytes_max: usize) -> Vec<RowId> {
    let mut cuts: Vec<RowId> = Vec::new();
    let mut bytes = 0;
    for number in 1..count as usize {
        let Some(sample) = samples.get(number * samples.len() / count as usize) else { break };
        // A sample may come twice, and a small collection may give the same one for several cuts.
        if sample.bytes() <= BOUND_BYTES_MAX && cuts.last() != Some(sample) && bytes + sample.bytes() <= bytes_max {
            bytes += sample.bytes();
            cuts.push(sample.clone());
        }
    }
    cuts
}

/// The ranges between the cuts, from the lowest `_id` to the highest.
pub fn between(collection: usize, cuts: Vec<RowId>) -> Vec<Range> {
    let bounds: Vec<Option<RowId>> = [None].into_iter().chain(cuts.into_iter().map(Some)).chain([None]).collect();
    bounds.windows(2).map(|pair| Range::new(collection, pair[0].clone(), pair[1].clone())).collect()
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn ids(numbers: impl IntoIterator<Item = i32>) -> Vec<RowId> {
        numbers.into_iter().filter_map(|number| RowId::of(rawdoc! { "_id": number }.as_ref())).collect()
    }

    #[test]
    fn the_number_of_ranges_grows_with_the_collection_up_to_its_bound() {
        for (rows, expected) in [(0, 1), (1, 1), (50_000, 1), (50_001, 2), (200_000, 4), (u64::MAX, 64)] {
            assert_eq!(count_for(rows), expected, "{rows} rows");
        }
    }

    #[test]
    fn cuts_are_even_distinct_and_bounded() {
        assert_eq!(cuts(&ids(0..40), 4, 1 << 20), ids([10, 20, 30]));
        assert_eq!(cuts(&ids([5, 5, 5, 5]), 4, 1 << 20), ids([5]));
        assert_eq!(cuts(&[], 4, 1 << 20), []);
        assert_eq!(cuts(&ids(0..40), 1, 1 << 20), []);
        assert_eq!(cuts(&ids(0..40), 4, 30), ids([10, 20]), "14 bytes each");
        let long = RowId::of(rawdoc! { "_id": "x".repeat(2000) }.as_ref()).expect("an id");
        assert_eq!(cuts(&[long.clone(), long.clone(), long], 3, 1 << 20), []);
    }

    #[test]
    fn ranges_leave_nothing_out() {
        let ranges = between(3, ids([10, 20]));
        let bounds: Vec<_> = ranges.iter().map(|range| (range.from.clone(), range.until.clone())).collect();
        let [ten, twenty] = [ids([10]).pop(), ids([20]).pop()];
        assert_eq!(bounds, [(None, ten.clone()), (ten, twenty.clone()), (twenty, None)]);
        assert_eq!(between(0, Vec::new()), [Range::new(0, None, None)]);
        assert!(ranges.iter().all(|range| range.collection == 3 && !range.done && range.after.is_none()));
    }
}
