//! When one lane's low-water mark is written to the checkpoint store, and how far that has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::warn;

use crate::backoff::Backoff;
use crate::checkpoint::{CheckpointError, Store};
use crate::lane::settle::{Settle, Ticket};
use crate::snapshot::Progress;
use crate::source::place::Place;

/// The write rate while the lane is near its bound and only a write lets it go on.
const PRESSED_INTERVAL: Duration = Duration::from_millis(50);

/// A store that has not answered by then has failed; the driver alone would wait for a dead connection much longer.
const SAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// After a failed write.
const AGAIN: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(10) };

/// The durable side of one lane.
pub struct Durable {
    /// `None` for a broadcast output: what is settled counts as durable, because nothing is kept.
    store: Option<Arc<Store>>,
    output: String,
    interval: Duration,
    idle_interval: Duration,
    /// All events before this ticket are behind the durable place.
    ticket: Ticket,
    place: Place,
    /// [`Progress::version`](crate::snapshot::Progress::version) of the snapshot beside it; `None` when there is none.
    snapshot: Option<u64>,
    saving: Option<Saving>,
    /// No write before this.
    not_before: Instant,
    saved_at: Instant,
    failures: u32,
}

/// A write under way, and what is durable once it has succeeded.
struct Saving {
    task: JoinHandle<Result<(), Fault>>,
    ticket: Ticket,
    place: Place,
    snapshot: Option<u64>,
}

/// Why a write failed.
enum Fault {
    /// Another instance has taken the output over.
    Fenced(String),
    /// A retry may help.
    Passing(String),
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// All events before this ticket are behind the durable place now.
    Durable(Ticket),
    /// It is tried again by itself.
    Failed,
    /// Another instance has taken the output over: this lane must end.
    Fenced(String),
}

impl Durable {
    /// Nothing taken yet; `place` is durable.
    pub fn new(
        store: Option<Arc<Store>>,
        output: &str,
        config: &crate::checkpoint::config::Config,
        place: Place,
        snapshot: Option<u64>,
    ) -> Self {
        let now = Instant::now();
        Durable {
            store,
            output: output.to_owned(),
            interval: config.interval,
            idle_interval: config.idle_interval,
            ticket: 0,
            place,
            snapshot,
            saving: None,
            not_before: now,
            saved_at: now,
            failures: 0,
        }
    }

    /// When the low-water mark is to be written, if it moved. `pressed`: the lane is near its bound.
    pub fn due(&self, settle: &Settle, pressed: bool) -> Option<Instant> {
        if self.store.is_none() || self.saving.is_some() {
            return None;
        }
        let settled = settle.first_unsettled() > self.ticket || self.snapshot_moved(settle);
        let interval = match settled {
            true if pressed => self.interval.min(PRESSED_INTERVAL),
            true => self.interval,
            false if *settle.low_water() != self.place => self.idle_interval,
            false => return None,
        };
        Some((self.saved_at + interval).max(self.not_before))
    }

    fn snapshot_moved(&self, settle: &Settle) -> bool {
        settle.snapshot().map(Progress::version) != self.snapshot
    }

    /// Whether something is settled that is not durable.
    pub fn has_moved(&self, settle: &Settle) -> bool {
        let place = settle.first_unsettled() > self.ticket || *settle.low_water() != self.place;
        self.store.is_some() && (place || self.snapshot_moved(settle))
    }

    /// Begins to write the low-water mark. Nothing happens when a write is under way or nothing moved.
    pub fn save(&mut self, settle: &Settle) {
        let moved = self.has_moved(settle);
        let Some(store) = self.store.as_ref().filter(|_| self.saving.is_none() && moved) else { return };
        let (snapshot, rows) = (settle.snapshot().map(Progress::version), settle.snapshot().map(Progress::to_document));
        let (store, output, place) = (Arc::clone(store), self.output.clone(), settle.low_water().clone());
        let saved = place.clone();
        let task = tokio::spawn(async move {
            match tokio::time::timeout(SAVE_TIMEOUT, store.save(&output, &place, rows.as_ref())).await {
                Ok(saved) => saved.map_err(|error| match &error {
                    CheckpointError::Fenced { .. } => Fault::Fenced(error.to_string()),
                    _ => Fault::Passing(error.to_string()),
                }),
                Err(_) => {
                    Err(Fault::Passing(format!("write checkpoint of {output}: no answer within {SAVE_TIMEOUT:?}")))
                }
            }
        });
        self.saving = Some(Saving { task, ticket: settle.first_unsettled(), place: saved, snapshot });
    }

    /// Waits for the write under way; forever where there is none. Cancel-safe.
    pub async fn saved(&mut self) -> Saved {
        let Some(saving) = &mut self.saving else { return std::future::pending().await };
        let result = match (&mut saving.task).await {
            Ok(result) => result,
            Err(error) => Err(Fault::Passing(format!("write checkpoint of {}: {error}", self.output))),
        };
        let Some(Saving { ticket, place, snapshot, .. }) = self.saving.take() else { return Saved::Failed };
        self.saved_at = Instant::now();
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!(output = self.output, "checkpoints are written again");
                }
                (self.ticket, self.place, self.snapshot, self.failures) = (ticket, place, snapshot, 0);
                Saved::Durable(ticket)
            }
            Err(Fault::Fenced(reason)) => Saved::Fenced(reason),
            Err(Fault::Passing(error)) => {
                self.failures = self.failures.saturating_add(1);
                let wait = AGAIN.delay(self.failures, rand::random());
                self.not_before = self.saved_at + wait;
                warn!(output = self.output, ?wait, "{error}; trying again");
                Saved::Failed
            }
        }
    }

    /// True while a write is under way.
    pub fn is_saving(&self) -> bool {
        self.saving.is_some()
    }

    /// No write begins before this; in the past unless the last one failed.
    pub fn not_before(&self) -> Instant {
        self.not_before
    }

    /// The durable place.
    pub fn place(&self) -> &Place {
        &self.place
    }
}
