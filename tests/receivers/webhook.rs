//! A strict receiver for tests: takes webhooks over real TCP, checks each as Standard Webhooks wants it, by the published Rust
//! library, and remembers all of them.
#![allow(dead_code)] // each test uses the part it needs

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use super::http::Call;
use super::http::{Answer, PATIENCE, Server, Watched, lock};
use hyper::{HeaderMap, header::HeaderName};
use standardwebhooks::Webhook;

/// Seconds that a signature's time may be off here. The library allows 300, which would not tell a request signed anew from one
/// signed before an outage.
const CLOCK_SECONDS_MAX: u64 = 10;

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// This status.
    Status(u16),
    /// None: the connection is closed. The event was taken all the same.
    Cut,
}

impl Reply {
    /// The receiver has the event.
    pub fn takes(self) -> bool {
        matches!(self, Reply::Cut | Reply::Status(200..=299))
    }
}

/// A request that was signed well.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// `webhook-id`.
    pub id: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// When its last byte had come.
    pub arrived: Instant,
    pub reply: Reply,
}

/// All that has happened.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub arrivals: Vec<Arrival>,
    /// Ids of the events that it has.
    pub taken: HashSet<String>,
    /// Requests that were not as they must be. A test ends with a look that there are none.
    pub violations: Vec<String>,
}

type Answering = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

struct Shared {
    keys: Vec<Webhook>,
    answering: Mutex<Answering>,
    record: Watched<Record>,
}

/// A receiver on a free port of 127.0.0.1. Ends when it is dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    server: Server,
}

impl Receiver {
    /// Takes everything that is signed by each of these secrets.
    pub fn start(secrets: &[&str]) -> Self {
        let shared = Arc::new(Shared {
            keys: secrets.iter().map(|secret| Webhook::new(secret).expect("a secret")).collect(),
            answering: Mutex::new(Arc::new(|_| Reply::Status(204))),
            record: Watched::default(),
        });
        let taking = shared.clone();
        Self { shared, server: Server::start(move |call| taking.take(call)) }
    }

    /// Its address with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.server.port())
    }

    /// Asked for every request that is signed well, on the thread of its connection.
    pub fn answer_with(&self, answering: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.answering) = Arc::new(answering);
    }

    /// A copy of all that has happened.
    pub fn record(&self) -> Record {
        self.shared.record.copy()
    }

    /// A look at all that has happened.
    pub fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        self.shared.record.look(look)
    }

    /// Waits until what has happened is as wanted, and gives a copy of it.
    ///
    /// # Panics
    /// After half a minute, with `what`.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        self.wait_until_within(PATIENCE, what, wanted)
    }

    /// As [`wait_until`](Self::wait_until), with another patience.
    pub fn wait_until_within(&self, patience: Duration, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        self.shared.record.wait_until(patience, what, wanted, |record| {
            format!("{} requests, violations {:?}", record.arrivals.len(), record.violations)
        })
    }

    /// An outage: nobody listens, and open connections are cut.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// The end of the outage: listens on the same port.
    pub fn start_again(&mut self) {
        self.server.start_again();
    }
}

impl Shared {
    fn take(&self, call: Call) -> Answer {
        let arrived = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        let answer = |status| Answer { status, headers: Vec::new(), body: String::new(), cut: false };
        if let Err(violation) = self.check(&call, now) {
            self.record.change(|record| record.violations.push(violation));
            return answer(400);
        }
        let answering = lock(&self.answering).clone();
        let reply = answering(&call);
        let id = call.headers.get("webhook-id").cloned().unwrap_or_default();
        self.record.change(|record| {
            if reply.takes() {
                record.taken.insert(id.clone());
            }
            record.arrivals.push(Arrival { id, headers: call.headers, body: call.body, arrived, reply });
        });
        match reply {
            Reply::Status(status) => answer(status),
            Reply::Cut => Answer { cut: true, ..answer(204) },
        }
    }

    fn check(&self, call: &Call, now: u64) -> Result<(), String> {
        let header = |name: &str| call.headers.get(name).map(String::as_str).unwrap_or_default();
        if call.method != "POST" || header("content-type") != "application/json" || header("webhook-id").is_empty() {
            return Err(format!("{} {}: {:?}", call.method, call.target, call.headers));
        }
        let signatures = header("webhook-signature").split(' ').count();
        if signatures != self.keys.len() {
            return Err(format!("{signatures} signatures by {} secrets", self.keys.len()));
        }
        let timestamp: u64 = header("webhook-timestamp").parse().map_err(|_| "no timestamp".to_owned())?;
        if timestamp.abs_diff(now) > CLOCK_SECONDS_MAX {
            return Err(format!("timestamp {timestamp} at {now}: not signed anew"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &call.headers {
            let value = value.parse().map_err(|_| format!("header {name}: {value:?}"))?;
            headers.insert(name.parse::<HeaderName>().map_err(|_| format!("header {name:?}"))?, value);
        }
        let bad = |error| format!("{error}: {headers:?}");
        self.keys.iter().try_for_each(|key| key.verify(&call.body, &headers)).map_err(bad)
    }
}
