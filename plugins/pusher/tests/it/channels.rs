//! One request in flight for each channel, in the order of the change stream; channels do not wait for each other.

use std::thread;

use serde_json::json;
use tailwater_pusher::Pusher;
use tailwater_sdk::testing::{Harness, Verdict};

use crate::{
    Gate, acked, event, no_rule_was_broken, numbers, options,
    receiver::{Receiver, Reply},
    start,
};

#[test]
fn a_request_holds_back_others_of_its_channel_and_none_of_another() {
    let (receiver, harness) = start(&["{{ ns.coll }}"]);
    let gate = Gate::default();
    let held = gate.clone();
    receiver.answer_with(move |request| {
        if request.checked.entries[0].channel == "slow" {
            held.pass();
        }
        Reply::ok()
    });
    let first = harness.begin_delivery(vec![event("slow", 0)]);
    receiver.wait_until("the first request", |record| record.open == 1);
    let events: Vec<_> = (1..9).map(|n| event("slow", n)).collect();
    // Backwards: whatever order they come in, they leave in that of the stream.
    let waiting: Vec<_> = events.into_iter().rev().map(|event| harness.begin_delivery(vec![event])).collect();
    // Each of these goes there and back, after the ones that wait had their chance to go wrong.
    for n in 0..20 {
        assert!(acked(&harness.deliver(vec![event("fast", n)])));
    }
    let record = receiver.record();
    assert_eq!((record.open, record.open_max, record.requests.len()), (1, 2, 21), "only one on the slow channel");
    assert!(!first.is_completed() && waiting.iter().all(|pending| !pending.is_completed()));
    gate.open();
    assert!(acked(&first.wait()) && waiting.into_iter().all(|pending| acked(&pending.wait())));
    assert!(numbers(&receiver, "slow").into_iter().eq(0..9), "in the order of the change stream");
    no_rule_was_broken(&receiver);
}

#[test]
fn requests_to_different_channels_are_open_at_once() {
    let (receiver, harness) = start(&["{{ ns.coll }}"]);
    let gate = Gate::default();
    let held = gate.clone();
    receiver.answer_with(move |_| {
        held.pass();
        Reply::ok()
    });
    let pending: Vec<_> = (0..16).map(|n| harness.begin_delivery(vec![event(&format!("c{n}"), n)])).collect();
    receiver.wait_until("all sixteen at once", |record| record.open == 16);
    gate.open();
    assert!(pending.into_iter().all(|pending| acked(&pending.wait())));
    no_rule_was_broken(&receiver);
}

#[test]
fn deliveries_that_share_some_of_their_channels_neither_overlap_nor_block_each_other() {
    let (receiver, harness) = start(&["{{ ns.coll }}"]);
    // Time for others to break in, were they let: without turns this test fails in nearly every run.
    receiver.answer_with(|_| {
        (0..1000).for_each(|_| thread::yield_now());
        Reply::ok()
    });
    let colls = ["a", "b", "c", "d", "e"];
    // Each delivery has up to three channels of five, in every order.
    let pending: Vec<_> = (0..200_u32)
        .map(|n| {
            let place = |step: u32| colls[((n * 7 + step * (n % 4 + 1)) % 5) as usize];
            harness.begin_delivery((0..2 + n % 2).map(|step| event(place(step), n)).collect())
        })
        .collect();
    assert!(pending.into_iter().all(|pending| acked(&pending.wait())));
    assert_eq!(receiver.record().accepted.len(), 500);
    no_rule_was_broken(&receiver);
}

#[test]
fn a_delivery_that_fails_lets_the_next_one_go() {
    let (receiver, harness) = start(&["orders"]);
    receiver.answer_with(|request| if request.number == 0 { Reply::status(500) } else { Reply::ok() });
    let pending = [0, 1].map(|n| harness.begin_delivery(vec![event("a", n)]));
    let verdicts = pending.map(|pending| pending.wait().verdicts.remove(0));
    // Whichever came first.
    let failed = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Retry { .. })).count();
    assert!(failed == 1 && verdicts.contains(&Verdict::Ack), "{verdicts:?}");
    no_rule_was_broken(&receiver);
}

#[test]
fn a_server_that_never_answers_costs_its_deadline_and_no_more() {
    let receiver = Receiver::start(crate::app());
    let mut options = options(&receiver, &["orders"]);
    options["deadline"] = json!("50ms");
    let harness = Harness::<Pusher>::start(options).expect("it starts");
    let gate = Gate::default();
    let held = gate.clone();
    receiver.answer_with(move |_| {
        held.pass();
        Reply::ok()
    });
    let outcome = harness.deliver(vec![event("a", 0)]);
    gate.open();
    let [Verdict::Retry { reason, after: None }] = &outcome.verdicts[..] else { panic!("{outcome:?}") };
    assert!(reason.contains("not done after 50 ms"), "{reason}");
    assert_eq!(harness.metric("pusher_requests_total{status=\"none\"}"), 1.0);
}
