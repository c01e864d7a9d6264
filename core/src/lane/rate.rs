//! How fast one lane may deliver: a token bucket. Pure: time is passed in.

use std::time::{Duration, Instant};

/// A token bucket over events: holds at most `burst`, filled at `per_second`. Starts full.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Bucket { per_second, burst, level: burst, filled_at: now }
    }

    /// Whole events that may leave now.
    pub fn available(&mut self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.level = (self.level + elapsed * self.per_second).min(self.burst);
        self.filled_at = now;
        self.level as usize
    }

    /// Counts events that left; never more than [`Bucket::available`] said.
    pub fn spend(&mut self, events: usize) {
        self.level = (self.level - events as f64).max(0.0);
    }

    /// True when not one whole event may leave, as of the last look.
    pub fn is_empty(&self) -> bool {
        self.level < 1.0
    }

    /// When the next whole event may leave. Only meaningful while none is available.
    pub fn next_at(&self) -> Instant {
        let missing = (1.0 - self.level).max(0.0);
        // A nanosecond more than computed: rounding down would wake the lane just before its time, over and over.
        self.filled_at + Duration::from_secs_f64(missing / self.per_second) + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100.0, 10.0, start);
        assert_eq!(bucket.available(start), 10);
        bucket.spend(10);
        assert_eq!(bucket.available(start), 0);
        assert!(bucket.available(bucket.next_at()) >= 1, "the promised time is enough");
        let mut sent = 0;
        for step in 1..=1000 {
            let now = start + Duration::from_millis(step);
            let n = bucket.available(now);
            bucket.spend(n);
            sent += n;
        }
        assert!((99..=100).contains(&sent), "100 per second, got {sent}");
    }
}
