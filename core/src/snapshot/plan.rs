//! What a snapshot will read: which collections, and where each is cut into ranges.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::Client;
use mongodb::error::Error;
use tracing::{info, warn};

use crate::snapshot::SnapshotError;
use crate::snapshot::progress::{COLLECTIONS_MAX, CUTS_BYTES_MAX, Namespace, Progress};
use crate::snapshot::range::{self, SAMPLES_PER_RANGE};
use crate::snapshot::row::RowId;
use crate::source::config::watch::{REFUSED, Watched};
use crate::source::error::{Class, SourceError, classify, code, explain, one_line};
use crate::source::token::Timestamp64;

/// For counting and for sampling, each, of one collection. Where that is not enough the collection is read in one range.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// MaxTimeMSExpired.
const OUT_OF_TIME: i32 = 50;

/// Chooses the collections and cuts them: those that are watched, or of these only `only` (`db.collection`). The snapshot's time
/// is the server's now: the stream that follows begins there, inclusive.
///
/// Views, time series and `system.*` are left out. What is asked for in `only` has to be there.
///
/// # Errors
/// [`SnapshotError::Chosen`] for a name in `only` that cannot be read, or too many collections; [`SnapshotError::Passing`] when a
/// retry helps; [`SnapshotError::Refused`] when not.
pub async fn plan(client: &Client, watch: &[Watched], only: &[String]) -> Result<Progress, SnapshotError> {
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await;
    let hello = hello.map_err(|error| failed(&error, "ask the server for its time"))?;
    let time = hello.get_timestamp("operationTime").map(Timestamp64::from).map_err(|_| SnapshotError::Refused {
        what: "ask the server for its time".to_owned(),
        reason: "it tells none; a snapshot needs a replica set or a sharded cluster".to_owned(),
    })?;
    let sharded = hello.get_str("msg").is_ok_and(|message| message == "isdbgrid");
    let collections = choose(client, watch, only).await?;
    let (mut ranges, mut total, mut cuts_bytes) = (Vec::new(), 0u64, 0);
    for (index, namespace) in collections.iter().enumerate() {
        let rows = count(client, namespace).await?;
        let cuts = cut(client, namespace, rows, CUTS_BYTES_MAX - cuts_bytes).await?;
        cuts_bytes += cuts.iter().map(RowId::bytes).sum::<usize>();
        total = total.saturating_add(rows);
        ranges.extend(range::between(index, cuts));
    }
    info!(%time, collections = collections.len(), ranges = ranges.len(), documents = total, "snapshot planned");
    Ok(Progress::new(time, sharded, collections, ranges, total))
}

async fn choose(client: &Client, watch: &[Watched], only: &[String]) -> Result<Vec<Namespace>, SnapshotError> {
    let mut named = BTreeSet::new();
    for text in only {
        named.insert(asked_for(text, watch)?);
    }
    let mut chosen = BTreeSet::new();
    if only.is_empty() {
        for entry in watch {
            match entry {
                Watched::Everything => {
                    let names = client.list_database_names().await;
                    let names = names.map_err(|error| failed(&error, "list databases"))?;
                    for db in names.iter().filter(|db| !REFUSED.contains(&db.as_str())) {
                        chosen.extend(collections(client, db, None).await?);
                    }
                }
                Watched::Database(db) => chosen.extend(collections(client, db, None).await?),
                Watched::Collection { db, coll } => {
                    let found = collections(client, db, Some(coll)).await?;
                    if found.is_empty() {
                        info!(
                            "no rows of {db}.{coll} in the snapshot: there is no such collection (or it is a view or a time series)"
                        );
                    }
                    chosen.extend(found);
                }
            }
        }
    }
    for namespace in named {
        if collections(client, &namespace.db, Some(&namespace.coll)).await?.is_empty() {
            let reason = format!("there is no collection {namespace} (views and time series cannot be read)");
            return Err(SnapshotError::Chosen(reason));
        }
        chosen.insert(namespace);
    }
    if chosen.len() > COLLECTIONS_MAX {
        let found = chosen.len();
        return Err(SnapshotError::Chosen(format!(
            "{found} collections are watched, one snapshot reads at most {COLLECTIONS_MAX}; name some with --collection"
        )));
    }
    Ok(chosen.into_iter().collect())
}

/// A name that the operator gave.
fn asked_for(text: &str, watch: &[Watched]) -> Result<Namespace, SnapshotError> {
    let Some((db, coll)) = text.split_once('.').filter(|(db, coll)| !db.is_empty() && !coll.is_empty()) else {
        return Err(SnapshotError::Chosen(format!("\"{text}\" is not a collection, write \"db.collection\"")));
    };
    let watched = watch.iter().any(|entry| match entry {
        Watched::Everything => !REFUSED.contains(&db),
        Watched::Database(watched) => watched == db,
        Watched::Collection { db: watched, coll: named } => watched == db && named == coll,
    });
    if !watched || coll.starts_with("system.") {
        let reason = format!("{text} is not watched: its changes would never follow; add it to source.watch first");
        return Err(SnapshotError::Chosen(reason));
    }
    Ok(Namespace { db: db.to_owned(), coll: coll.to_owned() })
}

/// The collections proper of a database, or the one of this name.
async fn collections(client: &Client, db: &str, name: Option<&str>) -> Result<Vec<Namespace>, SnapshotError> {
    let mut filter = doc! { "type": "collection" };
    filter.extend(name.map(|name| ("name".to_owned(), Bson::from(name))));
    let names = client.database(db).list_collection_names().filter(filter).await;
    let names = names.map_err(|error| failed(&error, &format!("list the collections of {db}")))?;
    // What MongoDB keeps for itself is never watched, the buckets of time series among it.
    let names = names.into_iter().filter(|name| !name.starts_with("system."));
    Ok(names.map(|coll| Namespace { db: db.to_owned(), coll }).collect())
}

/// About how many documents there are. Not knowing is no reason to stop.
async fn count(client: &Client, namespace: &Namespace) -> Result<u64, SnapshotError> {
    let collection = client.database(&namespace.db).collection::<Document>(&namespace.coll);
    let counted = collection.estimated_document_count().max_time(LOOK_MAX).await;
    Ok(unless_passing(counted, &format!("count {namespace}"))?.unwrap_or(0))
}

async fn cut(client: &Client, namespace: &Namespace, rows: u64, bytes_max: usize) -> Result<Vec<RowId>, SnapshotError> {
    let ranges = range::count_for(rows);
    if ranges == 1 {
        return Ok(Vec::new());
    }
    let samples = sample(client, namespace, ranges as usize * SAMPLES_PER_RANGE).await;
    let samples = unless_passing(samples, &format!("sample {namespace}"))?.unwrap_or_default();
    Ok(range::cuts(&samples, ranges, bytes_max))
}

/// What the server cannot do, or not in time, it need not: the collection is then read in one range.
fn unless_passing<T>(answer: Result<T, Error>, what: &str) -> Result<Option<T>, SnapshotError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if classify(&error) == Class::Passing && code(&error) != Some(OUT_OF_TIME) => {
            Err(failed(&error, what))
        }
        Err(error) => {
            warn!("cannot {what}, it is read in one range: {}", one_line(&error));
            Ok(None)
        }
    }
}

/// `_id`s of documents chosen by chance, in the order of the index.
async fn sample(client: &Client, namespace: &Namespace, size: usize) -> Result<Vec<RowId>, Error> {
    let collection = client.database(&namespace.db).collection::<Document>(&namespace.coll);
    let stages = [
        doc! { "$sample": { "size": size as i64 } },
        doc! { "$project": { "_id": 1 } },
        doc! { "$sort": { "_id": 1 } },
    ];
    let cursor = collection.aggregate(stages).max_time(LOOK_MAX).with_type::<RawDocumentBuf>().await?;
    cursor.try_filter_map(async |document| Ok(RowId::of(&document))).try_collect().await
}

/// The error for whoever asked.
pub(super) fn failed(error: &Error, what: &str) -> SnapshotError {
    if classify(error) == Class::Passing {
        return SnapshotError::Passing { what: what.to_owned(), reason: one_line(error) };
    }
    match explain(error, what) {
        SourceError::Passing { what, reason } => SnapshotError::Passing { what, reason },
        SourceError::Refused { what, reason } => SnapshotError::Refused { what, reason },
        other => SnapshotError::Refused { what: what.to_owned(), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_watched_can_be_asked_for() {
        let everything = [Watched::Everything];
        let some = [
            Watched::Database("crm".to_owned()),
            Watched::Collection { db: "shop".to_owned(), coll: "carts.eu".to_owned() },
        ];
        let check = |text: &str, watch: &[Watched], expected: Result<(&str, &str), &str>| {
            let found = asked_for(text, watch);
            match (found, expected) {
                (Ok(found), Ok((db, coll))) => assert_eq!((found.db.as_str(), found.coll.as_str()), (db, coll)),
                (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
                (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
            }
        };
        check("shop.orders", &everything, Ok(("shop", "orders")));
        check("shop.carts.eu", &some, Ok(("shop", "carts.eu")));
        check("crm.people", &some, Ok(("crm", "people")));
        check("shop.orders", &some, Err("shop.orders is not watched"));
        check("tailwater.checkpoints", &everything, Err("is not watched"));
        check("crm.system.views", &some, Err("is not watched"));
        for text in ["orders", ".orders", "shop.", ""] {
            check(text, &everything, Err("write \"db.collection\""));
        }
    }
}
