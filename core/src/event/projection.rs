//! What an output is not to be told: a projection makes another event of an event, from raw BSON to raw BSON, without the fields that
//! are excluded, with other names, and with values made unreadable. Knows nothing of outputs.
//!
//! Paths begin at the event. `fullDocument.X` is the document's field X *wherever the event carries it*:
//!
//! | where | what becomes of it |
//! | --- | --- |
//! | `fullDocument`, `fullDocumentBeforeChange` | the field, through arrays of documents too |
//! | `updateDescription.updatedFields` | dotted names as well (`address.street`, `items.0.card`); a change inside of a value that is made unreadable is told as one of the whole value, by the mask |
//! | `updateDescription.removedFields`, `.truncatedArrays`, `.disambiguatedPaths` | see `update.rs` |
//! | `documentKey` | `_id` and the fields of a shard key |
//! | `_id`, the resume token | where anything of `documentKey` is withheld: cut in front of the document's key, which MongoDB writes into it |
//!
//! - `fullDocument` alone is the whole document: included, all of its fields are; excluded, it goes in `fullDocument`,
//!   `fullDocumentBeforeChange` and `updateDescription`, and `documentKey` still says which document it was.
//! - `documentKey`, `fullDocumentBeforeChange` and `updateDescription` alone are these parts of the event and nothing else: whoever includes
//!   one has all of it, and what is excluded as `documentKey` is still there as `fullDocument._id`. `documentKey` alone is redacted field
//!   by field.
//! - `_id`, `operationType` and `ns` always stay. A name with a dot in it is read as a path; a name that is a number is taken for a place
//!   in an array. A field that is called as another one is renamed to is left out.
//! - With `include` what no path names is left out: of a document on the way to an included field its other fields, of an array there
//!   what is no document.
//! - The event's id and key, its wall time and whether it was in a transaction stay what they were: id and key are hashes of `documentKey`,
//!   and who can guess a key can check the guess. A gap carries nobody's values and passes as it is.
//! - An event that cannot be projected becomes a stub that cannot be delivered, with the reason.
//!
//! Reading order: `tree` (paths, and what a name leads to), `walk` and `update` (writing), `redact`, `config`, `shared` (made once per
//! event).

pub mod config;
mod redact;
pub(super) mod shared;
mod tree;
mod update;
mod walk;

use std::fmt;

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use ring::{digest, hmac};
use tailwater_raw::{Element, Elements, kind};

use self::redact::{Redaction, write_hex};
pub use self::tree::Redact;
use self::tree::{Fate, Node, Rule};
pub use self::walk::ProjectionError;
use self::walk::{Walk, below};
use super::Event;
use crate::source::token::Token;

/// What names a projection: equal ones have equal fingerprints, on every instance and after every restart. It tells nothing of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

/// A projection, ready to be applied.
#[derive(Clone)]
pub struct Projection {
    fingerprint: Fingerprint,
    /// The whole event, for all fields but those below.
    event: Node,
    /// The document, wherever the event carries it.
    document: Node,
    /// The same for a part that is included as a whole.
    whole: Node,
    before: Part,
    update: Part,
    key: Part,
    redaction: Redaction,
    /// For `Debug`.
    text: Box<str>,
}

/// What becomes of a part of the event that carries the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is said of the document's fields.
    ByField,
    /// The same, and all fields of which nothing is said stay.
    Whole,
    /// It is left out, or made unreadable.
    By(Fate),
}

/// A path, without its dots.
type Path = Vec<Box<[u8]>>;

/// What a projection is made of; consistent, see `config`.
struct Rules {
    rules: Vec<(Path, Rule)>,
    includes: bool,
    mask: String,
    key: Option<hmac::Key>,
}

/// An event's bytes after the projection.
pub(super) struct Projected {
    pub raw: Box<[u8]>,
    /// Something of the document's key is not told, so the token must not tell it either.
    pub withholds_key: bool,
}

impl Projection {
    fn new(rules: Rules) -> Projection {
        let Rules { rules, includes, mask, key } = rules;
        let all = || rules.iter().map(|(path, rule)| (&**path, rule));
        let below = |kept: bool| {
            let of_document = rules.iter().filter(|(path, _)| &*path[0] == b"fullDocument");
            let of_document = of_document.filter(move |(_, rule)| !kept || *rule != Rule::Include);
            Node::new(of_document.map(|(path, rule)| (&path[1..], rule)), kept)
        };
        let event = Node::new(all(), !includes);
        let part = |name: &[u8]| match event.child(name) {
            Some(node) if node.fate != Fate::Stay => Part::By(node.fate),
            Some(_) => Part::Whole,
            None => Part::ByField,
        };
        let text = text_of(&rules, &mask);
        Projection {
            fingerprint: Fingerprint::of(&text, key.as_ref()),
            document: below(!includes),
            whole: below(true),
            before: part(b"fullDocumentBeforeChange"),
            update: part(b"updateDescription"),
            key: part(b"documentKey"),
            event,
            redaction: Redaction { mask: mask.into(), key },
            text: text.into(),
        }
    }

    /// What names it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Writes the event anew.
    pub(super) fn apply(&self, event: &RawDocument) -> Result<Projected, ProjectionError> {
        let mut walk = Walk::new(&self.redaction, event.as_bytes().len());
        let start = walk.open();
        let (mut withholds_key, mut has_key, mut has_token) = (false, false, false);
        for field in Elements::of(event) {
            let field = field?;
            walk.has_withheld = false;
            match field.name {
                b"_id" if has_token => return Err(ProjectionError::Twice),
                b"_id" | b"operationType" | b"ns" => {
                    has_token |= field.name == b"_id";
                    walk.copy(field.name, field.value);
                }
                b"fullDocument" => self.part(&mut walk, &field, Part::ByField)?,
                b"fullDocumentBeforeChange" => self.part(&mut walk, &field, self.before)?,
                b"updateDescription" => self.part(&mut walk, &field, self.update)?,
                b"documentKey" => {
                    self.key(&mut walk, &field)?;
                    has_key = true;
                    withholds_key |= walk.has_withheld;
                }
                name => match self.event.child(name) {
                    Some(node) => _ = walk.element(name, field.value, node, 1)?,
                    None if self.event.keep => walk.copy(name, field.value),
                    None => {}
                },
            }
        }
        walk.close(start)?;
        // Of a stub nobody knows whether there was a key.
        Ok(Projected { raw: walk.out.into_boxed_slice(), withholds_key: withholds_key || !has_key })
    }

    /// A part of the event that carries the document, or what was changed of it.
    fn part(&self, walk: &mut Walk<'_>, field: &Element<'_>, part: Part) -> Result<(), ProjectionError> {
        let Element { name, value, .. } = *field;
        let node = match part {
            Part::ByField => &self.document,
            Part::Whole => &self.whole,
            Part::By(_) => return Ok(()),
        };
        let is_update = name == b"updateDescription";
        if node.fate == Fate::Out {
            return Ok(());
        }
        if node.is_leaf() || value.kind() == kind::NULL {
            walk.copy(name, value);
        } else if !is_update {
            walk.element(name, value, node, 1)?;
        } else if value.kind() == kind::DOCUMENT {
            walk.name(kind::DOCUMENT, name);
            let start = walk.open();
            walk.update(value.elements(), node, 1)?;
            walk.close(start)?;
        }
        // What a pipeline has made of an updateDescription may carry anything.
        Ok(())
    }

    /// `documentKey`: it stays where the document as a whole is excluded.
    fn key(&self, walk: &mut Walk<'_>, field: &Element<'_>) -> Result<(), ProjectionError> {
        let Element { name, value, .. } = *field;
        let node = match self.key {
            // Field by field: outputs count on a document.
            Part::By(Fate::Redact(how)) if value.kind() == kind::DOCUMENT => {
                walk.has_withheld = true;
                walk.name(kind::DOCUMENT, name);
                let start = walk.open();
                for field in value.elements() {
                    let field = field?;
                    walk.name(kind::STRING, field.name);
                    self.redaction.write(how, field.value, &mut walk.out);
                }
                return walk.close(start);
            }
            Part::By(_) => {
                walk.has_withheld = true;
                return Ok(());
            }
            Part::Whole => &self.whole,
            Part::ByField => &self.document,
        };
        match value.kind() {
            kind::DOCUMENT if node.is_leaf() && node.keep => walk.copy(name, value),
            kind::DOCUMENT => {
                let before = walk.out.len();
                walk.name(kind::DOCUMENT, name);
                let start = walk.open();
                walk.fields(value.elements(), node, below(1)?)?;
                // Nothing of it is left.
                if walk.out.len() == start + 4 && walk.has_withheld {
                    walk.out.truncate(before);
                } else {
                    walk.close(start)?;
                }
            }
            _ => walk.copy(name, value),
        }
        Ok(())
    }
}

impl Fingerprint {
    fn of(text: &str, key: Option<&hmac::Key>) -> Fingerprint {
        let whole = match key {
            Some(key) => hmac::sign(key, text.as_bytes()).as_ref().first_chunk().copied(),
            None => digest::digest(&digest::SHA256, text.as_bytes()).as_ref().first_chunk().copied(),
        };
        Fingerprint(whole.expect("both have 32 bytes"))
    }

    /// 32 hex digits.
    pub fn text(&self) -> String {
        let mut text = [0; 32];
        write_hex(&self.0, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads what [`Fingerprint::text`] wrote.
    pub fn from_text(text: &str) -> Option<Fingerprint> {
        let bytes = text.as_bytes();
        let digits = bytes.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
        if bytes.len() != 32 || !digits {
            return None;
        }
        Some(Fingerprint(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }
}

/// All that is said, in one order, each text with its length in front. The fingerprint is made of it, and letters hold that: it never changes
/// without another number in front.
fn text_of(rules: &[(Path, Rule)], mask: &str) -> String {
    let text = |text: &str| format!("{}:{text}", text.len());
    let lines = rules.iter().map(|(path, rule)| {
        let path = path.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(".");
        let path = text(&path);
        match rule {
            Rule::Include => format!("include {path}"),
            Rule::Exclude => format!("exclude {path}"),
            Rule::Redact(Redact::Hash) => format!("hash {path}"),
            Rule::Redact(Redact::Mask) => format!("mask {path}"),
            Rule::Rename(name) => format!("rename {path} {}", text(&String::from_utf8_lossy(name))),
        }
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    format!("projection 1, {}, mask is {}", lines.join(", "), text(mask))
}

/// The event with another token.
pub(super) fn with_token(event: &[u8], token: &Token) -> Box<[u8]> {
    let mut out = event.to_vec();
    let found = RawDocument::from_bytes(event).ok().and_then(|event| Elements::of(event).find(b"_id").ok().flatten());
    if let Some(found) = found {
        out.splice(found.start..found.start + found.value.bytes().len(), token.document().as_bytes().iter().copied());
        let len = out.len() as u32;
        out[..4].copy_from_slice(&len.to_le_bytes());
    }
    out.into_boxed_slice()
}

/// What is left of an event that cannot be projected.
pub(super) fn stub(event: &Event) -> RawDocumentBuf {
    let mut stub = rawdoc! {
        "_id": event.token().without_key().document().to_owned(),
        "operationType": event.operation_type(),
    };
    if !event.db().is_empty() {
        let mut ns = rawdoc! { "db": event.db() };
        if !event.coll().is_empty() {
            ns.append(bson::cstr!("coll"), event.coll());
        }
        stub.append(bson::cstr!("ns"), ns);
    }
    stub
}

/// The same projection, in what it does.
impl PartialEq for Projection {
    fn eq(&self, other: &Projection) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl fmt::Debug for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Projection({}{})", self.text, if self.redaction.key.is_some() { ", hash_key ***" } else { "" })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", self.text())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use self::tests::projection as fixture;
