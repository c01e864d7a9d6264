//! What is read in `routing`: changes of a hundred collections for a thousand tenants, all written before anything is measured.
//!
//! It is made from the number of a change alone, so that what each output wants of it can be counted without asking anyone. At
//! its end stand a hundred inserts, the last of which the first output of every scenario wants: who has delivered all that it
//! wants has read to the end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bson::{DateTime, Document, doc};
use mongodb::Client;

use super::scenario::OUTPUTS_MAX;
use crate::stream::DATABASE;

/// How many tenants there are.
const TENANTS: u64 = 1000;
/// Collections; as many as outputs.
const COLLECTIONS: u64 = OUTPUTS_MAX as u64;
/// Changes of one collection in a row.
const BLOCK: u64 = 50;
/// Of each block: inserts, then updates of some of these documents, then deletions.
const INSERTS: u64 = 43;
const UPDATES: u64 = 5;

/// What a change event is about, as far as an output may ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub operation: Operation,
    pub collection: u64,
    /// The rest is in the full document, which only an insert has.
    pub tenant: u64,
    pub customer: u64,
    pub total: f64,
}

/// The kinds of change that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

/// A history in the oplog.
#[derive(Clone, Debug)]
pub struct History {
    /// The second its stream begins with; nothing of it was written before.
    pub start_seconds: u32,
    pub changes: Vec<Change>,
}

/// The name of a collection.
pub fn collection(number: u64) -> String {
    format!("orders-{number:03}")
}

/// The name of a tenant.
pub fn tenant(number: u64) -> String {
    format!("tenant-{number:04}")
}

/// The name of a customer: two digits are the hundredth that he belongs to.
fn customer(number: u64) -> String {
    format!("customer-{number:06}")
}

/// All changes, in about the order in which they are written.
pub fn changes(events: u64) -> Vec<Change> {
    let end = (0..COLLECTIONS).rev().map(|number| Change {
        operation: Operation::Insert,
        collection: number,
        tenant: number,
        customer: number * 10_000,
        total: number as f64 * 10.0 + 0.5,
    });
    let blocks = events.saturating_sub(COLLECTIONS) / BLOCK;
    (0..blocks * BLOCK).map(change).chain(end).collect()
}

fn change(number: u64) -> Change {
    let (block, in_block) = (number / BLOCK, number % BLOCK);
    let operation = match in_block {
        0..INSERTS => Operation::Insert,
        n if n < INSERTS + UPDATES => Operation::Update,
        _ => Operation::Delete,
    };
    // Each one's own scramble, so that they are independent of each other.
    Change {
        operation,
        collection: scramble(block) % COLLECTIONS,
        tenant: scramble(number ^ 1 << 40) % TENANTS,
        customer: scramble(number ^ 2 << 40) % 1_000_000,
        total: (scramble(number ^ 3 << 40) % 1000) as f64 + 0.5,
    }
}

/// SplitMix64.
fn scramble(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes them.
pub async fn write(client: &Client, events: u64) -> Result<History> {
    let database = client.database(DATABASE);
    for number in 0..COLLECTIONS {
        database.create_collection(collection(number)).await.context("create a collection")?;
    }
    // A start is known to the second: one that lies wholly before the first change, and wholly behind all else.
    let start_seconds = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())? + 1;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let changes = changes(events);
    let mut rest = changes.as_slice();
    let mut first_id = 0_i64;
    while let Some(first) = rest.first() {
        let length = rest.iter().take(BLOCK as usize).take_while(|c| c.collection == first.collection).count();
        let (block, after) = rest.split_at(length);
        write_block(&database.collection(&collection(first.collection)), block, first_id).await?;
        (rest, first_id) = (after, first_id + length as i64);
    }
    Ok(History { start_seconds, changes })
}

/// The updates and deletions are of the block's own first documents.
async fn write_block(orders: &mongodb::Collection<Document>, block: &[Change], first_id: i64) -> Result<()> {
    let of = |operation| block.iter().filter(move |change| change.operation == operation);
    let documents = of(Operation::Insert).zip(first_id..).map(|(change, id)| order(change, id));
    orders.insert_many(documents).await.context("write the orders")?;
    let updates = of(Operation::Update).count() as i64;
    let deletions = of(Operation::Delete).count() as i64;
    if updates > 0 {
        let some = doc! { "_id": { "$gte": first_id, "$lt": first_id + updates } };
        let updated = orders.update_many(some, doc! { "$set": { "status": "paid" } }).await.context("update orders")?;
        ensure!(updated.modified_count == updates as u64, "{} orders were updated", updated.modified_count);
    }
    if deletions > 0 {
        let some = doc! { "_id": { "$gte": first_id, "$lt": first_id + deletions } };
        let deleted = orders.delete_many(some).await.context("delete orders")?;
        ensure!(deleted.deleted_count == deletions as u64, "{} orders were deleted", deleted.deleted_count);
    }
    Ok(())
}

/// About 300 bytes, which makes an event of about 550.
pub fn order(change: &Change, id: i64) -> Document {
    let lines = [
        doc! { "sku": format!("SKU-{:06}", scramble(id as u64) % 1_000_000), "count": 2, "price": 19.95 },
        doc! { "sku": "SKU-000001", "count": 1, "price": 4.5 },
    ];
    doc! {
        "_id": id,
        "tenant": tenant(change.tenant),
        "customer": customer(change.customer),
        "status": "open",
        "lines": lines.to_vec(),
        "total": change.total,
        "currency": "EUR",
        "createdAt": DateTime::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_all_kinds_of_change_and_its_end() {
        let changes = changes(10_000);
        assert_eq!(changes.len(), 10_000);
        let count = |operation| changes.iter().filter(|change| change.operation == operation).count();
        let counts = [Operation::Insert, Operation::Update, Operation::Delete].map(count);
        assert_eq!(counts, [198 * 43 + 100, 198 * 5, 198 * 2]);
        let last = changes.last().expect("changes");
        assert_eq!((last.collection, last.tenant, last.customer, last.total), (0, 0, 0, 0.5));
        let tenants: std::collections::HashSet<u64> = changes.iter().map(|change| change.tenant).collect();
        assert!(tenants.len() > 990, "{}", tenants.len());
    }
}
