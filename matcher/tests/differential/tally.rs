//! Counts what was asked: pairs, matches, and for each operator both answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use bson::{Bson, Document};

/// What was asked so far.
pub struct Tally {
    wanted: u64,
    started: Instant,
    shown: u64,
    pub pairs: u64,
    matches: u64,
    queries: u64,
    /// Queries that both sides refuse.
    pub refused: u64,
    /// Pairs that matched and pairs that did not, for each operator in a query.
    operators: BTreeMap<String, (u64, u64)>,
}

impl Tally {
    pub fn new(wanted: u64) -> Tally {
        let (started, operators) = (Instant::now(), BTreeMap::new());
        Tally { wanted, started, shown: 0, pairs: 0, matches: 0, queries: 0, refused: 0, operators }
    }

    /// Counts a query put to so many documents.
    pub fn count(&mut self, query: &Document, documents: usize, matched: usize) {
        let (matched, other) = (matched as u64, (documents - matched) as u64);
        (self.queries, self.pairs, self.matches) =
            (self.queries + 1, self.pairs + documents as u64, self.matches + matched);
        for operator in operators(query) {
            let count = self.operators.entry(operator).or_default();
            *count = (count.0 + matched, count.1 + other);
        }
    }

    /// On a long run, a line now and then.
    pub fn show_progress(&mut self, disagreements: usize) {
        if self.pairs / 500_000 > self.shown {
            self.shown = self.pairs / 500_000;
            let seconds = self.started.elapsed().as_secs();
            println!("{} of {} pairs in {seconds} s, {disagreements} disagreements", self.pairs, self.wanted);
        }
    }

    /// Every operator was met, and each by both answers.
    pub fn check(&self) {
        const OPERATORS: [&str; 26] = [
            "$eq",
            "$ne",
            "$gt",
            "$gte",
            "$lt",
            "$lte",
            "$in",
            "$nin",
            "$and",
            "$or",
            "$nor",
            "$not",
            "$exists",
            "$type",
            "$mod",
            "$regex",
            "$options",
            "$all",
            "$elemMatch",
            "$size",
            "$bitsAllSet",
            "$bitsAllClear",
            "$bitsAnySet",
            "$bitsAnyClear",
            "$comment",
            "$alwaysTrue",
        ];
        for operator in OPERATORS {
            let (yes, no) = self.operators.get(operator).copied().unwrap_or_default();
            assert!(yes > 0 && no > 0, "{operator} was met by {yes} matches and {no} others");
        }
        let share = self.matches * 100 / self.pairs;
        assert!((20..=60).contains(&share), "{share} % of the pairs match");
        assert!(self.refused > 0, "no query was refused by both");
        assert!(self.pairs >= self.wanted, "only {} pairs", self.pairs);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.matches as f64 * 100.0 / self.pairs.max(1) as f64;
        let seconds = self.started.elapsed().as_secs_f64();
        let (pairs, queries, refused) = (self.pairs, self.queries, self.refused);
        write!(
            f,
            "{pairs} pairs of {queries} queries in {seconds:.1} s, {share:.1} % match, {refused} more queries refused by both"
        )?;
        for (operator, (yes, no)) in self.operators.iter().filter(|(operator, _)| known(operator)) {
            write!(f, "\n  {operator:14} {yes:>10} matches {no:>10} others")?;
        }
        Ok(())
    }
}

/// Parts of a DBRef are no operators.
fn known(operator: &str) -> bool {
    !["$ref", "$id"].contains(&operator)
}

/// The operators of a query.
pub fn operators(query: &Document) -> BTreeSet<String> {
    fn collect(value: &Bson, found: &mut BTreeSet<String>) {
        match value {
            Bson::Document(document) => {
                for (name, value) in document {
                    if name.starts_with('$') {
                        found.insert(name.clone());
                    }
                    collect(value, found);
                }
            }
            Bson::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    collect(&Bson::Document(query.clone()), &mut found);
    found
}
