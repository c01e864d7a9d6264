//! The writer: one insert after the other at a steady pace, by the clock and not by the acknowledgements.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bson::Document;
use mongodb::Client;
use tokio::sync::oneshot;

use crate::load::order;
use crate::stream;

/// Times of all inserts, in the order of their numbers.
#[derive(Default)]
pub struct Sent {
    /// When its turn was.
    pub scheduled: Vec<Instant>,
    /// Just before it was issued.
    pub issued: Vec<Instant>,
    /// When the server had acknowledged it: by a majority, as is the default.
    pub acknowledged: Vec<Instant>,
}

/// Writes the order with the first number, waits until `begun` says that every reader has it, then writes the others. Blocks.
pub fn write(uri: &str, numbers: Range<u64>, rate: u32, begun: Vec<oneshot::Receiver<()>>) -> Result<Sent> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client = Client::with_uri_str(uri).await.context("connect to MongoDB")?;
        let orders = client.database(stream::DATABASE).collection::<Document>(stream::COLLECTION);
        let insert = move |number| {
            let orders = orders.clone();
            async move {
                let order = order(number);
                let issued = Instant::now();
                orders.insert_one(order).await.context("insert an order")?;
                anyhow::Ok((issued, Instant::now()))
            }
        };
        let mut sent = Sent::default();
        let (issued, acknowledged) = insert(numbers.start).await?;
        sent.put(issued, issued, acknowledged);
        for reader in begun {
            reader.await.context("a reader ended before the load began")?;
        }
        let start = Instant::now();
        let mut inserts = Vec::new();
        for (turn, number) in (numbers.start + 1..numbers.end).enumerate() {
            let scheduled = start + Duration::from_secs_f64(turn as f64 / f64::from(rate));
            tokio::time::sleep_until(scheduled.into()).await;
            // A task of its own: what waits for the server does not hold up the next one.
            inserts.push((scheduled, tokio::spawn(insert(number))));
        }
        for (scheduled, insert) in inserts {
            let (issued, acknowledged) = insert.await??;
            sent.put(scheduled, issued, acknowledged);
        }
        Ok(sent)
    })
}

impl Sent {
    fn put(&mut self, scheduled: Instant, issued: Instant, acknowledged: Instant) {
        self.scheduled.push(scheduled);
        self.issued.push(issued);
        self.acknowledged.push(acknowledged);
    }
}
