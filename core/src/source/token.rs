//! Resume tokens: the whole token document, and the position decoded from it.
//!
//! A token stays opaque for resuming: the document is kept as the server made it, `_typeBits` included, because without
//! them the server refuses some tokens. Only the first fields of `_data` are decoded, for the position. This file knows
//! nothing of events, streams or checkpoints.
//!
//! `_data` is a KeyString in hex (facts from mongod's `resume_token.cpp` and `key_string.cpp`; seen on mongod 6.0.5). Every
//! field is a type byte and its value:
//!
//! | field | bytes | in formats |
//! | --- | --- | --- |
//! | clusterTime | `82`, seconds and increment, 4 bytes each, big endian | all |
//! | format | integer | all |
//! | token type | integer: 0 high-water mark, 128 event | 1, 2 |
//! | txnOpIndex | integer | all |
//! | fromInvalidate | `6E` false, `6F` true | 1, 2 |
//! | collection UUID | `5A 10 04` and 16 bytes; `14` (null) in format 2; may be absent before it | all |
//! | event identifier, fragment number | not decoded | |
//! | end | `04` | all |
//!
//! A non-negative integer is `29` for zero, else `2A + n` (n = 1 to 8) and n bytes, big endian, of twice the value; an odd
//! number there would mean that a fraction follows.

use std::{cmp::Ordering, fmt, sync::Arc};

use bson::{RawDocument, Timestamp, rawdoc};
use tailwater_raw::{Elements, kind};

/// A cluster time: seconds since 1970 in the upper 32 bits, the increment within the second in the lower ones.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp64(pub u64);

impl Timestamp64 {
    /// Seconds since 1970-01-01 UTC.
    pub fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number of the operation within its second, from 1.
    pub fn increment(self) -> u32 {
        self.0 as u32
    }
}

impl From<Timestamp> for Timestamp64 {
    fn from(time: Timestamp) -> Self {
        Self(u64::from(time.time) << 32 | u64::from(time.increment))
    }
}

impl From<Timestamp64> for Timestamp {
    fn from(time: Timestamp64) -> Self {
        Self { time: time.seconds(), increment: time.increment() }
    }
}

impl fmt::Display for Timestamp64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seconds(), self.increment())
    }
}

/// A place in the change stream, the same in every scope, for every filter and in every token format.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Cluster time of the event's oplog entry, or of the commit when it was written in a transaction.
    pub time: Timestamp64,
    /// Place of the event within its transaction or bulk entry, from 0.
    pub txn_op_index: u64,
}

/// A resume token: the server's whole document and what was decoded from it. Cheap to clone.
#[derive(Clone)]
pub struct Token {
    document: Arc<[u8]>,
    /// Where `_data` stands inside `document`.
    data_start: u32,
    data_len: u32,
    decoded: Decoded,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Decoded {
    position: Position,
    format: u8,
    is_event: bool,
    from_invalidate: bool,
}

/// Why a document is not a resume token this decoder understands. A retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token document has no `_data` field.
    #[error("decode resume token: the field _data is missing")]
    NoData,
    /// `_data` is not a string (servers before 4.0.7 sent binary ones).
    #[error("decode resume token: _data is {0}, not a string of hex digits")]
    DataType(&'static str),
    /// `_data` holds something that is not a hex digit, or half a byte.
    #[error("decode resume token: _data is not hex, at character {0}")]
    NotHex(usize),
    /// `_data` ends inside the named field.
    #[error("decode resume token: _data ends within the {0}")]
    Short(&'static str),
    /// The named field begins with another type byte than it may have.
    #[error("decode resume token: the {field} begins with the byte {found:#04x}, which is not its type")]
    FieldType {
        /// The field of the token.
        field: &'static str,
        /// The type byte found.
        found: u8,
    },
    /// The named field has a value that no server writes there.
    #[error("decode resume token: the {field} is {value}, which this version does not know")]
    Value {
        /// The field of the token.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// The document itself is damaged.
    #[error("decode resume token: the document is not valid BSON: {0}")]
    Bson(String),
}

impl Token {
    /// Copies a token document and decodes its position.
    ///
    /// # Errors
    /// When the document is no token of format 0, 1 or 2; the text names the field that is wrong.
    pub fn from_document(document: &RawDocument) -> Result<Token, TokenError> {
        let bytes = document.as_bytes();
        let (data_start, data) = find_data(document)?;
        let decoded = decode(data)?;
        Ok(Token { document: Arc::from(bytes), data_start: data_start as u32, data_len: data.len() as u32, decoded })
    }

    /// The token document as the server made it: what a stream is resumed with and what a checkpoint stores.
    pub fn document(&self) -> &RawDocument {
        RawDocument::from_bytes(&*self.document).expect("was a document when the token was made")
    }

    /// The token document's bytes, for accounting.
    pub fn bytes(&self) -> usize {
        self.document.len()
    }

    /// The position that the token stands for.
    pub fn position(&self) -> Position {
        self.decoded.position
    }

    /// `_data`: hex digits whose order is the stream's order between tokens of one format.
    pub fn data(&self) -> &str {
        let start = self.data_start as usize;
        std::str::from_utf8(&self.document[start..start + self.data_len as usize]).expect("only hex digits were let in")
    }

    /// Whether an event has this token; a high-water mark (a postBatchResumeToken on a quiet stream) is none.
    pub fn is_event(&self) -> bool {
        self.decoded.is_event
    }

    /// The token's format: 0 (4.0), 1 (all later servers), 2 (with `$changeStreamSplitLargeEvent`, and from 7.0).
    pub fn format(&self) -> u8 {
        self.decoded.format
    }

    /// Whether it is the token of an invalidate event, behind which only `startAfter` continues.
    pub fn from_invalidate(&self) -> bool {
        self.decoded.from_invalidate
    }

    /// The same place in the stream without what names the document: cut behind the collection's UUID. No stream is resumed with it.
    pub fn without_key(&self) -> Token {
        let mut reader = Reader { digits: self.data().as_bytes() };
        // It was decoded before; of what nobody knows to read, only the time is kept.
        let end = reader.end_of_collection().map(|rest| &self.data()[..self.data().len() - rest]);
        let data = end.map(|data| format!("{data}{END:02X}"));
        let data = data.unwrap_or_else(|_| format!("82{:016X}2B0229296E04", self.position().time.0));
        Token::from_document(&rawdoc! { "_data": data }).expect("written as it is read")
    }

    /// Whether the event of this token is to be delivered when everything up to `other` has been.
    ///
    /// The positions decide. Where they are equal, `_data` decides between tokens of one format; where the formats differ
    /// nothing can be said, so the answer is yes: delivered again, never skipped.
    pub fn is_after(&self, other: &Token) -> bool {
        match self.position().cmp(&other.position()) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal if self.format() == other.format() => {
                let digits = |token: &'_ Token| token.data().to_ascii_uppercase();
                self.data() != other.data() && digits(self) > digits(other)
            }
            Ordering::Equal => true,
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("data", &self.data()).field("decoded", &self.decoded).finish()
    }
}

/// Tokens are equal when the server would call them so: `_data` is.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.data().eq_ignore_ascii_case(other.data())
    }
}

impl Eq for Token {}

/// Finds `_data` and its offset within the document.
fn find_data(document: &RawDocument) -> Result<(usize, &[u8]), TokenError> {
    let found = Elements::of(document).find(b"_data").map_err(|e| TokenError::Bson(e.to_string()))?;
    let data = found.ok_or(TokenError::NoData)?;
    match data.value.kind() {
        kind::STRING => Ok((data.start + 4, data.value.text())),
        kind::BINARY => Err(TokenError::DataType("binary")),
        _ => Err(TokenError::DataType("of another type")),
    }
}

fn decode(digits: &[u8]) -> Result<Decoded, TokenError> {
    if let Some(at) = first_not_hex(digits) {
        return Err(TokenError::NotHex(at));
    }
    let mut reader = Reader { digits };
    let time = reader.timestamp("cluster time")?;
    let format = match reader.integer("format")? {
        format @ 0..=2 => format as u8,
        value => return Err(TokenError::Value { field: "format", value }),
    };
    let token_type = if format == 0 { None } else { Some(reader.integer("token type")?) };
    let txn_op_index = reader.integer("txnOpIndex")?;
    let from_invalidate = format != 0 && reader.bool("fromInvalidate")?;
    let next = reader.byte("collection UUID")?;
    if !matches!(next, END | BINARY | NULL) {
        return Err(TokenError::FieldType { field: "collection UUID", found: next });
    }
    let is_event = match token_type {
        Some(0) => false,
        Some(128) => true,
        Some(value) => return Err(TokenError::Value { field: "token type", value }),
        None => next == BINARY, // format 0: only a high-water mark has no UUID
    };
    Ok(Decoded { position: Position { time, txn_op_index }, format, is_event, from_invalidate })
}

/// The first character that is no hex digit, or the last one of an odd number. Without a branch per digit over good data,
/// since every event passes here.
fn first_not_hex(digits: &[u8]) -> Option<usize> {
    let is_hex = |b: u8| (b.wrapping_sub(b'0') < 10) | ((b | 0x20).wrapping_sub(b'a') < 6);
    let all_hex = |part: &[u8]| part.iter().fold(true, |all, b| all & is_hex(*b));
    let (blocks, rest) = digits.as_chunks::<16>();
    if blocks.iter().fold(true, |all, block| all & all_hex(block)) && all_hex(rest) {
        return if digits.len().is_multiple_of(2) { None } else { Some(digits.len() - 1) };
    }
    digits.iter().position(|b| !is_hex(*b))
}

/// The value of one hex digit: letters, of either case, have bit 6 set and end in 1 to 6.
fn nibble(digit: u8) -> u8 {
    (digit & 15) + 9 * (digit >> 6)
}

/// The number that eight digits are: as [`nibble`] in all of them at once, then neighbours are pushed together.
fn eight_digits(digits: [u8; 8]) -> u32 {
    let digits = u64::from_be_bytes(digits);
    let nibbles = (digits & 0x0f0f_0f0f_0f0f_0f0f) + 9 * (digits >> 6 & 0x0101_0101_0101_0101);
    let bytes = (nibbles >> 4 | nibbles) & 0x00ff_00ff_00ff_00ff;
    let pairs = (bytes >> 8 | bytes) & 0x0000_ffff_0000_ffff;
    (pairs >> 16 | pairs) as u32
}

const END: u8 = 0x04;
const NULL: u8 = 0x14;
const ZERO: u8 = 0x29;
const POSITIVE_1_BYTE: u8 = 0x2b;
const POSITIVE_8_BYTES: u8 = 0x32;
const BINARY: u8 = 0x5a;
const FALSE: u8 = 0x6e;
const TRUE: u8 = 0x6f;
const TIMESTAMP: u8 = 0x82;

/// Reads KeyString fields one after the other, straight from hex: most of a token is never asked for.
struct Reader<'a> {
    digits: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self, field: &'static str) -> Result<u8, TokenError> {
        Ok(self.big_endian(1, field)? as u8)
    }

    /// The next `len` bytes, at most 8, as a number.
    fn big_endian(&mut self, len: usize, field: &'static str) -> Result<u64, TokenError> {
        let (taken, rest) = self.digits.split_at_checked(2 * len).ok_or(TokenError::Short(field))?;
        self.digits = rest;
        let (eights, ones) = taken.as_chunks::<8>();
        let value = eights.iter().fold(0, |value, digits| value << 32 | u64::from(eight_digits(*digits)));
        Ok(ones.iter().fold(value, |value, digit| value << 4 | u64::from(nibble(*digit))))
    }

    fn timestamp(&mut self, field: &'static str) -> Result<Timestamp64, TokenError> {
        match self.byte(field)? {
            TIMESTAMP => Ok(Timestamp64(self.big_endian(8, field)?)),
            found => Err(TokenError::FieldType { field, found }),
        }
    }

    fn integer(&mut self, field: &'static str) -> Result<u64, TokenError> {
        match self.byte(field)? {
            ZERO => Ok(0),
            kind @ POSITIVE_1_BYTE..=POSITIVE_8_BYTES => {
                let doubled = self.big_endian(usize::from(kind - POSITIVE_1_BYTE + 1), field)?;
                if doubled & 1 == 0 { Ok(doubled >> 1) } else { Err(TokenError::Value { field, value: doubled }) }
            }
            found => Err(TokenError::FieldType { field, found }),
        }
    }

    /// How many digits are behind the collection's UUID, where there is one.
    fn end_of_collection(&mut self) -> Result<usize, TokenError> {
        self.timestamp("cluster time")?;
        let format = self.integer("format")?;
        if format != 0 {
            self.integer("token type")?;
        }
        self.integer("txnOpIndex")?;
        if format != 0 {
            self.bool("fromInvalidate")?;
        }
        let field = "collection UUID";
        let before = self.digits.len();
        match self.byte(field)? {
            // Its length and subtype, and the two halves.
            BINARY => [2, 8, 8].iter().try_for_each(|len| self.big_endian(*len, field).map(drop))?,
            NULL => {}
            _ => return Ok(before),
        }
        Ok(self.digits.len())
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, TokenError> {
        match self.byte(field)? {
            FALSE => Ok(false),
            TRUE => Ok(true),
            found => Err(TokenError::FieldType { field, found }),
        }
    }
}

#[cfg(test)]
mod tests;
