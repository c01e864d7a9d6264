//! What a plugin answers, copied out of its C structs with every hostile number capped.

use std::mem::size_of;
use std::time::Duration;

use tailwater_abi::{
    TW_ACK, TW_COMPLETE_PAUSE_OUTPUT, TW_FAILED, TW_FATAL, TW_REJECT, tw_completion, tw_event_result, tw_str,
};

use super::text::{MESSAGE_BYTES_MAX, copy_lossy};

/// Longest delay a plugin may ask for. More is taken as this much.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The verdicts on one batch.
#[derive(Debug)]
pub struct Outcome {
    /// The number given to [`Instance::deliver`](super::Instance::deliver).
    pub delivery: u64,
    /// What the plugin said, or what the host concluded.
    pub verdicts: Verdicts,
}

/// One verdict for a whole batch, and those of single events that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdicts {
    /// Of every event that is not in `overrides`.
    pub default: Verdict,
    /// Index in the batch and verdict, in the plugin's order. An index is always inside the batch; it may repeat.
    pub overrides: Vec<(u32, Verdict)>,
    /// The plugin asks to leave the whole output alone for this long. Zero leaves the time to the host's backoff.
    pub pause_output: Option<Duration>,
}

/// What happened to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Ack,
    /// Passing trouble: deliver again.
    Retry {
        /// Not before this long; `None` leaves it to the host's backoff.
        after: Option<Duration>,
        /// For people.
        reason: String,
    },
    /// Can never be delivered.
    Reject {
        /// For people.
        reason: String,
    },
    /// The output cannot go on until an operator resumes it.
    Fatal {
        /// For people.
        reason: String,
    },
    /// The instance cannot be trusted any more: deliver again, on a new one.
    Failed {
        /// For people.
        reason: String,
    },
}

impl Verdicts {
    /// The same verdict for every event.
    pub fn all(default: Verdict) -> Self {
        Self { default, overrides: Vec::new(), pause_output: None }
    }

    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self::all(Verdict::Failed { reason: reason.into() })
    }

    /// Copies a completion of a batch of `len` events. A completion that breaks the border's rules counts as failed.
    ///
    /// # Safety
    /// `completion` is null or leads to a completion and results as the border describes them, for this call.
    pub(crate) unsafe fn copy(completion: *const tw_completion, len: u32) -> Self {
        if completion.is_null() {
            return Self::failed("the plugin completed without a completion (null)");
        }
        // SAFETY: not null; `struct_size` is the first field of every version.
        let size = unsafe { (&raw const (*completion).struct_size).read_unaligned() } as usize;
        if size < size_of::<tw_completion>() {
            return Self::failed(format!(
                "the plugin completed with struct_size {size}, at least {} is needed",
                size_of::<tw_completion>()
            ));
        }
        // SAFETY: the plugin says the struct is at least as large as the one read here.
        let completion = unsafe { completion.read_unaligned() };
        // SAFETY: the message is lent for this call.
        let default = unsafe { copy_verdict(completion.verdict, completion.retry_after_ms, completion.message) };
        let pauses = completion.flags & TW_COMPLETE_PAUSE_OUTPUT != 0;
        let pause_output = pauses.then(|| capped(completion.retry_after_ms));
        let mut verdicts = Self { default, overrides: Vec::new(), pause_output };
        if completion.results.is_null() || completion.result_count == 0 {
            return verdicts;
        }
        let stride = completion.result_stride as usize;
        if stride < size_of::<tw_event_result>() {
            return Self::failed(format!(
                "the plugin completed with result_stride {stride}, at least {} is needed",
                size_of::<tw_event_result>()
            ));
        }
        // One result per event is all that means anything; a larger count is not followed.
        for i in 0..completion.result_count.min(len) as usize {
            // SAFETY: inside the array the plugin described: i < result_count, `stride` bytes each.
            let result = unsafe { completion.results.add(i * stride).cast::<tw_event_result>().read_unaligned() };
            if result.index < len {
                // SAFETY: the message is lent for this call.
                let verdict = unsafe { copy_verdict(result.verdict, result.retry_after_ms, result.message) };
                verdicts.overrides.push((result.index, verdict));
            }
        }
        verdicts
    }
}

/// # Safety
/// As [`copy_lossy`].
unsafe fn copy_verdict(verdict: u32, retry_after_ms: u64, message: tw_str) -> Verdict {
    if verdict == TW_ACK {
        return Verdict::Ack;
    }
    // SAFETY: passed on from the caller.
    let reason = unsafe { copy_lossy(message, MESSAGE_BYTES_MAX) };
    match verdict {
        TW_REJECT => Verdict::Reject { reason },
        TW_FATAL => Verdict::Fatal { reason },
        TW_FAILED => Verdict::Failed { reason },
        // TW_RETRY, and any value of a later version: trying again loses nothing.
        _ => Verdict::Retry { after: (retry_after_ms != 0).then(|| capped(retry_after_ms)), reason },
    }
}

fn capped(ms: u64) -> Duration {
    Duration::from_millis(ms).min(RETRY_AFTER_MAX)
}
