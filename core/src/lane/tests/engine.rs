//! Single policies of the engine, each by the smallest case that shows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dead_letters::Kind;
use crate::event::projection::{self, Fingerprint, Projection};
use crate::event::{Event, RowHead, gap};
use crate::lane::config::{Backlog, Config, Keep, OnReject, Ordering};
use crate::lane::engine::effects::{Effects, ReplayEnd, Taken};
use crate::lane::engine::{Engine, LETTERS_MAX, Setup};
use crate::lane::tests::reader::reached;
use crate::lane::tests::settings::{defaults, event, index};
use crate::plugin::{Verdict, Verdicts};
use crate::snapshot::{RangeNumber, Read, Row, RowId};
use crate::source::place::Place;
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

    /// The same for what is no event of the test's own numbering.
    fn leave_any(&mut self, after_s: u64) -> Option<(u64, usize)> {
        let now = self.start + Duration::from_secs(after_s);
        let leaving = self.engine.hand_out(now, self.newest(), &mut Effects::default())?;
        Some((leaving.delivery, leaving.batch.len()))
    }

    fn answer(&mut self, after_s: u64, delivery: u64, verdict: Verdict) -> Effects {
        let now = self.start + Duration::from_secs(after_s);
        self.engine.complete(delivery, Verdicts::all(verdict), now, &mut || 1.0)
    }

    fn engine_projection() -> Fingerprint {
        let mut config = defaults();
        without_key(&mut config);
        config.project.expect("one").fingerprint()
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

fn without_key(config: &mut Config) {
    config.project = Some(Arc::new(projection::fixture("exclude = [\"documentKey\", \"fullDocument._id\"]")));
}

/// From being taken on there is only what the projection leaves, whichever way the event came; `match` and settling see all of it.
#[test]
fn an_output_with_a_projection_is_given_nothing_else() {
    let mut case = Case::new(without_key);
    let whole = event(1, Some(1), false, false);
    case.take(1, Some(1));
    let head = RowHead::new(Timestamp64(1 << 32), "shop", "orders").expect("a head");
    let row = Arc::new(Event::from_row(&head, bson::rawdoc! { "_id": 1 }.as_ref()).expect("a row"));
    let read = Row { event: Arc::clone(&row), range: RangeNumber(0) };
    let row_id = read.id();
    case.engine.take_read(Read::Row(read));
    assert_eq!(row_id, RowId::of(bson::rawdoc! { "_id": 1 }.as_ref()).expect("an id"), "progress is by the whole row");
    let old = case.engine.replay(event(2, Some(2), false, false), 1);
    let fingerprint = Some(Case::engine_projection());
    let mut given = Vec::new();
    while let Some(leaving) = case.engine.hand_out(case.start, case.newest(), &mut Effects::default()) {
        for delivered in &leaving.batch {
            let event = &delivered.event;
            assert_eq!((event.projection(), event.document_key()), (fingerprint, None), "{event:?}");
            assert!(event.full_document().is_none_or(|document| document.get("_id").expect("BSON").is_none()));
            assert!(event.key().is_some());
            given.push(*event.id());
        }
        case.answer(0, leaving.delivery, reject());
    }
    // The event and the row are of one document: what comes second comes again.
    given.sort();
    given.dedup();
    let mut expected = [*whole.id(), *row.id(), *event(2, Some(2), false, false).id()];
    expected.sort();
    assert_eq!((given.as_slice(), old), (&expected[..], 0));
    for letter in case.engine.letters(10) {
        assert_eq!((letter.event.projection(), letter.event.document_key()), (fingerprint, None), "{letter:?}");
    }
    case.engine.buried(2);
    assert_eq!((case.engine.held_bytes(), case.unsettled()), (0, 0));
    assert_eq!(case.engine.settle().low_water(), &Place::After(whole.token().clone()), "the whole token");
    // A gap is no change of anybody's document.
    let gap = Arc::new(gap::event(Timestamp64(1 << 32), Timestamp64(9 << 32)).expect("a gap"));
    case.engine.take_gap(Arc::clone(&gap), "lost".to_owned(), Place::After(gap.token().clone()), true);
    assert!(case.engine.letters(1)[0].event.projection().is_none());
}

/// What came out of this projection before it was buried comes back as it is; out of another one, or of none, it goes through it.
#[test]
fn a_replay_is_not_projected_twice() {
    let hashing = |key: &str| {
        let text = format!("redact = {{ documentKey = \"hash\" }}\nhash_key = \"{key}\"");
        Some(Arc::new(projection::fixture(&text)))
    };
    let letter = |projection: &Option<Arc<Projection>>| {
        let buried = Arc::clone(event(2, Some(2), false, false).projected(projection.as_ref().expect("one")));
        let (raw, id) = (buried.raw().to_owned(), *buried.id());
        Event::from_projected(&raw, id, buried.projection().expect("one")).expect("an event")
    };
    let (ours, other) = (hashing("0123456789abcdef"), hashing("another key that is long enough"));
    for (config, letter, changes) in
        [(ours.clone(), letter(&ours), false), (ours.clone(), letter(&other), true), (None, letter(&ours), false)]
    {
        let mut case = Case::new(|output| output.project = config);
        let before = letter.raw().to_owned();
        case.engine.replay(Arc::new(letter), 1);
        let leaving = case.engine.hand_out(case.start, case.newest(), &mut Effects::default()).expect("it leaves");
        let given = &leaving.batch[0].event;
        assert_eq!(given.raw().as_bytes() != before.as_bytes(), changes);
        assert_eq!(given.id(), event(2, Some(2), false, false).id());
        case.answer(0, leaving.delivery, Verdict::Ack);
        assert_eq!(case.engine.held_bytes(), 0);
    }
}

#[test]
fn a_row_is_never_too_old() {
    let mut case = Case::new(|config| {
        config.backlog = Backlog { keep: Keep::All, max_age: Some(Duration::from_secs(10)) };
    });
    let head = RowHead::new(Timestamp64(1 << 32), "shop", "orders").expect("a head");
    let row = Event::from_row(&head, bson::rawdoc! { "_id": 1 }.as_ref()).expect("a row");
    case.newest = 1000;
    let (row, range) = (Arc::new(row), RangeNumber(0));
    assert_eq!(case.engine.take_read(Read::Row(Row { event: Arc::clone(&row), range })), Taken::Queued);
    let mut effects = Effects::default();
    let leaving = case.engine.hand_out(case.start, case.newest(), &mut effects).expect("it leaves");
    assert_eq!((leaving.batch[0].event.id(), effects.too_old), (row.id(), 0));
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

#[test]
fn an_event_on_which_instances_fail_leaves_alone_and_is_given_up_in_the_end() {
    let mut case = Case::new(|config| {
        config.retry.give_up_after = Some(Duration::from_secs(60));
        config.concurrency = 1;
    });
    for second in 1..=3 {
        case.take(second, Some(second as i32));
    }
    let failed = || Verdict::Failed { reason: "panicked".to_owned() };
    assert_eq!(case.leaves(0), Some(vec![(1, 1), (2, 1), (3, 1)]));
    assert_eq!(case.answer(1, 0, failed()).failed.as_deref(), Some("panicked"));
    assert_eq!(case.leaves(1), Some(vec![(1, 2), (2, 2), (3, 2)]), "it may have been anything");
    case.answer(2, 1, failed());
    // From now on each by itself: those that are sound get by.
    assert_eq!(case.leaves(2), Some(vec![(1, 3)]));
    assert_eq!(case.answer(3, 2, Verdict::Ack).acked, 1);
    assert_eq!(case.leaves(3), Some(vec![(2, 3)]));
    let effects = case.answer(70, 3, failed());
    assert_eq!((effects.refused.len(), effects.failed.is_some()), (1, true), "given up, and the instance is replaced");
    assert_eq!(case.leaves(70), Some(vec![(3, 3)]));
    assert_eq!(case.answer(71, 4, Verdict::Ack).acked, 1);
    case.engine.buried(1);
    assert_eq!(case.unsettled(), 0);
}

#[test]
fn a_gap_is_passed_when_its_letter_is_durable_and_it_was_delivered() {
    for letter_first in [true, false] {
        let mut case = Case::new(|_| {});
        let at = |second: u64| Timestamp64(second << 32);
        let before = case.engine.settle().low_water().clone();
        let gap = Arc::new(gap::event(at(1), at(500)).expect("an event"));
        case.engine.take_gap(gap, "lost".to_owned(), Place::From(at(500)), true);
        assert_eq!(case.engine.letters_waiting(), 1);
        let (delivery, _) = case.leave_any(0).expect("it is delivered");
        let mut steps = [0, 1];
        if !letter_first {
            steps.reverse();
        }
        for (done, step) in steps.into_iter().enumerate() {
            assert_eq!(*case.engine.settle().low_water(), before, "after {done} of 2, letter first: {letter_first}");
            if step == 0 {
                case.engine.buried(1);
            } else {
                case.answer(1, delivery, Verdict::Ack);
            }
        }
        assert_eq!(case.engine.settle().low_water().time(), at(500));
        assert_eq!((case.unsettled(), case.engine.held_bytes()), (0, 0));
    }
}
