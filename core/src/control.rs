//! What an operator asks of the running daemon: commands, and how they are answered. Knows neither HTTP nor lanes: the admin
//! port asks, the pipeline answers.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::dead_letters::{Chosen, Filter, LetterKey};
use crate::event::EventId;
use crate::source::place::Place;
use crate::source::token::Timestamp64;

/// Requests that wait for the pipeline; more are refused.
const WAITING_MAX: usize = 32;

/// How long a request may take: a pause drains its output first.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// One thing to do.
#[derive(Debug)]
pub enum Command {
    /// What every output is doing.
    Status,
    /// Drains an output and keeps it from delivering, over restarts too.
    Pause {
        /// Its name.
        output: String,
    },
    /// Lets a paused or stopped output deliver again, from its checkpoint.
    Resume {
        /// Its name.
        output: String,
    },
    /// The durable place of every output.
    Checkpoints,
    /// Moves a paused output.
    SetCheckpoint {
        /// Its name.
        output: String,
        /// Where to.
        to: Target,
    },
    /// Forgets the place of a paused output: it begins at `source.start` again.
    ResetCheckpoint {
        /// Its name.
        output: String,
    },
    /// Delivers the documents that exist, then goes on where the output was.
    Snapshot {
        /// Its name.
        output: String,
        /// `db.collection`; all that is watched when empty.
        collections: Vec<String>,
    },
    /// Dead letters: list, show, replay, drop.
    DeadLetters(Letters),
}

/// What can be asked about dead letters.
#[derive(Debug)]
pub enum Letters {
    /// A page of them.
    List(Filter),
    /// One with all that is kept of it.
    Show(LetterKey),
    /// Deliver these again; answered with a job's number at once.
    Replay(Chosen),
    /// How far a job is.
    Job(u64),
    /// Remove these for good.
    Drop(Chosen),
}

/// A place an operator can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Behind the event with this id; from a position without an event on, inclusive.
    Event(EventId),
    /// The first event of this second (since 1970), inclusive.
    Time {
        /// Seconds since 1970.
        seconds: u32,
    },
}

/// Why a command was not carried out. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Not in this state.
    #[error("{0}")]
    Conflict(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
}

/// A command and where its answer goes.
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Where the answer goes; dropped unanswered when the daemon ends.
    pub reply: Reply,
}

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<Value, Refusal>>;

/// The asking end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<Request>);

/// Both ends.
pub fn control() -> (Control, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Control(sender), receiver)
}

impl Control {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// See [`Refusal`]; also when the daemon is ending or does not answer in time (then the command may still be carried out).
    pub async fn ask(&self, command: Command) -> Result<Value, Refusal> {
        let (reply, answer) = oneshot::channel();
        let busy = |_| Refusal::Conflict("the daemon is starting, ending, or busy with other commands".to_owned());
        self.0.try_send(Request { command, reply }).map_err(busy)?;
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refusal::Conflict("the daemon is ending".to_owned())),
            Err(_) => {
                Err(Refusal::Failed(format!("no answer within {ANSWER_MAX:?}; the command may still be at work")))
            }
        }
    }
}

/// What `status` tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// `name` of the config.
    pub name: String,
    /// `holder`, `standby`, or `none` where only broadcast outputs run.
    pub lease: &'static str,
    /// Newest known cluster time, seconds since 1970.
    pub cluster_time: u32,
    /// In the order of the config.
    pub outputs: Vec<OutputStatus>,
}

/// One output in [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputStatus {
    /// Its name.
    pub name: String,
    /// Its plugin.
    pub plugin: String,
    /// The words of `tailwater_output_state`, `standby` and `beginning`.
    pub state: String,
    /// Newest known cluster time minus the time of the low-water mark, in seconds.
    pub lag_seconds: i64,
    /// Events acknowledged since the daemon started.
    pub delivered: u64,
    /// Events taken and not settled.
    pub unsettled: i64,
    /// How much longer the oplog will hold what this output still needs, in seconds; unknown without the right to read `local`.
    pub oplog_headroom_seconds: Option<i64>,
    /// Rows of a snapshot settled and expected; while one is under way.
    pub snapshot: Option<SnapshotStatus>,
}

/// A snapshot under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotStatus {
    /// Rows settled.
    pub settled: u64,
    /// Rows expected, estimated when it began.
    pub estimated: u64,
}

impl std::str::FromStr for Target {
    type Err = String;

    /// An event id, or an RFC 3339 time with its offset.
    fn from_str(text: &str) -> Result<Target, String> {
        use time::OffsetDateTime;
        use time::format_description::well_known::Rfc3339;
        if let Ok(id) = text.parse::<EventId>() {
            return Ok(Target::Event(id));
        }
        let seconds = OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
        match seconds.map(|seconds| u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)) {
            Some(Some(seconds)) => Ok(Target::Time { seconds }),
            Some(None) => Err(format!("\"{text}\" is not a time MongoDB can hold, write one from 1970 to 2106")),
            None => Err(format!(
                "\"{text}\" is not a place, write a time such as 2026-01-31T00:00:00Z or an event id (33 characters)"
            )),
        }
    }
}

/// A position without an event means from there on.
impl From<Target> for Place {
    fn from(target: Target) -> Place {
        match target {
            // Also where no transaction is so long: the id of a snapshot's row has other digits there.
            Target::Event(id) if id.is_position() || id.position().txn_op_index >= 1 << 24 => {
                Place::From(id.position().time)
            }
            Target::Event(id) => Place::AfterId(id),
            Target::Time { seconds } => Place::From(Timestamp64(u64::from(seconds) << 32)),
        }
    }
}
