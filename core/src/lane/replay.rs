//! Dead letters that are to be delivered once more: how they come into a lane, and how their ends are reported.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::event::Event;
use crate::lane::engine::Engine;
use crate::lane::engine::effects::ReplayEnd;
use crate::lane::settle::Ticket;

/// Replays between their sender and the lane.
const WAITING_MAX: usize = 64;

/// One event to be delivered once more, with its own id, marked as a redelivery.
pub struct Replay {
    /// The event.
    pub event: Arc<Event>,
    /// How often it was handed out before.
    pub attempts: u32,
    /// Gets its end. Closed without one: the lane is gone, which is the same as [`ReplayEnd::Dropped`].
    pub end: oneshot::Sender<ReplayEnd>,
}

/// Puts replays into a lane, in the order in which they are to be delivered. A send waits while the lane has no room for more.
pub type ReplaySender = mpsc::Sender<Replay>;

/// The lane's end.
pub struct Replays {
    incoming: mpsc::Receiver<Replay>,
    open: HashMap<Ticket, oneshot::Sender<ReplayEnd>>,
}

impl Replays {
    /// No replay yet.
    pub fn new() -> (ReplaySender, Replays) {
        let (sender, incoming) = mpsc::channel(WAITING_MAX);
        (sender, Replays { incoming, open: HashMap::new() })
    }

    /// The next one; forever where none comes. Cancel-safe.
    pub async fn next(&mut self) -> Replay {
        match self.incoming.recv().await {
            Some(replay) => replay,
            None => std::future::pending().await,
        }
    }

    /// Gives one to the engine.
    pub fn accept(&mut self, replay: Replay, engine: &mut Engine) {
        let ticket = engine.replay(replay.event, replay.attempts);
        self.open.insert(ticket, replay.end);
    }

    /// Reports an end. Nobody may be waiting for it any more.
    pub fn ended(&mut self, ticket: Ticket, end: ReplayEnd) {
        if let Some(sender) = self.open.remove(&ticket) {
            let _ = sender.send(end);
        }
    }

    /// No replay gets anywhere any more: reports that for all that are open, and refuses new ones.
    pub fn drop_all(&mut self) {
        self.incoming.close();
        while let Ok(replay) = self.incoming.try_recv() {
            let _ = replay.end.send(ReplayEnd::Dropped);
        }
        for (_, sender) in self.open.drain() {
            let _ = sender.send(ReplayEnd::Dropped);
        }
    }
}
