//! Whether the deployment splits events that are too large for one reply: tried, not inferred from its version.
//!
//! `$changeStreamSplitLargeEvent` came with 6.0.9, but not every service that speaks MongoDB's protocol has it. With the stage every
//! token has another format, so the answer is asked for once and all streams are alike.

use bson::{Document, doc};
use mongodb::error::ErrorKind;
use tracing::{debug, info};

use crate::source::error::{Class, SourceError, classify, explain, one_line};
use crate::source::stream::StreamOptions;

/// Opens a stream with the stage, on the database that is to be watched, and gives it up.
///
/// # Errors
/// The server could not be asked: passing trouble.
pub async fn splits(options: &StreamOptions) -> Result<bool, SourceError> {
    let mut stage = Document::new();
    if options.scope.database.is_none() {
        stage.insert("allChangesForCluster", true);
    }
    let pipeline = [doc! { "$changeStream": stage }, doc! { "$changeStreamSplitLargeEvent": {} }];
    let database = options.client.database(options.scope.database.as_deref().unwrap_or("admin"));
    // Without a first batch the server answers at once.
    match database.aggregate(pipeline).batch_size(0).await {
        Ok(_) => {
            debug!("the server splits events that are too large for one reply");
            Ok(true)
        }
        Err(error) => match (classify(&error), error.kind.as_ref()) {
            // Also when the stream is refused for another reason: opening the real one will say which.
            (Class::Refused, ErrorKind::Command(_)) => {
                info!("the server does not split events that are too large for one reply: {}", one_line(&error));
                Ok(false)
            }
            _ => Err(explain(&error, "ask the server whether it splits large events")),
        },
    }
}
