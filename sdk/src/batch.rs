//! A batch of change events, borrowed from the daemon until its token is completed. Owns the duty to complete it exactly once.

use std::{fmt, time::Duration};

use tailwater_abi::*;

use crate::{
    DeliverError, Event, Verdict, Verdicts,
    host::{Host, bytes, completion, first},
};

/// A batch of change events. Nothing is copied: everything read from it borrows from it, so that safe code cannot keep
/// anything past the end of `deliver`.
pub struct Batch {
    raw: *const tw_batch,
    token: u64,
    host: Host,
    completed: bool,
}

// SAFETY: the batch and everything it points to are read-only, and valid on any thread until the token is completed.
unsafe impl Send for Batch {}
// SAFETY: as above.
unsafe impl Sync for Batch {}

impl Batch {
    /// `None` where the host's batch cannot be read.
    ///
    /// # Safety
    /// `raw` is null or points to a batch that is valid until `token` is completed.
    pub(crate) unsafe fn new(raw: *const tw_batch, token: u64, host: Host) -> Option<Self> {
        // SAFETY: not null, and as promised by the caller; the first field of every version.
        if raw.is_null() || unsafe { (*raw).struct_size } < TW_BATCH_SIZE_MIN {
            return None;
        }
        let stride = first!(raw, event_stride);
        let readable = stride >= TW_EVENT_SIZE_MIN
            && (stride as usize).is_multiple_of(align_of::<tw_event>())
            && (first!(raw, len) == 0 || !first!(raw, events).is_null());
        // Made only where it is readable: dropping one completes its token, which the host keeps where `deliver` refuses.
        readable.then(|| Self { raw, token, host, completed: false })
    }

    pub(crate) fn json(&self, index: u32, form: tw_json_form) -> Result<&[u8], tw_status> {
        // SAFETY: valid until the token is completed, which consumes or drops `self`.
        self.host.json(self.token, index, form).map(|json| unsafe { bytes(json) })
    }

    /// Number of events, at least 1.
    pub fn len(&self) -> usize {
        first!(self.raw, len) as usize
    }

    /// Never true in a batch from the daemon.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the events' BSON bytes.
    pub fn bytes(&self) -> u64 {
        first!(self.raw, bytes)
    }

    /// How long the daemon waits for this batch; `None` = for ever.
    pub fn timeout(&self) -> Option<Duration> {
        let timeout_ms = first!(self.raw, timeout_ms);
        (timeout_ms != 0).then(|| Duration::from_millis(timeout_ms))
    }

    /// The event at `index`, in the order of the change stream.
    pub fn get(&self, index: usize) -> Option<Event<'_>> {
        if index >= self.len() {
            return None;
        }
        let (events, offset) = (first!(self.raw, events), index * first!(self.raw, event_stride) as usize);
        // SAFETY: the host gave `len` events, `event_stride` bytes apart, each of the size and alignment checked in `new`.
        let event = unsafe { events.add(offset) }.cast::<tw_event>();
        Some(Event::new(event, index as u32, self))
    }

    /// The events, in the order of the change stream.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event<'_>> + DoubleEndedIterator + Clone {
        (0..self.len()).map(|index| self.get(index).expect("an index below the length"))
    }

    pub(crate) fn finish(mut self, result: Result<(), DeliverError>) {
        // Before the call: once `complete` has begun, the host may free the batch.
        self.completed = true;
        let (host, token) = (self.host, self.token);
        match result {
            Ok(()) => host.finish(token, TW_ACK, 0, ""),
            Err(DeliverError::Retry { after, reason }) => host.finish(token, TW_RETRY, millis(after), &reason),
            Err(DeliverError::PauseOutput { after, reason }) => {
                let flags = TW_COMPLETE_PAUSE_OUTPUT;
                host.complete(token, &completion(TW_RETRY, millis(Some(after)), flags, &reason, &[]));
            }
            Err(DeliverError::Reject { reason }) => host.finish(token, TW_REJECT, 0, &reason),
            Err(DeliverError::Fatal { reason }) => host.finish(token, TW_FATAL, 0, &reason),
            Err(DeliverError::PerEvent(verdicts)) => finish_per_event(host, token, &verdicts),
        }
    }

    /// The instance cannot be trusted any more: it panicked.
    pub(crate) fn finish_failed(mut self, reason: &str) {
        self.completed = true;
        let (host, token) = (self.host, self.token);
        host.finish(token, TW_FAILED, 0, reason);
    }

    /// The host keeps the duty: `deliver` answered "not taken".
    pub(crate) fn disown(mut self) {
        self.completed = true;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.completed {
            let (host, token) = (self.host, self.token);
            host.finish(token, TW_FAILED, 0, "the delivery was dropped before it ended");
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

fn finish_per_event(host: Host, token: u64, verdicts: &Verdicts) {
    let results: Vec<tw_event_result> = verdicts
        .last_of_each()
        .into_iter()
        .map(|(index, verdict)| {
            let (verdict, retry_after_ms, reason) = parts(verdict);
            tw_event_result { index: *index, verdict, retry_after_ms, message: tw_str::new(reason) }
        })
        .collect();
    let (rest, mut retry_after_ms, reason) = parts(&verdicts.rest);
    let mut flags = 0;
    if let Some(pause) = verdicts.pause_output {
        flags = TW_COMPLETE_PAUSE_OUTPUT;
        retry_after_ms = millis(Some(pause));
    }
    host.complete(token, &completion(rest, retry_after_ms, flags, reason, &results));
}

fn parts(verdict: &Verdict) -> (tw_verdict, u64, &str) {
    match verdict {
        Verdict::Ack => (TW_ACK, 0, ""),
        Verdict::Retry { after, reason } => (TW_RETRY, millis(*after), reason),
        Verdict::Reject { reason } => (TW_REJECT, 0, reason),
        Verdict::Fatal { reason } => (TW_FATAL, 0, reason),
    }
}

/// 0 on the border means "the host decides", so a wait of less than a millisecond becomes one.
pub(crate) fn millis(after: Option<Duration>) -> u64 {
    after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1))
}
