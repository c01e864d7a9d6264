//! The output through the border's own functions, against real sockets.

use std::{
    collections::{HashMap, VecDeque},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tailwater_sdk::{
    http::StatusCode,
    testing::{Harness, Outcome, Received, Receiver, Reply, TestEvent, Verdict as Seen},
};

use super::*;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// `options` over those that each test needs.
fn start(receiver: &Receiver, path: &str, options: Value) -> Harness<Webhook> {
    let mut all = json!({ "url": receiver.url(path), "deadline": "30s" });
    all.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
    Harness::start(all).expect("it starts")
}

fn event() -> TestEvent {
    TestEvent::new("insert", "shop", "orders")
}

/// One event, handed out for the `attempt`th time, answered with `reply`.
fn answered(reply: Reply, options: Value, attempt: u32) -> Outcome {
    let receiver = Receiver::always(reply);
    start(&receiver, "/hook?token=hidden", options).deliver(vec![event().attempt(attempt)])
}

fn status(status: &str, headers: &str) -> Reply {
    Reply::status(status, headers, "busy\r\n")
}

fn reason(outcome: &Outcome) -> &str {
    match &outcome.verdicts[..] {
        [Seen::Retry { reason, .. } | Seen::Reject { reason } | Seen::Fatal { reason } | Seen::Failed { reason }] => {
            reason
        }
        other => panic!("one verdict with a reason, not {other:?}"),
    }
}

/// What a receiver does with the specification's own library.
fn is_signed(received: &Received, secret: &str) -> bool {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, received.header(name).expect(name).parse().expect("a value"));
    }
    standardwebhooks::Webhook::new(secret).expect("a secret").verify(&received.body, &headers).is_ok()
}

fn clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn an_event_is_one_post_of_its_json() {
    let receiver = Receiver::always(status("204 No Content", ""));
    let options = json!({ "headers": { "Authorization": "Bearer abc", "X-Tenant": "7" } });
    let harness = start(&receiver, "/hook?token=a%20b", options);
    let event = event().json("{\"n\": 1, \"text\":\"\u{e9}\"}");
    assert_eq!(harness.deliver(vec![event.clone()]).verdicts, [Seen::Ack]);
    let received = receiver.received();
    let [request] = &received[..] else { panic!("one request, not {received:?}") };
    assert_eq!((&request.method[..], &request.target[..]), ("POST", "/hook?token=a%20b"));
    assert_eq!(request.body, "{\"n\": 1, \"text\":\"\u{e9}\"}".as_bytes());
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer abc"),
        ("x-tenant", "7"),
        ("webhook-id", &event.id),
        ("user-agent", concat!("tailwater/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    assert_eq!(request.header("webhook-signature"), None, "no secrets, no signature");
    assert_eq!(harness.metric("webhook_exchanges_total{status=\"2xx\"}"), 1.0);
}

#[test]
fn a_signature_is_good_for_each_secret_and_for_nothing_else() {
    let receiver = Receiver::always(status("200 OK", ""));
    start(&receiver, "/", json!({ "secrets": [OTHER_SECRET, SECRET] })).deliver(vec![event()]);
    start(&receiver, "/", json!({ "secrets": [SECRET] })).deliver(vec![event()]);
    let [both, one] = &receiver.received()[..] else { panic!("two requests") };
    assert!(is_signed(both, SECRET) && is_signed(both, OTHER_SECRET));
    assert!(is_signed(one, SECRET) && !is_signed(one, OTHER_SECRET));
    let mut forged = both.clone();
    forged.body.push(b' ');
    assert!(!is_signed(&forged, SECRET));
}

#[test]
fn a_redelivery_has_the_same_id_and_a_timestamp_and_signature_of_its_own() {
    let receiver = Receiver::always(status("500 Internal Server Error", ""));
    let harness = start(&receiver, "/", json!({ "secrets": [SECRET] }));
    let event = event();
    let first = clock();
    harness.deliver(vec![event.clone()]);
    let after_first = clock();
    while clock() == after_first {
        thread::yield_now();
    }
    harness.deliver(vec![event.clone().attempt(2)]);
    let [one, two] = &receiver.received()[..] else { panic!("two requests") };
    let timestamp =
        |request: &Received| request.header("webhook-timestamp").expect("one").parse::<u64>().expect("seconds");
    assert!((first..=after_first).contains(&timestamp(one)), "{one:?}");
    assert!((after_first + 1..=clock()).contains(&timestamp(two)), "{two:?}");
    assert_eq!((one.header("webhook-id"), two.header("webhook-id")), (Some(&event.id[..]), Some(&event.id[..])));
    assert!(is_signed(one, SECRET) && is_signed(two, SECRET));
    assert_ne!(one.header("webhook-signature"), two.header("webhook-signature"));
}

#[test]
fn what_each_status_means() {
    enum Means {
        Ack,
        Retry,
        Pause,
        /// Retry at the first two attempts, reject from the third.
        ClientError,
        Fatal,
    }
    for (line, means) in [
        ("200 OK", Means::Ack),
        ("201 Created", Means::Ack),
        ("202 Accepted", Means::Ack),
        ("204 No Content", Means::Ack),
        ("299 Whatever", Means::Ack),
        ("301 Moved Permanently", Means::Retry),
        ("302 Found", Means::Retry),
        ("304 Not Modified", Means::Retry),
        ("308 Permanent Redirect", Means::Retry),
        ("400 Bad Request", Means::ClientError),
        ("401 Unauthorized", Means::ClientError),
        ("403 Forbidden", Means::ClientError),
        ("404 Not Found", Means::ClientError),
        ("408 Request Timeout", Means::Pause),
        ("410 Gone", Means::Fatal),
        ("413 Payload Too Large", Means::ClientError),
        ("422 Unprocessable Entity", Means::ClientError),
        ("425 Too Early", Means::Pause),
        ("429 Too Many Requests", Means::Pause),
        ("499 Whatever", Means::ClientError),
        ("500 Internal Server Error", Means::Retry),
        ("501 Not Implemented", Means::Retry),
        ("502 Bad Gateway", Means::Pause),
        ("503 Service Unavailable", Means::Pause),
        ("504 Gateway Timeout", Means::Pause),
        ("507 Insufficient Storage", Means::Retry),
        ("599 Whatever", Means::Retry),
        ("999 Whatever", Means::Retry),
    ] {
        let receiver = Receiver::always(status(line, ""));
        let (harness, event) = (start(&receiver, "/hook", json!({})), event());
        // Handed out before, where nobody could be reached: that is nobody's fault but the network's.
        for tries in [1, 2, 3] {
            let outcome = harness.deliver(vec![event.clone().attempt(1000 + tries)]);
            let pause = match (&means, &outcome.verdicts[..]) {
                (Means::Ack, [Seen::Ack])
                | (Means::Retry, [Seen::Retry { after: None, .. }])
                | (Means::Fatal, [Seen::Fatal { .. }]) => None,
                (Means::Pause, [Seen::Retry { after: None, .. }]) => Some(Duration::from_secs(5)),
                (Means::ClientError, [Seen::Retry { after: None, .. }]) if tries < 3 => None,
                (Means::ClientError, [Seen::Reject { .. }]) if tries == 3 => None,
                _ => panic!("{line} at try {tries}: {outcome:?}"),
            };
            assert_eq!(outcome.pause_output, pause, "{line}");
        }
    }
}

#[test]
fn only_client_errors_count_as_such_and_an_acknowledgement_ends_the_count() {
    let answers =
        Arc::new(Mutex::new(VecDeque::from(["503 A", "404 A", "500 A", "404 A", "200 A", "404 A", "404 A", "404 A"])));
    let receiver =
        Receiver::start(move |_| status(answers.lock().expect("not poisoned").pop_front().expect("an answer"), ""));
    let (harness, event) = (start(&receiver, "/", json!({})), event());
    let seen: String = (0..8).map(|_| letters(&harness.deliver(vec![event.clone()]))).collect();
    assert_eq!(seen, "rrrrarrj");
}

#[test]
fn a_reason_says_what_was_answered_and_what_to_do_and_hides_the_query() {
    for (reply, expected) in [
        (status("500 Internal Server Error", ""), "HOOK answered 500 Internal Server Error: busy"),
        (Reply::status("500 Nobody Cares", "", ""), "HOOK answered 500 Internal Server Error"),
        (Reply::status("599 Nobody Cares", "", ""), "HOOK answered 599"),
        (
            status("410 Gone", ""),
            "HOOK answered 410 Gone: busy; the receiver wants no more events: put its new address into `url` or remove the output",
        ),
        (status("404 Not Found", ""), "HOOK answered 404 Not Found: busy (client error 1 of client_error_tries = 1)"),
        (
            Reply::status("308 Permanent Redirect", "location: https://u:p@new.example.com/a?token=hidden\r\n", ""),
            "HOOK answered 308 Permanent Redirect; redirects are not followed: put the new address, https://new.example.com/…, into `url`",
        ),
        (
            Reply::status("307 Temporary Redirect", "location: /hook/?token=hidden\r\n", ""),
            "HOOK answered 307 Temporary Redirect; redirects are not followed: put the new path into `url`",
        ),
        (
            Reply::status("302 Found", "", ""),
            "HOOK answered 302 Found; redirects are not followed: put the new address into `url`",
        ),
    ] {
        let receiver = Receiver::always(reply);
        let harness = start(&receiver, "/hook?token=hidden", json!({ "client_error_tries": 1 }));
        let outcome = harness.deliver(vec![event().attempt(7)]);
        let hook = format!("POST {}", receiver.url("/…"));
        assert_eq!(reason(&outcome), expected.replace("HOOK", &hook));
    }
}

#[test]
fn what_a_receiver_repeats_of_headers_and_query_is_not_shown() {
    let receiver = Receiver::start(|request| {
        let token = request.header("authorization").expect("a header").trim_start_matches("Bearer ").to_owned();
        // A long one, which ends behind the text's end.
        let body = format!("no token {token}, nor {}, {} {token}{}", request.target, "x".repeat(150), "y".repeat(60));
        Reply::status("401 Unauthorized", "", &body)
    });
    let options = json!({ "headers": { "Authorization": "Bearer verysecrettoken", "X-Short": "no" } });
    let outcome = start(&receiver, "/services/verysecretpath?a=1&key=hiddenkey", options).deliver(vec![event()]);
    let reason = reason(&outcome);
    let end = format!("401 Unauthorized: no token ***, nor /***/***?***, {} ***yyy", "x".repeat(150));
    assert!(reason.contains(&end), "{reason}");
    assert!(reason.contains(&receiver.url("/…")) && !reason.contains("secret"), "{reason}");
}

#[test]
fn retry_after_is_honoured_up_to_pause_max() {
    let date = |secs| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(secs));
    let options = json!({ "pause_max": "1h", "pause_default": "7s" });
    for (value, least, most) in [
        ("120".to_owned(), 120, 120),
        ("3600".to_owned(), 3600, 3600),
        ("3601".to_owned(), 3600, 3600),
        ("99999999999999999999".to_owned(), 3600, 3600),
        ("soon".to_owned(), 7, 7),
        (date(100_000), 3600, 3600),
        // The clock goes on between here and there; a date has whole seconds.
        (date(1000), 900, 1000),
    ] {
        for line in ["429 Too Many Requests", "503 Service Unavailable"] {
            let outcome = answered(status(line, &format!("retry-after: {value}\r\n")), options.clone(), 1);
            let pause = outcome.pause_output.expect("a pause").as_secs_f64();
            assert!((least as f64..=most as f64).contains(&pause), "{value}: {pause}");
        }
    }
    // Elsewhere it is about this event.
    let header = "retry-after: 120\r\n";
    let outcome = answered(status("500 Internal Server Error", header), options.clone(), 1);
    assert!(matches!(outcome.verdicts[..], [Seen::Retry { after: Some(Duration { .. }), .. }]), "{outcome:?}");
    assert_eq!(outcome.pause_output, None);
    let Seen::Retry { after, .. } = &outcome.verdicts[0] else { panic!("a retry") };
    assert_eq!(*after, Some(Duration::from_secs(120)));
    // None at all is the daemon's backoff, not a loop without a wait.
    let outcome = answered(status("500 Internal Server Error", "retry-after: 0\r\n"), options, 1);
    assert!(matches!(outcome.verdicts[..], [Seen::Retry { after: None, .. }]), "{outcome:?}");
}

#[test]
fn no_whole_answer_is_a_retry_whatever_the_status_was() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let broken = "send the request and read the answer: ";
    let late = "not done after 300 ms";
    for (reply, deadline, expected) in [
        (Reply::Close(Vec::new()), "30s", broken),
        (Reply::Close(half.clone()), "30s", broken),
        (Reply::Reset(half.clone()), "30s", broken),
        (Reply::Close(b"no HTTP at all\r\n\r\n".to_vec()), "30s", broken),
        (Reply::Hang(Vec::new()), "300ms", late),
        (Reply::Hang(half), "300ms", late),
        (Reply::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), "300ms", late),
        (Reply::Drip(b"HTTP/1.1 200 OK\r\nx-a: ".to_vec()), "300ms", late),
    ] {
        let receiver = Receiver::always(reply.clone());
        let harness = start(&receiver, "/hook?token=hidden", json!({ "deadline": deadline }));
        let outcome = harness.deliver(vec![event().attempt(1000)]);
        assert!(matches!(outcome.verdicts[..], [Seen::Retry { after: None, .. }]), "{reply:?}: {outcome:?}");
        let reason = reason(&outcome);
        assert!(reason.starts_with(&format!("POST {}: ", receiver.url("/…"))), "{reason}");
        assert!(reason.contains(expected) && !reason.contains("hidden"), "{reply:?}: {reason}");
        assert_eq!(harness.metric("webhook_exchanges_total{status=\"error\"}"), 1.0);
    }
}

#[test]
fn nobody_listening_is_a_retry() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let options = json!({ "url": format!("http://{address}/hook?token=hidden") });
    let outcome = Harness::<Webhook>::start(options).expect("it starts").deliver(vec![event()]);
    assert!(matches!(outcome.verdicts[..], [Seen::Retry { after: None, .. }]), "{outcome:?}");
    assert!(reason(&outcome).starts_with(&format!("POST http://{address}/…: connect: ")), "{outcome:?}");
}

#[test]
fn an_endless_answer_counts_by_its_status() {
    let endless = |line: &str| Reply::Flood(format!("HTTP/1.1 {line}\r\n\r\n").into_bytes());
    let options = json!({ "answer_bytes_max": "1KiB" });
    assert_eq!(answered(endless("200 OK"), options.clone(), 1).verdicts, [Seen::Ack]);
    let outcome = answered(endless("500 Internal Server Error"), options, 1);
    assert!(reason(&outcome).ends_with("xxx…"), "{outcome:?}");
    assert!(reason(&outcome).chars().count() < 300, "{outcome:?}");
}

#[test]
fn a_url_is_rendered_for_each_event_and_its_values_stay_in_their_place() {
    let receiver = Receiver::always(status("200 OK", ""));
    let harness = start(&receiver, "/{{ ns.coll }}/{{ doc.id }}?q={{ doc.q }}", json!({}));
    for (id, q, target) in [
        ("7", "a", "/orders/7?q=a"),
        ("../admin?", "a&b=c#d", "/orders/..%2Fadmin%3F?q=a%26b%3Dc%23d"),
        ("\u{e9} \n", "%2e", "/orders/%C3%A9%20%0A?q=%252e"),
    ] {
        let json = json!({ "ns": { "coll": "orders" }, "doc": { "id": id, "q": q } }).to_string();
        assert_eq!(harness.deliver(vec![event().json(&json)]).verdicts, [Seen::Ack]);
        assert_eq!(receiver.received().last().expect("a request").target, target);
    }
}

#[test]
fn an_event_without_a_url_is_rejected_with_the_reason_and_nothing_is_sent() {
    let receiver = Receiver::always(status("200 OK", ""));
    for (path, doc, expected) in [
        ("/{{ doc.id }}", json!({}), "doc.id is not in the event"),
        ("/{{ doc.id }}", json!({ "id": null }), "gives none"),
        ("/{{ doc.id }}", json!({ "id": [1] }), "gives sequence"),
        ("/{{ doc.id }}", json!({ "id": { "a": 1 } }), "gives map"),
        ("/a/{{ doc.id }}/b", json!({ "id": ".." }), "has . or .. as a part of its path"),
        ("/{{ doc.id | safe }}", json!({ "id": "a b" }), "has a space"),
        ("/{{ doc.id | safe }}", json!({ "id": "a#b" }), "has a fragment"),
        ("/{{ doc.id | safe }}", json!({ "id": "a\r\nx-a: b" }), "a control character"),
        ("/{{ doc.id | safe }}", json!({ "id": "a/../../b" }), "has . or .. as a part of its path"),
    ] {
        let harness = start(&receiver, path, json!({}));
        let outcome = harness.deliver(vec![event().json(&json!({ "doc": doc }).to_string())]);
        assert!(matches!(outcome.verdicts[..], [Seen::Reject { .. }]), "{path} {doc}: {outcome:?}");
        assert!(reason(&outcome).contains(expected), "{path} {doc}: {outcome:?}");
    }
    let outcome = start(&receiver, "/{{ doc.id }}?token=hidden", json!({})).deliver(vec![event()]);
    assert_eq!(reason(&outcome), "render url: doc.id is not in the event");
    let mut without = event();
    without.json = None;
    let outcome = start(&receiver, "/", json!({})).deliver(vec![without]);
    assert!(matches!(outcome.verdicts[..], [Seen::Reject { .. }]), "{outcome:?}");
    assert!(receiver.received().is_empty());
}

/// Events with these keys, their place in the JSON as `n`.
fn batch(keys: &[u64]) -> Vec<TestEvent> {
    let make = |(n, key): (usize, &u64)| TestEvent { key: *key, ..event().json(&json!({ "n": n }).to_string()) };
    keys.iter().enumerate().map(make).collect()
}

/// Delivers events with these keys to a receiver that answers the `n`th as `answers` says, else 200. Gives what was sent.
fn in_turn(keys: &[u64], answers: &[(usize, &'static str)]) -> (Outcome, Vec<usize>) {
    let answers: HashMap<usize, &'static str> = answers.iter().copied().collect();
    let number = |request: &Received| {
        serde_json::from_slice::<Value>(&request.body).expect("JSON")["n"].as_u64().expect("a number") as usize
    };
    let receiver = Receiver::start(move |request| match answers.get(&number(request)) {
        Some(&"") => Reply::Close(Vec::new()),
        Some(line) => status(line, ""),
        None => status("200 OK", ""),
    });
    let outcome = start(&receiver, "/", json!({ "client_error_tries": 1 })).deliver(batch(keys));
    (outcome, receiver.received().iter().map(number).collect())
}

/// `a`ck, `r`etry, re`j`ect, `f`atal.
fn letters(outcome: &Outcome) -> String {
    let letter = |verdict: &Seen| match verdict {
        Seen::Ack => 'a',
        Seen::Retry { .. } => 'r',
        Seen::Reject { .. } => 'j',
        Seen::Fatal { .. } => 'f',
        Seen::Failed { .. } => '!',
    };
    outcome.verdicts.iter().map(letter).collect()
}

#[test]
fn a_batch_stops_at_the_first_event_that_is_not_acknowledged() {
    for (keys, answers, verdicts, sent) in [
        (&[1, 2, 1, 2, 3][..], &[][..], "aaaaa", &[0, 1, 2, 3, 4][..]),
        (&[1, 2, 1, 2, 3], &[(0, "500 Internal Server Error")], "rrrrr", &[0]),
        (&[1, 2, 1, 2, 3], &[(0, "400 Bad Request")], "jrrrr", &[0]),
        (&[1, 2, 1, 2, 3], &[(2, "302 Found")], "aarrr", &[0, 1, 2]),
        (&[1, 2, 1, 2, 3], &[(1, "429 Too Many Requests")], "arrrr", &[0, 1]),
        (&[1, 2, 1, 2, 3], &[(1, "410 Gone")], "afrrr", &[0, 1]),
    ] {
        let (outcome, seen) = in_turn(keys, answers);
        assert_eq!((&letters(&outcome)[..], &seen[..]), (verdicts, sent), "{answers:?}");
        let pauses = answers.iter().any(|(_, line)| line.starts_with("429") || line.starts_with("503"));
        assert_eq!(outcome.pause_output.is_some(), pauses, "{answers:?}");
    }
}

#[test]
fn where_nobody_answers_the_rest_of_a_batch_is_not_tried() {
    let (outcome, mut sent) = in_turn(&[1, 2, 3], &[(1, "")]);
    // The second may have gone twice: once on the first one's connection, which broke under it, and once on its own.
    sent.dedup();
    assert_eq!((&letters(&outcome)[..], &sent[..]), ("arr", &[0, 1][..]));
    let Seen::Retry { reason, .. } = &outcome.verdicts[2] else { panic!("a retry") };
    assert!(reason.starts_with("not sent: "), "{reason}");
}

#[test]
fn an_output_that_ends_leaves_no_connection_behind() {
    // One idle at an orderly stop, one under an exchange that the end cuts off.
    let receiver = Receiver::always(status("200 OK", ""));
    let harness = start(&receiver, "/", json!({}));
    assert_eq!(harness.deliver(vec![event()]).verdicts, [Seen::Ack]);
    assert_eq!(harness.stop(), Seen::Ack);
    receiver.wait_for_hang_ups(1);

    let receiver = Receiver::always(Reply::Hang(Vec::new()));
    let harness = start(&receiver, "/", json!({}));
    let pending = harness.begin_delivery(vec![event()]);
    receiver.wait_for_requests(1);
    drop(harness);
    receiver.wait_for_hang_ups(1);
    assert!(matches!(pending.wait().verdicts[..], [Seen::Failed { .. }]));
}

#[test]
fn a_slow_answer_delays_no_other_delivery() {
    let receiver = Receiver::start(|request| match request.body == b"1" {
        true => Reply::Hang(Vec::new()),
        false => status("200 OK", ""),
    });
    let harness = start(&receiver, "/", json!({}));
    let slow = harness.begin_delivery(vec![event().json("1")]);
    receiver.wait_for_requests(1);
    let others: Vec<_> = (0..50).map(|_| harness.begin_delivery(vec![event().json("2")])).collect();
    assert!(others.into_iter().all(|other| other.wait().verdicts == [Seen::Ack]));
    assert!(!slow.is_completed());
    drop(harness);
    assert!(matches!(slow.wait().verdicts[..], [Seen::Failed { .. }]));
}

#[test]
fn a_deadline_beyond_the_timeout_is_said_once() {
    let receiver = Receiver::always(status("200 OK", ""));
    // The harness gives a batch 60 seconds.
    for (deadline, count) in [("59s", 0), ("2m", 1)] {
        let harness = start(&receiver, "/", json!({ "deadline": deadline }));
        for _ in 0..3 {
            assert_eq!(harness.deliver(vec![event()]).verdicts, [Seen::Ack]);
        }
        let warnings =
            harness.logs().iter().filter(|record| record.message.starts_with("deadline is cut short")).count();
        assert_eq!(warnings, count, "{deadline}");
    }
}

#[test]
fn options_that_cannot_work_are_refused_and_secrets_are_not_shown() {
    let url = "https://example.com/hook";
    for (options, expected) in [
        (json!({}), "missing field `url`"),
        (json!({ "url": url, "method": "PUT" }), "unknown field `method`"),
        (json!({ "url": "/hook" }), "url must be absolute"),
        (json!({ "url": "https://user:hidden@example.com/" }), "Authorization"),
        (json!({ "url": "https://example.com/?token=hidden&{{ a" }), "compile url: "),
        (json!({ "url": url, "headers": { "Content-Type": "text/plain" } }), "Content-Type is set by the plugin"),
        (json!({ "url": url, "headers": { "HOST": "a" } }), "HOST is set by the plugin or by HTTP"),
        (json!({ "url": url, "headers": { "Webhook-Id": "a" } }), "Webhook-Id is set by the plugin"),
        (json!({ "url": url, "headers": { "transfer-encoding": "chunked" } }), "transfer-encoding is set by"),
        (json!({ "url": url, "headers": { "a b": "c" } }), "\"a b\" is no name of a header"),
        (json!({ "url": url, "headers": { "a": "hidden\r\nb: c" } }), "the value of a has a character"),
        (json!({ "url": url, "headers": { "x-a": "1", "X-A": "2" } }), "is there twice"),
        (json!({ "url": url, "secrets": ["hidden"] }), "secrets[0] must begin with whsec_"),
        (json!({ "url": url, "secrets": [SECRET, "whsec_hidden"] }), "secrets[1] must be whsec_ and standard base64"),
        (json!({ "url": url, "secrets": vec![SECRET; 9] }), "secrets has 9 entries"),
        (json!({ "url": url, "deadline": "15" }), "\"15\" is no duration"),
        (json!({ "url": url, "deadline": "0s" }), "deadline is 0"),
        (json!({ "url": url, "client_error_tries": 0 }), "client_error_tries is 0"),
        (json!({ "url": url, "pause_max": "8d" }), "pause_max is 8d: write at most \"7d\""),
        (json!({ "url": url, "pause_max": "1s" }), "pause_default is 5s, more than pause_max, which is 1s"),
        (json!({ "url": url, "answer_bytes_max": "1GiB" }), "answer_bytes_max: write at most \"16MiB\""),
    ] {
        let error = Harness::<Webhook>::validate(options.clone()).expect_err(expected);
        assert!(error.contains(expected), "{options}: {error}");
        assert!(!error.contains("hidden") && !error.contains("C2FV"), "{error}");
    }
    Harness::<Webhook>::validate(json!({ "url": url, "secrets": [SECRET, OTHER_SECRET] })).expect("these can work");
}

#[test]
fn every_status_has_a_class() {
    for (status, expected) in [(200, "2xx"), (301, "3xx"), (404, "4xx"), (599, "5xx"), (101, "other"), (999, "other")] {
        assert_eq!(class(StatusCode::from_u16(status).expect("a status")), expected);
    }
}
