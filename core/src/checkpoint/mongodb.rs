//! Checkpoints in the deployment itself: database `tailwater`, collection `checkpoints`, one document per output.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::error::Error;
use mongodb::options::{
    Acknowledgment, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection};

use crate::checkpoint::CheckpointError;
use crate::source::error::{code, one_line};
use crate::source::place::Place;
use crate::source::scope::OWN_DATABASE;

/// Longest wait for a majority to have a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's error code for a missing privilege.
const UNAUTHORIZED: i32 = 13;

/// Checkpoints of one deployment name.
pub struct MongoDbStore {
    checkpoints: Collection<Document>,
    /// `name` of the config: outputs of different deployments do not meet.
    name: String,
}

impl MongoDbStore {
    /// Over an existing client; writes nothing yet.
    pub fn new(client: &Client, name: &str) -> Self {
        let majority =
            WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(WRITE_TIMEOUT).journal(true).build();
        let options = CollectionOptions::builder()
            .write_concern(majority)
            .read_concern(ReadConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        let checkpoints = client.database(OWN_DATABASE).collection_with_options("checkpoints", options);
        MongoDbStore { checkpoints, name: name.to_owned() }
    }

    fn id(&self, output: &str) -> Document {
        doc! { "name": &self.name, "output": output }
    }

    /// See [`crate::checkpoint::Store::load`].
    pub async fn load(&self, output: &str) -> Result<Option<Place>, CheckpointError> {
        let found = self.checkpoints.find_one(doc! { "_id": self.id(output) }).await;
        let found = found.map_err(|error| failed("read", output, &error))?;
        let Some(found) = found else { return Ok(None) };
        let damaged = |error| CheckpointError::Damaged { output: output.to_owned(), error };
        let stored = found
            .get_document("place")
            .map_err(|e| damaged(crate::source::place::PlaceError::Unknown(format!("no field place: {e}"))))?;
        Place::from_document(stored).map(Some).map_err(damaged)
    }

    /// See [`crate::checkpoint::Store::save`].
    pub async fn save(&self, output: &str, place: &Place) -> Result<(), CheckpointError> {
        // $$NOW is the server's clock: instances need not agree on the time.
        let update = vec![doc! { "$set": { "place": { "$literal": place.to_document() }, "updatedAt": "$$NOW" } }];
        let written = self.checkpoints.update_one(doc! { "_id": self.id(output) }, update).upsert(true).await;
        written.map(|_| ()).map_err(|error| failed("write", output, &error))
    }
}

fn failed(what: &'static str, output: &str, error: &Error) -> CheckpointError {
    let advice = match code(error) {
        Some(UNAUTHORIZED) => "; grant the user readWrite on tailwater, or set checkpoint.store = \"file\"",
        _ => "",
    };
    CheckpointError::MongoDb { what, output: output.to_owned(), reason: one_line(error) + advice }
}
