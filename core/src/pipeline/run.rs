//! The loop of a running pipeline: brings every slot to what is wanted of it, until the daemon is to end; then drains.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::begin::{Beginning, Begun};
use super::headroom::watch_headroom;
use super::operate::Planned;
use super::replays::ReplayJobs;
use super::slot::{LaneEnds, Phase, Slot};
use super::{PipelineError, Shared, coverage_of, epoch_of};
use crate::checkpoint::Store;
use crate::config::Config;
use crate::control::{Refusal, Request};
use crate::dead_letters;
use crate::lane::broadcast::Broadcast;
use crate::lane::burial::Bury;
use crate::lane::catch_up::CatchUps;
use crate::lane::config::OnReject;
use crate::lane::durable::Durable;
use crate::lane::intake::Intake;
use crate::lane::metrics::State;
use crate::lane::rows::rows_of;
use crate::lane::{Ended, Guard, Lane, LaneParts};
use crate::lease::{Lease, Standing};
use crate::output::PreparedOutput;
use crate::snapshot::SnapshotReader;
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::pump::{Switch, pump};
use crate::source::stream::ChangeStream;
use crate::window::{Coverage, Window};

/// A configuration to go over to.
pub struct Reload {
    /// The whole file.
    pub config: Config,
    /// Its enabled outputs, proved.
    pub outputs: Vec<PreparedOutput>,
}

/// A reload, and who is told what became of it: what was done in a few words, or why nothing was.
pub type ReloadRequest = (Reload, oneshot::Sender<Result<String, String>>);

/// A lane at work, by its output's name: `None` when it failed.
type LaneTask = Pin<Box<dyn Future<Output = (String, Option<Ended>)> + Send>>;

/// An output that begins, or that does not after all.
type BeginTask = Pin<Box<dyn Future<Output = (String, Result<Begun, NotBegun>)> + Send>>;

/// Why an output has not begun.
enum NotBegun {
    /// It is not wanted any more.
    GivenUp,
    /// A fault of ours.
    Failed,
}

/// A pipeline at work.
pub struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) slots: Vec<Slot>,
    pub(super) window: Arc<Window>,
    pub(super) grace: Duration,
    lease: Option<Lease>,
    standing: watch::Receiver<Standing>,
    /// In which this instance holds the lease, as of the last change it has acted on.
    epoch: Option<u64>,
    /// For what it writes in that epoch.
    pub(super) store: Arc<Store>,
    catch_ups: Arc<CatchUps>,
    lanes: FuturesUnordered<LaneTask>,
    beginnings: FuturesUnordered<BeginTask>,
    pump: JoinHandle<Result<(), SourceError>>,
    pub(super) switches: mpsc::Sender<Switch>,
    /// What the shared stream is read for once the source has acted on all that was sent to it.
    pub(super) asked: Coverage,
    stop_pump: watch::Sender<bool>,
    /// The names of the exclusive outputs, for whoever watches the oplog; that task ends with it.
    pub(super) watched: watch::Sender<Vec<String>>,
    pub(super) replays: ReplayJobs,
    /// Snapshots that were planned in the background.
    pub(super) planned: mpsc::Sender<Planned>,
    plans: mpsc::Receiver<Planned>,
}

impl Running {
    /// Puts lanes to what has begun.
    pub(super) fn new(
        shared: Arc<Shared>,
        slots: Vec<Slot>,
        begun: Vec<(usize, Begun)>,
        (lease, epoch): (Option<Lease>, Option<u64>),
        stream: ChangeStream,
        place: Place,
    ) -> Running {
        let asked = coverage_of(&slots);
        let window = Arc::new(Window::new(shared.config.window.bytes_max, place, asked.clone()));
        let catch_ups = CatchUps::new(
            shared.options.clone(),
            shared.config.source.catch_up_streams_max,
            shared.metrics.catch_ups.clone(),
        );
        let (stop_pump, pump_stop) = watch::channel(false);
        let (switches, switched) = mpsc::channel(1);
        let source = shared.metrics.source.clone();
        let pump = tokio::spawn(pump(stream, Arc::clone(&window), source, pump_stop, switched));
        let (planned, plans) = mpsc::channel(4);
        let standing = match &lease {
            Some(lease) => lease.standing(),
            // Only broadcasts: they run everywhere.
            None => watch::channel(Standing::Standby { holder: None }).1,
        };
        let (watched, names) = watch::channel(exclusive_names(&slots));
        tokio::spawn(watch_headroom(Arc::clone(&shared), names));
        let mut running = Running {
            grace: shared.config.shutdown_grace,
            watched,
            slots,
            window,
            lease,
            standing,
            epoch,
            store: shared.store_of(epoch),
            catch_ups,
            lanes: FuturesUnordered::new(),
            beginnings: FuturesUnordered::new(),
            pump,
            switches,
            asked,
            stop_pump,
            replays: ReplayJobs::default(),
            planned,
            plans,
            shared,
        };
        for (index, begun) in begun {
            running.put_lane(index, begun);
        }
        running.turn_all();
        info!("running");
        running
    }

    /// Whether this instance delivers the exclusive outputs.
    pub(super) fn is_holder(&self) -> bool {
        self.epoch.is_some()
    }

    pub(super) fn has_lease(&self) -> bool {
        self.lease.is_some()
    }

    /// Works until `stop` resolves or the source cannot go on, then drains: no more intake, what is in flight may settle, the
    /// checkpoints are written, the plugins stop; all within `shutdown_grace`. At the end the lease is released, so that an instance
    /// that stands by goes on at once.
    ///
    /// # Errors
    /// What ended the source. The lanes were drained all the same.
    pub async fn until(
        mut self,
        stop: impl Future<Output = ()>,
        mut requests: mpsc::Receiver<Request>,
        mut reloads: mpsc::Receiver<ReloadRequest>,
    ) -> Result<(), PipelineError> {
        tokio::pin!(stop);
        let mut idle = tokio::time::interval(TELL_IDLE);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let source = loop {
            tokio::select! {
                ended = &mut self.pump => break Some(ended),
                () = &mut stop => break None,
                Some((name, ended)) = self.lanes.next() => self.lane_ended(&name, ended),
                Some((name, begun)) = self.beginnings.next() => self.has_begun(&name, begun),
                Some(request) = requests.recv() => self.operate(request).await,
                Some((reload, reply)) = reloads.recv() => {
                    let outcome = self.reload(reload).await;
                    // Who asked may have gone.
                    let _ = reply.send(outcome);
                }
                Some(planned) = self.plans.recv() => self.snapshot_planned(planned),
                Ok(()) = self.standing.changed() => self.stands(),
                _ = idle.tick() => self.tell_idle(),
            }
        };
        self.drain().await;
        match source {
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(error)) => Err(PipelineError::Internal("the source", error)),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }

    /// The lease was taken or lost.
    fn stands(&mut self) {
        let epoch = epoch_of(&self.standing.borrow_and_update());
        let before = std::mem::replace(&mut self.epoch, epoch);
        if before == epoch {
            return;
        }
        if before.is_some() {
            warn!("another instance has taken over; the exclusive outputs end here");
            // Also where this one has the lease again: its lanes are of an epoch that is over.
            self.end_exclusive();
        }
        self.store = self.shared.store_of(epoch);
        if epoch.is_some() {
            info!("this instance delivers to the exclusive outputs now");
        }
        self.turn_all();
    }

    /// A lane of a lost lease has nothing to wait for: what it would write is refused.
    fn end_exclusive(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_broadcast()) {
            // What is wanted of it is known to the other instance; this one reads it again when it takes over.
            slot.paused = false;
            slot.snapshot = None;
            match &slot.phase {
                Phase::Running(lane) => _ = lane.drain.send_replace(Some(Instant::now())),
                Phase::Beginning(task) => task.abort(),
                Phase::Idle | Phase::Ending | Phase::Failed => continue,
            }
            slot.phase = Phase::Ending;
            // Not to be begun when this instance has the lease again some day.
            if slot.snapshot.take().is_some() {
                slot.answer(Err(Refusal::Conflict(TAKEN_OVER.to_owned())));
            }
        }
    }

    /// The first exclusive output came with a reload.
    pub(super) fn put_lease(&mut self, lease: Lease) {
        self.standing = lease.standing();
        self.lease = Some(lease);
        self.stands();
    }

    /// A slot without a lane whose output is no longer configured.
    fn sweep(&mut self) {
        let lanes = &self.shared.metrics.lanes;
        self.slots.retain_mut(|slot| {
            let gone = slot.removed && slot.is_idle();
            if gone {
                slot.answer(Err(Refusal::NotFound(format!("output {} is no longer configured", slot.name()))));
                lanes.forget(slot.name());
                slot.port.set_configured(false);
                info!(output = slot.name(), "output removed; its checkpoint stays");
            }
            !gone
        });
    }

    pub(super) fn turn_all(&mut self) {
        self.sweep();
        for index in 0..self.slots.len() {
            self.turn(index);
        }
    }

    /// Takes the next step towards what is wanted of a slot. The end of each step calls it again.
    pub(super) fn turn(&mut self, index: usize) {
        let holder = self.is_holder();
        let deadline = Instant::now() + self.grace;
        let slot = &mut self.slots[index];
        if slot.is_idle() && slot.next.is_some() {
            slot.output = slot.next.take().expect("just seen");
            slot.phase = Phase::Idle;
        }
        let wanted = slot.is_wanted(holder);
        match &slot.phase {
            Phase::Running(lane) if !wanted => {
                lane.drain.send_replace(Some(deadline));
                slot.phase = Phase::Ending;
            }
            Phase::Beginning(task) if !wanted => {
                // Its end comes through `beginnings`.
                task.abort();
                slot.phase = Phase::Ending;
            }
            Phase::Idle if wanted => self.begin(index),
            Phase::Idle | Phase::Failed => slot.answer(Ok(json!({ "state": slot.word(holder).unwrap_or_default() }))),
            _ => {}
        }
    }

    fn begin(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let name = slot.name().to_owned();
        let task = tokio::spawn(Beginning::of(slot, &self.store).begin(Arc::clone(&self.shared)));
        slot.phase = Phase::Beginning(task.abort_handle());
        self.beginnings.push(Box::pin(async move {
            let begun = task.await.map_err(|error| {
                if error.is_panic() {
                    error!(output = name, "beginning the output failed: {error}; this is a bug, please report it");
                    return NotBegun::Failed;
                }
                NotBegun::GivenUp
            });
            (name, begun)
        }));
    }

    fn has_begun(&mut self, name: &str, begun: Result<Begun, NotBegun>) {
        let holder = self.is_holder();
        let Some(index) = self.index(name) else { return };
        let slot = &mut self.slots[index];
        // What was to begin with has been made durable.
        if begun.is_ok() {
            slot.snapshot = None;
        }
        match begun {
            Ok(begun) if begun.first.paused && matches!(slot.phase, Phase::Beginning(_)) => {
                slot.paused = true;
                slot.left_at = Some(begun.first.place.time().seconds());
                slot.phase = Phase::Idle;
                dismiss(begun);
            }
            Ok(begun) if slot.is_wanted(holder) && matches!(slot.phase, Phase::Beginning(_)) => {
                slot.answer(Ok(json!({ "state": "running" })));
                return self.put_lane(index, begun);
            }
            // Not wanted any more.
            Ok(begun) => {
                dismiss(begun);
                slot.phase = Phase::Idle;
            }
            Err(NotBegun::GivenUp) => slot.phase = Phase::Idle,
            Err(NotBegun::Failed) => {
                slot.metrics.state(State::Stopped);
                slot.phase = Phase::Failed;
            }
        }
        self.after_end(index);
    }

    fn put_lane(&mut self, index: usize, begun: Begun) {
        let shared = &self.shared;
        let slot = &mut self.slots[index];
        let output = Arc::clone(&slot.output);
        let (name, descriptor) = (output.config.name.clone(), output.library.descriptor());
        let place = begun.first.place;
        let query = output.config.query.clone();
        let kept = (!descriptor.broadcast).then(|| Arc::clone(&self.store));
        let rows = begun.first.rows.map(|progress| {
            let reader = SnapshotReader::start(&shared.deployment.client, &progress, &shared.metrics.snapshots);
            (progress, reader)
        });
        // Seen at once, not when the lane first has its turn: who asked for the snapshot looks whether it is under way.
        let (settled, expected) = rows.as_ref().map_or((0, 0), |(progress, _)| rows_of(progress));
        slot.metrics.snapshot(settled, expected);
        slot.metrics.state(State::Starting);
        let version = rows.as_ref().map(|(progress, _)| progress.version());
        let durable = Durable::new(kept, &name, &shared.config.checkpoint, place.clone(), version);
        let guard: Option<Guard> = match (&self.lease, self.epoch) {
            (Some(lease), Some(epoch)) if !descriptor.broadcast => {
                let guard = lease.guard(epoch);
                Some(Arc::new(move || guard.holds()))
            }
            _ => None,
        };
        let mut config = output.config.clone();
        if descriptor.broadcast && begun.first.dead_letters.is_none() {
            config.on_reject = OnReject::Skip;
        }
        let (drain, drained) = watch::channel(None);
        let (lane, replays) = Lane::new(LaneParts {
            matcher: output.matcher.clone(),
            intake: Intake::new(Arc::clone(&self.window), &place, query, Arc::clone(&self.catch_ups)),
            life: begun.plugin.life,
            stopped: begun.plugin.fatal.is_some(),
            durable,
            place,
            snapshot: rows,
            batch_events_max: descriptor.batch_events_max,
            wants_json: descriptor.wants_json,
            broadcast: descriptor.broadcast.then(|| Broadcast::new(begun.live_from)),
            guard,
            dead_letters: begun.first.dead_letters.map(bury),
            metrics: slot.metrics.clone(),
            source: shared.metrics.source.clone(),
            config,
        });
        let task = tokio::spawn(lane.run(drained));
        let metrics = slot.metrics.clone();
        slot.phase = Phase::Running(LaneEnds { drain, replays, replays_turn: Arc::default() });
        self.lanes.push(Box::pin(async move {
            let ended = task.await;
            if let Err(error) = &ended {
                metrics.state(State::Stopped);
                error!(output = name, "output stopped: its lane failed: {error}; this is a bug, please report it");
            }
            (name, ended.ok())
        }));
    }

    fn lane_ended(&mut self, name: &str, ended: Option<Ended>) {
        let Some(index) = self.index(name) else { return };
        let holder = self.is_holder();
        let slot = &mut self.slots[index];
        match ended {
            Some(ended) => {
                report(&ended, slot.is_broadcast());
                slot.left_at = Some(ended.durable.time().seconds());
                slot.phase = Phase::Idle;
                slot.metrics.has_no_lane();
                if !holder {
                    // How far it is from here on is known to another instance.
                    slot.metrics.snapshot(0, 0);
                }
            }
            None => slot.phase = Phase::Failed,
        }
        self.after_end(index);
    }

    /// A slot has no lane any more: it goes, or it takes its next step.
    fn after_end(&mut self, index: usize) {
        let slot = &self.slots[index];
        if slot.removed && slot.is_idle() { self.sweep() } else { self.turn(index) }
    }

    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.name() == name)
    }

    /// A lane writes its own lag; of an output without one it grows from where it was left.
    fn tell_idle(&self) {
        let newest = self.shared.metrics.source.newest().seconds();
        for slot in self.slots.iter().filter(|slot| slot.paused && slot.is_idle()) {
            if let Some(left_at) = slot.left_at {
                slot.metrics.lag.set(i64::from(newest.saturating_sub(left_at)));
            }
        }
    }

    async fn drain(mut self) {
        let deadline = Instant::now() + self.grace;
        info!(grace = ?self.grace, "draining");
        self.stop_pump.send_replace(true);
        for slot in &self.slots {
            match &slot.phase {
                Phase::Running(lane) => {
                    lane.drain.send_replace(Some(deadline));
                }
                Phase::Beginning(task) => task.abort(),
                Phase::Idle | Phase::Ending | Phase::Failed => {}
            }
        }
        while let Some((name, ended)) = self.lanes.next().await {
            if let Some(ended) = ended {
                report(&ended, self.index(&name).is_some_and(|index| self.slots[index].is_broadcast()));
            }
        }
        if let Some(lease) = self.lease.take() {
            let left = deadline.saturating_duration_since(Instant::now()).max(RELEASE_MIN);
            if tokio::time::timeout(left, lease.release()).await.is_err() {
                warn!("the lease could not be released in time; an instance that stands by waits until it ends");
            }
        }
    }
}

/// The outputs that have a checkpoint.
pub(super) fn exclusive_names(slots: &[Slot]) -> Vec<String> {
    slots.iter().filter(|slot| !slot.removed && !slot.is_broadcast()).map(|slot| slot.name().to_owned()).collect()
}

/// Between two looks at outputs without a lane.
const TELL_IDLE: Duration = Duration::from_secs(1);

/// To whoever asked for a snapshot.
const TAKEN_OVER: &str = "another instance has taken the output over, ask that one (its logs name its host)";

/// Even at the end of the grace: an instance that stands by waits for it.
const RELEASE_MIN: Duration = Duration::from_secs(1);

/// For a plugin that has begun and is not wanted any more.
const DISMISS_GRACE: Duration = Duration::from_secs(5);

fn dismiss(begun: Begun) {
    let mut life = begun.plugin.life;
    life.dismiss(DISMISS_GRACE);
}

/// A lane's way to the dead letters.
fn bury(store: Arc<dead_letters::Store>) -> Bury {
    Arc::new(move |letters| {
        let store = Arc::clone(&store);
        Box::pin(async move { store.put(&letters).await })
    })
}

/// What a lane left behind, for the operator.
fn report(ended: &Ended, is_broadcast: bool) {
    let Ended { output, unsettled, in_flight, durable, oldest_unsettled, .. } = ended;
    if is_broadcast {
        // Its clients carry their positions: nothing is owed to them.
        info!(output, "output drained");
    } else if *unsettled == 0 {
        info!(output, %durable, "output drained");
    } else {
        let oldest = oldest_unsettled.map(|id| id.to_string()).unwrap_or_default();
        let what = "output ended with unsettled events; they are delivered after the next start";
        warn!(output, unsettled, in_flight, oldest, %durable, "{what}");
    }
}
