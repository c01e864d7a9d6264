//! Wires source, window, lanes, plugins and checkpoints; owns their lifetimes and the order in which they start and end. No
//! per-event work.
//!
//! The order of a start is argued here: plugins and options are proved before MongoDB is contacted, because a typo should
//! not need a server to be found; plugins start before the stream opens, so that no event waits for a port to be bound; a
//! start at "now" is durable before the daemon says that it is ready, so that from then on nothing is missed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures::future::{join_all, try_join_all};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::Readiness;
use crate::checkpoint::file::FileStore;
use crate::checkpoint::mongodb::MongoDbStore;
use crate::checkpoint::{self, CheckpointError, Store};
use crate::config::Config;
use crate::lane::durable::Durable;
use crate::lane::intake::Intake;
use crate::lane::life::{Change, Life};
use crate::lane::metrics::LaneFamilies;
use crate::lane::{Ended, Lane, LaneParts};
use crate::output::PreparedOutput;
use crate::plugin::Port;
use crate::source::config::{FullDocument, FullDocumentBeforeChange, Start};
use crate::source::connect::{Deployment, connect};
use crate::source::error::SourceError;
use crate::source::metrics::SourceMetrics;
use crate::source::place::Place;
use crate::source::pump;
use crate::source::scope::Scope;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;
use crate::window::Window;

/// Outputs this close to the newest one share its stream from the start; those further behind begin in catch-up.
const TOGETHER: Duration = Duration::from_secs(30);

/// Why the daemon cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The change stream.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A checkpoint could not be read, or a first one not written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A plugin says that it can never start like this.
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
    lanes: LaneFamilies,
}

impl PipelineMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        self.source.register(registry);
        self.lanes.register(registry);
    }
}

/// Starts everything and returns when the stream is open and every lane at work.
///
/// # Errors
/// See [`PipelineError`]. Nothing was delivered then.
pub async fn start(
    config: Config,
    outputs: Vec<PreparedOutput>,
    metrics: PipelineMetrics,
    readiness: &Readiness,
) -> Result<Running, PipelineError> {
    let source_ready = readiness.wait_for("source");
    let PipelineMetrics { source: source_metrics, lanes: families } = metrics;
    let deployment = connect(config.source.uri.expose()).await?;
    source_metrics.saw(deployment.now);
    let store = open_store(&config.checkpoint, &config.name, &deployment)?;
    let places = try_join_all(outputs.iter().map(|output| first_place(output, &store, &config, &deployment))).await?;
    let lives = start_plugins(&outputs, readiness).await?;

    let options = stream_options(&config, &deployment, &outputs);
    let place = shared_place(&places);
    info!(%place, watch = options.scope.describe(), "opening the change stream");
    let stream = ChangeStream::open(options.clone(), place.clone()).await?;
    let window = Arc::new(Window::new(config.window.bytes_max, place));
    let permits = Arc::new(Semaphore::new(config.source.catch_up_streams_max as usize));

    let mut lanes = Vec::new();
    for ((output, life), place) in outputs.into_iter().zip(lives).zip(places) {
        let own = StreamOptions { filter: output.config.query.clone(), ..options.clone() };
        let intake = Intake::new(Arc::clone(&window), &place, own, Arc::clone(&permits));
        let descriptor = output.library.descriptor();
        let kept = (!descriptor.broadcast).then(|| Arc::clone(&store));
        let durable =
            Durable::new(kept, &output.config.name, &config.checkpoint, output.config.ahead_max, place.clone());
        let lane = Lane::new(LaneParts {
            matcher: output.matcher,
            intake,
            life,
            durable,
            place,
            batch_events_max: descriptor.batch_events_max,
            wants_json: descriptor.wants_json,
            metrics: families.of(&output.config.name),
            source: source_metrics.clone(),
            config: output.config,
        });
        lanes.push(lane);
    }
    let (stop_pump, pump_stop) = watch::channel(false);
    let pump = tokio::spawn(pump(stream, window, source_metrics, pump_stop));
    let (drain_lanes, drain) = watch::channel(None);
    let lanes = lanes.into_iter().map(|lane| tokio::spawn(lane.run(drain.clone()))).collect();
    source_ready.done();
    info!("running");
    Ok(Running { pump, stop_pump, lanes, drain_lanes, grace: config.shutdown_grace })
}

/// A pipeline at work.
pub struct Running {
    pump: JoinHandle<Result<(), SourceError>>,
    stop_pump: watch::Sender<bool>,
    lanes: Vec<JoinHandle<Ended>>,
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
        let source = tokio::select! {
            ended = &mut self.pump => Some(ended),
            () = stop => None,
        };
        let deadline = Instant::now() + self.grace;
        info!(grace = ?self.grace, "draining");
        self.stop_pump.send_replace(true);
        self.drain_lanes.send_replace(Some(deadline));
        let mut first_error = None;
        for lane in join_all(self.lanes).await {
            match lane {
                Ok(ended) if ended.unsettled == 0 => {
                    info!(output = ended.output, durable = %ended.durable, "output drained");
                }
                Ok(ended) => warn!(
                    output = ended.output,
                    unsettled = ended.unsettled,
                    durable = %ended.durable,
                    "output ended with unsettled events; they are delivered after the next start"
                ),
                Err(error) => first_error = Some(PipelineError::Internal("a lane", error)),
            }
        }
        match source {
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(error)) => Err(PipelineError::Internal("the source", error)),
            Some(Ok(Ok(()))) | None => first_error.map_or(Ok(()), Err),
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

/// Where an output begins: at its checkpoint, or at `source.start`, which is made durable at once.
async fn first_place(
    output: &PreparedOutput,
    store: &Store,
    config: &Config,
    deployment: &Deployment,
) -> Result<Place, PipelineError> {
    let name = &output.config.name;
    let after_now = Place::From(Timestamp64(deployment.now.0 + 1));
    if output.library.descriptor().broadcast {
        return Ok(after_now);
    }
    if let Some(place) = store.load(name).await? {
        info!(output = name, %place, "going on at the checkpoint");
        return Ok(place);
    }
    let place = match &config.source.start {
        Start::Now => after_now,
        Start::Time { seconds } => Place::From(Timestamp64(u64::from(*seconds) << 32)),

        Start::Event { id } => Place::AfterId(*id),
    };
    let ahead = place.time().seconds().saturating_sub(deployment.now.seconds() + 1);
    if ahead > 0 {
        return Err(PipelineError::StartInFuture { seconds: ahead });
    }
    store.save(name, &place).await?;
    info!(output = name, %place, "no checkpoint yet, beginning at source.start");
    Ok(place)
}

/// One attempt for each; an output whose attempt did not succeed tries on by itself while the others work.
async fn start_plugins(outputs: &[PreparedOutput], readiness: &Readiness) -> Result<Vec<Life>, PipelineError> {
    let starts = outputs.iter().map(|output| async move {
        let name = &output.config.name;
        let port = Port::new(name, output.config.json);
        let condition = readiness.wait_for(&format!("plugin of {name}"));
        let mut life = Life::new(output.library.clone(), port, Arc::new(output.config.options.clone()), condition);
        match life.change().await {
            Change::Fatal(reason) => Err(PipelineError::Plugin { output: name.clone(), reason }),
            Change::NotStarted { reason, wait } => {
                warn!(output = name, ?wait, "plugin did not start: {reason}; trying again");
                Ok(life)
            }
            Change::Started => {
                info!(output = name, plugin = output.library.descriptor().name, "plugin started");
                Ok(life)
            }
            // Not before a batch was handed out.
            Change::Outcome(_) => Ok(life),
        }
    });
    let mut lives = Vec::new();
    let mut refused = None;
    for start in join_all(starts).await {
        match start {
            Ok(life) => lives.push(life),
            Err(error) => refused = Some(refused.unwrap_or(error)),
        }
    }
    match refused {
        None => Ok(lives),
        Some(error) => {
            // What did start is ended in order, ports closed.
            join_all(lives.iter_mut().map(|life| life.stop(Duration::from_secs(5)))).await;
            Err(error)
        }
    }
}

/// The oldest place within [`TOGETHER`] of the newest.
fn shared_place(places: &[Place]) -> Place {
    let newest = places.iter().map(|place| place.time().seconds()).max().unwrap_or(0);
    let near = newest.saturating_sub(TOGETHER.as_secs() as u32);
    let oldest = places
        .iter()
        .filter(|place| place.time().seconds() >= near)
        .reduce(|oldest, place| if oldest.is_covered_since(place) { place } else { oldest });
    oldest.cloned().unwrap_or(Place::From(Timestamp64(1)))
}

fn stream_options(config: &Config, deployment: &Deployment, outputs: &[PreparedOutput]) -> StreamOptions {
    let source = &config.source;
    StreamOptions {
        client: deployment.client.clone(),
        scope: Scope::new(&source.watch),
        full_document: match source.full_document {
            FullDocument::Off => None,
            FullDocument::UpdateLookup => Some("updateLookup"),
            FullDocument::WhenAvailable => Some("whenAvailable"),
            FullDocument::Required => Some("required"),
        },
        full_document_before_change: match source.full_document_before_change {
            FullDocumentBeforeChange::Off => None,
            FullDocumentBeforeChange::WhenAvailable => Some("whenAvailable"),
            FullDocumentBeforeChange::Required => Some("required"),
        },
        show_expanded_events: source.show_expanded_events,
        pipeline: source.pipeline.clone(),
        filter: union(outputs.iter().map(|output| output.config.query.as_ref())),
    }
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
