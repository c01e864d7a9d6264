//! How a dotted path walks through a document: the server's rules for arrays on the way and at the end.
//!
//! - An array on the way is walked into: each document in it is tried with the rest of the path. Elements that are no
//!   documents contribute nothing, not even a missing field.
//! - If the next component is an index, the element at that place is taken too: as it is when the path ends there (an array
//!   found so is not looked into), else with what remains after the index.
//! - An array at the end stands for each of its elements, and for itself.
//! - Through a scalar, or where there is no such field, the path ends in a missing field.

use bson::RawDocument;

use tailwater_raw::{Elements, Value, kind};

/// A dotted path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path(Vec<Component>);

#[derive(Clone, Debug, PartialEq)]
struct Component {
    name: Box<[u8]>,
    /// The place in an array that the name may also mean.
    index: Option<usize>,
}

impl Path {
    pub fn new(dotted: &str) -> Path {
        Path(dotted.split('.').map(Component::new).collect())
    }

    /// How many components there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the test holds for any value at the end of the path; `None` is a missing field.
    pub fn any<F>(&self, doc: &RawDocument, test: &mut F) -> bool
    where
        F: FnMut(Option<Value<'_>>) -> bool,
    {
        walk(Elements::of(doc), &self.0, test)
    }
}

impl Component {
    fn new(name: &str) -> Component {
        let index = name.parse::<usize>().ok().filter(|index| index.to_string() == name);
        Component { name: name.as_bytes().into(), index }
    }
}

fn walk<F>(mut doc: Elements<'_>, path: &[Component], test: &mut F) -> bool
where
    F: FnMut(Option<Value<'_>>) -> bool,
{
    for (at, component) in path.iter().enumerate() {
        let rest = &path[at + 1..];
        match doc.find(&component.name).ok().flatten().map(|element| element.value) {
            Some(array) if array.kind() == kind::ARRAY => return walk_array(array, rest, test),
            Some(inner) if inner.kind() == kind::DOCUMENT && !rest.is_empty() => doc = inner.elements(),
            Some(value) if rest.is_empty() => return test(Some(value)),
            _ => return test(None),
        }
    }
    false
}

fn walk_array<F>(array: Value<'_>, path: &[Component], test: &mut F) -> bool
where
    F: FnMut(Option<Value<'_>>) -> bool,
{
    let mut elements = values(array.elements());
    // The server takes what is behind a final dot for nothing at all here.
    let Some((next, rest)) = path.split_first().filter(|(next, rest)| !(next.name.is_empty() && rest.is_empty()))
    else {
        return elements.any(|element| test(Some(element))) || test(Some(array));
    };
    elements.enumerate().any(|(at, element)| {
        let here = next.index == Some(at);
        match element.kind() {
            kind::DOCUMENT if walk(element.elements(), path, test) => true,
            _ if !here => false,
            _ if rest.is_empty() => test(Some(element)),
            kind::DOCUMENT => walk(element.elements(), rest, test),
            kind::ARRAY => walk_array(element, rest, test),
            _ => false,
        }
    })
}

/// The values up to the first damage, if any.
fn values<'a>(elements: Elements<'a>) -> impl Iterator<Item = Value<'a>> {
    elements.map_while(|element| Some(element.ok()?.value))
}
