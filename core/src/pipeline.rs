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
mod patience;
mod places;
mod reload;
mod replays;
mod run;
mod slot;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::checkpoint::file::FileStore;
use crate::checkpoint::mongodb::MongoDbStore;
use crate::checkpoint::{self, CheckpointError, Store};
use crate::config::Config;
use crate::dead_letters::metrics::DeadLetterMetrics;
use crate::dead_letters::{self, DeadLetterError};
use crate::lane::catch_up::metrics::CatchUpMetrics;
use crate::lane::metrics::{LaneFamilies, LaneMetrics};
use crate::lease::file::FileArbiter;
use crate::lease::mongodb::MongoDbArbiter;
use crate::lease::{self, Arbiter, Lease, LeaseError, Standing, Times};
use crate::output::PreparedOutput;
use crate::pipeline::begin::{Beginning, Begun, StartedPlugin};
use crate::pipeline::patience::patiently;
use crate::pipeline::places::shared_place;
pub use crate::pipeline::reload::ReloadMetrics;
pub use crate::pipeline::run::{Reload, ReloadRequest, Running};
use crate::pipeline::slot::{Ports, Slot};
use crate::snapshot::metrics::SnapshotMetrics;
use crate::snapshot::{self, SnapshotError};
use crate::source::connect::{Deployment, cluster_time, connect};
use crate::source::error::SourceError;
use crate::source::health::{Health, HealthMetrics};
use crate::source::metrics::SourceMetrics;
use crate::source::place::Place;
use crate::source::prepare;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;
use crate::window::Coverage;

/// Connections beside one per catch-up stream and, per output, one for its checkpoint and those of its snapshot: the shared stream,
/// the lease, dead letters, and the start. They are made when they are needed.
const SPARE_CONNECTIONS: u32 = 12;

/// Connections are allowed for at least so many outputs: a reload may add some.
const OUTPUTS_EXPECTED: u32 = 32;

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
    /// The stored progress of a snapshot cannot be read back.
    #[error(
        "checkpoint of {output}: its snapshot is damaged ({reason}); run: tailwater checkpoint set {output} ID|TIME"
    )]
    Rows {
        /// Whose.
        output: String,
        /// What is wrong.
        reason: String,
    },
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
    /// It was told to end before it had started.
    #[error("stopped before it had started")]
    Stopped,
    /// An output did not begin in time. A retry may help.
    #[error("no answer within {0:?}")]
    Slow(Duration),
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
    catch_ups: CatchUpMetrics,
    lease: lease::metrics::LeaseMetrics,
    dead_letters: DeadLetterMetrics,
    snapshots: SnapshotMetrics,
    headroom: headroom::HeadroomMetrics,
    reloads: reload::ReloadMetrics,
}

impl PipelineMetrics {
    /// Those of one output.
    fn of(&self, output: &str) -> LaneMetrics {
        self.dead_letters.of(output);
        self.lanes.of(output)
    }

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
        self.snapshots.register(registry);
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
    /// Open while a lane, a replay or an answer needs it: a folder belongs to the instance that delivers, and must be free when
    /// another one takes over.
    dead_letters: Mutex<Weak<dead_letters::Store>>,
    /// The shared stream without a filter.
    options: StreamOptions,
    metrics: PipelineMetrics,
    ports: Ports,
}

impl Shared {
    /// The deployment's cluster time.
    async fn now(&self) -> Result<Timestamp64, SourceError> {
        cluster_time(&self.deployment.client).await
    }

    /// The store of dead letters, looked after in the background as long as somebody has it.
    async fn dead_letters(&self) -> Result<Arc<dead_letters::Store>, DeadLetterError> {
        let mut open = self.dead_letters.lock().await;
        if let Some(store) = open.upgrade() {
            return Ok(store);
        }
        let (config, client) = (&self.config, &self.deployment.client);
        let metrics = self.metrics.dead_letters.clone();
        let store = Arc::new(dead_letters::Store::open(&config.dead_letters, &config.name, client, metrics).await?);
        *open = Arc::downgrade(&store);
        tokio::spawn(dead_letters::tend(Weak::clone(&open)));
        Ok(store)
    }

    /// The store for what this instance writes while it holds the lease in `epoch`.
    fn store_of(&self, epoch: Option<u64>) -> Arc<Store> {
        epoch.map_or_else(|| Arc::clone(&self.store), |epoch| Arc::new(self.store.with_epoch(epoch)))
    }

    /// Asks for the lease; afterwards it is known who has it.
    async fn begin_lease(&self) -> Result<Lease, LeaseError> {
        let arbiter = arbiter(&self.config, &self.deployment);
        Lease::begin(arbiter, Times::STANDARD, self.metrics.lease.clone()).await
    }
}

/// Where checkpoints are kept.
pub(crate) fn open_store(config: &Config, deployment: &Deployment) -> Result<Store, CheckpointError> {
    Ok(match &config.checkpoint.store {
        checkpoint::config::Store::MongoDb => Store::MongoDb(MongoDbStore::new(&deployment.client, &config.name)),
        checkpoint::config::Store::File { path } => Store::File(FileStore::open(path, &config.name)?),
    })
}

/// Who decides which instance holds the lease: where the checkpoints are.
pub(crate) fn arbiter(config: &Config, deployment: &Deployment) -> Arbiter {
    let instance = lease::instance();
    match &config.checkpoint.store {
        checkpoint::config::Store::MongoDb => {
            let (client, times) = (&deployment.client, &Times::STANDARD);
            Arbiter::MongoDb(MongoDbArbiter::new(client, &config.name, &instance, times))
        }
        checkpoint::config::Store::File { path } => Arbiter::File(FileArbiter::new(path, &config.name, &instance)),
    }
}

/// `Some` while this instance delivers the exclusive outputs.
fn epoch_of(standing: &Standing) -> Option<u64> {
    match standing {
        Standing::Holder { epoch } => Some(*epoch),
        Standing::Standby { .. } => None,
    }
}

/// Starts everything and returns when the stream is open and every lane at work that this instance is to run. `stop` ends a start
/// that has the lease in good order.
///
/// # Errors
/// See [`PipelineError`]. Nothing was delivered then, and what had started is stopped.
pub async fn start(
    config: Config,
    outputs: Vec<PreparedOutput>,
    metrics: PipelineMetrics,
    readiness: &Readiness,
    stop: impl Future<Output = ()>,
) -> Result<Running, PipelineError> {
    let per_output = 1 + snapshot::RANGES_AT_ONCE as u32;
    let connections = config.source.catch_up_streams_max
        + (outputs.len() as u32).max(OUTPUTS_EXPECTED) * per_output
        + SPARE_CONNECTIONS;
    let deployment = connect(config.source.uri.expose(), connections).await?;
    metrics.source.saw(deployment.now);
    let options = patiently(async || Ok(prepare(deployment.client.clone(), &config.source).await?)).await?;
    let store = Arc::new(open_store(&config, &deployment)?);
    let exclusive = outputs.iter().any(|output| !output.library.descriptor().broadcast);
    let shared = Arc::new(Shared {
        config,
        deployment,
        store,
        dead_letters: Mutex::default(),
        options,
        metrics,
        ports: Ports::default(),
    });
    let lease = if exclusive { Some(patiently(async || Ok(shared.begin_lease().await?)).await?) } else { None };
    let mut slots: Vec<Slot> =
        outputs.into_iter().map(|output| Slot::new(output, &shared.metrics, &shared.ports)).collect();
    let epoch = lease.as_ref().and_then(|lease| epoch_of(&lease.standing().borrow()));
    let begun = tokio::select! {
        begun = begin_all(&shared, &mut slots, epoch, readiness) => begun,
        // A standby must not wait for a lease that nobody uses.
        () = stop => Err(PipelineError::Stopped),
    };
    match begun {
        Ok((begun, stream, place)) => {
            let stream = stream.with_health(Health::new(shared.metrics.health.clone(), readiness));
            Ok(Running::new(shared, slots, begun, (lease, epoch), stream, place))
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
    epoch: Option<u64>,
    readiness: &Readiness,
) -> Result<BegunAll, PipelineError> {
    let store = shared.store_of(epoch);
    let wanted: Vec<(usize, Beginning)> = (slots.iter().enumerate())
        .filter(|(_, slot)| slot.is_wanted(epoch.is_some()))
        .map(|(index, slot)| (index, Beginning::of(slot, &store)))
        .collect();
    let firsts =
        try_join_all(wanted.iter().map(|(_, beginning)| patiently(async || beginning.first_place(shared).await)))
            .await?;
    let mut starting = Vec::new();
    for ((index, beginning), first) in wanted.into_iter().zip(firsts) {
        if first.paused {
            info!(output = slots[index].name(), "paused by an operator before; tailwater output resume starts it");
            slots[index].paused = true;
            slots[index].left_at = Some(first.place.time().seconds());
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
        patiently(async || beginning.reach_back(shared, first, plugin).await).await?;
    }
    let filter = coverage_of(slots).to_match().cloned();
    let options = StreamOptions { filter, ..shared.options.clone() };
    let now = Place::From(Timestamp64(shared.deployment.now.0 + 1));
    // Rows come first for an output with a snapshot: the window will have moved on until its stream begins.
    let streaming = starting.iter().filter(|(_, _, first)| first.rows.is_none()).map(|(_, _, first)| &first.place);
    let mut place = shared_place(streaming, now.clone());
    info!(%place, watch = options.scope.describe(), "opening the change stream");
    let open =
        async |place: &Place| patiently(async || Ok(ChangeStream::open(options.clone(), place.clone()).await?)).await;
    let stream = match open(&place).await {
        Ok(stream) => stream,
        // Of the outputs that began there: each lane meets it by itself and does what its `history_lost` says.
        Err(error @ PipelineError::Source(SourceError::HistoryLost { .. }))
            if starting.iter().any(|(_, _, first)| first.stored) =>
        {
            warn!("{error}; opening the shared stream at now");
            place = now;
            open(&place).await?
        }
        Err(error) => return Err(error),
    };
    for (_, beginning, first) in starting.iter_mut() {
        patiently(async || beginning.make_durable(shared, first, Some(&place)).await).await?;
        first.dead_letters = patiently(async || beginning.dead_letters(shared).await).await?;
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
