//! The output: renders a batch, waits for its channels, sends request after request, and says how each event ended.

use std::time::Duration;

use tailwater_sdk::{
    Batch, Context, Counter, DeliverError, Output, StartError, Verdict, Verdicts,
    tokio::time::{Instant, timeout_at},
    tracing,
};

use crate::{
    answer::Outcome,
    api::Api,
    config::Options,
    entry::{Entry, Templates},
    names::BATCH_ENTRIES_MAX,
    plan::Plan,
    turns::Turns,
};

/// Sends each event to channels of Pusher.
pub struct Pusher {
    templates: Templates,
    api: Api,
    turns: Turns,
    /// For one request.
    deadline: Duration,
    metrics: Metrics,
}

/// What is counted.
struct Metrics {
    events: Counter,
    /// Requests by the first digit of the answer's status; place 0 for those without an answer.
    requests: [Counter; 6],
}

/// The time that a delivery may take. A delivery that outlives the batch's timeout costs the whole instance.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// For one request.
    deadline: Duration,
    /// A request begun later might outlive the timeout. `None`: there is no timeout.
    begin_before: Option<Instant>,
}

/// How the events of a batch ended, by their places in it. What nobody says otherwise of comes again.
struct Ends {
    verdicts: Vec<Verdict>,
    pause_output: Option<Duration>,
}

impl Output for Pusher {
    type Options = Options;
    const SUMMARY: &'static str = "Sends each event to channels of Pusher, or of a server that speaks its HTTP API.";
    const BATCH_EVENTS_MAX: u32 = BATCH_ENTRIES_MAX as u32;
    const WANTS_JSON: bool = true;

    fn validate(options: &Options) -> Result<(), tailwater_sdk::Error> {
        options.check().map(drop).map_err(Into::into)
    }

    async fn start(options: Options, context: Context) -> Result<Self, StartError> {
        let templates = options.check()?;
        let api = Api::new(&options);
        tracing::info!(server = api.origin(), app_id = options.app_id, "ready to send");
        let metrics = Metrics::register(&context);
        Ok(Self { templates, api, turns: Turns::default(), deadline: options.deadline.0, metrics })
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let budget = Budget::of(self.deadline, batch.timeout(), Instant::now());
        let mut ends = Ends::new(batch.len());
        let mut plan = Plan::new(self.render(batch, &mut ends));
        let channels = plan.rest().iter().flat_map(|entry| &entry.channels);
        let position = batch.get(0).map_or("", |event| event.id());
        let turn = self.turns.queue(position, channels.map(String::as_str));
        if budget.wait(turn.come()).await {
            self.send(&mut plan, budget, &mut ends).await;
        }
        ends.into_result(batch)
    }
}

impl Pusher {
    /// The entries that can be sent. The others have ended, and so have the later events of their documents: those must not
    /// overtake them.
    fn render<'a>(&self, batch: &'a Batch, ends: &mut Ends) -> Vec<Entry<'a>> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut held = Vec::new();
        for (index, event) in batch.iter().enumerate() {
            if held.contains(&event.key()) {
                ends.verdicts[index] = behind();
                continue;
            }
            match self.templates.entry(index, event) {
                Ok(entry) => entries.push(entry),
                Err(verdict) => {
                    ends.verdicts[index] = verdict;
                    held.extend((event.key() != 0).then(|| event.key()));
                }
            }
        }
        entries
    }

    /// Sends what is planned, request after request. Leaves in the plan what there was no time for.
    async fn send(&self, plan: &mut Plan<'_>, budget: Budget, ends: &mut Ends) {
        while !plan.request().is_empty() && !budget.is_spent() {
            let (outcome, status) = self.api.send(plan.request(), budget.deadline).await;
            self.metrics.requests[status.map_or(0, |status| usize::from(status / 100).min(5))].add(1);
            let stop = match outcome {
                Outcome::Taken => {
                    let taken = plan.taken();
                    self.metrics.events.add(taken.len() as u64);
                    ends.set_all(&taken, &Verdict::Ack);
                    continue;
                }
                Outcome::Refused { reason } => {
                    if let Some((entry, followers)) = plan.refused() {
                        ends.verdicts[entry.index] = Verdict::reject(reason);
                        ends.set_all(&followers, &behind());
                    } else {
                        tracing::debug!(reason, "a batch was refused: its events go one by one");
                    }
                    continue;
                }
                Outcome::Retry { reason } => Verdict::retry(reason),
                Outcome::Pause { after, reason } => {
                    ends.pause_output = Some(after);
                    Verdict::retry(reason)
                }
                Outcome::Fatal { reason } => Verdict::fatal(reason),
            };
            for entry in plan.give_up() {
                ends.verdicts[entry.index] = stop.clone();
            }
        }
    }
}

/// Of an event that waits for an earlier one of its document.
fn behind() -> Verdict {
    Verdict::retry("an earlier event of the same document was not delivered")
}

impl Metrics {
    fn register(context: &Context) -> Self {
        let requests = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|status| {
            let help = "Requests to Pusher, by the status of the answer; none where there was no answer.";
            context.counter_with("pusher_requests_total", help, &[("status", status)])
        });
        let events = context.counter("pusher_events_total", "Events that Pusher has taken.");
        Self { events, requests }
    }
}

impl Budget {
    fn of(deadline: Duration, timeout: Option<Duration>, now: Instant) -> Self {
        let Some(timeout) = timeout else { return Self { deadline, begin_before: None } };
        let deadline = deadline.min(timeout / 2);
        // The twentieth part is for what lies between the daemon's clock and this one.
        let begin_before = now.checked_add(timeout - timeout / 20 - deadline);
        Self { deadline, begin_before }
    }

    /// False where the time passed before `turn` came.
    async fn wait(&self, turn: impl Future<Output = ()>) -> bool {
        match self.begin_before {
            Some(begin_before) => timeout_at(begin_before, turn).await.is_ok(),
            None => {
                turn.await;
                true
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.begin_before.is_some_and(|begin_before| Instant::now() > begin_before)
    }
}

impl Ends {
    fn new(events: usize) -> Self {
        let late = Verdict::retry("not sent: other requests to the same channels took too long");
        Self { verdicts: vec![late; events], pause_output: None }
    }

    fn set_all(&mut self, entries: &[Entry<'_>], verdict: &Verdict) {
        for entry in entries {
            self.verdicts[entry.index] = verdict.clone();
        }
    }

    fn into_result(self, batch: &Batch) -> Result<(), DeliverError> {
        let mut verdicts = Verdicts::new(Verdict::Ack);
        for (event, verdict) in batch.iter().zip(self.verdicts).filter(|(_, verdict)| *verdict != Verdict::Ack) {
            verdicts.set(&event, verdict);
        }
        match self.pause_output {
            None if verdicts.is_uniform() => Ok(()),
            None => Err(verdicts.into()),
            Some(after) => Err(verdicts.pause_output(after).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_ends_before_the_batchs_timeout_with_any_deadline() {
        let seconds = Duration::from_secs;
        // Deadline, timeout; deadline and last beginning of a request.
        for (deadline, timeout, expected) in [
            (15, Some(60), (15, Some(42))),
            (15, Some(20), (10, Some(9))),
            (600, Some(60), (30, Some(27))),
            (15, None, (15, None)),
        ] {
            let now = Instant::now();
            let budget = Budget::of(seconds(deadline), timeout.map(seconds), now);
            assert_eq!(budget.deadline, seconds(expected.0));
            assert_eq!(budget.begin_before, expected.1.map(|after| now + seconds(after)));
        }
    }
}
