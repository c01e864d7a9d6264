//! Settle against a plain list over seeded interleavings; a failure prints its seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::event::fixture::{mark_data, token, token_data};
use crate::lane::settle::{Settle, Ticket};
use crate::source::place::Place;
use crate::source::token::Timestamp64;

const SEEDS: u64 = 1000;

/// Everything read, in order: a taken event with whether it is settled, or something that passed by.
enum Seen {
    Taken(Ticket, bool),
    Passed,
}

#[test]
fn the_low_water_mark_is_the_last_place_before_the_oldest_unsettled_event() {
    for seed in 0..SEEDS {
        let random = &mut StdRng::seed_from_u64(seed);
        let start = Place::From(Timestamp64(1));
        let mut settle = Settle::new(start.clone());
        let mut seen: Vec<(Seen, Place)> = Vec::new();
        for time in 1..120u32 {
            match random.random_range(0..4) {
                0 | 1 => {
                    let token = token(&token_data(time, 1, 0));
                    let ticket = settle.take(&token);
                    seen.push((Seen::Taken(ticket, false), Place::After(token)));
                }
                2 => {
                    let place = Place::After(token(&mark_data(time, 1)));
                    settle.pass(place.clone());
                    seen.push((Seen::Passed, place));
                }
                _ => {
                    let ticket = random.random_range(0..time as u64);
                    let open = seen.iter_mut().find_map(|(seen, _)| match seen {
                        Seen::Taken(own, settled) if *own == ticket => Some(settled),
                        _ => None,
                    });
                    let expected = open.as_ref().is_some_and(|settled| !**settled);
                    if let Some(settled) = open {
                        *settled = true;
                    }
                    assert_eq!(settle.settle(ticket), expected, "seed {seed}: ticket {ticket}");
                }
            }
            let covered = seen.iter().take_while(|(seen, _)| !matches!(seen, Seen::Taken(_, false)));
            let expected = covered.last().map_or(&start, |(_, place)| place);
            assert_eq!(settle.low_water(), expected, "seed {seed} at {time}");
            let unsettled = seen.iter().filter(|(seen, _)| matches!(seen, Seen::Taken(_, false))).count();
            assert_eq!(settle.unsettled(), unsettled, "seed {seed}");
        }
    }
}
