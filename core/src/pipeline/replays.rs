//! Dead letters that are delivered once more: jobs that feed them to the lanes of their outputs, and what of it is done.
//!
//! A letter goes when its event is acknowledged; rejected again it stays, with the new reason. A job lives as long as the process: what
//! a crash interrupts is still among the dead letters, and is replayed by asking again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Running;
use super::slot::Phase;
use crate::control::{Letters, Refusal, Reply};
use crate::dead_letters::api::{Dropped, Job, Listed, Progress, Whole};
use crate::dead_letters::{Chosen, DeadLetterError, LetterKey, Store};
use crate::lane::engine::effects::ReplayEnd;
use crate::lane::replay::{Replay, ReplaySender};

/// Jobs whose numbers are remembered.
const JOBS_MAX: usize = 100;

/// Jobs at work at once.
const WORKING_MAX: usize = 4;

/// Letters that are read at once, and their bytes.
const PAGE_MAX: usize = 100;
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// The jobs, by number.
#[derive(Default)]
pub(super) struct ReplayJobs {
    next: u64,
    jobs: BTreeMap<u64, Arc<JobState>>,
}

#[derive(Default)]
struct JobState {
    done: AtomicBool,
    left: AtomicU64,
    acked: AtomicU64,
    rejected: AtomicU64,
}

impl JobState {
    fn progress(&self) -> Progress {
        Progress {
            done: self.done.load(Ordering::Acquire),
            acked: self.acked.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            left: self.left.load(Ordering::Relaxed),
        }
    }
}

impl ReplayJobs {
    fn working(&self) -> usize {
        self.jobs.values().filter(|job| !job.done.load(Ordering::Acquire)).count()
    }

    fn begin(&mut self) -> (u64, Arc<JobState>) {
        self.next += 1;
        let job = Arc::new(JobState::default());
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
        if self.replays.working() >= WORKING_MAX {
            let why = format!("{WORKING_MAX} replays are at work, wait for one of them");
            return drop(reply.send(Err(Refusal::Conflict(why))));
        }
        let named = chosen.outputs.iter().chain(chosen.keys.iter().map(|key| &key.output));
        for output in named {
            let at_work = self.index(output).is_some_and(|index| matches!(self.slots[index].phase, Phase::Running(_)));
            if !at_work {
                let why = format!("output {output} is not at work here, so nothing can be delivered to it");
                return drop(reply.send(Err(Refusal::Conflict(why))));
            }
        }
        let lanes: Vec<(String, ReplaySender)> = (self.slots.iter())
            .filter_map(|slot| match &slot.phase {
                Phase::Running(lane) => Some((slot.name().to_owned(), lane.replays.clone())),
                _ => None,
            })
            .collect();
        let (number, job) = self.replays.begin();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let counted = async {
                let store = shared.dead_letters().await?;
                let matched = store.count(&chosen).await?;
                Ok::<_, DeadLetterError>((store, matched))
            };
            match counted.await {
                Ok((store, matched)) => {
                    job.left.store(matched.letters - matched.stubs, Ordering::Relaxed);
                    let begun = Job { job: number, matched: matched.letters, stubs: matched.stubs };
                    let _ = reply.send(Ok(json!(begun)));
                    info!(job = number, letters = matched.letters, stubs = matched.stubs, "replaying dead letters");
                    for (output, lane) in lanes {
                        if let Err(error) = replay_output(&store, &output, &chosen, &lane, &job).await {
                            warn!(job = number, output, "replay dead letters: {error}; the rest of them stay");
                        }
                    }
                    let Progress { acked, rejected, .. } = job.progress();
                    info!(job = number, acked, rejected, "replay is over");
                }
                Err(error) => drop(reply.send(Err(Refusal::Failed(error.to_string())))),
            }
            job.left.store(0, Ordering::Relaxed);
            job.done.store(true, Ordering::Release);
        });
    }
}

/// Page by page, in stream order; the next page is read when all of the last one have ended.
async fn replay_output(
    store: &Store,
    output: &str,
    chosen: &Chosen,
    lane: &ReplaySender,
    job: &JobState,
) -> Result<(), DeadLetterError> {
    let letters = chosen.of(output);
    let mut after = None;
    loop {
        let page = store.load(output, &letters, after, PAGE_MAX, PAGE_BYTES_MAX).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.summary.key.id);
        let mut ends = FuturesUnordered::new();
        for stored in &page {
            // A stub stays; it was counted as one.
            let Ok(letter) = stored.letter() else { continue };
            let (end, ended) = oneshot::channel();
            let attempts = letter.attempts;
            if lane.send(Replay { event: letter.event, attempts, end }).await.is_err() {
                return Ok(());
            }
            let key = stored.summary.key.clone();
            ends.push(async move { (key, attempts, ended.await.unwrap_or(ReplayEnd::Dropped)) });
        }
        let mut acked: Vec<LetterKey> = Vec::new();
        while let Some((key, attempts, end)) = ends.next().await {
            match end {
                ReplayEnd::Acked => acked.push(key),
                ReplayEnd::Rejected { reason } => {
                    store.update(&key, &reason, attempts.saturating_add(1)).await?;
                    job.rejected.fetch_add(1, Ordering::Relaxed);
                    job.left.fetch_sub(1, Ordering::Relaxed);
                }
                // The lane is ending: nothing more will be delivered.
                ReplayEnd::Dropped => after = None,
            }
        }
        store.remove(&acked).await?;
        job.acked.fetch_add(acked.len() as u64, Ordering::Relaxed);
        job.left.fetch_sub(acked.len() as u64, Ordering::Relaxed);
        if after.is_none() {
            return Ok(());
        }
    }
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
