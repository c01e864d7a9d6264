//! Which letters a journal has and where their lines are: about 100 bytes of memory for each. Pure.

use std::collections::btree_map::{BTreeMap, Range};
use std::ops::Bound;
use std::sync::Arc;

use crate::dead_letters::{Account, Chosen, LetterKey, Matched};
use crate::event::EventId;
use crate::source::token::{Position, Timestamp64};

/// Where a letter's line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first byte in the journal.
    pub offset: u64,
    /// In bytes, with its end.
    pub bytes: u32,
    /// There is no whole event in it.
    pub stub: bool,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
}

/// A letter's key in 32 bytes; in the same order.
type Slot = (u128, Arc<str>);

/// The letters, in stream order.
#[derive(Default)]
pub(super) struct Index {
    lines: BTreeMap<Slot, Line>,
    /// Each output that ever had a letter, and how many it has.
    outputs: BTreeMap<Arc<str>, u64>,
    bytes: u64,
}

impl Index {
    pub fn insert(&mut self, key: &LetterKey, line: Line) -> Option<Line> {
        let output = match self.outputs.get_key_value(key.output.as_str()) {
            Some((output, _)) => Arc::clone(output),
            None => Arc::from(key.output.as_str()),
        };
        let old = self.lines.insert((number(&key.id), Arc::clone(&output)), line);
        let letters = self.outputs.entry(output).or_insert(0);
        *letters += u64::from(old.is_none());
        self.bytes = self.bytes + u64::from(line.bytes) - old.map_or(0, |old| u64::from(old.bytes));
        old
    }

    pub fn remove(&mut self, key: &LetterKey) -> Option<Line> {
        let old = self.lines.remove(&slot(key))?;
        if let Some(letters) = self.outputs.get_mut(key.output.as_str()) {
            *letters -= 1;
        }
        self.bytes -= u64::from(old.bytes);
        Some(old)
    }

    pub fn get(&self, key: &LetterKey) -> Option<Line> {
        self.lines.get(&slot(key)).copied()
    }

    /// Behind a key, or all of them.
    pub fn behind(&self, after: Option<&LetterKey>) -> impl Iterator<Item = (LetterKey, Line)> + '_ {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(slot(key)));
        letters(self.lines.range((from, Bound::Unbounded)))
    }

    /// Behind every letter of an event.
    pub fn behind_event(&self, after: EventId) -> impl Iterator<Item = (LetterKey, Line)> + '_ {
        // '~' is behind every character of a name.
        let from = Bound::Excluded((number(&after), Arc::from("~")));
        letters(self.lines.range((from, Bound::Unbounded)))
    }

    /// Outputs that `other` had, and have no letter here.
    pub fn remember(&mut self, other: &Index) {
        for output in other.outputs.keys() {
            self.outputs.entry(Arc::clone(output)).or_insert(0);
        }
    }

    /// What all lines take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn account(&self) -> Account {
        let letters = self.outputs.iter().map(|(output, letters)| (output.to_string(), *letters));
        Account { bytes: self.bytes, letters: letters.collect() }
    }

    pub fn count(&self, chosen: &Chosen) -> Matched {
        let mut matched = Matched::default();
        for (_, line) in self.behind(None).filter(|(key, _)| chosen.has(key)) {
            matched.letters += 1;
            matched.stubs += u64::from(line.stub);
        }
        matched
    }
}

fn slot(key: &LetterKey) -> Slot {
    (number(&key.id), Arc::from(key.output.as_str()))
}

fn letters(range: Range<'_, Slot, Line>) -> impl Iterator<Item = (LetterKey, Line)> + '_ {
    range.map(|((number, output), line)| (LetterKey::new(&**output, id(*number)), *line))
}

/// The 32 hex digits of an id.
fn number(id: &EventId) -> u128 {
    let position = id.position();
    u128::from(position.time.0) << 64 | u128::from(position.txn_op_index as u32) << 32 | u128::from(id.hash())
}

fn id(number: u128) -> EventId {
    let position = Position { time: Timestamp64((number >> 64) as u64), txn_op_index: number as u64 >> 32 };
    EventId::from_parts(position, number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_number_and_in_the_same_order() {
        let texts = [
            "0000000000000000-0000000000000000",
            "0000000000000001-00000000ffffffff",
            "6b024d1b00000005-0000001adeadbeef",
            "6b024d1b00000005-ffffffff00000000",
            "ffffffffffffffff-ffffffffffffffff",
        ];
        let ids = texts.map(|text| text.parse::<EventId>().expect(text));
        assert!(ids.iter().all(|known| id(number(known)) == *known));
        assert!(ids.windows(2).all(|pair| number(&pair[0]) < number(&pair[1])));
    }

    #[test]
    fn behind_an_event_is_behind_all_of_its_letters() {
        let line = Line { offset: 0, bytes: 1, stub: false, updated_ms: 0 };
        let ids = [0, 1, u128::MAX].map(id);
        let mut index = Index::default();
        for event in ids {
            for output in ["a", "zz", "_"] {
                index.insert(&LetterKey::new(output, event), line);
            }
        }
        let behind = ids.map(|event| index.behind_event(event).count());
        assert_eq!(behind, [6, 3, 0]);
        assert_eq!(index.behind(Some(&LetterKey::new("a", ids[0]))).count(), 7);
    }
}
