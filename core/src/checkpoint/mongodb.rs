//! Checkpoints in the deployment itself: database `tailwater`, collection `checkpoints`, one document per output.
//!
//! Each carries the epoch of the lease under which it was written or claimed last, and each write has as its condition that
//! no newer epoch is there. The server applies condition and write as one step, so an instance that was stopped in the middle
//! of a write and wakes up after another has taken over cannot turn a place back, however late its write arrives.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{
    Acknowledgment, CollectionOptions, ReadConcern, ReadPreference, ReturnDocument, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection};

use crate::checkpoint::{Checkpoint, CheckpointError, pause_or_resume};
use crate::source::error::{Class, classify, code, one_line};
use crate::source::place::{Place, PlaceError};
use crate::source::scope::OWN_DATABASE;

/// Longest wait for a majority to have a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's error code for a missing privilege.
const UNAUTHORIZED: i32 = 13;

/// The server's error code for a document that is there already.
const DUPLICATE_KEY: i32 = 11000;

/// A first write that meets another first write of the same epoch tries again; more than two never meet.
const ATTEMPTS_MAX: u32 = 4;

/// Checkpoints of one deployment name, written under one epoch.
#[derive(Clone)]
pub struct MongoDbStore {
    checkpoints: Collection<Document>,
    /// `name` of the config: outputs of different deployments do not meet.
    name: String,
    epoch: u64,
}

impl MongoDbStore {
    /// Over an existing client; writes nothing yet. Of epoch 0, which any holder of a lease turns away.
    pub fn new(client: &Client, name: &str) -> Self {
        let checkpoints = client.database(OWN_DATABASE).collection_with_options("checkpoints", durably(WRITE_TIMEOUT));
        MongoDbStore { checkpoints, name: name.to_owned(), epoch: 0 }
    }

    /// See [`crate::checkpoint::Store::with_epoch`].
    pub fn with_epoch(&self, epoch: u64) -> Self {
        MongoDbStore { epoch, ..self.clone() }
    }

    fn id(&self, output: &str) -> Document {
        doc! { "name": &self.name, "output": output }
    }

    /// The document of an output, unless a newer epoch has it. Documents of before there were epochs have none.
    fn mine(&self, output: &str) -> Document {
        doc! { "_id": self.id(output), "epoch": { "$not": { "$gt": self.epoch as i64 } } }
    }

    /// See [`crate::checkpoint::Store::load`].
    pub async fn load(&self, output: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        for _ in 0..ATTEMPTS_MAX {
            // Also for a new output: or the last holder, late, could still write its first place. The time makes it a write in
            // any case, for which a majority must answer: a primary that was deposed without knowing cannot.
            let claim = vec![doc! { "$set": { "epoch": self.epoch as i64, "claimedAt": "$$NOW" } }];
            let claimed = self.checkpoints.find_one_and_update(self.mine(output), claim).upsert(true);
            match claimed.return_document(ReturnDocument::After).await {
                Ok(found) => return found.map_or(Ok(None), |found| read(output, &found)),
                Err(error) => self.again("read", output, &error).await?,
            }
        }
        Err(contended("read", output))
    }

    /// See [`crate::checkpoint::Store::peek`].
    pub async fn peek(&self, output: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        let found = self.checkpoints.find_one(doc! { "_id": self.id(output) }).await;
        let found = found.map_err(|error| failed("read", output, &error))?;
        found.map_or(Ok(None), |found| read(output, &found))
    }

    /// See [`crate::checkpoint::Store::list`].
    pub async fn list(&self) -> Result<Vec<(String, Checkpoint)>, CheckpointError> {
        let all = "all outputs";
        let found = self.checkpoints.find(self.all()).sort(doc! { "_id": 1 }).await;
        let mut found = found.map_err(|error| failed("read", all, &error))?;
        let mut checkpoints = Vec::new();
        while let Some(document) = found.try_next().await.map_err(|error| failed("read", all, &error))? {
            let output = document.get_document("_id").and_then(|id| id.get_str("output")).unwrap_or_default();
            checkpoints.extend(read(output, &document)?.map(|checkpoint| (output.to_owned(), checkpoint)));
        }
        Ok(checkpoints)
    }

    /// See [`crate::checkpoint::Store::save`].
    pub async fn save(&self, output: &str, place: &Place, snapshot: Option<&Document>) -> Result<(), CheckpointError> {
        let snapshot = snapshot.map_or(Bson::from("$$REMOVE"), |snapshot| literal(snapshot.clone()));
        self.write("write", output, doc! { "place": literal(place.to_document()), "snapshot": snapshot }).await
    }

    /// See [`crate::checkpoint::Store::pause`].
    pub async fn pause(&self, output: &str, paused: bool) -> Result<(), CheckpointError> {
        let what = pause_or_resume(paused);
        let mut filter = self.mine(output);
        filter.insert("place", doc! { "$ne": null });
        let update = vec![doc! { "$set": self.stamped(doc! { "paused": paused }) }];
        let written = self.checkpoints.update_one(filter, update).await;
        if written.map_err(|error| failed(what, output, &error))?.matched_count > 0 {
            return Ok(());
        }
        self.refuse_if_fenced(what, output).await?;
        Err(CheckpointError::Missing { what, output: output.to_owned() })
    }

    /// See [`crate::checkpoint::Store::remove`]. The document stays, because its epoch does: without it a late write of an
    /// older epoch would bring the place back.
    pub async fn remove(&self, output: &str) -> Result<(), CheckpointError> {
        let nothing = doc! { "place": null, "snapshot": "$$REMOVE", "paused": "$$REMOVE" };
        self.write("remove", output, nothing).await
    }

    /// The newest epoch that any checkpoint of this name has; 0 when there is none.
    ///
    /// # Errors
    /// The driver's.
    pub async fn newest_epoch(&self) -> Result<u64, Error> {
        let newest = self.checkpoints.find_one(self.all()).sort(doc! { "epoch": -1 }).await?;
        let epoch = newest.and_then(|newest| newest.get_i64("epoch").ok()).unwrap_or(0);
        Ok(u64::try_from(epoch).unwrap_or(0))
    }

    fn all(&self) -> Document {
        let bound = |output: Bson| doc! { "name": &self.name, "output": output };
        doc! { "_id": { "$gte": bound(Bson::MinKey), "$lte": bound(Bson::MaxKey) } }
    }

    /// With what every write says beside its own. `$$NOW` is the server's clock: instances need not agree on the time.
    fn stamped(&self, mut set: Document) -> Document {
        set.insert("epoch", self.epoch as i64);
        set.insert("updatedAt", "$$NOW");
        set
    }

    async fn write(&self, what: &'static str, output: &str, set: Document) -> Result<(), CheckpointError> {
        let update = vec![doc! { "$set": self.stamped(set) }];
        for _ in 0..ATTEMPTS_MAX {
            match self.checkpoints.update_one(self.mine(output), update.clone()).upsert(true).await {
                Ok(_) => return Ok(()),
                Err(error) => self.again(what, output, &error).await?,
            }
        }
        Err(contended(what, output))
    }

    /// `Ok` when another attempt may succeed. A document that did not match and cannot be inserted either is there with a newer
    /// epoch, or was inserted in this moment by another write of this epoch.
    async fn again(&self, what: &'static str, output: &str, error: &Error) -> Result<(), CheckpointError> {
        match is_duplicate(error) {
            true => self.refuse_if_fenced(what, output).await,
            false => Err(failed(what, output, error)),
        }
    }

    async fn refuse_if_fenced(&self, what: &'static str, output: &str) -> Result<(), CheckpointError> {
        let newer = doc! { "_id": self.id(output), "epoch": { "$gt": self.epoch as i64 } };
        match self.checkpoints.find_one(newer).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(CheckpointError::Fenced { what, output: output.to_owned(), epoch: self.epoch }),
            Err(error) => Err(failed(what, output, &error)),
        }
    }
}

/// What is written survives the loss of a minority, what is read cannot be taken back.
pub(crate) fn durably(write_timeout: Duration) -> CollectionOptions {
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(write_timeout).journal(true).build();
    CollectionOptions::builder()
        .write_concern(majority)
        .read_concern(ReadConcern::majority())
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .build()
}

/// What to add to an error of a collection of the own database.
pub(crate) fn advice(error: &Error) -> &'static str {
    match code(error) {
        Some(UNAUTHORIZED) => "; grant the user readWrite on tailwater, or set checkpoint.store = \"file\"",
        _ => "",
    }
}

/// True when a document with the same `_id` is there already.
pub(crate) fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE_KEY,
        _ => code(error) == Some(DUPLICATE_KEY),
    }
}

/// `None` for a document that only keeps an epoch: one that was claimed and never written, or removed.
fn read(output: &str, found: &Document) -> Result<Option<Checkpoint>, CheckpointError> {
    let damaged = |error| CheckpointError::Damaged { output: output.to_owned(), error };
    let place = match found.get("place") {
        Some(Bson::Null) => return Ok(None),
        None if !found.contains_key("updatedAt") => return Ok(None),
        _ => found.get_document("place"),
    };
    let place = place.map_err(|error| damaged(PlaceError::Unknown(format!("no field place: {error}"))))?;
    Ok(Some(Checkpoint {
        place: Place::from_document(place).map_err(damaged)?,
        snapshot: found.get_document("snapshot").ok().cloned(),
        paused: found.get_bool("paused").unwrap_or(false),
    }))
}

/// A value that the server does not look into: a `$` in it means nothing.
fn literal(document: Document) -> Bson {
    Bson::Document(doc! { "$literal": document })
}

fn contended(what: &'static str, output: &str) -> CheckpointError {
    let reason = format!("another write came first in each of {ATTEMPTS_MAX} attempts");
    CheckpointError::MongoDb { what, output: output.to_owned(), reason, passing: false }
}

fn failed(what: &'static str, output: &str, error: &Error) -> CheckpointError {
    let passing = classify(error) == Class::Passing;
    CheckpointError::MongoDb { what, output: output.to_owned(), reason: one_line(error) + advice(error), passing }
}
