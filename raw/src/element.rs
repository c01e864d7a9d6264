//! Reads raw BSON where every nanosecond counts: the elements of a document, each as its type, its name and its bytes.
//!
//! Whoever asks for a document's elements gets each one checked to be whole, and nothing below it; damage ends the reading
//! with an error and never in a panic. The one thing left to the caller is UTF-8: names and texts are bytes here, since most
//! of them are compared or skipped. The oracle of the tests is the driver's library, which is several times slower.

use bson::RawDocument;

/// The numbers of BSON's types (bsonspec.org).
#[allow(missing_docs)]
pub mod kind {
    pub const DOUBLE: u8 = 0x01;
    pub const STRING: u8 = 0x02;
    pub const DOCUMENT: u8 = 0x03;
    pub const ARRAY: u8 = 0x04;
    pub const BINARY: u8 = 0x05;
    pub const UNDEFINED: u8 = 0x06;
    pub const OBJECT_ID: u8 = 0x07;
    pub const BOOLEAN: u8 = 0x08;
    pub const DATE: u8 = 0x09;
    pub const NULL: u8 = 0x0a;
    pub const REGEX: u8 = 0x0b;
    pub const DB_POINTER: u8 = 0x0c;
    pub const CODE: u8 = 0x0d;
    pub const SYMBOL: u8 = 0x0e;
    pub const CODE_WITH_SCOPE: u8 = 0x0f;
    pub const INT32: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x11;
    pub const INT64: u8 = 0x12;
    pub const DECIMAL128: u8 = 0x13;
    pub const MAX_KEY: u8 = 0x7f;
    pub const MIN_KEY: u8 = 0xff;
}

/// Why bytes are no BSON.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// A name without a final zero.
    #[error("a field has a type but its name has no end")]
    Name,
    /// A value that is cut off, says a wrong length, or has a type that there is not.
    #[error("a value has a wrong length or type")]
    Value,
    /// A text that is needed as one.
    #[error("a text is not UTF-8")]
    Text,
}

/// One field of a document, or one place of an array.
#[derive(Copy, Clone, Debug)]
pub struct Element<'a> {
    /// Its name without the final zero; not known to be UTF-8.
    pub name: &'a [u8],
    /// Where the value starts, in bytes from the beginning of the document.
    pub start: usize,
    /// Its value.
    pub value: Value<'a>,
}

/// A value: its type and its bytes, which are as many as the type asks for.
#[derive(Copy, Clone, Debug)]
pub struct Value<'a> {
    kind: u8,
    bytes: &'a [u8],
}

/// The elements of a document or an array, in their order. After an error there are no more.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    /// The document without its final zero.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    /// The elements of a document.
    #[inline]
    pub fn of(document: &'a RawDocument) -> Elements<'a> {
        Elements::new(document.as_bytes())
    }

    /// The elements of bytes that should be a document.
    ///
    /// # Errors
    /// When their number is not the one the document says, or its end is missing. Nothing else is looked at.
    pub fn checked(document: &'a [u8]) -> Result<Elements<'a>, Damaged> {
        if document_len(document) == Some(document.len()) { Ok(Elements::new(document)) } else { Err(Damaged::Value) }
    }

    /// The elements from the one that begins at `at`, in bytes from the beginning of the document: where one before it ended.
    pub fn starting_at(self, at: usize) -> Elements<'a> {
        Elements { at, ..self }
    }

    /// The last element of this name, which is the one that a reader of JSON takes where a name is there twice.
    ///
    /// # Errors
    /// When anything of the document is damaged on its first level.
    pub fn find_last(self, name: &[u8]) -> Result<Option<Element<'a>>, Damaged> {
        let mut found = None;
        for element in self {
            let element = element?;
            if element.name == name {
                found = Some(element);
            }
        }
        Ok(found)
    }

    /// From a document's bytes; its length and its final zero were checked before.
    #[inline]
    fn new(document: &'a [u8]) -> Elements<'a> {
        Elements { bytes: document.split_last().map_or(&[], |(_, rest)| rest), at: 4 }
    }

    /// The first element of this name.
    ///
    /// # Errors
    /// When what stands before it is damaged.
    pub fn find(self, name: &[u8]) -> Result<Option<Element<'a>>, Damaged> {
        for element in self {
            let element = element?;
            if element.name == name {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    /// Reads the element that begins here, of which there is at least one byte. Inlined with the loop around it, an element
    /// is never put together in memory, which would cost as much as the reading.
    #[inline(always)]
    fn read(&self) -> Result<Element<'a>, Damaged> {
        let (kind, rest) = self.bytes.get(self.at..).and_then(<[u8]>::split_first).ok_or(Damaged::Name)?;
        let name_len = zero_at(rest).ok_or(Damaged::Name)?;
        let (name, rest) = (&rest[..name_len], &rest[name_len + 1..]);
        let bytes = value_len(*kind, rest).and_then(|len| rest.get(..len)).ok_or(Damaged::Value)?;
        Ok(Element { name, start: self.at + 1 + name_len + 1, value: Value { kind: *kind, bytes } })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Damaged>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let element = self.read();
        self.at = match &element {
            Ok(element) => element.start + element.value.bytes.len(),
            Err(_) => self.bytes.len(),
        };
        Some(element)
    }
}

/// Where the first zero is. Names are short, so eight bytes at a time beat a search made for long texts.
#[inline]
fn zero_at(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit set here is the first zero's highest one.
        let zeros = word.wrapping_sub(LOW) & !word & (LOW << 7);
        if zeros != 0 {
            return Some(at * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| *byte == 0).map(|at| words.len() * 8 + at)
}

/// Bytes of the value that `rest` begins with; there may be fewer. What the value says of itself is checked.
#[inline(always)]
fn value_len(kind: u8, rest: &[u8]) -> Option<usize> {
    match kind {
        kind::STRING | kind::CODE | kind::SYMBOL => string_len(rest),
        kind::DOCUMENT | kind::ARRAY => document_len(rest),
        kind::INT32 => Some(4),
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => Some(8),
        kind::OBJECT_ID => Some(12),
        kind::BOOLEAN => rest.first().filter(|byte| **byte <= 1).map(|_| 1),
        kind::NULL | kind::UNDEFINED | kind::MIN_KEY | kind::MAX_KEY => Some(0),
        kind::DECIMAL128 => Some(16),
        _ => rare_len(kind, rest),
    }
}

#[inline(never)]
fn rare_len(kind: u8, rest: &[u8]) -> Option<usize> {
    match kind {
        kind::BINARY => {
            let len = length(rest)?;
            // The old subtype has its length once more.
            let sound = rest.get(4)? != &2 || len >= 4 && length(&rest[5..])? == len - 4;
            sound.then_some(len + 5)
        }
        kind::REGEX => {
            let pattern = zero_at(rest)?;
            Some(pattern + zero_at(&rest[pattern + 1..])? + 2)
        }
        kind::DB_POINTER => Some(string_len(rest)? + 12),
        kind::CODE_WITH_SCOPE => {
            let len = length(rest)?;
            let parts = rest.get(4..len)?;
            let scope = &parts[string_len(parts)?..];
            (document_len(scope)? == scope.len()).then_some(len)
        }
        _ => None,
    }
}

#[inline]
fn length(rest: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(*rest.first_chunk()?)).ok()
}

/// Bytes of a string: length, text, zero.
#[inline]
fn string_len(rest: &[u8]) -> Option<usize> {
    let len = length(rest)?;
    (len > 0 && *rest.get(len + 3)? == 0).then_some(len + 4)
}

/// Bytes of a document: length, elements, zero.
#[inline]
fn document_len(rest: &[u8]) -> Option<usize> {
    let len = length(rest)?;
    (len >= 5 && *rest.get(len - 1)? == 0).then_some(len)
}

/// Each reader takes the type it is named for; of another type it makes something or other, but no panic.
impl<'a> Value<'a> {
    /// Bytes that are already known to be a whole value of this type.
    pub fn new(kind: u8, bytes: &'a [u8]) -> Value<'a> {
        Value { kind, bytes }
    }

    /// The type, see [`kind`].
    #[inline]
    pub fn kind(self) -> u8 {
        self.kind
    }

    /// The value as it stands in the document.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    fn chunk<const N: usize>(self) -> [u8; N] {
        self.bytes.first_chunk().copied().unwrap_or([0; N])
    }

    /// A double.
    #[inline]
    pub fn double(self) -> f64 {
        f64::from_le_bytes(self.chunk())
    }

    /// A 32-bit integer.
    #[inline]
    pub fn int32(self) -> i32 {
        i32::from_le_bytes(self.chunk())
    }

    /// A 64-bit integer; a date's milliseconds since 1970; a timestamp, its seconds in the upper half.
    #[inline]
    pub fn int64(self) -> i64 {
        i64::from_le_bytes(self.chunk())
    }

    /// A Decimal128's bits.
    pub fn decimal128(self) -> [u8; 16] {
        self.chunk()
    }

    /// An ObjectId.
    #[inline]
    pub fn object_id(self) -> [u8; 12] {
        self.chunk()
    }

    /// A boolean.
    #[inline]
    pub fn boolean(self) -> bool {
        self.bytes.first() == Some(&1)
    }

    /// The text of a string, a symbol or code; not known to be UTF-8.
    #[inline]
    pub fn text(self) -> &'a [u8] {
        self.bytes.get(4..self.bytes.len().saturating_sub(1)).unwrap_or_default()
    }

    /// The elements of a document or an array.
    #[inline]
    pub fn elements(self) -> Elements<'a> {
        Elements::new(self.bytes)
    }

    /// A document.
    #[inline]
    pub fn document(self) -> Option<&'a RawDocument> {
        if self.kind == kind::DOCUMENT { RawDocument::from_bytes(self.bytes).ok() } else { None }
    }

    /// A binary's subtype and content.
    pub fn binary(self) -> (u8, &'a [u8]) {
        let subtype = self.bytes.get(4).copied().unwrap_or_default();
        (subtype, self.bytes.get(if subtype == 2 { 9 } else { 5 }..).unwrap_or_default())
    }

    /// A regular expression's pattern and options.
    pub fn regex(self) -> (&'a [u8], &'a [u8]) {
        let mut parts = self.bytes.split(|byte| *byte == 0);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// A DBPointer's namespace and ObjectId.
    pub fn db_pointer(self) -> (&'a [u8], &'a [u8]) {
        let (namespace, id) = self.bytes.split_at(self.bytes.len().saturating_sub(12));
        (Value::new(kind::STRING, namespace).text(), id)
    }

    /// The text and the scope of code with scope.
    pub fn code_with_scope(self) -> (Value<'a>, Value<'a>) {
        let parts = self.bytes.get(4..).unwrap_or_default();
        let (code, scope) = parts.split_at(string_len(parts).unwrap_or_default());
        (Value::new(kind::CODE, code), Value::new(kind::DOCUMENT, scope))
    }
}

#[cfg(test)]
mod tests;
