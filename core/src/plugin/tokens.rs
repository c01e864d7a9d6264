//! The token table of one output: which completions are owed, and the memory that lives until they come.
//!
//! A token is `generation << 32 | slot`. Completing it bumps the slot's generation, so a second completion finds nothing.
//! A revoked token keeps its batch: the plugin may still read it until it completes late or its instance is destroyed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::batch::Batch;
use super::verdict::{Outcome, Verdicts};

/// Who waits for a completion.
pub(crate) enum Waiting {
    /// `start` or `stop`: the default verdict is all that counts.
    Call(oneshot::Sender<Verdicts>),
    /// A batch.
    Delivery { delivery: u64, outcomes: mpsc::UnboundedSender<Outcome> },
}

impl Waiting {
    pub(crate) fn answer(self, verdicts: Verdicts) {
        // A receiver that is gone has given up waiting, as after a timeout.
        match self {
            Self::Call(reply) => drop(reply.send(verdicts)),
            Self::Delivery { delivery, outcomes } => drop(outcomes.send(Outcome { delivery, verdicts })),
        }
    }
}

enum State {
    Free,
    /// Owed.
    Live {
        waiting: Waiting,
        batch: Option<Arc<Batch>>,
    },
    /// Nobody waits any more; the batch lives for the plugin's sake alone.
    Revoked {
        _batch: Option<Arc<Batch>>,
    },
}

struct Slot {
    generation: u32,
    instance: u64,
    state: State,
}

/// What a completion found.
pub(crate) enum Taken {
    /// It was owed.
    Live(Waiting),
    /// Its instance had been given up.
    Revoked,
    /// It had been completed before, or never existed.
    Stale,
}

#[derive(Default)]
pub(crate) struct Tokens {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Tokens {
    pub(crate) fn issue(&mut self, instance: u64, waiting: Waiting, batch: Option<Arc<Batch>>) -> u64 {
        let state = State::Live { waiting, batch };
        let index = match self.free.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.instance = instance;
                slot.state = state;
                index
            }
            None => {
                // Generations begin at 1, so that no token is ever 0.
                self.slots.push(Slot { generation: 1, instance, state });
                (self.slots.len() - 1) as u32
            }
        };
        u64::from(self.slots[index as usize].generation) << 32 | u64::from(index)
    }

    /// The batch of an owed token.
    pub(crate) fn batch(&self, token: u64) -> Option<&Arc<Batch>> {
        match &self.slots.get(slot_of(token)).filter(|slot| slot.generation == generation_of(token))?.state {
            State::Live { batch, .. } => batch.as_ref(),
            State::Revoked { .. } | State::Free => None,
        }
    }

    /// Ends a token and frees its memory.
    pub(crate) fn complete(&mut self, token: u64) -> Taken {
        let index = slot_of(token);
        if self.slots.get(index).is_none_or(|slot| slot.generation != generation_of(token)) {
            return Taken::Stale;
        }
        match self.vacate(index) {
            State::Live { waiting, .. } => Taken::Live(waiting),
            State::Revoked { .. } => Taken::Revoked,
            State::Free => Taken::Stale,
        }
    }

    /// Takes back one token; gives who waited when it was still owed.
    pub(crate) fn revoke(&mut self, token: u64) -> Option<Waiting> {
        let slot = self.slots.get_mut(slot_of(token)).filter(|slot| slot.generation == generation_of(token))?;
        slot.revoke()
    }

    /// Takes back every token of an instance.
    pub(crate) fn revoke_all(&mut self, instance: u64) {
        for slot in self.slots.iter_mut().filter(|slot| slot.instance == instance) {
            drop(slot.revoke());
        }
    }

    /// Frees whatever an instance still held: it is destroyed and reads nothing any more.
    pub(crate) fn release(&mut self, instance: u64) {
        for index in 0..self.slots.len() {
            if self.slots[index].instance == instance && !matches!(self.slots[index].state, State::Free) {
                drop(self.vacate(index));
            }
        }
    }

    /// Tokens that are owed or keep memory alive.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn vacate(&mut self, index: usize) -> State {
        let slot = &mut self.slots[index];
        let state = std::mem::replace(&mut slot.state, State::Free);
        if matches!(state, State::Free) {
            return state;
        }
        // A slot whose generations are used up is retired: reuse would make an old token valid again.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(index as u32);
        }
        state
    }
}

impl Slot {
    fn revoke(&mut self) -> Option<Waiting> {
        match std::mem::replace(&mut self.state, State::Free) {
            State::Live { waiting, batch } => {
                self.state = State::Revoked { _batch: batch };
                Some(waiting)
            }
            other => {
                self.state = other;
                None
            }
        }
    }
}

fn slot_of(token: u64) -> usize {
    (token & u64::from(u32::MAX)) as usize
}

fn generation_of(token: u64) -> u32 {
    (token >> 32) as u32
}
