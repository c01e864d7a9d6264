//! How a dotted path walks through a document: the server's rules for arrays on the way and at the end.
//!
//! - An array on the way is walked into: each document in it is tried with the rest of the path. Elements that are no
//!   documents contribute nothing, not even a missing field.
//! - If the next component is an index, the element at that place is taken too: as it is when the path ends there (an array
//!   found so is not looked into), else with what remains after the index.
//! - An array at the end stands for each of its elements, and for itself.
//! - Through a scalar, or where there is no such field, the path ends in a missing field.

use bson::{RawArray, RawBsonRef, RawDocument};

/// A dotted path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path(Vec<Component>);

#[derive(Clone, Debug, PartialEq)]
struct Component {
    name: String,
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
        F: FnMut(Option<RawBsonRef<'_>>) -> bool,
    {
        walk(doc, &self.0, test)
    }
}

impl Component {
    fn new(name: &str) -> Component {
        let index = name.parse::<usize>().ok().filter(|index| index.to_string() == name);
        Component { name: name.to_owned(), index }
    }
}

fn walk<F>(mut doc: &RawDocument, path: &[Component], test: &mut F) -> bool
where
    F: FnMut(Option<RawBsonRef<'_>>) -> bool,
{
    for (at, component) in path.iter().enumerate() {
        let rest = &path[at + 1..];
        match field(doc, &component.name) {
            Some(RawBsonRef::Array(array)) => return walk_array(array, rest, test),
            Some(RawBsonRef::Document(inner)) if !rest.is_empty() => doc = inner,
            Some(value) if rest.is_empty() => return test(Some(value)),
            _ => return test(None),
        }
    }
    false
}

fn walk_array<F>(array: &RawArray, path: &[Component], test: &mut F) -> bool
where
    F: FnMut(Option<RawBsonRef<'_>>) -> bool,
{
    let mut elements = array.into_iter().map_while(Result::ok);
    // The server takes what is behind a final dot for nothing at all here.
    let Some((next, rest)) = path.split_first().filter(|(next, rest)| !(next.name.is_empty() && rest.is_empty()))
    else {
        return elements.any(|element| test(Some(element))) || test(Some(RawBsonRef::Array(array)));
    };
    elements.enumerate().any(|(at, element)| {
        let here = next.index == Some(at);
        match element {
            RawBsonRef::Document(inner) if walk(inner, path, test) => true,
            _ if !here => false,
            _ if rest.is_empty() => test(Some(element)),
            RawBsonRef::Document(inner) => walk(inner, rest, test),
            RawBsonRef::Array(inner) => walk_array(inner, rest, test),
            _ => false,
        }
    })
}

/// The first field of this name.
fn field<'a>(doc: &'a RawDocument, name: &str) -> Option<RawBsonRef<'a>> {
    let mut elements = doc.iter_elements().map_while(Result::ok);
    elements.find(|element| element.key().as_str() == name)?.value().ok()
}
