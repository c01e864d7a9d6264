//! A stream of events that is written down, and that counts how it is read. Stands in for change streams where a test is about
//! who waits and who shares.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{Bson, Document, doc};

use crate::event::Event;
use crate::event::fixture::{event, mark_data, token, token_data};
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::stream::Batch;

/// A query of tests: it lets through each event whose number can be divided by `number`.
pub(crate) fn query(number: i32) -> Document {
    doc! { "divided_by": number }
}

/// Whether the query, or a union of such queries, lets the event of this number through.
pub(crate) fn matches(query: &Document, number: usize) -> bool {
    let one = |divisor: &Bson| number.is_multiple_of(divisor.as_i32().expect("a query of tests") as usize);
    match query.get("divided_by").expect("a query of tests") {
        Bson::Document(several) => several.get_array("$in").expect("a union").iter().any(one),
        divisor => one(divisor),
    }
}

/// The event with this number, at that second.
pub(crate) fn numbered(number: usize, padding: usize) -> Arc<Event> {
    event(&token_data(number as u32, 1, 0), Some(number as i32), padding)
}

/// Behind the event with this number and all before it.
pub(crate) fn behind(number: usize) -> Place {
    Place::After(token(&mark_data(number as u32, 2)))
}

/// The number of an event.
pub(crate) fn number(event: &Event) -> usize {
    event.token().position().time.seconds() as usize
}

/// One event in each second, from second 1 on.
pub(crate) struct Script {
    pub log: Vec<Arc<Event>>,
    /// How many of them have happened.
    pub head: AtomicUsize,
    /// In one reply, and how long it takes.
    pub reply: (usize, Duration),
    /// Streams that are opened at an older place have lost history.
    pub oldest: usize,
    /// The first read of a stream at this place never ends.
    pub hangs_at: Option<usize>,
    /// One read of a stream that has come so far fails, and no other.
    pub fails_behind: Mutex<Option<usize>>,
    /// What was opened.
    pub opened: Mutex<Vec<(Place, Option<Document>)>>,
    pub open: AtomicUsize,
    pub open_max: AtomicUsize,
    pub replies: AtomicUsize,
}

impl Script {
    /// So many events, all of them there, 5 in a reply that takes 50 ms.
    pub fn new(events: usize) -> Script {
        Script {
            log: (1..=events).map(|number| numbered(number, 0)).collect(),
            head: AtomicUsize::new(events),
            reply: (5, Duration::from_millis(50)),
            oldest: 0,
            hangs_at: None,
            fails_behind: Mutex::new(None),
            opened: Mutex::default(),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
            replies: AtomicUsize::new(0),
        }
    }

    pub fn open(self: &Arc<Script>, place: Place, filter: Option<Document>) -> ScriptedFeed {
        self.opened.lock().expect("opened").push((place.clone(), filter.clone()));
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.open_max.fetch_max(open, Ordering::SeqCst);
        ScriptedFeed { script: Arc::clone(self), place, filter }
    }

    /// The places and filters of the streams so far.
    pub fn opened(&self) -> Vec<(Place, Option<Document>)> {
        self.opened.lock().expect("opened").clone()
    }
}

/// One reading of the script.
pub(crate) struct ScriptedFeed {
    script: Arc<Script>,
    place: Place,
    filter: Option<Document>,
}

impl ScriptedFeed {
    pub async fn next(&mut self) -> Result<Batch, SourceError> {
        let script = &self.script;
        let (events_max, pace) = script.reply;
        script.replies.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(pace).await;
        let done = self.place.time().seconds() as usize;
        if script.hangs_at == Some(done) {
            std::future::pending::<()>().await;
        }
        if done < script.oldest {
            let (what, place) = ("read the script".to_owned(), self.place.clone());
            return Err(SourceError::HistoryLost { what, place, error: "for the test".to_owned() });
        }
        if script.fails_behind.lock().expect("fails").take_if(|place| done >= *place).is_some() {
            return Err(SourceError::Refused { what: "read the script".to_owned(), reason: "for the test".to_owned() });
        }
        let head = script.head.load(Ordering::SeqCst);
        let wanted = script.log[..head].iter().filter(|event| self.place.is_behind(event)).filter(|event| {
            let number = number(event);
            self.filter.as_ref().is_none_or(|filter| matches(filter, number))
        });
        let events: Vec<_> = wanted.take(events_max).cloned().collect();
        let full = events.len() == events_max;
        let reached = events.last().filter(|_| full).map_or_else(|| behind(head), |last| behind(number(last)));
        if reached.is_covered_since(&self.place) {
            self.place = reached;
        }
        Ok(Batch { events, reached: self.place.clone() })
    }
}

impl Drop for ScriptedFeed {
    fn drop(&mut self) {
        self.script.open.fetch_sub(1, Ordering::SeqCst);
    }
}
