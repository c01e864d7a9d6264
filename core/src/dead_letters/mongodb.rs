//! Dead letters in the deployment itself: database `tailwater`, collection `dead_letters`, one document per letter. See
//! `record.rs` for its fields. Times are the server's.

mod query;
mod reply;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, cstr, doc, rawdoc};
use futures::TryStreamExt;
use mongodb::error::Error;
use mongodb::options::{
    Acknowledgment, CollectionOptions, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, IndexModel};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tracing::warn;

use super::config::Config;
use super::record::{self, Form, Record};
use super::{Account, Chosen, DeadLetterError, Filter, Letter, LetterKey, Letters, Matched, Page, Stored};
use crate::event::EventId;
use crate::source::error::{code, one_line};
use crate::source::scope::OWN_DATABASE;

const COLLECTION: &str = "dead_letters";

/// Longest wait for a majority to have a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Full is answered from a count at most this old.
const COUNT_AGE_MAX: Duration = Duration::from_secs(5);

/// What one write command carries at most, except when a single letter is larger.
const COMMAND_BYTES_MAX: usize = 12 << 20;

/// The server's error code for a missing privilege.
const UNAUTHORIZED: i32 = 13;

/// Dead letters of one deployment name.
pub struct MongoDbStore {
    letters: Collection<RawDocumentBuf>,
    /// `name` of the config: letters of different deployments do not meet.
    name: String,
    bytes_max: u64,
    expire_after_ms: i64,
    /// Whoever takes room and writes shares it; whoever counts has it alone, or what is written meanwhile would be counted never or
    /// twice.
    counting: RwLock<()>,
    /// Held for moments only, never across a wait.
    counted: Mutex<Counted>,
}

struct Counted {
    account: Account,
    /// Bytes of letters that are being written.
    reserved: u64,
    at: Instant,
}

/// Room that was taken for letters until they are written, or nobody waits for that any more.
struct Room<'a> {
    counted: &'a Mutex<Counted>,
    bytes: u64,
}

impl Room<'_> {
    /// Part of it is needed no more: what it was for is counted now, or took none.
    fn give_back(&mut self, counted: &mut Counted, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        counted.reserved -= bytes;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).reserved -= self.bytes;
    }
}

impl MongoDbStore {
    /// Makes the indexes, gives letters of another `expire_after` this one, and counts.
    ///
    /// # Errors
    /// The server does not answer, or does not let this user read.
    pub async fn open(config: &Config, name: &str, client: &Client) -> Result<Self, DeadLetterError> {
        let store = Self::open_as_it_is(config, name, client);
        store.prepare().await?;
        store.refresh().await?;
        Ok(store)
    }

    /// Changes nothing and asks nothing, so it does not know how much there is.
    pub fn open_as_it_is(config: &Config, name: &str, client: &Client) -> Self {
        let majority =
            WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(WRITE_TIMEOUT).journal(true).build();
        let options = CollectionOptions::builder()
            .write_concern(majority)
            .read_concern(ReadConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        MongoDbStore {
            letters: client.database(OWN_DATABASE).collection_with_options(COLLECTION, options),
            name: name.to_owned(),
            bytes_max: config.bytes_max,
            expire_after_ms: i64::try_from(config.expire_after.as_millis()).unwrap_or(i64::MAX),
            counting: RwLock::new(()),
            counted: Mutex::new(Counted { account: Account::default(), reserved: 0, at: Instant::now() }),
        }
    }

    /// What only makes things better may fail for want of a privilege.
    async fn prepare(&self) -> Result<(), DeadLetterError> {
        for (what, made) in [("make indexes for", self.make_indexes().await), ("adjust", self.adjust_expiry().await)] {
            match made {
                Ok(()) => {}
                Err(error) if code(&error) == Some(UNAUTHORIZED) => {
                    let error = failed(what, &error);
                    warn!("{error}; until then they do not expire by dead_letters.expire_after, and are slow to list");
                }
                Err(error) => return Err(failed(what, &error)),
            }
        }
        Ok(())
    }

    async fn make_indexes(&self) -> Result<(), Error> {
        let index = |keys: Document, name: &str, expire_after| {
            let options = IndexOptions::builder().name(name.to_owned()).expire_after(expire_after).build();
            IndexModel::builder().keys(keys).options(options).build()
        };
        let indexes = [
            index(doc! { "_id.name": 1, "_id.id": 1, "_id.output": 1 }, "list", None),
            index(query::account_keys(), "account", None),
            // At the time that stands in the document: names differ in expire_after.
            index(doc! { "expireAt": 1 }, "expire", Some(Duration::ZERO)),
        ];
        self.letters.create_indexes(indexes).await.map(|_| ())
    }

    async fn adjust_expiry(&self) -> Result<(), Error> {
        let others = doc! { "_id.name": &self.name, "expireAfterMs": { "$ne": self.expire_after_ms } };
        let expire = doc! { "$add": ["$updatedAt", self.expire_after_ms] };
        let update = vec![doc! { "$set": { "expireAfterMs": self.expire_after_ms, "expireAt": expire } }];
        self.letters.update_many(others, update).await.map(|_| ())
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`super::Store::account`].
    pub fn account(&self) -> Account {
        self.counted().account.clone()
    }

    /// See [`super::Store::refresh`].
    pub async fn refresh(&self) -> Result<(), DeadLetterError> {
        let alone = self.counting.write().await;
        self.recount(&alone).await
    }

    async fn recount(&self, _alone: &RwLockWriteGuard<'_, ()>) -> Result<(), DeadLetterError> {
        let cursor = self.letters.aggregate(query::account(&self.name)).await;
        let groups: Vec<Document> = match cursor {
            Ok(cursor) => cursor.try_collect().await.map_err(|error| failed("count", &error))?,
            Err(error) => return Err(failed("count", &error)),
        };
        let mut fresh = Account::default();
        for group in &groups {
            let output = group.get_str("_id").unwrap_or_default().to_owned();
            fresh.letters.insert(output, reply::number(group, "letters"));
            fresh.bytes += reply::number(group, "bytes");
        }
        let mut counted = self.counted();
        for output in counted.account.letters.keys() {
            fresh.letters.entry(output.clone()).or_insert(0);
        }
        (counted.account, counted.at) = (fresh, Instant::now());
        Ok(())
    }

    /// See [`super::Store::put`].
    pub async fn put(&self, letters: &[Letter]) -> Result<(), DeadLetterError> {
        // Of one letter twice in a batch the last counts; two updates of one document in a command would be in no order.
        let mut records = BTreeMap::new();
        for letter in letters {
            let record = Record::new(&self.name, letter, Form::Document);
            records.insert(record.key.clone(), record);
        }
        let records: Vec<Record> = records.into_values().collect();
        let (_shared, mut room) = self.reserve(&records).await?;
        self.write(&records, &mut room).await
    }

    /// Takes room for them, or says that there is none. Before that it looks again, when all that others are writing is there:
    /// whether they have made room, and which of these are there already.
    async fn reserve(&self, records: &[Record]) -> Result<(RwLockReadGuard<'_, ()>, Room<'_>), DeadLetterError> {
        let bytes = records.iter().map(|record| record.bytes).sum();
        let shared = self.counting.read().await;
        if let Ok(room) = self.try_reserve(bytes) {
            return Ok((shared, room));
        }
        drop(shared);
        let alone = self.counting.write().await;
        let age = self.counted().at.elapsed();
        if age > COUNT_AGE_MAX {
            self.recount(&alone).await?;
        }
        let keys: Vec<LetterKey> = records.iter().map(|record| record.key.clone()).collect();
        let there: u64 = self.sizes(&keys).await?.values().sum();
        let room = self.try_reserve(bytes.saturating_sub(there))?;
        Ok((alone.downgrade(), room))
    }

    fn try_reserve(&self, bytes: u64) -> Result<Room<'_>, DeadLetterError> {
        let mut counted = self.counted();
        let used = counted.account.bytes + counted.reserved;
        // What only overwrites is always taken.
        if bytes > 0 && used + bytes > self.bytes_max {
            return Err(DeadLetterError::Full { used, bytes, bytes_max: self.bytes_max });
        }
        counted.reserved += bytes;
        Ok(Room { counted: &self.counted, bytes })
    }

    async fn write(&self, records: &[Record], room: &mut Room<'_>) -> Result<(), DeadLetterError> {
        let mut rest = records;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |record: &&Record| {
                bytes += record.document.as_bytes().len();
                bytes <= COMMAND_BYTES_MAX
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            self.write_command(now, room).await?;
            rest = later;
        }
        Ok(())
    }

    async fn write_command(&self, records: &[Record], room: &mut Room<'_>) -> Result<(), DeadLetterError> {
        let mut updates = RawArrayBuf::new();
        for record in records {
            updates.push(query::upsert(record, self.expire_after_ms));
        }
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("update"), COLLECTION);
        command.append(cstr!("updates"), updates);
        command.append(cstr!("ordered"), false);
        let wait_ms = WRITE_TIMEOUT.as_millis() as i64;
        command.append(cstr!("writeConcern"), rawdoc! { "w": "majority", "j": true, "wtimeout": wait_ms });
        let reply = self.letters.client().database(OWN_DATABASE).run_raw_command(command).await;
        let reply = reply.map_err(|error| failed("write", &error))?;
        let mut counted = self.counted();
        for index in reply::upserted(&reply) {
            if let Some(record) = records.get(index) {
                // In one step, or they would count twice.
                room.give_back(&mut counted, record.bytes);
                counted.account.bytes += record.bytes;
                *counted.account.letters.entry(record.key.output.clone()).or_insert(0) += 1;
            }
        }
        drop(counted);
        reply::fault(&reply).map_or(Ok(()), |(code, reason)| Err(refused("write", Some(code), reason)))
    }

    /// What those that are there take.
    async fn sizes(&self, keys: &[LetterKey]) -> Result<BTreeMap<LetterKey, u64>, DeadLetterError> {
        let letters = self.letters.clone_with_type::<Document>();
        let found = letters.find(query::these(&self.name, keys)).projection(doc! { "bytes": 1 });
        let found = found.await.map_err(|error| failed("read", &error))?;
        let found: Vec<Document> = found.try_collect().await.map_err(|error| failed("read", &error))?;
        let size = |document: &Document| {
            let id = document.get_document("_id").ok()?;
            let key = LetterKey::new(id.get_str("output").ok()?, id.get_str("id").ok()?.parse().ok()?);
            Some((key, reply::number(document, "bytes")))
        };
        Ok(found.iter().filter_map(size).collect())
    }

    /// See [`super::Store::list`].
    pub async fn list(&self, filter: &Filter) -> Result<Page, DeadLetterError> {
        let limit = filter.limit();
        let (query, sort) = query::list(&self.name, filter);
        let found = self.letters.find(query).sort(sort).limit(limit as i64 + 1).projection(doc! { "event": 0 });
        let found = found.await.map_err(|error| failed("read", &error))?;
        let found: Vec<RawDocumentBuf> = found.try_collect().await.map_err(|error| failed("read", &error))?;
        let letters = found.iter().take(limit).map(|letter| read(letter).map(|stored| stored.summary));
        Ok(Page { letters: letters.collect::<Result<_, _>>()?, more: found.len() > limit })
    }

    /// See [`super::Store::get`].
    pub async fn get(&self, key: &LetterKey) -> Result<Option<Stored>, DeadLetterError> {
        let found = self.letters.find_one(doc! { "_id": query::id(&self.name, key) }).await;
        found.map_err(|error| failed("read", &error))?.map(|letter| read(&letter)).transpose()
    }

    /// See [`super::Store::count`].
    pub async fn count(&self, chosen: &Chosen) -> Result<Matched, DeadLetterError> {
        let found = self.letters.aggregate(query::count(&self.name, chosen)).await;
        let found = found.map_err(|error| failed("count", &error))?;
        let groups: Vec<Document> = found.try_collect().await.map_err(|error| failed("count", &error))?;
        let number = |field| groups.first().map_or(0, |group| reply::number(group, field));
        Ok(Matched { letters: number("letters"), stubs: number("stubs") })
    }

    /// See [`super::Store::load`].
    pub async fn load(
        &self,
        output: &str,
        letters: &Letters,
        after: Option<EventId>,
        limit: usize,
        bytes_max: u64,
    ) -> Result<Vec<Stored>, DeadLetterError> {
        let Some(query) = query::load(&self.name, output, letters, after, limit) else { return Ok(Vec::new()) };
        let found = self.letters.find(query).sort(doc! { "_id": 1 }).limit(limit as i64).batch_size(100).await;
        let mut found = found.map_err(|error| failed("read", &error))?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(letter) = found.try_next().await.map_err(|error| failed("read", &error))? {
            bytes += letter.as_bytes().len() as u64;
            if bytes > bytes_max && !page.is_empty() {
                break;
            }
            page.push(read(&letter)?);
        }
        Ok(page)
    }

    /// See [`super::Store::update`].
    pub async fn update(&self, key: &LetterKey, reason: &str, attempts: u32) -> Result<bool, DeadLetterError> {
        let reason = record::cut(reason, record::REASON_BYTES_MAX);
        let fields = doc! {
            "reason": { "$literal": reason },
            "attempts": i64::from(attempts),
            "updatedAt": "$$NOW",
            "expireAt": { "$add": ["$$NOW", self.expire_after_ms] },
            "expireAfterMs": self.expire_after_ms,
        };
        let id = doc! { "_id": query::id(&self.name, key) };
        let updated = self.letters.update_one(id, vec![doc! { "$set": fields }]).await;
        Ok(updated.map_err(|error| failed("write", &error))?.matched_count > 0)
    }

    /// See [`super::Store::remove`].
    pub async fn remove(&self, keys: &[LetterKey]) -> Result<u64, DeadLetterError> {
        let _shared = self.counting.read().await;
        let there = self.sizes(keys).await?;
        let removed = self.letters.delete_many(query::these(&self.name, keys)).await;
        let removed = removed.map_err(|error| failed("remove", &error))?.deleted_count;
        let mut counted = self.counted();
        for (key, bytes) in there {
            counted.account.bytes = counted.account.bytes.saturating_sub(bytes);
            if let Some(letters) = counted.account.letters.get_mut(&key.output) {
                *letters = letters.saturating_sub(1);
            }
        }
        Ok(removed)
    }

    /// See [`super::Store::drop_chosen`].
    pub async fn drop_chosen(&self, chosen: &Chosen) -> Result<u64, DeadLetterError> {
        let dropped = self.letters.delete_many(query::chosen(&self.name, chosen)).await;
        let dropped = dropped.map_err(|error| failed("drop", &error))?.deleted_count;
        self.refresh().await?;
        Ok(dropped)
    }
}

fn read(letter: &RawDocumentBuf) -> Result<Stored, DeadLetterError> {
    record::read(letter).map_err(|reason| {
        let id = letter.get_document("_id").ok().and_then(|id| Document::try_from(id).ok());
        DeadLetterError::Damaged { letter: Bson::from(id.unwrap_or_default()).to_string(), reason }
    })
}

fn failed(what: &'static str, error: &Error) -> DeadLetterError {
    refused(what, code(error), one_line(error))
}

fn refused(what: &'static str, code: Option<i32>, reason: String) -> DeadLetterError {
    let advice = match code {
        Some(UNAUTHORIZED) => "; grant the user readWrite on tailwater, or set dead_letters.store = \"file\"",
        _ => "",
    };
    DeadLetterError::MongoDb { what, reason: reason + advice, denied: code == Some(UNAUTHORIZED) }
}
