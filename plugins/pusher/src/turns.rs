//! One delivery at a time for each channel. Knows nothing of requests.
//!
//! Pusher keeps no order between requests that are open at once, so that two deliveries with a channel in common must not be.
//! A delivery takes a place in the queues of all its channels in one step. Those that wait stand in the order of their places
//! in the change stream: the runtime may begin deliveries in another order than the daemon handed them out, and one that
//! comes again is older than those it meets. That order is the same in every queue, so that none can wait for another that
//! waits for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tailwater_sdk::tokio::sync::Notify;

/// Who may send to which channel. Holds the channels in use and no others.
#[derive(Default)]
pub(crate) struct Turns {
    /// For each channel those who want it; the first one has it or waits for another channel. Never empty.
    queues: Mutex<HashMap<String, VecDeque<Place>>>,
}

/// One delivery's place in one queue.
struct Place {
    /// Id of its first event.
    position: Arc<str>,
    /// Rung when one ahead has gone; also tells this delivery from others.
    bell: Arc<Notify>,
    /// It has all its channels: nobody gets in ahead of it.
    has_come: bool,
}

/// A delivery's places in the queues of its channels. Dropping it gives them to those behind it.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    channels: Vec<String>,
    bell: Arc<Notify>,
}

impl Turns {
    /// Takes a place in the queue of each of these channels. `position` is the id of the delivery's first event.
    pub(crate) fn queue<'a>(&self, position: &str, channels: impl IntoIterator<Item = &'a str>) -> Turn<'_> {
        let mut channels: Vec<String> = channels.into_iter().map(str::to_owned).collect();
        channels.sort_unstable();
        channels.dedup();
        let (position, bell): (Arc<str>, _) = (position.into(), Arc::new(Notify::new()));
        let mut queues = self.lock();
        for channel in &channels {
            let queue = queues.entry(channel.clone()).or_default();
            let index = queue.partition_point(|other| other.has_come || other.position <= position);
            queue.insert(index, Place { position: position.clone(), bell: bell.clone(), has_come: false });
        }
        Turn { turns: self, channels, bell }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Place>>> {
        self.queues.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Turn<'_> {
    /// Waits until all its channels are free. May be dropped and called again: the places stay.
    pub(crate) async fn come(&self) {
        while !self.try_come() {
            // A bell rung since the look is remembered.
            self.bell.notified().await;
        }
    }

    fn try_come(&self) -> bool {
        let mut queues = self.turns.lock();
        let comes = self.channels.iter().all(|channel| Arc::ptr_eq(&queues[channel][0].bell, &self.bell));
        if comes {
            for channel in &self.channels {
                if let Some(first) = queues.get_mut(channel).and_then(VecDeque::front_mut) {
                    first.has_come = true;
                }
            }
        }
        comes
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queues = self.turns.lock();
        for channel in &self.channels {
            let Some(queue) = queues.get_mut(channel) else { continue };
            queue.retain(|place| !Arc::ptr_eq(&place.bell, &self.bell));
            match queue.front() {
                Some(next) => next.bell.notify_one(),
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
    fn one_channel_is_had_by_one_at_a_time_in_the_order_of_the_change_stream() {
        let turns = Turns::default();
        let had = turns.queue("5", ["a"]);
        assert!(has_come(&had));
        // Of one position, the first to come is first.
        let mut waiting: Vec<_> =
            ["7", "3", "6", "3", "9"].into_iter().map(|id| (id, turns.queue(id, ["a"]))).collect();
        drop(had);
        for (id, index) in [("3", 1), ("3", 2), ("6", 1), ("7", 0), ("9", 0)] {
            let come: Vec<_> = waiting.iter().map(|(_, turn)| has_come(turn)).collect();
            assert!(come.into_iter().enumerate().all(|(place, come)| come == (place == index)), "{id}");
            assert_eq!(waiting.remove(index).0, id);
        }
        assert!(turns.lock().is_empty(), "a channel that nobody wants is forgotten");
    }

    #[test]
    fn different_channels_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let (a, b) = (turns.queue("1", ["a"]), turns.queue("1", ["b"]));
        assert!(has_come(&a) && has_come(&b));
    }

    #[test]
    fn who_waits_for_one_channel_keeps_its_place_at_the_others() {
        let turns = Turns::default();
        let a = turns.queue("1", ["a"]);
        let both = turns.queue("2", ["b", "a", "b"]);
        let b = turns.queue("3", ["b"]);
        assert!(has_come(&a) && !has_come(&both));
        assert!(!has_come(&b), "it is later than one that wants b, too");
        let early = turns.queue("0", ["b"]);
        assert!(has_come(&early), "nobody has b yet, and it is the earliest");
        drop(early);
        drop(a);
        assert!(has_come(&both) && !has_come(&b));
        drop(both);
        assert!(has_come(&b));
    }

    #[test]
    fn who_has_its_channels_is_not_overtaken() {
        let turns = Turns::default();
        let had = turns.queue("5", ["a", "b"]);
        assert!(has_come(&had));
        let early = turns.queue("1", ["b", "c"]);
        assert!(!has_come(&early));
        drop(had);
        assert!(has_come(&early));
    }

    #[test]
    fn who_gives_up_waiting_lets_nobody_in_before_time() {
        let turns = Turns::default();
        let (first, second, third) = (turns.queue("1", ["a"]), turns.queue("2", ["a"]), turns.queue("3", ["a"]));
        drop(second);
        assert!(has_come(&first) && !has_come(&third));
        drop(first);
        assert!(has_come(&third));
    }

    #[test]
    fn who_waits_is_woken() {
        let runtime = tailwater_sdk::tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let turns = Turns::default();
        let first = turns.queue("1", ["a", "b"]);
        let second = turns.queue("2", ["b", "a"]);
        runtime.block_on(async {
            tailwater_sdk::tokio::join!(biased; second.come(), async { drop(first) });
        });
        assert!(has_come(&second));
    }
}
