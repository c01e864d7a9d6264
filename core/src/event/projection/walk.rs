//! Writes a document anew from the raw bytes of another: what stays is copied, byte for byte, what a tree of paths names is left out,
//! renamed or made unreadable.

use std::collections::HashSet;

use tailwater_raw::{Damaged, Element, Elements, Value, kind};

use super::redact::Redaction;
use super::tree::{Fate, Found, Node};

/// Levels of documents and arrays. The server stores fewer than 200, and an event adds some.
const LEVELS_MAX: u32 = 250;

/// A redacted value may be longer than what was there. The server's documents have 16 MiB.
const BYTES_MAX: usize = 64 << 20;

/// Why an event cannot be projected. A retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProjectionError {
    /// The BSON is damaged.
    #[error("it is not valid BSON: {0}")]
    Bson(#[from] Damaged),
    /// Nested deeper than the server lets a document be.
    #[error("it is nested more than {LEVELS_MAX} levels deep")]
    Depth,
    /// With what stands in place of redacted values it is too large.
    #[error("it would become larger than {} MiB", BYTES_MAX >> 20)]
    Size,
    /// There are two resume tokens in it.
    #[error("it has the field _id twice")]
    Twice,
}

/// What is being written.
pub(super) struct Walk<'p> {
    pub out: Vec<u8>,
    pub redaction: &'p Redaction,
    /// Something was left out, or made unreadable.
    pub has_withheld: bool,
}

impl<'p> Walk<'p> {
    pub fn new(redaction: &'p Redaction, capacity: usize) -> Walk<'p> {
        Walk { out: Vec::with_capacity(capacity), redaction, has_withheld: false }
    }

    /// The type and the name of an element whose value is written next.
    pub fn name(&mut self, kind: u8, name: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(name);
        self.out.push(0);
    }

    /// Begins a document or an array.
    pub fn open(&mut self) -> usize {
        self.out.extend_from_slice(&[0; 4]);
        self.out.len() - 4
    }

    /// Ends it.
    pub fn close(&mut self, start: usize) -> Result<(), ProjectionError> {
        self.out.push(0);
        let len = self.out.len() - start;
        if self.out.len() > BYTES_MAX {
            return Err(ProjectionError::Size);
        }
        self.out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
        Ok(())
    }

    /// An element as it is.
    pub fn copy(&mut self, name: &[u8], value: Value<'_>) {
        self.name(value.kind(), name);
        self.out.extend_from_slice(value.bytes());
    }

    /// An element whose place in the tree is `node`; false when it was left out.
    pub fn element(&mut self, name: &[u8], value: Value<'_>, node: &Node, level: u32) -> Result<bool, ProjectionError> {
        match (node.fate, value.kind()) {
            (Fate::Out, _) => return Ok(self.leave_out()),
            (Fate::Redact(how), _) => {
                self.has_withheld = true;
                self.name(kind::STRING, name);
                self.redaction.write(how, value, &mut self.out);
            }
            (Fate::Stay, _) if node.is_leaf() && node.keep => self.copy(name, value),
            (Fate::Stay, kind::DOCUMENT) if !node.is_leaf() => {
                self.name(kind::DOCUMENT, name);
                let start = self.open();
                self.fields(value.elements(), node, below(level)?)?;
                self.close(start)?;
            }
            (Fate::Stay, kind::ARRAY) if !node.is_leaf() => {
                self.name(kind::ARRAY, name);
                let start = self.open();
                self.places(value.elements(), node, below(level)?)?;
                self.close(start)?;
            }
            (Fate::Stay, _) if node.keep => self.copy(name, value),
            (Fate::Stay, _) => return Ok(self.leave_out()),
        }
        Ok(true)
    }

    /// The fields of a document at `node`.
    pub fn fields(&mut self, fields: Elements<'_>, node: &Node, level: u32) -> Result<(), ProjectionError> {
        for field in fields {
            let field = field?;
            match node.find(field.name) {
                Found::Kept => self.copy(&node.renamed(field.name), field.value),
                Found::At(found) => _ = self.element(&node.renamed(field.name), field.value, found, level)?,
                // A name with a dot, of a field that is part of a value made unreadable.
                Found::Out | Found::Inside(_) => _ = self.leave_out(),
            }
        }
        Ok(())
    }

    /// The places of an array at `node`, counted anew: some may go.
    fn places(&mut self, places: Elements<'_>, node: &Node, level: u32) -> Result<(), ProjectionError> {
        let (mut written, mut digits) = (0, Digits::default());
        for place in places {
            let Element { value, .. } = place?;
            written += u32::from(self.element(digits.of(written), value, node, level)?);
        }
        Ok(())
    }

    /// The fields of `updatedFields`: as those of a document, but a change inside of a value that is made unreadable is told, once, as
    /// one of the whole value.
    pub fn changes(&mut self, changes: Elements<'_>, node: &Node, level: u32) -> Result<(), ProjectionError> {
        let mut told = HashSet::new();
        for change in changes {
            let change = change?;
            match node.find(change.name) {
                Found::Inside(len) => {
                    self.has_withheld = true;
                    let whole = &change.name[..len];
                    if told.insert(whole) {
                        self.name(kind::STRING, &node.renamed(whole));
                        self.redaction.write_mask(&mut self.out);
                    }
                }
                Found::Kept => self.copy(&node.renamed(change.name), change.value),
                Found::At(found) => _ = self.element(&node.renamed(change.name), change.value, found, level)?,
                Found::Out => _ = self.leave_out(),
            }
        }
        Ok(())
    }

    fn leave_out(&mut self) -> bool {
        self.has_withheld = true;
        false
    }
}

/// The level below.
pub(super) fn below(level: u32) -> Result<u32, ProjectionError> {
    if level < LEVELS_MAX { Ok(level + 1) } else { Err(ProjectionError::Depth) }
}

/// Names of an array's places.
#[derive(Default)]
pub(super) struct Digits([u8; 10]);

impl Digits {
    /// The decimal digits of a number.
    pub fn of(&mut self, mut number: u32) -> &[u8] {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}
