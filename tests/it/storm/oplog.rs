//! The verifier's own reading of the oplog: which changes there were, in which order, and which id each has by the published
//! formula. Shares nothing with the daemon.

use std::collections::HashMap;

use bson::{Bson, Document, Timestamp, doc, rawdoc};
use futures::TryStreamExt;
use mongodb::Client;
use mongodb::options::ReadConcern;
use sha2::{Digest, Sha256};

use super::facts::{Facts, relaxed};

/// The database that the daemon watches.
pub const WATCHED: &str = "shop";

/// One change that the daemon must deliver to every output that wants it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The event id.
    pub id: String,
    pub facts: Facts,
}

/// Time of the first and the last entry.
///
/// # Panics
/// When the oplog cannot be read.
pub async fn ends(member: &Client) -> (Timestamp, Timestamp) {
    let oplog = member.database("local").collection::<Document>("oplog.rs");
    let end = async |order: i32| {
        let entry = oplog.find_one(doc! {}).sort(doc! { "$natural": order }).await.expect("read the oplog");
        entry.expect("an entry").get_timestamp("ts").expect("its time")
    };
    (end(1).await, end(-1).await)
}

/// Every change of the watched database after `since`, in the order of the stream. What it reads is on a majority.
///
/// # Panics
/// When the oplog cannot be read, or holds what the storm does not write.
pub async fn read(member: &Client, since: Timestamp) -> Vec<Change> {
    let oplog = member.database("local").collection::<Document>("oplog.rs");
    let found = oplog.find(doc! { "ts": { "$gt": since } }).sort(doc! { "$natural": 1 });
    let found = found.read_concern(ReadConcern::majority()).await.expect("read the oplog");
    changes(&found.try_collect::<Vec<_>>().await.expect("read the oplog"))
}

/// The changes in some entries.
pub fn changes(entries: &[Document]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut parts: HashMap<Timestamp, &Document> = HashMap::new();
    for entry in entries {
        let time = entry.get_timestamp("ts").expect("ts");
        match entry.get_str("op").expect("op") {
            "i" | "u" | "d" => changes.extend(change(entry, time, None)),
            "c" if entry.get_document("o").is_ok_and(|command| command.contains_key("applyOps")) => {
                parts.insert(time, entry);
                if !is_partial(entry) {
                    let operations = operations(entry, &parts);
                    let of = |(index, operation)| change(operation, time, Some(index));
                    changes.extend((0..).zip(operations).filter_map(of));
                }
            }
            // Collections made, indexes, no-ops: no event without show_expanded_events.
            _ => {}
        }
    }
    changes
}

/// An entry of a long transaction that is not its last.
fn is_partial(entry: &Document) -> bool {
    let command = entry.get_document("o").expect("o");
    assert!(!command.contains_key("prepare"), "a prepared transaction, as only sharded clusters have: {entry}");
    command.get_bool("partialTxn").unwrap_or(false)
}

/// All operations of a transaction whose last entry is `last`: each entry names the one before it.
fn operations<'a>(last: &'a Document, parts: &HashMap<Timestamp, &'a Document>) -> Vec<&'a Document> {
    let mut chain = vec![last];
    loop {
        let before = chain[chain.len() - 1].get_document("prevOpTime").and_then(|before| before.get_timestamp("ts"));
        match before {
            Ok(time) if time.time > 0 => {
                chain.push(parts.get(&time).unwrap_or_else(|| panic!("no entry at {time} before {last}")));
            }
            _ => break,
        }
    }
    let of = |entry: &&'a Document| entry.get_document("o").and_then(|o| o.get_array("applyOps")).expect("applyOps");
    let listed = chain.iter().rev().flat_map(of);
    listed.map(|operation| operation.as_document().expect("an operation")).collect()
}

/// One operation as an event; `index` is its place in a transaction. `None` outside of the watched database.
fn change(entry: &Document, time: Timestamp, index: Option<u32>) -> Option<Change> {
    let ns = entry.get_str("ns").expect("ns");
    let (db, coll) = ns.split_once('.').expect("db.coll");
    if db != WATCHED {
        return None;
    }
    let after = entry.get_document("o").expect("o");
    let of_update = || entry.get_document("o2").expect("o2");
    let (operation, key) = match entry.get_str("op").expect("op") {
        "i" => ("insert", after),
        "u" if after.contains_key("_id") => ("replace", of_update()),
        "u" => ("update", of_update()),
        "d" => ("delete", after),
        // The first write into a collection makes it, in its transaction too: no event, but a place in the count.
        "c" => return None,
        other => panic!("an operation {other:?} within a transaction: {entry}"),
    };
    let key = key.get("_id").expect("_id");
    let document = ["insert", "replace"].contains(&operation).then_some(after);
    let version = match document {
        Some(document) => document.get("version"),
        None => updated(after),
    };
    let facts = Facts {
        operation: operation.to_owned(),
        ns: ns.to_owned(),
        key: whole(key),
        time: (time.time, time.increment),
        document: document.map(relaxed),
        version: version.map(whole),
        in_transaction: index.is_some(),
    };
    Some(Change { id: id(time, index.unwrap_or(0), operation, (db, coll), key), facts })
}

/// The new version in the difference that an update is logged as: updated, or inserted where there was none.
fn updated(after: &Document) -> Option<&Bson> {
    let difference = after.get_document("diff").ok()?;
    ["u", "i"].iter().find_map(|part| difference.get_document(part).ok()?.get("version"))
}

fn whole(value: &Bson) -> i64 {
    let small = || value.as_i32().map(i64::from);
    value.as_i64().or_else(small).unwrap_or_else(|| panic!("a whole number: {value}"))
}

/// The event id as DESIGN has it: time, index, and the hash of what the event is of.
fn id(time: Timestamp, index: u32, operation: &str, (db, coll): (&str, &str), key: &Bson) -> String {
    let key = bson::RawBson::try_from(key.clone()).expect("raw");
    let identity = rawdoc! {
        "operationType": operation,
        "ns": { "db": db, "coll": coll },
        "documentKey": { "_id": key },
    };
    let hash = Sha256::digest(identity.as_bytes());
    let hash = u32::from_be_bytes(hash[..4].try_into().expect("four bytes"));
    format!("{:08x}{:08x}-{index:08x}{hash:08x}", time.time, time.increment)
}

#[test]
fn the_oplog_is_read_with_long_transactions_in_one_piece() {
    let at = |increment| Timestamp { time: 7, increment };
    let insert = |id: i64, ns: &str| doc! { "op": "i", "ns": ns, "o": { "_id": id, "version": id } };
    let none = doc! { "ts": Timestamp { time: 0, increment: 0 }, "t": -1_i64 };
    let entry = |increment, command: Document, before: &Document| {
        doc! { "op": "c", "ns": "admin.$cmd", "ts": at(increment), "o": command, "prevOpTime": before.clone() }
    };
    let entries = [
        doc! { "op": "d", "ns": "shop.orders", "ts": at(1), "o": { "_id": 1_i64 } },
        entry(2, doc! { "applyOps": [insert(2, "shop.orders"), insert(3, "other.things")], "partialTxn": true }, &none),
        doc! { "op": "u", "ns": "shop.orders", "ts": at(3), "o": { "$v": 2, "diff": { "u": { "version": 9 } } }, "o2": { "_id": 1_i64 } },
        entry(4, doc! { "applyOps": [insert(4, "shop.orders")], "count": 3_i64 }, &doc! { "ts": at(2), "t": 1_i64 }),
        doc! { "op": "n", "ns": "", "ts": at(5), "o": { "msg": "periodic noop" } },
    ];
    let brief = |change: Change| {
        let facts = change.facts;
        (change.id[..25].to_owned(), facts.operation, facts.key, facts.version, facts.time.1)
    };
    let seen: Vec<_> = changes(&entries).into_iter().map(brief).collect();
    let expected = [
        ("0000000700000001-00000000", "delete", 1, None, 1),
        ("0000000700000003-00000000", "update", 1, Some(9), 3),
        ("0000000700000004-00000000", "insert", 2, Some(2), 4),
        ("0000000700000004-00000002", "insert", 4, Some(4), 4),
    ];
    let expected = expected
        .map(|(id, operation, key, version, increment)| (id.to_owned(), operation.to_owned(), key, version, increment));
    assert_eq!(seen, expected);
}
