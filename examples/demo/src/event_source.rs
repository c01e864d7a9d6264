//! Server-sent events, read as a browser reads them: after a lost connection it comes again, with the id of the last event.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::http;
use crate::ledger::{Ledger, Output};

/// Before it comes again.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);
const EVENT_BYTES_MAX: usize = 32 << 20;

/// How often it was connected. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// So often so far.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reads for ever and enters every event into the ledger.
pub async fn follow(address: SocketAddr, path: String, ledger: Arc<Ledger>, connections: Connections) -> Result<()> {
    let mut last_event_id = String::new();
    loop {
        // Whatever ended it, the answer is to come again; what was missed then comes first.
        let _ = read(address, &path, &mut last_event_id, &ledger, &connections).await;
        sleep(RECONNECT_AFTER).await;
    }
}

async fn read(
    address: SocketAddr,
    path: &str,
    last_event_id: &mut String,
    ledger: &Ledger,
    connections: &Connections,
) -> Result<()> {
    let mut headers = vec!["Accept: text/event-stream".to_owned(), "Cache-Control: no-cache".to_owned()];
    if !last_event_id.is_empty() {
        headers.push(format!("Last-Event-ID: {last_event_id}"));
    }
    let mut answer = http::get(address, path, &headers).await?;
    ensure!(answer.status == 200, "the answer is {}", answer.status);
    connections.0.fetch_add(1, Ordering::Relaxed);
    let mut frames = Frames { last_event_id: std::mem::take(last_event_id), ..Frames::default() };
    let ended = loop {
        match answer.read().await {
            Ok(Some(bytes)) => {
                for text in frames.push(&bytes) {
                    let event = serde_json::from_str(&text).context("an event that is not JSON")?;
                    ledger.receive(Output::Live, &event);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    *last_event_id = frames.last_event_id;
    ended
}

/// Takes events out of a stream of bytes (HTML standard, section 9.2.6), as far as this demo meets them: `event` and `retry` are
/// left out, lines end with LF or CR LF.
#[derive(Default)]
struct Frames {
    line: Vec<u8>,
    text: String,
    id: Option<String>,
    named: bool,
    last_event_id: String,
}

impl Frames {
    /// The `data` of every event without a name that ended within these bytes.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                // A line this long is no event of ours; what is kept of it stays bounded.
                self.line.truncate(EVENT_BYTES_MAX);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
            if line.is_empty() {
                events.extend(self.end());
            } else {
                self.field(&line);
            }
        }
        events
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                self.text.push_str(value);
                self.text.push('\n');
            }
            "id" => self.id = Some(value.to_owned()),
            "event" => self.named = value != "message",
            _ => {}
        }
    }

    fn end(&mut self) -> Option<String> {
        if let Some(id) = self.id.take() {
            self.last_event_id = id;
        }
        let named = std::mem::take(&mut self.named);
        let mut text = std::mem::take(&mut self.text);
        text.pop()?;
        (!named).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_wherever_the_bytes_are_cut() {
        let bytes = b": hello\n\nid: a1\ndata: {\"n\":1}\n\nretry: 5\n\nid: a2\r\ndata: 2\r\ndata:3\r\n\r\nevent: reset\ndata: x\nid: a3\n\n";
        for cut in 0..bytes.len() {
            let mut frames = Frames::default();
            let mut events = frames.push(&bytes[..cut]);
            events.extend(frames.push(&bytes[cut..]));
            assert_eq!(events, ["{\"n\":1}", "2\n3"], "cut at {cut}");
            assert_eq!(frames.last_event_id, "a3");
        }
    }

    #[test]
    fn an_event_that_has_not_ended_does_not_count() {
        let mut frames = Frames::default();
        assert!(frames.push(b"id: a1\ndata: 1\n").is_empty());
        assert_eq!(frames.last_event_id, "", "a reconnect asks for it again");
    }
}
