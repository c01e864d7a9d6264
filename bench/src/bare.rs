//! The reference: a loop over raw batches of the same driver that does nothing but count the documents.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use mongodb::Client;

use crate::contender::{LoopResult, hold_until_told};
use crate::stream;

/// Of `tailwater-bench bare`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Of the replica set
    #[arg(long)]
    uri: String,
    /// The stream's pipeline, as BSON in hex digits
    #[arg(long)]
    pipeline: String,
    /// How many events there are
    #[arg(long)]
    events: u64,
}

/// Reads all events, prints how long that took, and stays until the harness has looked at the process.
pub async fn run(arguments: Arguments) -> Result<()> {
    let client = Client::with_uri_str(&arguments.uri).await.context("connect to MongoDB")?;
    let database = client.database(stream::DATABASE);
    let cursor = database
        .aggregate(stream::from_hex(&arguments.pipeline)?)
        .batch_size(stream::BATCH_SIZE)
        .max_await_time(Duration::from_millis(stream::AWAIT_MAX_MS))
        .batch();
    let mut cursor = cursor.await.context("open the change stream")?;
    let mut events = 0;
    let mut first: Option<(Instant, u64)> = None;
    while events < arguments.events {
        let batch = cursor.next().await.context("the change stream ended")?.context("read the change stream")?;
        events += batch.doc_slices().context("a batch without documents")?.into_iter().count() as u64;
        if events > 0 && first.is_none() {
            first = Some((Instant::now(), events));
        }
    }
    let (since, first_events) = first.context("no event came")?;
    let result = LoopResult { events, first_events, seconds: since.elapsed().as_secs_f64() };
    hold_until_told(&result)
}
