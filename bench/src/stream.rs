//! The change stream that all contenders open: the same pipeline and options, in each one's own words.
//!
//! It is what the daemon opens for `watch = ["shop.orders"]` and [`MATCH_TOML`]; its log shows it at level debug.

use anyhow::{Context, Result};
use bson::{Bson, Document, Timestamp, doc};

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

/// A pipeline on a command line.
pub fn to_json(pipeline: Vec<Document>) -> Result<String> {
    let stages: Vec<_> = pipeline.into_iter().map(|stage| Bson::Document(stage).into_relaxed_extjson()).collect();
    Ok(serde_json::to_string(&stages)?)
}

/// What [`to_json`] wrote.
pub fn from_json(json: &str) -> Result<Vec<Document>> {
    let stages: Vec<serde_json::Value> = serde_json::from_str(json).context("read the pipeline")?;
    let stage = |stage| match Bson::try_from(stage)? {
        Bson::Document(stage) => Ok(stage),
        other => anyhow::bail!("a stage of the pipeline is {other}"),
    };
    stages.into_iter().map(stage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_survives_the_command_line() {
        let pipeline = pipeline(1_795_312_923);
        assert_eq!(from_json(&to_json(pipeline.clone()).expect("JSON")).expect("a pipeline"), pipeline);
        assert!(from_json("[1]").is_err());
    }
}
