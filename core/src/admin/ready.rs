//! Readiness as a set of named conditions: the process is ready while none is waited for.

use std::sync::{Arc, Mutex, PoisonError};

/// A handle on what has to happen before the process is ready. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Conditions>>);

#[derive(Default)]
struct Conditions {
    next: u64,
    /// In the order in which they were asked for.
    waiting: Vec<(u64, String)>,
}

/// A condition that is waited for until [`Pending::done`]. Dropping it without that leaves the process not ready: whoever
/// had to fulfil it has failed.
#[must_use = "the process is not ready until `done` is called"]
pub struct Pending {
    readiness: Readiness,
    id: u64,
}

impl Readiness {
    /// Adds a condition, as `source` or `plugin of live`. It shows in `/readyz` until it is done.
    pub fn wait_for(&self, name: &str) -> Pending {
        let mut conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = conditions.next;
        conditions.next += 1;
        conditions.waiting.push((id, name.to_owned()));
        Pending { readiness: self.clone(), id }
    }

    /// The conditions that are not fulfilled.
    pub fn waiting(&self) -> Vec<String> {
        let conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.waiting.iter().map(|(_, name)| name.clone()).collect()
    }

    /// True while nothing is waited for.
    pub fn is_ready(&self) -> bool {
        self.waiting().is_empty()
    }
}

impl Pending {
    /// The condition is fulfilled.
    pub fn done(self) {
        let mut conditions = self.readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.waiting.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_condition_is_done() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let (first, second) = (readiness.wait_for("source"), readiness.wait_for("source"));
        first.done();
        assert_eq!(readiness.waiting(), ["source"]);
        drop(second);
        assert!(!readiness.is_ready(), "a condition that was given up is not fulfilled");
    }
}
