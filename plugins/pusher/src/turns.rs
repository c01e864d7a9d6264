//! One delivery at a time for each channel. Knows nothing of requests.
//!
//! Pusher keeps no order between requests that are open at once, so that two deliveries with a channel in common must not be.
//! A delivery takes its place behind all others of its channels in one step: they go in the order in which they came, and
//! none can wait for another that waits for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tailwater_sdk::tokio::sync::Notify;

/// Who may send to which channel. Holds the channels in use and no others.
#[derive(Default)]
pub(crate) struct Turns {
    /// For each channel those who want it, in the order in which they came; the first one has it. Never empty.
    queues: Mutex<HashMap<String, VecDeque<Arc<Notify>>>>,
}

/// A place in the queues of some channels. Dropping it gives them to those behind it.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    channels: Vec<String>,
    /// Rung when one ahead has gone; also tells this place from others.
    bell: Arc<Notify>,
}

impl Turns {
    /// Takes a place in the queue of each of these channels.
    pub(crate) fn queue<'a>(&self, channels: impl IntoIterator<Item = &'a str>) -> Turn<'_> {
        let mut channels: Vec<String> = channels.into_iter().map(str::to_owned).collect();
        channels.sort_unstable();
        channels.dedup();
        let bell = Arc::new(Notify::new());
        let mut queues = self.lock();
        for channel in &channels {
            queues.entry(channel.clone()).or_default().push_back(bell.clone());
        }
        Turn { turns: self, channels, bell }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Arc<Notify>>>> {
        self.queues.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Turn<'_> {
    /// Waits until all its channels are free. May be dropped and called again: the place stays.
    pub(crate) async fn come(&self) {
        while !self.is_first() {
            // A bell rung since the look is remembered.
            self.bell.notified().await;
        }
    }

    fn is_first(&self) -> bool {
        let queues = self.turns.lock();
        self.channels.iter().all(|channel| Arc::ptr_eq(&queues[channel][0], &self.bell))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queues = self.turns.lock();
        for channel in &self.channels {
            let Some(queue) = queues.get_mut(channel) else { continue };
            queue.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            match queue.front() {
                Some(next) => next.notify_one(),
                None => drop(queues.remove(channel)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn has_come(turn: &Turn<'_>) -> bool {
        // A bell rung for a look that is dropped is not lost: the next look is at the queues first.
        pin!(turn.come()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn one_channel_is_had_by_one_at_a_time_in_the_order_of_coming() {
        let turns = Turns::default();
        let mut waiting: VecDeque<_> = (0..4).map(|_| turns.queue(["a"])).collect();
        while let Some(first) = waiting.pop_front() {
            assert!(has_come(&first));
            assert!(waiting.iter().all(|turn| !has_come(turn)));
        }
        assert!(turns.lock().is_empty(), "a channel that nobody wants is forgotten");
    }

    #[test]
    fn different_channels_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let (a, b) = (turns.queue(["a"]), turns.queue(["b"]));
        assert!(has_come(&a) && has_come(&b));
    }

    #[test]
    fn who_waits_for_one_channel_keeps_its_place_at_the_others() {
        let turns = Turns::default();
        let a = turns.queue(["a"]);
        let both = turns.queue(["b", "a", "b"]);
        let b = turns.queue(["b"]);
        assert!(has_come(&a) && !has_come(&both));
        assert!(!has_come(&b), "it came later than one that wants b, too");
        drop(a);
        assert!(has_come(&both) && !has_come(&b));
        drop(both);
        assert!(has_come(&b));
    }

    #[test]
    fn who_gives_up_waiting_lets_nobody_in_before_time() {
        let turns = Turns::default();
        let (first, second, third) = (turns.queue(["a"]), turns.queue(["a"]), turns.queue(["a"]));
        drop(second);
        assert!(has_come(&first) && !has_come(&third));
        drop(first);
        assert!(has_come(&third));
    }

    #[test]
    fn who_waits_is_woken() {
        let runtime = tailwater_sdk::tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let turns = Turns::default();
        let first = turns.queue(["a", "b"]);
        let second = turns.queue(["b", "a"]);
        runtime.block_on(async {
            tailwater_sdk::tokio::join!(biased; second.come(), async { drop(first) });
        });
        assert!(has_come(&second));
    }
}
