//! One catch-up stream at work: reads, hands out, waits for slow lanes while that delays nobody, and ends when its time is over,
//! when nobody wants it any more or when it cannot go on.

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::debug;

use crate::lane::catch_up::CatchUps;
use crate::lane::catch_up::QUEUE;
use crate::lane::catch_up::feed::Feed;
use crate::lane::catch_up::piece::pieces;
use crate::lane::catch_up::pool::{Answer, Laggard};
use crate::source::error::SourceError;
use crate::source::stream::Batch;

/// One of the streams that there may be. Given on when it is dropped, however its task ends.
pub(super) struct Slot {
    pool: Arc<CatchUps>,
    group: u64,
    wake: Arc<Notify>,
}

impl Slot {
    pub fn new(pool: Arc<CatchUps>, group: u64, wake: Arc<Notify>) -> Slot {
        Slot { pool, group, wake }
    }

    /// Waits until nobody wants the stream any more, or others wait and its time is over.
    async fn ended(&self) {
        while !self.is_over() && !self.pool.change(|pool| pool.is_abandoned(self.group)) {
            tokio::select! {
                () = self.slice() => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Waits until the time is over that the stream may be held while others wait.
    async fn slice(&self) {
        let ends = self.pool.change(|pool| pool.slice_ends(self.group));
        match ends.filter(|ends| *ends > Instant::now()) {
            Some(ends) => tokio::time::sleep_until(ends).await,
            None => std::future::pending().await,
        }
    }

    fn is_over(&self) -> bool {
        self.pool.change(|pool| pool.is_over(self.group, Instant::now()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.change(|pool| pool.close(self.group));
        self.pool.dispatch();
    }
}

/// Reads the stream for all who have a share of it.
pub(super) async fn run(slot: Slot, mut feed: Feed) {
    let failed = serve(&slot, &mut feed).await.err();
    // Closed before its place is given on: the server is never asked for more streams than there may be.
    drop(feed);
    let Some(error) = failed else { return };
    let own = slot.pool.change(|pool| pool.fail(slot.group));
    drop(slot);
    match own {
        // The lane takes it in its own time; one that has gone does not want it.
        Some(member) => drop(member.send(Err(error)).await),
        None => debug!("a shared catch-up stream failed, its outputs go on alone: {error}"),
    }
}

/// Until nobody wants the stream or its time is over.
async fn serve(slot: &Slot, feed: &mut Feed) -> Result<(), SourceError> {
    loop {
        // A read that is dropped here is never continued.
        let batch = tokio::select! {
            biased;
            () = slot.ended() => return Ok(()),
            batch = feed.next() => batch?,
        };
        for piece in pieces(batch) {
            if !hand_out(slot, piece).await || slot.is_over() {
                return Ok(());
            }
        }
    }
}

/// Gives the piece to everyone. False when the stream must be given back before all have it.
async fn hand_out(slot: &Slot, piece: Batch) -> bool {
    let mut laggards = slot.pool.change(|pool| pool.offer(slot.group, &piece, Instant::now()));
    drop(piece);
    let mut looked = Instant::now();
    let mut someone_was_hungry = false;
    while !laggards.is_empty() {
        let now = Instant::now();
        if someone_was_hungry {
            let waited = now.saturating_duration_since(looked);
            laggards.iter_mut().for_each(|laggard| laggard.patience = laggard.patience.saturating_sub(waited));
        }
        looked = now;
        let others = slot.pool.change(|pool| pool.others(slot.group, &laggards));
        someone_was_hungry = others.iter().any(is_hungry);
        if someone_was_hungry {
            detach(slot, &mut laggards);
        }
        let Some(patience) = laggards.iter().map(|laggard| laggard.patience).min() else { break };
        if slot.is_over() {
            return false;
        }
        let rooms = laggards.iter().map(|laggard| Box::pin(laggard.sender.clone().reserve_owned()));
        tokio::select! {
            (room, index, _) = select_all(rooms) => {
                let laggard = laggards.swap_remove(index);
                // One that has gone has left the group by itself.
                if let Ok(room) = room {
                    room.send(Ok(laggard.share));
                    let spent = if someone_was_hungry { looked.elapsed() } else { Duration::ZERO };
                    let left = laggard.patience.saturating_sub(spent);
                    slot.pool.change(|pool| pool.caught_up(slot.group, laggard.id, left, Instant::now()));
                }
            }
            () = one_is_hungry(others), if !someone_was_hungry => {}
            () = tokio::time::sleep(patience), if someone_was_hungry => {}
            () = slot.slice() => {}
            () = slot.wake.notified() => {}
        }
    }
    true
}

/// Lets those go for whom the others have waited long enough.
fn detach(slot: &Slot, laggards: &mut Vec<Laggard>) {
    laggards.retain(|laggard| {
        let stays = !laggard.patience.is_zero();
        if !stays {
            slot.pool.change(|pool| pool.leave(laggard.id));
            slot.pool.metrics.detached.inc();
        }
        stays
    });
}

/// The lane has taken everything it was given.
fn is_hungry(member: &mpsc::Sender<Answer>) -> bool {
    member.capacity() == QUEUE
}

/// Waits until one of these lanes has taken everything.
async fn one_is_hungry(members: Vec<mpsc::Sender<Answer>>) {
    if members.is_empty() {
        return std::future::pending().await;
    }
    // All the room there is: the queue is empty. Given back at once.
    let hungers = members.iter().map(|member| Box::pin(member.reserve_many(QUEUE)));
    drop(select_all(hungers).await);
}
