//! What one match costs: prints nanoseconds for queries on an insert of about 500 bytes as mongod sends it.
//!
//! `cargo run --release --example match_cost -p tailwater-match` prints the best of many rounds, which other work on the machine
//! disturbs least. With the name of a query and a number of times it does only that, for a profiler that counts instructions.

use std::{env, hint::black_box, time::Instant};

use bson::{DateTime, Document, RawDocumentBuf, doc, oid::ObjectId};
use tailwater_match::Matcher;

const ROUNDS: u32 = 2_000;
const TIMES: u32 = 100;

fn main() {
    let event = insert();
    let queries: Vec<(&str, Matcher)> =
        queries().into_iter().map(|(name, query)| (name, Matcher::compile(&query).expect("a query"))).collect();
    let mut arguments = env::args().skip(1);
    if let Some(name) = arguments.next() {
        let matcher = &queries.iter().find(|(query, _)| *query == name).expect("the name of a query").1;
        let times: u32 = arguments.next().map_or(10_000, |times| times.parse().expect("a number of times"));
        return (0..times).for_each(|_| _ = black_box(matcher.matches(black_box(&event))));
    }
    println!("an event of {} bytes", event.as_bytes().len());
    for (name, matcher) in &queries {
        let matches = matcher.matches(&event);
        println!("{name:>20} {:6.0} ns  {matches}", best_ns(&|| _ = black_box(matcher.matches(black_box(&event)))));
    }
}

fn queries() -> Vec<(&'static str, Document)> {
    let statuses: Vec<String> = (0..100).map(|n| format!("status {n}")).chain(["open".to_owned()]).collect();
    vec![
        ("type", doc! { "operationType": "insert" }),
        ("coll", doc! { "ns.coll": "orders" }),
        ("status", doc! { "fullDocument.status": "open" }),
        ("three terms", doc! { "operationType": "insert", "ns.coll": "orders", "fullDocument.status": "open" }),
        (
            "three, in",
            doc! { "operationType": { "$in": ["insert", "update"] }, "ns.coll": "orders", "fullDocument.total": { "$gte": 100 } },
        ),
        ("three, first no", doc! { "operationType": "delete", "ns.coll": "orders", "fullDocument.status": "open" }),
        ("three, last no", doc! { "operationType": "insert", "ns.coll": "other", "fullDocument.status": "open" }),
        ("or", doc! { "$or": [{ "operationType": "delete" }, { "fullDocument.status": "open" }], "ns.coll": "orders" }),
        ("in of 101", doc! { "fullDocument.status": { "$in": statuses } }),
        ("decimal", doc! { "fullDocument.total": { "$gt": "129.9".parse::<bson::Decimal128>().expect("a decimal") } }),
        ("array", doc! { "fullDocument.lines.sku": "B-2002" }),
        ("elemMatch", doc! { "fullDocument.lines": { "$elemMatch": { "sku": "B-2002", "count": 1 } } }),
        ("regex", doc! { "fullDocument.customer": { "$regex": "^Ada" } }),
        ("regex, no", doc! { "fullDocument.customer": { "$regex": "lace$", "$options": "i" } }),
    ]
}

fn best_ns(run: &dyn Fn()) -> f64 {
    let round = || {
        let start = Instant::now();
        (0..TIMES).for_each(|_| run());
        start.elapsed()
    };
    (0..ROUNDS).map(|_| round()).min().expect("at least one round").as_nanos() as f64 / f64::from(TIMES)
}

/// The same as in core/examples/event_cost.rs.
fn insert() -> RawDocumentBuf {
    let id = ObjectId::from_bytes([0x65, 0xe0, 0xd0, 0xc0, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0, 0x11]);
    let token = "826B024D1B000000042B022C0100296E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70646645F69640064\
                 65E0D0C0AABBCCDDEEFF00110004";
    let event = doc! {
        "_id": { "_data": token },
        "operationType": "insert",
        "clusterTime": bson::Timestamp { time: 0x6b02_4d1b, increment: 4 },
        "wallTime": DateTime::from_millis(1_795_312_923_123),
        "fullDocument": {
            "_id": id,
            "customer": "Ada Lovelace",
            "status": "open",
            "number": 10_042,
            "total": 129.95,
            "created": DateTime::from_millis(1_795_312_923_000),
            "lines": [{ "sku": "A-1001", "count": 2 }, { "sku": "B-2002", "count": 1 }],
        },
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": id },
    };
    RawDocumentBuf::try_from(&event).expect("can be encoded")
}
