//! What one event says, in a form that an output's JSON and an oplog entry can both be brought into, to be compared. Knows
//! neither receivers nor the oplog.

use bson::{Bson, Document};
use serde_json::Value;

/// The parts of an event that the verifier compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// `insert`, `update`, `replace` or `delete`.
    pub operation: String,
    /// `db.coll`.
    pub ns: String,
    /// `documentKey._id`.
    pub key: i64,
    /// Seconds and increment of `clusterTime`.
    pub time: (u32, u32),
    /// `fullDocument` of an insert or replace, in relaxed JSON.
    pub document: Option<Value>,
    /// The number that its writer gave to the change; a delete has none.
    pub version: Option<i64>,
    /// Whether it was made in a transaction.
    pub in_transaction: bool,
}

impl Facts {
    /// From the JSON that an output delivers. `None` when a part is missing or of another type.
    pub fn of_json(event: &Value) -> Option<Facts> {
        let (ns, time) = (&event["ns"], &event["clusterTime"]["$timestamp"]);
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let document = Some(&event["fullDocument"]).filter(|document| document.is_object()).cloned();
        let version = match &document {
            Some(document) => &document["version"],
            None => &event["updateDescription"]["updatedFields"]["version"],
        };
        Some(Facts {
            operation: event["operationType"].as_str()?.to_owned(),
            ns: format!("{}.{}", ns["db"].as_str()?, ns["coll"].as_str()?),
            key: event["documentKey"]["_id"].as_i64()?,
            time: (number(&time["t"])?, number(&time["i"])?),
            version: version.as_i64(),
            document,
            in_transaction: event["txnNumber"].is_number() && event["lsid"].is_object(),
        })
    }

    /// Whether `fullDocument.odd` is true.
    pub fn is_odd(&self) -> bool {
        self.document.as_ref().is_some_and(|document| document["odd"] == true)
    }

    /// Whether the receiver of the output `picky` rejects it for good. It asks this of the JSON it was sent, the verifier of the
    /// oplog entry.
    pub fn is_rejected(&self) -> bool {
        self.version.is_some_and(|version| version % 9 == 4)
    }
}

/// A document as relaxed JSON.
pub fn relaxed(document: &Document) -> Value {
    Bson::Document(document.clone()).into_relaxed_extjson()
}
