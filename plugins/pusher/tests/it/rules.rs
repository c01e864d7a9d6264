//! The receiver is as strict as it says: each rule, broken, is noted. Without this the other tests could not fail.

use serde_json::{Value, json};

use crate::{
    app,
    receiver::rules::{Call, Checked, Refusal, check, hex, hmac_sha256},
};

const NOW: u64 = 1_353_088_179;

/// A call that keeps the rules, before `change` breaks one of the query's parts; signed after that.
fn call(path: &str, body: &Value, change: impl Fn(&str, &str) -> String) -> Call {
    use md5::{Digest, Md5};
    let body = body.to_string();
    let parts = [
        ("auth_key", app().key),
        ("auth_timestamp", NOW.to_string()),
        ("auth_version", "1.0".to_owned()),
        ("body_md5", hex(&Md5::digest(&body))),
    ];
    let query = parts.map(|(name, value)| format!("{name}={}", change(name, &value))).join("&");
    let signature = hmac_sha256(&app().secret, &format!("POST\n{path}\n{query}"));
    let headers = [("content-type", "application/json"), ("x-pusher-library", "test"), ("host", "localhost")];
    Call {
        method: "POST".to_owned(),
        target: format!("{path}?{query}&auth_signature={}", change("auth_signature", &signature)),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: body.into_bytes(),
    }
}

fn unchanged(_: &str, value: &str) -> String {
    value.to_owned()
}

fn events(channels: Value, name: &str, data: &str) -> Result<Checked, Refusal> {
    let body = json!({ "name": name, "channels": channels, "data": data });
    check(&app(), &call("/apps/3/events", &body, unchanged), NOW)
}

fn batch(entries: Vec<Value>) -> Result<Checked, Refusal> {
    check(&app(), &call("/apps/3/batch_events", &json!({ "batch": entries }), unchanged), NOW)
}

#[track_caller]
fn refused(checked: Result<Checked, Refusal>, status: u16, text: &str) -> Refusal {
    let refusal = checked.expect_err(text);
    assert!(refusal.status == status && refusal.text.contains(text), "{text}: {refusal:?}");
    refusal
}

#[test]
fn its_signature_is_that_of_the_reference() {
    let text = "POST\n/apps/3/events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
                &body_md5=ec365a775a4cd0599faeb73354201b6f";
    let expected = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    assert_eq!(hmac_sha256(&app().secret, text), expected);
    // A key longer than a block is hashed first; the value is Python's.
    let expected = "a5a01d7d6d897d59a87c01a25096e0681c9c1efbb3e33332621437db37e9222d";
    assert_eq!(hmac_sha256(&"\u{1}".repeat(131), "x"), expected);
}

#[test]
fn a_broken_query_is_refused() {
    let body = json!({ "name": "a", "channels": ["a"], "data": "{}" });
    let checked = |change: &dyn Fn(&str, &str) -> String, now| {
        check(&app(), &call("/apps/3/events", &body, |name, value| change(name, value)), now)
    };
    let with = |name: &'static str, other: &'static str| {
        move |key: &str, value: &str| if key == name { other.to_owned() } else { value.to_owned() }
    };
    assert!(checked(&unchanged, NOW + 600).is_ok() && checked(&unchanged, NOW - 600).is_ok());
    refused(checked(&unchanged, NOW + 601), 401, "is not within 600 s");
    refused(checked(&unchanged, NOW - 601), 401, "is not within 600 s");
    refused(checked(&with("auth_key", "other"), NOW), 401, "key other");
    refused(checked(&with("auth_version", "1.1"), NOW), 401, "version 1.1");
    refused(checked(&with("body_md5", "ec365a775a4cd0599faeb73354201b6f"), NOW), 401, "body_md5");
    refused(checked(&with("auth_signature", "da454824"), NOW), 401, "invalid signature da454824");
    refused(checked(&with("auth_version", "1.0&x=1"), NOW), 401, "parameters");
    refused(checked(&with("auth_version", "1%2E0"), NOW), 401, "escaped");
}

#[test]
fn a_broken_request_is_refused() {
    let body = json!({ "name": "a", "channels": ["a"], "data": "{}" });
    let good = call("/apps/3/events", &body, unchanged);
    assert!(check(&app(), &good, NOW).is_ok());
    refused(check(&app(), &call("/apps/4/events", &body, unchanged), NOW), 404, "no such app");
    refused(check(&app(), &call("/apps/3/event", &body, unchanged), NOW), 404, "no such resource");
    refused(check(&app(), &Call { method: "PUT".to_owned(), ..good.clone() }, NOW), 405, "PUT");
    refused(check(&app(), &Call { headers: Default::default(), ..good.clone() }, NOW), 400, "content-type");
    refused(check(&app(), &Call { body: b"{}".to_vec(), ..good }, NOW), 401, "body_md5");
    for broken in [json!([]), json!({ "name": "a", "channel": "a", "data": "{}" }), json!({ "batch": [] })] {
        refused(check(&app(), &call("/apps/3/events", &broken, unchanged), NOW), 400, "keys");
    }
}

#[test]
fn names_sizes_and_counts_beyond_the_limits_are_refused() {
    let channels = |count: usize| json!((0..count).map(|n| format!("c{n}")).collect::<Vec<_>>());
    assert_eq!(events(channels(100), "a", "{}").expect("100 channels").entries.len(), 100);
    refused(events(channels(101), "a", "{}"), 400, "101 channels");
    refused(events(json!([]), "a", "{}"), 400, "0 channels");
    refused(events(json!("a"), "a", "{}"), 400, "no list");
    refused(events(json!(["a", "a"]), "a", "{}"), 400, "twice");
    for channel in ["", "a:b", "a b", "#a", "#server-to-user-", "ä", &"c".repeat(165)] {
        refused(events(json!([channel]), "a", "{}"), 400, "channel name");
    }
    refused(events(json!(["private-encrypted-a"]), "a", "{}"), 400, "not encrypted");
    assert!(events(json!(["c".repeat(164), "#server-to-user-1"]), &"n".repeat(200), &"d".repeat(10_240)).is_ok());
    for name in ["", "pusher:a", &"n".repeat(201)] {
        refused(events(json!(["a"]), name, "{}"), 400, "event name");
    }
    refused(events(json!(["a"]), "a", &"d".repeat(10_241)), 413, "10240 bytes");
}

#[test]
fn a_batch_is_refused_at_its_first_bad_entry_and_what_is_before_it_is_sent_on() {
    let entry = |channel: &str| json!({ "channel": channel, "name": "a", "data": "{}" });
    assert_eq!(batch(vec![entry("a"); 10]).expect("ten").entries.len(), 10);
    refused(batch(vec![entry("a"); 11]), 400, "11 events");
    refused(batch(vec![]), 400, "0 events");
    let refusal = refused(batch(vec![entry("a"), entry("b"), entry("c:"), entry("d")]), 400, "c:");
    let sent_on: Vec<_> = refusal.sent_on.iter().map(|entry| &entry.channel[..]).collect();
    assert_eq!(sent_on, ["a", "b"]);
}
