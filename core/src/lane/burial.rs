//! How one lane's dead letters become durable: a few at a time, tried again with backoff until the store has them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::dead_letters::{DeadLetterError, Letter};
use crate::lane::engine::Engine;

/// Letters in one write.
const LETTERS_PER_WRITE: usize = 100;

/// A store that has not answered by then has failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// After a failed write.
const AGAIN: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(10) };

/// Makes letters durable: after `Ok` they are. The same letters may come again.
pub type Bury = Arc<dyn Fn(Vec<Letter>) -> BoxFuture<'static, Result<(), DeadLetterError>> + Send + Sync>;

/// One lane's way to the dead letters.
pub struct Burial {
    output: String,
    /// `None`: this output has no dead letters.
    bury: Option<Bury>,
    writing: Option<Writing>,
    /// Letters in the next write.
    at_once: usize,
    /// No write before this.
    not_before: Instant,
    failures: u32,
    /// The store is full: nothing more is written.
    full: bool,
}

/// A write under way, of so many letters from the front.
struct Writing {
    task: JoinHandle<Result<(), Fault>>,
    count: usize,
}

/// Why a write failed.
enum Fault {
    /// A retry does not help.
    Full(String),
    /// A retry may help.
    Passing(String),
}

/// How a write ended.
pub enum Buried {
    /// The oldest so many letters are durable.
    Durable(usize),
    /// They are not; it is tried again by itself.
    Failed,
    /// They are not, and trying again does not help.
    Full(String),
}

impl Burial {
    /// Nothing written yet.
    pub fn new(output: &str, bury: Option<Bury>) -> Self {
        Burial {
            output: output.to_owned(),
            bury,
            writing: None,
            at_once: LETTERS_PER_WRITE,
            not_before: Instant::now(),
            failures: 0,
            full: false,
        }
    }

    /// Whether there is a store.
    pub fn is_there(&self) -> bool {
        self.bury.is_some()
    }

    /// Begins to write what waits. Nothing happens while a write is under way, or too soon after a failed one.
    pub fn begin(&mut self, engine: &Engine, now: Instant) {
        let Some(bury) = self.bury.as_ref().filter(|_| self.due(engine).is_some_and(|due| due <= now)) else { return };
        let letters = engine.letters(self.at_once);
        let count = letters.len();
        let write = bury(letters);
        let task = tokio::spawn(async move {
            match tokio::time::timeout(WRITE_TIMEOUT, write).await {
                Ok(result) => result.map_err(|error| match &error {
                    DeadLetterError::Full { .. } => Fault::Full(error.to_string()),
                    _ => Fault::Passing(error.to_string()),
                }),
                Err(_) => Err(Fault::Passing(format!("write dead letters: no answer within {WRITE_TIMEOUT:?}"))),
            }
        });
        self.writing = Some(Writing { task, count });
    }

    /// When the next write is to begin, if letters wait.
    pub fn due(&self, engine: &Engine) -> Option<Instant> {
        (!self.full && self.writing.is_none() && engine.letters_waiting() > 0).then_some(self.not_before)
    }

    /// Waits for the write under way; forever where there is none. Cancel-safe.
    pub async fn done(&mut self) -> Buried {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let result = match (&mut writing.task).await {
            Ok(result) => result,
            Err(error) => Err(Fault::Passing(format!("write dead letters: {error}"))),
        };
        let count = self.writing.take().map_or(0, |writing| writing.count);
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    info!(output = self.output, "dead letters are written again");
                }
                self.failures = 0;
                self.at_once = (self.at_once * 2).min(LETTERS_PER_WRITE);
                Buried::Durable(count)
            }
            // All of them do not fit, a part may: of what waits, the oldest are kept as long as there is room for one.
            Err(Fault::Full(_)) if count > 1 => {
                self.at_once = count / 2;
                Buried::Failed
            }
            Err(Fault::Full(reason)) => {
                self.full = true;
                Buried::Full(reason)
            }
            Err(Fault::Passing(error)) => {
                // Said once: it is tried again until it succeeds.
                if self.failures == 0 {
                    warn!(output = self.output, "{error}; trying again, the events stay unsettled until then");
                }
                self.failures = self.failures.saturating_add(1);
                self.not_before = Instant::now() + AGAIN.delay(self.failures, rand::random());
                Buried::Failed
            }
        }
    }

    /// True while a write is under way.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }
}
