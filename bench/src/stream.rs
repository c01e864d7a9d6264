//! The change stream that all contenders open: the same pipeline and options, in each one's own words.
//!
//! It is what the daemon opens for `watch = ["shop.orders"]` and [`MATCH_TOML`]; its log shows it at level debug.

use bson::{Document, Timestamp, doc};

/// What the orders are written into.
pub const DATABASE: &str = "shop";
/// See [`DATABASE`].
pub const COLLECTION: &str = "orders";

/// Events asked for in one reply.
pub const BATCH_SIZE: u32 = 1000;

/// How long the server holds an idle reply back.
pub const AWAIT_MAX_MS: u64 = 100;

/// `match` of the outputs; lets every event of the load through.
pub const MATCH_TOML: &str = r#"{ operationType = { "$in" = ["insert", "update"] } }"#;

/// The pipeline of a stream that begins with this second.
pub fn pipeline(start_seconds: u32) -> Vec<Document> {
    let start = Timestamp { time: start_seconds, increment: 0 };
    let matched = doc! { "operationType": { "$in": ["insert", "update"] } };
    vec![
        doc! { "$changeStream": { "startAtOperationTime": start } },
        doc! { "$match": { "$or": [
            { "ns.coll": { "$in": [COLLECTION] } },
            { "to.coll": { "$in": [COLLECTION] } },
            { "operationType": { "$in": ["dropDatabase", "invalidate"] } },
        ] } },
        doc! { "$match": { "$or": [{ "operationType": "invalidate" }, matched] } },
    ]
}
