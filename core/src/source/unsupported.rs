//! What is named in `watch` and has no change events: time series collections and views, refused before anything is opened.
//! MongoDB itself would take them without a word and send nothing.

use std::collections::BTreeMap;

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::Client;
use tracing::{debug, warn};

use crate::source::config::watch::Watched;
use crate::source::error::{SourceError, code, one_line};

/// Asks for the type of each named collection.
///
/// # Errors
/// [`SourceError::Refused`] for one that has no change events. A server that does not tell refuses nothing: then this is logged.
pub async fn refuse_unsupported(client: &Client, watch: &[Watched]) -> Result<(), SourceError> {
    let mut databases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in watch {
        if let Watched::Collection { db, coll } = entry {
            databases.entry(db).or_default().push(coll);
        }
    }
    for (database, collections) in databases {
        // With these two every user may ask for what is granted to it.
        let command = doc! {
            "listCollections": 1,
            "nameOnly": true,
            "authorizedCollections": true,
            "filter": { "name": { "$in": collections }, "type": { "$in": ["timeseries", "view"] } },
        };
        let cursor = client.database(database).run_cursor_command(command).await;
        let found = match cursor {
            Ok(cursor) => cursor.try_collect::<Vec<Document>>().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => found.first().map_or(Ok(()), |found| Err(refusal(database, found)))?,
            Err(error) if code(&error) == Some(13) => {
                debug!(database, "cannot ask for the types of collections: {}", one_line(&error));
            }
            Err(error) => warn!(database, "cannot ask for the types of collections: {}", one_line(&error)),
        }
    }
    Ok(())
}

fn refusal(database: &str, found: &Document) -> SourceError {
    let name = found.get_str("name").unwrap_or_default();
    let reason = match found.get_str("type") {
        Ok("view") => "it is a view, and MongoDB has no change events of views: watch the collection behind it",
        _ => "it is a time series collection, and MongoDB has no change events of those: take it out of source.watch",
    };
    SourceError::Refused { what: format!("watch {database}.{name}"), reason: reason.to_owned() }
}
