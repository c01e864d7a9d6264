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
//! The BSON type's number (2 for text, 18 for whole numbers, 1 for others) is mixed into the seed before each value. A result of zero becomes one. The key never leaves a process
//! except as a number to shard by, so it may hash two documents alike: they then only wait for each other.

use std::num::NonZeroU64;

use bson::{RawBsonRef, RawDocument, raw::RawElement, spec::ElementType};
use tailwater_match::number::Number;
use twox_hash::XxHash3_64;

/// Levels of an `_id` that are hashed; what is below does not count. The server allows about 100.
const LEVELS_MAX: u32 = 128;

/// The key of the document with this `_id` element in `db.coll`.
pub(crate) fn of(db: &str, coll: &str, id: &RawElement<'_>) -> Option<NonZeroU64> {
    let seed = mix(mix(0, db.as_bytes()), coll.as_bytes());
    let hash = value(seed, id.value().ok()?, id, 0)?;
    NonZeroU64::new(hash).or(NonZeroU64::new(1))
}

fn mix(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

fn tagged(seed: u64, tag: ElementType, bytes: &[u8]) -> u64 {
    mix(seed ^ u64::from(tag as u8), bytes)
}

fn value(seed: u64, value: RawBsonRef<'_>, element: &RawElement<'_>, level: u32) -> Option<u64> {
    Some(match value {
        RawBsonRef::ObjectId(id) => tagged(seed, ElementType::ObjectId, &id.bytes()),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => tagged(seed, ElementType::String, text.as_bytes()),
        RawBsonRef::Document(document) => fields(seed ^ ElementType::EmbeddedDocument as u64, document, level)?,
        RawBsonRef::Array(array) => {
            fields(seed ^ ElementType::Array as u64, RawDocument::from_bytes(array.as_bytes()).ok()?, level)?
        }
        RawBsonRef::Binary(binary) => tagged(mix(seed, &[binary.subtype.into()]), ElementType::Binary, binary.bytes),
        RawBsonRef::DateTime(date) => tagged(seed, ElementType::DateTime, &date.timestamp_millis().to_le_bytes()),
        RawBsonRef::Timestamp(time) => tagged(
            tagged(seed, ElementType::Timestamp, &time.time.to_le_bytes()),
            ElementType::Timestamp,
            &time.increment.to_le_bytes(),
        ),
        RawBsonRef::Boolean(value) => tagged(seed, ElementType::Boolean, &[u8::from(value)]),
        other => match Number::of(other) {
            Some(Number::Int(n)) => tagged(seed, ElementType::Int64, &n.to_le_bytes()),
            Some(number) => tagged(seed, ElementType::Double, &number.nearest_double().to_le_bytes()),
            None => tagged(seed, element.element_type(), &[]),
        },
    })
}

fn fields(seed: u64, document: &RawDocument, level: u32) -> Option<u64> {
    if level == LEVELS_MAX {
        return Some(seed);
    }
    document.iter_elements().try_fold(seed, |seed, element| {
        let element = element.ok()?;
        value(mix(seed, element.key().as_str().as_bytes()), element.value().ok()?, &element, level + 1)
    })
}
