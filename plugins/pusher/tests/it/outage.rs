//! An outage costs nothing but time, and every attempt is signed anew.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tailwater_sdk::testing::{TestEvent, Verdict};

use crate::{SECRET, acked, event, no_rule_was_broken, numbers, receiver::Reply, start};

#[test]
fn while_nobody_listens_events_come_again_and_afterwards_they_are_taken() {
    let (mut receiver, harness) = start(&["orders"]);
    assert!(acked(&harness.deliver(vec![event("a", 0)])));
    receiver.stop();
    for n in 1..4 {
        let outcome = harness.deliver(vec![event("a", n)]);
        let [Verdict::Retry { reason, after: None }] = &outcome.verdicts[..] else { panic!("{outcome:?}") };
        assert!(reason.contains(&format!("send to http://127.0.0.1:{}", receiver.port())), "{reason}");
        assert!(!reason.contains("auth_") && !reason.contains(SECRET), "{reason}");
        assert_eq!(outcome.pause_output, None);
    }
    receiver.start_again();
    assert!(acked(&harness.deliver((1..4).map(|n| event("a", n).attempt(2)).collect())));
    assert_eq!(numbers(&receiver, "orders"), [0, 1, 2, 3]);
    no_rule_was_broken(&receiver);
}

#[test]
fn a_redelivery_is_signed_with_its_own_time() {
    let (receiver, harness) = start(&["orders"]);
    receiver.answer_with(|request| if request.number == 0 { Reply::status(503) } else { Reply::ok() });
    let json = event("a", 0).json.expect("JSON");
    let same = || vec![TestEvent::new("insert", "shop", "a").json(&json)];
    assert!(matches!(harness.deliver(same()).verdicts[..], [Verdict::Retry { .. }]));
    let first = receiver.record().requests[0].checked.clone();
    let deadline = Instant::now() + Duration::from_secs(30);
    // Until the clock, in whole seconds, shows another time.
    while SystemTime::now() < UNIX_EPOCH + Duration::from_secs(first.timestamp + 1) {
        assert!(Instant::now() < deadline, "the clock stands still");
        thread::yield_now();
    }
    assert!(acked(&harness.deliver(same())));
    let second = receiver.record().requests[1].checked.clone();
    assert_eq!(second.entries, first.entries);
    assert!(second.timestamp > first.timestamp && second.signature != first.signature);
    no_rule_was_broken(&receiver);
}
