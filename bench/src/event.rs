//! `event`: what JSON, a match and a template cost for one event, beside the same on a `bson::Document`. No mongod: the events are
//! made here. Before anything is measured, the contenders of a task must give the same answer.
//!
//! A plugin gets its events through the border, and so do the templates here: everything runs inside the `deliver` of an output
//! that the SDK's test harness drives.

mod json;
mod matching;
mod report;
mod rounds;
mod samples;
mod template;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use bson::{RawDocument, RawDocumentBuf};
use tailwater::event::JsonForm;
use tailwater_sdk::testing::{Harness, TestEvent};
use tailwater_sdk::{Batch, DeliverError, Output, StartError};

use crate::progress;
use crate::report::{Conditions, load_average};
use rounds::{Task, Times};

/// Of `tailwater-bench event`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds of all contenders in each run
    #[arg(long)]
    rounds: usize,
    /// How many runs
    #[arg(long)]
    runs: usize,
    /// Where the table is written to
    #[arg(long)]
    results: PathBuf,
}

/// What was measured.
pub struct Measured {
    /// Bytes of the two events.
    sizes: [usize; 2],
    times: Vec<Times>,
    /// Queries that the matcher does not take, with its reasons.
    refused: Vec<String>,
}

/// Measures and prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.runs > 0 && arguments.rounds > 0, "at least one run of one round is needed");
    let (begun, load) = (Instant::now(), load_average());
    let (answer, answered) = channel();
    *lock() = Some(Order { runs: arguments.runs, rounds: arguments.rounds, answer });
    let harness = Harness::<Stage>::start(serde_json::json!({})).map_err(|error| anyhow!("{error:?}"))?;
    let delivery = harness.begin_delivery(vec![test_event(&samples::small())?, test_event(&samples::large())?]);
    let measured = answered.recv().context("the output ended without a result")??;
    delivery.wait();
    harness.stop();
    let conditions = Conditions::without_mongod(load, begun.elapsed());
    let table = report::markdown(&conditions, arguments, &measured)?;
    println!("{table}");
    let file = &arguments.results;
    std::fs::write(file, table).with_context(|| format!("write {}", file.display()))?;
    progress(&format!("written to {}", file.display()));
    Ok(())
}

/// As the border would hand it over.
fn test_event(raw: &RawDocument) -> Result<TestEvent> {
    let event = tailwater::event::Event::from_raw(raw)?;
    let json = std::str::from_utf8(event.json(JsonForm::Plain)?)?.to_owned();
    let raw_bytes = |document: &RawDocument| document.as_bytes().to_vec();
    Ok(TestEvent {
        id: event.id().to_string(),
        raw: raw_bytes(raw),
        document_key: event.document_key().map(raw_bytes),
        full_document: event.full_document().map(raw_bytes),
        ..TestEvent::new("insert", "shop", "orders").json(&json)
    })
}

/// What the output is to do; it takes it when it gets its batch.
struct Order {
    runs: usize,
    rounds: usize,
    answer: Sender<Result<Measured>>,
}

static ORDER: Mutex<Option<Order>> = Mutex::new(None);

fn lock() -> std::sync::MutexGuard<'static, Option<Order>> {
    ORDER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// There is nothing to choose.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}

/// The output in which everything is measured.
struct Stage;

impl Output for Stage {
    type Options = Options;
    const SUMMARY: &'static str = "Measures what it is given.";

    async fn start(_: Options, _: tailwater_sdk::Context) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        if let Some(order) = lock().take() {
            // Who waits for it may have failed; it says so itself.
            let _ = order.answer.send(measure(batch, &order));
        }
        Ok(())
    }
}

fn measure(batch: &Batch, order: &Order) -> Result<Measured> {
    let queries = matching::queries();
    let raws: Vec<RawDocumentBuf> =
        batch.iter().map(|event| RawDocumentBuf::from_bytes(event.raw().to_vec())).collect::<Result<_, _>>()?;
    let [small, large] = &raws[..] else { anyhow::bail!("two events were sent") };
    let (mut tasks, mut refused): (Vec<Task<'_>>, Vec<String>) = Default::default();
    for ((size, raw), event) in [("500 B", small), ("20 KB", large)].into_iter().zip(batch.iter()) {
        tasks.extend(json::tasks(size, raw).context(size)?);
        let (matching, refusals) = matching::tasks(size, raw, &queries).context(size)?;
        tasks.extend(matching);
        refused = refusals;
        let json = event.json_as(tailwater_sdk::JsonForm::Plain).map_err(|error| anyhow!("{error}"))?;
        tasks.push(template::task(size, event, json, raw).context(size)?);
    }
    progress(&format!("{} tasks, refused: {}", tasks.len(), refused.len()));
    let times = rounds::measure(&tasks, order.runs, order.rounds);
    Ok(Measured { sizes: [small, large].map(|raw| raw.as_bytes().len()), times, refused })
}

#[cfg(test)]
mod tests {
    use super::samples;

    #[test]
    fn the_events_have_the_sizes_of_their_names() {
        let (small, large) = (samples::small().as_bytes().len(), samples::large().as_bytes().len());
        assert!((450..=550).contains(&small), "{small}");
        assert!((19_000..=21_000).contains(&large), "{large}");
    }
}
