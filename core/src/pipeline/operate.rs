//! What operators ask of the running pipeline, carried out between two steps of its loop.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::info;

use super::Running;
use super::slot::{Phase, Slot};
use crate::checkpoint::CheckpointError;
use crate::control::{Command, OutputStatus, Refusal, Reply, Request, SnapshotStatus, Status, Target};
use crate::snapshot::{self, Progress};
use crate::source::place::Place;
use crate::source::stream::{ChangeStream, StreamOptions};

/// For what the loop waits for itself.
const WITHIN: Duration = Duration::from_secs(10);

impl Running {
    /// Carries a command out. Those that take long are answered later.
    pub(super) async fn operate(&mut self, request: Request) {
        let Request { command, reply } = request;
        let answer = match command {
            Command::Status => Ok(self.status()),
            Command::Pause { output } => return self.pause(&output, reply).await,
            Command::Resume { output } => return self.resume(&output, reply).await,
            Command::Checkpoints => self.checkpoints().await,
            Command::SetCheckpoint { output, to } => self.set_checkpoint(&output, to).await,
            Command::ResetCheckpoint { output } => self.reset_checkpoint(&output).await,
            Command::Snapshot { output, collections } => return self.snapshot(&output, collections, reply),
            Command::DeadLetters(ask) => return self.dead_letters(ask, reply),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
    }

    fn status(&self) -> Value {
        let holder = self.is_holder();
        let newest = self.shared.metrics.source.newest().seconds();
        let outputs = self.slots.iter().map(|slot| {
            let state = slot.word(holder).map_or_else(|| slot.metrics.current().word().to_owned(), str::to_owned);
            let (settled, estimated) = slot.metrics.snapshot_rows();
            OutputStatus {
                name: slot.name().to_owned(),
                plugin: slot.output.config.plugin.clone(),
                state,
                lag_seconds: slot.metrics.lag.get(),
                delivered: slot.metrics.delivered.get(),
                unsettled: slot.metrics.unsettled.get(),
                oplog_headroom_seconds: self.shared.metrics.headroom.of(slot.name()),
                snapshot: (estimated > 0).then_some(SnapshotStatus { settled, estimated }),
            }
        });
        let lease = match (self.has_lease(), holder) {
            (false, _) => "none",
            (true, true) => "holder",
            (true, false) => "standby",
        };
        let status =
            Status { name: self.shared.config.name.clone(), lease, cluster_time: newest, outputs: outputs.collect() };
        serde_json::to_value(status).unwrap_or_else(|e| json!({ "error": e.to_string() }))
    }

    /// The slot of an output that this instance may change.
    pub(super) fn own(&self, output: &str) -> Result<usize, Refusal> {
        let index = self.index(output).ok_or_else(|| {
            let known: Vec<_> = self.slots.iter().map(Slot::name).collect();
            Refusal::NotFound(format!("no output {output} is configured and enabled; there are {}", known.join(", ")))
        })?;
        if self.slots[index].is_broadcast() || self.is_holder() {
            return Ok(index);
        }
        let holder = "another instance delivers this output, ask that one (its logs name its host)";
        Err(Refusal::Conflict(holder.to_owned()))
    }

    async fn pause(&mut self, output: &str, reply: Reply) {
        let index = match self.own(output) {
            Ok(index) => index,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        // Durable before anything else: it must hold over a crash in the middle of the drain. A broadcast keeps nothing.
        if !self.slots[index].is_broadcast()
            && let Err(error) = within(self.store.pause(output, true)).await
        {
            return drop(reply.send(Err(error)));
        }
        info!(output, "paused by an operator");
        let slot = &mut self.slots[index];
        slot.paused = true;
        slot.waiting.push(reply);
        self.turn(index);
    }

    async fn resume(&mut self, output: &str, reply: Reply) {
        let index = match self.own(output) {
            Ok(index) => index,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let stopped = match &self.slots[index].phase {
            Phase::Running(_) => self.slots[index].metrics.is_stopped(),
            Phase::Failed => true,
            _ => false,
        };
        if !self.slots[index].paused && !stopped {
            let state = self.slots[index].word(true).unwrap_or("at work");
            let why = format!("output {output} is neither paused nor stopped, it is {state}");
            return drop(reply.send(Err(Refusal::Conflict(why))));
        }
        if !self.slots[index].is_broadcast() {
            let unpaused = async {
                match self.store.pause(output, false).await {
                    // Without a checkpoint there is nothing that holds it back: it was reset.
                    Err(CheckpointError::Missing { .. }) => Ok(()),
                    done => done,
                }
            };
            if let Err(error) = within(unpaused).await {
                return drop(reply.send(Err(error)));
            }
        }
        info!(output, "resumed by an operator");
        let slot = &mut self.slots[index];
        slot.paused = false;
        slot.waiting.push(reply);
        match slot.phase {
            Phase::Failed => slot.phase = Phase::Idle,
            // A lane that has stopped is ended, and begins anew from its checkpoint.
            Phase::Running(_) if stopped => slot.next = Some(Arc::clone(&slot.output)),
            _ => {}
        }
        self.turn(index);
    }

    async fn checkpoints(&self) -> Result<Value, Refusal> {
        let list = within(self.shared.store.list()).await?;
        let rows = list.iter().map(|(output, checkpoint)| checkpoint.to_json(output, self.index(output).is_some()));
        Ok(json!({ "checkpoints": rows.collect::<Vec<_>>() }))
    }

    /// Only a paused output may be moved: a lane at work would write its own place over it.
    fn paused(&self, output: &str) -> Result<usize, Refusal> {
        let index = self.own(output)?;
        let slot = &self.slots[index];
        if slot.is_broadcast() {
            let why =
                format!("output {output} is a broadcast and has no checkpoint: its clients carry their positions");
            return Err(Refusal::Conflict(why));
        }
        if !slot.paused || !slot.is_idle() {
            let why = format!("output {output} is at work, run: tailwater output pause {output}");
            return Err(Refusal::Conflict(why));
        }
        Ok(index)
    }

    async fn set_checkpoint(&mut self, output: &str, to: Target) -> Result<Value, Refusal> {
        let index = self.paused(output)?;
        let place = Place::from(to);
        let query = self.slots[index].output.config.query.clone();
        let options = StreamOptions { filter: query, ..self.shared.options.clone() };
        let now = within(self.shared.now()).await?;
        if place.time().seconds() > now.seconds() {
            let ahead = place.time().seconds() - now.seconds();
            return Err(Refusal::Conflict(format!("that is {ahead} s ahead of the deployment's cluster time")));
        }
        // A place that the oplog does not hold would stop the output at its next step.
        within(ChangeStream::open(options, place.clone())).await?;
        within(self.store.save(output, &place, None)).await?;
        info!(output, %place, "checkpoint set by an operator");
        Ok(json!({ "output": output, "place": place.to_string() }))
    }

    async fn reset_checkpoint(&mut self, output: &str) -> Result<Value, Refusal> {
        self.paused(output)?;
        within(self.store.remove(output)).await?;
        info!(output, "checkpoint reset by an operator");
        Ok(json!({ "output": output, "place": "source.start, when it is resumed" }))
    }

    fn snapshot(&mut self, output: &str, collections: Vec<String>, reply: Reply) {
        let index = match self.own(output) {
            Ok(index) => index,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let slot = &mut self.slots[index];
        let refusal = match slot.phase {
            _ if slot.is_broadcast() => {
                Some(format!("output {output} is a broadcast: its clients take news, not rows"))
            }
            _ if !self.shared.config.source.pipeline.is_empty() => Some(snapshot::NOT_WITH_PIPELINE.to_owned()),
            _ if slot.paused => Some(format!("output {output} is paused, run: tailwater output resume {output}")),
            Phase::Idle | Phase::Beginning(_) | Phase::Ending | Phase::Failed => {
                Some(format!("output {output} is not at work yet, ask again when it is"))
            }
            _ if slot.snapshot.is_some() || slot.metrics.snapshot_rows().1 > 0 => {
                Some(format!("a snapshot of output {output} is under way"))
            }
            _ => None,
        };
        if let Some(why) = refusal {
            return drop(reply.send(Err(Refusal::Conflict(why))));
        }
        // Counting and sampling take a while: the loop goes on meanwhile, and is told.
        let (shared, planned, output) = (Arc::clone(&self.shared), self.planned.clone(), output.to_owned());
        tokio::spawn(async move {
            let (client, watch) = (&shared.deployment.client, &shared.config.source.watch);
            match snapshot::plan(client, watch, &collections).await {
                // Where the pipeline has ended, so has its reply.
                Ok(plan) => drop(planned.send(Planned { output, plan, reply }).await),
                Err(error) => drop(reply.send(Err(Refusal::Conflict(error.to_string())))),
            }
        });
    }

    /// The lane ends, and begins again with the rows.
    pub(super) fn snapshot_planned(&mut self, planned: Planned) {
        let Planned { output, plan, reply } = planned;
        let found = self.own(&output).ok().filter(|index| {
            let slot = &self.slots[*index];
            matches!(slot.phase, Phase::Running(_)) && slot.snapshot.is_none() && slot.next.is_none()
        });
        let Some(index) = found else {
            let why = format!("output {output} is not at work any more, ask again when it is");
            return drop(reply.send(Err(Refusal::Conflict(why))));
        };
        info!(output, "snapshot asked for by an operator");
        let slot = &mut self.slots[index];
        slot.snapshot = Some(plan);
        slot.waiting.push(reply);
        self.turn(index);
    }
}

/// Does what has to be done before the loop goes on, but not for longer than the loop can wait: lanes end meanwhile, and a signal may
/// come.
async fn within<T, E: std::fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Result<T, Refusal> {
    match tokio::time::timeout(WITHIN, asked).await {
        Ok(done) => done.map_err(|error| Refusal::Failed(error.to_string())),
        Err(_) => Err(Refusal::Failed(format!("no answer from MongoDB within {WITHIN:?}; ask again"))),
    }
}

/// A snapshot that an operator asked for, ready to begin.
pub(super) struct Planned {
    output: String,
    plan: Progress,
    reply: Reply,
}
