//! What was written, and what each output has received of it. Pure: no IO, no clock.
//!
//! The truth is what the shop wrote and the server acknowledged. A change is known by its order and the version that it made:
//! both are in the event, whichever way it takes.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Where changes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Server-sent events, read by a client of the demo's own, as a browser would.
    Live,
    /// Lines of JSON in a file.
    Lines,
    /// POST requests with a signature.
    Hook,
}

impl Output {
    /// In the order they are shown.
    pub const ALL: [Output; 3] = [Output::Live, Output::Lines, Output::Hook];

    /// Its name in the configuration, and its plugin.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Output::Live => ("live", "sse"),
            Output::Lines => ("lines", "stdout"),
            Output::Hook => ("hook", "webhook"),
        }
    }
}

/// One change of one order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The order's `_id`.
    pub order: String,
    /// What it became.
    pub step: Step,
}

/// What a change made of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A document with this `version`.
    Version(i32),
    /// Nothing: it was deleted.
    Deleted,
}

impl Change {
    /// The change that an event tells of. `None` where it is not one of this shop's, as when somebody else writes, too.
    pub fn of(event: &Value) -> Option<Change> {
        let order = event["documentKey"]["_id"].as_str()?.to_owned();
        let version = match event["operationType"].as_str()? {
            "insert" => &event["fullDocument"]["version"],
            // Not from fullDocument, which is looked up when the event is read and may be newer.
            "update" => &event["updateDescription"]["updatedFields"]["version"],
            "delete" => return Some(Change { order, step: Step::Deleted }),
            _ => return None,
        };
        Some(Change { order, step: Step::Version(i32::try_from(version.as_i64()?).ok()?) })
    }
}

/// What one output has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Of what was written.
    pub received: usize,
    /// Events that came once more: outputs deliver at least once.
    pub repeated: usize,
    /// Written and not received.
    pub missing: usize,
}

/// Everything written and received so far. One change of 4 a second takes some 60 bytes; nothing is forgotten.
#[derive(Default)]
pub struct Ledger {
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    written: HashSet<Change>,
    received: [Receipts; Output::ALL.len()],
}

#[derive(Default)]
struct Receipts {
    changes: HashSet<Change>,
    repeated: usize,
}

impl Ledger {
    /// The server has acknowledged this change.
    pub fn write(&self, change: Change) {
        self.pages().written.insert(change);
    }

    /// An output has delivered this event.
    pub fn receive(&self, output: Output, event: &Value) {
        let Some(change) = Change::of(event) else { return };
        let receipts = &mut self.pages().received[output as usize];
        if !receipts.changes.insert(change) {
            receipts.repeated += 1;
        }
    }

    /// How many changes were written.
    pub fn written(&self) -> usize {
        self.pages().written.len()
    }

    /// What this output has received.
    pub fn count(&self, output: Output) -> Count {
        let pages = self.pages();
        let receipts = &pages.received[output as usize];
        let missing = pages.written.difference(&receipts.changes).count();
        Count { received: pages.written.len() - missing, repeated: receipts.repeated, missing }
    }

    /// Whether every output has every change.
    pub fn is_complete(&self) -> bool {
        Output::ALL.iter().all(|output| self.count(*output).missing == 0)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(step: Step) -> Change {
        Change { order: "T1001".to_owned(), step }
    }

    #[test]
    fn an_event_tells_which_change_it_is() {
        let key = json!({ "_id": "T1001" });
        for (event, expected) in [
            (
                json!({ "operationType": "insert", "documentKey": key, "fullDocument": { "version": 1 } }),
                Some(Step::Version(1)),
            ),
            (
                json!({ "operationType": "update", "documentKey": key, "fullDocument": { "version": 3 },
                        "updateDescription": { "updatedFields": { "version": 2 } } }),
                Some(Step::Version(2)),
            ),
            (json!({ "operationType": "delete", "documentKey": key }), Some(Step::Deleted)),
            (json!({ "operationType": "drop" }), None),
            (json!({ "operationType": "insert", "documentKey": { "_id": { "$oid": "00" } } }), None),
            (json!({ "operationType": "insert", "documentKey": key, "fullDocument": {} }), None),
        ] {
            assert_eq!(Change::of(&event), expected.map(change), "{event}");
        }
    }

    #[test]
    fn what_is_missing_and_what_came_twice_is_counted() {
        let ledger = Ledger::default();
        let event = |version| json!({ "operationType": "insert", "documentKey": { "_id": "T1001" }, "fullDocument": { "version": version } });
        ledger.write(change(Step::Version(1)));
        // An output may be faster than the acknowledgement of the write.
        ledger.receive(Output::Live, &event(2));
        ledger.write(change(Step::Version(2)));
        assert_eq!(ledger.count(Output::Live), Count { received: 1, repeated: 0, missing: 1 });
        assert_eq!(ledger.count(Output::Hook), Count { received: 0, repeated: 0, missing: 2 });
        for output in Output::ALL {
            assert!(!ledger.is_complete(), "before {output:?}");
            for version in [1, 2, 2] {
                ledger.receive(output, &event(version));
            }
        }
        assert!(ledger.is_complete());
        assert_eq!(ledger.count(Output::Live), Count { received: 2, repeated: 2, missing: 0 });
    }
}
