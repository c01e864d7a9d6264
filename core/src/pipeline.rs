//! Wires source, window, lanes, plugins and checkpoints; owns their lifetimes and the order in which they start and end. No
//! per-event work.
//!
//! Each output has a *slot*: what is wanted of it and what it is doing. A lane is started and ended, never changed: pause, resume,
//! reload, a takeover and a moved checkpoint all come down to ending a lane and to beginning one at its checkpoint. `run.rs` has
//! the loop that turns the slots, `operate.rs` what operators ask, `reload.rs` a new configuration.
//!
//! The order of a start is argued here: plugins and options are proved before MongoDB is contacted, because a typo should
//! not need a server to be found; plugins start before the stream opens, so that no event waits for a port to be bound; a
//! start at "now" is durable before the daemon says that it is ready, so that from then on nothing is missed. The lease comes before
//! the checkpoints: what this instance reads of them must be what nobody else moves any more.

mod begin;
mod headroom;
mod operate;
mod places;
mod reload;
mod run;
mod slot;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::checkpoint::{CheckpointError, Store};
use crate::config::Config;
use crate::dead_letters::{self, DeadLetterError};
use crate::lane::catch_up::CatchUps;
use crate::lane::metrics::LaneFamilies;
use crate::lease::{Lease, LeaseError, Standing};
use crate::output::PreparedOutput;
use crate::pipeline::begin::{Beginning, Begun, StartedPlugin};
use crate::pipeline::places::shared_place;
use crate::pipeline::run::Pump;
pub use crate::pipeline::reload::ReloadMetrics;
pub use crate::pipeline::run::{Reload, ReloadRequest, Running};
use crate::pipeline::slot::{Phase, Slot};
use crate::plugin::Port;
use crate::snapshot::SnapshotError;
use crate::source::connect::{Deployment, connect};
use crate::source::error::SourceError;
use crate::source::health::{Health, HealthMetrics};
use crate::source::metrics::SourceMetrics;
use crate::source::place::Place;
use crate::source::pump;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;
use crate::window::{Coverage, Window};

/// Connections beside one per output for its checkpoint and one per catch-up stream: the shared stream, the lease, dead letters,
/// snapshots, and the start.
const SPARE_CONNECTIONS: u32 = 12;

/// For plugins that have started when something else did not.
const STOP_AGAIN: Duration = Duration::from_secs(5);

/// Why the daemon cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The change stream.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A checkpoint could not be read, or a first one not written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The lease cannot be had, not even in time.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The store of dead letters cannot be opened.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// A snapshot cannot be planned.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No plugin can ever start like this.
    #[error("start output {output}: {reason}")]
    Plugin {
        /// The output.
        output: String,
        /// In the plugin's words.
        reason: String,
    },
    /// `source.start` lies ahead of the deployment's own clock.
    #[error(
        "source.start is {seconds} s ahead of the deployment's cluster time; write a time that has passed, or \"now\""
    )]
    StartInFuture {
        /// How far.
        seconds: u32,
    },
    /// A part of the daemon itself failed.
    #[error("{0} ended unexpectedly: {1}")]
    Internal(&'static str, tokio::task::JoinError),
}

/// What the pipeline counts. Registered before it starts, so that `/metrics` is whole from the first moment.
#[derive(Clone, Debug, Default)]
pub struct PipelineMetrics {
    source: SourceMetrics,
    health: HealthMetrics,
    lanes: LaneFamilies,
    catch_ups: crate::lane::catch_up::CatchUpMetrics,
    lease: crate::lease::LeaseMetrics,
    dead_letters: dead_letters::DeadLetterMetrics,
    headroom: headroom::HeadroomMetrics,
    reloads: reload::ReloadMetrics,
}

impl PipelineMetrics {
    /// Those of reloads, for who reads the file.
    pub fn reloads(&self) -> &ReloadMetrics {
        &self.reloads
    }

    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        self.source.register(registry);
        self.health.register(registry);
        self.lanes.register(registry);
        self.catch_ups.register(registry);
        self.lease.register(registry);
        self.dead_letters.register(registry);
        self.headroom.register(registry);
        self.reloads.register(registry);
    }
}

/// What every part of the pipeline needs and nothing changes while it runs.
struct Shared {
    /// As it was started; the outputs in it are those of the start.
    config: Config,
    deployment: Deployment,
    store: Arc<Store>,
    dead_letters: Arc<dead_letters::Store>,
    /// The shared stream without a filter.
    options: StreamOptions,
    metrics: PipelineMetrics,
}

impl Shared {
    /// The deployment's cluster time.
    async fn now(&self) -> Result<Timestamp64, SourceError> {
        self.deployment.cluster_time().await
    }
}

/// Starts everything and returns when the stream is open and every lane at work that this instance is to run.
///
/// # Errors
/// See [`PipelineError`]. Nothing was delivered then, and what had started is stopped.
pub async fn start(
    config: Config,
    outputs: Vec<PreparedOutput>,
    metrics: PipelineMetrics,
    readiness: &Readiness,
) -> Result<Running, PipelineError> {
    let connections = config.source.catch_up_streams_max + outputs.len() as u32 + SPARE_CONNECTIONS;
    let deployment = connect(config.source.uri.expose(), connections).await?;
    metrics.source.saw(deployment.now);
    let options = StreamOptions::new(&deployment, &config.source).await?;
    let store = Arc::new(Store::open(&config.checkpoint, &config.name, &deployment.client)?);
    let dead_letters =
        dead_letters::Store::open(&config.dead_letters, &config.name, &deployment.client, &metrics.dead_letters).await?;
    let exclusive = outputs.iter().any(|output| !output.library.descriptor().broadcast);
    let lease = match exclusive {
        true => Some(Lease::begin(&store, &deployment.client, &config.name, metrics.lease.clone()).await?),
        false => None,
    };
    let shared =
        Arc::new(Shared { config, deployment, store, dead_letters: Arc::new(dead_letters), options, metrics });
    let mut slots: Vec<Slot> = outputs.into_iter().map(|output| Slot::new(output, &shared.metrics)).collect();
    let holder = lease.as_ref().is_some_and(|lease| lease.is_held());
    match begin_all(&shared, &mut slots, holder, readiness).await {
        Ok((begun, stream, place)) => {
            let stream = stream.with_health(Health::new(shared.metrics.health.clone(), readiness));
            Ok(Running::new(shared, slots, begun, lease, stream, place))
        }
        Err(error) => {
            if let Some(lease) = lease {
                lease.release().await;
            }
            Err(error)
        }
    }
}

/// The outputs that have begun, by their index, the shared stream, and where it was opened.
type BegunAll = (Vec<(usize, Begun)>, ChangeStream, Place);

/// The first beginning of all outputs that this instance is to run: their plugins before the stream, one stream for all.
async fn begin_all(
    shared: &Arc<Shared>,
    slots: &mut [Slot],
    holder: bool,
    readiness: &Readiness,
) -> Result<BegunAll, PipelineError> {
    let wanted: Vec<(usize, Beginning)> = (slots.iter().enumerate())
        .filter(|(_, slot)| slot.is_wanted(holder))
        .map(|(index, slot)| (index, Beginning::of(slot)))
        .collect();
    let firsts = try_join_all(wanted.iter().map(|(_, beginning)| beginning.first_place(shared))).await?;
    let mut starting = Vec::new();
    for ((index, beginning), first) in wanted.into_iter().zip(firsts) {
        if first.paused {
            info!(output = slots[index].name(), "paused by an operator before; tailwater output resume starts it");
            slots[index].paused = true;
        } else {
            starting.push((index, beginning, first));
        }
    }
    let plugins = join_all(starting.iter().map(|(_, beginning, _)| {
        let awaited = readiness.wait_for(&format!("plugin of {}", beginning.output.config.name));
        beginning.start_plugin(Some(awaited))
    }));
    let mut plugins = plugins.await;
    let opened = async {
        some_plugin_works(&starting, &plugins)?;
        open_shared(shared, slots, &mut starting, &plugins).await
    };
    match opened.await {
        Ok((stream, place)) => {
            let live_from = Timestamp64(shared.deployment.now.0 + 1);
            let begun = (starting.into_iter().zip(plugins))
                .map(|((index, _, first), plugin)| (index, Begun { first, plugin, live_from }))
                .collect();
            Ok((begun, stream, place))
        }
        Err(error) => {
            join_all(plugins.iter_mut().map(|plugin| plugin.life.stop(STOP_AGAIN))).await;
            Err(error)
        }
    }
}

/// With nothing to deliver to, a daemon that stays would only hide the trouble.
fn some_plugin_works(
    starting: &[(usize, Beginning, begin::FirstPlace)],
    plugins: &[StartedPlugin],
) -> Result<(), PipelineError> {
    let first = starting.iter().zip(plugins).find_map(|((_, beginning, _), plugin)| {
        plugin.fatal.clone().map(|reason| (beginning.output.config.name.clone(), reason))
    });
    match first {
        Some((output, reason)) if plugins.iter().all(|plugin| plugin.fatal.is_some()) => {
            Err(PipelineError::Plugin { output, reason })
        }
        _ => Ok(()),
    }
}

/// Opens the shared stream; then, and only then, places that did not come from a checkpoint become durable.
async fn open_shared(
    shared: &Shared,
    slots: &[Slot],
    starting: &mut [(usize, Beginning, begin::FirstPlace)],
    plugins: &[StartedPlugin],
) -> Result<(ChangeStream, Place), PipelineError> {
    for ((_, beginning, first), plugin) in starting.iter_mut().zip(plugins) {
        beginning.reach_back(shared, first, plugin).await?;
    }
    let filter = coverage_of(slots).to_match();
    let options = StreamOptions { filter, ..shared.options.clone() };
    let now = Place::From(Timestamp64(shared.deployment.now.0 + 1));
    // Rows come first for an output with a snapshot: the window will have moved on until its stream begins.
    let streaming = starting.iter().filter(|(_, _, first)| first.snapshot.is_none()).map(|(_, _, first)| &first.place);
    let mut place = shared_place(streaming, now.clone());
    info!(%place, watch = options.scope.describe(), "opening the change stream");
    let stream = match ChangeStream::open(options.clone(), place.clone()).await {
        Ok(stream) => stream,
        // Of the outputs that began there: each lane meets it by itself and does what its `history_lost` says.
        Err(error @ SourceError::HistoryLost { .. }) if starting.iter().any(|(_, _, first)| first.stored) => {
            warn!("{error}; opening the shared stream at now");
            place = now;
            ChangeStream::open(options, place.clone()).await?
        }
        Err(error) => return Err(error.into()),
    };
    for (_, beginning, first) in starting.iter() {
        beginning.make_durable(shared, first, Some(&place)).await?;
    }
    Ok((stream, place))
}

/// What all outputs want together.
fn coverage_of(slots: &[Slot]) -> Coverage {
    Coverage::of(slots.iter().filter(|slot| !slot.removed).map(|slot| {
        let output = slot.next.as_ref().unwrap_or(&slot.output);
        output.config.query.clone()
    }))
}
