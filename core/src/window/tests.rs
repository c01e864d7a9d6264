//! The window against a plain list of all events, over seeded pushes and readers; a failure prints its seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::event::JsonForm;
use crate::event::fixture::{event, mark_data, token, token_data};
use crate::source::token::Timestamp64;

const SEEDS: u64 = 500;
const BYTES_MAX: u64 = 20_000;

/// A reader, and the index in the list of all events of what it must get next.
struct Reader {
    seq: Option<u64>,
    next: usize,
}

fn start() -> Place {
    Place::From(Timestamp64(0))
}

/// What a reader without a place would go on from: the event before its next one.
fn place_of(all: &[Arc<Event>], next: usize) -> Place {
    next.checked_sub(1).map_or_else(start, |last| Place::After(all[last].token().clone()))
}

fn step(window: &Window, all: &mut Vec<Arc<Event>>, reader: &mut Reader, random: &mut StdRng, seed: u64) {
    if random.random_bool(0.4) {
        let batch: Vec<_> = (0..random.random_range(0..6))
            .map(|i| {
                let time = (all.len() + i + 1) as u32;
                event(&token_data(time, 1, random.random_range(0..60)), Some(i as i32), random.random_range(0..3000))
            })
            .collect();
        all.extend(batch.iter().cloned());
        let reached = Place::After(token(&mark_data(all.len() as u32 + 1, 0)));
        window.push(batch, reached.clone());
        assert_eq!(window.reached(), reached);
        // JSON that lanes make later is trimmed with the next push; the source pushes progress every 100 ms.
        let (events, bytes) = window.size();
        assert!(events <= 1 || bytes <= BYTES_MAX as usize, "seed {seed}: {events} events hold {bytes} bytes");
    }
    if random.random_bool(0.2) && !all.is_empty() {
        let any = random.random_range(0..all.len());
        let _ = all[any].json(JsonForm::Plain).expect("JSON");
    }
    let (events, _) = window.size();
    match reader.seq {
        Some(seq) => {
            let mut found = VecDeque::new();
            let limit = random.random_range(1..5);
            match window.read(seq, limit, random.random_range(1..9000), &mut found) {
                Read::Events(next) => {
                    assert!(!found.is_empty() && found.len() <= limit, "seed {seed}");
                    for event in found {
                        assert!(Arc::ptr_eq(&event, &all[reader.next]), "seed {seed}: a gap at {}", reader.next);
                        reader.next += 1;
                    }
                    reader.seq = Some(next);
                }
                Read::CaughtUp(_) => assert_eq!(reader.next, all.len(), "seed {seed}: caught up too early"),
                Read::FellOff => {
                    assert!(all.len() - reader.next > events, "seed {seed}: fell off what the window still holds");
                    reader.seq = None;
                }
            }
        }
        // As in catch-up: some events pass outside the window, then it tries to come back.
        None => {
            reader.next += random.random_range(0..=(all.len() - reader.next).min(8));
            let joined = window.join(&place_of(all, reader.next), random.random_bool(0.5));
            if joined.is_none() {
                let pending = all.len() - reader.next;
                assert!(pending > 0, "seed {seed}: nothing is missing, yet the window is not joined");
            }
            reader.seq = joined;
        }
    }
}

#[test]
fn readers_see_every_event_once_or_are_told() {
    for seed in 0..SEEDS {
        let random = &mut StdRng::seed_from_u64(seed);
        let window = Window::new(BYTES_MAX, start());
        let mut all = Vec::new();
        let mut reader = Reader { seq: window.join(&start(), false), next: 0 };
        assert!(reader.seq.is_some(), "an empty window serves who starts with it");
        for _ in 0..300 {
            step(&window, &mut all, &mut reader, random, seed);
        }
    }
}

#[test]
fn json_leaves_with_its_event() {
    let window = Window::new(100_000, start());
    let events: Vec<_> = (1..=3).map(|i| event(&token_data(i, 1, 0), Some(1), 500)).collect();
    window.push(events.clone(), start());
    let before = window.size().1;
    let json = events[0].json(JsonForm::Relaxed).expect("JSON").len();
    assert_eq!(window.size().1, before + json, "JSON counts");
    window.push(vec![event(&token_data(9, 1, 0), Some(1), 99_000)], start());
    let _ = events[1].json(JsonForm::Relaxed).expect("JSON");
    let (left, bytes) = window.size();
    let last = event(&token_data(9, 1, 0), Some(1), 99_000).bytes();
    assert_eq!((left, bytes), (1, last), "what left takes its JSON along, and adds none later");
}

#[test]
fn an_event_larger_than_the_window_still_passes() {
    let window = Window::new(1000, start());
    let large = event(&token_data(1, 1, 0), Some(1), 50_000);
    window.push(vec![large], start());
    let mut found = VecDeque::new();
    assert!(matches!(window.read(0, 10, 10, &mut found), Read::Events(1)));
    assert_eq!(found.len(), 1);
}

#[test]
fn settling_in_asks_for_the_newer_half() {
    let window = Window::new(1_000_000, start());
    let events: Vec<_> = (1..=10).map(|i| event(&token_data(i, 1, 0), Some(1), 90_000)).collect();
    window.push(events.clone(), start());
    assert_eq!(window.join(&start(), false), Some(0));
    assert_eq!(window.join(&start(), true), None, "900 KB of a 1 MB window are ahead");
    assert_eq!(window.join(&place_of(&events, 6), true), Some(6), "360 KB are");
}
