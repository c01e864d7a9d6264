//! The two readers whose clocks are compared: a bare watcher of the driver, and a client of the `sse` output on a socket of its own.
//! Both take the time as soon as a read has returned, and only then look for the orders' numbers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::RawDocument;
use futures::StreamExt;
use mongodb::Client;
use tokio::sync::oneshot;

use crate::stream;

/// When the orders with these numbers came.
pub struct Arrivals {
    first_number: u64,
    at: Vec<Option<Instant>>,
    missing: usize,
    /// Told when the first one has come.
    first: Option<oneshot::Sender<()>>,
    limit: Duration,
}

impl Arrivals {
    /// None has come. All are to come within `limit`.
    pub fn new(numbers: Range<u64>, first: oneshot::Sender<()>, limit: Duration) -> Arrivals {
        let count = (numbers.end - numbers.start) as usize;
        Arrivals { first_number: numbers.start, at: vec![None; count], missing: count, first: Some(first), limit }
    }

    /// Numbers of other phases do not count.
    fn saw(&mut self, number: u64, now: Instant) {
        let index = number.checked_sub(self.first_number).and_then(|index| usize::try_from(index).ok());
        let Some(slot @ None) = index.and_then(|index| self.at.get_mut(index)) else { return };
        *slot = Some(now);
        self.missing -= 1;
        if let Some(first) = self.first.take() {
            // The writer may have failed; it will say so.
            let _ = first.send(());
        }
    }

    fn whole(self) -> Result<Vec<Instant>> {
        self.at.into_iter().collect::<Option<_>>().context("some events are missing")
    }
}

/// The bare watcher: raw batches, with the daemon's own pipeline and options. Blocks.
pub fn watch(uri: &str, start_seconds: u32, mut arrivals: Arrivals) -> Result<Vec<Instant>> {
    let limit = arrivals.limit;
    let watching = async {
        let client = Client::with_uri_str(uri).await.context("connect to MongoDB")?;
        let database = client.database(stream::DATABASE);
        let cursor = database
            .aggregate(stream::pipeline(start_seconds))
            .batch_size(stream::BATCH_SIZE)
            .max_await_time(Duration::from_millis(stream::AWAIT_MAX_MS))
            .batch();
        let mut cursor = cursor.await.context("open the change stream")?;
        while arrivals.missing > 0 {
            let batch = cursor.next().await.context("the change stream ended")?.context("read the change stream")?;
            let now = Instant::now();
            for event in batch.doc_slices().context("a batch without documents")?.into_iter() {
                let event = event?.as_document().context("an event that is no document")?;
                arrivals.saw(number_of(event)?, now);
            }
        }
        arrivals.whole()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watched = runtime.block_on(async { tokio::time::timeout(limit, watching).await });
    watched.with_context(|| format!("not all events came within {limit:?}"))?
}

fn number_of(event: &RawDocument) -> Result<u64> {
    Ok(u64::try_from(event.get_document("fullDocument")?.get_i64("number")?)?)
}

/// The client: one connection, as a browser's `EventSource` would have it. Blocks.
pub fn listen(address: &str, mut arrivals: Arrivals) -> Result<Vec<Instant>> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(arrivals.limit))?;
    write!(stream, "GET /events HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n")?;
    let mut piece = vec![0; 64 << 10];
    let mut text = Vec::new();
    while arrivals.missing > 0 {
        let length = stream.read(&mut piece).context("read the events")?;
        let now = Instant::now();
        ensure!(length > 0, "the server ended the stream: {}", String::from_utf8_lossy(&text));
        // Keep-alives come, so that a read that ends does not mean that there are events.
        ensure!(begun.elapsed() < arrivals.limit, "{} events have not come", arrivals.missing);
        text.extend_from_slice(&piece[..length]);
        // An event has come when its line has an end. The lines of HTTP's chunks hold no number.
        let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { continue };
        text[..end].split(|byte| *byte == b'\n').filter_map(number_in).for_each(|number| arrivals.saw(number, now));
        text.drain(..=end);
    }
    arrivals.whole()
}

/// The order's number in a line of the stream.
fn number_in(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"number\":";
    let data = line.strip_prefix(b"data: ")?;
    let rest = &data[data.windows(KEY.len()).position(|window| window == KEY)? + KEY.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_data_lines_only() {
        assert_eq!(number_in(br#"data: {"fullDocument":{"number":1204,"status":"open"}}"#), Some(1204));
        for line in ["", "1f3\r", "id: 5", ": \"number\":5", "data: {}", "data: {\"number\":\"x\"}"] {
            assert_eq!(number_in(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn only_numbers_of_the_phase_count_and_each_once() {
        let (first, mut begun) = oneshot::channel();
        let mut arrivals = Arrivals::new(5..7, first, Duration::ZERO);
        let start = Instant::now();
        for (number, ms) in [(4, 1), (7, 1)] {
            arrivals.saw(number, start + Duration::from_millis(ms));
        }
        assert!(begun.try_recv().is_err(), "nothing of the phase has come");
        for (number, ms) in [(6, 2), (6, 3), (5, 4)] {
            arrivals.saw(number, start + Duration::from_millis(ms));
        }
        assert_eq!((begun.try_recv(), arrivals.missing), (Ok(()), 0));
        let at = [4, 2].map(|ms| start + Duration::from_millis(ms));
        assert_eq!(arrivals.whole().expect("whole"), at);
    }
}
