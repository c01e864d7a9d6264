//! The trait a plugin author implements, and what its functions may answer. Knows nothing of the border.

use std::{fmt::Display, future::Future, time::Duration};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Batch, Context, Verdicts};

/// Any error, for [`Output::validate`].
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A destination for change events.
///
/// One value is one output of `config.toml`. All its functions run on the library's own tokio runtime, which has one worker
/// thread for all outputs of the library: use [`Context::spawn_blocking`] for anything that blocks.
///
/// A panic in any of them is caught: the events are delivered again, to a new instance.
pub trait Output: Send + Sync + Sized + 'static {
    /// The keys of `[outputs.NAME.options]`. Give it `#[serde(deny_unknown_fields)]`: a misspelt key is then an error that
    /// `tailwater check` shows. Doc comments on its fields become the descriptions in `tailwater plugin inspect`.
    type Options: DeserializeOwned + JsonSchema + Send + 'static;

    /// Name of the plugin. Empty (the default): the crate's name without the `tailwater-` before it.
    const NAME: &'static str = "";

    /// One sentence for people, shown by `tailwater plugin inspect`.
    const SUMMARY: &'static str;

    /// True for an output without a durable position, whose own clients carry theirs.
    const BROADCAST: bool = false;

    /// Most events in a batch where the operator says nothing; 0 leaves it to the daemon.
    const BATCH_EVENTS_MAX: u32 = 0;

    /// True for an output that asks for the JSON of nearly every event: the daemon then counts it as memory in flight.
    const WANTS_JSON: bool = false;

    /// Checks what the schema cannot say. Connects nothing and starts nothing: `tailwater check` calls it.
    ///
    /// # Errors
    /// Where the options cannot work; the text names the key and what it must be.
    fn validate(options: &Self::Options) -> Result<(), Error> {
        let _ = options;
        Ok(())
    }

    /// Binds and connects.
    ///
    /// # Errors
    /// [`StartError::Fatal`] where a second try cannot help (any other error converts to it), [`StartError::Retry`] where it can.
    fn start(options: Self::Options, context: Context) -> impl Future<Output = Result<Self, StartError>> + Send;

    /// Delivers a batch. `Ok` acknowledges every event of it. May be called again before the first call has ended, as often
    /// as the operator's `concurrency` says.
    ///
    /// # Errors
    /// What is to happen with the events instead. Any error of the standard library's kind converts to "retry".
    ///
    /// # Cancellation
    /// When the batch's `timeout` passes, the future is dropped and the events are delivered again to a new instance.
    fn deliver(&self, batch: &Batch) -> impl Future<Output = Result<(), DeliverError>> + Send;

    /// For a broadcast output: how far its stream has come. Called once before the first delivery, then again as the stream goes on,
    /// also where there are no events. Must not block: it is called between two deliveries.
    fn progress(&self, progress: Progress) {
        let _ = progress;
    }

    /// Called once, after the last delivery has ended or the time for that has passed. Flushes and disconnects.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// How far the stream of a broadcast output has come. Times are MongoDB timestamps: seconds in the high half, increment in the low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// This output value is given every event from this time on, inclusive. Nothing is known of earlier ones.
    pub complete_from: u64,
    /// Events before this time were there before the output was: they fill its history and are news to nobody.
    pub live_from: u64,
    /// Every event before this time, exclusive, was given and acknowledged.
    pub reached: u64,
}

/// Why an output did not start. Deliberately no [`std::error::Error`] itself, so that every such error converts into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// It cannot start as configured. The output stops until an operator resumes it.
    Fatal {
        /// What was being done and what to do, for the operator.
        reason: String,
    },
    /// Passing trouble: the daemon tries again.
    Retry {
        /// Not before this long; `None` leaves it to the daemon's backoff.
        after: Option<Duration>,
        /// What was being done, for the operator.
        reason: String,
    },
}

impl StartError {
    /// It cannot start as configured.
    pub fn fatal(reason: impl Display) -> Self {
        Self::Fatal { reason: reason.to_string() }
    }

    /// Passing trouble; the daemon's backoff decides when it tries again.
    pub fn retry(reason: impl Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string() }
    }

    /// Passing trouble; try again no sooner than `after`.
    pub fn retry_after(after: Duration, reason: impl Display) -> Self {
        Self::Retry { after: Some(after), reason: reason.to_string() }
    }
}

impl<E: std::error::Error> From<E> for StartError {
    fn from(error: E) -> Self {
        Self::fatal(with_sources(&error))
    }
}

/// What is to happen with a batch that was not delivered as a whole. Deliberately no [`std::error::Error`] itself, so that
/// every such error converts into it: `?` on an IO or HTTP error means "deliver again".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliverError {
    /// Passing trouble: every event of the batch is delivered again.
    Retry {
        /// Not before this long; `None` leaves it to the output's `retry` settings.
        after: Option<Duration>,
        /// What went wrong.
        reason: String,
    },
    /// As `Retry`, and the whole output waits, not only these events (HTTP 429 with `Retry-After`).
    PauseOutput {
        /// How long the output waits.
        after: Duration,
        /// What went wrong.
        reason: String,
    },
    /// None of these events can ever be delivered: the operator's `on_reject` decides what becomes of them.
    Reject {
        /// Why not; stored with the dead letter.
        reason: String,
    },
    /// The output cannot go on (credentials revoked, topic deleted): it stops until an operator resumes it.
    Fatal {
        /// Why, and what to do.
        reason: String,
    },
    /// The events of the batch ended differently.
    PerEvent(Verdicts),
}

impl DeliverError {
    /// Deliver the batch again, when the output's `retry` settings say so.
    pub fn retry(reason: impl Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string() }
    }

    /// Deliver the batch again, no sooner than `after`.
    pub fn retry_after(after: Duration, reason: impl Display) -> Self {
        Self::Retry { after: Some(after), reason: reason.to_string() }
    }

    /// Deliver the batch again after the whole output has waited this long.
    pub fn pause_output(after: Duration, reason: impl Display) -> Self {
        Self::PauseOutput { after, reason: reason.to_string() }
    }

    /// None of the batch's events can ever be delivered.
    pub fn reject(reason: impl Display) -> Self {
        Self::Reject { reason: reason.to_string() }
    }

    /// The output cannot go on.
    pub fn fatal(reason: impl Display) -> Self {
        Self::Fatal { reason: reason.to_string() }
    }
}

impl<E: std::error::Error> From<E> for DeliverError {
    fn from(error: E) -> Self {
        Self::retry(with_sources(&error))
    }
}

/// "sending: connection refused": many error types keep the useful half in `source`.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some types print their source themselves; saying it twice helps nobody.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("sending the batch")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_ordinary_error_means_retry_in_deliver_and_fatal_in_start_and_keeps_its_causes() {
        let error = || Outer(std::io::Error::other("connection refused"));
        assert_eq!(DeliverError::from(error()), DeliverError::retry("sending the batch: connection refused"));
        assert_eq!(StartError::from(error()), StartError::fatal("sending the batch: connection refused"));
    }
}
