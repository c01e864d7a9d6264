//! Something that comes in spells and is to be said twice for each: when it begins, and how much it was when it is over. Pure:
//! time is passed in.

use std::time::{Duration, Instant};

/// A spell is over when nothing was added for this long.
const QUIET: Duration = Duration::from_secs(10);

/// One kind of thing that comes in spells.
#[derive(Debug, Default)]
pub struct Spell {
    count: u64,
    /// First and last time of the spell that is on.
    on: Option<(Instant, Instant)>,
}

impl Spell {
    /// Counts. True at the beginning of a spell.
    pub fn add(&mut self, count: usize, now: Instant) -> bool {
        if count == 0 {
            return false;
        }
        self.count += count as u64;
        let begins = self.on.is_none();
        self.on = Some((self.on.map_or(now, |(first, _)| first), now));
        begins
    }

    /// How many it were, and for how long, once the spell is over. Once for each spell.
    pub fn over(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let (_, last) = self.on?;
        if now.saturating_duration_since(last) < QUIET {
            return None;
        }
        self.end()
    }

    /// The same for a spell that is cut short.
    pub fn end(&mut self) -> Option<(u64, Duration)> {
        let (first, last) = self.on.take()?;
        Some((std::mem::take(&mut self.count), last.duration_since(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_is_said_when_it_begins_and_when_it_is_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut spell = Spell::default();
        assert!(!spell.add(0, at(0)) && spell.over(at(100)).is_none());
        assert!(spell.add(3, at(0)));
        assert!(!spell.add(4, at(9)) && spell.over(at(18)).is_none());
        assert_eq!(spell.over(at(19)), Some((7, Duration::from_secs(9))));
        assert_eq!((spell.over(at(40)), spell.end()), (None, None), "once");
        assert!(spell.add(1, at(50)));
        assert_eq!(spell.end(), Some((1, Duration::ZERO)));
    }
}
