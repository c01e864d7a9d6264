//! What a review has found wrong, or nearly: each was lost, repeated, untrue or unbounded once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tailwater_sdk::Progress;
use tailwater_sdk::testing::Harness;
use tailwater_sse::Sse;

use crate::wire::{self, Client, LIVE_FROM, address, event, id, start};
use crate::{deliver, wait_until};

#[test]
fn a_client_that_stops_reading_while_it_is_given_history_is_cut_off_after_five_seconds() {
    let harness = start(json!({ "queue_bytes_max": "64KiB" }));
    let text = "x".repeat(10_000);
    for first in (0..2500).step_by(100) {
        deliver(&harness, (first..first + 100).map(|n| event(LIVE_FROM, n, &text)).collect());
    }
    let _lazy = Client::connect(&address(&harness), &format!("?last_event_id={}", id(LIVE_FROM, 0)), &[]);
    wait_until("a client", || harness.metric("sse_clients") == 1.0);
    let began = Instant::now();
    while harness.metric("sse_clients") == 1.0 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (gone, stalled) =
        (harness.metric("sse_clients") == 0.0, harness.metric("sse_evictions_total{reason=\"stalled\"}"));
    assert!(
        stalled == 1.0 && began.elapsed() < Duration::from_secs(10),
        "gone: {gone} after {:?}, counted as stalled: {stalled}",
        began.elapsed()
    );
}

#[test]
fn an_id_in_the_history_is_resumed_whatever_this_machines_clock_says() {
    let harness = start(json!({}));
    // The cluster's clock is 20 minutes ahead of this machine's; `reached` is told once a second, so it is behind the events.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 1200;
    deliver(&harness, vec![event(now, 0, "a"), event(now, 1, "b")]);
    let mut client = Client::connect(&address(&harness), "", &[("Last-Event-ID", &id(now, 0))]);
    let first = client.next().expect("a message");
    assert_eq!((first.event.as_str(), first.id), ("message", id(now, 1)));
}

#[test]
fn the_history_gauges_follow_what_time_takes_away() {
    let harness = start(json!({}));
    deliver(&harness, vec![event(LIVE_FROM, 0, "a")]);
    assert_eq!(harness.metric("sse_history_events"), 1.0);
    let reached = (LIVE_FROM + 10_000) << 32;
    harness.progress(Progress { complete_from: 500 << 32, live_from: LIVE_FROM << 32, reached });
    assert_eq!(harness.metric("sse_history_events"), 0.0);
}

#[test]
fn events_of_one_place_that_are_delivered_again_are_not_sent_again() {
    let harness = start(json!({}));
    let mut client = Client::connect(&address(&harness), "", &[]);
    wait_until("a client", || harness.metric("sse_clients") == 1.0);
    let at = |hash: u32| {
        let mut event = event(LIVE_FROM, 0, "x");
        event.id = format!("{:016x}-{:08x}{hash:08x}", LIVE_FROM << 32, 0);
        event
    };
    deliver(&harness, vec![at(1), at(2)]);
    deliver(&harness, vec![at(1), at(2)]);
    deliver(&harness, vec![event(LIVE_FROM + 1, 0, "end")]);
    let mut seen = 0;
    while client.next().expect("a message").id != id(LIVE_FROM + 1, 0) {
        seen += 1;
    }
    assert_eq!(seen, 2, "pushed before");
}

#[test]
fn an_http_1_0_client_gets_events() {
    let harness = start(json!({}));
    let mut client = Client::send(&address(&harness), "GET /events HTTP/1.0\r\nHost: a\r\n\r\n");
    wait_until("a client", || harness.metric("sse_clients") == 1.0);
    deliver(&harness, vec![event(LIVE_FROM, 0, "a")]);
    assert_eq!(client.next().expect("a message").id, id(LIVE_FROM, 0));
}

#[test]
fn an_age_of_less_than_a_second_keeps_something() {
    let checked = Harness::<Sse>::validate(json!({ "history": { "max_age": "900ms" } }));
    assert_eq!(checked, Ok(()));
    let harness = start(json!({ "history": { "max_age": "900ms" } }));
    deliver(&harness, vec![event(LIVE_FROM, 0, "a")]);
    assert_eq!(harness.metric("sse_history_events"), 1.0, "asked for, and kept nothing");
}

#[test]
fn the_last_id_of_a_client_moves_on_while_the_stream_is_quiet() {
    // Or a restart after a quiet time longer than `history.max_age` resets every client although nothing was missed.
    let harness = start(json!({ "keep_alive": "1s" }));
    let mut client = Client::connect(&address(&harness), "", &[]);
    wait_until("a client", || harness.metric("sse_clients") == 1.0);
    deliver(&harness, vec![event(LIVE_FROM, 0, "a")]);
    assert_eq!(client.next().expect("a message").id, id(LIVE_FROM, 0));
    let reached = (LIVE_FROM + 600) << 32;
    harness.progress(Progress { complete_from: 500 << 32, live_from: LIVE_FROM << 32, reached });
    let comments = client.comments;
    client.wait_for_comments(comments + 3);
    let last = client.last_id.clone();
    drop(client);
    harness.stop();
    // The daemon is started again: five minutes of history, in which nothing happened.
    let again = wire::start_waiting(json!({}));
    let (complete_from, live_from) = ((LIVE_FROM + 310) << 32, (LIVE_FROM + 610) << 32);
    again.progress(Progress { complete_from, live_from, reached: live_from });
    let _client = Client::connect(&address(&again), "", &[("Last-Event-ID", &last)]);
    wait_until("placed", || again.metric("sse_resumed_total") + again.metric("sse_resets_total") == 1.0);
    assert_eq!(again.metric("sse_resets_total"), 0.0, "nothing was missed since {last}");
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_not_stalled() {
    use std::io::{Read, Write};
    let harness = start(json!({ "queue_bytes_max": "64KiB", "history": { "bytes_max": "256MiB" } }));
    let mut client = std::net::TcpStream::connect(address(&harness)).expect("connect");
    client.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").expect("send");
    wait_until("a client", || harness.metric("sse_clients") == 1.0);
    let reader = std::thread::spawn(move || {
        // 100 KB a second for 20 seconds.
        let (mut bytes, mut total, began) = (vec![0; 10_000], 0, Instant::now());
        while began.elapsed() < Duration::from_secs(20) {
            match client.read(&mut bytes) {
                Ok(0) | Err(_) => return (total, began.elapsed()),
                Ok(count) => total += count,
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        (total, began.elapsed())
    });
    let text = "x".repeat(10_000);
    for first in (0..2_000).step_by(100) {
        deliver(&harness, (first..first + 100).map(|n| event(LIVE_FROM, n, &text)).collect());
    }
    let (total, read_for) = reader.join().expect("a reader");
    let stalled = harness.metric("sse_evictions_total{reason=\"stalled\"}");
    assert_eq!(stalled, 0.0, "it read {total} bytes in {read_for:?}, at no time nothing for more than 0.1 s");
}

#[test]
fn a_client_that_resumed_is_not_told_a_place_it_has_not_come_to_yet() {
    // The daemon reads its history back: the stream is at second 700, news begins at 1000.
    let harness = wire::start_waiting(json!({ "keep_alive": "1s" }));
    let address = address(&harness);
    let mut client = Client::connect(&address, "", &[("Last-Event-ID", &id(600, 0))]);
    client.wait_for_comments(1);
    harness.progress(Progress { complete_from: 500 << 32, live_from: LIVE_FROM << 32, reached: 500 << 32 });
    deliver(&harness, vec![event(600, 0, "a"), event(700, 0, "b")]);
    assert_eq!(client.next().expect("a message").id, id(700, 0));
    let comments = client.comments;
    client.wait_for_comments(comments + 1);
    let last = client.last_id.clone();
    drop(client);
    // It comes back at once; what is between 700 and 1000 is still to come.
    let mut again = Client::connect(&address, "", &[("Last-Event-ID", &last)]);
    again.wait_for_comments(1);
    wait_until("a client", || harness.metric("sse_connections_total") == 2.0);
    deliver(&harness, vec![event(800, 0, "c"), event(LIVE_FROM, 0, "d")]);
    assert_eq!(again.next().expect("a message").id, id(800, 0), "lost: it was told {last}");
}
