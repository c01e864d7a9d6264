//! What one seed decides from the start: the output's config, and the events there are.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bson::{Document, RawDocumentBuf, doc};
use rand::RngExt;
use rand::rngs::StdRng;
use tailwater_match::Matcher;

use crate::config::Config as File;
use crate::event::fixture::{self, token_data};
use crate::event::{Event, projection};
use crate::lane::config::{Backlog, Config, Keep, OnReject, Ordering, RateLimit};

/// What makes an event: its second, its document, whether it is large, whether it is only a stub.
type Wanted = (u32, Option<i32>, bool, bool);

thread_local! {
    static DEFAULTS: Config = {
        let text = "[source]\nuri = \"mongodb://h/?replicaSet=r\"\nwatch = [\"*\"]\n[outputs.one]\nplugin = \"stdout\"\n";
        let mut file = File::parse(text, "config.toml", &|_| None, SystemTime::UNIX_EPOCH).expect("a config");
        file.outputs.remove(0)
    };
    static EVENTS: RefCell<HashMap<Wanted, Arc<Event>>> = RefCell::default();
}

/// An output with everything at its default.
pub fn defaults() -> Config {
    DEFAULTS.with(Config::clone)
}

/// An output with bounds so narrow that each of them is met.
pub fn narrow(random: &mut StdRng) -> Config {
    let mut config = defaults();
    config.ordering = [Ordering::Key, Ordering::Key, Ordering::Strict, Ordering::None][random.random_range(0..4)];
    config.concurrency = random.random_range(1..5);
    config.batch.events_max = Some(random.random_range(1..6));
    config.batch.bytes_max = random.random_range(300..1500);
    config.batch.linger = Duration::from_millis([0, 0, 0, 20][random.random_range(0..4)]);
    config.timeout = Duration::from_millis(500);
    config.ahead_max = random.random_range(6..40);
    config.in_flight_bytes_max = random.random_range(3_000..20_000);
    config.retry.backoff_min = Duration::from_millis(5);
    config.retry.backoff_max = Duration::from_millis(60);
    config.retry.give_up_after = random.random_bool(0.5).then(|| Duration::from_millis(random.random_range(30..200)));
    config.rate_limit = random
        .random_bool(0.4)
        .then(|| RateLimit { per_second: random.random_range(20..400), burst: random.random_range(1..10) });
    // Decided on the whole event, charged for what is left of it.
    if random.random_bool(0.3) {
        config.project = Some(Arc::new(projection::fixture("exclude = [\"fullDocument.padding\", \"documentKey\"]")));
    }
    let latest = config.ordering == Ordering::Key && random.random_bool(0.5);
    config.backlog = Backlog {
        keep: if latest { Keep::LatestPerKey } else { Keep::All },
        max_age: random.random_bool(0.3).then(|| Duration::from_secs(random.random_range(5..40))),
    };
    config.on_reject =
        [OnReject::DeadLetter, OnReject::DeadLetter, OnReject::Skip, OnReject::Stop][random.random_range(0..4)];
    config
}

/// A `match`, and the same in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    All,
    SomeDocuments,
    /// Cannot be decided on a stub.
    WithPadding,
    /// Decided by the head: the window passes over the others.
    Orders,
}

impl Match {
    pub const EACH: [Match; 4] = [Match::All, Match::SomeDocuments, Match::WithPadding, Match::Orders];

    pub fn query(self) -> Option<Document> {
        match self {
            Match::All => None,
            Match::SomeDocuments => Some(doc! { "documentKey._id": { "$in": [0, 1, 2] } }),
            Match::WithPadding => Some(doc! { "fullDocument.padding": { "$exists": true } }),
            Match::Orders => Some(doc! { "ns.coll": "orders" }),
        }
    }

    pub fn matcher(self) -> Option<Matcher> {
        self.query().map(|query| Matcher::compile(&query).expect("a query"))
    }

    pub fn wants(self, event: &Event) -> bool {
        let id = id(event);
        match self {
            Match::All => true,
            Match::SomeDocuments => id.is_some_and(|id| id < 3),
            Match::WithPadding => id.is_some() || event.poison().is_some(),
            Match::Orders => event.coll() == "orders",
        }
    }
}

/// The document of an event; `None` for a drop.
pub fn id(event: &Event) -> Option<i32> {
    event.document_key().and_then(|key| key.get_i32("_id").ok())
}

/// The event of this second; the same for all seeds that ask for it, because they are expensive to make.
pub fn event(second: u32, id: Option<i32>, large: bool, poison: bool) -> Arc<Event> {
    let made = || {
        let data = token_data(second, 1, 0);
        let collection = if id.is_some_and(|id| id % 2 == 1) { "carts" } else { "orders" };
        if !poison {
            return fixture::event_in(collection, &data, id, if large { 400 } else { 0 });
        }
        let mut stub =
            doc! { "_id": { "_data": data }, "operationType": "update", "ns": { "db": "shop", "coll": collection } };
        if let Some(id) = id {
            stub.insert("documentKey", doc! { "_id": id });
        }
        let raw = RawDocumentBuf::try_from(&stub).expect("can be encoded");
        Arc::new(Event::from_poison(&raw, "too large".to_owned()).expect("a stub"))
    };
    EVENTS.with_borrow_mut(|events| Arc::clone(events.entry((second, id, large, poison)).or_insert_with(made)))
}

/// Where the event stands among all: there is one in each second.
pub fn index(event: &Event) -> usize {
    event.token().position().time.seconds() as usize - 1
}
