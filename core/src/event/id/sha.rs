//! SHA-256 of messages that often begin alike: what the first 64 bytes make of the state is remembered.
//!
//! Where the processor has no instructions for SHA-256, compressing blocks is nearly all that an event id costs. The first
//! block of an event's identity holds the operation type and the beginning of the namespace, so the next event of the
//! collection most likely has the same, and only the block with the documentKey is left to do. The library is `ring` because
//! without those instructions it is faster by a third; TLS uses it anyway. This file knows nothing of events.

use std::cell::RefCell;

use ring::digest::{Context, Digest, SHA256};

const BLOCK: usize = 64;
/// First blocks that each thread remembers: one for each pair of collection and operation type, while they are few.
const SLOTS: usize = 16;

#[derive(Default)]
struct Memory {
    /// Where the message is put together.
    message: Vec<u8>,
    /// First blocks and what comes of them, each in the slot that [`slot_of`] gives it.
    first: [Option<([u8; BLOCK], Context)>; SLOTS],
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The first 4 bytes, big endian, of the digest of all parts together.
pub(super) fn first_word<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    digest(parts).as_ref().first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

/// The first 8 bytes, big endian.
pub(super) fn first_two_words<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    digest(parts).as_ref().first_chunk().map_or(0, |words| u64::from_be_bytes(*words))
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    MEMORY.with_borrow_mut(|Memory { message, first }| {
        message.clear();
        parts.into_iter().for_each(|part| message.extend_from_slice(part));
        let Some((block, rest)) = message.split_first_chunk::<BLOCK>() else {
            return ring::digest::digest(&SHA256, message);
        };
        let slot = &mut first[slot_of(block)];
        let mut context = match slot {
            Some((known, context)) if known == block => context.clone(),
            _ => {
                let mut context = Context::new(&SHA256);
                context.update(block);
                slot.insert((*block, context)).1.clone()
            }
        };
        context.update(rest);
        context.finish()
    })
}

fn slot_of(block: &[u8; BLOCK]) -> usize {
    let (words, _) = block.as_chunks::<8>();
    let mixed = words.iter().fold(0u64, |mixed, word| mixed.rotate_left(7) ^ u64::from_le_bytes(*word));
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &[u8], part: usize) {
        let whole = ring::digest::digest(&SHA256, message);
        assert_eq!(first_word(message.chunks(part)).to_be_bytes(), whole.as_ref()[..4], "{message:?} by {part}");
        assert_eq!(first_two_words(message.chunks(part)).to_be_bytes(), whole.as_ref()[..8], "{message:?} by {part}");
    }

    /// The message of each length begins like the one before, so that it finds what that one left.
    #[test]
    fn what_is_remembered_does_not_change_the_digest() {
        let message: Vec<u8> = (0..300u32).map(|n| (n * n / 7) as u8).collect();
        for len in 0..message.len() {
            for part in [1, 7, 64, 300] {
                check(&message[..len], part);
            }
        }
    }

    /// More first blocks than there are slots, in turns.
    #[test]
    fn forgets_and_learns_again() {
        for round in 0..200u8 {
            let mut message = [round % 67; 100];
            message[99] = round;
            check(&message, 10);
        }
    }
}
