//! `[outputs.NAME]`: one output, without what its plugin alone understands.

use std::sync::Arc;
use std::time::Duration;

use bson::Document;

use crate::config::document::{document, json};
use crate::config::error::ConfigError;
use crate::config::section::Section;
use crate::event::projection::{self, Projection};
use crate::event::{Envelope, JsonForm, Shape};

/// The keys of `[outputs.NAME]`.
pub const KEYS: &[&str] = &[
    "plugin",
    "match",
    "ordering",
    "concurrency",
    "batch",
    "timeout",
    "ahead_max",
    "in_flight_bytes_max",
    "json",
    "envelope",
    "project",
    "retry",
    "rate_limit",
    "backlog",
    "on_reject",
    "history_lost",
    "enabled",
    "options",
];

/// The keys of `batch`.
pub const BATCH_KEYS: &[&str] = &["events_max", "bytes_max", "linger"];

/// The keys of `retry`.
pub const RETRY_KEYS: &[&str] = &["backoff_min", "backoff_max", "give_up_after"];

/// The keys of `rate_limit`.
pub const RATE_LIMIT_KEYS: &[&str] = &["per_second", "burst"];

/// The keys of `backlog`.
pub const BACKLOG_KEYS: &[&str] = &["keep", "max_age"];

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Its identity in checkpoints, metrics and logs.
    pub name: String,
    /// Which plugin: `"sse"` is the library `libtailwater_sse.so`.
    pub plugin: String,
    /// A MongoDB query on the event; `None` takes every event. Not compiled yet.
    pub query: Option<Document>,
    /// What stays in order. Default by key; a broadcast output is always strict.
    pub ordering: Ordering,
    /// Batches in flight at once. 1 to 1024, default 16; strict order has one.
    pub concurrency: u32,
    /// How events are put together.
    pub batch: Batch,
    /// A batch not completed in this time costs the plugin instance. 10 ms to 1 h, default 60 s.
    pub timeout: Duration,
    /// How many events a lane may be past its last durable checkpoint. 1 to 10,000,000, default 10,000.
    pub ahead_max: u64,
    /// How many bytes of events may be in flight. 64 KiB to 16 GiB, default 16 MiB.
    pub in_flight_bytes_max: u64,
    /// How events look as JSON. Default relaxed.
    pub json: JsonForm,
    /// What is put around that. Default nothing.
    pub envelope: Envelope,
    /// The deployment's name, for envelopes.
    pub deployment: String,
    /// What of each event the output is given; `None` is all of it.
    pub project: Option<Arc<Projection>>,
    /// How long to wait before delivering again, and when to give up.
    pub retry: Retry,
    /// At most this many events; `None` is no limit.
    pub rate_limit: Option<RateLimit>,
    /// What need not be delivered any more.
    pub backlog: Backlog,
    /// What happens to an event the plugin rejects, that is given up or cannot be delivered. Default dead letter.
    pub on_reject: OnReject,
    /// What happens when MongoDB no longer has the history that this output needs. Default stop.
    pub history_lost: HistoryLost,
    /// A disabled output is checked, but not started; its checkpoint stays. Default true.
    pub enabled: bool,
    /// The plugin's own keys, references replaced; checked against the schema the plugin carries.
    pub options: serde_json::Value,
}

/// What stays in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// Events of one document; events without a document are a barrier.
    Key,
    /// Everything: one batch at a time.
    Strict,
    /// Nothing.
    None,
}

/// What happens to a rejected event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReject {
    /// The event is settled once it is in the dead letters.
    DeadLetter,
    /// The output stops until an operator acts.
    Stop,
    /// The event is counted and settled.
    Skip,
}

/// What happens when history is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryLost {
    /// The output stops until an operator acts.
    Stop,
    /// It goes on at the oldest point there is; the gap is recorded.
    Resume,
}

/// What an output that is behind need not deliver any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Default all.
    pub keep: Keep,
    /// An event this much older than the newest known cluster time is skipped if it was never handed out; `None` for `"off"`,
    /// the default. 1 s to 365 d.
    pub max_age: Option<Duration>,
}

/// Which events of a document are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Each.
    All,
    /// The newest of those that wait; needs full documents and order by key.
    LatestPerKey,
}

/// How events are put together for one delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Events in one batch, 1 to 100,000; `None` leaves it to the plugin.
    pub events_max: Option<u32>,
    /// Bytes in one batch, except that one event always fits. 1 KiB to 1 GiB, default 1 MiB.
    pub bytes_max: u64,
    /// How long a batch that is not full waits for more. Up to 1 min, default 0.
    pub linger: Duration,
}

/// The waits between deliveries of one event, doubled each time, with jitter; and their end.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// The first wait. 1 ms to 1 h, default 200 ms.
    pub backoff_min: Duration,
    /// The longest wait. Up to 1 d, default 1 min.
    pub backoff_max: Duration,
    /// An event that asks for another try this long after it was first handed out is rejected; `None` for `"off"`. 1 s to
    /// 365 d, default 24 h.
    pub give_up_after: Option<Duration>,
}

/// A token bucket over events.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Events per second over time. 1 to 10,000,000.
    pub per_second: u32,
    /// Events at once after a pause; default `per_second`.
    pub burst: u32,
}

impl Config {
    /// Reads one output's table. `deployment` is the file's `name`.
    ///
    /// # Errors
    /// A wrong or missing value, or two that contradict each other.
    pub fn read(deployment: &str, name: &str, section: &Section<'_>) -> Result<Config, ConfigError> {
        let (key, ms, minute) = ("timeout", Duration::from_millis, Duration::from_secs(60));
        let orders = [("key", Ordering::Key), ("strict", Ordering::Strict), ("none", Ordering::None)];
        let forms = [("relaxed", JsonForm::Relaxed), ("canonical", JsonForm::Canonical), ("plain", JsonForm::Plain)];
        let envelopes = Envelope::ALL.map(|envelope| (envelope.word(), envelope));
        let rejects = [("dead_letter", OnReject::DeadLetter), ("skip", OnReject::Skip), ("stop", OnReject::Stop)];
        let losses = [("stop", HistoryLost::Stop), ("resume", HistoryLost::Resume)];
        let config = Config {
            name: name.to_owned(),
            plugin: section.require("plugin", "\"stdout\"")?.name()?,
            query: section.get("match").map(|entry| document(&entry)).transpose()?,
            ordering: section.choice("ordering", &orders, Ordering::Key)?,
            concurrency: section.integer("concurrency", 1..=1024, 16)? as u32,
            batch: Batch::read(&section.section("batch", BATCH_KEYS)?)?,
            timeout: section.duration(key, ms(10)..=minute * 60, minute)?,
            ahead_max: section.integer("ahead_max", 1..=10_000_000, 10_000)?,
            in_flight_bytes_max: section.bytes("in_flight_bytes_max", 64 << 10..=16 << 30, 16 << 20)?,
            json: section.choice("json", &forms, JsonForm::Relaxed)?,
            envelope: section.choice("envelope", &envelopes, Envelope::None)?,
            deployment: deployment.to_owned(),
            project: match section.get("project") {
                Some(entry) => Some(Arc::new(Projection::read(&entry.section(projection::config::KEYS)?)?)),
                None => None,
            },
            retry: Retry::read(&section.section("retry", RETRY_KEYS)?)?,
            rate_limit: section
                .get("rate_limit")
                .map(|entry| RateLimit::read(&entry.section(RATE_LIMIT_KEYS)?))
                .transpose()?,
            backlog: Backlog::read(&section.section("backlog", BACKLOG_KEYS)?)?,
            on_reject: section.choice("on_reject", &rejects, OnReject::DeadLetter)?,
            history_lost: section.choice("history_lost", &losses, HistoryLost::Stop)?,
            enabled: section.boolean("enabled", true)?,
            options: match section.get("options") {
                Some(entry) => entry.free_section().and_then(|_| json(&entry))?,
                None => serde_json::json!({}),
            },
        };
        config.cross_check(section)?;
        Ok(config)
    }

    /// How it wants its JSON.
    pub fn shape(&self) -> Shape {
        Shape { form: self.json, envelope: self.envelope }
    }

    /// The key, with its value, without effect unless update events carry the whole document; if there is one.
    pub fn needs_full_documents(&self) -> Option<&'static str> {
        (self.backlog.keep == Keep::LatestPerKey).then_some("backlog.keep = \"latest_per_key\"")
    }

    fn cross_check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        if self.batch.linger >= self.timeout {
            return Err(section.error("batch.linger is not shorter than timeout, shorten it or lengthen timeout"));
        }
        if self.batch.bytes_max > self.in_flight_bytes_max {
            return Err(section.error("batch.bytes_max is more than in_flight_bytes_max, write less or raise that"));
        }
        if self.batch.events_max.is_some_and(|events| u64::from(events) > self.ahead_max) {
            return Err(section.error("batch.events_max is more than ahead_max, write less or raise that"));
        }
        if self.ordering == Ordering::Strict && section.get("concurrency").is_some() && self.concurrency > 1 {
            return Err(section.error("ordering = \"strict\" has one batch in flight, remove concurrency"));
        }
        if self.backlog.keep == Keep::LatestPerKey && self.ordering != Ordering::Key {
            return Err(section.error(
                "backlog.keep = \"latest_per_key\" leaves out events of a document, which needs ordering = \"key\", \
                 write that or keep = \"all\"",
            ));
        }
        Ok(())
    }
}

impl Batch {
    fn read(section: &Section<'_>) -> Result<Batch, ConfigError> {
        Ok(Batch {
            events_max: section
                .get("events_max")
                .map(|entry| entry.integer(1..=100_000))
                .transpose()?
                .map(|max| max as u32),
            bytes_max: section.bytes("bytes_max", 1 << 10..=1 << 30, 1 << 20)?,
            linger: section.duration("linger", Duration::ZERO..=Duration::from_secs(60), Duration::ZERO)?,
        })
    }
}

impl Retry {
    fn read(section: &Section<'_>) -> Result<Retry, ConfigError> {
        let (shortest, hour) = (Duration::from_millis(1), Duration::from_secs(3600));
        let backoff_min = section.duration("backoff_min", shortest..=hour, Duration::from_millis(200))?;
        let longest_default = backoff_min.max(Duration::from_secs(60));
        let backoff_max = section.duration("backoff_max", shortest..=hour * 24, longest_default)?;
        if backoff_max < backoff_min {
            return Err(section.error("backoff_max is shorter than backoff_min, write at least as long a time"));
        }
        let give_up_after = read_or_off(section, "give_up_after", Some(hour * 24))?;
        Ok(Retry { backoff_min, backoff_max, give_up_after })
    }
}

impl Backlog {
    fn read(section: &Section<'_>) -> Result<Backlog, ConfigError> {
        let keeps = [("all", Keep::All), ("latest_per_key", Keep::LatestPerKey)];
        Ok(Backlog {
            keep: section.choice("keep", &keeps, Keep::All)?,
            max_age: read_or_off(section, "max_age", None)?,
        })
    }
}

impl RateLimit {
    fn read(section: &Section<'_>) -> Result<RateLimit, ConfigError> {
        let range = 1..=10_000_000;
        let per_second = section.require("per_second", "500")?.integer(range.clone())?;
        let burst = section.integer("burst", range, per_second)?;
        Ok(RateLimit { per_second: per_second as u32, burst: burst as u32 })
    }
}

/// A duration, or `"off"`.
fn read_or_off(section: &Section<'_>, key: &str, default: Option<Duration>) -> Result<Option<Duration>, ConfigError> {
    let range = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);
    section.duration_or_off(key, range, default)
}
