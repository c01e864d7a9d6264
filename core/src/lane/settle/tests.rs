//! A lane that begins with a snapshot, against a plain model over seeded interleavings; a failure prints its seed.

use bson::rawdoc;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::event::fixture::{mark_data, token, token_data};
use crate::snapshot::progress::Namespace;
use crate::snapshot::range::between;
use crate::source::token::Timestamp64;

const SEEDS: u64 = 2000;

fn id(number: u32) -> RowId {
    RowId::of(rawdoc! { "_id": i64::from(number) }.as_ref()).expect("an id")
}

/// `ranges` ranges of one collection; range `n` has the ids from `1000 * n` on.
fn progress(ranges: u32) -> Progress {
    let cuts = (1..ranges).map(|range| id(range * 1000)).collect();
    let namespace = Namespace { db: "shop".to_owned(), coll: "orders".to_owned() };
    Progress::new(Timestamp64(1), false, vec![namespace], between(0, cuts), 100)
}

/// What a reader can meet, in the order in which it does.
#[derive(Clone, Debug)]
enum Seen {
    Row { range: u32, id: u32 },
    Exhausted(u32),
    Event(Place),
    Reached(Place),
}

struct Run {
    settle: Settle,
    /// With whether it is settled: what was passed is at once.
    seen: Vec<(Seen, bool)>,
    /// Tickets and which of `seen` they stand for.
    tickets: Vec<usize>,
    ranges: u32,
    start: Place,
}

impl Run {
    fn meet(&mut self, seen: Seen, passes: bool) {
        match (&seen, passes) {
            (Seen::Row { range, id: number }, true) => self.settle.pass_row(RangeNumber(*range), id(*number)),
            (Seen::Row { range, id: number }, false) => {
                let ticket = self.settle.take_row(RangeNumber(*range), id(*number));
                assert_eq!(ticket, self.tickets.len() as u64);
                self.tickets.push(self.seen.len());
            }
            (Seen::Exhausted(range), _) => self.settle.exhaust(RangeNumber(*range)),
            (Seen::Event(Place::After(token)), false) => {
                assert_eq!(self.settle.take(token), self.tickets.len() as u64);
                self.tickets.push(self.seen.len());
            }
            (Seen::Event(place) | Seen::Reached(place), _) => self.settle.pass(place.clone()),
        }
        let settled = passes || matches!(seen, Seen::Exhausted(_) | Seen::Reached(_));
        self.seen.push((seen, settled));
    }

    /// Everything before the oldest unsettled one counts, and nothing behind it.
    fn check(&self, context: &str) {
        let covered = || self.seen.iter().take_while(|(_, settled)| *settled).map(|(seen, _)| seen);
        let place = covered().filter_map(|seen| match seen {
            Seen::Event(place) | Seen::Reached(place) => Some(place),
            _ => None,
        });
        assert_eq!(self.settle.low_water(), place.last().unwrap_or(&self.start), "{context}");
        let done: Vec<u32> = covered()
            .filter_map(|seen| match seen {
                Seen::Exhausted(range) => Some(*range),
                _ => None,
            })
            .collect();
        let rows: Vec<(u32, u32)> = covered()
            .filter_map(|seen| match seen {
                Seen::Row { range, id } => Some((*range, *id)),
                _ => None,
            })
            .collect();
        let Some(snapshot) = self.settle.snapshot() else {
            assert_eq!(done.len(), self.ranges as usize, "{context}: all of the snapshot is settled");
            return;
        };
        assert!(done.len() < self.ranges as usize, "{context}: kept for nothing");
        assert_eq!(*self.settle.low_water(), self.start, "{context}: the stream's place waits for the rows");
        assert_eq!(snapshot.rows_settled(), rows.len() as u64, "{context}");
        let open: Vec<_> = snapshot.open_ranges().map(|(number, _, range)| (number.0, range.after.clone())).collect();
        let expected: Vec<_> = (0..self.ranges)
            .filter(|range| !done.contains(range))
            .map(|range| (range, rows.iter().filter(|(of, _)| *of == range).map(|(_, number)| id(*number)).next_back()))
            .collect();
        assert_eq!(open, expected, "{context}");
    }

    fn settle_one(&mut self, random: &mut StdRng, context: &str) {
        let ticket = random.random_range(0..=self.tickets.len());
        let seen = self.tickets.get(ticket).map(|seen| &mut self.seen[*seen].1);
        let expected = seen.as_ref().is_some_and(|settled| !**settled);
        if let Some(settled) = seen {
            *settled = true;
        }
        assert_eq!(self.settle.settle(ticket as u64), expected, "{context}: ticket {ticket}");
    }
}

#[test]
fn each_range_stands_at_its_last_row_before_the_oldest_unsettled_event() {
    for seed in 0..SEEDS {
        let random = &mut StdRng::seed_from_u64(seed);
        let ranges = random.random_range(1..5);
        let start = Place::From(Timestamp64(1));
        let settle = Settle::with_snapshot(start.clone(), Some(progress(ranges)));
        let mut run = Run { settle, seen: Vec::new(), tickets: Vec::new(), ranges, start };
        let mut reading: Vec<(u32, u32)> = (0..ranges).map(|range| (range, range * 1000)).collect();
        for time in 1..150u32 {
            let context = format!("seed {seed} at {time}");
            if random.random_bool(0.4) {
                run.settle_one(random, &context);
            } else if reading.is_empty() {
                let passes = random.random_bool(0.3);
                let seen = match random.random_range(0..3) {
                    0 => Seen::Reached(Place::After(token(&mark_data(time, 1)))),
                    _ => Seen::Event(Place::After(token(&token_data(time, 1, 0)))),
                };
                run.meet(seen, passes);
            } else {
                let at = random.random_range(0..reading.len());
                if random.random_bool(0.1) {
                    let (range, _) = reading.swap_remove(at);
                    run.meet(Seen::Exhausted(range), false);
                } else {
                    reading[at].1 += 1;
                    let (range, id) = reading[at];
                    run.meet(Seen::Row { range, id }, random.random_bool(0.3));
                }
            }
            run.check(&context);
        }
        for ticket in 0..run.tickets.len() {
            run.settle.settle(ticket as u64);
        }
        run.seen.iter_mut().for_each(|(_, settled)| *settled = true);
        run.check(&format!("seed {seed} at its end"));
    }
}

/// A row that stays unsettled must not make everything behind it cost memory where it is not even for this output.
#[test]
fn rows_passed_behind_an_unsettled_one_take_no_room() {
    let mut settle = Settle::with_snapshot(Place::From(Timestamp64(1)), Some(progress(2)));
    settle.take_row(RangeNumber(0), id(1));
    for number in 2..10_000 {
        settle.pass_row(RangeNumber(number % 2), id(number));
    }
    assert_eq!((settle.slots.len(), settle.marks.0.len()), (1, 2));
    assert_eq!(settle.snapshot().map(Progress::rows_settled), Some(0));
    settle.settle(0);
    assert_eq!(settle.snapshot().map(Progress::rows_settled), Some(9999));
}

#[test]
fn a_snapshot_of_nothing_is_none() {
    let nothing = Progress::new(Timestamp64(1), false, Vec::new(), Vec::new(), 0);
    assert!(Settle::with_snapshot(Place::From(Timestamp64(1)), Some(nothing)).snapshot().is_none());
}
