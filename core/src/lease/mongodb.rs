//! The lease as a document of the deployment itself: database `tailwater`, collection `leases`, one document per name.
//!
//! `{_id: name, holder, process?, epoch, expiresAt, renewedAt, releasedAt?}`. All times are the server's (`$$NOW`), so the clocks of the
//! instances do not matter. Every change is one conditional write that a majority has to confirm: a primary that was deposed
//! without knowing cannot grant anything, and what was granted outlives it.

use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt;
use mongodb::error::Error;
use mongodb::{Client, Collection};

use crate::checkpoint::mongodb::{MongoDbStore, advice, durably, is_duplicate};
use crate::lease::process::Process;
use crate::lease::{Answer, Former, LeaseError, Renewal, Times};
use crate::source::error::{Class, classify, one_line};
use crate::source::scope::OWN_DATABASE;

/// The lease of one deployment name, as one instance sees it.
pub struct MongoDbArbiter {
    leases: Collection<Document>,
    checkpoints: MongoDbStore,
    name: String,
    instance: String,
    /// This process; `None` where the system does not tell.
    process: Option<Process>,
    duration_ms: i64,
}

/// What the document says, and what the server's clock says about it.
struct Seen {
    holder: Option<String>,
    /// The process of the holder.
    process: Option<Process>,
    epoch: u64,
    /// Until it ends; negative since it has.
    remaining_ms: i64,
    /// Since it was given back.
    released_ms: Option<i64>,
}

impl MongoDbArbiter {
    /// Over an existing client; does nothing yet. `instance` is who this is, for people and for no two instances the same.
    pub fn new(client: &Client, name: &str, instance: &str, times: &Times) -> Self {
        let leases = client.database(OWN_DATABASE).collection_with_options("leases", durably(times.attempt_max));
        MongoDbArbiter {
            leases,
            checkpoints: MongoDbStore::new(client, name),
            name: name.to_owned(),
            instance: instance.to_owned(),
            process: Process::own(),
            duration_ms: i64::try_from(times.duration.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Looks, and takes the lease where nobody has it.
    pub(super) async fn take(&self) -> Result<Answer, LeaseError> {
        self.try_take().await.map_err(|error| self.failed("take", &error))
    }

    async fn try_take(&self) -> Result<Answer, Error> {
        let seen = match self.look().await? {
            Some(seen) => seen,
            None => {
                self.create().await?;
                let Some(seen) = self.look().await? else { return Ok(Answer::Held { holder: None, remaining: None }) };
                seen
            }
        };
        if seen.holder.as_deref() == Some(&self.instance) && seen.released_ms.is_none() {
            // Granted by an answer that never arrived.
            if let Renewal::Kept = self.try_renew(seen.epoch).await? {
                return Ok(Answer::Granted { epoch: seen.epoch, before: None });
            }
            return Ok(Answer::Held { holder: None, remaining: None });
        }
        // It cannot renew any more, and cannot deliver: nobody has to wait until its lease has run out.
        let is_dead = seen.process.as_ref().is_some_and(Process::is_dead);
        if seen.remaining_ms > 0 && !is_dead {
            let remaining = Duration::from_millis(seen.remaining_ms.unsigned_abs());
            return Ok(Answer::Held { holder: seen.holder, remaining: Some(remaining) });
        }
        // What was seen is only a hint. The condition says it again, at the moment of the write.
        let ended = doc! { "$expr": { "$lte": ["$expiresAt", "$$NOW"] } };
        let mut filter = doc! { "_id": &self.name, "epoch": seen.epoch as i64 };
        match &seen.process {
            Some(process) if is_dead => filter.insert("process", process.to_document()),
            _ => filter.insert("$and", vec![ended]),
        };
        let mut mine = self.renewed();
        mine.extend(doc! { "holder": &self.instance, "epoch": seen.epoch as i64 + 1, "releasedAt": "$$REMOVE" });
        match &self.process {
            Some(process) => mine.insert("process", doc! { "$literal": process.to_document() }),
            None => mine.insert("process", "$$REMOVE"),
        };
        if self.leases.find_one_and_update(filter, vec![doc! { "$set": mine }]).await?.is_none() {
            return Ok(Answer::Held { holder: None, remaining: None });
        }
        let overdue_ms = seen.released_ms.unwrap_or(-seen.remaining_ms);
        let before = seen.holder.map(|holder| Former {
            holder,
            released: seen.released_ms.is_some(),
            is_dead: is_dead && seen.remaining_ms > 0,
            overdue: Duration::from_millis(u64::try_from(overdue_ms).unwrap_or(0)),
        });
        Ok(Answer::Granted { epoch: seen.epoch + 1, before })
    }

    /// For longer, if nobody has taken it meanwhile; also when it has run out.
    pub(super) async fn renew(&self, epoch: u64) -> Result<Renewal, LeaseError> {
        self.try_renew(epoch).await.map_err(|error| self.failed("renew", &error))
    }

    async fn try_renew(&self, epoch: u64) -> Result<Renewal, Error> {
        let renewed = self.leases.update_one(self.mine(epoch), vec![doc! { "$set": self.renewed() }]).await?;
        if renewed.matched_count > 0 {
            return Ok(Renewal::Kept);
        }
        Ok(Renewal::Lost { holder: self.look().await?.and_then(|seen| seen.holder) })
    }

    /// Gives it back. Does nothing when another has it already.
    pub(super) async fn release(&self, epoch: u64) -> Result<(), LeaseError> {
        // A time that has passed by every clock, also by that of a member that becomes primary and is behind.
        let released = doc! { "expiresAt": DateTime::from_millis(0), "releasedAt": "$$NOW" };
        let written = self.leases.update_one(self.mine(epoch), vec![doc! { "$set": released }]).await;
        written.map(|_| ()).map_err(|error| self.failed("release", &error))
    }

    /// Only while it was not released: a renewal that was long under way must not undo that.
    fn mine(&self, epoch: u64) -> Document {
        doc! { "_id": &self.name, "holder": &self.instance, "epoch": epoch as i64, "releasedAt": null }
    }

    fn renewed(&self) -> Document {
        doc! { "expiresAt": { "$add": ["$$NOW", self.duration_ms] }, "renewedAt": "$$NOW" }
    }

    async fn look(&self) -> Result<Option<Seen>, Error> {
        let project = doc! {
            "holder": 1,
            "process": 1,
            "epoch": 1,
            "remaining": { "$subtract": ["$expiresAt", "$$NOW"] },
            "released": { "$subtract": ["$$NOW", "$releasedAt"] },
        };
        let one = vec![doc! { "$match": { "_id": &self.name } }, doc! { "$project": project }];
        let found = self.leases.aggregate(one).await?.try_next().await?;
        Ok(found.map(|found| Seen {
            holder: found.get_str("holder").ok().map(str::to_owned),
            process: found.get_document("process").ok().and_then(Process::from_document),
            epoch: found.get_i64("epoch").ok().and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0),
            remaining_ms: found.get_i64("remaining").unwrap_or(0),
            released_ms: found.get_i64("released").ok(),
        }))
    }

    /// The document, free. Where somebody has removed it while there are checkpoints, epochs go on from theirs, or those would
    /// turn every later holder away; and nobody gets it before a holder that does not know of the removal has lapsed.
    async fn create(&self) -> Result<(), Error> {
        let newest = self.checkpoints.newest_epoch().await?;
        let ends = match newest {
            0 => Bson::from(DateTime::from_millis(0)),
            _ => Bson::from(doc! { "$add": ["$$NOW", self.duration_ms] }),
        };
        let first = doc! {
            "epoch": { "$ifNull": ["$epoch", newest as i64] },
            "expiresAt": { "$ifNull": ["$expiresAt", ends] },
        };
        match self.leases.update_one(doc! { "_id": &self.name }, vec![doc! { "$set": first }]).upsert(true).await {
            // Another instance came first, with the same.
            Err(error) if !is_duplicate(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn failed(&self, what: &'static str, error: &Error) -> LeaseError {
        let passing = classify(error) == Class::Passing;
        LeaseError::MongoDb { what, name: self.name.clone(), reason: one_line(error) + advice(error), passing }
    }
}
