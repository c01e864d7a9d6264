//! A strict receiver for tests: takes what Pusher's HTTP API takes, over real TCP, remembers it, and notes every broken rule.
//!
//! It depends on std, `serde_json`, `md-5` and `sha2` only; a test includes it and `http.rs` by `#[path]`. Besides the rules of
//! one request it checks that no two requests are open at once on one channel: open is from the last byte of the request to the
//! moment before the first byte of its answer.
#![allow(dead_code)] // each test uses the part it needs

#[path = "pusher_rules.rs"]
pub mod rules;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::http::{self, Answer, PATIENCE, Server, Watched, lock};
pub use rules::{App, Call, Checked, Entry, Refusal};

/// The answer to a request that keeps the rules.
#[derive(Debug, Clone)]
pub struct Reply {
    answer: Answer,
    /// Entries that the subscribers get although the status is not 2xx.
    sent_on: usize,
}

impl Reply {
    /// Pusher's own answer to what it takes.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// Takes nothing, unless `status` is 2xx.
    pub fn status(status: u16) -> Self {
        Self { answer: Answer { status, headers: Vec::new(), body: "{}".to_owned(), cut: false }, sent_on: 0 }
    }

    /// Takes everything and closes the connection instead of saying so.
    pub fn cut() -> Self {
        let mut reply = Self::ok();
        reply.answer.cut = true;
        reply
    }

    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.answer.headers.push((name, value.to_string()));
        self
    }

    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.answer.body = body.into();
        self
    }

    /// Takes the first `count` entries before it refuses.
    pub fn after_sending_on(mut self, count: usize) -> Self {
        self.sent_on = count;
        self
    }
}

/// A request that kept the rules.
#[derive(Debug, Clone)]
pub struct Request {
    /// 0 for the first one.
    pub number: usize,
    /// Path, time, signature and entries.
    pub checked: Checked,
    /// When its last byte had come.
    pub arrived: Instant,
}

/// An entry that the subscribers of its channel get.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub entry: Entry,
    /// Number of its request.
    pub request: usize,
    /// When the request's last byte had come.
    pub arrived: Instant,
}

/// All that has happened.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub requests: Vec<Request>,
    pub accepted: Vec<Accepted>,
    /// Numbers of the requests that were accepted without an answer.
    pub cut: HashSet<usize>,
    /// Broken rules. A test ends with a look that there are none.
    pub violations: Vec<String>,
    /// Requests that wait for their answer.
    pub open: usize,
    /// Most requests that were ever open at once.
    pub open_max: usize,
    open_channels: HashMap<String, usize>,
}

impl Record {
    /// Data of the entries accepted on a channel, in order.
    pub fn data_on(&self, channel: &str) -> Vec<&str> {
        self.accepted.iter().filter(|taken| taken.entry.channel == channel).map(|taken| &taken.entry.data[..]).collect()
    }
}

type Answering = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

struct Shared {
    app: App,
    answering: Mutex<Answering>,
    record: Watched<Record>,
}

/// A server for one app on a free port of 127.0.0.1. Ends when it is dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    server: Server,
}

impl Receiver {
    /// Listens, and takes everything that keeps the rules.
    pub fn start(app: App) -> Self {
        let shared =
            Arc::new(Shared { app, answering: Mutex::new(Arc::new(|_| Reply::ok())), record: Watched::default() });
        let taking = shared.clone();
        let server = Server::start(move |call| taking.take(&call).answer);
        Self { shared, server }
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Asked for every request that keeps the rules, on the thread of its connection: it may wait, which keeps the request open.
    pub fn answer_with(&self, answering: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
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
            let (requests, accepted) = (record.requests.len(), record.accepted.len());
            let violations = &record.violations;
            format!("{requests} requests, {accepted} entries, {} open, violations {violations:?}", record.open)
        })
    }

    /// An outage: nobody listens, and open connections are cut. What was accepted stays in the record.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// The end of the outage: listens on the same port.
    pub fn start_again(&mut self) {
        self.server.start_again();
    }
}

impl Shared {
    fn take(&self, call: &Call) -> Reply {
        let arrived = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        let request = match rules::check(&self.app, call, now) {
            Ok(checked) => self.open(checked, arrived),
            Err(refusal) => return self.refuse(refusal, arrived),
        };
        let answering = lock(&self.answering).clone();
        let reply = answering(&request);
        let taken =
            if (200..300).contains(&reply.answer.status) { request.checked.entries.len() } else { reply.sent_on };
        self.close(&request, taken, reply.answer.cut);
        reply
    }

    fn open(&self, checked: Checked, arrived: Instant) -> Request {
        self.record.change(|record| {
            let request = Request { number: record.requests.len(), checked, arrived };
            for channel in request.channels() {
                if let Some(other) = record.open_channels.insert(channel.to_owned(), request.number) {
                    let text = format!("requests {other} and {} are open at once on {channel}", request.number);
                    record.violations.push(text);
                }
            }
            record.open += 1;
            record.open_max = record.open_max.max(record.open);
            record.requests.push(request.clone());
            request
        })
    }

    fn close(&self, request: &Request, taken: usize, cut: bool) {
        self.record.change(|record| {
            if cut {
                record.cut.insert(request.number);
            }
            for channel in request.channels() {
                if record.open_channels.get(channel) == Some(&request.number) {
                    record.open_channels.remove(channel);
                }
            }
            record.open -= 1;
            let accepted = request.checked.entries.iter().take(taken);
            let accept =
                |entry: &Entry| Accepted { entry: entry.clone(), request: request.number, arrived: request.arrived };
            record.accepted.extend(accepted.map(accept));
        });
    }

    fn refuse(&self, refusal: Refusal, arrived: Instant) -> Reply {
        self.record.change(|record| {
            let request = record.requests.len();
            record.accepted.extend(refusal.sent_on.into_iter().map(|entry| Accepted { entry, request, arrived }));
            record.violations.push(format!("{}: {}", refusal.status, refusal.text));
        });
        Reply::status(refusal.status).body(refusal.text)
    }
}

impl Request {
    /// Each channel once.
    fn channels(&self) -> Vec<&str> {
        let mut channels: Vec<_> = self.checked.entries.iter().map(|entry| &entry.channel[..]).collect();
        channels.sort_unstable();
        channels.dedup();
        channels
    }
}
