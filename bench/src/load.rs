//! What is read: orders of a shop, all written before anything is measured, so that each contender drains the same history.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bson::{DateTime, Document, doc, oid::ObjectId};
use futures::StreamExt;
use mongodb::Client;

use crate::stream;

/// A history in the oplog.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The second its stream begins with; nothing of it was written before.
    pub start_seconds: u32,
    /// How many events it has.
    pub events: u64,
    /// Mean size of an event, BSON, as the server sends it.
    pub event_bytes: f64,
}

/// Writes `events` orders and looks at the first events that come of them.
pub async fn write(client: &Client, events: u64) -> Result<Load> {
    let orders = client.database(stream::DATABASE).collection::<Document>(stream::COLLECTION);
    client.database(stream::DATABASE).create_collection(stream::COLLECTION).await.context("create the collection")?;
    // A start is known to the second: one that lies wholly before the first order, and wholly behind all else.
    let start_seconds = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())? + 1;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut written = 0;
    while written < events {
        let end = events.min(written + 1000);
        orders.insert_many((written..end).map(order)).await.context("write the orders")?;
        written = end;
    }
    let mut cursor = client
        .database(stream::DATABASE)
        .aggregate(stream::pipeline(start_seconds))
        .batch_size(stream::BATCH_SIZE)
        .batch()
        .await?;
    let (mut count, mut bytes) = (0, 0);
    while count == 0 {
        let batch = cursor.next().await.context("the change stream ended")??;
        for event in batch.doc_slices()?.into_iter() {
            bytes += event?.as_document().context("an event that is no document")?.as_bytes().len();
            count += 1;
        }
    }
    ensure!(bytes > 0, "the first events are empty");
    Ok(Load { start_seconds, events, event_bytes: bytes as f64 / f64::from(count) })
}

/// About 230 bytes, which makes an event of about 500.
pub fn order(number: u64) -> Document {
    let items = [
        doc! { "sku": format!("SKU-{:06}", number * 7919 % 1_000_000), "quantity": (number % 5 + 1) as i32, "price": 19.95 },
    ];
    doc! {
        "_id": ObjectId::new(),
        "number": number as i64,
        "customer": format!("customer-{:07}", number * 31 % 1_000_000),
        "status": "open",
        "items": items.to_vec(),
        "total": (number % 500) as f64 + 0.95,
        "currency": "EUR",
        "createdAt": DateTime::now(),
    }
}
