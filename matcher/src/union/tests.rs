//! The form of the filters that unions become, what is left out of them and when they become coarser; `property` compares them with
//! their queries.

mod property;

use bson::{Bson, Document, doc};

use super::*;

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
    // A part of one of the alternatives is not the alternative.
    check(
        &[doc! { "z": 5, "a": 1 }, doc! { "z": 5, "$or": [{ "a": 1, "b": 1 }, { "c": 1 }] }],
        Some(doc! { "z": 5, "$or": [{ "a": 1 }, { "$or": [{ "a": 1, "b": 1 }, { "c": 1 }] }] }),
    );
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
    let of = |k: i32| match k % 2 {
        0 => doc! { "fullDocument.n": { "$gt": k }, "operationType": "insert", "fullDocument.tenant": k },
        _ => doc! { "fullDocument.tenant": k, "operationType": "insert", "fullDocument.n": { "$gt": k } },
    };
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

#[test]
fn large_queries_are_put_together_like_small_ones() {
    // Each lets through what the one before does but for one value, and none is a part of another: each is compared with each.
    let ids = |first: i64, count: i64| (first..first + count).map(Bson::Int64).collect::<Vec<_>>();
    let nested =
        (0..100).map(|k| doc! { "fullDocument.t": { "$in": ids(0, 1000 - k) }, "fullDocument.n": { "$gt": k } });
    let nested: Vec<Document> = nested.collect();
    check(&nested, Some(doc! { "fullDocument.t": { "$in": ids(0, 1000) } }));
    // Parts of one that is larger; what is in the way of a comparison of lengths alone is not.
    let within = doc! { "fullDocument.t": { "$in": ids(0, 1000) } };
    let parts = (0..50).map(|k| doc! { "fullDocument.t": { "$in": ids(k, 900) }, "fullDocument.n": k });
    let parts: Vec<Document> = parts.chain([within.clone()]).collect();
    check(&parts, Some(within));
    let beside = [
        doc! { "fullDocument.t": { "$in": ids(0, 10) } },
        doc! { "fullDocument.t": { "$in": ids(5, 6) }, "fullDocument.n": { "$gt": 1 } },
    ];
    check(&beside, Some(doc! { "$or": beside.to_vec() }));
    // More fields than there is time for.
    let field = |name: i32, k: i32| (format!("f{name}"), Bson::from(if name < 6 { k >> name & 1 } else { 0 }));
    let wide: Vec<Document> = (0..64).map(|k| (0..300).map(|name| field(name, k)).collect()).collect();
    let union = Union::of(&wide);
    assert!(wide.iter().all(|query| union.covers(query)) && union.fates().iter().all(|fate| fate.coarsened));
    assert!(union.to_match().is_some_and(|filter| filter.len() == 300), "{:?}", union.to_match());
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
        (doc! { "a": { "x\0y": 1 } }, "x"),
        (doc! { "a": { "$not": { "$eq": Bson::Null } } }, "$not"),
        (doc! { "a": { "$not": { "$ne": Bson::Null } } }, "$not"),
        (doc! { "a": { "$not": { "$nin": [Bson::Int32(1), Bson::Null] } } }, "$not"),
        (doc! { "$nor": [{ "a": { "$ne": Bson::Null } }] }, "$nor"),
        (doc! { "a": { "$not": { "$elemMatch": { "$ne": Bson::Null } } } }, "$not"),
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
