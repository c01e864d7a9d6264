//! Constant writes: single ones and transactions, over a few hundred documents, each with a number that rises. What became of a
//! write that failed is nobody's guess: the oplog tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::error::{Result, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::{Client, ClientSession, Collection};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

const WRITERS: i64 = 5;
const DOCUMENTS: i64 = 300;
/// Between two actions of one writer: about 200 a second together.
const PACE: Duration = Duration::from_millis(25);
/// Of a commit of which nobody knows whether it took place.
const COMMIT_TRIES_MAX: usize = 20;

/// Writers at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Written>,
}

/// What a writer believes to have done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub writes: u64,
    pub transactions: u64,
    /// Their outcome is unknown.
    pub failed: u64,
}

impl Writers {
    pub fn start(client: &Client, seed: u64) -> Writers {
        let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for number in 0..WRITERS {
            let writer = Writer {
                client: client.clone(),
                random: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
                documents: (0..DOCUMENTS).filter(|id| id % WRITERS == number).map(|id| (id, Some(false))).collect(),
                version: 0,
                written: Written::default(),
            };
            tasks.spawn(writer.run(Arc::clone(&stop)));
        }
        Writers { stop, tasks }
    }

    /// Lets them end what they are at.
    pub async fn stop(self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await.into_iter().fold(Written::default(), |sum, one| Written {
            writes: sum.writes + one.writes,
            transactions: sum.transactions + one.transactions,
            failed: sum.failed + one.failed,
        })
    }
}

/// One writer, with documents of its own: their changes come one after another.
struct Writer {
    client: Client,
    random: StdRng,
    /// Whether each is there; `None` after a failure.
    documents: Vec<(i64, Option<bool>)>,
    version: i64,
    written: Written,
}

enum Step {
    Insert,
    Update,
    Replace,
    Delete,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Written {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::SeqCst) {
            pace.tick().await;
            // Longer than one oplog entry may be now and then, see the servers' arguments.
            let count = match self.random.random_range(0..40) {
                0 => self.random.random_range(10..30),
                1 | 2 => self.random.random_range(2..5),
                _ => 1,
            };
            let chosen: Vec<usize> = (0..count).map(|_| self.random.random_range(0..self.documents.len())).collect();
            if self.look(&chosen).await.is_err() {
                continue;
            }
            let before = self.documents.clone();
            let done = if count == 1 { self.step(chosen[0], None).await } else { self.transaction(&chosen).await };
            match done {
                Ok(()) if count == 1 => self.written.writes += 1,
                Ok(()) => self.written.transactions += 1,
                Err(_) => {
                    self.documents = before;
                    chosen.iter().for_each(|index| self.documents[*index].1 = None);
                    self.written.failed += 1;
                }
            }
        }
        self.written
    }

    /// Finds out which of these documents are there, where that is not known.
    async fn look(&mut self, chosen: &[usize]) -> Result<()> {
        for index in chosen {
            let (id, there) = self.documents[*index];
            if there.is_none() {
                let found = collection(&self.client, id).find_one(doc! { "_id": id }).await?;
                self.documents[*index].1 = Some(found.is_some());
            }
        }
        Ok(())
    }

    async fn transaction(&mut self, chosen: &[usize]) -> Result<()> {
        let mut session = self.client.start_session().await?;
        session.start_transaction().await?;
        for index in chosen {
            if let Err(error) = self.step(*index, Some(&mut session)).await {
                let _ = session.abort_transaction().await;
                return Err(error);
            }
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match session.commit_transaction().await {
                Ok(()) => return Ok(()),
                Err(error)
                    if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
                        && !error.contains_label(TRANSIENT_TRANSACTION_ERROR)
                        && tries < COMMIT_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One change of one document.
    async fn step(&mut self, index: usize, session: Option<&mut ClientSession>) -> Result<()> {
        let id = self.documents[index].0;
        self.version += 1;
        let step = match (self.documents[index].1, self.random.random_range(0..10)) {
            (Some(false), _) => Step::Insert,
            (_, 0..6) => Step::Update,
            (_, 6..8) => Step::Replace,
            _ => Step::Delete,
        };
        let odd = self.random.random_bool(0.5);
        let whole = doc! { "_id": id, "version": self.version, "odd": odd, "text": "some words of an order" };
        let (documents, filter) =
            (collection(&self.client, id), doc! { "_id": id, "version": { "$lt": self.version } });
        macro_rules! run {
            ($action:expr) => {
                match session {
                    Some(session) => $action.session(session).await.map(drop)?,
                    None => $action.await.map(drop)?,
                }
            };
        }
        match step {
            Step::Insert => run!(documents.insert_one(whole)),
            Step::Update => run!(documents.update_one(filter, doc! { "$set": { "version": self.version } })),
            Step::Replace => run!(documents.replace_one(filter, whole)),
            Step::Delete => run!(documents.delete_one(filter)),
        }
        self.documents[index].1 = Some(!matches!(step, Step::Delete));
        Ok(())
    }
}

/// Where a document lives; a tenth of them outside of what is watched.
fn collection(client: &Client, id: i64) -> Collection<Document> {
    match id % 10 {
        9 => client.database("other").collection("things"),
        0 | 5 => client.database("shop").collection("carts"),
        1 | 4 | 7 => client.database("shop").collection("items"),
        _ => client.database("shop").collection("orders"),
    }
}
