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

/// A pipeline on the command line of the bare loop: BSON in hex digits, since JSON would not keep the order of fields.
pub fn to_hex(pipeline: Vec<Document>) -> Result<String> {
    Ok(hex::encode(doc! { "pipeline": pipeline }.to_vec()?))
}

/// What [`to_hex`] wrote.
pub fn from_hex(text: &str) -> Result<Vec<Document>> {
    let bytes = hex::decode(text).context("read the pipeline")?;
    let document = Document::from_reader(bytes.as_slice()).context("read the pipeline")?;
    let stage = |stage: &Bson| stage.as_document().cloned().context("a stage of the pipeline is no document");
    document.get_array("pipeline")?.iter().map(stage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_survives_the_command_line() {
        let mut stages = pipeline(1_795_312_923);
        stages.push(doc! { "$match": { "ns": { "db": "shop", "coll": "orders", "also": 5_i64 } } });
        let read = from_hex(&to_hex(stages.clone()).expect("hex")).expect("a pipeline");
        // As text, since documents are equal whatever the order of their fields.
        assert_eq!(format!("{read:?}"), format!("{stages:?}"));
        assert!(from_hex("[1]").is_err());
    }
}
