//! How often each event was answered with a client error: what `client_error_tries` counts. Not how often it was handed out: an
//! event that was in flight through an outage has been handed out many times before anyone could say that it is wrong.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Events that are counted at once; more than a lane can have in hand by default. Beyond, counting begins anew.
const EVENTS_MAX: usize = 20_000;

/// Client errors by event id.
#[derive(Debug, Default)]
pub(crate) struct Tries(Mutex<HashMap<String, u32>>);

impl Tries {
    /// One more; how many that makes.
    pub(crate) fn count(&self, id: &str) -> u32 {
        let mut tries = self.lock();
        if tries.len() >= EVENTS_MAX && !tries.contains_key(id) {
            tries.clear();
        }
        let count = tries.entry(id.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// The event is done.
    pub(crate) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        // Each change is one operation on the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_counted_by_itself_until_it_is_done_and_their_number_is_bounded() {
        let tries = Tries::default();
        assert_eq!((tries.count("a"), tries.count("b"), tries.count("a")), (1, 1, 2));
        tries.forget("a");
        assert_eq!((tries.count("a"), tries.count("b")), (1, 2));
        for number in 0..2 * EVENTS_MAX {
            tries.count(&number.to_string());
        }
        assert!(tries.lock().len() <= EVENTS_MAX);
    }
}
