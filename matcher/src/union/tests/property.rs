//! The union of queries against the matcher, over every operator and type: over seeded queries and events nothing that a query lets
//! through is left out by the union, and where nothing was weakened nothing else passes. A failure prints its seed. Conditions and
//! documents are those that the matcher is compared with mongod over; what a real server says of unions is among the integration tests.

use std::collections::BTreeSet;

use bson::raw::{RawArrayBuf, RawBsonRef};
use bson::{Bson, Document, RawBson, RawDocument, RawDocumentBuf, RawJavaScriptCodeWithScope, doc};

use self::random::Random;
use self::values::World;
use super::super::*;
use crate::Matcher;
use crate::head::Heads;

#[path = "../../../tests/differential/documents.rs"]
mod documents;
#[path = "../../../tests/differential/queries.rs"]
#[allow(dead_code)] // Whole queries are made here, of its conditions.
mod queries;
#[path = "../../../tests/differential/random.rs"]
mod random;
#[path = "../../../tests/differential/values.rs"]
mod values;

const SEEDS: u64 = 4_000;
const EVENTS: usize = 12;

fn head(random: &mut Random, path: &str) -> Bson {
    let values: &[&str] = match path {
        "operationType" => &["insert", "update", "delete"],
        "ns.db" => &["shop", "crm"],
        _ => &["orders", "carts", "users"],
    };
    (*random.pick(values)).into()
}

fn event(random: &mut Random, world: &World) -> RawDocumentBuf {
    let mut event = doc! { "operationType": head(random, "operationType") };
    if random.percent(95) {
        let mut ns = doc! { "db": head(random, "ns.db") };
        if random.percent(88) {
            ns.insert("coll", head(random, "ns.coll"));
        }
        event.insert("ns", ns);
    }
    let mut raw = RawDocumentBuf::try_from(&event).expect("BSON");
    match random.below(20) {
        0 => {}
        // What has changed its meaning.
        1 | 2 => {
            let one = random.pick(&[Bson::Undefined, Bson::Undefined, Bson::Null]).clone();
            let inner = [
                one.clone(),
                vec![one.clone()].into(),
                doc! { "b": one.clone() }.into(),
                vec![doc! { "b": one }].into(),
            ];
            let full = doc! { "a": random.pick(&inner).clone() };
            raw.append(bson::cstr!("fullDocument"), RawDocumentBuf::try_from(&full).expect("BSON"));
        }
        _ => raw.append(bson::cstr!("fullDocument"), documents::document(random, world, 0)),
    }
    raw
}

/// A condition on the head, in words that can be looked at beforehand and in others.
fn on_head(random: &mut Random, world: &World) -> Document {
    let path = *random.pick(&["operationType", "ns.db", "ns.coll"]);
    let (one, other) = (head(random, path), head(random, path));
    match random.below(16) {
        0..=4 => doc! { path: one },
        5 | 6 => doc! { path: { "$in": [one, other] } },
        7 => doc! { path: { "$in": [one, Bson::Null] } },
        8 => doc! { path: { "$nin": [one, other] } },
        9 => doc! { path: { "$ne": one } },
        10 => doc! { "ns": { "db": head(random, "ns.db"), "coll": head(random, "ns.coll") } },
        11 => doc! { "ns": { "$in": [{ "db": head(random, "ns.db") }, world.scalar(random)] } },
        12 => doc! { path: { "$not": { "$eq": one } } },
        13 => {
            let patterns = ["^ord", "r", "S$", "^c.r.s$", "s|p", "(in|de)", "it's", "[a-d]"];
            doc! { path: { "$regex": *random.pick(&patterns), "$options": *random.pick(&["", "i"]) } }
        }
        _ => doc! { path: queries::condition(random, world, 1) },
    }
}

fn on_document(random: &mut Random, world: &World) -> Document {
    let names = ["a", "a", "a", "a", "b", "c", "a.b", "a.b", "a.0", "a.a", "0", "b.a"];
    let path = format!("fullDocument.{}", random.pick(&names));
    match random.below(10) {
        0..=2 => doc! { path: world.value(random, 2) },
        3 => doc! { path: { "$in": (0..random.below(4)).map(|_| world.scalar(random)).collect::<Vec<_>>() } },
        4 => doc! { path: negation(random, world) },
        _ => doc! { path: queries::condition(random, world, 2) },
    }
}

fn negation(random: &mut Random, world: &World) -> Document {
    let one = if random.percent(50) { Bson::Null } else { world.scalar(random) };
    let pattern = *random.pick(&["a", "^a", "a$", "^.$", "[ab]", "."]);
    match random.below(9) {
        0..=3 => doc! { "$ne": one },
        4 => doc! { "$nin": [one, world.scalar(random)] },
        5 => {
            let options = *random.pick(&["", "i", "s"]);
            doc! { "$not": values::regex(pattern, options) }
        }
        6 => doc! { "$not": { "$ne": one } },
        7 => doc! { "$not": { "$elemMatch": { "$nin": [one] } } },
        _ => doc! { "$elemMatch": { "b": { "$ne": one } } },
    }
}

/// One that the matcher takes.
fn condition(random: &mut Random, world: &World) -> Document {
    loop {
        let condition = match random.below(20) {
            0 => doc! { "_id.x": world.scalar(random) },
            1..=8 => on_head(random, world),
            _ => on_document(random, world),
        };
        if Matcher::compile(&condition).is_ok() {
            return condition;
        }
    }
}

fn query(random: &mut Random, world: &World, level: usize) -> Document {
    let mut all = Document::new();
    for _ in 0..*random.pick(&[1, 1, 2, 3]) {
        if level < 2 && random.percent(25) {
            let list: Vec<Document> = (0..random.below(3) + 1).map(|_| query(random, world, level + 1)).collect();
            all.insert(*random.pick(&["$or", "$or", "$and", "$nor"]), list);
        } else {
            all.extend(condition(random, world));
        }
    }
    all
}

fn compiled(query: &Document) -> Matcher {
    Matcher::compile(query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// What undefined is for a server from 8.0 on: a value that null does not equal. No filter asks for another one of this type.
const UNDEFINED_ON_8: i32 = 15;

/// An event as a server from 8.0 on sees it.
fn event_on_8(event: &RawDocument) -> RawDocumentBuf {
    fn value(value: RawBsonRef<'_>) -> RawBson {
        match value {
            RawBsonRef::Undefined => {
                let (code, scope) = ("undefined".into(), RawDocumentBuf::new());
                RawBson::JavaScriptCodeWithScope(RawJavaScriptCodeWithScope { code, scope })
            }
            RawBsonRef::Document(inner) => event_on_8(inner).into(),
            RawBsonRef::Array(inner) => {
                let mut all = RawArrayBuf::new();
                inner.into_iter().for_each(|item| all.push(value_of(item.expect("BSON"))));
                all.into()
            }
            other => other.into(),
        }
    }
    use value as value_of;
    let mut all = RawDocumentBuf::new();
    for element in event {
        let (name, inner) = element.expect("BSON");
        all.append(name, value(inner));
    }
    all
}

/// A filter in the words for such events.
fn filter_on_8(filter: &Document) -> Document {
    fn types(value: &Bson) -> Bson {
        match value {
            Bson::Array(all) => all.iter().map(types).collect::<Vec<_>>().into(),
            Bson::Int32(6) | Bson::Int64(6) => UNDEFINED_ON_8.into(),
            Bson::String(name) if name == "undefined" => UNDEFINED_ON_8.into(),
            other => other.clone(),
        }
    }
    fn value(inner: &Bson) -> Bson {
        match inner {
            Bson::Document(inner) => filter_on_8(inner).into(),
            Bson::Array(all) => all.iter().map(value).collect::<Vec<_>>().into(),
            other => other.clone(),
        }
    }
    let each =
        |(name, inner): (&String, &Bson)| (name.clone(), if name == "$type" { types(inner) } else { value(inner) });
    filter.iter().map(each).collect()
}

/// All operators in a filter.
fn operators(filter: &Bson, found: &mut BTreeSet<String>) {
    match filter {
        Bson::Document(inner) => {
            found.extend(inner.keys().filter(|name| name.starts_with('$')).cloned());
            inner.values().for_each(|value| operators(value, found));
        }
        Bson::Array(all) => all.iter().for_each(|value| operators(value, found)),
        _ => {}
    }
}

/// What was seen, so that the claims are not about nothing.
#[derive(Debug, Default)]
struct Seen {
    passed: usize,
    exact: usize,
    coarse: usize,
    merged: usize,
    covered: usize,
    passed_over: usize,
    undefined: usize,
    /// In filters that are exact, let something through and keep something back.
    operators: BTreeSet<String>,
}

/// One set of queries and what was made of them.
struct Case {
    context: String,
    queries: Vec<(Document, Matcher)>,
    union: Union,
    heads: Heads,
    /// Another query that is covered.
    covered: Option<Matcher>,
    is_exact: bool,
}

impl Case {
    fn new(seed: u64, random: &mut Random, world: &World) -> Case {
        let queries: Vec<Document> = (0..*random.pick(&[1, 1, 2, 3, 6])).map(|_| query(random, world, 0)).collect();
        let narrow = Limits { branches_max: random.below(4), bytes_max: 60 + random.below(400), levels_max: 64 };
        let limits = *random.pick(&[Limits::STANDARD, narrow]);
        let union = Union::within(&limits, &queries);
        // A part of one of the queries with something beside it is often covered, another query seldom.
        let mut other = query(random, world, 0);
        if random.percent(60) {
            other.extend(random.pick(&queries).clone());
        }
        let covered = union.covers(&other).then(|| compiled(&other));
        let context = format!("seed {seed}: {queries:?}\nasked: {:?}\ncovered: {other}", union.to_match());
        for query in &queries {
            assert!(union.covers(query), "{query} is not covered, {context}");
        }
        let (bytes, levels) = (union.bytes(), union.to_match().map_or(0, levels));
        assert!(bytes <= limits.bytes_max && levels <= limits.levels_max, "{bytes} bytes, {context}");
        let weight: usize = union.branches.iter().map(Branch::weight).sum();
        assert!(union.to_match().is_none() || weight <= limits.branches_max, "{weight} branches, {context}");
        let (heads, is_exact) = (Heads::of(&queries), union.fates().iter().all(Fate::is_exact));
        let queries = queries.into_iter().map(|query| (query.clone(), compiled(&query))).collect();
        Case { context, queries, union, heads, covered, is_exact }
    }

    /// Puts events to it.
    fn check(&self, random: &mut Random, world: &World, seen: &mut Seen) {
        let filter = self.union.to_match().map(compiled);
        let on_8 = self.union.to_match().map(|filter| compiled(&filter_on_8(filter)));
        let mut passing = 0;
        for _ in 0..EVENTS {
            let event = event(random, world);
            let context = || format!("{event:?}\n{}", self.context);
            let wanted = self.queries.iter().any(|(_, matcher)| matcher.matches(&event));
            let passes = filter.as_ref().is_none_or(|filter| filter.matches(&event));
            assert!(passes || !wanted, "left out: {}", context());
            assert!(wanted || !passes || !self.is_exact, "let through: {}", context());
            let passes_on_8 = on_8.as_ref().is_none_or(|filter| filter.matches(&event_on_8(&event)));
            assert!(passes_on_8 || !wanted, "left out by MongoDB 8.0: {}", context());
            if let Some(covered) = self.covered.as_ref().filter(|covered| covered.matches(&event)) {
                assert!(passes && passes_on_8, "{} is not covered: {}", covered.query(), context());
                seen.covered += 1;
            }
            self.check_head(&event, seen);
            passing += usize::from(passes);
            seen.passed += usize::from(wanted);
            seen.undefined += usize::from(passes != passes_on_8);
        }
        if self.is_exact && passing > 0 && passing < EVENTS {
            let filter = self.union.to_match().cloned().unwrap_or_default();
            operators(&filter.into(), &mut seen.operators);
        }
    }

    fn check_head(&self, event: &RawDocument, seen: &mut Seen) {
        let part = |name: &str| event.get_document("ns").ok().and_then(|ns| ns.get_str(name).ok()).unwrap_or("");
        let bits = self.heads.classify(event.get_str("operationType").unwrap_or(""), part("db"), part("coll"));
        for (query, matcher) in &self.queries {
            let looks = bits & self.heads.mask(&encode(query).expect("BSON")) != 0;
            assert!(looks || !matcher.matches(event), "{query} passes over: {event:?}\n{}", self.context);
            seen.passed_over += usize::from(!looks);
        }
    }
}

#[test]
fn a_union_lets_through_what_its_queries_do_and_nothing_else_without_need() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let world = World::new(&mut random);
        let case = Case::new(seed, &mut random, &world);
        case.check(&mut random, &world, &mut seen);
        seen.exact += usize::from(case.is_exact);
        seen.coarse += usize::from(case.union.fates().iter().any(|fate| fate.coarsened));
        seen.merged += usize::from(case.union.branches.len() < case.queries.len());
    }
    println!("{seen:?}");
    let counts = [seen.passed, seen.passed_over];
    assert!(counts.into_iter().all(|count| count > 5_000) && seen.covered > 1_000, "{seen:?}");
    let sets = [seen.exact, seen.coarse, seen.merged];
    assert!(sets.into_iter().all(|count| count > 600) && seen.undefined > 8, "{seen:?}");
    for operator in [
        "$eq",
        "$ne",
        "$gt",
        "$gte",
        "$lt",
        "$lte",
        "$in",
        "$nin",
        "$not",
        "$exists",
        "$type",
        "$regex",
        "$options",
        "$mod",
        "$all",
        "$elemMatch",
        "$size",
        "$bitsAllSet",
        "$bitsAnySet",
        "$bitsAllClear",
        "$bitsAnyClear",
        "$and",
        "$or",
        "$nor",
    ] {
        assert!(seen.operators.contains(operator), "{operator} is in no filter that tells events apart: {seen:?}");
    }
}
