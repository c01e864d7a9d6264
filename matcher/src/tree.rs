//! A conjunction of leaves as a tree of field names, so that one pass over a document answers all of them, and ends at the first
//! that does not hold.

use std::sync::Arc;

use tailwater_raw::{Elements, Value, kind};

use crate::expression::{Expression, Leaf};
use crate::path::{self, Component};
use crate::predicate::Predicate;

/// What is asked of the fields of one document.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    fields: Box<[Field]>,
    /// One bit for each field.
    all: u64,
    /// The bits of those that may be missing.
    may_miss: u64,
}

/// What is asked of one field and of what is below it.
#[derive(Clone, Debug)]
struct Field {
    name: Box<[u8]>,
    /// Of the field itself.
    here: Box<[Check]>,
    /// Of the fields of a document in it.
    below: Option<Tree>,
    /// The same one by one, with the paths from here: in an array each has its own way.
    through_array: Box<[(Box<[Component]>, Check)]>,
}

#[derive(Clone, Debug)]
struct Check {
    predicate: Arc<Predicate>,
    negated: bool,
}

/// A leaf as far as the tree is not yet built.
struct Open {
    path: Vec<Component>,
    check: Check,
}

impl Tree {
    /// Trees for all of the leaves, or a leaf as it is where it is alone. There is more than one tree only for more than 64 fields.
    pub fn of(leaves: Vec<Leaf>) -> Vec<Expression> {
        if leaves.len() < 2 {
            return leaves.into_iter().map(Expression::Leaf).collect();
        }
        let open = leaves.into_iter().map(|leaf| {
            let check = Check { predicate: leaf.predicate, negated: leaf.negated };
            Open { path: leaf.path.components().to_vec(), check }
        });
        build(open.collect()).into_iter().map(Expression::Tree).collect()
    }

    #[inline]
    pub fn holds(&self, document: Elements<'_>) -> bool {
        let mut open = self.all;
        for element in document {
            // What is behind damage is missing.
            let Ok(element) = element else { break };
            let Some(at) = self.fields.iter().position(|field| *field.name == *element.name) else { continue };
            // The first of a name counts.
            if open >> at & 1 == 0 {
                continue;
            }
            if !self.fields[at].holds(element.value) {
                return false;
            }
            open &= !(1 << at);
            if open == 0 {
                return true;
            }
        }
        open & !self.may_miss == 0
    }

    /// Where there is no document, all fields are missing.
    fn holds_for_missing(&self) -> bool {
        self.all == self.may_miss
    }

    pub fn cost(&self) -> usize {
        let below = |field: &Field| field.below.as_ref().map_or(0, Tree::cost);
        self.fields.iter().map(|field| 1 + below(field)).sum()
    }
}

impl Field {
    #[inline]
    fn holds(&self, value: Value<'_>) -> bool {
        let here = self.here.iter().all(|check| path::end(value, &check.predicate) != check.negated);
        let Some(below) = self.below.as_ref().filter(|_| here) else { return here };
        match value.kind() {
            kind::DOCUMENT => below.holds(value.elements()),
            kind::ARRAY => {
                let walk = |path, check: &Check| path::walk_array(value, path, &check.predicate) != check.negated;
                self.through_array.iter().all(|(path, check)| walk(path, check))
            }
            _ => below.holds_for_missing(),
        }
    }

    fn holds_for_missing(&self) -> bool {
        let here = self.here.iter().all(|check| check.predicate.holds(None) != check.negated);
        here && self.below.as_ref().is_none_or(Tree::holds_for_missing)
    }
}

/// The trees of leaves with a path of at least one component.
fn build(leaves: Vec<Open>) -> Vec<Tree> {
    let mut fields: Vec<(Component, Vec<Open>)> = Vec::new();
    for mut leaf in leaves {
        let first = leaf.path.remove(0);
        match fields.iter_mut().find(|(component, _)| component.name == first.name) {
            Some((_, leaves)) => leaves.push(leaf),
            None => fields.push((first, vec![leaf])),
        }
    }
    let mut fields: Vec<Field> = fields.into_iter().flat_map(|(component, leaves)| field(component, leaves)).collect();
    let mut trees = Vec::new();
    while !fields.is_empty() {
        // The first 64 whose names differ; a name can only come twice from a split below.
        let (mut taken, mut left): (Vec<Field>, Vec<Field>) = (Vec::new(), Vec::new());
        for field in fields {
            let is_taken = taken.len() == 64 || taken.iter().any(|other| other.name == field.name);
            if is_taken { &mut left } else { &mut taken }.push(field);
        }
        let bits = |of: &dyn Fn(&Field) -> bool| {
            taken.iter().enumerate().filter(|(_, field)| of(field)).fold(0, |bits, (at, _)| bits | 1u64 << at)
        };
        let (all, may_miss) = (bits(&|_| true), bits(&Field::holds_for_missing));
        trees.push(Tree { fields: taken.into(), all, may_miss });
        fields = left;
    }
    trees
}

/// What is asked of one field; more than one where there are several trees below.
fn field(component: Component, leaves: Vec<Open>) -> Vec<Field> {
    let (here, below): (Vec<Open>, Vec<Open>) = leaves.into_iter().partition(|leaf| leaf.path.is_empty());
    let mut here: Box<[Check]> = here.into_iter().map(|leaf| leaf.check).collect();
    let name = component.name;
    if below.is_empty() {
        return vec![Field { name, here, below: None, through_array: Box::default() }];
    }
    let mut through_array = below.iter().map(|leaf| (leaf.path.clone().into(), leaf.check.clone())).collect();
    let trees = build(below).into_iter();
    // What is asked of the field itself and through an array is asked once.
    let field = |tree| Field {
        name: name.clone(),
        here: std::mem::take(&mut here),
        below: Some(tree),
        through_array: std::mem::take(&mut through_array),
    };
    trees.map(field).collect()
}
