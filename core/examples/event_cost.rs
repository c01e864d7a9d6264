//! What one event costs: prints nanoseconds for each of its parts, on an insert of about 500 bytes as mongod sends it.
//!
//! `cargo run --release --example event_cost -p tailwater` prints the best of many rounds, which other work on the machine
//! disturbs least. With the name of a part and a number of times it does only that, for a profiler that counts instructions:
//! `valgrind --tool=callgrind target/release/examples/event_cost relaxed 10000`, less the same with 0 times, by 10,000.

use std::{env, hint::black_box, time::Instant};

use bson::{DateTime, RawDocument, RawDocumentBuf, doc, oid::ObjectId};
use tailwater::event::{Event, JsonForm};
use tailwater_match::Matcher;

const ROUNDS: u32 = 2_000;
const TIMES: u32 = 100;

fn main() {
    let event = insert();
    let parts = parts(&event);
    let mut arguments = env::args().skip(1);
    if let Some(name) = arguments.next() {
        let names = || parts.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let part = parts.iter().find(|(part, _)| *part == name).unwrap_or_else(|| panic!("the parts are {}", names()));
        let times: u32 = arguments.next().map_or(10_000, |times| times.parse().expect("a number of times"));
        return (0..times).for_each(|_| part.1());
    }
    println!("an event of {} bytes", event.as_bytes().len());
    for (name, run) in &parts {
        println!("{name:>20} {:6.0} ns", best_ns(run));
    }
}

/// A part's name and the work; what a part needs is made outside.
type Part<'a> = (&'static str, Box<dyn Fn() + 'a>);

fn parts(raw: &RawDocument) -> Vec<Part<'_>> {
    let made = || Event::from_raw(black_box(raw)).expect("an event");
    let mut parts: Vec<Part<'_>> = vec![
        ("from_raw", Box::new(move || drop(black_box(made())))),
        ("from_raw_id", Box::new(move || _ = black_box(*made().id()))),
    ];
    // The JSON is kept in the event, so each time takes a new one; its cost is the difference to from_raw_id.
    for (name, form) in [("relaxed", JsonForm::Relaxed), ("canonical", JsonForm::Canonical), ("plain", JsonForm::Plain)]
    {
        parts.push((name, Box::new(move || _ = black_box(made().json(form).expect("JSON").len()))));
    }
    let queries = [
        ("match_type", doc! { "operationType": "insert" }),
        ("match_coll", doc! { "ns.coll": "orders" }),
        ("match_status", doc! { "fullDocument.status": "open" }),
        ("match_in", doc! { "fullDocument.status": { "$in": ["paid", "sent"] }, "operationType": "insert" }),
    ];
    for (name, query) in queries {
        let matcher = Matcher::compile(&query).expect("a query");
        parts.push((name, Box::new(move || _ = black_box(matcher.matches(black_box(raw))))));
    }
    parts
}

fn best_ns(run: &dyn Fn()) -> f64 {
    let round = || {
        let start = Instant::now();
        (0..TIMES).for_each(|_| run());
        start.elapsed()
    };
    (0..ROUNDS).map(|_| round()).min().expect("at least one round").as_nanos() as f64 / f64::from(TIMES)
}

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
