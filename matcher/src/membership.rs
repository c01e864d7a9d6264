//! The values of an `$in`: those that can be found by bisection, the others one by one.

use tailwater_raw::{Value, kind, number::Number};

use crate::regex::Pattern;
use crate::value::{self, Literal};

/// A set of values and patterns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Membership {
    /// Sorted, as the next two.
    strings: Vec<Box<[u8]>>,
    integers: Vec<i64>,
    object_ids: Vec<[u8; 12]>,
    /// Of types of which only the same bytes are equal, such as binary data (UUIDs) and dates; sorted, too.
    exact: Vec<(u8, Box<[u8]>)>,
    /// All others.
    others: Vec<Literal>,
    patterns: Vec<Pattern>,
    /// Whether null is among them, which a missing field equals.
    null: bool,
}

impl Membership {
    pub fn new(values: Vec<Literal>, patterns: Vec<Pattern>) -> Membership {
        let mut set = Membership { patterns, ..Membership::default() };
        for literal in values {
            let value = literal.value();
            match (value.kind(), Number::of(value)) {
                (kind::NULL, _) => set.null = true,
                (kind::STRING | kind::SYMBOL, _) => set.strings.push(value.text().into()),
                (kind::OBJECT_ID, _) => set.object_ids.push(value.object_id()),
                (_, Some(Number::Int(n))) => set.integers.push(n),
                (kind, None) if is_exact(kind) => set.exact.push((kind, value.bytes().into())),
                _ => set.others.push(literal),
            }
        }
        set.strings.sort_unstable();
        set.integers.sort_unstable();
        set.object_ids.sort_unstable();
        set.exact.sort_unstable();
        set
    }

    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether a value is among them; `None` is a missing field.
    pub fn contain(&self, found: Option<Value<'_>>) -> bool {
        let Some(found) = found else { return self.null };
        let is_among = match found.kind() {
            kind::NULL | kind::UNDEFINED => self.null,
            kind::STRING | kind::SYMBOL => self.strings.binary_search_by(|text| (**text).cmp(found.text())).is_ok(),
            kind::OBJECT_ID => self.object_ids.binary_search(&found.object_id()).is_ok(),
            kind::INT32 | kind::INT64 | kind::DOUBLE | kind::DECIMAL128 => match Number::of(found) {
                Some(Number::Int(n)) => self.integers.binary_search(&n).is_ok(),
                _ => self.is_other(found),
            },
            kind if is_exact(kind) => {
                let order = |(other, bytes): &(u8, Box<[u8]>)| (*other, &**bytes).cmp(&(kind, found.bytes()));
                self.exact.binary_search_by(order).is_ok()
            }
            _ => self.is_other(found),
        };
        is_among || self.patterns.iter().any(|pattern| pattern.matches(found))
    }

    fn is_other(&self, found: Value<'_>) -> bool {
        self.others.iter().any(|wanted| value::equal(found, wanted.value()))
    }
}

/// Whether values of this type are equal only where their bytes are, and to none of another type.
fn is_exact(kind: u8) -> bool {
    matches!(kind, kind::BINARY | kind::DATE | kind::TIMESTAMP | kind::BOOLEAN | kind::CODE)
}
