//! Raw BSON as values of minijinja: a document or an array is a view of bytes that are read when a template looks into them. The bytes
//! are a copy of one field of the event, since minijinja's values own what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::{
    Error, ErrorKind, Value,
    value::{Enumerator, Object, ObjectRepr},
};
use tailwater_raw::{Damaged, Elements, json::Plain, kind};

/// Elements that may be passed over in one copy: a lookup by name or place passes over those before it, and a loop may do many.
const PASSED_MAX: u64 = 20_000_000;

/// Levels that can be looked into; comparing and printing go down with the thread's stack.
const LEVELS_MAX: u32 = 128;

/// The bytes of one field.
#[derive(Debug)]
pub(super) struct Copied {
    bytes: Box<[u8]>,
    passed: AtomicU64,
}

impl Copied {
    /// A field's value, for minijinja.
    pub(super) fn value(value: tailwater_raw::Value<'_>) -> Value {
        match value.kind() {
            kind::DOCUMENT | kind::ARRAY | kind::CODE_WITH_SCOPE => {
                let copied = Arc::new(Copied { bytes: value.bytes().into(), passed: AtomicU64::new(0) });
                Nested::value(&copied, value.kind(), 0, value, 1)
            }
            _ => scalar(value),
        }
    }

    fn pass(&self) -> Result<(), Error> {
        if self.passed.fetch_add(1, Ordering::Relaxed) < PASSED_MAX { Ok(()) } else { Err(ErrorKind::OutOfFuel.into()) }
    }
}

/// A document or an array in the bytes.
#[derive(Debug)]
struct Nested {
    copied: Arc<Copied>,
    start: usize,
    length: usize,
    is_array: bool,
    level: u32,
}

impl Nested {
    /// The value that begins at `start` of the bytes.
    fn value(copied: &Arc<Copied>, kind: u8, start: usize, value: tailwater_raw::Value<'_>, level: u32) -> Value {
        if level > LEVELS_MAX {
            let text = format!("{}nested more than {LEVELS_MAX} levels deep", super::NO_TEXT);
            return Error::new(ErrorKind::InvalidOperation, text).into();
        }
        let nested = |start, length, is_array| {
            Value::from_object(Nested { copied: Arc::clone(copied), start, length, is_array, level })
        };
        let length = value.bytes().len();
        match kind {
            kind::DOCUMENT => nested(start, length, false),
            kind::ARRAY => nested(start, length, true),
            kind::CODE_WITH_SCOPE => {
                let (code, scope) = value.code_with_scope();
                let scope_length = scope.bytes().len();
                let scope = nested(start + length - scope_length, scope_length, false);
                BTreeMap::from([("code", scalar(code)), ("scope", scope)]).into()
            }
            _ => scalar(value),
        }
    }

    fn elements(&self) -> Result<Elements<'_>, Error> {
        Elements::checked(&self.copied.bytes[self.start..self.start + self.length]).map_err(damaged)
    }

    /// Shows each element to `wanted` until it is one.
    fn find(&self, mut wanted: impl FnMut(&tailwater_raw::Element<'_>) -> bool) -> Result<Option<Value>, Error> {
        let mut found = None;
        for element in self.elements()? {
            let element = element.map_err(damaged)?;
            self.copied.pass()?;
            if wanted(&element) {
                found = Some(element);
                // Of fields with one name the last counts, of places there is one.
                if self.is_array {
                    break;
                }
            }
        }
        Ok(found.map(|element| self.inner(&element)))
    }

    fn inner(&self, element: &tailwater_raw::Element<'_>) -> Value {
        let (kind, start) = (element.value.kind(), self.start + element.start);
        Nested::value(&self.copied, kind, start, element.value, self.level + 1)
    }

    /// The names of a document, sorted and each once.
    fn names(&self) -> Result<Vec<Value>, Error> {
        let mut names = Vec::new();
        for element in self.elements()? {
            let element = element.map_err(damaged)?;
            self.copied.pass()?;
            names.push(std::str::from_utf8(element.name).map_err(|_| damaged(Damaged::Text))?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names.into_iter().map(Value::from).collect())
    }

    /// How many places an array has.
    fn places(&self) -> Result<usize, Error> {
        let mut places = 0;
        for element in self.elements()? {
            element.map_err(damaged)?;
            self.copied.pass()?;
            places += 1;
        }
        Ok(places)
    }
}

impl Object for Nested {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.is_array { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let found = if self.is_array {
            let mut left = key.as_usize()?;
            self.find(|_| (left == 0, left = left.wrapping_sub(1)).0)
        } else {
            let name = key.as_str()?.as_bytes();
            self.find(|element| element.name == name)
        };
        found.unwrap_or_else(|error| Some(error.into()))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if !self.is_array {
            return Enumerator::Values(self.names().unwrap_or_else(|error| vec![error.into()]));
        }
        match self.places() {
            // By the way of the bytes, not place by place from the beginning.
            Ok(places) => Enumerator::Iter(Box::new(Places { array: Arc::clone(self), at: 4, left: places })),
            Err(error) => Enumerator::Values(vec![error.into()]),
        }
    }
}

/// The values of an array, in order.
struct Places {
    array: Arc<Nested>,
    /// In bytes from the array's beginning.
    at: usize,
    left: usize,
}

impl Iterator for Places {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        let next = self.array.elements().and_then(|elements| {
            self.array.copied.pass()?;
            let element = elements.starting_at(self.at).next().transpose().map_err(damaged)?;
            Ok(element.map(|element| {
                self.at = element.start + element.value.bytes().len();
                self.array.inner(&element)
            }))
        });
        next.unwrap_or_else(|error| Some(error.into()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// A value that has no parts, or only fixed ones.
fn scalar(value: tailwater_raw::Value<'_>) -> Value {
    match Plain::of(value) {
        Ok(Plain::Null | Plain::Array(_) | Plain::Document(_) | Plain::CodeWithScope(..)) => Value::from(()),
        Ok(Plain::Boolean(boolean)) => boolean.into(),
        // As JSON is read: what is not negative has no sign.
        Ok(Plain::Integer(integer)) => u64::try_from(integer).map_or_else(|_| integer.into(), Value::from),
        Ok(Plain::Double(double)) => double.into(),
        Ok(Plain::Text(text)) => Value::from(&*text),
        Ok(Plain::Timestamp(t, i)) => BTreeMap::from([("t", t), ("i", i)]).into(),
        Ok(Plain::DbPointer(namespace, id)) => {
            BTreeMap::from([("ref", Value::from(namespace)), ("id", id.into())]).into()
        }
        Err(error) => damaged(error).into(),
    }
}

/// The kind is one that rendering has no other use for.
fn damaged(damaged: Damaged) -> Error {
    Error::new(ErrorKind::BadSerialization, damaged.to_string())
}
