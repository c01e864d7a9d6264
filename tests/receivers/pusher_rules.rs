//! What Pusher's HTTP API takes, written from its reference a second time: shares no line with the plugin that it judges. Pure.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use serde_json::Value;
use sha2::Sha256;

pub use super::http::Call;

/// Seconds that a request's time may be off.
const CLOCK_SECONDS_MAX: u64 = 600;
const CHANNELS_MAX: usize = 100;
const BATCH_MAX: usize = 10;
const DATA_BYTES_MAX: usize = 10_240;
const CHANNEL_LENGTH_MAX: usize = 164;
const EVENT_LENGTH_MAX: usize = 200;

/// Block of SHA-256, which HMAC pads its key to.
const BLOCK: usize = 64;

/// An app and its credentials.
#[derive(Debug, Clone)]
pub struct App {
    pub id: String,
    pub key: String,
    pub secret: String,
}

/// What one channel gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub channel: String,
    pub name: String,
    pub data: String,
}

/// A request that keeps every rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub path: String,
    pub timestamp: u64,
    pub signature: String,
    /// An event to several channels is one entry for each.
    pub entries: Vec<Entry>,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
    /// Entries before the bad one, which Pusher sends on all the same: a batch is not atomic.
    pub sent_on: Vec<Entry>,
}

fn refuse<T>(status: u16, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, text: text.into(), sent_on: Vec::new() })
}

/// Checks everything there is to check. `now` is in seconds since 1970.
pub fn check(app: &App, call: &Call, now: u64) -> Result<Checked, Refusal> {
    let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
    let Some(kind) = path.strip_prefix(&format!("/apps/{}/", app.id)) else {
        return refuse(404, format!("{path}: no such app"));
    };
    if call.method != "POST" {
        return refuse(405, format!("{}: only POST", call.method));
    }
    let header = |name: &str| call.headers.get(name).map(String::as_str).unwrap_or_default();
    if header("content-type") != "application/json"
        || header("x-pusher-library").is_empty()
        || header("host").is_empty()
    {
        return refuse(400, format!("content-type, x-pusher-library and host are needed: {:?}", call.headers));
    }
    let (timestamp, signature) = check_query(app, call, path, query, now)?;
    let Ok(body) = serde_json::from_slice::<Value>(&call.body) else { return refuse(400, "the body is not JSON") };
    let entries = match kind {
        "events" => check_events(&body)?,
        "batch_events" => check_batch(&body)?,
        _ => return refuse(404, format!("{path}: no such resource")),
    };
    Ok(Checked { path: path.to_owned(), timestamp, signature, entries })
}

fn check_query(app: &App, call: &Call, path: &str, query: &str, now: u64) -> Result<(u64, String), Refusal> {
    let mut parameters = BTreeMap::new();
    for part in query.split('&') {
        let Some((name, value)) = part.split_once('=') else { return refuse(401, format!("query {part:?}")) };
        if value.contains(['%', '+']) || parameters.insert(name, value).is_some() {
            return refuse(401, format!("{name} is escaped, or there twice"));
        }
    }
    let signature = parameters.remove("auth_signature").unwrap_or_default().to_owned();
    let names: Vec<_> = parameters.keys().copied().collect();
    if names != ["auth_key", "auth_timestamp", "auth_version", "body_md5"] {
        return refuse(401, format!("parameters {names:?}"));
    }
    if parameters["auth_key"] != app.key || parameters["auth_version"] != "1.0" {
        return refuse(401, format!("key {}, version {}", parameters["auth_key"], parameters["auth_version"]));
    }
    let Ok(timestamp) = parameters["auth_timestamp"].parse::<u64>() else { return refuse(401, "auth_timestamp") };
    if timestamp.abs_diff(now) > CLOCK_SECONDS_MAX {
        return refuse(401, format!("timestamp {timestamp} is not within {CLOCK_SECONDS_MAX} s of {now}"));
    }
    if parameters["body_md5"] != hex(&Md5::digest(&call.body)) {
        return refuse(401, "body_md5 is of another body");
    }
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = [&call.method, path, &pairs.join("&")].join("\n");
    if signature != hmac_sha256(&app.secret, &text) {
        return refuse(401, format!("invalid signature {signature} of {text:?}"));
    }
    Ok((timestamp, signature))
}

fn check_events(body: &Value) -> Result<Vec<Entry>, Refusal> {
    check_keys(body, &["channels", "data", "name"])?;
    let channels: Option<Vec<&str>> =
        body["channels"].as_array().and_then(|channels| channels.iter().map(Value::as_str).collect());
    let Some(channels) = channels else { return refuse(400, "channels is no list of strings") };
    if !(1..=CHANNELS_MAX).contains(&channels.len()) {
        return refuse(400, format!("{} channels", channels.len()));
    }
    let mut entries = Vec::new();
    for (place, channel) in channels.iter().enumerate() {
        if channels[..place].contains(channel) {
            return refuse(400, format!("channel {channel} twice"));
        }
        // An event goes to all of its channels or to none.
        entries.push(check_entry(channel, &body["name"], &body["data"])?);
    }
    Ok(entries)
}

fn check_batch(body: &Value) -> Result<Vec<Entry>, Refusal> {
    check_keys(body, &["batch"])?;
    let Some(batch) = body["batch"].as_array() else { return refuse(400, "batch is no list") };
    if !(1..=BATCH_MAX).contains(&batch.len()) {
        return refuse(400, format!("{} events in a batch", batch.len()));
    }
    let mut entries = Vec::new();
    for entry in batch {
        let checked = check_keys(entry, &["channel", "data", "name"]).and_then(|()| {
            let Some(channel) = entry["channel"].as_str() else { return refuse(400, "channel is no string") };
            check_entry(channel, &entry["name"], &entry["data"])
        });
        match checked {
            Ok(entry) => entries.push(entry),
            Err(refusal) => return Err(Refusal { sent_on: entries, ..refusal }),
        }
    }
    Ok(entries)
}

fn check_keys(value: &Value, expected: &[&str]) -> Result<(), Refusal> {
    let mut keys: Vec<_> = value.as_object().into_iter().flat_map(|object| object.keys()).collect();
    keys.sort();
    if keys == expected { Ok(()) } else { refuse(400, format!("keys {keys:?}, not {expected:?}")) }
}

fn check_entry(channel: &str, name: &Value, data: &Value) -> Result<Entry, Refusal> {
    let (Some(name), Some(data)) = (name.as_str(), data.as_str()) else {
        return refuse(400, "name or data is no string");
    };
    let rest = channel.strip_prefix("#server-to-user-").unwrap_or(channel);
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'=' | b'@' | b',' | b'.' | b';');
    if rest.is_empty() || channel.len() > CHANNEL_LENGTH_MAX || !rest.bytes().all(legal) {
        return refuse(400, format!("channel name {channel:?}"));
    }
    if channel.starts_with("private-encrypted-") {
        return refuse(400, format!("{channel}: the data of an encrypted channel is not encrypted"));
    }
    if name.is_empty() || name.chars().count() > EVENT_LENGTH_MAX || name.starts_with("pusher:") {
        return refuse(400, format!("event name {name:?}"));
    }
    if data.len() > DATA_BYTES_MAX {
        return refuse(
            413,
            format!("the data content of this event exceeds the allowed maximum ({DATA_BYTES_MAX} bytes)"),
        );
    }
    Ok(Entry { channel: channel.to_owned(), name: name.to_owned(), data: data.to_owned() })
}

/// HMAC by RFC 2104, in lower hex.
pub fn hmac_sha256(secret: &str, text: &str) -> String {
    let mut key = [0; BLOCK];
    match secret.len() {
        ..=BLOCK => key[..secret.len()].copy_from_slice(secret.as_bytes()),
        _ => key[..32].copy_from_slice(&Sha256::digest(secret.as_bytes())),
    }
    let inner = Sha256::new().chain_update(key.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    hex(&Sha256::new().chain_update(key.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize())
}

/// Lower hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
