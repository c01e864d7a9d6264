//! How a dotted path walks through a document: the server's rules for arrays on the way and at the end.
//!
//! - An array on the way is walked into: each document in it is tried with the rest of the path. Elements that are no
//!   documents contribute nothing, not even a missing field.
//! - If the next component is an index, the element at that place is taken too: as it is when the path ends there (an array
//!   found so is not looked into), else with what remains after the index.
//! - An array at the end stands for each of its elements, and for itself; to a predicate on arrays, for itself only.
//! - Through a scalar, or where there is no such field, the path ends in a missing field.

use tailwater_raw::{Elements, Value, kind};

use crate::predicate::Predicate;

/// A dotted path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path(Box<[Component]>);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Component {
    pub name: Box<[u8]>,
    /// The place in an array that the name may also mean.
    index: Option<usize>,
}

impl Path {
    pub fn new(dotted: &str) -> Path {
        Path(dotted.split('.').map(Component::new).collect())
    }

    /// The components, of which there is at least one.
    pub fn components(&self) -> &[Component] {
        &self.0
    }
}

impl Component {
    fn new(name: &str) -> Component {
        let index = name.parse::<usize>().ok().filter(|index| index.to_string() == name);
        Component { name: name.as_bytes().into(), index }
    }
}

/// Whether the predicate holds for any value that a path leads to from a document.
pub(crate) fn walk(mut document: Elements<'_>, path: &[Component], predicate: &Predicate) -> bool {
    for (at, component) in path.iter().enumerate() {
        let rest = &path[at + 1..];
        match document.find(&component.name).ok().flatten().map(|element| element.value) {
            Some(value) if rest.is_empty() => return end(value, predicate),
            Some(array) if array.kind() == kind::ARRAY => return walk_array(array, rest, predicate),
            Some(inner) if inner.kind() == kind::DOCUMENT => document = inner.elements(),
            _ => return predicate.holds(None),
        }
    }
    false
}

/// Whether the predicate holds for a value at which a path ends.
#[inline]
pub(crate) fn end(value: Value<'_>, predicate: &Predicate) -> bool {
    if value.kind() == kind::ARRAY && predicate.looks_into_arrays() {
        return values(value.elements()).any(|element| predicate.holds(Some(element))) || predicate.holds(Some(value));
    }
    predicate.holds(Some(value))
}

/// Whether the predicate holds for any value that the rest of a path leads to from an array on the way. It calls itself only
/// after a component, so the path bounds how deep.
pub(crate) fn walk_array(array: Value<'_>, path: &[Component], predicate: &Predicate) -> bool {
    // The server takes what is behind a final dot for nothing at all here.
    let Some((next, rest)) = path.split_first().filter(|(next, rest)| !(next.name.is_empty() && rest.is_empty()))
    else {
        return end(array, predicate);
    };
    values(array.elements()).enumerate().any(|(at, element)| {
        let here = next.index == Some(at);
        match element.kind() {
            kind::DOCUMENT if walk(element.elements(), path, predicate) => true,
            _ if !here => false,
            _ if rest.is_empty() => predicate.holds(Some(element)),
            kind::DOCUMENT => walk(element.elements(), rest, predicate),
            kind::ARRAY => walk_array(element, rest, predicate),
            _ => false,
        }
    })
}

/// The values up to the first damage, if any.
#[inline]
pub(crate) fn values<'a>(elements: Elements<'a>) -> impl Iterator<Item = Value<'a>> {
    elements.map_while(|element| Some(element.ok()?.value))
}
