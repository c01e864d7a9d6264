//! The plugin against a strict receiver over real TCP. Every test ends with a look that no rule of the API was broken.

mod answers;
mod channels;
mod delivery;
mod outage;
mod readme;
mod rules;

#[path = "../../../../tests/receivers/http.rs"]
mod http;
#[path = "../../../../tests/receivers/pusher.rs"]
mod receiver;

use std::sync::{Arc, Condvar, Mutex};

use receiver::{App, Receiver};
use serde_json::{Value, json};
use tailwater_pusher::Pusher;
use tailwater_sdk::testing::{Harness, Outcome, TestEvent, Verdict};

const SECRET: &str = "7ad3773142a6692b25b8";

fn app() -> App {
    App { id: "3".to_owned(), key: "278d425bdf160c739803".to_owned(), secret: SECRET.to_owned() }
}

/// Options that lead to this receiver.
fn options(receiver: &Receiver, channels: &[&str]) -> Value {
    json!({
        "app_id": "3", "key": "278d425bdf160c739803", "secret": SECRET,
        "host": "127.0.0.1", "port": receiver.port(), "tls": false, "channels": channels,
    })
}

/// A receiver, and an output that sends to these channels of it.
fn start(channels: &[&str]) -> (Receiver, Harness<Pusher>) {
    let receiver = Receiver::start(app());
    let harness = Harness::start(options(&receiver, channels)).expect("it starts");
    (receiver, harness)
}

/// An event of the collection `coll`, whose JSON says `n`.
fn event(coll: &str, n: u32) -> TestEvent {
    let event = TestEvent::new("insert", "shop", coll);
    let json = json!({ "id": event.id, "operationType": "insert", "ns": { "db": "shop", "coll": coll }, "n": n });
    event.json(&json.to_string())
}

/// The numbers of the events accepted on a channel, in order.
fn numbers(receiver: &Receiver, channel: &str) -> Vec<u64> {
    let number = |data: &&str| serde_json::from_str::<Value>(data).expect("JSON")["n"].as_u64().expect("a number");
    receiver.record().data_on(channel).iter().map(number).collect()
}

fn acked(outcome: &Outcome) -> bool {
    outcome.pause_output.is_none() && outcome.verdicts.iter().all(|verdict| *verdict == Verdict::Ack)
}

fn no_rule_was_broken(receiver: &Receiver) {
    let violations = receiver.record().violations;
    assert!(violations.is_empty(), "{violations:?}");
}

/// Holds back whoever passes, until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().expect("no panic"), |open| !*open).expect("no panic"));
    }
}
