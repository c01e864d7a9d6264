//! What a broadcast output's plugin is told of its stream: where it is complete from, where news begins, how far it has come.
//! Pure: time is passed in.
//!
//! A broadcast output keeps no position. Its clients carry theirs, as event ids: so its events must come in the order of the
//! stream, and it must know for which ids it can vouch.

use std::time::{Duration, Instant};

use crate::plugin::Progress;
use crate::source::place::Place;
use crate::source::token::Timestamp64;

/// At most this often, once the stream runs.
const INTERVAL: Duration = Duration::from_secs(1);

/// The progress of one broadcast output.
#[derive(Debug)]
pub struct Broadcast {
    live_from: Timestamp64,
    /// Of the instance that is up; `None` until it was told the first time.
    complete_from: Option<Timestamp64>,
    told: Option<(Instant, Timestamp64)>,
}

impl Broadcast {
    /// Events before `live_from` are history.
    pub fn new(live_from: Timestamp64) -> Self {
        Self { live_from, complete_from: None, told: None }
    }

    /// Another instance knows nothing of what the last one was given.
    pub fn instance_is_new(&mut self) {
        self.complete_from = None;
        self.told = None;
    }

    /// What the plugin is to be told now, if anything, where all up to `low_water` is settled.
    pub fn due(&mut self, low_water: &Place, now: Instant) -> Option<Progress> {
        // The events of the place's own time are not all behind it: a mark stands before them, a transaction has several.
        let reached = low_water.time();
        let due = match self.told {
            None => true,
            // The end of the history is news that nobody should wait a second for.
            Some((_, told)) if told < self.live_from && reached >= self.live_from => true,
            Some((at, told)) => reached > told && now.duration_since(at) >= INTERVAL,
        };
        if !due {
            return None;
        }
        self.told = Some((now, reached));
        let complete_from = *self.complete_from.get_or_insert_with(|| complete_behind(low_water));
        Some(Progress { complete_from, live_from: self.live_from, reached })
    }
}

/// The first time of which all events are still to come at the place.
fn complete_behind(place: &Place) -> Timestamp64 {
    match place {
        Place::From(time) => *time,
        Place::After(token) if !token.is_event() => token.position().time,
        // Some of the events of its time are not.
        Place::After(_) | Place::AfterId(_) => Timestamp64(place.time().0.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::{mark_data, token, token_data};

    fn after(seconds: u32) -> Place {
        Place::After(token(&token_data(seconds, 0, 0)))
    }

    fn time(seconds: u64, increment: u64) -> Timestamp64 {
        Timestamp64((seconds << 32) | increment)
    }

    #[test]
    fn it_is_told_at_once_then_now_and_then_and_when_history_ends() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut broadcast = Broadcast::new(time(100, 0));
        let first = broadcast.due(&Place::From(time(50, 0)), at(0)).expect("at once");
        let expected = Progress { complete_from: time(50, 0), live_from: time(100, 0), reached: time(50, 0) };
        assert_eq!(first, expected);
        assert_eq!(broadcast.due(&after(60), at(10)), None, "too soon");
        assert_eq!(broadcast.due(&after(70), at(1_000)), Some(Progress { reached: time(70, 0), ..expected }));
        assert_eq!(broadcast.due(&after(100), at(1_001)), Some(Progress { reached: time(100, 0), ..expected }));
        assert_eq!(broadcast.due(&after(101), at(1_002)), None);
        assert_eq!(broadcast.due(&after(100), at(9_000)), None, "no further than before");
    }

    #[test]
    fn a_new_instance_vouches_only_for_what_it_is_given() {
        let now = Instant::now();
        let mut broadcast = Broadcast::new(time(100, 0));
        broadcast.due(&Place::From(time(50, 0)), now);
        broadcast.instance_is_new();
        let told = broadcast.due(&after(120), now).expect("at once");
        assert_eq!(told, Progress { complete_from: time(120, 1), live_from: time(100, 0), reached: time(120, 0) });
    }

    #[test]
    fn a_mark_is_before_the_events_of_its_time() {
        // What mongod says first on a stream that it opens at this time: an event of the very same time may come next.
        let mark = Place::After(token(&mark_data(100, 7)));
        let told = Broadcast::new(time(100, 7)).due(&mark, Instant::now()).expect("at once");
        assert_eq!(told, Progress { complete_from: time(100, 7), live_from: time(100, 7), reached: time(100, 7) });
    }

    #[test]
    fn inside_a_transaction_its_time_is_not_reached_over() {
        let operation = Place::After(token(&token_data(100, 7, 2)));
        let told = Broadcast::new(time(90, 0)).due(&operation, Instant::now()).expect("at once");
        assert_eq!((told.complete_from, told.reached), (time(100, 8), time(100, 7)));
    }
}
