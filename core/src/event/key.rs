//! The key that keeps the events of one document together: a 64-bit hash of `ns` and `documentKey._id`.
//!
//! The function is XXH3-64, a published and frozen one, chained: the hash of each part seeds the next, from seed 0 over the
//! database, the collection and the `_id`. Values that MongoDB takes for the same `_id` hash alike, whatever their types:
//!
//! - a number that is a whole one within 64 bits: its 8 bytes, little endian; any other: those of its nearest double;
//! - a string or a symbol: its bytes;
//! - a document or an array: for every field its name, then its value;
//! - an ObjectId: its 12 bytes; a date: its milliseconds, little endian; a boolean: one byte; a timestamp: its seconds, then its
//!   increment, little endian; binary: its subtype, then its bytes;
//! - every other type: nothing but the tag.
//!
//! The BSON type's number (2 for text, 18 for whole numbers, 1 for others) is mixed into the seed before each value. A result
//! of zero becomes one. The key never leaves a process except as a number to shard by, so it may hash two documents alike:
//! they then only wait for each other.

use std::num::NonZeroU64;

use tailwater_raw::{Value, kind, number::Number};
use twox_hash::XxHash3_64;

/// Levels of an `_id` that are hashed; what is below does not count. The server allows about 100.
const LEVELS_MAX: u32 = 128;

/// The key of the document with this `_id` in `db.coll`.
pub(crate) fn of(db: &[u8], coll: &[u8], id: Value<'_>) -> Option<NonZeroU64> {
    let seed = mix(mix(0, db), coll);
    let hash = value(seed, id, 0)?;
    NonZeroU64::new(hash).or(NonZeroU64::new(1))
}

fn mix(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

fn tagged(seed: u64, tag: u8, bytes: &[u8]) -> u64 {
    mix(seed ^ u64::from(tag), bytes)
}

fn value(seed: u64, value: Value<'_>, level: u32) -> Option<u64> {
    Some(match value.kind() {
        kind::STRING | kind::SYMBOL => tagged(seed, kind::STRING, value.text()),
        kind @ (kind::DOCUMENT | kind::ARRAY) => fields(seed ^ u64::from(kind), value, level)?,
        kind::BINARY => {
            let (subtype, bytes) = value.binary();
            tagged(mix(seed, &[subtype]), kind::BINARY, bytes)
        }
        kind::TIMESTAMP => {
            let time = value.int64();
            let seconds = tagged(seed, kind::TIMESTAMP, &((time >> 32) as u32).to_le_bytes());
            tagged(seconds, kind::TIMESTAMP, &(time as u32).to_le_bytes())
        }
        // As they stand.
        kind @ (kind::OBJECT_ID | kind::DATE | kind::BOOLEAN) => tagged(seed, kind, value.bytes()),
        kind => match Number::of(value) {
            Some(Number::Int(n)) => tagged(seed, kind::INT64, &n.to_le_bytes()),
            Some(number) => tagged(seed, kind::DOUBLE, &number.nearest_double().to_le_bytes()),
            None => tagged(seed, kind, &[]),
        },
    })
}

fn fields(seed: u64, document: Value<'_>, level: u32) -> Option<u64> {
    if level == LEVELS_MAX {
        return Some(seed);
    }
    document.elements().try_fold(seed, |seed, element| {
        let element = element.ok()?;
        value(mix(seed, element.name), element.value, level + 1)
    })
}
