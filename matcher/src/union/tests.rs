//! The union of queries against the matcher: over seeded queries and events nothing that a query lets through is left out by the
//! union, and where nothing was weakened nothing else passes. A failure prints its seed. What a real server says of the same unions
//! is among the integration tests.

use bson::{Bson, Document, RawDocumentBuf, doc};

use super::*;
use crate::Matcher;
use crate::head::Heads;

const SEEDS: u64 = 6_000;

/// A small generator: the same numbers for the same seed, on all machines.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn one_of<T: Clone>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())].clone()
    }
}

const PATHS: [&str; 6] = ["operationType", "ns.db", "ns.coll", "fullDocument.a", "fullDocument.b", "fullDocument.c.d"];

fn value(random: &mut Random, path: &str) -> Bson {
    match path {
        "operationType" => random.one_of(&["insert", "update", "delete"]).into(),
        "ns.db" => random.one_of(&["shop", "crm"]).into(),
        "ns.coll" => random.one_of(&["orders", "carts", "users"]).into(),
        _ => scalar(random),
    }
}

fn scalar(random: &mut Random) -> Bson {
    match random.below(12) {
        0 => Bson::Null,
        1 => Bson::Double(1.0),
        2 => Bson::Array(vec![1.into(), 2.into()]),
        3 => Bson::Document(doc! { "x": 1, "y": 2 }),
        4 => Bson::Document(doc! { "y": 2, "x": 1 }),
        5 => "1".into(),
        6 => Bson::MinKey,
        n => (n as i32 % 4).into(),
    }
}

fn event(random: &mut Random) -> Document {
    let mut ns = doc! { "db": value(random, "ns.db") };
    if random.below(8) > 0 {
        ns.insert("coll", value(random, "ns.coll"));
    }
    let mut event = doc! { "operationType": value(random, "operationType"), "ns": ns };
    if random.below(6) > 0 {
        let mut full = Document::new();
        for name in ["a", "b"] {
            match random.below(5) {
                0 => {}
                1 => _ = full.insert(name, Bson::Array(vec![scalar(random), scalar(random)])),
                2 if name == "b" => _ = full.insert(name, Bson::Undefined),
                _ => _ = full.insert(name, scalar(random)),
            }
        }
        full.insert("c", Bson::Array(vec![doc! { "d": scalar(random) }.into(), doc! { "d": scalar(random) }.into()]));
        event.insert("fullDocument", full);
    }
    event
}

fn condition(random: &mut Random) -> Document {
    let path = random.one_of(&PATHS);
    let one = value(random, path);
    let some: Vec<Bson> = (0..random.below(4)).map(|_| value(random, path)).collect();
    match random.below(12) {
        0..4 => doc! { path: one },
        4 => doc! { path: { "$eq": one } },
        5 | 6 => doc! { path: { "$in": some } },
        7 => doc! { path: { "$nin": some } },
        8 => doc! { path: { "$ne": one } },
        9 => doc! { path: { "$exists": random.below(2) == 0 } },
        10 => doc! { path: { "$in": some, "$ne": one } },
        _ => doc! { "_id.x": one },
    }
}

fn query(random: &mut Random, level: usize) -> Document {
    let mut all = Document::new();
    for _ in 0..random.below(3) + 1 {
        let (name, value) = match random.below(if level < 2 { 8 } else { 6 }) {
            6 => ("$or".to_owned(), list(random, level)),
            7 => ("$and".to_owned(), list(random, level)),
            _ => condition(random).into_iter().next().expect("one condition"),
        };
        all.insert(name, value);
    }
    all
}

fn list(random: &mut Random, level: usize) -> Bson {
    let all: Vec<Bson> = (0..random.below(3) + 1).map(|_| query(random, level + 1).into()).collect();
    Bson::Array(all)
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).expect("BSON")
}

/// As the server before 8.0 has it: `$type: 6` is written only beside null, which equals undefined there.
fn compiled(query: &Document) -> Matcher {
    fn without_types(query: &Document) -> Document {
        let mut all = Document::new();
        for (name, value) in query {
            match value {
                Bson::Array(items) if name.starts_with('$') => {
                    let items = items.iter().filter_map(Bson::as_document).filter(|item| {
                        !item.values().any(|value| value.as_document().is_some_and(|inner| inner.contains_key("$type")))
                    });
                    let items: Vec<Document> = items.map(without_types).collect();
                    all.insert(name.clone(), items);
                }
                _ => _ = all.insert(name.clone(), value.clone()),
            }
        }
        all
    }
    let query = without_types(query);
    Matcher::compile(&query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

#[test]
fn a_union_lets_through_what_its_queries_do_and_nothing_else_without_need() {
    let (mut passed, mut exact, mut coarse, mut merged, mut passed_over) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let queries: Vec<Document> = (0..random.below(6) + 1).map(|_| query(&mut random, 0)).collect();
        let narrow = Limits { branches_max: random.below(4), bytes_max: 60 + random.below(400), levels_max: 64 };
        let limits = random.one_of(&[Limits::STANDARD, narrow]);
        let union = Union::within(&limits, &queries);
        let filter = union.to_match().map(compiled);
        let matchers: Vec<Matcher> = queries.iter().map(|query| Matcher::compile(query).expect("a query")).collect();
        let other = query(&mut random, 0);
        let covered = union.covers(&other).then(|| Matcher::compile(&other).expect("a query"));
        let heads = Heads::of(&queries);
        let is_exact = union.fates().iter().all(Fate::is_exact);
        for query in &queries {
            assert!(union.covers(query), "seed {seed}: {query} is not covered by {:?}", union.to_match());
        }
        for _ in 0..12 {
            let event = event(&mut random);
            let event = raw(&event);
            let wanted = matchers.iter().any(|matcher| matcher.matches(&event));
            let passes = filter.as_ref().is_none_or(|filter| filter.matches(&event));
            let context = || format!("seed {seed}: {event:?}\n{queries:?}\n{:?}", union.to_match());
            assert!(passes || !wanted, "left out: {}", context());
            assert!(wanted || !passes || !is_exact, "let through: {}", context());
            let head = |name: &str| event.get_document("ns").ok().and_then(|ns| ns.get_str(name).ok()).unwrap_or("");
            let bits = heads.classify(event.get_str("operationType").unwrap_or(""), head("db"), head("coll"));
            for (query, matcher) in queries.iter().zip(&matchers) {
                let looks = bits & heads.mask(&encode(query).expect("BSON")) != 0;
                assert!(looks || !matcher.matches(&event), "{query} passes over: {}", context());
                passed_over += usize::from(!looks);
            }
            if let Some(covered) = &covered {
                assert!(passes || !covered.matches(&event), "{other} is not covered: {}", context());
            }
            passed += usize::from(wanted);
        }
        exact += usize::from(is_exact);
        coarse += usize::from(union.fates().iter().any(|fate| fate.coarsened));
        merged += usize::from(union.branches.len() < queries.len());
        let (bytes, levels) = (union.bytes(), union.to_match().map_or(0, levels));
        assert!(bytes <= limits.bytes_max && levels <= limits.levels_max, "seed {seed}: {bytes} bytes");
        let weight: usize = union.branches.iter().map(Branch::weight).sum();
        assert!(union.to_match().is_none() || weight <= limits.branches_max, "seed {seed}: {weight} branches");
    }
    println!("{passed} events passed, {exact} exact, {coarse} coarse, {merged} merged");
    assert!(passed > 5_000 && exact > 600 && coarse > 600 && merged > 600 && passed_over > 5_000);
}

#[track_caller]
fn check(queries: &[Document], expected: Option<Document>) {
    let union = Union::of(queries);
    let text = |query: Option<&Document>| query.map(|query| query.to_string());
    assert_eq!(text(union.to_match()), text(expected.as_ref()), "{queries:?}");
}

#[test]
fn the_form_of_a_union() {
    let insert = doc! { "operationType": "insert" };
    check(&[], Some(doc! { "operationType": { "$in": [] } }));
    check(&[doc! {}], None);
    check(&[insert.clone(), doc! {}], None);
    check(std::slice::from_ref(&insert), Some(insert.clone()));
    check(&[doc! { "operationType": { "$eq": "insert" } }, insert.clone()], Some(insert.clone()));
    // Heads come first.
    check(
        &[doc! { "fullDocument.a": 1, "operationType": "insert", "ns.coll": "x" }],
        Some(doc! { "operationType": "insert", "ns.coll": "x", "fullDocument.a": 1 }),
    );
    // Alike but for one field.
    check(&[doc! { "a": 1 }, doc! { "a": "x" }], Some(doc! { "a": { "$in": [1, "x"] } }));
    check(&[doc! { "a": 1 }, doc! { "a": { "$in": [2, 1] } }], Some(doc! { "a": { "$in": [1, 2] } }));
    check(
        &[
            doc! { "operationType": "insert", "a": 1 },
            doc! { "operationType": "insert", "a": 2 },
            doc! { "a": 1, "operationType": "update" },
            doc! { "operationType": "update", "a": 2 },
        ],
        Some(doc! { "operationType": { "$in": ["insert", "update"] }, "a": { "$in": [1, 2] } }),
    );
    // One lets the other through.
    check(&[doc! { "operationType": "insert", "a": 1 }, insert.clone()], Some(insert.clone()));
    check(
        &[doc! { "operationType": { "$in": ["insert", "update"] } }, doc! { "operationType": "update", "b": 1 }],
        Some(doc! { "operationType": { "$in": ["insert", "update"] } }),
    );
    check(
        &[doc! { "$or": [{ "a": 1 }, { "b": 1 }] }, doc! { "b": 1, "c": 1 }],
        Some(doc! { "$or": [{ "a": 1 }, { "b": 1 }] }),
    );
    // What all have is asked once, if the server can look at all rests on its oplog or at none.
    check(
        &[doc! { "ns.coll": "x", "fullDocument.a": 1 }, doc! { "ns.coll": "x", "fullDocument.b": 1 }],
        Some(doc! { "ns.coll": "x", "$or": [{ "fullDocument.a": 1 }, { "fullDocument.b": 1 }] }),
    );
    check(
        &[doc! { "ns.coll": "x", "fullDocument.a": 1 }, doc! { "ns.coll": "x", "wallTime": 1 }],
        Some(doc! { "$or": [{ "ns.coll": "x", "fullDocument.a": 1 }, { "ns.coll": "x", "wallTime": 1 }] }),
    );
    // Null is what it was before 8.0.
    check(
        &[doc! { "fullDocument.a": Bson::Null }],
        Some(doc! { "$or": [{ "fullDocument.a": Bson::Null }, { "fullDocument.a": { "$type": 6 } }] }),
    );
    check(&[doc! { "ns.coll": Bson::Null }], Some(doc! { "ns.coll": Bson::Null }));
    // The order of keys in a value makes another value.
    check(
        &[doc! { "a": { "x": 1, "y": 2 } }, doc! { "a": { "y": 2, "x": 1 } }],
        Some(doc! { "a": { "$in": [{ "x": 1, "y": 2 }, { "y": 2, "x": 1 }] } }),
    );
    check(&[doc! { "a": { "x": 1 } }], Some(doc! { "a": { "$eq": { "x": 1 } } }));
    // Two conditions on one field are not one.
    check(
        &[doc! { "$and": [{ "a": 1 }, { "a": 2 }] }, doc! { "a": 3 }],
        Some(doc! { "$or": [{ "$and": [{ "a": 1 }, { "a": 2 }] }, { "a": 3 }] }),
    );
    check(
        &[doc! { "$and": [{ "a": 1 }, { "a": 2 }] }, doc! { "$and": [{ "a": 3 }, { "a": 2 }] }],
        Some(doc! { "a": 2, "$or": [{ "a": 1 }, { "a": 3 }] }),
    );
    check(&[doc! { "a": { "$in": [] } }, insert.clone()], Some(insert));
}

#[test]
fn a_hundred_outputs_with_one_value_each_are_one_condition() {
    let queries: Vec<Document> =
        (0..100).map(|k| doc! { "operationType": "insert", "fullDocument.tenant": k }).collect();
    let all: Vec<i32> = (0..100).collect();
    check(&queries, Some(doc! { "operationType": "insert", "fullDocument.tenant": { "$in": all } }));
}

#[test]
fn too_many_branches_become_coarser_and_stay_right() {
    let of = |k: i32| doc! { "fullDocument.n": { "$gt": k }, "operationType": "insert", "fullDocument.tenant": k };
    let queries: Vec<Document> = (0..100).map(of).collect();
    let union = Union::of(&queries);
    let all: Vec<i32> = (0..100).collect();
    let expected = doc! { "operationType": "insert", "fullDocument.tenant": { "$in": all } };
    assert_eq!(union.to_match().map(ToString::to_string), Some(expected.to_string()));
    assert!(union.fates().iter().all(|fate| fate.coarsened && fate.dropped.is_empty()));
    // One that is too large does not take the others along.
    let ids: Vec<i64> = (0..20_000).collect();
    let (large, small) =
        (doc! { "operationType": "insert", "documentKey._id": { "$in": ids } }, doc! { "ns.coll": "x" });
    let union = Union::of([&large, &small]);
    let expected = doc! { "$or": [{ "ns.coll": "x" }, { "operationType": "insert" }] };
    assert_eq!(union.to_match().map(ToString::to_string), Some(expected.to_string()));
    assert_eq!(union.fates().iter().map(|fate| fate.coarsened).collect::<Vec<_>>(), [true, false]);
    // Names of collections cost more than values.
    let many: Vec<Document> =
        (0..1000).map(|k| doc! { "ns.coll": format!("c{k}"), "operationType": "insert" }).collect();
    let union = Union::of(&many);
    assert_eq!(union.to_match().map(ToString::to_string), Some(doc! { "operationType": "insert" }.to_string()));
    let nothing: Vec<Document> = (0..100).map(|k| doc! { format!("f{k}"): { "$gt": 1 } }).collect();
    assert_eq!(Union::of(&nothing).to_match(), None);
}

#[track_caller]
fn weak(query: Document, left: Option<Document>, dropped: &[&str]) {
    let union = Union::of([&query]);
    let text = |query: Option<&Document>| query.map(|query| query.to_string());
    assert_eq!(text(union.to_match()), text(left.as_ref()), "{query}");
    let found: Vec<String> = union.fates()[0].dropped.iter().map(|dropped| dropped.term.to_string()).collect();
    assert_eq!(found.len(), dropped.len(), "{found:?}");
    for (found, expected) in found.iter().zip(dropped) {
        assert!(found.contains(expected), "{found} has no {expected}");
    }
}

#[test]
fn what_is_asked_of_a_server() {
    let regex = |pattern: &str| {
        let pattern = bson::raw::CString::try_from(pattern.to_owned()).expect("no zero");
        Bson::RegularExpression(bson::Regex { pattern, options: bson::cstr!("").into() })
    };
    let kept = [
        doc! { "a": { "$gt": 1, "$lte": "x" } },
        doc! { "a": { "$exists": false } },
        doc! { "a": { "$type": ["string", 16] } },
        doc! { "a": { "$size": 2 } },
        doc! { "a": { "$mod": [4, 1] } },
        doc! { "a": { "$bitsAllSet": [1, 5] } },
        doc! { "a": { "$all": [1, "x"] } },
        doc! { "a": { "$elemMatch": { "$gt": 1, "$lt": 5 } } },
        doc! { "a": { "$elemMatch": { "_id": 1, "$or": [{ "y": 2 }, { "z": { "$gt": 2 } }] } } },
        doc! { "a": { "$ne": Bson::Null } },
        doc! { "a": { "$nin": [Bson::Null, Bson::Int32(1)] } },
        doc! { "a": { "$not": { "$gt": 5 } } },
        doc! { "a": { "$not": regex("^abc") } },
        doc! { "$nor": [{ "a": 1, "b": { "$gt": 2 } }] },
        doc! { "a": regex("^abc") },
        doc! { "a": { "$regex": "^abc", "$options": "i" } },
        doc! { "a": { "$in": [regex("^abc"), Bson::from("x")] } },
    ];
    for query in kept {
        let written: Vec<Document> = match query.get_document("a") {
            Ok(operators) if operators.len() == 2 && operators.contains_key("$lte") => {
                vec![doc! { "a": { "$gt": 1 } }, doc! { "a": { "$lte": "x" } }]
            }
            _ => vec![query.clone()],
        };
        let expected = if written.len() == 1 {
            written[0].clone()
        } else {
            doc! { "$and": written }
        };
        weak(query, Some(expected), &[]);
    }
    let rest = doc! { "b": 1 };
    let dropped = [
        (doc! { "a": regex("(a+)+$") }, "(a+)+$"),
        (doc! { "a": { "$regex": "a|b" } }, "a|b"),
        (doc! { "ns.coll": regex(r"a\.b") }, "ns.coll"),
        (doc! { "a": { "$in": [Bson::Int32(1), regex("a*")] } }, "a*"),
        (doc! { "a": { "$eq": regex("a") } }, "$eq"),
        (doc! { "a": { "$gte": Bson::Null } }, "$gte"),
        (doc! { "a": { "$lt": f64::NAN } }, "$lt"),
        (doc! { "a": { "$lt": { "x": 1 } } }, "$lt"),
        (doc! { "a": Bson::MaxKey }, "MaxKey"),
        (doc! { "a": { "$eq": { "$ref": "x", "$id": 1 } } }, "$ref"),
        (doc! { "a": { "$mod": [2.5, 1] } }, "$mod"),
        (doc! { "a": { "$near": [1, 2] } }, "$near"),
        (doc! { "$expr": { "$eq": ["$a", 1] } }, "$expr"),
        (doc! { "$where": "true" }, "$where"),
        (doc! { "_id._data": "82" }, "_id._data"),
        (doc! { "splitEvent.fragment": 1 }, "splitEvent"),
        (doc! { "a..b": 1 }, "a..b"),
        (doc! { "a": { "$not": { "$eq": Bson::Null } } }, "$not"),
        (doc! { "a": { "$not": { "$regex": "a+" } } }, "$not"),
        (doc! { "$nor": [{ "a": Bson::Null }] }, "$nor"),
        (doc! { "$nor": [{ "a": { "$ne": Bson::Null }, "c": regex("a+") }] }, "$nor"),
        (doc! { "a": { "$elemMatch": { "x": Bson::Null } } }, "$elemMatch"),
        (doc! { "a": { "$all": [Bson::Null] } }, "$all"),
    ];
    for (query, named) in dropped {
        weak(query.clone(), None, &[named]);
        let mut both = query;
        both.extend(rest.clone());
        weak(both, Some(rest.clone()), &[named]);
    }
    // A branch of which nothing is left lets everything through; of a `$nor` only one part goes.
    weak(doc! { "$or": [{ "a": 1 }, { "b": regex("a+") }] }, None, &["a+"]);
    weak(doc! { "$nor": [{ "a": 1 }, { "b": Bson::Null }] }, Some(doc! { "$nor": [{ "a": 1 }] }), &["b"]);
    // Nested deeper than anybody writes.
    let mut deep = doc! { "a": 1 };
    for _ in 0..50 {
        deep = doc! { "$or": [deep, { "b": 1 }] };
    }
    assert!(!Union::of([&deep]).fates()[0].is_exact());
}
