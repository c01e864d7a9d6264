//! What queries ask of an event's head, its `operationType` and namespace, tested once for all of them. Pure; of an event it is given
//! these three strings.
//!
//! From each query the *necessary* conditions on the head are taken: whatever does not satisfy them cannot match. Each different
//! condition is a bit. The bits of an event are computed when it comes in; a reader whose query has none of them in common passes the
//! event over without looking at it.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document};

use crate::union::term::{Branch, What, encode};
use crate::union::weaken::weaken;

/// The bit of readers that must look at every event.
const ALWAYS: u64 = 1 << 63;

/// Bits of conditions. Where there are more conditions, several share a bit, and their readers look at the events of all of them.
const BITS: usize = 63;

/// Alternatives of one query that are told apart.
const ALTERNATIVES_MAX: usize = 16;

/// The bits of some queries.
#[derive(Clone, Debug)]
pub struct Heads {
    operations: Column,
    databases: Column,
    collections: Column,
    /// By the bytes of a query, in order.
    masks: Vec<(Vec<u8>, u64)>,
}

/// Which conditions a value satisfies.
#[derive(Clone, Debug)]
struct Column {
    /// Conditions that do not ask.
    any: u64,
    /// In order.
    values: Vec<(Box<str>, u64)>,
}

/// What one condition asks; `None`: nothing. Two that ask the same are one.
#[derive(Clone, Debug, Default, PartialEq)]
struct Condition {
    operations: Option<BTreeSet<String>>,
    databases: Option<BTreeSet<String>>,
    collections: Option<BTreeSet<String>>,
}

impl Heads {
    /// Bits for these queries.
    pub fn of<'a>(queries: impl IntoIterator<Item = &'a Document>) -> Heads {
        let (mut conditions, mut masks) = (Vec::new(), Vec::new());
        for query in queries {
            let Some(bytes) = encode(query) else { continue };
            let mask = mask_of(conditions_of(query), &mut conditions);
            masks.push((bytes, mask));
        }
        masks.sort();
        masks.dedup_by(|one, other| one.0 == other.0);
        Heads {
            operations: Column::new(conditions.iter().map(|condition| &condition.operations)),
            databases: Column::new(conditions.iter().map(|condition| &condition.databases)),
            collections: Column::new(conditions.iter().map(|condition| &condition.collections)),
            masks,
        }
    }

    /// The bits of an event with this head; "" is what is not there.
    pub fn classify(&self, operation: &str, database: &str, collection: &str) -> u64 {
        ALWAYS | (self.operations.of(operation) & self.databases.of(database) & self.collections.of(collection))
    }

    /// The bits of a query, as its bytes: an event that has none of them does not match. All for a query that is not known here.
    pub fn mask(&self, query: &[u8]) -> u64 {
        let found = self.masks.binary_search_by(|(bytes, _)| bytes.as_slice().cmp(query));
        found.map_or(u64::MAX, |at| self.masks[at].1)
    }
}

impl Column {
    fn new<'a>(asked: impl Iterator<Item = &'a Option<BTreeSet<String>>>) -> Column {
        let (mut any, mut bits) = (0, BTreeMap::<&str, u64>::new());
        for (number, asked) in asked.enumerate() {
            let bit = 1 << (number % BITS);
            match asked {
                None => any |= bit,
                Some(values) => values.iter().for_each(|value| *bits.entry(value).or_default() |= bit),
            }
        }
        Column { any, values: bits.into_iter().map(|(value, bits)| (value.into(), bits)).collect() }
    }

    fn of(&self, value: &str) -> u64 {
        let found = self.values.binary_search_by(|(known, _)| (**known).cmp(value));
        self.any | found.map_or(0, |at| self.values[at].1)
    }
}

/// The bits of a query's conditions; new ones are added.
fn mask_of(wanted: Vec<Condition>, known: &mut Vec<Condition>) -> u64 {
    let mut mask = 0;
    for condition in wanted {
        let at = known.iter().position(|other| *other == condition).unwrap_or(known.len());
        if condition == Condition::default() {
            return ALWAYS;
        }
        if at == known.len() {
            known.push(condition);
        }
        mask |= 1 << (at % BITS);
    }
    mask
}

/// The conditions of which any event that matches satisfies one. None: nothing matches.
fn conditions_of(query: &Document) -> Vec<Condition> {
    let conditions = alternatives(&weaken(query).branch);
    if conditions.len() > ALTERNATIVES_MAX { vec![Condition::default()] } else { conditions }
}

fn alternatives(branch: &Branch) -> Vec<Condition> {
    let mut all = vec![Condition::default()];
    for term in &branch.terms {
        match &term.what {
            What::In { path, values } => {
                let values: Vec<&Bson> = values.all.iter().map(|literal| &literal.value).collect();
                all.iter_mut().for_each(|condition| condition.narrow(path, &values));
            }
            What::Or(branches) if all.len() == 1 => {
                let inner: Vec<Condition> = branches.iter().flat_map(alternatives).collect();
                let outer = all.remove(0);
                all.extend(inner.into_iter().map(|condition| outer.and(condition)));
            }
            // Not more than one disjunction is multiplied out.
            What::Or(_) | What::Other { .. } => {}
        }
    }
    all.retain(|condition| !condition.is_never());
    let mut different: Vec<Condition> = Vec::new();
    for condition in all {
        if !different.contains(&condition) {
            different.push(condition);
        }
    }
    different
}

impl Condition {
    /// The field at `path` equals one of the values. These fields are strings or missing, so a value of another type is none; but null
    /// equals what is missing, and then nothing is asked.
    fn narrow(&mut self, path: &str, values: &[&Bson]) {
        if values.iter().any(|value| matches!(value, Bson::Null)) {
            return;
        }
        let strings = |values: &[&Bson]| -> BTreeSet<String> {
            let strings = values.iter().filter_map(|value| match value {
                Bson::String(text) | Bson::Symbol(text) => Some(text.clone()),
                _ => None,
            });
            strings.collect()
        };
        match path {
            "operationType" => keep(&mut self.operations, strings(values)),
            "ns.db" => keep(&mut self.databases, strings(values)),
            "ns.coll" => keep(&mut self.collections, strings(values)),
            "ns" => {
                let part = |name: &str| -> Option<BTreeSet<String>> {
                    values.iter().map(|value| Some(value.as_document()?.get_str(name).ok()?.to_owned())).collect()
                };
                // Of a dropped database there is no collection to compare; such a value asks nothing of it.
                part("db").into_iter().for_each(|databases| keep(&mut self.databases, databases));
                part("coll").into_iter().for_each(|collections| keep(&mut self.collections, collections));
            }
            _ => {}
        }
    }

    fn and(&self, other: Condition) -> Condition {
        let mut both = self.clone();
        other.operations.into_iter().for_each(|some| keep(&mut both.operations, some));
        other.databases.into_iter().for_each(|some| keep(&mut both.databases, some));
        other.collections.into_iter().for_each(|some| keep(&mut both.collections, some));
        both
    }

    fn is_never(&self) -> bool {
        [&self.operations, &self.databases, &self.collections].into_iter().flatten().any(BTreeSet::is_empty)
    }
}

/// Only what is in both.
fn keep(asked: &mut Option<BTreeSet<String>>, values: BTreeSet<String>) {
    *asked = Some(match asked.take() {
        Some(before) => before.intersection(&values).cloned().collect(),
        None => values,
    });
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    const HEADS: [(&str, &str, &str); 5] = [
        ("insert", "shop", "orders"),
        ("insert", "shop", "carts"),
        ("update", "crm", "orders"),
        ("dropDatabase", "shop", ""),
        ("invalidate", "", ""),
    ];

    /// Which of the heads a query looks at.
    #[track_caller]
    fn check(query: Document, expected: [bool; 5]) {
        let heads = Heads::of([&doc! { "operationType": "delete" }, &query]);
        let mask = heads.mask(&encode(&query).expect("BSON"));
        let found = HEADS.map(|(operation, db, coll)| heads.classify(operation, db, coll) & mask != 0);
        assert_eq!(found, expected, "{query}");
    }

    #[test]
    fn what_a_query_needs_of_a_head() {
        let (yes, no) = (true, false);
        check(doc! {}, [yes; 5]);
        check(doc! { "fullDocument.a": 1 }, [yes; 5]);
        check(doc! { "operationType": "insert" }, [yes, yes, no, no, no]);
        check(doc! { "operationType": { "$in": ["insert", "update"] }, "ns.coll": "orders" }, [yes, no, yes, no, no]);
        check(doc! { "ns": { "db": "shop", "coll": "carts" } }, [no, yes, no, no, no]);
        check(doc! { "ns": { "db": "shop" } }, [yes, yes, no, yes, no]);
        check(
            doc! { "ns": { "$in": [{ "db": "crm", "coll": "orders" }, { "db": "shop" }] } },
            [yes, yes, yes, yes, no],
        );
        check(doc! { "$or": [{ "operationType": "update" }, { "ns.coll": "carts" }] }, [no, yes, yes, no, no]);
        check(
            doc! { "ns.db": "shop", "$or": [{ "operationType": "update" }, { "ns.coll": "carts" }] },
            [no, yes, no, no, no],
        );
        check(doc! { "$or": [{ "operationType": "update" }, { "fullDocument.a": 1 }] }, [yes; 5]);
        check(
            doc! { "$and": [{ "operationType": { "$in": ["insert", "update"] } }, { "operationType": "update" }] },
            [no, no, yes, no, no],
        );
        check(doc! { "operationType": { "$in": [] } }, [no; 5]);
        check(doc! { "operationType": 5 }, [no; 5]);
        // Conditions that are not equalities are not looked into; null equals what is missing.
        check(doc! { "operationType": { "$ne": "insert" } }, [yes; 5]);
        check(doc! { "ns.coll": Bson::Null }, [yes; 5]);
        check(doc! { "ns.coll": { "$in": ["orders", Bson::Null] } }, [yes; 5]);
        check(doc! { "ns.coll": "" }, [no, no, no, yes, yes]);
    }

    #[test]
    fn more_conditions_than_bits_share_them() {
        let queries: Vec<Document> = (0..100).map(|k| doc! { "ns.coll": format!("c{k}") }).collect();
        let heads = Heads::of(&queries);
        let mask = |query: &Document| heads.mask(&encode(query).expect("BSON"));
        for k in 0..100 {
            let bits = heads.classify("insert", "shop", &format!("c{k}"));
            let looking: Vec<usize> = (0..100).filter(|at| bits & mask(&queries[*at]) != 0).collect();
            let sharing: Vec<usize> = (0..100).filter(|at| at % BITS == k % BITS).collect();
            assert_eq!(looking, sharing, "c{k}");
        }
        let alternatives = |count: usize| {
            let all = (0..count).map(|k| doc! { "ns.coll": format!("c{k}"), "operationType": format!("o{k}") });
            doc! { "$or": all.collect::<Vec<_>>() }
        };
        let (some, many) = (alternatives(3), alternatives(40));
        assert_eq!(Heads::of([&some]).mask(&encode(&some).expect("BSON")), 0b111);
        assert_eq!(Heads::of([&many]).mask(&encode(&many).expect("BSON")), ALWAYS);
        assert_eq!(mask(&many), u64::MAX, "a query that is not known here");
    }
}
