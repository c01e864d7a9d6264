//! How long to wait before trying again. Pure: chance is passed in.

use std::time::Duration;

/// Exponential waits between `min` and `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The shortest wait.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after the `attempt`-th failure (1 = first): doubles each time up to `max`, then a uniformly chosen part of it
    /// (`chance` in 0..1), never under `min`, so that what failed together does not come back together forever.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(32);
        let ceiling = self.min.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.max);
        self.min.max(ceiling.mul_f64(chance.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_within_its_bounds() {
        let backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(60) };
        let cases =
            [(1, 1.0, 200), (2, 1.0, 400), (4, 0.5, 800), (9, 1.0, 51_200), (10, 1.0, 60_000), (u32::MAX, 1.0, 60_000)];
        for (attempt, chance, expected_ms) in cases {
            assert_eq!(backoff.delay(attempt, chance), Duration::from_millis(expected_ms), "attempt {attempt}");
        }
        assert_eq!(backoff.delay(5, 0.0), Duration::from_millis(200), "never under the minimum");
    }
}
