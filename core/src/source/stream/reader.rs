//! One cursor: opened, read one reply ahead, and given up when the server has gone silent.
//!
//! A connection can be dead without either end having closed it. The server answers an idle read within [`AWAIT_MAX`], but one
//! that scans the oplog for events that the `$match` lets through only when it has found some or has come to the end: 600,000
//! entries without a match took mongod 6.0.5 two seconds without a word, whatever `maxTimeMS` said. So whoever waits for
//! longer than [`ASK_AFTER`] asks the server, on another connection, whether it is at work on this cursor. As long as it says so,
//! waiting goes on; after [`SILENCE_MAX`] without such a sign the cursor is given up. Where the URI's read preference lets another member
//! answer than the one that has the cursor, the question says nothing: it is not asked, and [`SILENCE_UNASKED_MAX`] is waited.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures::{StreamExt, TryStreamExt};
use mongodb::Client;
use mongodb::error::Error;
use mongodb::options::{ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::options::StreamOptions;
use crate::source::error::one_line;

/// How long the server holds an idle reply back: the pace of progress without events, and how long an open takes to be sure.
const AWAIT_MAX: Duration = Duration::from_millis(100);

/// A reply is late after this time, and the server is asked what it is doing.
const ASK_AFTER: Duration = Duration::from_secs(5);

/// The server is taken for dead after so long without a sign of life. With what it takes to notice this stays under the 15 s that
/// are promised.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The same where the server cannot be asked: a long scan is not told from a dead connection, and must not be given up each time.
const SILENCE_UNASKED_MAX: Duration = Duration::from_secs(60);

/// Patience doubles so many times at most, up to about ten minutes.
const SILENCES_MAX: u32 = 6;

/// The same for the open itself, in which the driver first looks for a server: its own error says more, and comes after ten seconds
/// when the URI does not say otherwise.
const OPEN_MAX: Duration = Duration::from_secs(15);

/// Reads one reply ahead, so that the server works while events are decoded here.
pub(super) struct Reader {
    replies: mpsc::Receiver<Result<RawBatch, Broken>>,
    task: JoinHandle<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a cursor cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The driver or the server said so.
    Error(Error),
    /// No reply and no sign of work for so long.
    Silent(Duration),
}

impl Reader {
    /// Opens a cursor; open means that the server has answered a first read. `silences` is how often in a row it was given up for
    /// silence: each time it is given twice as long, so that a slow link or a server that may not be asked comes to its end. Once a
    /// read of this cursor was answered in the usual time, the usual patience holds again.
    pub async fn open(
        options: &StreamOptions,
        pipeline: Vec<Document>,
        batch_size: u32,
        silences: u32,
    ) -> Result<Reader, Broken> {
        let (mut cursor, mut watch) = open(options, pipeline, batch_size, silences).await?;
        let mut first = Vec::with_capacity(2);
        // The reply to the open itself, then the first read: only that one shows that the history is there.
        for reads in 0..2 {
            let asked = Instant::now();
            match watch.wait(cursor.next()).await {
                Ok(Some(Ok(reply))) => {
                    if reads > 0 {
                        watch.answered_after(asked.elapsed());
                    }
                    first.push(Ok(reply));
                }
                Ok(None) => break,
                Ok(Some(Err(error))) => first.push(Err(Broken::Error(error))),
                Err(silent) => first.push(Err(silent)),
            }
            match first.pop() {
                // What came before it is worth having: an event that is too large is found by what came before.
                Some(Err(broken)) if first.iter().flatten().any(has_events) => first.push(Err(broken)),
                Some(Err(broken)) => return Err(broken),
                reply => first.extend(reply),
            }
            if matches!(first.last(), Some(Err(_))) {
                break;
            }
        }
        let (sender, replies) = mpsc::channel(1);
        let task = tokio::spawn(read_ahead(cursor, first, sender, watch));
        Ok(Reader { replies, task })
    }

    /// The next reply; nothing when the cursor has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<RawBatch, Broken>> {
        self.replies.recv().await
    }
}

/// Opens a cursor without reading from it.
pub(super) async fn open(
    options: &StreamOptions,
    pipeline: Vec<Document>,
    batch_size: u32,
    silences: u32,
) -> Result<(RawBatchCursor, Watch), Broken> {
    let database = options.client.database(options.scope.database.as_deref().unwrap_or("admin"));
    debug!(?pipeline, "open change stream");
    // By the comment the server knows the operations of this cursor apart, also those of one that was given up.
    let comment = format!("tailwater {:016x}", rand::random::<u64>());
    let watch = Watch::new(options.client.clone(), comment.clone(), silences);
    let aggregate = database.aggregate(pipeline).batch_size(batch_size).max_await_time(AWAIT_MAX).comment(comment);
    let cursor = watch.wait_for(OPEN_MAX, aggregate.batch().into_future()).await?.map_err(Broken::Error)?;
    Ok((cursor, watch))
}

async fn read_ahead(
    mut cursor: RawBatchCursor,
    first: Vec<Result<RawBatch, Broken>>,
    sender: mpsc::Sender<Result<RawBatch, Broken>>,
    mut watch: Watch,
) {
    for reply in first {
        let failed = reply.is_err();
        if sender.send(reply).await.is_err() || failed {
            return;
        }
    }
    // A place for the reply first: one is read ahead and not two, for each may hold 16 MiB.
    while let Ok(place) = sender.reserve().await {
        let asked = Instant::now();
        let reply = match watch.wait(cursor.next()).await {
            Ok(Some(reply)) => {
                watch.answered_after(asked.elapsed());
                reply.map_err(Broken::Error)
            }
            Ok(None) => return,
            Err(silent) => Err(silent),
        };
        let failed = reply.is_err();
        place.send(reply);
        if failed {
            return;
        }
    }
}

pub(super) fn has_events(reply: &RawBatch) -> bool {
    reply.doc_slices().is_ok_and(|events| !events.is_empty())
}

/// Waits for a server that shows signs of life.
pub(super) struct Watch {
    client: Client,
    /// Of the cursor's operations.
    comment: Arc<str>,
    patience: Patience,
}

/// How long a silent server is waited for.
#[derive(Clone, Copy)]
struct Patience {
    /// How often in a row a cursor was given up before.
    silences: u32,
    /// What the server is doing can be asked.
    asks: bool,
}

impl Patience {
    fn new(silences: u32, asks: bool) -> Patience {
        Patience { silences: silences.min(SILENCES_MAX), asks }
    }

    /// `usual` is that of the first cursor.
    fn silence_max(self, usual: Duration) -> Duration {
        let usual = if self.asks { usual } else { usual.max(SILENCE_UNASKED_MAX) };
        usual * (1 << self.silences)
    }

    /// A read was answered after so long. In the usual time: it was no slow link, and the next silence is noticed as soon as the first.
    fn answered_after(&mut self, took: Duration) {
        if took < SILENCE_MAX {
            self.silences = 0;
        }
    }
}

impl Watch {
    fn new(client: Client, comment: String, silences: u32) -> Watch {
        let asks = reads_from_primary(&client);
        Watch { client, comment: comment.into(), patience: Patience::new(silences, asks) }
    }

    /// The answer, unless the server goes silent.
    pub async fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T, Broken> {
        self.wait_for(SILENCE_MAX, answer).await
    }

    async fn wait_for<T>(&self, silence_max: Duration, answer: impl Future<Output = T>) -> Result<T, Broken> {
        wait(answer, self.patience.silence_max(silence_max), || self.is_at_work()).await
    }

    /// A read of this cursor was answered after so long.
    fn answered_after(&mut self, took: Duration) {
        self.patience.answered_after(took);
    }

    /// Whether the server is busy with this cursor at this moment.
    async fn is_at_work(&self) -> bool {
        if !self.patience.asks {
            return false;
        }
        let comment = &*self.comment;
        let ours = doc! { "$or": [ { "command.comment": comment }, { "cursor.originatingCommand.comment": comment } ] };
        // Without `allUsers` everyone may ask this: it shows the user's own operations.
        let pipeline =
            [doc! { "$currentOp": {} }, doc! { "$match": { "active": true, "$and": [ours] } }, doc! { "$limit": 1 }];
        let operations = match self.client.database("admin").aggregate(pipeline).await {
            Ok(operations) => operations.try_collect::<Vec<Document>>().await,
            Err(error) => Err(error),
        };
        match operations {
            Ok(operations) => !operations.is_empty(),
            Err(error) => {
                debug!("cannot ask the server what it is doing: {}", one_line(&error));
                false
            }
        }
    }
}

/// Whether a question about a cursor reaches the member that has it.
fn reads_from_primary(client: &Client) -> bool {
    matches!(client.selection_criteria(), None | Some(SelectionCriteria::ReadPreference(ReadPreference::Primary)))
}

async fn wait<T, A: Future<Output = bool>>(
    answer: impl Future<Output = T>,
    silence_max: Duration,
    is_at_work: impl Fn() -> A,
) -> Result<T, Broken> {
    tokio::pin!(answer);
    let mut alive = Instant::now();
    loop {
        let deadline = alive + silence_max;
        tokio::select! {
            answer = &mut answer => return Ok(answer),
            () = sleep_until(deadline.min(Instant::now() + ASK_AFTER)) => {}
        }
        tokio::select! {
            answer = &mut answer => return Ok(answer),
            at_work = timeout_at(deadline, is_at_work()) => {
                if at_work.unwrap_or(false) {
                    alive = Instant::now();
                }
            }
        }
        if alive.elapsed() >= silence_max {
            return Err(Broken::Silent(silence_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_at_all_is_given_up_in_time() {
        for answers_questions in [true, false] {
            let started = Instant::now();
            let asked = Cell::new(0);
            let outcome = wait(pending::<()>(), SILENCE_MAX, || {
                asked.set(asked.get() + 1);
                async move { if answers_questions { false } else { pending().await } }
            })
            .await;
            assert!(matches!(outcome, Err(Broken::Silent(SILENCE_MAX))));
            let took = started.elapsed();
            assert!((SILENCE_MAX..SILENCE_MAX + SECOND).contains(&took), "{took:?}");
            assert!((1..=3).contains(&asked.get()), "asked {} times", asked.get());
        }
    }

    #[test]
    fn patience_grows_with_silences_and_is_usual_again_after_a_prompt_answer() {
        let mut patience = Patience::new(2, true);
        assert_eq!(patience.silence_max(SILENCE_MAX), 40 * SECOND);
        patience.answered_after(15 * SECOND);
        assert_eq!(patience.silence_max(SILENCE_MAX), 40 * SECOND, "a slow link stays one");
        patience.answered_after(SECOND);
        assert_eq!(patience.silence_max(SILENCE_MAX), SILENCE_MAX);
        assert_eq!(Patience::new(u32::MAX, true).silence_max(SILENCE_MAX), 640 * SECOND);
        assert_eq!(Patience::new(0, false).silence_max(SILENCE_MAX), SILENCE_UNASKED_MAX);
    }

    #[tokio::test]
    async fn only_the_primary_is_asked_about_its_cursors() {
        for (query, asks) in
            [("", true), ("readPreference=primary", true), ("readPreference=secondaryPreferred", false)]
        {
            let client = Client::with_uri_str(format!("mongodb://127.0.0.1:1/?{query}")).await.expect("a client");
            assert_eq!(reads_from_primary(&client), asks, "{query}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_at_work_may_take_its_time() {
        let answer = async {
            sleep(3600 * SECOND).await;
            7
        };
        assert!(matches!(wait(answer, SILENCE_MAX, || ready(true)).await, Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_at_work_is_given_up_when_it_no_longer_is() {
        let (started, until) = (Instant::now(), Instant::now() + 60 * SECOND);
        let outcome = wait(pending::<()>(), SILENCE_MAX, || ready(Instant::now() < until)).await;
        assert!(matches!(outcome, Err(Broken::Silent(_))));
        let took = started.elapsed();
        assert!((60 * SECOND..75 * SECOND).contains(&took), "{took:?}");
    }
}
