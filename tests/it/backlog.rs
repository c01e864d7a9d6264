//! A receiver limited to 2,000 events a second with 20,000 events behind it delays no receiver beside it: what is written while it
//! catches up is with the other one soon, its own order is kept, nothing is lost, and memory stays bounded.
//!
//! `cargo xtask bench backlog` is the same with 500,000 events, measured.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Database;

use crate::changes::{Account, Change};
use crate::harness::{Daemon, Mongod, config, eventually};
use crate::limited_receiver::Receiver;

const DEADLINE: Duration = Duration::from_secs(180);
const BACKLOG: u64 = 20_000;
const PER_SECOND: u32 = 2_000;
/// What the receiver may be ahead of its pace.
const SLACK: u64 = 100;
/// From the server's acknowledgement of a change to the receiver at full speed. Half of the time that the other one needs at least, by
/// its own pace: who had to wait for it would wait longer. And far more than a busy machine takes.
const DELAY_MAX: Duration = Duration::from_secs(5);

const MIB: u64 = 1 << 20;
const IN_FLIGHT: u64 = 2 * MIB;
/// The window, what the lanes hold, and what the daemon may use beside them.
const MEMORY_MAX: u64 = MIB + 2 * IN_FLIGHT + 24 * MIB;

fn text(mongod: &Mongod, slow: &Receiver, fast: &Receiver) -> String {
    let output = |name: &str, receiver: &Receiver| {
        format!(
            "[outputs.{name}]\nplugin = \"webhook\"\nin_flight_bytes_max = \"2MiB\"\nretry = {{ backoff_max = \"1s\" }}\n\
             options = {{ url = \"{}\" }}\n",
            receiver.url()
        )
    };
    config(mongod, &format!("[window]\nbytes_max = \"1MiB\"\n{}{}", output("slow", slow), output("fast", fast)))
}

async fn write(shop: &Database, numbers: std::ops::Range<u64>) {
    let text = "some words to make the document as long as documents are ".repeat(4);
    let count = numbers.end - numbers.start;
    let replace = |number: u64| {
        let id = Change::of(number).document as i64;
        doc! { "q": { "_id": id }, "u": { "_id": id, "number": number as i64, "text": &text }, "upsert": true }
    };
    let updates: Vec<Document> = numbers.map(replace).collect();
    let reply = shop.run_command(doc! { "update": "orders", "updates": updates }).await.expect("write");
    assert_eq!(reply.get_i32("n").expect("n") as u64, count, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_receiver_that_is_far_behind_delays_nobody() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let (slow, fast) = (Receiver::start(Some(PER_SECOND)), Receiver::start(None));
    fast.open();
    let daemon = Daemon::start(folder.path(), &text(&mongod, &slow, &fast)).await;
    let metric = |name: &str, output: &str| {
        daemon.metric(&format!("tailwater_output_{name}"), &[("output", output)]).expect("a metric")
    };
    let shop = mongod.client().database("shop");
    for from in (0..BACKLOG).step_by(500) {
        write(&shop, from..from + 500).await;
    }
    eventually("the fast receiver has the backlog, and its output reads from the window", DEADLINE, || {
        fast.taken() >= BACKLOG && daemon.is_in_state("fast", "live")
    })
    .await;
    assert_eq!(slow.taken(), 0, "it is shut");
    assert!(metric("retried_total", "slow") > 0.0, "it was tried");

    let opened = Instant::now();
    slow.open();
    // One change after the other: the next is written when the fast receiver has the one before.
    let (mut written, mut delay_max, mut lag_max) = (BACKLOG, Duration::ZERO, 0.0_f64);
    let mut meanwhile = 0;
    while slow.taken() < written {
        write(&shop, written..written + 1).await;
        let acknowledged = Instant::now();
        eventually("the fast receiver has a change", DEADLINE, || fast.has(written)).await;
        delay_max = delay_max.max(acknowledged.elapsed());
        lag_max = lag_max.max(metric("lag_seconds", "fast"));
        written += 1;
        // Not one that just slipped through at the end.
        meanwhile += u64::from(written - slow.taken() > BACKLOG / 4);
        assert!(opened.elapsed() < DEADLINE, "{} of {written} at the slow receiver", slow.taken());
        check_memory(&daemon);
    }
    let took = opened.elapsed();
    eventually("both are live", DEADLINE, || ["slow", "fast"].iter().all(|name| daemon.is_in_state(name, "live")))
        .await;
    eprintln!(
        "{written} events in {took:?}; {meanwhile} writes meanwhile, {delay_max:?} and {lag_max} s of lag at most"
    );
    assert!(metric("catch_ups_total", "slow") >= 1.0, "it had fallen off the window");
    let least = Duration::from_secs(1) / PER_SECOND * (BACKLOG - SLACK) as u32;
    assert!(took >= least, "{took:?} is faster than the receiver's limit allows");
    assert!(meanwhile >= 10, "{meanwhile} changes came to the fast receiver while the slow one was far behind");
    assert!(delay_max <= DELAY_MAX, "a change came {delay_max:?} after it was written");
    assert!(lag_max <= DELAY_MAX.as_secs_f64(), "lag of the fast output: {lag_max} s");
    for (name, receiver) in [("slow", &slow), ("fast", &fast)] {
        let account = Account::of(receiver.arrivals().iter().map(|arrival| arrival.number), written);
        assert!(account.is_whole(), "{name}: {account:?} of {written}");
        let violations = receiver.violations();
        assert!(violations.is_empty(), "{name}: {violations:?}");
    }
    assert!(daemon.terminate_and_wait(Duration::from_secs(30)).await.success());
}

/// What the daemon has allocated is bounded in every build; pages of executables full of debugging do not count.
fn check_memory(daemon: &Daemon) {
    let anonymous = daemon.memory().anonymous;
    assert!(anonymous <= MEMORY_MAX, "{anonymous} bytes allocated, the bound is {MEMORY_MAX}");
}
