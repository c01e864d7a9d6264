//! What a lane takes beside the events of the stream: rows of a snapshot, and gaps in history.

use std::sync::Arc;

use super::{Engine, Taken};
use crate::dead_letters::{Kind, Letter};
use crate::event::Event;
use crate::event::gap;
use crate::snapshot::{Read, Row};
use crate::source::place::Place;

impl Engine {
    /// Offers what a snapshot has found. All of it comes before the first event of the stream; a later event of the same document
    /// leaves after the row, as later events do.
    pub fn take_read(&mut self, read: Read) -> Taken {
        let row = match read {
            Read::Exhausted(range) => {
                self.settle.exhaust(range);
                return Taken::Queued;
            }
            Read::Row(row) => row,
        };
        if !self.wants(&row.event) {
            self.settle.pass_row(row.range, row.id());
            return Taken::Filtered;
        }
        let ticket = self.settle.take_row(row.range, row.id());
        let Row { event, .. } = row;
        let event = self.project(event);
        self.held += self.charge(&event);
        match self.live.push(ticket, event) {
            Some(older) => {
                self.settled(&older);
                Taken::Superseded
            }
            None => Taken::Queued,
        }
    }

    /// Goes over a stretch of history that is lost, to `place`: the gap is delivered as an event, whatever the output's `match` says,
    /// and kept as a dead letter where there is a store for them (`is_kept`). Both must be settled before the checkpoint passes it.
    pub fn take_gap(&mut self, event: Arc<Event>, reason: String, place: Place, is_kept: bool) {
        if is_kept {
            self.held += self.charge(&event);
            let ticket = self.settle.take_aside();
            let (output, id) = (self.output.clone(), *event.id());
            let event = Arc::clone(&event);
            self.letters.push_back((ticket, Letter { output, id, kind: Kind::Gap, reason, attempts: 0, event }));
        }
        self.held += self.charge(&event);
        let ticket = self.settle.take(event.token());
        if let Some(older) = self.live.push(ticket, event) {
            self.settled(&older);
        }
        self.settle.pass(place);
    }
}

/// A gap is told, not owed: an output that cannot carry it settles it, and it is among the dead letters anyway.
pub(super) fn is_settled_when_refused(event: &Event) -> bool {
    gap::is_gap(event)
}
