//! The shop: writes orders and moves them on, at the pace of people. Knows nothing of outputs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bson::{DateTime, Document, doc};
use futures::TryStreamExt;
use mongodb::{Client, Collection};
use rand::RngExt;
use rand::seq::IndexedRandom;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::{Change, Ledger, Step};

/// Where the orders lie.
pub const DATABASE: &str = "shop";
/// Where the orders lie.
pub const COLLECTION: &str = "orders";

/// Between two changes.
const PACE: Duration = Duration::from_millis(250);
/// Orders that are neither delivered nor gone, at most; from the start there is something to see.
const OPEN_MIN: usize = 9;
const OPEN_MAX: usize = 14;
/// What a page that opens is shown.
const RECENT_MAX: i64 = 40;

const STATUSES: [&str; 5] = ["placed", "paid", "packed", "shipped", "delivered"];
const CANCELLED: &str = "cancelled";

const NAMES: [&str; 16] = [
    "Ada", "Bruno", "Chiara", "Deniz", "Emil", "Fatima", "Greta", "Hugo", "Ines", "Jonas", "Keiko", "Linus", "Mira",
    "Noor", "Oskar", "Priya",
];
const CITIES: [&str; 8] = ["Berlin", "Lisbon", "Lyon", "Oslo", "Porto", "Turin", "Utrecht", "Vienna"];
/// What it is, and its price in cents.
const GOODS: [(&str, i64); 10] = [
    ("Espresso cups", 2400),
    ("Linen apron", 3950),
    ("Oak board", 4890),
    ("Tea towel", 1250),
    ("Stoneware bowl", 2875),
    ("Water carafe", 3400),
    ("Pepper mill", 5200),
    ("Cast-iron pan", 8990),
    ("Paring knife", 3150),
    ("Fig candle", 1990),
];

/// The shop's side of the collection.
pub struct Shop {
    orders: Collection<Document>,
    ledger: Arc<Ledger>,
    open: Vec<Order>,
    next: u32,
}

/// An order that may still change.
struct Order {
    id: String,
    version: i32,
    status: &'static str,
}

impl Shop {
    /// A shop without orders.
    pub fn new(client: &Client, ledger: Arc<Ledger>) -> Shop {
        let orders = client.database(DATABASE).collection(COLLECTION);
        Shop { orders, ledger, open: Vec::new(), next: 1001 }
    }

    /// Writes one change after the other until `closing`, which is looked at between two changes: the fate of each is known.
    pub async fn trade(mut self, closing: oneshot::Receiver<()>) -> Result<()> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(closing);
        loop {
            tokio::select! {
                _ = &mut closing => return Ok(()),
                _ = pace.tick() => {}
            }
            let few = self.open.len() < OPEN_MIN;
            let more = self.open.len() < OPEN_MAX && rand::rng().random_bool(0.2);
            if few || more { self.place().await? } else { self.move_on().await? }
        }
    }

    async fn place(&mut self) -> Result<()> {
        let order = Order { id: format!("T{}", self.next), version: 1, status: STATUSES[0] };
        self.next += 1;
        self.orders.insert_one(new_order(&order)).await.context("insert an order")?;
        self.ledger.write(Change { order: order.id.clone(), step: Step::Version(order.version) });
        self.open.push(order);
        Ok(())
    }

    async fn move_on(&mut self) -> Result<()> {
        let index = rand::rng().random_range(0..self.open.len());
        let order = &mut self.open[index];
        let id = order.id.clone();
        if order.status == CANCELLED {
            self.orders.delete_one(doc! { "_id": &id }).await.context("delete an order")?;
            self.open.swap_remove(index);
            self.ledger.write(Change { order: id, step: Step::Deleted });
            return Ok(());
        }
        order.status = next_status(order.status, rand::rng().random_bool(0.12));
        order.version += 1;
        let step = Step::Version(order.version);
        let set = doc! { "status": order.status, "version": order.version, "changedAt": DateTime::now() };
        self.orders.update_one(doc! { "_id": &id }, doc! { "$set": set }).await.context("update an order")?;
        if order.status == STATUSES[STATUSES.len() - 1] {
            self.open.swap_remove(index);
        }
        self.ledger.write(Change { order: id, step });
        Ok(())
    }
}

/// The newest orders, for a page that opens: the state so far, which the events then go on from.
pub async fn recent(client: &Client) -> Result<Vec<Document>> {
    let orders: Collection<Document> = client.database(DATABASE).collection(COLLECTION);
    let found = orders.find(doc! {}).sort(doc! { "placedAt": -1 }).limit(RECENT_MAX).await?;
    Ok(found.try_collect().await?)
}

/// Only what has not left the shop can be cancelled.
fn next_status(status: &str, cancel: bool) -> &'static str {
    let at = STATUSES.iter().position(|known| *known == status).unwrap_or(0);
    if cancel && at < 2 { CANCELLED } else { STATUSES[(at + 1).min(STATUSES.len() - 1)] }
}

fn new_order(order: &Order) -> Document {
    let mut random = rand::rng();
    let count = random.random_range(1..=3);
    let goods: Vec<(&str, i64, i64)> =
        GOODS.sample(&mut random, count).map(|(name, cents)| (*name, *cents, random_quantity())).collect();
    let total: i64 = goods.iter().map(|(_, cents, quantity)| cents * quantity).sum();
    let items: Vec<Document> = goods
        .iter()
        .map(|(name, cents, quantity)| doc! { "name": *name, "quantity": *quantity, "priceCents": *cents })
        .collect();
    let now = DateTime::now();
    doc! {
        "_id": &order.id,
        "version": order.version,
        "status": order.status,
        "customer": *NAMES.choose(&mut random).unwrap_or(&NAMES[0]),
        "city": *CITIES.choose(&mut random).unwrap_or(&CITIES[0]),
        "items": items,
        "totalCents": total,
        "currency": "EUR",
        "placedAt": now,
        "changedAt": now,
    }
}

/// Most people want one.
fn random_quantity() -> i64 {
    *[1, 1, 1, 2, 2, 4].choose(&mut rand::rng()).unwrap_or(&1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_goes_its_way_and_is_cancelled_only_in_the_shop() {
        for (status, cancel, next) in [
            ("placed", false, "paid"),
            ("paid", false, "packed"),
            ("paid", true, "cancelled"),
            ("packed", true, "shipped"),
            ("shipped", false, "delivered"),
            ("delivered", false, "delivered"),
        ] {
            assert_eq!(next_status(status, cancel), next, "{status}, {cancel}");
        }
    }

    #[test]
    fn the_total_is_the_sum_of_the_items() {
        let order = new_order(&Order { id: "T1".to_owned(), version: 1, status: "placed" });
        let items = order.get_array("items").expect("items");
        let sum = items
            .iter()
            .filter_map(bson::Bson::as_document)
            .map(|item| item.get_i64("quantity").expect("quantity") * item.get_i64("priceCents").expect("price"));
        assert_eq!(order.get_i64("totalCents").expect("total"), sum.sum::<i64>());
    }
}
