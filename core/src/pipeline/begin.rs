//! How one output begins: its place, its plugin, the proof that the oplog reaches its place. The same for the start of the daemon,
//! a takeover, a resume and a reload.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::places::{go_back, start_place};
use super::slot::Slot;
use super::{STOP_AGAIN, Shared};
use crate::admin::Pending;
use crate::backoff::Backoff;
use crate::checkpoint::Store;
use crate::dead_letters;
use crate::lane::life::{Change, Life};
use crate::output::PreparedOutput;
use crate::pipeline::PipelineError;
use crate::plugin::Port;
use crate::snapshot::{self, Progress};
use crate::source::config::Start;
use crate::source::place::Place;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;

/// For one attempt to begin, planning a snapshot included.
const BEGIN_MAX: Duration = Duration::from_secs(300);

/// Between attempts to begin, once the daemon runs.
const AGAIN: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(30) };

/// Where an output begins.
pub(super) struct FirstPlace {
    /// What is still to come begins here.
    pub place: Place,
    /// It is an output's checkpoint already.
    pub stored: bool,
    /// Rows to be delivered before the stream.
    pub rows: Option<Progress>,
    /// The operator has paused it.
    pub paused: bool,
    /// Where its dead letters go.
    pub dead_letters: Option<Arc<dead_letters::Store>>,
}

/// What an output begins with: enough to do it in a task of its own.
#[derive(Clone)]
pub(super) struct Beginning {
    pub output: Arc<PreparedOutput>,
    pub port: Arc<Port>,
    /// Of the epoch in which this instance holds the lease.
    pub store: Arc<Store>,
    /// A snapshot to begin now.
    pub snapshot: Option<Progress>,
}

/// An output that has begun, but for its lane.
pub(super) struct Begun {
    pub first: FirstPlace,
    pub plugin: StartedPlugin,
    /// Events of a broadcast from here on are news.
    pub live_from: Timestamp64,
}

/// A plugin after its first attempt to start.
pub(super) struct StartedPlugin {
    /// Up, or trying on.
    pub life: Life,
    /// It can never start like this, for this reason.
    pub fatal: Option<String>,
}

impl Beginning {
    /// Of a slot.
    pub fn of(slot: &Slot, store: &Arc<Store>) -> Beginning {
        let (output, port) = (Arc::clone(&slot.output), Arc::clone(&slot.port));
        Beginning { output, port, store: Arc::clone(store), snapshot: slot.snapshot.clone() }
    }

    fn name(&self) -> &str {
        &self.output.config.name
    }

    fn is_broadcast(&self) -> bool {
        self.output.library.descriptor().broadcast
    }

    /// At the output's checkpoint, or at `source.start`; a broadcast output at now.
    pub async fn first_place(&self, shared: &Shared) -> Result<FirstPlace, PipelineError> {
        let name = self.name();
        let now = shared.now().await?;
        let after_now = Place::From(Timestamp64(now.0 + 1));
        if self.is_broadcast() {
            return Ok(FirstPlace { place: after_now, stored: false, rows: None, paused: false, dead_letters: None });
        }
        let mut first = match self.store.load(name).await? {
            Some(checkpoint) => {
                let (place, paused) = (checkpoint.place, checkpoint.paused);
                let rows = checkpoint.snapshot.as_ref().map(Progress::from_document).transpose();
                let rows = rows.map_err(|e| PipelineError::Rows { output: name.to_owned(), reason: e.to_string() })?;
                info!(output = name, %place, snapshot = rows.is_some(), "going on at the checkpoint");
                FirstPlace { place, stored: true, rows, paused, dead_letters: None }
            }
            None => self.at_start(shared, now).await?,
        };
        if let Some(planned) = &self.snapshot {
            // A row may be as old as the snapshot's time, so the stream that follows must not begin later: later changes win.
            let from = Place::From(planned.time());
            if first.place.is_covered_since(&from) {
                first.place = from;
            }
            self.store.save(name, &first.place, Some(&planned.to_document())).await?;
            first.rows = Some(planned.clone());
        }
        Ok(first)
    }

    /// Without a checkpoint.
    async fn at_start(&self, shared: &Shared, now: Timestamp64) -> Result<FirstPlace, PipelineError> {
        let (start, name) = (&shared.config.source.start, self.name());
        let (place, rows) = match start {
            Start::Snapshot => {
                let planned = snapshot::plan(&shared.deployment.client, &shared.config.source.watch, &[]).await?;
                (Place::From(planned.time()), Some(planned))
            }
            start => (start_place(start, now)?, None),
        };
        info!(output = name, %place, snapshot = rows.is_some(), "no checkpoint yet, beginning at source.start");
        Ok(FirstPlace { place, stored: false, rows, paused: false, dead_letters: None })
    }

    /// One attempt. An output whose plugin did not start tries on by itself, or is stopped, while the others work.
    pub async fn start_plugin(&self, awaited: Option<Pending>) -> StartedPlugin {
        let (name, descriptor) = (self.name(), self.output.library.descriptor());
        let config = &self.output.config;
        self.port.adopt(config.shape(), &config.deployment, descriptor.broadcast);
        let options = Arc::new(self.output.config.options.clone());
        let mut life = Life::new(self.output.library.clone(), Arc::clone(&self.port), options, awaited);
        let fatal = match life.change().await {
            Change::Fatal(reason) => Some(reason),
            Change::NotStarted { reason, wait } => {
                warn!(output = name, ?wait, "plugin did not start: {reason}; trying again");
                None
            }
            Change::Started => {
                info!(output = name, plugin = descriptor.name, "plugin started");
                None
            }
            // Not before a batch was handed out.
            Change::Outcome(_) => None,
        };
        if let Some(reason) = &fatal {
            life.is_awaited_no_more();
            tracing::error!(
                output = name,
                "output stopped: start its plugin: {reason}; mend the cause, then run: tailwater output resume {name}"
            );
        }
        StartedPlugin { life, fatal }
    }

    /// A broadcast begins as long before now as its plugin wants to have history.
    pub async fn reach_back(
        &self,
        shared: &Shared,
        first: &mut FirstPlace,
        plugin: &StartedPlugin,
    ) -> Result<(), PipelineError> {
        let wanted = plugin.life.wanted_history();
        if self.is_broadcast() && !wanted.is_zero() {
            go_back(first, self.name(), wanted, &self.stream(shared), shared.now().await?).await?;
        }
        Ok(())
    }

    /// Makes a place durable that did not come from a checkpoint, once it is proved: one that the oplog does not reach must not
    /// outlive the mending of `source.start`. `open_since` is where a stream that is open already begins.
    pub async fn make_durable(
        &self,
        shared: &Shared,
        first: &FirstPlace,
        open_since: Option<&Place>,
    ) -> Result<(), PipelineError> {
        if first.stored || self.is_broadcast() {
            return Ok(());
        }
        if !open_since.is_some_and(|since| first.place.is_covered_since(since)) {
            ChangeStream::open(self.stream(shared), first.place.clone()).await?;
        }
        let rows = first.rows.as_ref().map(Progress::to_document);
        self.store.save(self.name(), &first.place, rows.as_ref()).await?;
        Ok(())
    }

    /// Where the dead letters go. A broadcast has none in files: what it rejects is skipped then, and counted.
    pub async fn dead_letters(&self, shared: &Shared) -> Result<Option<Arc<dead_letters::Store>>, PipelineError> {
        // It runs on every instance, and a folder has one owner: the one that delivers to the exclusive outputs.
        if self.is_broadcast() && shared.config.dead_letters.is_file() {
            return Ok(None);
        }
        Ok(Some(shared.dead_letters().await?))
    }

    /// The shared stream for this output alone.
    fn stream(&self, shared: &Shared) -> StreamOptions {
        StreamOptions { filter: self.output.config.query.clone(), ..shared.options.clone() }
    }

    /// All of it, once the daemon runs: tried again until it succeeds.
    pub async fn begin(self, shared: Arc<Shared>) -> Begun {
        let mut attempt = 0;
        loop {
            let begun = tokio::time::timeout(BEGIN_MAX, self.try_begin(&shared)).await;
            match begun.unwrap_or(Err(PipelineError::Slow(BEGIN_MAX))) {
                Ok(begun) => return begun,
                Err(error) => {
                    attempt += 1;
                    let wait = AGAIN.delay(attempt, rand::random());
                    warn!(output = self.name(), ?wait, "the output cannot begin: {error}; trying again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn try_begin(&self, shared: &Shared) -> Result<Begun, PipelineError> {
        let mut first = self.first_place(shared).await?;
        let live_from = shared.now().await?;
        let mut plugin = self.start_plugin(None).await;
        let proved = async {
            self.reach_back(shared, &mut first, &plugin).await?;
            self.make_durable(shared, &first, None).await?;
            first.dead_letters = self.dead_letters(shared).await?;
            Ok::<(), PipelineError>(())
        };
        if let Err(error) = proved.await {
            // Its port must be free for the next attempt.
            plugin.life.stop(STOP_AGAIN).await;
            return Err(error);
        }
        Ok(Begun { first, plugin, live_from: Timestamp64(live_from.0 + 1) })
    }
}
