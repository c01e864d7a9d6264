//! The paths of a projection as a tree of names, and what becomes of a field by its name.
//!
//! Names are read the same way wherever they stand, in a document or in an updateDescription: a dot is a step down, and a name
//! that is a number is a place in an array, which stays where it is in the tree. So `items.0.card` is `items.card`, and no way of
//! writing a field's path leads around the rule for it.

use std::borrow::Cow;

/// How a value is made unreadable.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Redact {
    /// A keyed hash: the same for the same value.
    Hash,
    /// A fixed text.
    Mask,
}

/// What is said of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Include,
    Exclude,
    Redact(Redact),
    Rename(Box<[u8]>),
}

/// What becomes of what stands at a node.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays, except for what is said below.
    #[default]
    Stay,
    /// It is left out.
    Out,
    /// It is made unreadable, as one value.
    Redact(Redact),
}

/// One name on the way of a path, with all that is said below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub fate: Fate,
    /// What no path names is kept: also a value at this node that has no fields.
    pub keep: bool,
    /// The new name.
    name: Option<Box<[u8]>>,
    /// By name.
    children: Vec<(Box<[u8]>, Node)>,
    /// New names of children. A field that has one of them already is left out: there would be two.
    taken: Vec<Box<[u8]>>,
    /// A field at or below this node is renamed.
    renames: bool,
}

/// Where a name leads to.
#[derive(Debug)]
pub(super) enum Found<'t> {
    /// The field is left out.
    Out,
    /// It is kept as it is, at most under another name.
    Kept,
    /// To this node.
    At(&'t Node),
    /// Into a value that is made unreadable; the path of that value is so many bytes of the name.
    Inside(usize),
}

impl Node {
    /// A tree of these paths. `keeps`: what no path names stays, whatever is included.
    pub fn new<'r>(rules: impl Iterator<Item = (&'r [Box<[u8]>], &'r Rule)>, keeps: bool) -> Node {
        let mut root = Node { keep: keeps, ..Node::default() };
        for (path, rule) in rules {
            root.insert(path, rule);
        }
        root.finish(keeps);
        root
    }

    fn insert(&mut self, path: &[Box<[u8]>], rule: &Rule) {
        let Some((name, rest)) = path.split_first() else {
            match rule {
                Rule::Include => self.keep = true,
                Rule::Exclude => self.fate = Fate::Out,
                Rule::Redact(how) => self.fate = Fate::Redact(*how),
                Rule::Rename(name) => self.name = Some(name.clone()),
            }
            return;
        };
        let child = match self.children.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(at) => &mut self.children[at].1,
            Err(at) => {
                self.children.insert(at, (name.clone(), Node::default()));
                &mut self.children[at].1
            }
        };
        child.insert(rest, rule);
    }

    /// What is below something that is kept is kept; what leads to nothing that is kept is left out, whatever else is said of it.
    fn finish(&mut self, keeps: bool) {
        self.keep |= keeps;
        for (_, child) in &mut self.children {
            child.finish(self.keep);
        }
        if !self.keep && self.children.iter().all(|(_, child)| child.fate == Fate::Out) {
            (self.fate, self.children) = (Fate::Out, Vec::new());
        }
        self.taken = self.children.iter().filter_map(|(_, child)| child.name.clone()).collect();
        self.renames = self.name.is_some() || self.children.iter().any(|(_, child)| child.renames);
    }

    /// Whether nothing is said below this node.
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// The child of this name.
    pub fn child(&self, name: &[u8]) -> Option<&Node> {
        self.children.binary_search_by(|(known, _)| (**known).cmp(name)).ok().map(|at| &self.children[at].1)
    }

    /// Where a field's name leads to from here.
    pub fn find(&self, name: &[u8]) -> Found<'_> {
        let (mut node, mut used) = (self, 0);
        for component in name.split(|byte| *byte == b'.') {
            if used > 0 && matches!(node.fate, Fate::Redact(_)) {
                return Found::Inside(used - 1);
            }
            if !is_number(component) {
                node = match node.child(component) {
                    Some(child) if child.fate == Fate::Out => return Found::Out,
                    Some(child) => child,
                    None if node.taken.iter().any(|taken| **taken == *component) => return Found::Out,
                    None if node.keep => return Found::Kept,
                    None => return Found::Out,
                };
            }
            used += component.len() + 1;
        }
        Found::At(node)
    }

    /// The name with its new parts.
    pub fn renamed<'n>(&self, name: &'n [u8]) -> Cow<'n, [u8]> {
        if !self.renames {
            return Cow::Borrowed(name);
        }
        let (mut node, mut whole) = (Some(self), Vec::with_capacity(name.len()));
        for (at, component) in name.split(|byte| *byte == b'.').enumerate() {
            if at > 0 {
                whole.push(b'.');
            }
            let child = node.and_then(|node| node.child(component));
            whole.extend_from_slice(child.and_then(|child| child.name.as_deref()).unwrap_or(component));
            node = if is_number(component) { node } else { child };
        }
        Cow::Owned(whole)
    }
}

/// Whether a name is one that a place in an array has.
pub(super) fn is_number(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(rules: &[(&str, Rule)], keeps: bool) -> Node {
        let split = |path: &str| path.split('.').map(|name| name.as_bytes().into()).collect::<Vec<Box<[u8]>>>();
        let rules: Vec<_> = rules.iter().map(|(path, rule)| (split(path), rule)).collect();
        Node::new(rules.iter().map(|(path, rule)| (&**path, *rule)), keeps)
    }

    fn word(found: &Found<'_>) -> String {
        match found {
            Found::Out => "out".into(),
            Found::Kept => "kept".into(),
            Found::At(node) => format!("at {:?} {}", node.fate, node.keep),
            Found::Inside(len) => format!("inside {len}"),
        }
    }

    #[test]
    fn names_lead_to_rules_however_they_are_written() {
        let rename = |name: &str| Rule::Rename(name.as_bytes().into());
        let exclude = tree(
            &[
                ("items.card", Rule::Exclude),
                ("email", Rule::Redact(Redact::Hash)),
                ("user", rename("who")),
                ("user.name", rename("nick")),
            ],
            true,
        );
        let include = tree(&[("a.b", Rule::Include), ("c", Rule::Include)], false);
        let table = [
            (&exclude, "items", "at Stay true", "items"),
            (&exclude, "items.card", "out", ""),
            (&exclude, "items.0.card", "out", ""),
            (&exclude, "0.items.7.card.number", "out", ""),
            (&exclude, "items.0", "at Stay true", "items.0"),
            (&exclude, "items.cards", "kept", "items.cards"),
            (&exclude, "email", "at Redact(Hash) true", "email"),
            (&exclude, "email.0", "inside 5", ""),
            (&exclude, "email.home", "inside 5", ""),
            (&exclude, "0.email.home", "inside 7", ""),
            (&exclude, "user.name.0", "at Stay true", "who.nick.0"),
            (&exclude, "user.0.age", "kept", "who.0.age"),
            (&exclude, "who", "out", ""),
            (&exclude, "who.x", "out", ""),
            (&exclude, "user.nick", "out", ""),
            (&exclude, "", "kept", ""),
            (&exclude, ".user", "kept", ".user"),
            (&exclude, "x..user.", "kept", "x..user."),
            (&exclude, "00", "at Stay true", "00"),
            (&include, "a", "at Stay false", "a"),
            (&include, "a.b", "at Stay true", "a.b"),
            (&include, "a.b.x", "kept", "a.b.x"),
            (&include, "a.x", "out", ""),
            (&include, "c.1.x", "kept", "c.1.x"),
            (&include, "7", "at Stay false", "7"),
            (&include, "x", "out", ""),
            (&include, "", "out", ""),
        ];
        for (tree, name, expected, renamed) in table {
            let found = tree.find(name.as_bytes());
            assert_eq!(word(&found), expected, "{name}");
            if matches!(found, Found::Kept | Found::At(_)) {
                assert_eq!(&*tree.renamed(name.as_bytes()), renamed.as_bytes(), "{name}");
            }
        }
    }
}
