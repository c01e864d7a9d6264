//! What one event costs: prints nanoseconds for each of its parts, on an insert of about 500 bytes as mongod sends it, and for its
//! JSON on one of about 20 KB.
//!
//! `cargo run --release --example event_cost -p tailwater` prints the best of many rounds, which other work on the machine
//! disturbs least. With the name of a part and a number of times it does only that, for a profiler that counts instructions:
//! `valgrind --tool=callgrind target/release/examples/event_cost relaxed 10000`, less the same with 0 times, by 10,000.

use std::{env, hint::black_box, time::Instant};

use bson::{RawDocument, doc};
use tailwater::event::{Event, JsonForm};
use tailwater_match::Matcher;

#[path = "../../bench/src/event/samples.rs"]
mod samples;

const ROUNDS: u32 = 2_000;
const TIMES: u32 = 100;

fn main() {
    let (event, large) = (samples::small(), samples::large());
    let mut parts = parts(&event);
    parts.push(("relaxed_20k", Box::new(|| _ = black_box(json_len(black_box(&large), JsonForm::Relaxed)))));
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
        parts.push((name, Box::new(move || _ = black_box(json_len(black_box(raw), form)))));
    }
    let queries = [
        ("match_type", doc! { "operationType": "insert" }),
        ("match_coll", doc! { "ns.coll": "orders" }),
        ("match_status", doc! { "fullDocument.status": "open" }),
        ("match_three", doc! { "operationType": "insert", "ns.coll": "orders", "fullDocument.status": "open" }),
        ("match_in", doc! { "fullDocument.status": { "$in": ["paid", "sent"] }, "operationType": "insert" }),
    ];
    for (name, query) in queries {
        let matcher = Matcher::compile(&query).expect("a query");
        parts.push((name, Box::new(move || _ = black_box(matcher.matches(black_box(raw))))));
    }
    parts
}

fn json_len(raw: &RawDocument, form: JsonForm) -> usize {
    Event::from_raw(raw).expect("an event").json(form).expect("JSON").len()
}

fn best_ns(run: &dyn Fn()) -> f64 {
    let round = || {
        let start = Instant::now();
        (0..TIMES).for_each(|_| run());
        start.elapsed()
    };
    (0..ROUNDS).map(|_| round()).min().expect("at least one round").as_nanos() as f64 / f64::from(TIMES)
}
