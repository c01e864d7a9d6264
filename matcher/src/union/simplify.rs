//! Fewer branches that mean the same: what another branch lets through already is dropped, and branches that differ in the values of
//! one field become one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::term::{Branch, Key, Literal, Term, What};

/// Above so many branches each is no longer compared with each.
const COMPARED_MAX: usize = 500;

/// Each path is looked for in each term. Above so many such looks branches are no longer put together: a reload waits for this, and
/// queries like that become coarse anyway.
const LOOKS_MAX: usize = 4_000_000;

/// The same disjunction in fewer branches. None: nothing passes. One without terms: everything does.
pub(crate) fn simplify(mut branches: Vec<Branch>) -> Vec<Branch> {
    branches.retain(|branch| !is_never(branch));
    if branches.iter().any(Branch::is_everything) {
        let queries = branches.into_iter().flat_map(|branch| branch.queries).collect();
        return vec![Branch { terms: Vec::new(), queries }];
    }
    loop {
        let before = branches.len();
        branches = absorb(merge(branches));
        if branches.len() == before {
            return branches;
        }
    }
}

/// It has an `$in` of no values.
pub(crate) fn is_never(branch: &Branch) -> bool {
    branch.terms.iter().any(|term| matches!(&term.what, What::In { values, .. } if values.all.is_empty()))
}

/// Branches that are alike but for the values of one field: (R and a in S) or (R and a in T) is R and a in S or T.
fn merge(mut branches: Vec<Branch>) -> Vec<Branch> {
    let mut paths: Vec<(bool, Arc<str>)> = Vec::new();
    let mut seen = HashSet::new();
    for term in branches.iter().flat_map(|branch| &branch.terms) {
        if let What::In { path, .. } = &term.what
            && seen.insert(path.clone())
        {
            paths.push((term.is_head(), path.clone()));
        }
    }
    let terms: usize = branches.iter().map(|branch| branch.terms.len()).sum();
    if paths.len() * terms > LOOKS_MAX {
        return branches;
    }
    // Fields of documents first: what is left then differs in heads alone.
    paths.sort_by_key(|(is_head, _)| *is_head);
    for (_, path) in paths {
        branches = merge_on(&path, branches);
    }
    branches
}

fn merge_on(path: &str, branches: Vec<Branch>) -> Vec<Branch> {
    let mut kept: Vec<Branch> = Vec::with_capacity(branches.len());
    let mut by_rest: HashMap<Key, (usize, usize, Vec<Branch>)> = HashMap::new();
    for branch in branches {
        let is_on = |term: &Term| matches!(&term.what, What::In { path: other, .. } if **other == *path);
        let mut on = branch.terms.iter().enumerate().filter(|(_, term)| is_on(term)).map(|(index, _)| index);
        // Two conditions on one field are not one: elements of an array may satisfy them apart.
        let (Some(index), None) = (on.next(), on.next()) else {
            kept.push(branch);
            continue;
        };
        match by_rest.entry(branch.key_without(index)) {
            std::collections::hash_map::Entry::Occupied(mut alike) => alike.get_mut().2.push(branch),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert((kept.len(), index, Vec::new()));
                kept.push(branch);
            }
        }
    }
    for (at, index, others) in by_rest.into_values().filter(|(_, _, others)| !others.is_empty()) {
        let branch = &mut kept[at];
        let mut values = values_of(&branch.terms[index]);
        for other in others {
            values.extend(other.terms.iter().filter(|term| term.path() == Some(path)).flat_map(values_of));
            branch.queries.extend(other.queries);
        }
        branch.terms[index] = Term::within(path, values);
    }
    kept
}

fn values_of(term: &Term) -> Vec<Literal> {
    match &term.what {
        What::In { values, .. } => values.all.clone(),
        _ => Vec::new(),
    }
}

/// Without the branches that another one lets through.
fn absorb(branches: Vec<Branch>) -> Vec<Branch> {
    let mut kept: Vec<Branch> = Vec::with_capacity(branches.len());
    let mut places: HashMap<Key, usize> = HashMap::new();
    for branch in branches {
        match places.get(&branch.key()) {
            Some(same) => kept[*same].queries.extend(branch.queries),
            None => {
                places.insert(branch.key(), kept.len());
                kept.push(branch);
            }
        }
    }
    if kept.len() > COMPARED_MAX {
        return kept;
    }
    let mut index = 0;
    while index < kept.len() {
        let wider = (0..kept.len()).find(|other| *other != index && kept[index].implies(&kept[*other]));
        match wider {
            Some(wider) => {
                let queries = std::mem::take(&mut kept[index].queries);
                kept[wider].queries.extend(queries);
                kept.remove(index);
            }
            None => index += 1,
        }
    }
    kept
}
