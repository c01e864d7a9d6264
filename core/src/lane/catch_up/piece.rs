//! Replies in pieces small enough to be pinned by a lane that takes its time. Pure.

use std::sync::Arc;

use crate::event::Event;
use crate::lane::catch_up::PIECE_BYTES;
use crate::source::place::Place;
use crate::source::stream::Batch;

/// Cuts a batch into pieces of at most [`PIECE_BYTES`] or one event; at least one piece, for the progress. What was handed on is
/// no longer held here.
pub(super) fn pieces(batch: Batch) -> impl Iterator<Item = Batch> {
    let Batch { events, reached } = batch;
    let mut events = events.into_iter().peekable();
    let mut reached = Some(reached);
    std::iter::from_fn(move || {
        reached.as_ref()?;
        let mut piece: Vec<Arc<Event>> = Vec::new();
        let mut bytes = 0;
        while let Some(event) = events.next_if(|event| piece.is_empty() || bytes + event.bytes() <= PIECE_BYTES) {
            bytes += event.bytes();
            piece.push(event);
        }
        let reached = match (events.peek(), piece.last()) {
            (Some(_), Some(last)) => Place::After(last.token().clone()),
            _ => reached.take()?,
        };
        Some(Batch { events: piece, reached })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::{event, mark_data, token, token_data};

    #[test]
    fn nothing_is_lost_between_pieces() {
        let large = PIECE_BYTES / 2 - 1000;
        // Payloads of events, events in each piece.
        let table: [(&[usize], &[usize]); 5] = [
            (&[], &[0]),
            (&[10, 10, 10], &[3]),
            (&[large, large, 2000], &[2, 1]),
            (&[3 * PIECE_BYTES, 10], &[1, 1]),
            (&[10, 3 * PIECE_BYTES, large, large, large], &[1, 1, 2, 1]),
        ];
        for (payloads, expected) in table {
            let times = 1..=payloads.len() as u32;
            let events: Vec<_> =
                times.zip(payloads).map(|(time, bytes)| event(&token_data(time, 1, 0), Some(1), *bytes)).collect();
            let reached = Place::After(token(&mark_data(9, 0)));
            let found: Vec<_> = pieces(Batch { events: events.clone(), reached: reached.clone() }).collect();
            let lengths: Vec<_> = found.iter().map(|piece| piece.events.len()).collect();
            assert_eq!(lengths, expected, "{payloads:?}");
            for piece in &found[..found.len() - 1] {
                let last = piece.events.last().expect("an event");
                assert_eq!(piece.reached, Place::After(last.token().clone()));
            }
            assert_eq!(found[found.len() - 1].reached, reached);
            let together: Vec<_> = found.into_iter().flat_map(|piece| piece.events).collect();
            assert!(together.len() == events.len() && together.iter().zip(&events).all(|(a, b)| Arc::ptr_eq(a, b)));
        }
    }
}
