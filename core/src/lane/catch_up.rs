//! Catch-up: the change streams of lanes that are behind the window, few at a time and shared where lanes are together.
//!
//! A lane asks for a place; the pool opens a stream there when its turn comes and gives it batches. Owns who waits, who
//! shares and whose time is over; knows nothing of the window, of outputs or of what a lane does with its events.
//!
//! * At most `streams_max` streams are open. Lanes wait in the order in which they asked; a stream that was held for [`SLICE`]
//!   while others wait is given back, and its lanes ask again, further on.
//! * Lanes that wait within [`TOGETHER`] of each other get one stream, opened at the oldest place with the union of their queries; a
//!   lane alone has its own query as `$match`, as far as a server is asked for it. A lane also joins a stream at work that is about to come to its place
//!   and covers its query.
//! * No lane delays another: one that keeps the others of its stream waiting for longer than [`PATIENCE`] altogether is let go,
//!   and asks again later. An error of a shared stream is nobody's own: each of its lanes goes on alone.
//!
//! Memory is bounded. A stream holds at most two replies as the server sent them, one of them being decoded, and the events of one
//! that are being handed out; the server keeps a reply to about 16 MiB, and it is asked for [`REPLY_EVENTS`] at most. A lane has at most [`QUEUE`] pieces waiting for it
//! and one in its hands, each of at most [`PIECE_BYTES`], or of one event that is larger; lanes that share a stream share the
//! events too. A lane that waits for its turn holds nothing.

mod feed;
pub mod metrics;
mod piece;
mod pool;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use self::feed::Feeds;
use self::metrics::CatchUpMetrics;
use self::pool::Pool;
use self::stream::Slot;
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::stream::{Batch, StreamOptions};
use crate::window::Wanted;

/// How long a stream is held, from its first events on, when others wait. Opening one costs the server a scan of its oplog: much
/// shorter, and that would be all it does.
pub const SLICE: Duration = Duration::from_secs(10);

/// Lanes this close to each other, in cluster time, share a stream.
pub const TOGETHER: Duration = Duration::from_secs(30);

/// How long one lane may keep the others of its stream waiting, altogether; grows again with a twentieth of the time.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// Events asked for in one reply: fewer than the shared stream, because several lanes catch up at once and the history they
/// read may be of large documents.
pub const REPLY_EVENTS: u32 = 250;

/// Events of at most so many bytes are handed to a lane at once.
pub const PIECE_BYTES: usize = 1 << 20;

/// Pieces that may wait for a lane.
pub const QUEUE: usize = 2;

/// The catch-up streams of all lanes.
pub struct CatchUps {
    feeds: Feeds,
    metrics: CatchUpMetrics,
    pool: Mutex<Pool>,
}

impl CatchUps {
    /// At most `streams_max` streams with these options, whose filter is not used.
    pub fn new(options: StreamOptions, streams_max: u32, metrics: CatchUpMetrics) -> Arc<CatchUps> {
        CatchUps::of(Feeds::Server(Box::new(options)), streams_max, metrics)
    }

    /// What the streams are opened with, without a filter.
    pub fn options(&self) -> Option<StreamOptions> {
        self.feeds.options()
    }

    fn of(feeds: Feeds, streams_max: u32, metrics: CatchUpMetrics) -> Arc<CatchUps> {
        Arc::new(CatchUps { feeds, metrics, pool: Mutex::new(Pool::new(streams_max as usize)) })
    }

    /// Asks for everything behind `place` that is `wanted`; more may come, events before `place` never do. Must be called
    /// inside a tokio runtime.
    pub fn request(self: &Arc<Self>, place: Place, wanted: impl Into<Wanted>) -> CatchUp {
        let (sender, batches) = mpsc::channel(QUEUE);
        let wanted = wanted.into();
        let id = self.change(|pool| pool.request(place, wanted, sender, Instant::now()));
        self.dispatch();
        CatchUp { pool: Arc::clone(self), id, batches, begun: false }
    }

    /// Opens streams for those who wait, as long as there may be more.
    fn dispatch(self: &Arc<Self>) {
        // Without a runtime everything ends, and nobody waits any more.
        let Ok(runtime) = Handle::try_current() else { return };
        while let Some(opening) = self.change(|pool| pool.open_next(Instant::now())) {
            debug!(place = %opening.place, outputs = opening.members, "catch-up stream");
            self.metrics.opened.inc();
            let slot = Slot::new(Arc::clone(self), opening.group, opening.wake);
            let feed = self.feeds.open(opening.place, opening.filter);
            runtime.spawn(stream::run(slot, feed));
        }
    }

    /// Looks at the pool or changes it, and keeps the gauges true.
    fn change<T>(&self, change: impl FnOnce(&mut Pool) -> T) -> T {
        let mut pool = self.lock();
        let changed = change(&mut pool);
        self.metrics.streams.set(pool.running() as i64);
        self.metrics.waiting.set(pool.waiting() as i64);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // No code that can panic runs under this lock; a poisoned pool is still whole.
        self.pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What a lane holds while it is behind the window: its place in the queue, then its share of a stream. Dropped, the lane leaves;
/// the last one ends the stream.
pub struct CatchUp {
    pool: Arc<CatchUps>,
    id: u64,
    batches: mpsc::Receiver<Result<Batch, SourceError>>,
    begun: bool,
}

impl CatchUp {
    /// The next events behind the lane's place. `None`: the stream was given back to others, ask again. Cancel-safe.
    ///
    /// # Errors
    /// What no reopening mends, of this lane's own stream at its own place.
    pub async fn next(&mut self) -> Option<Result<Batch, SourceError>> {
        let batch = self.batches.recv().await;
        self.begun |= batch.is_some();
        batch
    }

    /// A batch has come. Until then the lane may be waiting for its turn.
    pub fn has_begun(&self) -> bool {
        self.begun
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.pool.change(|pool| pool.leave(self.id));
    }
}

#[cfg(test)]
mod tests;
