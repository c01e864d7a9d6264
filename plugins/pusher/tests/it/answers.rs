//! What each answer of the server means for the events of its request.

use std::time::Duration;

use serde_json::Value;
use tailwater_sdk::testing::{Outcome, Verdict};

use crate::{
    SECRET, acked, event, no_rule_was_broken, numbers,
    receiver::{Reply, Request},
    start,
};

/// An outcome in a few letters: a verdict's first one for each event, and the pause.
fn short(outcome: &Outcome) -> String {
    let letter = |verdict: &Verdict| match verdict {
        Verdict::Ack => 'A',
        Verdict::Retry { .. } => 'r',
        Verdict::Reject { .. } => 'X',
        Verdict::Fatal { .. } => 'F',
        Verdict::Failed { .. } => '!',
    };
    let letters: String = outcome.verdicts.iter().map(letter).collect();
    outcome.pause_output.map_or(letters.clone(), |pause| format!("{letters} {}s", pause.as_secs_f64()))
}

#[test]
fn each_answer_gives_its_verdict() {
    let (receiver, harness) = start(&["orders"]);
    let date = "Thu, 01 Jan 1970 00:00:00 GMT";
    for (reply, one, two) in [
        (Reply::ok(), "A", "AA"),
        (Reply::status(202), "A", "AA"),
        (Reply::status(400), "X", "XX"),
        (Reply::status(413), "X", "XX"),
        (Reply::status(401), "F", "FF"),
        (Reply::status(403), "r 300s", "rr 300s"),
        (Reply::status(413).body("over quota"), "r 300s", "rr 300s"),
        (Reply::status(404), "F", "FF"),
        (Reply::status(408), "r", "rr"),
        (Reply::status(429), "r 1s", "rr 1s"),
        (Reply::status(429).header("retry-after", 7), "r 7s", "rr 7s"),
        (Reply::status(429).header("retry-after", 86_400), "r 3600s", "rr 3600s"),
        (Reply::status(425).header("retry-after", 2), "r 2s", "rr 2s"),
        (Reply::status(500), "r", "rr"),
        (Reply::status(503).header("retry-after", 30), "r 30s", "rr 30s"),
        // Past, or at once: the shortest pause there is.
        (Reply::status(503).header("retry-after", date), "r 0.001s", "rr 0.001s"),
        (Reply::status(301).header("location", "https://example.org/"), "r", "rr"),
        (Reply::cut(), "r", "rr"),
    ] {
        let answer = reply.clone();
        receiver.answer_with(move |_| answer.clone());
        assert_eq!(short(&harness.deliver(vec![event("a", 1)])), one, "{reply:?}");
        assert_eq!(short(&harness.deliver(vec![event("a", 1), event("a", 2)])), two, "{reply:?}");
    }
    no_rule_was_broken(&receiver);
}

fn number(data: &str) -> u64 {
    serde_json::from_str::<Value>(data).expect("JSON")["n"].as_u64().expect("a number")
}

/// Sends on what is before event 3, and refuses any request with event 3 in it.
fn without_three(status: u16) -> impl Fn(&Request) -> Reply {
    move |request| match request.checked.entries.iter().position(|entry| number(&entry.data) == 3) {
        Some(place) => Reply::status(status).body("event 3 is bad").after_sending_on(place),
        None => Reply::ok(),
    }
}

#[test]
fn a_refused_batch_is_sent_once_more_one_by_one_so_that_one_event_costs_only_itself() {
    for status in [400, 413] {
        let (receiver, harness) = start(&["orders"]);
        receiver.answer_with(without_three(status));
        let mut batch: Vec<_> = (0..13).map(|n| event("a", n)).collect();
        batch[6].key = batch[3].key;
        let outcome = harness.deliver(batch);
        assert_eq!(short(&outcome), "AAAXAArAAAAAA");
        let Verdict::Reject { reason } = &outcome.verdicts[3] else { panic!("{outcome:?}") };
        assert_eq!(*reason, format!("the server answered {status}: event 3 is bad"));
        // The batch up to the bad one; then each event alone, without the one that must not overtake it; then the next batch.
        assert_eq!(numbers(&receiver, "orders"), [0, 1, 2, 0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 12]);
        let sizes: Vec<_> = receiver.record().requests.iter().map(|request| request.checked.entries.len()).collect();
        assert_eq!(sizes, [10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3]);
        assert_eq!(harness.metric("pusher_requests_total{status=\"4xx\"}"), 2.0);
        assert_eq!(harness.metric("pusher_events_total"), 11.0);
        no_rule_was_broken(&receiver);
    }
}

#[test]
fn what_was_taken_before_the_trouble_is_not_sent_again() {
    for (reply, expected) in [
        (Reply::status(500), "AArr"),
        (Reply::status(429).header("retry-after", 5), "AArr 5s"),
        (Reply::status(401), "AAFF"),
        (Reply::cut(), "AArr"),
    ] {
        let (receiver, harness) = start(&["all", "{{ ns.coll }}"]);
        receiver.answer_with(move |request| if request.number < 2 { Reply::ok() } else { reply.clone() });
        let outcome = harness.deliver((0..4).map(|n| event("a", n)).collect());
        assert_eq!(short(&outcome), expected);
        let mut sent: Vec<_> =
            receiver.record().requests.iter().map(|request| number(&request.checked.entries[0].data)).collect();
        // The client itself sends once more where a connection that had served before is cut.
        sent.dedup();
        assert_eq!(sent, [0, 1, 2], "nothing is sent after it");
        no_rule_was_broken(&receiver);
    }
}

#[test]
fn a_refused_signature_stops_the_output_and_says_where_to_look_but_no_secret() {
    let (receiver, harness) = start(&["orders"]);
    receiver.answer_with(|request| {
        let signature = &request.checked.signature;
        Reply::status(401)
            .body(format!("Invalid signature: expected HMAC of ... by {SECRET}, but you sent {signature}"))
    });
    let outcome = harness.deliver(vec![event("a", 1)]);
    let [Verdict::Fatal { reason }] = &outcome.verdicts[..] else { panic!("{outcome:?}") };
    assert_eq!(
        reason,
        "the server answered 401: Invalid signature: expected HMAC of ... by ***, but you sent ***: \
         check key and secret, and this machine's clock: it may be at most 600 s off the server's"
    );
    assert!(harness.logs().iter().all(|record| !format!("{record:?}").contains(SECRET)));
    no_rule_was_broken(&receiver);
}

#[test]
fn a_pause_is_asked_for_once_and_the_next_delivery_is_as_any_other() {
    let (receiver, harness) = start(&["orders"]);
    receiver.answer_with(|request| match request.number {
        0 => Reply::status(429).header("retry-after", 3),
        _ => Reply::ok(),
    });
    assert_eq!(harness.deliver(vec![event("a", 1)]).pause_output, Some(Duration::from_secs(3)));
    assert!(acked(&harness.deliver(vec![event("a", 1).attempt(2)])));
    no_rule_was_broken(&receiver);
}
