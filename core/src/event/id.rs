//! Event ids: 33 characters that name one event the same way on every instance and for every filter and token format.
//!
//! `<T, 16 hex>-<txnOpIndex, 8 hex><hash, 8 hex>`, lower case:
//!
//! - T is the cluster time, seconds then increment, so that ids sort by time;
//! - txnOpIndex above 2^32 - 1 is written as that (no transaction is so long);
//! - hash is the first 4 bytes of the SHA-256 of one BSON document: `{operationType, ns, documentKey}`, these fields in this
//!   order with the event's own bytes as their values (string, document, document), those that the event does not have
//!   left out. The document is hashed with its length and its final zero, so any BSON library makes the same bytes.
//!
//! `<T>-0000000000000000` is a position without an event: from T on, inclusive. An event at index 0 whose hash is zero
//! looks like it, and is then read as it: delivered again, never skipped.
//!
//! `<T of the snapshot>-<hash, 16 hex>` names a row of a snapshot: the first 8 bytes of the SHA-256 of the BSON document
//! `{ns, _id}`, with the `ns` of the event and the document's own `_id` as their values; zero is written as 1, so that a row
//! never looks like a position. T sorts it between what was before the snapshot began and what came after; within T its
//! digits say nothing of a position.

mod sha;

use std::{fmt, str::FromStr};

use crate::source::token::{Position, Timestamp64};

/// The id of one event, or a position without an event. 33 ASCII characters.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId([u8; EventId::LEN]);

/// Why a text is not an event id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventIdError {
    /// Not 33 bytes long.
    #[error("read event id: it has {0} characters instead of 33 (16 hex digits, a hyphen, 16 hex digits)")]
    Length(usize),
    /// The 17th character is not a hyphen.
    #[error("read event id: the 17th character is not a hyphen")]
    Hyphen,
    /// Something else than `0-9a-f` stands where a digit belongs.
    #[error("read event id: character {0} is not a lower-case hex digit")]
    Digit(usize),
}

/// The parts of an event that its id is made of; each as the raw BSON value (not the element) that the event carries.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Identity<'a> {
    pub operation_type: &'a [u8],
    pub ns: Option<&'a [u8]>,
    pub document_key: Option<&'a [u8]>,
}

impl EventId {
    /// Characters in an id.
    pub const LEN: usize = 33;

    /// The position without an event: from `time` on, inclusive.
    pub fn at(time: Timestamp64) -> EventId {
        EventId::from_parts(Position { time, txn_op_index: 0 }, 0)
    }

    /// The id of the event at `position` whose identity hashes to `hash`.
    pub fn from_parts(position: Position, hash: u32) -> EventId {
        let mut text = [b'-'; EventId::LEN];
        let index = u32::try_from(position.txn_op_index).unwrap_or(u32::MAX);
        write_hex(&mut text[..16], position.time.0);
        write_hex(&mut text[17..25], u64::from(index));
        write_hex(&mut text[25..], u64::from(hash));
        EventId(text)
    }

    pub(crate) fn of_event(position: Position, identity: Identity<'_>) -> EventId {
        EventId::from_parts(position, identity.hash())
    }

    /// The id of the row of a snapshot at `time`: the document whose `_id` has this BSON type and value, in the namespace with
    /// this raw `ns`.
    pub(crate) fn of_row(time: Timestamp64, ns: &[u8], id_kind: u8, id: &[u8]) -> EventId {
        let ns_name: &[u8] = b"\x03ns\0";
        let id_name = [id_kind, b'_', b'i', b'd', 0];
        let len = (ns_name.len() + ns.len() + id_name.len() + id.len() + 5) as u32;
        let hash = sha::first_two_words([&len.to_le_bytes(), ns_name, ns, &id_name, id, &[0]]).max(1);
        let position = Position { time, txn_op_index: hash >> 32 };
        EventId::from_parts(position, hash as u32)
    }

    /// The id's 33 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is ASCII")
    }

    /// Time and index; the index is at most 2^32 - 1.
    pub fn position(&self) -> Position {
        Position { time: Timestamp64(read_hex(&self.0[..16])), txn_op_index: read_hex(&self.0[17..25]) }
    }

    /// The first 4 bytes of the identity's SHA-256, big endian.
    pub fn hash(&self) -> u32 {
        read_hex(&self.0[25..]) as u32
    }

    /// Whether this is a position without an event.
    pub fn is_position(&self) -> bool {
        self.0[17..].iter().all(|b| *b == b'0')
    }
}

impl Identity<'_> {
    /// Hashes the BSON document described at the top of this file.
    fn hash(&self) -> u32 {
        const OPERATION_TYPE: &[u8] = b"\x02operationType\0";
        const NS: &[u8] = b"\x03ns\0";
        const DOCUMENT_KEY: &[u8] = b"\x03documentKey\0";
        let fields = [
            Some((OPERATION_TYPE, self.operation_type)),
            self.ns.map(|ns| (NS, ns)),
            self.document_key.map(|key| (DOCUMENT_KEY, key)),
        ];
        let fields = fields.into_iter().flatten();
        let len = fields.clone().map(|(name, value)| name.len() + value.len()).sum::<usize>() + 5;
        let len = (len as u32).to_le_bytes();
        let fields = fields.flat_map(|(name, value)| [name, value]);
        sha::first_word(std::iter::once(&len[..]).chain(fields).chain([&[0][..]]))
    }
}

/// Writes the low digits of `value`, as many as `text` has room for.
fn write_hex(text: &mut [u8], mut value: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// Reads hex digits that were checked before.
fn read_hex(text: &[u8]) -> u64 {
    text.iter().fold(0, |value, b| value << 4 | u64::from(if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 }))
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; EventId::LEN] =
            text.as_bytes().try_into().map_err(|_| EventIdError::Length(text.chars().count()))?;
        for (at, byte) in bytes.iter().enumerate() {
            match at {
                16 if *byte != b'-' => return Err(EventIdError::Hyphen),
                16 => {}
                _ if byte.is_ascii_digit() || (b'a'..=b'f').contains(byte) => {}
                _ => return Err(EventIdError::Digit(at + 1)),
            }
        }
        Ok(EventId(bytes))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_parts_in_order() {
        let position = Position { time: Timestamp64(0x6b02_4d1b_0000_0005), txn_op_index: 0x1a };
        let id = EventId::from_parts(position, 0xdead_beef);
        assert_eq!(id.as_str(), "6b024d1b00000005-0000001adeadbeef");
        assert_eq!((id.position(), id.hash(), id.is_position()), (position, 0xdead_beef, false));
        assert_eq!(id.as_str().parse(), Ok(id));
        let huge = Position { txn_op_index: u64::MAX, ..position };
        assert_eq!(EventId::from_parts(huge, 0).as_str(), "6b024d1b00000005-ffffffff00000000");
        let at = EventId::at(position.time);
        assert_eq!((at.as_str(), at.is_position()), ("6b024d1b00000005-0000000000000000", true));
        assert!(at < id);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let check = |text: &str, expected| assert_eq!(text.parse::<EventId>(), Err(expected), "{text}");
        check("", EventIdError::Length(0));
        check("6b024d1b00000005-0000001adeadbeef0", EventIdError::Length(34));
        check("6b024d1b00000005_0000001adeadbeef", EventIdError::Hyphen);
        check("6B024d1b00000005-0000001adeadbeef", EventIdError::Digit(2));
        check("6b024d1b00000005-0000001adeadbeeg", EventIdError::Digit(33));
    }

    /// The digest was made with Python's `hashlib` over `bson.encode` of pymongo.
    #[test]
    fn hash_is_that_of_the_bson_document() {
        let ns = bson::rawdoc! { "db": "shop", "coll": "orders" };
        let key = bson::rawdoc! { "_id": 1 };
        let check = |identity: Identity<'_>, expected: u32| assert_eq!(identity.hash(), expected);
        let insert = b"\x07\0\0\0insert\0";
        check(
            Identity { operation_type: insert, ns: Some(ns.as_bytes()), document_key: Some(key.as_bytes()) },
            0xbbe1_ee31,
        );
        let drop = b"\x0d\0\0\0dropDatabase\0";
        check(Identity { operation_type: drop, ns: Some(ns.as_bytes()), document_key: None }, 0xdb5d_bee2);
        check(Identity { operation_type: drop, ns: None, document_key: None }, 0x8493_30bb);
    }

    /// Made with Python, the BSON written out by hand:
    /// `hashlib.sha256(b"\x35\0\0\0" b"\x03ns\0" b"\x23\0\0\0\x02db\0\x05\0\0\0shop\0\x02coll\0\x07\0\0\0orders\0\0"
    /// b"\x10_id\0\x01\0\0\0" b"\0").hexdigest()[:16]`, and so on.
    #[test]
    fn a_row_is_named_by_namespace_and_id() {
        let ns = bson::rawdoc! { "db": "shop", "coll": "orders" };
        let check = |kind: u8, id: &[u8], expected: &str| {
            let id = EventId::of_row(Timestamp64(0x6b02_4d1b_0000_0005), ns.as_bytes(), kind, id);
            assert_eq!(id.as_str(), format!("6b024d1b00000005-{expected}"));
            assert!(!id.is_position());
        };
        check(0x10, &1i32.to_le_bytes(), "2841ffb08685491a");
        check(0x02, b"\x02\0\0\0a\0", "d3e20a63cc62dae4");
        check(0x0a, b"", "300a7dc5e1d41e97");
    }
}
