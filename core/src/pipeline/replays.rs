//! Dead letters that are delivered once more: jobs that feed them to the lanes of their outputs, and what of it is done.
//!
//! A letter goes when its event is acknowledged; rejected again it stays, with the new reason. A job lives as long as the process: what
//! a crash interrupts is still among the dead letters, and is replayed by asking again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::{Mutex, oneshot};
use tracing::{info, warn};

use super::slot::Phase;
use super::{Running, Shared};
use crate::backoff::Backoff;
use crate::control::{Letters, Refusal, Reply};
use crate::dead_letters::api::{Dropped, Job, Listed, Progress, Whole};
use crate::dead_letters::{Chosen, DeadLetterError, LetterKey, Matched, Store, Stored};
use crate::lane::engine::effects::ReplayEnd;
use crate::lane::replay::{Replay, ReplaySender};

/// Jobs whose numbers are remembered.
const JOBS_MAX: usize = 100;

/// Jobs at work at once.
const WORKING_MAX: usize = 4;

/// Letters that are read at once, and their bytes. Those behind wait until all of them have ended: one that is tried for hours holds
/// back no others of its page.
const PAGE_MAX: usize = 1_000;
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// After the last letter of a page, while the store does not answer. What it does not take away then stays, and is delivered again.
const REMOVE_AGAIN: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(10) };
const REMOVE_TRIES: u32 = 10;

/// The jobs, by number.
#[derive(Default)]
pub(super) struct ReplayJobs {
    next: u64,
    jobs: BTreeMap<u64, Arc<JobState>>,
}

#[derive(Default)]
struct JobState {
    number: u64,
    done: AtomicBool,
    left: AtomicU64,
    acked: AtomicU64,
    rejected: AtomicU64,
    /// The first one. Held for moments only, never across a wait.
    error: std::sync::Mutex<Option<String>>,
}

impl JobState {
    fn progress(&self) -> Progress {
        Progress {
            done: self.done.load(Ordering::Acquire),
            acked: self.acked.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            left: self.left.load(Ordering::Relaxed),
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Something went wrong. All of it is in the log; whoever watches the job hears of the first.
    fn fault(&self, error: String) {
        warn!(job = self.number, "replay dead letters: {error}");
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Letters that were delivered, or rejected again.
    fn ended(&self) -> u64 {
        self.acked.load(Ordering::Relaxed) + self.rejected.load(Ordering::Relaxed)
    }

    /// So many of those that were left are done, or gone. Only the job itself calls it.
    fn none_left_of(&self, letters: u64) {
        self.left.store(self.left.load(Ordering::Relaxed).saturating_sub(letters), Ordering::Relaxed);
    }
}

impl ReplayJobs {
    fn working(&self) -> usize {
        self.jobs.values().filter(|job| !job.done.load(Ordering::Acquire)).count()
    }

    fn begin(&mut self) -> (u64, Arc<JobState>) {
        self.next += 1;
        let job = Arc::new(JobState { number: self.next, ..JobState::default() });
        self.jobs.insert(self.next, Arc::clone(&job));
        while self.jobs.len() > JOBS_MAX {
            self.jobs.pop_first();
        }
        (self.next, job)
    }
}

impl Running {
    /// Answers what is asked about dead letters. The store is asked in the background: it may be slow, and the loop must not be.
    pub(super) fn dead_letters(&mut self, asked: Letters, reply: Reply) {
        let shared = Arc::clone(&self.shared);
        match asked {
            Letters::Job(number) => {
                let found = self.replays.jobs.get(&number).map(|job| job.progress());
                let answer = found.ok_or_else(|| Refusal::NotFound(format!("there is no replay number {number}")));
                let _ = reply.send(answer.map(|progress| json!(progress)));
            }
            Letters::Replay(chosen) => self.replay(chosen, reply),
            Letters::List(filter) => answer(reply, async move {
                let page = shared.dead_letters().await?.list(&filter).await?;
                Ok(json!(Listed::from(&page)))
            }),
            Letters::Show(key) => answer(reply, async move {
                let found = shared.dead_letters().await?.get(&key).await?;
                Ok(found.map_or(json!(null), |stored| json!(Whole::from(&stored))))
            }),
            Letters::Drop(chosen) => answer(reply, async move {
                let dropped = shared.dead_letters().await?.drop_chosen(&chosen).await?;
                info!(dropped, "dead letters dropped by an operator");
                Ok(json!(Dropped { dropped }))
            }),
        }
    }

    fn replay(&mut self, chosen: Chosen, reply: Reply) {
        let lanes = match self.lanes_for(&chosen) {
            Ok(lanes) => lanes,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let (number, job) = self.replays.begin();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            match plan(&shared, &chosen, &lanes).await {
                Ok((store, plan)) => {
                    let begun = Job { job: number, ..plan };
                    job.left.store(begun.total(), Ordering::Relaxed);
                    let _ = reply.send(Ok(json!(begun)));
                    let Job { matched, stubs, unreachable, .. } = begun;
                    info!(job = number, letters = matched, stubs, unreachable, "replaying dead letters");
                    for lane in lanes {
                        if let Err(error) = replay_output(&store, &lane, &chosen, &job).await {
                            job.fault(format!("output {}: {error}; the rest of its letters stay", lane.output));
                        }
                    }
                    let Progress { acked, rejected, left, .. } = job.progress();
                    info!(job = number, acked, rejected, left, "replay is over");
                }
                Err(error) => drop(reply.send(Err(Refusal::Failed(error.to_string())))),
            }
            job.done.store(true, Ordering::Release);
        });
    }

    /// The lanes of all outputs that are at work. Whoever names an output that is not gets no for an answer.
    fn lanes_for(&self, chosen: &Chosen) -> Result<Vec<LaneIn>, Refusal> {
        if self.replays.working() >= WORKING_MAX {
            let why = format!(
                "{WORKING_MAX} replays are at work, wait for one of them (the daemon's log tells of their ends)"
            );
            return Err(Refusal::Conflict(why));
        }
        for output in chosen.outputs.iter().chain(chosen.keys.iter().map(|key| &key.output)) {
            let slot = &self.slots[self.own(output)?];
            let why = match &slot.phase {
                _ if slot.paused => format!("is paused, run: tailwater output resume {output}"),
                Phase::Running(_) if !slot.metrics.is_stopped() => continue,
                Phase::Running(_) | Phase::Failed => {
                    format!("has stopped; mend the cause, then run: tailwater output resume {output}")
                }
                Phase::Idle | Phase::Beginning(_) | Phase::Ending => {
                    "is not at work yet, ask again when it is".to_owned()
                }
            };
            return Err(Refusal::Conflict(format!("nothing can be delivered to output {output}: it {why}")));
        }
        let lanes = self.slots.iter().filter(|slot| !slot.metrics.is_stopped()).filter_map(|slot| match &slot.phase {
            Phase::Running(ends) => Some(LaneIn {
                output: slot.name().to_owned(),
                replays: ends.replays.clone(),
                turn: Arc::clone(&ends.replays_turn),
            }),
            _ => None,
        });
        let lanes: Vec<LaneIn> = lanes.collect();
        if lanes.is_empty() {
            return Err(Refusal::Conflict("no output is at work here, so nothing can be delivered".to_owned()));
        }
        Ok(lanes)
    }
}

/// Where the replays of one output go in.
struct LaneIn {
    output: String,
    replays: ReplaySender,
    /// One job at a time: a second one finds what the first has left.
    turn: Arc<Mutex<()>>,
}

/// The store, and how much is chosen: of it all, and of the outputs at work.
async fn plan(shared: &Shared, chosen: &Chosen, lanes: &[LaneIn]) -> Result<(Arc<Store>, Job), DeadLetterError> {
    let store = shared.dead_letters().await?;
    let Matched { letters: matched, stubs } = store.count(chosen).await?;
    let mut reachable = 0;
    for lane in lanes {
        let of_lane = store.count(&chosen.only(&lane.output)).await?;
        reachable += of_lane.letters - of_lane.stubs;
    }
    // Letters come and go while they are counted.
    let unreachable = matched.saturating_sub(stubs).saturating_sub(reachable);
    Ok((store, Job { matched, stubs, unreachable, ..Job::default() }))
}

/// Page by page, in stream order; the next page is read when all of the last one have ended. No more than there are now: what is
/// rejected meanwhile is not delivered again at once, over and over.
async fn replay_output(store: &Store, lane: &LaneIn, chosen: &Chosen, job: &JobState) -> Result<(), DeadLetterError> {
    let _turn = lane.turn.lock().await;
    let there = store.count(&chosen.only(&lane.output)).await?;
    let letters = chosen.of(&lane.output);
    let before = job.ended();
    let (mut unread, mut after) = (there.letters as usize, None);
    while unread > 0 {
        let page = store.load(&lane.output, &letters, after, PAGE_MAX.min(unread), PAGE_BYTES_MAX).await?;
        let Some(last) = page.last() else { break };
        (after, unread) = (Some(last.summary.key.id), unread - page.len());
        if !replay_page(store, lane, &page, job).await? {
            let output = &lane.output;
            job.fault(format!(
                "output {output} was ended or has stopped before all were done; the rest of its letters stay"
            ));
            return Ok(());
        }
    }
    // Those that are not there any more need nothing.
    job.none_left_of((there.letters - there.stubs).saturating_sub(job.ended() - before));
    Ok(())
}

/// Each letter goes as its event is acknowledged. False when the lane has not done all of them.
async fn replay_page(store: &Store, lane: &LaneIn, page: &[Stored], job: &JobState) -> Result<bool, DeadLetterError> {
    let letters = page.iter().filter_map(|stored| match stored.letter() {
        Ok(letter) => Some(letter),
        Err(why) => {
            // A stub was counted as one.
            if !stored.summary.stub {
                job.fault(format!("dead letter {} stays: {why}", stored.summary.key));
            }
            None
        }
    });
    let mut ends = stream::iter(letters)
        .then(async |letter| {
            let (end, ended) = oneshot::channel();
            let key = LetterKey::new(letter.output, letter.id);
            // A lane that is gone drops it, and so does one that ends.
            let _ = lane.replays.send(Replay { event: letter.event, attempts: letter.attempts, end }).await;
            (key, ended)
        })
        .map(async |(key, ended)| (key, ended.await.unwrap_or(ReplayEnd::Dropped)))
        .buffer_unordered(PAGE_MAX)
        .ready_chunks(PAGE_MAX)
        .boxed();
    let (mut acked, mut whole) = (Vec::new(), true);
    while let Some(ended) = ends.next().await {
        for (key, end) in ended {
            match end {
                ReplayEnd::Acked => acked.push(key),
                ReplayEnd::Rejected { reason, attempts } => {
                    // It stays in any case; only what is said of it would be old.
                    if let Err(error) = store.update(&key, &reason, attempts).await {
                        job.fault(format!("{error}; dead letter {key} was rejected again: {reason}"));
                    }
                    job.rejected.fetch_add(1, Ordering::Relaxed);
                    job.none_left_of(1);
                }
                // Nothing more will be delivered.
                ReplayEnd::Dropped => whole = false,
            }
        }
        if let Err(error) = remove(store, &mut acked, job).await {
            // Together with those that come next.
            warn!(output = lane.output, "{error}; trying again");
        }
    }
    let mut attempt = 0;
    while let Err(error) = remove(store, &mut acked, job).await {
        attempt += 1;
        if attempt == REMOVE_TRIES {
            return Err(error);
        }
        tokio::time::sleep(REMOVE_AGAIN.delay(attempt, rand::random())).await;
    }
    Ok(whole)
}

/// Takes away what was delivered; without an error none of it is left in `acked`.
async fn remove(store: &Store, acked: &mut Vec<LetterKey>, job: &JobState) -> Result<(), DeadLetterError> {
    store.remove(acked).await?;
    job.acked.fetch_add(acked.len() as u64, Ordering::Relaxed);
    job.none_left_of(acked.len() as u64);
    acked.clear();
    Ok(())
}

fn answer(reply: Reply, asked: impl Future<Output = Result<serde_json::Value, DeadLetterError>> + Send + 'static) {
    tokio::spawn(async move {
        let answer = asked.await.map_err(|error| Refusal::Failed(error.to_string())).and_then(|answer| match answer {
            serde_json::Value::Null => Err(Refusal::NotFound("there is no such dead letter".to_owned())),
            answer => Ok(answer),
        });
        let _ = reply.send(answer);
    });
}
