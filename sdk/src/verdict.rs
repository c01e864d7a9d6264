//! Verdicts per event, for a batch whose events ended differently.

use std::{fmt::Display, time::Duration};

use crate::{DeliverError, Event};

/// What is to happen with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Ack,
    /// Deliver it again.
    Retry {
        /// Not before this long; `None` leaves it to the output's `retry` settings.
        after: Option<Duration>,
        /// What went wrong.
        reason: String,
    },
    /// It can never be delivered: the operator's `on_reject` decides what becomes of it.
    Reject {
        /// Why not; stored with the dead letter.
        reason: String,
    },
    /// The output cannot go on: it stops until an operator resumes it.
    Fatal {
        /// Why, and what to do.
        reason: String,
    },
}

impl Verdict {
    /// Deliver it again, when the output's `retry` settings say so.
    pub fn retry(reason: impl Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string() }
    }

    /// It can never be delivered.
    pub fn reject(reason: impl Display) -> Self {
        Self::Reject { reason: reason.to_string() }
    }

    /// The output cannot go on.
    pub fn fatal(reason: impl Display) -> Self {
        Self::Fatal { reason: reason.to_string() }
    }
}

/// The verdicts on a batch whose events ended differently: one for each event named, another for the rest.
///
/// Within one document order counts more than a verdict: after the first event of a document that is not acknowledged, its
/// later events in the batch are delivered again whatever is said of them here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "return it: `Err(verdicts.into())`"]
pub struct Verdicts {
    pub(crate) rest: Verdict,
    /// As they were said: an index may repeat, see [`last_of_each`](Self::last_of_each).
    named: Vec<(u32, Verdict)>,
    pub(crate) pause_output: Option<Duration>,
}

impl Verdicts {
    /// Every event that [`set`](Self::set) does not name gets the verdict `rest`.
    pub fn new(rest: Verdict) -> Self {
        Self { rest, named: Vec::new(), pause_output: None }
    }

    /// Gives `event` a verdict of its own. The last one said counts.
    pub fn set(&mut self, event: &Event<'_>, verdict: Verdict) {
        self.set_index(event.index(), verdict);
    }

    pub(crate) fn set_index(&mut self, index: u32, verdict: Verdict) {
        self.named.push((index, verdict));
    }

    /// The last verdict said of each event named, by index. Sorted out here, once: to do it in `set` would cost the square of
    /// the batch's length.
    pub(crate) fn last_of_each(&self) -> Vec<&(u32, Verdict)> {
        let mut last: Vec<_> = self.named.iter().rev().collect();
        // Stable: of equal indices the last said stays in front, and is the one kept.
        last.sort_by_key(|(index, _)| *index);
        last.dedup_by_key(|(index, _)| *index);
        last
    }

    /// The whole output waits this long before anything is delivered again.
    pub fn pause_output(mut self, after: Duration) -> Self {
        self.pause_output = Some(after);
        self
    }

    /// True where every event has the same verdict as the rest.
    pub fn is_uniform(&self) -> bool {
        self.named.is_empty()
    }
}

impl From<Verdicts> for DeliverError {
    fn from(verdicts: Verdicts) -> Self {
        Self::PerEvent(verdicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verdict_of_each_event_counts() {
        let mut verdicts = Verdicts::new(Verdict::Ack);
        for (index, reason) in [(2, "a"), (0, "b"), (2, "c"), (1, "d"), (0, "e"), (2, "f")] {
            verdicts.set_index(index, Verdict::retry(reason));
        }
        let expected = [(0, Verdict::retry("e")), (1, Verdict::retry("d")), (2, Verdict::retry("f"))];
        assert!(verdicts.last_of_each().into_iter().eq(&expected), "{:?}", verdicts.last_of_each());
    }
}
