//! A receiver of webhooks that falls ill on request and remembers every request: of which run of the daemon, for which event, and
//! what it answered.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::facts::Facts;
use super::plan::Plan;
use crate::http::{Answer, Call, Server, lock};

/// How the receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Nobody listens, open connections are cut, in the middle of an exchange too.
    Refuse,
    /// 503 with `Retry-After: 1`.
    Busy,
    /// 429 with `Retry-After: 0`.
    Limit,
    /// 500.
    Broken,
    /// No answer until it is well.
    Hang,
    /// It has the event, and the connection is closed before the answer.
    Cut,
}

/// All but [`Mood::Well`].
pub const OUTAGES: [Mood; 6] = [Mood::Refuse, Mood::Busy, Mood::Limit, Mood::Broken, Mood::Hang, Mood::Cut];

/// What a request was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// 204.
    Taken,
    /// 422.
    Rejected,
    /// To come again, or nothing.
    Later,
}

/// One request, or one line of a file.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Which run of a daemon it came from.
    pub run: usize,
    /// The event.
    pub id: Arc<str>,
    /// When it had come; a line of a file does not say it.
    pub at: Option<Instant>,
    pub told: Told,
}

/// All that has arrived at one output, in order.
#[derive(Clone, Default)]
pub struct Record {
    pub arrivals: Vec<Arrival>,
    /// What the events were, by id.
    pub facts: HashMap<Arc<str>, Facts>,
    /// What was wrong with a single request.
    pub violations: Vec<String>,
}

impl Record {
    /// Adds an event as it was delivered; gives back its facts, and notes what is wrong with it.
    pub fn read(&mut self, body: &[u8]) -> Option<(Arc<str>, Facts)> {
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        let (Some(id), Some(facts)) = (event["id"].as_str().map(Arc::from), Facts::of_json(&event)) else {
            self.violations.push(format!("no event: {}", String::from_utf8_lossy(body)));
            return None;
        };
        let known = self.facts.entry(Arc::clone(&id)).or_insert_with(|| facts.clone());
        if *known != facts {
            self.violations.push(format!("{id} was {known:?} and is {facts:?}"));
        }
        Some((id, facts))
    }
}

struct Shared {
    rejects: bool,
    mood: Mutex<Mood>,
    changed: Condvar,
    record: Mutex<Record>,
}

/// A receiver on a free port. Ends when it is dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    server: Mutex<Server>,
}

impl Receiver {
    pub fn start(plan: &Plan) -> Receiver {
        let shared = Arc::new(Shared {
            rejects: plan.rejects,
            mood: Mutex::new(Mood::Well),
            changed: Condvar::new(),
            record: Mutex::default(),
        });
        let taking = Arc::clone(&shared);
        Receiver { shared, server: Mutex::new(Server::start(move |call| taking.take(&call))) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", lock(&self.server).port())
    }

    /// Falls ill.
    pub fn fall(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
        if mood == Mood::Refuse {
            lock(&self.server).stop();
        }
    }

    /// Is well again.
    pub fn heal(&self) {
        let before = std::mem::replace(&mut *lock(&self.shared.mood), Mood::Well);
        self.shared.changed.notify_all();
        if before == Mood::Refuse {
            lock(&self.server).start_again();
        }
    }

    /// A copy of what has arrived so far.
    pub fn record(&self) -> Record {
        lock(&self.shared.record).clone()
    }

    /// Whether the newest requests tell of this event.
    pub fn has(&self, wanted: impl Fn(&Facts) -> bool) -> bool {
        lock(&self.shared.record).facts.values().any(wanted)
    }

    /// The run that the newest request came from.
    pub fn newest(&self) -> Option<(Instant, usize)> {
        let record = lock(&self.shared.record);
        record.arrivals.last().and_then(|arrival| Some((arrival.at?, arrival.run)))
    }
}

impl Shared {
    fn take(&self, call: &Call) -> Answer {
        let answer = |status| Answer { status, headers: Vec::new(), body: String::new(), cut: false };
        let after =
            |status, seconds: &str| Answer { headers: vec![("retry-after", seconds.to_owned())], ..answer(status) };
        let mood = *lock(&self.mood);
        let mut told = match mood {
            Mood::Well => Told::Taken,
            _ => Told::Later,
        };
        {
            let mut record = lock(&self.record);
            let run = call.headers.get("x-run").and_then(|run| run.parse().ok());
            let (Some(run), Some((id, facts))) = (run, record.read(&call.body)) else {
                record.violations.push(format!("a request of no run: {:?}", call.headers));
                return answer(400);
            };
            if call.headers.get("webhook-id").map(String::as_str) != Some(&*id) {
                record.violations.push(format!("webhook-id of {id}: {:?}", call.headers));
            }
            if told == Told::Taken && self.rejects && facts.is_rejected() {
                told = Told::Rejected;
            }
            record.arrivals.push(Arrival { run, id, at: Some(Instant::now()), told });
        }
        match (mood, told) {
            (_, Told::Taken) => answer(204),
            (_, Told::Rejected) => answer(422),
            (Mood::Busy, _) => after(503, "1"),
            (Mood::Limit, _) => after(429, "0"),
            (Mood::Broken, _) => answer(500),
            (Mood::Hang, _) => {
                let well = self.changed.wait_while(lock(&self.mood), |mood| *mood == Mood::Hang);
                drop(well);
                answer(500)
            }
            _ => Answer { cut: true, ..answer(500) },
        }
    }
}
