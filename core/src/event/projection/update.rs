//! `updateDescription`: the same fields once more, as what was changed. Whatever a projection says of a field of the document holds
//! here for its changes and for its name.
//!
//! Left out are also: a removal or a truncation inside of a value that is made unreadable (it would tell what is in it), entries of
//! `disambiguatedPaths` whose fields are renamed, and whatever a later server may add here.

use tailwater_raw::{Elements, Value, kind};

use super::tree::{Fate, Found, Node};
use super::walk::{Digits, ProjectionError, Walk, below};

impl<'p> Walk<'p> {
    /// The fields of an updateDescription, of a document at `node`.
    pub fn update(&mut self, parts: Elements<'_>, node: &Node, level: u32) -> Result<(), ProjectionError> {
        let level = below(level)?;
        for part in parts {
            let part = part?;
            let write: Part<'p> = match (part.name, part.value.kind()) {
                (b"updatedFields", kind::DOCUMENT) => Walk::changes,
                (b"removedFields", kind::ARRAY) => Walk::removals,
                (b"truncatedArrays", kind::ARRAY) => Walk::truncations,
                (b"disambiguatedPaths", kind::DOCUMENT) => Walk::spellings,
                (_, kind::NULL) => {
                    self.copy(part.name, part.value);
                    continue;
                }
                _ => continue,
            };
            self.name(part.value.kind(), part.name);
            let start = self.open();
            write(self, part.value.elements(), node, level)?;
            self.close(start)?;
        }
        Ok(())
    }

    /// Names of fields that are no longer there.
    fn removals(&mut self, removals: Elements<'_>, node: &Node, _level: u32) -> Result<(), ProjectionError> {
        let (mut written, mut digits) = (0, Digits::default());
        for removal in removals {
            let removed = removal?.value;
            if removed.kind() == kind::STRING && is_told(node, removed.text(), true) {
                self.path(digits.of(written), removed, node);
                written += 1;
            }
        }
        Ok(())
    }

    /// Arrays that became shorter: `{field, newSize}`.
    fn truncations(&mut self, truncations: Elements<'_>, node: &Node, _level: u32) -> Result<(), ProjectionError> {
        let (mut written, mut digits) = (0, Digits::default());
        for truncation in truncations {
            let truncation = truncation?.value;
            let part = |name| match truncation.kind() {
                kind::DOCUMENT => truncation.elements().find(name),
                _ => Ok(None),
            };
            let (field, size) = (part(b"field")?, part(b"newSize")?);
            let is_field = |value: Value<'_>| value.kind() == kind::STRING && is_told(node, value.text(), false);
            let Some(field) = field.filter(|field| is_field(field.value)) else { continue };
            self.name(kind::DOCUMENT, digits.of(written));
            let start = self.open();
            self.path(field.name, field.value, node);
            if let Some(size) = size.filter(|size| matches!(size.value.kind(), kind::INT32 | kind::INT64)) {
                self.copy(size.name, size.value);
            }
            self.close(start)?;
            written += 1;
        }
        Ok(())
    }

    /// Paths that could be read in two ways, each with its parts.
    fn spellings(&mut self, paths: Elements<'_>, node: &Node, _level: u32) -> Result<(), ProjectionError> {
        for path in paths {
            let path = path?;
            if is_told(node, path.name, false) && *node.renamed(path.name) == *path.name {
                self.copy(path.name, path.value);
            }
        }
        Ok(())
    }

    /// A string that is a path in the document.
    fn path(&mut self, name: &[u8], path: Value<'_>, node: &Node) {
        let renamed = node.renamed(path.text());
        self.name(kind::STRING, name);
        self.out.extend_from_slice(&(renamed.len() as u32 + 1).to_le_bytes());
        self.out.extend_from_slice(&renamed);
        self.out.push(0);
    }
}

type Part<'p> = for<'a, 'e, 'n> fn(&'a mut Walk<'p>, Elements<'e>, &'n Node, u32) -> Result<(), ProjectionError>;

/// Whether the name of a changed field is told. Of a value that is made unreadable only where `whole` says that the change is not one
/// inside of it.
fn is_told(node: &Node, path: &[u8], whole: bool) -> bool {
    match node.find(path) {
        Found::Out | Found::Inside(_) => false,
        Found::Kept => true,
        Found::At(found) => match found.fate {
            Fate::Out => false,
            Fate::Redact(_) => whole,
            // A field above one that is kept, unless the path is nothing but a number.
            Fate::Stay => found.keep || !std::ptr::eq(found, node),
        },
    }
}
