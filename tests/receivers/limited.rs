//! A receiver of webhooks that takes at most so many events in a second, and none while it is shut. Of an event it knows the number
//! of its change only, and when it came.
//!
//! It depends on std and serde only; a test includes it by `#[path]`, with `http` beside it.
#![allow(dead_code)] // each test uses the part it needs

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::http::{Answer, Call, Server, lock};

/// How much of its pace a receiver that had nothing to do for a while may make up for: without it, each moment in which no request
/// is there would be lost, and the pace would be below the one that was asked for.
const BURST: Duration = Duration::from_millis(20);

/// An event that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// `fullDocument.number`.
    pub number: u64,
    /// When its request had come whole.
    pub at: Instant,
}

#[derive(Default)]
struct Record {
    /// In the order in which they came.
    arrivals: Vec<Arrival>,
    /// By number.
    taken: Vec<bool>,
    different: u64,
    /// Requests that were none of ours, the first few.
    violations: Vec<String>,
}

/// A receiver on a free port of 127.0.0.1. Ends when it is dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    server: Server,
}

struct Shared {
    pace: Option<Pace>,
    is_open: AtomicBool,
    record: Mutex<Record>,
}

impl Receiver {
    /// Takes what comes at once, or at most `per_second` events in a second; nothing before [`open`](Self::open).
    pub fn start(per_second: Option<u32>) -> Receiver {
        let pace = per_second.map(Pace::new);
        let shared = Arc::new(Shared { pace, is_open: AtomicBool::new(false), record: Mutex::default() });
        let taking = Arc::clone(&shared);
        Receiver { shared, server: Server::start(move |call| taking.take(&call)) }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.server.port())
    }

    /// From here on it takes events. Before, it answers 503 and asks to come again in a second, as what stands before a receiver
    /// that is down does.
    pub fn open(&self) {
        self.shared.is_open.store(true, Ordering::SeqCst);
    }

    /// How many different events it has taken.
    pub fn taken(&self) -> u64 {
        lock(&self.shared.record).different
    }

    /// Whether it has taken the one with this number.
    pub fn has(&self, number: u64) -> bool {
        lock(&self.shared.record).taken.get(number as usize).is_some_and(|taken| *taken)
    }

    /// All that it has taken, repeated ones too, in the order in which they came.
    pub fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.shared.record).arrivals.clone()
    }

    /// Requests that were none of an output of webhooks.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.record).violations.clone()
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "fullDocument")]
    full_document: Order,
}

#[derive(Deserialize)]
struct Order {
    number: u64,
}

impl Shared {
    fn take(&self, call: &Call) -> Answer {
        let at = Instant::now();
        let answer = |status, headers| Answer { status, headers, body: String::new(), cut: false };
        if !self.is_open.load(Ordering::SeqCst) {
            return answer(503, vec![("retry-after", "1".to_owned())]);
        }
        let number = match serde_json::from_slice::<Body>(&call.body) {
            Ok(body) => body.full_document.number,
            Err(error) => {
                let mut record = lock(&self.record);
                if record.violations.len() < 10 {
                    record.violations.push(format!("{error}: {}", String::from_utf8_lossy(&call.body)));
                }
                return answer(400, Vec::new());
            }
        };
        lock(&self.record).put(Arrival { number, at });
        if let Some(pace) = &self.pace {
            thread::sleep(pace.turn(at).saturating_duration_since(Instant::now()));
        }
        answer(204, Vec::new())
    }
}

impl Record {
    fn put(&mut self, arrival: Arrival) {
        let index = arrival.number as usize;
        if self.taken.len() <= index {
            self.taken.resize(index + 1, false);
        }
        self.different += u64::from(!self.taken[index]);
        self.taken[index] = true;
        self.arrivals.push(arrival);
    }
}

/// A token bucket: one turn for each event.
struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(per_second: u32) -> Pace {
        Pace { interval: Duration::from_secs(1) / per_second, next: Mutex::new(None) }
    }

    /// When the one that came now has its turn.
    fn turn(&self, now: Instant) -> Instant {
        let mut next = lock(&self.next);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let turn = next.map_or(now, |next| next.max(earliest));
        *next = Some(turn + self.interval);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_an_interval_apart_and_little_is_made_up_for() {
        let (pace, start) = (Pace::new(100), Instant::now());
        let ms = |ms| Duration::from_millis(ms);
        for (now, turn) in
            [(0, 0), (0, 10), (0, 20), (5, 30), (45, 40), (1000, 980), (1000, 990), (1000, 1000), (1000, 1010)]
        {
            assert_eq!(pace.turn(start + ms(now)), start + ms(turn), "at {now}");
        }
    }
}
