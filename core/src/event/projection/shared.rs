//! The projections of one event that were made so far: each once, for all outputs that have it.

use std::sync::{Arc, OnceLock};

use super::Fingerprint;
use crate::event::Event;

/// A list that only grows. There are as many entries as there are different projections.
#[derive(Default)]
pub(crate) struct Shared(OnceLock<Box<Entry>>);

struct Entry {
    projection: Fingerprint,
    event: OnceLock<Arc<Event>>,
    next: Shared,
}

impl Shared {
    /// The one of this projection, made by whoever asks first; others wait for it. True where it was made just now.
    pub fn get(&self, projection: Fingerprint, make: impl FnOnce() -> Arc<Event>) -> (&Arc<Event>, bool) {
        let mut list = self;
        loop {
            // Who comes at the same time with another projection goes on behind this one.
            let entry =
                list.0.get_or_init(|| Box::new(Entry { projection, event: OnceLock::new(), next: Shared::default() }));
            if entry.projection == projection {
                let mut made = false;
                let event = entry.event.get_or_init(|| {
                    made = true;
                    make()
                });
                return (event, made);
            }
            list = &entry.next;
        }
    }

    /// Those that are there.
    pub fn made(&self) -> impl Iterator<Item = &Arc<Event>> {
        std::iter::successors(self.0.get(), |entry| entry.next.0.get()).filter_map(|entry| entry.event.get())
    }
}
