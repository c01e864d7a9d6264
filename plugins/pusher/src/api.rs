//! Pusher's HTTP API: makes, signs and sends one request. Decides nothing about events.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tailwater_sdk::{
    bytes::Bytes,
    http::{Answer, Client, ClientSettings, HttpError, Request, header},
};

use crate::{
    answer::{self, Outcome},
    config::{Options, Secret},
    entry::Entry,
    signature::Signer,
};

/// Names this client to the server, as Pusher's own libraries name themselves.
/// Of an answer's body, for its beginning.
const LOOKED_AT_BYTES_MAX: usize = 16 << 10;

const LIBRARY: &str = concat!("tailwater ", env!("CARGO_PKG_VERSION"));

/// Most bytes of an answer that are read: enough for the sentence that explains a refusal.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Body of `POST /apps/ID/events`.
#[derive(Serialize)]
struct EventsBody<'a> {
    name: &'a str,
    channels: &'a [String],
    data: &'a str,
}

/// Body of `POST /apps/ID/batch_events`.
#[derive(Serialize)]
struct BatchBody<'a> {
    batch: Vec<BatchEntry<'a>>,
}

#[derive(Serialize)]
struct BatchEntry<'a> {
    name: &'a str,
    channel: &'a str,
    data: &'a str,
}

/// The app's end of the API.
pub(crate) struct Api {
    client: Client,
    signer: Signer,
    secret: Secret,
    /// Scheme, host and port.
    origin: String,
    events_path: String,
    batch_path: String,
}

/// A request, and what of it must not be shown.
struct Prepared {
    request: Request<Bytes>,
    signature: String,
}

impl Api {
    /// Of options that were checked. Connects nothing.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            client: Client::new(ClientSettings { answer_bytes_max: ANSWER_BYTES_MAX, ..ClientSettings::default() }),
            signer: Signer::new(&options.key, &options.secret.0),
            secret: options.secret.clone(),
            origin: options.origin(),
            events_path: format!("/apps/{}/events", options.app_id),
            batch_path: format!("/apps/{}/batch_events", options.app_id),
        }
    }

    /// Scheme, host and port of the server.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Sends the entries of one request, signed with the time of now. Gives the status, too, where there was an answer.
    pub(crate) async fn send(&self, entries: &[Entry<'_>], deadline: Duration) -> (Outcome, Option<u16>) {
        let Prepared { request, signature } = self.prepare(entries, SystemTime::now());
        let answered = self.client.send(request, deadline).await;
        self.read(answered, &signature)
    }

    /// Every attempt is prepared anew: a signature is good for 600 seconds.
    fn prepare(&self, entries: &[Entry<'_>], now: SystemTime) -> Prepared {
        let (path, body) = match entries {
            [Entry { name, channels, data, .. }] => {
                (&self.events_path, serde_json::to_vec(&EventsBody { name, channels, data }))
            }
            several => {
                let batch = several.iter().map(|entry| {
                    let channel = entry.channels.first().map_or("", String::as_str);
                    BatchEntry { name: &entry.name, channel, data: entry.data }
                });
                (&self.batch_path, serde_json::to_vec(&BatchBody { batch: batch.collect() }))
            }
        };
        let body = body.expect("text becomes JSON");
        let signed = self.signer.sign(path, &body, now);
        let request = Request::post(format!("{}{path}?{}", self.origin, signed.query))
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-pusher-library", LIBRARY)
            .body(Bytes::from(body))
            .expect("the options were checked to be parts of a URL");
        Prepared { request, signature: signed.signature }
    }

    fn read(&self, answered: Result<Answer, HttpError>, signature: &str) -> (Outcome, Option<u16>) {
        match answered {
            Ok(answer) => {
                let status = answer.status.as_u16();
                // A server may repeat what it was sent, to explain why the signature is wrong. Before the text is cut, or a half of it
                // would show.
                let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(LOOKED_AT_BYTES_MAX)]);
                let body = body.replace(signature, "***").replace(&self.secret.0, "***");
                let text = Answer { body: body.into(), ..answer.clone() }.text();
                (answer::read(status, answer.retry_after(SystemTime::now()), &text), Some(status))
            }
            Err(error) => (Outcome::Retry { reason: format!("send to {}: {error}", self.origin) }, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;

    const TIME: Duration = Duration::from_secs(1_353_088_179);

    fn api() -> Api {
        let options = json!({
            "app_id": "3", "key": "278d425bdf160c739803", "secret": "7ad3773142a6692b25b8", "cluster": "eu", "channels": ["a"],
        });
        Api::new(&serde_json::from_value(options).expect("options"))
    }

    fn entry(channels: &[&str], name: &str, data: &'static str) -> Entry<'static> {
        let channels = channels.iter().map(|channel| (*channel).to_owned()).collect();
        Entry { index: 0, key: 1, channels, name: name.to_owned(), data }
    }

    #[test]
    fn the_example_of_the_reference_is_sent_as_printed_there() {
        let entries = [entry(&["project-3"], "foo", r#"{"some":"data"}"#)];
        let prepared = api().prepare(&entries, UNIX_EPOCH + TIME);
        assert_eq!(
            prepared.request.uri().to_string(),
            "https://api-eu.pusher.com/apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        assert_eq!(prepared.request.body(), body.as_bytes());
        assert_eq!(prepared.request.headers()["content-type"], "application/json");
        assert_eq!(prepared.request.headers()["x-pusher-library"], LIBRARY);
    }

    #[test]
    fn one_event_goes_to_events_and_several_go_to_batch_events() {
        let one = [entry(&["a", "b"], "insert", "{}")];
        let two = [entry(&["a"], "insert", "{\"n\":1}"), entry(&["b"], "update", "{\"n\":2}")];
        for (entries, path, expected) in [
            (&one[..], "/apps/3/events", json!({ "name": "insert", "channels": ["a", "b"], "data": "{}" })),
            (
                &two[..],
                "/apps/3/batch_events",
                json!({ "batch": [
                    { "name": "insert", "channel": "a", "data": "{\"n\":1}" },
                    { "name": "update", "channel": "b", "data": "{\"n\":2}" },
                ] }),
            ),
        ] {
            let request = api().prepare(entries, UNIX_EPOCH + TIME).request;
            assert_eq!(request.uri().path(), path);
            assert_eq!(serde_json::from_slice::<Value>(request.body()).expect("JSON"), expected);
        }
    }

    #[test]
    fn each_attempt_is_signed_with_its_own_time() {
        let (api, entries) = (api(), [entry(&["a"], "insert", "{}")]);
        let first = api.prepare(&entries, UNIX_EPOCH + TIME);
        let second = api.prepare(&entries, UNIX_EPOCH + TIME + Duration::from_secs(601));
        assert_eq!(first.request.body(), second.request.body());
        assert_ne!(first.signature, second.signature);
        assert!(second.request.uri().query().expect("a query").contains("auth_timestamp=1353088780&"));
    }
}
