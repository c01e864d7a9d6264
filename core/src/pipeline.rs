//! Wires source, window, lanes, plugins and checkpoints; owns their lifetimes and the order in which they start and end. No
//! per-event work.
//!
//! The order of a start is argued here: plugins and options are proved before MongoDB is contacted, because a typo should
//! not need a server to be found; plugins start before the stream opens, so that no event waits for a port to be bound; a
//! start at "now" is durable before the daemon says that it is ready, so that from then on nothing is missed.

mod places;
mod plugins;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use futures::stream::FuturesUnordered;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin::Readiness;
use crate::checkpoint::file::FileStore;
use crate::checkpoint::mongodb::MongoDbStore;
use crate::checkpoint::{self, CheckpointError, Store};
use crate::config::Config;
use crate::lane::broadcast::Broadcast;
use crate::lane::durable::Durable;
use crate::lane::intake::Intake;
use crate::lane::metrics::{LaneFamilies, State};
use crate::lane::{Ended, Lane, LaneParts};
use crate::output::PreparedOutput;
use crate::pipeline::places::{FirstPlace, first_place, go_back, shared_place};
use crate::pipeline::plugins::{StartedPlugin, start_plugins};
use crate::source::connect::{Deployment, connect};
use crate::source::error::SourceError;
use crate::source::health::{Health, HealthMetrics};
use crate::source::metrics::SourceMetrics;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;
use crate::source::{prepare, pump};
use crate::window::Window;

/// Connections beside one per output for its checkpoint and one per catch-up stream: the shared stream, and the start.
const SPARE_CONNECTIONS: u32 = 4;

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
}

impl PipelineMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        self.source.register(registry);
        self.health.register(registry);
        self.lanes.register(registry);
    }
}

/// Starts everything and returns when the stream is open and every lane at work.
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
    let store = open_store(&config.checkpoint, &config.name, &deployment)?;
    let mut places =
        try_join_all(outputs.iter().map(|output| first_place(output, &store, &config, &deployment))).await?;
    let mut plugins = start_plugins(&outputs, readiness).await?;
    match open_stream(&config, &deployment, &outputs, &mut places, &plugins, &store).await {
        Ok((stream, options)) => {
            let health = Health::new(metrics.health.clone(), readiness);
            let (stream, now) = (stream.with_health(health), deployment.now);
            let started = Started { outputs, places, plugins, store, stream, options, now };
            Ok(run_lanes(config, started, metrics))
        }
        Err(error) => {
            join_all(plugins.iter_mut().map(|plugin| plugin.life.stop(STOP_AGAIN))).await;
            Err(error)
        }
    }
}

/// Opens the shared stream; then, and only then, places that did not come from a checkpoint become durable: one that the
/// oplog does not reach must not outlive the mending of `source.start`.
async fn open_stream(
    config: &Config,
    deployment: &Deployment,
    outputs: &[PreparedOutput],
    places: &mut [FirstPlace],
    plugins: &[StartedPlugin],
    store: &Store,
) -> Result<(ChangeStream, StreamOptions), PipelineError> {
    let filter = union(outputs.iter().map(|output| output.config.query.as_ref()));
    let options = StreamOptions { filter, ..prepare(deployment.client.clone(), &config.source).await? };
    for ((output, plugin), first) in outputs.iter().zip(plugins).zip(places.iter_mut()) {
        let wanted = plugin.life.wanted_history();
        if output.library.descriptor().broadcast && !wanted.is_zero() {
            go_back(first, output, wanted, &options_of(output, &options), deployment).await?;
        }
    }
    let place = shared_place(places);
    info!(%place, watch = options.scope.describe(), "opening the change stream");
    let stream = ChangeStream::open(options.clone(), place.clone()).await?;
    for (output, first) in outputs.iter().zip(places) {
        if first.stored || output.library.descriptor().broadcast {
            continue;
        }
        if !first.place.is_covered_since(&place) {
            ChangeStream::open(options_of(output, &options), first.place.clone()).await?;
        }
        store.save(&output.config.name, &first.place).await?;
    }
    Ok((stream, options))
}

/// Everything that was started, in the order of the outputs.
struct Started {
    outputs: Vec<PreparedOutput>,
    places: Vec<FirstPlace>,
    plugins: Vec<StartedPlugin>,
    store: Arc<Store>,
    stream: ChangeStream,
    options: StreamOptions,
    /// Of the deployment, when the daemon started: what is newer is news.
    now: Timestamp64,
}

fn run_lanes(config: Config, started: Started, metrics: PipelineMetrics) -> Running {
    let Started { outputs, places, plugins, store, stream, options, now } = started;
    let window = Arc::new(Window::new(config.window.bytes_max, shared_place(&places)));
    let permits = Arc::new(Semaphore::new(config.source.catch_up_streams_max as usize));
    let (drain_lanes, drain) = watch::channel(None);
    let lanes = FuturesUnordered::new();
    for ((output, plugin), first) in outputs.into_iter().zip(plugins).zip(places) {
        let place = first.place;
        let own = options_of(&output, &options);
        let intake = Intake::new(Arc::clone(&window), &place, own, Arc::clone(&permits));
        let descriptor = output.library.descriptor();
        let kept = (!descriptor.broadcast).then(|| Arc::clone(&store));
        let (name, ahead_max) = (output.config.name.clone(), output.config.ahead_max);
        let durable = Durable::new(kept, &name, &config.checkpoint, ahead_max, place.clone());
        let lane_metrics = metrics.lanes.of(&name);
        let lane = Lane::new(LaneParts {
            matcher: output.matcher,
            intake,
            life: plugin.life,
            stopped: plugin.stopped,
            durable,
            place,
            batch_events_max: descriptor.batch_events_max,
            wants_json: descriptor.wants_json,
            broadcast: descriptor.broadcast.then(|| Broadcast::new(Timestamp64(now.0 + 1))),
            metrics: lane_metrics.clone(),
            source: metrics.source.clone(),
            config: output.config,
        });
        let task = tokio::spawn(lane.run(drain.clone()));
        let watched: LaneTask = Box::pin(async move {
            let ended = task.await;
            if let Err(error) = &ended {
                lane_metrics.state(State::Stopped);
                error!(output = name, "output stopped: its lane failed: {error}; this is a bug, please report it");
            }
            ended.ok()
        });
        lanes.push(watched);
    }
    let (stop_pump, pump_stop) = watch::channel(false);
    let pump = tokio::spawn(pump(stream, window, metrics.source, pump_stop));
    info!("running");
    Running { pump, stop_pump, lanes, drain_lanes, grace: config.shutdown_grace }
}

/// A lane at work: `None` when it failed, which was said then.
type LaneTask = Pin<Box<dyn Future<Output = Option<Ended>> + Send>>;

/// A pipeline at work.
pub struct Running {
    pump: JoinHandle<Result<(), SourceError>>,
    stop_pump: watch::Sender<bool>,
    lanes: FuturesUnordered<LaneTask>,
    drain_lanes: watch::Sender<Option<Instant>>,
    grace: Duration,
}

impl Running {
    /// Works until `stop` resolves or the source cannot go on, then drains: no more intake, what is in flight may settle, the
    /// checkpoints are written, the plugins stop; all within `shutdown_grace`.
    ///
    /// # Errors
    /// What ended the source. The lanes were drained all the same.
    pub async fn until(mut self, stop: impl Future<Output = ()>) -> Result<(), PipelineError> {
        tokio::pin!(stop);
        let source = loop {
            tokio::select! {
                ended = &mut self.pump => break Some(ended),
                () = &mut stop => break None,
                // Only a lane that failed ends by itself. The others do not notice.
                Some(_) = self.lanes.next() => {}
            }
        };
        let deadline = Instant::now() + self.grace;
        info!(grace = ?self.grace, "draining");
        self.stop_pump.send_replace(true);
        self.drain_lanes.send_replace(Some(deadline));
        while let Some(ended) = self.lanes.next().await {
            let Some(Ended { output, unsettled, durable }) = ended else { continue };
            if unsettled == 0 {
                info!(output, %durable, "output drained");
            } else {
                let what = "output ended with unsettled events; they are delivered after the next start";
                warn!(output, unsettled, %durable, "{what}");
            }
        }
        match source {
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(error)) => Err(PipelineError::Internal("the source", error)),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }
}

fn open_store(
    config: &checkpoint::config::Config,
    name: &str,
    deployment: &Deployment,
) -> Result<Arc<Store>, CheckpointError> {
    Ok(Arc::new(match &config.store {
        checkpoint::config::Store::MongoDb => Store::MongoDb(MongoDbStore::new(&deployment.client, name)),
        checkpoint::config::Store::File { path } => Store::File(FileStore::open(path, name)?),
    }))
}

/// The same stream for one output alone.
fn options_of(output: &PreparedOutput, shared: &StreamOptions) -> StreamOptions {
    StreamOptions { filter: output.config.query.clone(), ..shared.clone() }
}

/// One `$match` that lets through what any output wants; `None` as soon as one wants everything.
fn union<'a>(queries: impl Iterator<Item = Option<&'a Document>>) -> Option<Document> {
    let mut different: Vec<&Document> = Vec::new();
    for query in queries {
        let query = query?;
        if !different.contains(&query) {
            different.push(query);
        }
    }
    match different.as_slice() {
        [] => None,
        [only] => Some((*only).clone()),
        several => Some(doc! { "$or": several.iter().map(|query| (*query).clone()).collect::<Vec<_>>() }),
    }
}
