//! What `backlog` writes: numbered changes of orders, ten to each; the backlog as fast as mongod takes them, then one after the other
//! at a steady pace. Knows nothing of who reads them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use mongodb::Client;
use tokio::time::MissedTickBehavior;

use crate::changes::Change;
use crate::load::order;
use crate::stream;

/// Changes in one command.
const CHUNK: usize = 1000;

/// Of one change, as the writer's clock had it.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Just before it was issued.
    pub issued: Instant,
    /// When the server had acknowledged it: by a majority, as is the default.
    pub acknowledged: Instant,
}

/// Writes all of them; `written` counts what was acknowledged.
pub async fn pile_up(client: &Client, numbers: Range<u64>, written: &AtomicU64) -> Result<()> {
    for from in numbers.clone().step_by(CHUNK) {
        write(client, from..numbers.end.min(from + CHUNK as u64)).await?;
        written.store(numbers.end.min(from + CHUNK as u64), Ordering::SeqCst);
    }
    Ok(())
}

/// Writes `per_second` changes in a second, beginning with number `first`, until it is to `stop`. Blocks. One waits for the one
/// before it, since changes of one document have to stay in order; what a wait has cost is made up for.
pub fn go_on(uri: &str, first: u64, per_second: u32, stop: &AtomicBool, written: &AtomicU64) -> Result<Vec<Sent>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client = Client::with_uri_str(uri).await.context("connect to MongoDB")?;
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut sent = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            pace.tick().await;
            let number = first + sent.len() as u64;
            let issued = Instant::now();
            write(&client, number..number + 1).await?;
            sent.push(Sent { issued, acknowledged: Instant::now() });
            written.store(number + 1, Ordering::SeqCst);
        }
        Ok(sent)
    })
}

async fn write(client: &Client, numbers: Range<u64>) -> Result<()> {
    let count = numbers.end - numbers.start;
    let replace = |number: u64| {
        let Change { document, version } = Change::of(number);
        let mut order = order(number);
        order.insert("_id", document as i64);
        order.insert("version", version as i64);
        doc! { "q": { "_id": document as i64 }, "u": order, "upsert": true }
    };
    let updates: Vec<Document> = numbers.map(replace).collect();
    let command = doc! { "update": stream::COLLECTION, "updates": updates };
    let reply = client.database(stream::DATABASE).run_command(command).await.context("write the orders")?;
    ensure!(reply.get_i32("n").is_ok_and(|n| n as u64 == count), "mongod did not take all changes: {reply}");
    Ok(())
}
