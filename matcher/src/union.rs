//! What a server may be asked to filter for several readers of one change stream at once: one `$match` that lets through everything
//! that any of their queries does, and little else. Pure, and of queries alone: no event is looked at here.
//!
//! Each query is first weakened to what every server is sure to answer as the matcher does (`weaken`, `plain`); then their disjunction
//! is simplified (`simplify`) and put into the form that the server rewrites onto its oplog (`term`): plain conditions on
//! `operationType` and `ns` first, values of one field in one `$in`, a disjunction whose branches all keep something that can be looked
//! at there. Where it would still cost the server more than sending the events, it becomes coarser, see [`Limits`].
//!
//! Whatever is done to a query, only more passes: each reader matches again by itself.

mod plain;
mod simplify;
pub(crate) mod term;
pub(crate) mod weaken;

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::Document;

use self::simplify::{is_never, simplify};
use self::term::{Branch, Literal, Term, Values, What, encode, render};
pub use self::weaken::Dropped;
use self::weaken::weaken;

/// Conditions on `ns` are regular expressions on the oplog: so many values of an `$in` cost as much as one branch.
const NAMESPACES_PER_BRANCH: usize = 8;

/// How large a filter may become.
///
/// Measured on mongod 6.0.5, CPU for 100,000 inserts of 450 bytes read in raw batches: 0.61 s without a filter; 0.15 s with an `$in`
/// of 1, 100 or 300 values that lets nothing through, and 0.7 s with one that lets all through; 0.39, 2.6 and 7.9 s with 10, 100 and
/// 300 branches of a disjunction. So a branch costs 0.25 µs for each event, and an event that is sent costs 4.6 µs of the server's
/// time and at least 5 µs of ours: where half of the events are spared, 16 to 20 branches cost what they spare. `ns.coll` in 1, 10 or
/// 100 names costs 0.32, 0.37 and 0.70 s.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all disjunctions together.
    pub branches_max: usize,
    /// Of the filter as BSON. The server repeats parts of it several times when it rewrites it, and shows it in its logs.
    pub bytes_max: usize,
    /// Levels of documents and arrays; the server allows about 100 in a query.
    pub levels_max: usize,
}

impl Limits {
    /// Those that are used.
    pub const STANDARD: Limits = Limits { branches_max: 16, bytes_max: 128 << 10, levels_max: 64 };
}

/// What became of one query on the way to the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fate {
    /// Conditions that are not asked of the server.
    pub dropped: Vec<Dropped>,
    /// More was left out because the whole filter had become too large.
    pub coarsened: bool,
}

impl Fate {
    /// The server lets nothing through for this query that it does not match.
    pub fn is_exact(&self) -> bool {
        self.dropped.is_empty() && !self.coarsened
    }
}

/// One filter for several queries.
#[derive(Clone, Debug)]
pub struct Union {
    /// None: nothing passes.
    branches: Vec<Branch>,
    fates: Vec<Fate>,
    query: Option<Document>,
    bytes: usize,
}

/// How much of a branch is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Its equalities, put together with those of other branches on the same fields.
    Values,
    /// Those on `operationType` and the namespace.
    Heads,
    /// Those on `operationType`.
    Operations,
    Nothing,
}

impl Union {
    /// Of these queries. Of none: nothing passes.
    pub fn of<'a>(queries: impl IntoIterator<Item = &'a Document>) -> Union {
        Union::within(&Limits::STANDARD, queries)
    }

    /// The same within other limits.
    pub fn within<'a>(limits: &Limits, queries: impl IntoIterator<Item = &'a Document>) -> Union {
        let (mut fates, mut branches) = (Vec::new(), Vec::new());
        for (number, query) in queries.into_iter().enumerate() {
            let weak = weaken(query);
            fates.push(Fate { dropped: weak.dropped, coarsened: false });
            branches.extend(branches_of(weak.branch, number));
        }
        let branches = simplify(branches);
        if let Some(union) = Union::fitting(limits, branches.clone(), &fates) {
            return union;
        }
        coarser(limits, &branches, &fates)
    }

    fn fitting(limits: &Limits, branches: Vec<Branch>, fates: &[Fate]) -> Option<Union> {
        if branches.iter().map(Branch::weight).sum::<usize>() > limits.branches_max {
            return None;
        }
        let query = match branches.as_slice() {
            [only] if only.is_everything() => None,
            some => Some(render(some)),
        };
        let bytes = query.as_ref().map_or(Some(0), |query| Some(encode(query)?.len()))?;
        let levels = query.as_ref().map_or(0, levels);
        (bytes <= limits.bytes_max && levels <= limits.levels_max).then(|| Union {
            branches,
            fates: fates.to_vec(),
            query,
            bytes,
        })
    }

    /// The filter, for a `$match`; `None` where everything has to pass.
    pub fn to_match(&self) -> Option<&Document> {
        self.query.as_ref()
    }

    /// Its size as BSON.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What became of each query, in their order.
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Whether everything that the query lets through passes for certain. True of all queries it was made of, and of some others.
    pub fn covers(&self, query: &Document) -> bool {
        let wanted = branches_of(weaken(query).branch, 0);
        wanted.iter().all(|branch| is_never(branch) || self.branches.iter().any(|wider| branch.implies(wider)))
    }
}

/// A query that is nothing but a disjunction is its branches.
fn branches_of(branch: Branch, number: usize) -> Vec<Branch> {
    let mut branches = match branch.terms.as_slice() {
        [Term { what: What::Or(several), .. }] => several.to_vec(),
        _ => vec![branch],
    };
    branches.iter_mut().for_each(|branch| branch.queries = vec![number]);
    branches
}

/// The first of ever coarser filters that is within the limits: first of the heaviest branches only.
fn coarser(limits: &Limits, branches: &[Branch], fates: &[Fate]) -> Union {
    let size = |branch: &Branch| {
        let document = render(std::slice::from_ref(branch));
        encode(&document).map_or(usize::MAX, |bytes| bytes.len())
    };
    let mut order: Vec<(usize, usize, usize)> =
        branches.iter().enumerate().map(|(at, branch)| (branch.weight(), size(branch), at)).collect();
    order.sort_unstable_by_key(|(weight, size, at)| (std::cmp::Reverse((*weight, *size)), *at));
    for level in [Level::Values, Level::Heads, Level::Operations] {
        let mut many = 1;
        loop {
            let many_at_most = many.min(order.len());
            let chosen: Vec<usize> = order[..many_at_most].iter().map(|(_, _, at)| *at).collect();
            if let Some(union) = attempt(limits, branches, fates, level, &chosen) {
                return union;
            }
            if many >= order.len() {
                break;
            }
            many *= 2;
        }
    }
    let all: Vec<usize> = (0..branches.len()).collect();
    let (branches, fates) = coarsened(branches, fates, Level::Nothing, &all);
    Union { branches, fates, query: None, bytes: 0 }
}

fn attempt(limits: &Limits, branches: &[Branch], fates: &[Fate], level: Level, chosen: &[usize]) -> Option<Union> {
    let (branches, fates) = coarsened(branches, fates, level, chosen);
    Union::fitting(limits, branches, &fates)
}

/// The chosen branches at this level, the others as they are, simplified.
fn coarsened(branches: &[Branch], fates: &[Fate], level: Level, chosen: &[usize]) -> (Vec<Branch>, Vec<Fate>) {
    let mut fates = fates.to_vec();
    let mut all: Vec<Branch> = Vec::with_capacity(branches.len());
    let mut coarse = Boxes::default();
    let mut is_chosen = vec![false; branches.len()];
    chosen.iter().for_each(|at| is_chosen[*at] = true);
    for (branch, is_chosen) in branches.iter().zip(is_chosen) {
        if !is_chosen {
            all.push(branch.clone());
            continue;
        }
        branch.queries.iter().for_each(|query| fates[*query].coarsened = true);
        let keeps = |term: &&Term| match (level, &term.what) {
            (Level::Values, What::In { .. }) => true,
            (Level::Heads, What::In { .. }) => term.is_head(),
            (Level::Operations, What::In { path, .. }) => **path == *"operationType",
            _ => false,
        };
        let terms: Vec<Term> = branch.terms.iter().filter(keeps).cloned().collect();
        coarse.add(Branch { terms, queries: branch.queries.clone() });
    }
    all.extend(coarse.into_branches());
    let all = simplify(all);
    // What is let through by a coarse branch, or has become part of one, is no longer told from it.
    for branch in
        all.iter().filter(|branch| branch.queries.iter().any(|query| fates[*query].coarsened)).collect::<Vec<_>>()
    {
        branch.queries.iter().for_each(|query| fates[*query].coarsened = true);
    }
    (all, fates)
}

/// Branches of `$in` alone, by their paths, which are sorted. Those on the same fields become one: the values of each field in one
/// `$in`. Of two conditions on one field each has its own.
#[derive(Default)]
struct Boxes(BTreeMap<Vec<Arc<str>>, OneBox>);

#[derive(Default)]
struct OneBox {
    /// Of each path.
    values: Vec<Vec<Literal>>,
    queries: Vec<usize>,
}

impl Boxes {
    fn add(&mut self, branch: Branch) {
        let mut fields: Vec<(&Arc<str>, &Values)> = branch.terms.iter().filter_map(Term::as_in).collect();
        fields.sort_by_key(|(path, _)| *path);
        let paths = fields.iter().map(|(path, _)| Arc::clone(path)).collect();
        let OneBox { values, queries } = self.0.entry(paths).or_default();
        values.resize(fields.len(), Vec::new());
        values.iter_mut().zip(fields).for_each(|(values, (_, more))| values.extend_from_slice(&more.all));
        queries.extend(branch.queries);
    }

    fn into_branches(self) -> impl Iterator<Item = Branch> {
        self.0.into_iter().map(|(paths, OneBox { values, queries })| {
            let mut branch = Branch { terms: Vec::with_capacity(paths.len()), queries };
            paths.iter().zip(values).for_each(|(path, values)| branch.require(Term::within(path, values)));
            branch
        })
    }
}

/// How deep documents and arrays are nested.
fn levels(document: &Document) -> usize {
    fn of(value: &bson::Bson) -> usize {
        match value {
            bson::Bson::Document(document) => levels(document),
            bson::Bson::Array(values) => 1 + values.iter().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    1 + document.values().map(of).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
