//! What is sent: the event's own JSON, to the channels of its templates, in as few requests as the API allows.

use serde_json::{Value, json};
use tailwater_pusher::Pusher;
use tailwater_sdk::testing::{Harness, Outcome, Verdict};

use crate::{acked, event, no_rule_was_broken, numbers, options, receiver::Receiver, start};

/// Paths and number of entries of the requests that were sent.
fn requests(receiver: &Receiver) -> Vec<(String, usize)> {
    let requests = receiver.record().requests.into_iter();
    requests.map(|request| (request.checked.path, request.checked.entries.len())).collect()
}

fn paths(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    expected.iter().map(|(kind, entries)| (format!("/apps/3/{kind}"), *entries)).collect()
}

#[test]
fn the_data_is_the_events_json_with_its_id_and_the_name_is_its_kind() {
    let (receiver, harness) = start(&["shop"]);
    let event = event("orders", 1);
    let (id, json) = (event.id.clone(), event.json.clone().expect("JSON"));
    assert!(acked(&harness.deliver(vec![event])));
    let accepted = receiver.record().accepted;
    let [only] = &accepted[..] else { panic!("one entry, not {accepted:?}") };
    assert_eq!((&only.entry.channel[..], &only.entry.name[..]), ("shop", "insert"));
    assert_eq!(only.entry.data, json);
    assert_eq!(serde_json::from_str::<Value>(&only.entry.data).expect("JSON")["id"], json!(id));
    assert_eq!(harness.metric("pusher_events_total"), 1.0);
    assert_eq!(harness.metric("pusher_requests_total{status=\"2xx\"}"), 1.0);
    assert_eq!(harness.stop(), Verdict::Ack);
    no_rule_was_broken(&receiver);
}

#[test]
fn events_with_one_channel_share_requests_of_ten() {
    let (receiver, harness) = start(&["{{ ns.coll }}"]);
    let colls = ["orders", "carts"];
    assert!(acked(&harness.deliver((0..25).map(|n| event(colls[n as usize % 2], n)).collect())));
    assert_eq!(requests(&receiver), paths(&[("batch_events", 10), ("batch_events", 10), ("batch_events", 5)]));
    assert!(numbers(&receiver, "orders").into_iter().eq((0..25).step_by(2)));
    assert!(numbers(&receiver, "carts").into_iter().eq((1..25).step_by(2)));
    assert_eq!(harness.metric("pusher_events_total"), 25.0);
    no_rule_was_broken(&receiver);
}

#[test]
fn an_event_with_several_channels_is_a_request_of_its_own() {
    let (receiver, harness) = start(&["all", "{{ ns.coll }}"]);
    // Where both templates give the same name, the event has one channel.
    assert!(acked(&harness.deliver(vec![event("orders", 0), event("all", 1), event("all", 2), event("carts", 3)])));
    assert_eq!(requests(&receiver), paths(&[("events", 2), ("batch_events", 2), ("events", 2)]));
    assert_eq!(numbers(&receiver, "all"), [0, 1, 2, 3]);
    assert_eq!((numbers(&receiver, "orders"), numbers(&receiver, "carts")), (vec![0], vec![3]));
    no_rule_was_broken(&receiver);
}

#[test]
fn an_event_may_go_to_a_hundred_channels() {
    let receiver = Receiver::start(crate::app());
    let channels: Vec<_> = (0..100).map(|n| format!("channel-{n}")).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let harness = Harness::<Pusher>::start(options(&receiver, &channels)).expect("it starts");
    assert!(acked(&harness.deliver(vec![event("orders", 0)])));
    assert_eq!(requests(&receiver), paths(&[("events", 100)]));
    no_rule_was_broken(&receiver);
}

/// Delivers three events, of which the second one must be rejected with this reason before anything of it is sent.
#[track_caller]
fn only_the_second_is_rejected(coll: &str, json: &str, template: &str, expected: &str) {
    let receiver = Receiver::start(crate::app());
    let mut options = options(&receiver, &["orders-{{ ns.coll }}"]);
    options["event"] = json!(template);
    let harness = Harness::<Pusher>::start(options).expect("it starts");
    let outcome = harness.deliver(vec![event("a", 0), event(coll, 1).json(json), event("b", 2)]);
    let [Verdict::Ack, Verdict::Reject { reason }, Verdict::Ack] = &outcome.verdicts[..] else {
        panic!("{expected}: {outcome:?}")
    };
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(requests(&receiver), paths(&[("batch_events", 2)]));
    no_rule_was_broken(&receiver);
}

#[test]
fn an_event_that_cannot_be_sent_is_rejected_and_costs_only_itself() {
    let json = |operation: &str, coll: &str| json!({ "operationType": operation, "ns": { "coll": coll } }).to_string();
    let kind = "{{ operationType }}";
    only_the_second_is_rejected("x", &json("insert", "a:b"), kind, "has the character ':'");
    only_the_second_is_rejected("x", &json("insert", &"x".repeat(158)), kind, "has 165 characters");
    only_the_second_is_rejected("x", &json("pusher:x", "a"), kind, "begins with \"pusher:\"");
    only_the_second_is_rejected("x", &json("", "a"), kind, "the event name is empty");
    only_the_second_is_rejected("x", "{\"operationType\":\"insert\"}", kind, "ns.coll is not in");
    only_the_second_is_rejected("x", &json("insert", "a"), "n{{ n }}", "render \"n{{ n }}\"");
    only_the_second_is_rejected("x", "no JSON", kind, "operationType is not in");
}

#[test]
fn an_encrypted_channel_is_refused_at_check_and_as_a_name() {
    let receiver = Receiver::start(crate::app());
    let refused = Harness::<Pusher>::validate(options(&receiver, &["private-encrypted-a"])).expect_err("refused");
    assert!(refused.starts_with("channels: ") && refused.contains("encrypted"), "{refused}");
    let template = options(&receiver, &["private-{{ ns.coll }}"]);
    let harness = Harness::<Pusher>::start(template).expect("it starts");
    let Outcome { verdicts, .. } = harness.deliver(vec![event("encrypted-a", 0)]);
    assert!(matches!(&verdicts[..], [Verdict::Reject { reason }] if reason.contains("encrypted")), "{verdicts:?}");
    assert!(receiver.record().requests.is_empty());
}

#[test]
fn data_of_the_limit_is_sent_and_of_one_byte_more_is_rejected_unsent() {
    let (receiver, harness) = start(&["shop"]);
    let sized = |bytes: usize| {
        let head = "{\"operationType\":\"insert\",\"text\":\"";
        // Quotes and backslashes take two bytes of the body, and one of the limit.
        format!(
            "{head}{}\"}}",
            "\\\"".repeat((bytes - head.len() - 2) / 2) + if bytes.is_multiple_of(2) { "" } else { "x" }
        )
    };
    let (fits, more) = (sized(10_240), sized(10_241));
    assert_eq!((fits.len(), more.len()), (10_240, 10_241));
    let outcome = harness.deliver(vec![event("a", 0).json(&fits), event("a", 1).json(&more)]);
    let [Verdict::Ack, Verdict::Reject { reason }] = &outcome.verdicts[..] else { panic!("{outcome:?}") };
    assert_eq!(reason, "the data has 10241 bytes, Pusher takes at most 10240");
    assert_eq!(receiver.record().data_on("shop"), [fits]);
    no_rule_was_broken(&receiver);
}

#[test]
fn a_rejected_event_holds_back_the_later_ones_of_its_document_only() {
    let (receiver, harness) = start(&["{{ ns.coll }}"]);
    let mut batch: Vec<_> = (0..5).map(|n| event("a", n)).collect();
    // Events 1 and 3 belong to one document. Those of no document, 2 and 4, hold nobody back.
    batch[1] = event("a:b", 1);
    batch[3].key = batch[1].key;
    (batch[2], batch[4].key) = (event("c:d", 2), 0);
    batch[2].key = 0;
    let outcome = harness.deliver(batch);
    let [Verdict::Ack, Verdict::Reject { .. }, Verdict::Reject { .. }, Verdict::Retry { reason, .. }, Verdict::Ack] =
        &outcome.verdicts[..]
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(reason, "an earlier event of the same document was not delivered");
    assert_eq!(numbers(&receiver, "a"), [0, 4]);
    no_rule_was_broken(&receiver);
}
