//! The whole output on real sockets: what a client is sent first, live, again, and last, and what it is refused.

mod found;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_sdk::Progress;
use tailwater_sdk::testing::{Harness, StartFailure, TestEvent, Verdict};
use tailwater_sse::Sse;

use wire::{Client, LIVE_FROM, Message, PATIENCE, address, event, id, start, start_waiting};

fn deliver(harness: &Harness<Sse>, events: Vec<TestEvent>) {
    let outcome = harness.deliver(events);
    assert!(outcome.verdicts.iter().all(|verdict| *verdict == Verdict::Ack), "{outcome:?}");
}

fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.id.clone()).collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_gets_first_bytes_at_once_and_then_what_happens() {
    let harness = start(json!({ "cors_origins": ["https://shop.example"] }));
    assert_eq!(harness.wanted_history(), Duration::from_secs(300));
    deliver(&harness, vec![event(LIVE_FROM - 1, 0, "history"), event(LIVE_FROM, 0, "before")]);
    let mut client = Client::connect(&address(&harness), "", &[("Origin", "https://shop.example")]);
    for line in [
        "http/1.1 200 ok",
        "content-type: text/event-stream\r\n",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "access-control-allow-origin: https://shop.example",
        "connection: close",
        "access-control-allow-credentials: true",
        "vary: origin",
    ] {
        assert!(client.head.contains(line), "{line} in {}", client.head);
    }
    client.wait_for_comments(1);
    assert!(client.retry.is_some_and(|retry| (1000..=3000).contains(&retry)), "{:?}", client.retry);
    wait_until("it is a client", || harness.metric("sse_clients") == 1.0);
    deliver(&harness, vec![event(LIVE_FROM + 1, 0, "grüße"), event(LIVE_FROM + 1, 1, "two")]);
    let messages = client.take(2);
    assert_eq!(ids(&messages), [id(LIVE_FROM + 1, 0), id(LIVE_FROM + 1, 1)], "nothing from before");
    let data: serde_json::Value = serde_json::from_str(&messages[0].data).expect("JSON");
    assert_eq!((messages[0].event.as_str(), &data["text"]), ("message", &json!("grüße")));
    drop(client);
    wait_until("it is gone", || harness.metric("sse_clients") == 0.0);
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed_then_what_happens() {
    let harness = start(json!({}));
    deliver(&harness, (0..100).map(|n| event(900 + u64::from(n), n, "x")).collect());
    for (query, header) in [
        (format!("?last_event_id={}", id(949, 49)), None),
        ("?last_event_id=0".to_owned(), Some(id(949, 49))),
        (format!("?last_event_id={:016x}-0000000000000000", 950_u64 << 32), None),
    ] {
        let headers: Vec<_> = header.iter().map(|id| ("Last-Event-ID", id.as_str())).collect();
        let mut client = Client::connect(&address(&harness), &query, &headers);
        let expected: Vec<_> = (50..100).map(|n| id(900 + u64::from(n), n)).collect();
        assert_eq!(ids(&client.take(50)), expected, "{query}");
    }
    assert_eq!((harness.metric("sse_resumed_total"), harness.metric("sse_resets_total")), (3.0, 0.0));
}

#[test]
fn what_the_history_does_not_reach_is_said_and_the_client_is_live() {
    let harness = start(json!({}));
    deliver(&harness, vec![event(990, 0, "old"), event(LIVE_FROM + 5, 0, "new")]);
    let future = format!("{:016x}-0000000000000001", u64::MAX - 1);
    for (asked, reason) in [(id(400, 0), "history"), (future, "history"), ("{\"_data\":\"82\"}".to_owned(), "id")] {
        let mut client = Client::connect(&address(&harness), "", &[("Last-Event-ID", &asked)]);
        let reset = client.next().expect("a reset");
        assert_eq!((reset.event.as_str(), &reset.id), ("reset", &id(LIVE_FROM + 5, 0)), "{asked}");
        let data: serde_json::Value = serde_json::from_str(&reset.data).expect("JSON");
        assert_eq!(data, json!({ "reason": reason, "lastEventId": asked }));
        // With the id of the reset it comes back without another one.
        let mut again = Client::connect(&address(&harness), "", &[("Last-Event-ID", &reset.id)]);
        again.wait_for_comments(1);
        let clients = harness.metric("sse_clients");
        assert!(clients >= 2.0, "{clients}");
    }
    assert_eq!(harness.metric("sse_resets_total"), 3.0);
    let mut client = Client::connect(&address(&harness), "", &[("Last-Event-ID", "?")]);
    assert_eq!(client.next().expect("a reset").event, "reset");
    deliver(&harness, vec![event(LIVE_FROM + 6, 0, "live")]);
    assert_eq!(client.next().expect("the event").id, id(LIVE_FROM + 6, 0));
}

#[test]
fn clients_that_come_before_the_stream_begins_wait_for_it() {
    let harness = start_waiting(json!({}));
    let connect = |id: Option<String>| {
        let query = id.map_or(String::new(), |id| format!("?last_event_id={id}"));
        let mut client = Client::connect(&address(&harness), &query, &[]);
        client.wait_for_comments(1);
        client
    };
    let (mut fresh, mut known) = (connect(None), connect(Some(id(600, 0))));
    let (mut ahead, mut old) = (connect(Some(id(LIVE_FROM - 1, 0))), connect(Some(id(400, 0))));
    harness.progress(Progress { complete_from: 500 << 32, live_from: LIVE_FROM << 32, reached: 500 << 32 });
    // Told by the beginning of the stream alone.
    let reset = old.next().expect("a reset");
    deliver(&harness, vec![event(600, 0, "a"), event(700, 0, "b"), event(LIVE_FROM - 1, 0, "c")]);
    deliver(&harness, vec![event(LIVE_FROM, 0, "d")]);
    let (b, c, d) = (id(700, 0), id(LIVE_FROM - 1, 0), id(LIVE_FROM, 0));
    assert_eq!(ids(&fresh.take(1)), std::slice::from_ref(&d), "history is no news");
    assert_eq!(ids(&known.take(3)), [b, c, d.clone()]);
    assert_eq!(ids(&ahead.take(1)), std::slice::from_ref(&d));
    assert_eq!((reset.event.as_str(), old.next().expect("the event").id), ("reset", d));
    assert_eq!(reset.id, format!("{:016x}-0000000000000000", LIVE_FROM << 32));
}

#[test]
fn topics_choose_and_an_event_of_two_topics_comes_once() {
    let harness = start(json!({ "topics": ["city-{{ city }}", "{% if text == 'ab' %}special{% endif %}"] }));
    let address = address(&harness);
    let mut clients: Vec<_> = ["?topic=city-a", "?topic=city-b&topic=special", "?topic=city-a&topic=special", ""]
        .map(|query| Client::connect(&address, query, &[]))
        .into();
    wait_until("all are clients", || harness.metric("sse_clients") == 4.0);
    let at = |n: u32| id(LIVE_FROM, n);
    let texts = ["aa", "ab", "bb", "cc", "a_end", "b_end"];
    deliver(&harness, (0..).zip(texts).map(|(n, text)| event(LIVE_FROM, n, text)).collect());
    let expected = [vec![0, 1, 4], vec![1, 2, 5], vec![0, 1, 4], vec![0, 1, 2, 3, 4, 5]];
    for (client, expected) in clients.iter_mut().zip(&expected) {
        assert_eq!(ids(&client.take(expected.len())), expected.iter().map(|n| at(*n)).collect::<Vec<_>>());
    }
    // The same from the history.
    let mut again = Client::connect(&address, &format!("?topic=special&topic=city-b&last_event_id={}", at(0)), &[]);
    assert_eq!(ids(&again.take(3)), [at(1), at(2), at(5)]);
    assert_eq!(harness.metric("sse_topics"), 3.0);
    drop((clients, again));
    wait_until("all are gone, and their topics", || harness.metric("sse_topics") == 0.0);
}

#[test]
fn whenever_clients_come_and_go_each_event_reaches_them_once_and_in_order() {
    const EVENTS: u32 = 3_000;
    let harness = start(json!({ "clients_max": 200 }));
    let address = address(&harness);
    let done = Arc::new(AtomicBool::new(false));
    let expected: Vec<String> = (0..EVENTS).map(|n| id(LIVE_FROM + u64::from(n / 70), n)).collect();
    let expected = Arc::new(expected);
    let clients: Vec<_> = (0..8_usize)
        .map(|number| {
            let (address, done, expected) = (address.clone(), Arc::clone(&done), Arc::clone(&expected));
            std::thread::spawn(move || {
                let mut seen: Vec<String> = Vec::new();
                let mut connects = 0;
                // From the beginning, inclusive.
                let mut last = format!("{:016x}-0000000000000000", LIVE_FROM << 32);
                while seen.len() < expected.len() {
                    connects += 1;
                    let mut client = Client::connect(&address, "", &[("Last-Event-ID", &last)]);
                    // Gone after a different number of events each time, until nothing more is published.
                    let stay =
                        if done.load(Ordering::SeqCst) { usize::MAX } else { 1 + (connects * 37 + number * 11) % 97 };
                    for _ in 0..stay.min(expected.len() - seen.len()) {
                        let message = client.next().expect("the stream goes on");
                        assert_eq!(message.event, "message");
                        last = message.id.clone();
                        seen.push(message.id);
                    }
                }
                (seen, connects)
            })
        })
        .collect();
    for first in (0..EVENTS).step_by(50) {
        let events = (first..(first + 50).min(EVENTS)).map(|n| event(LIVE_FROM + u64::from(n / 70), n, "x"));
        deliver(&harness, events.collect());
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        let (seen, connects) = client.join().expect("a client");
        assert!(connects > 5, "{connects} connects are no test");
        assert_eq!(seen, *expected);
    }
}

#[test]
fn a_client_that_reads_nothing_is_cut_and_hurts_nobody() {
    let harness = start(json!({ "queue_bytes_max": "64KiB", "history": { "bytes_max": "1MiB" } }));
    let address = address(&harness);
    let mut lazy = Client::connect(&address, "", &[]);
    let mut eager = Client::connect(&address, "", &[]);
    wait_until("both are clients", || harness.metric("sse_clients") == 2.0);
    let text = "x".repeat(30_000);
    let mut sent = 0;
    while harness.metric("sse_evictions_total{reason=\"stalled\"}") == 0.0 {
        deliver(&harness, vec![event(LIVE_FROM, sent, &text)]);
        assert_eq!(eager.next().expect("in time").id, id(LIVE_FROM, sent));
        sent += 1;
        let full = harness.metric("sse_full_queues_total") > 0.0;
        assert!(full || sent < 5_000, "the sockets alone hold {} MB", sent * 30_000 / 1_000_000);
        if full {
            // Nothing more to prove by sending: now only its time has to pass.
            wait_until("it is cut off", || harness.metric("sse_evictions_total{reason=\"stalled\"}") == 1.0);
        }
    }
    // Long before the kernel would give up a connection that takes nothing.
    let cut = Instant::now();
    wait_until("its connection is closed, although it reads nothing", || harness.metric("sse_clients") == 1.0);
    assert!(cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
    let mut got = HashSet::new();
    while let Some(message) = lazy.next() {
        assert!(got.insert(message.id));
    }
    assert!(!lazy.finished, "cut, not ended: a browser must not take half a frame for a whole one");
    assert!(got.len() < sent as usize);
}

#[test]
fn a_burst_larger_than_the_queue_cuts_nobody_off() {
    let harness = start(json!({ "queue_bytes_max": "16KiB" }));
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(&address(&harness), "", &[])).collect();
    wait_until("all are clients", || harness.metric("sse_clients") == 5.0);
    let text = "x".repeat(2_000);
    for first in (0..2_000).step_by(500) {
        deliver(&harness, (first..first + 500).map(|n| event(LIVE_FROM, n, &text)).collect());
    }
    assert!(harness.metric("sse_full_queues_total") > 0.0, "no queue was full: no test");
    let expected: Vec<_> = (0..2_000).map(|n| id(LIVE_FROM, n)).collect();
    for client in &mut clients {
        assert_eq!(ids(&client.take(2_000)), expected);
    }
    assert_eq!(harness.metric("sse_connections_total"), 5.0);
}

#[test]
fn a_client_that_the_history_outruns_is_cut_off() {
    let harness = start(json!({ "queue_bytes_max": "16KiB", "history": { "bytes_max": "64KiB" } }));
    let mut client = Client::connect(&address(&harness), "", &[]);
    wait_until("it is a client", || harness.metric("sse_clients") == 1.0);
    let text = "x".repeat(30_000);
    let mut sent = 0;
    while harness.metric("sse_full_queues_total") == 0.0 {
        deliver(&harness, vec![event(LIVE_FROM, sent, &text)]);
        sent += 1;
    }
    // What its queue did not take is gone from the history, too.
    deliver(&harness, (sent..sent + 20).map(|n| event(LIVE_FROM, n, &text)).collect());
    let seen = std::iter::from_fn(|| client.next()).count();
    assert!(seen < sent as usize, "{seen} of {sent}");
    assert_eq!((client.finished, harness.metric("sse_evictions_total{reason=\"outrun\"}")), (false, 1.0));
}

#[test]
fn a_history_that_is_larger_than_the_queue_is_given_whole() {
    let harness = start(json!({ "queue_bytes_max": "4KiB" }));
    let text = "x".repeat(10_000);
    for first in (0..1000).step_by(100) {
        deliver(&harness, (first..first + 100).map(|n| event(600, n, &text)).collect());
    }
    let mut client = Client::connect(&address(&harness), &format!("?last_event_id={}", id(600, 9)), &[]);
    let seen = ids(&client.take(990));
    assert_eq!(seen, (10..1000).map(|n| id(600, n)).collect::<Vec<_>>());
    assert_eq!(harness.metric("sse_evictions_total{reason=\"stalled\"}"), 0.0);
}

#[test]
fn a_client_that_is_sent_no_event_has_a_place_to_come_back_to() {
    let harness = start(json!({ "keep_alive": "1s", "topics": ["{{ city }}"] }));
    deliver(&harness, vec![event(LIVE_FROM, 0, "a")]);
    let mut client = Client::connect(&address(&harness), "?topic=b", &[]);
    client.wait_for_comments(2);
    assert_eq!(client.last_id, id(LIVE_FROM, 0), "first words");
    deliver(&harness, vec![event(LIVE_FROM + 1, 0, "a")]);
    client.wait_for_comments(4);
    assert_eq!(client.last_id, id(LIVE_FROM + 1, 0), "kept alive while others are sent events");
    harness.progress(Progress {
        complete_from: 500 << 32,
        live_from: LIVE_FROM << 32,
        reached: (LIVE_FROM + 900) << 32,
    });
    client.wait_for_comments(6);
    assert_eq!(client.last_id, format!("{:016x}-0000000000000000", (LIVE_FROM + 900) << 32), "and on a quiet stream");
    let seen = std::mem::take(&mut client.last_id);
    drop(client);
    deliver(&harness, vec![event(LIVE_FROM + 900, 0, "b"), event(LIVE_FROM + 900, 1, "a")]);
    let mut again = Client::connect(&address(&harness), "?topic=b", &[("Last-Event-ID", &seen)]);
    assert_eq!(again.next().expect("what it missed").id, id(LIVE_FROM + 900, 0));
}

#[test]
fn only_what_clients_are_sent_is_counted() {
    let harness = start(json!({ "topics": ["{{ city }}", "{{ text }}"] }));
    let mut client = Client::connect(&address(&harness), "?topic=a&topic=ab", &[]);
    wait_until("it is a client", || harness.metric("sse_clients") == 1.0);
    deliver(&harness, vec![event(LIVE_FROM - 1, 0, "ab"), event(LIVE_FROM, 0, "ab"), event(LIVE_FROM, 1, "b")]);
    assert_eq!(client.next().expect("the event of two topics").id, id(LIVE_FROM, 0));
    assert_eq!(harness.metric("sse_events_total"), 1.0);
}

#[test]
fn one_client_too_many_is_told_to_come_back_and_never_refused() {
    let harness = start(json!({ "clients_max": 1, "retry": "1s" }));
    let address = address(&harness);
    let mut first = Client::connect(&address, "", &[]);
    first.wait_for_comments(1);
    let mut second = Client::connect(&address, "", &[]);
    assert_eq!((second.status(), second.next()), (200, None));
    assert!(second.retry.is_some_and(|retry| (2500..=7500).contains(&retry)), "{:?}", second.retry);
    assert_eq!(harness.metric("sse_refused_total"), 1.0);
    drop(first);
    wait_until("there is a place", || harness.metric("sse_clients") == 0.0);
    Client::connect(&address, "", &[]).wait_for_comments(1);
}

#[test]
fn at_the_end_every_stream_is_finished() {
    let harness = start(json!({}));
    let address = address(&harness);
    let mut client = Client::connect(&address, "", &[]);
    client.wait_for_comments(1);
    deliver(&harness, vec![event(LIVE_FROM, 0, "last")]);
    assert_eq!(harness.stop(), Verdict::Ack);
    assert_eq!(client.next().map(|message| message.id), Some(id(LIVE_FROM, 0)));
    assert_eq!((client.next(), client.finished), (None, true));
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens any more");
}

#[test]
fn what_is_no_request_for_the_stream_is_answered() {
    let harness = start(json!({}));
    let address = address(&harness);
    let long = "x".repeat(20_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
        ("OPTIONS /events HTTP/1.1\r\nHost: a\r\n\r\n", 204),
        ("GET /events?topic=a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        (&format!("GET /events HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
    ] {
        assert_eq!(Client::send(&address, request).status(), status, "{}", &request[..request.len().min(40)]);
    }
    assert_eq!(harness.metric("sse_connections_total"), 0.0);
}

#[test]
fn an_event_that_cannot_be_sent_holds_back_those_behind_it() {
    let harness = start(json!({ "topics": ["{{ missing }}"] }));
    let mut client = Client::connect(&address(&harness), "", &[]);
    wait_until("it is a client", || harness.metric("sse_clients") == 1.0);
    let good = |n| {
        let mut event = event(LIVE_FROM, n, "x");
        event.json = Some(r#"{"missing":"here"}"#.to_owned());
        event
    };
    let outcome = harness.deliver(vec![good(0), event(LIVE_FROM, 1, "x"), good(2)]);
    let [Verdict::Ack, Verdict::Reject { reason }, Verdict::Retry { .. }] = &outcome.verdicts[..] else {
        panic!("{outcome:?}")
    };
    assert!(reason.contains("{{ missing }}") && reason.contains("not in the event"), "{reason}");
    deliver(&harness, vec![good(2)]);
    assert_eq!(ids(&client.take(2)), [id(LIVE_FROM, 0), id(LIVE_FROM, 2)]);
}

#[test]
fn a_port_that_is_taken_is_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("an address").to_string();
    let failure = Harness::<Sse>::start(json!({ "listen": listen })).err();
    let Some(StartFailure::Verdict(Verdict::Retry { reason, .. })) = failure else { panic!("retry, not {failure:?}") };
    assert_eq!(reason, format!("listen on {listen}: the port is in use; end who has it, or change `listen`"));
}

#[test]
fn options_that_cannot_work_are_refused() {
    for (options, expected) in [
        (json!({ "listen": "8080" }), "listen \"8080\" is no address"),
        (json!({ "path": "events" }), "path \"events\" is no path"),
        (json!({ "path": "/ev?a" }), "is no path"),
        (json!({ "topics": ["a", "{{ b"] }), "topics[1]: compile template"),
        (json!({ "cors_origins": ["https://a.example/"] }), "is no origin"),
        (json!({ "cors_origins": ["a.example"] }), "is no origin"),
        (json!({ "keep_alive": "500ms" }), "keep_alive is 500ms: write 1s to 1h"),
        (json!({ "retry": "0s" }), "retry is 0s: write 100ms to 1h"),
        (json!({ "history": { "max_age": "8d" } }), "history.max_age is 8d"),
        (json!({ "history": { "age": "1s" } }), "unknown field `age`"),
        (json!({ "clients_max": 0 }), "clients_max is 0"),
        (json!({ "queue_bytes_max": "1B" }), "queue_bytes_max is 1B: write 4KiB to 1GiB"),
        (json!({ "topic": "a" }), "unknown field `topic`"),
    ] {
        let error = Harness::<Sse>::validate(options.clone()).expect_err(expected);
        assert!(error.contains(expected), "{options}: {error}");
    }
    assert_eq!(Harness::<Sse>::validate(json!({ "listen": "[::1]:80", "cors_origins": ["http://[::1]:81"] })), Ok(()));
}
