//! Single policies of the engine, each by the smallest case that shows it.

use std::time::{Duration, Instant};

use crate::dead_letters::Kind;
use crate::lane::config::{Backlog, Config, Keep, OnReject, Ordering};
use crate::lane::engine::effects::{Effects, ReplayEnd, Taken};
use crate::lane::engine::{Engine, LETTERS_MAX, Setup};
use crate::lane::tests::reader::reached;
use crate::lane::tests::settings::{defaults, event, index};
use crate::plugin::{Verdict, Verdicts};
use crate::source::token::Timestamp64;

/// An engine, and the newest cluster time that it is told.
struct Case {
    engine: Engine,
    start: Instant,
    newest: u32,
}

impl Case {
    fn new(change: impl FnOnce(&mut Config)) -> Case {
        let mut config = defaults();
        config.retry.backoff_min = Duration::from_secs(1);
        change(&mut config);
        let setup = Setup {
            config: &config,
            matcher: None,
            place: reached(0),
            snapshot: None,
            batch_events_max: None,
            wants_json: false,
            broadcast: false,
        };
        let start = Instant::now();
        Case { engine: Engine::new(setup, start), start, newest: 0 }
    }

    fn newest(&self) -> Timestamp64 {
        Timestamp64(u64::from(self.newest) << 32)
    }

    fn take(&mut self, second: u32, id: Option<i32>) -> Taken {
        self.newest = self.newest.max(second);
        self.engine.take(event(second, id, false, false), self.newest())
    }

    fn take_poison(&mut self, second: u32, id: i32) {
        self.newest = self.newest.max(second);
        self.engine.take(event(second, Some(id), false, true), self.newest());
    }

    /// The next batch: its number, and of each event the second and how often it was handed out.
    fn leave(&mut self, after_s: u64, effects: &mut Effects) -> Option<(u64, Vec<(u32, u32)>)> {
        let now = self.start + Duration::from_secs(after_s);
        let leaving = self.engine.hand_out(now, self.newest(), effects)?;
        let events = leaving.batch.iter().map(|d| (index(&d.event) as u32 + 1, d.attempt)).collect();
        Some((leaving.delivery, events))
    }

    fn leaves(&mut self, after_s: u64) -> Option<Vec<(u32, u32)>> {
        self.leave(after_s, &mut Effects::default()).map(|(_, events)| events)
    }

    fn answer(&mut self, after_s: u64, delivery: u64, verdict: Verdict) -> Effects {
        let now = self.start + Duration::from_secs(after_s);
        self.engine.complete(delivery, Verdicts::all(verdict), now, &mut || 1.0)
    }

    fn unsettled(&self) -> usize {
        self.engine.settle().unsettled()
    }
}

fn retry(after_s: Option<u64>) -> Verdict {
    Verdict::Retry { after: after_s.map(Duration::from_secs), reason: "busy".to_owned() }
}

fn reject() -> Verdict {
    Verdict::Reject { reason: "no".to_owned() }
}

fn latest(config: &mut Config) {
    config.backlog.keep = Keep::LatestPerKey;
}

#[test]
fn an_event_that_asks_again_after_so_long_is_given_up() {
    let mut case = Case::new(|config| config.retry.give_up_after = Some(Duration::from_secs(60)));
    case.take(1, Some(1));
    assert_eq!(case.leaves(0), Some(vec![(1, 1)]));
    assert_eq!(case.answer(59, 0, retry(Some(1))).retried, 1, "not yet");
    assert_eq!(case.leaves(61), Some(vec![(1, 2)]));
    let effects = case.answer(61, 1, retry(None));
    assert_eq!((effects.retried, effects.refused.len(), effects.refused[0].kind), (0, 1, Kind::GivenUp));
    let letters = case.engine.letters(10);
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("given up after 1m: busy", 2));

    let mut case = Case::new(|config| config.retry.give_up_after = None);
    case.take(1, Some(1));
    assert_eq!(case.leaves(0), Some(vec![(1, 1)]));
    assert_eq!(case.answer(1_000_000_000, 0, retry(None)).retried, 1, "never");
}

#[test]
fn a_dead_letter_is_settled_once_it_is_durable_and_holds_nobody_back() {
    let mut case = Case::new(|config| config.batch.events_max = Some(1));
    case.take(1, Some(1));
    case.take(2, Some(1));
    assert_eq!(case.leaves(0), Some(vec![(1, 1)]));
    let effects = case.answer(0, 0, reject());
    assert_eq!((effects.refused[0].kind, effects.refused[0].reason.as_str()), (Kind::Rejected, "no"));
    assert_eq!(case.leaves(0), Some(vec![(2, 1)]), "a later event of its document goes on");
    case.answer(0, 1, Verdict::Ack);
    assert_eq!((case.unsettled(), case.engine.settle().first_unsettled()), (1, 0), "the letter is not durable");
    assert_eq!(case.engine.oldest_unsettled(), Some(*event(1, Some(1), false, false).id()));
    assert!(case.engine.held_bytes() > 0, "and counts as memory");
    case.engine.buried(1);
    assert_eq!((case.unsettled(), case.engine.settle().first_unsettled(), case.engine.held_bytes()), (0, 2, 0));
}

#[test]
fn nothing_leaves_while_too_many_letters_wait() {
    let mut case = Case::new(|config| config.batch.events_max = Some(LETTERS_MAX as u32));
    for second in 1..=LETTERS_MAX as u32 + 1 {
        case.take(second, Some(second as i32));
    }
    assert_eq!(case.leaves(0).map(|batch| batch.len()), Some(LETTERS_MAX));
    case.answer(0, 0, reject());
    assert_eq!(case.leaves(0), None, "there is nowhere to keep it if it is rejected");
    assert_eq!(case.engine.next_wake(true), Some(case.start + defaults().timeout), "and no turning until there is");
    assert!(!case.engine.is_late(case.start + defaults().timeout));
    assert_eq!(case.engine.next_wake(true), None);
    case.engine.buried(1);
    assert_eq!(case.leaves(0).map(|batch| batch.len()), Some(1));
}

#[test]
fn a_newer_event_takes_the_turn_the_wait_and_the_count_of_the_one_that_waits() {
    let mut case = Case::new(latest);
    case.take(1, Some(1));
    assert_eq!(case.leaves(0), Some(vec![(1, 1)]));
    case.answer(0, 0, retry(None));
    assert_eq!(case.leaves(1), Some(vec![(1, 2)]));
    // The second failure: two seconds.
    case.answer(1, 1, retry(None));
    assert_eq!(case.take(2, Some(1)), Taken::Superseded);
    case.take(3, Some(2));
    assert_eq!(case.unsettled(), 2, "the older one is settled");
    assert_eq!(case.leaves(1), Some(vec![(3, 1)]), "another document does not wait");
    assert_eq!(case.leaves(2), None, "the wait is kept");
    case.take(4, Some(3));
    assert_eq!(case.take(5, Some(1)), Taken::Superseded);
    assert_eq!(case.leaves(3), Some(vec![(5, 1), (4, 1)]), "the turn is kept; for the plugin it is the first time");
    case.answer(3, 3, retry(None));
    assert_eq!(case.leaves(6), None, "the count is kept: the third failure waits four seconds");
    assert_eq!(case.leaves(7).map(|batch| batch.len()), Some(2));
}

#[test]
fn what_is_in_flight_is_superseded_only_when_it_comes_back() {
    let mut case = Case::new(latest);
    case.take(1, Some(1));
    assert_eq!(case.leaves(0), Some(vec![(1, 1)]));
    assert_eq!(case.take(2, Some(1)), Taken::Queued);
    assert_eq!(case.take(3, Some(1)), Taken::Superseded);
    let effects = case.answer(0, 0, retry(Some(5)));
    assert_eq!((effects.superseded, case.unsettled()), (1, 1));
    assert_eq!((case.leaves(4), case.leaves(5)), (None, Some(vec![(3, 1)])));
    assert_eq!(case.take(4, Some(1)), Taken::Queued);
    let effects = case.engine.instance_gone();
    assert_eq!((effects.retried, effects.superseded), (1, 1), "also when the instance is gone");
    assert_eq!(case.leaves(5), Some(vec![(4, 1)]));
}

#[test]
fn nothing_is_superseded_across_a_barrier_or_for_what_cannot_be_delivered() {
    let mut case = Case::new(latest);
    case.take(1, Some(1));
    case.take(2, None);
    assert_eq!(case.take(3, Some(1)), Taken::Queued);
    assert_eq!(case.take(4, Some(1)), Taken::Superseded);
    for (delivery, second) in [1, 2, 4].into_iter().enumerate() {
        assert_eq!(case.leaves(0), Some(vec![(second, 1)]));
        case.answer(0, delivery as u64, Verdict::Ack);
    }
    case.take(5, Some(1));
    case.take_poison(6, 1);
    assert_eq!(case.take(7, Some(1)), Taken::Queued);
    let mut effects = Effects::default();
    assert_eq!(case.leave(0, &mut effects), Some((3, vec![(5, 1), (7, 1)])));
    assert_eq!((effects.refused.len(), effects.refused[0].kind), (1, Kind::Poison));
}

#[test]
fn what_is_too_old_is_skipped_when_it_is_taken_and_when_it_would_leave() {
    let mut case = Case::new(|config| {
        config.backlog = Backlog { keep: Keep::All, max_age: Some(Duration::from_secs(10)) };
        config.batch.events_max = Some(1);
    });
    case.newest = 12;
    assert_eq!(
        (case.take(1, Some(1)), case.take(2, Some(2)), case.take(3, Some(2))),
        (Taken::TooOld, Taken::Queued, Taken::Queued)
    );
    assert_eq!(case.leaves(0), Some(vec![(2, 1)]));
    case.answer(0, 0, retry(Some(1)));
    case.newest = 100;
    let mut effects = Effects::default();
    assert_eq!(case.leave(1, &mut effects), Some((1, vec![(2, 2)])), "it was handed out before");
    case.answer(1, 1, Verdict::Ack);
    assert_eq!((case.leave(1, &mut effects), effects.too_old, case.unsettled()), (None, 1, 0));
}

#[test]
fn what_cannot_be_delivered_stops_the_output_behind_what_came_before_it() {
    let mut case = Case::new(|config| config.on_reject = OnReject::Stop);
    case.take(1, Some(1));
    case.take_poison(2, 2);
    case.take(3, Some(3));
    let mut effects = Effects::default();
    assert_eq!(case.leave(0, &mut effects), Some((0, vec![(1, 1)])));
    assert!(effects.stop.is_none() && case.leave(0, &mut effects).is_none());
    assert!(effects.stop.is_some_and(|reason| reason.ends_with("rejected: too large")));
    case.answer(0, 0, Verdict::Ack);
    assert_eq!((case.unsettled(), case.engine.settle().first_unsettled()), (2, 1));
    assert_eq!(case.engine.oldest_unsettled(), Some(*event(2, Some(2), false, true).id()));
    assert!(!case.engine.has_room());
}

#[test]
fn replays_are_redeliveries_in_their_order_and_take_turns_with_live_events() {
    let mut case = Case::new(|config| {
        config.batch.events_max = Some(1);
        config.concurrency = 1;
    });
    for second in 1..=3 {
        assert_eq!(case.engine.replay(event(second, Some(1), false, false), 4), u64::from(second) - 1);
    }
    for second in 11..=13 {
        case.take(second, Some(2));
    }
    let mut order = Vec::new();
    let mut ends = Vec::new();
    while let Some((delivery, events)) = case.leave(0, &mut Effects::default()) {
        order.extend(events);
        let effects = case.answer(0, delivery, if order.len() == 4 { reject() } else { Verdict::Ack });
        ends.extend(effects.replays);
    }
    assert_eq!(order, [(11, 1), (1, 5), (12, 1), (2, 5), (13, 1), (3, 5)]);
    let rejected = ReplayEnd::Rejected { reason: "no".to_owned(), attempts: 5 };
    assert_eq!(ends, [(0, ReplayEnd::Acked), (1, rejected), (2, ReplayEnd::Acked)]);
    assert_eq!(
        (case.engine.letters_waiting(), case.engine.settle().next_ticket(), case.engine.held_bytes()),
        (0, 3, 0)
    );
}

#[test]
fn replays_that_do_not_get_through_leave_room_for_live_events() {
    let weight = event(1, Some(1), false, false).bytes() as u64;
    let mut case = Case::new(|config| {
        config.in_flight_bytes_max = 8 * weight;
        config.ordering = Ordering::Strict;
    });
    let mut replays = 0;
    while case.engine.has_room_for_replay() {
        replays += 1;
        case.engine.replay(event(replays, Some(1), false, false), 1);
    }
    assert_eq!(replays, 2, "a quarter");
    let mut live = 0;
    while case.engine.has_room() {
        live += 1;
        case.take(100 + live, Some(1));
    }
    assert_eq!(live, 6);
}

#[test]
fn a_replay_of_what_cannot_be_delivered_ends_with_the_reason() {
    let mut case = Case::new(|_| {});
    case.engine.replay(event(1, Some(1), false, true), 0);
    let mut effects = Effects::default();
    assert_eq!(case.leave(0, &mut effects), None);
    assert_eq!(effects.replays, [(0, ReplayEnd::Rejected { reason: "too large".to_owned(), attempts: 1 })]);
}
