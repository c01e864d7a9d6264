//! For how long a holder may believe in its lease, by a clock of its own. Knows nothing of who decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::lease::Times;

/// It counts while the process is stopped and while the machine sleeps, and nobody sets it. `Instant` would not do: on Linux it
/// stands still while the machine sleeps, and a laptop that wakes up, or a virtual machine that goes on, would believe in a
/// lease that ended hours ago.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
/// On macOS it is the monotonic clock that goes on while the machine sleeps.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time by [`CLOCK`].
pub(super) fn now() -> Duration {
    // Never negative: both clocks begin at zero.
    Duration::try_from(clock_gettime(CLOCK)).unwrap_or_default()
}

/// Until when a lease is certain that was asked for at `asked`. The server counts from a later moment: from when it got the
/// question, which may have been long under way.
pub(super) fn valid_until(asked: Duration, times: &Times) -> Duration {
    asked + times.duration.saturating_sub(times.margin)
}

/// Shared by the one that renews and all guards.
#[derive(Default)]
pub(super) struct Validity {
    /// Of the holding that `until` belongs to; written before it.
    epoch: AtomicU64,
    /// Nanoseconds of [`CLOCK`]; 0 = not held.
    until: AtomicU64,
    changed: Notify,
}

impl Validity {
    /// A new holding. The one before has ended, here or by itself.
    pub fn begin(&self, epoch: u64, until: Duration) {
        self.until.store(0, Ordering::SeqCst);
        self.epoch.store(epoch, Ordering::SeqCst);
        self.extend(until);
    }

    /// The same holding for longer.
    pub fn extend(&self, until: Duration) {
        self.until.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// It is over, whatever the clock says.
    pub fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub fn is_valid(&self) -> bool {
        self.is_valid_at(now)
    }

    /// The clock is read last: a thread that is stopped in between sees that time has passed.
    fn is_valid_at(&self, now: impl FnOnce() -> Duration) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        until != 0 && now().as_nanos() < u128::from(until)
    }
}

/// Whether one holding of the lease is certain at this moment. Clones are of the same holding.
#[derive(Clone)]
pub struct Guard {
    validity: Arc<Validity>,
    epoch: u64,
}

impl Guard {
    pub(super) fn new(validity: Arc<Validity>, epoch: u64) -> Guard {
        Guard { validity, epoch }
    }

    /// True while no other instance can have the lease. To be asked directly before every hand-out: two loads and one read of
    /// a clock, under 100 ns. What is handed out right after may still arrive after the lease has ended, when the process is
    /// stopped in that very moment; against that only the checkpoints are guarded.
    pub fn holds(&self) -> bool {
        self.holds_at(now)
    }

    fn holds_at(&self, now: impl FnOnce() -> Duration) -> bool {
        // In this order: where the end of a new holding is seen, its epoch is seen too.
        let until = self.validity.until.load(Ordering::SeqCst);
        self.validity.epoch.load(Ordering::SeqCst) == self.epoch && until != 0 && now().as_nanos() < u128::from(until)
    }

    /// Waits while this holding has lapsed; returns as soon as it holds (again). Forever when it is over, because then whoever
    /// waits is ended from elsewhere. Cancel-safe.
    pub async fn held(&self) {
        loop {
            let changed = self.validity.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.holds() {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_believed_from_the_question_on_and_less_long_than_the_server_does() {
        let times = |duration, margin| Times { duration, margin, ..Times::STANDARD };
        let cases = [
            (Duration::ZERO, times(15 * SECOND, 2 * SECOND), 13 * SECOND),
            (100 * SECOND, times(15 * SECOND, 2 * SECOND), 113 * SECOND),
            (100 * SECOND, times(SECOND, Duration::ZERO), 101 * SECOND),
            // No time is left: never believed, rather than forever.
            (100 * SECOND, times(SECOND, 2 * SECOND), 100 * SECOND),
        ];
        for (asked, times, expected) in cases {
            assert_eq!(valid_until(asked, &times), expected, "asked at {asked:?} for {times:?}");
        }
    }

    #[test]
    fn the_standard_times_leave_room_for_failures() {
        let Times { duration, margin, renew_every, ask_every, attempt_max } = Times::STANDARD;
        let believed = duration - margin;
        assert!(renew_every + attempt_max + ask_every + attempt_max < believed, "two attempts may get no answer");
        assert!(renew_every * 4 < believed);
    }

    #[test]
    fn a_guard_holds_before_the_end_and_in_its_own_epoch_only() {
        let validity = Arc::new(Validity::default());
        let holds = |epoch, seconds| Guard::new(Arc::clone(&validity), epoch).holds_at(|| seconds * SECOND);
        assert!(!holds(0, 0) && !holds(1, 0), "not before it was taken");
        validity.begin(1, 10 * SECOND);
        assert!(holds(1, 0) && holds(1, 9) && !holds(1, 10) && !holds(1, 11));
        assert!(!holds(0, 5) && !holds(2, 5), "another epoch");
        validity.extend(20 * SECOND);
        assert!(holds(1, 10) && holds(1, 19) && !holds(1, 20));
        validity.end();
        assert!(!holds(1, 0) && !holds(1, 19));
        validity.begin(2, 40 * SECOND);
        assert!(!holds(1, 30) && holds(2, 30), "what was started in the first holding is not part of the second");
        validity.begin(3, Duration::MAX);
        assert!(holds(3, 4_000_000_000), "a lock has no end");
    }

    #[tokio::test]
    async fn who_waits_for_a_lapsed_holding_goes_on_with_it_and_not_with_another() {
        let validity = Arc::new(Validity::default());
        validity.begin(1, Duration::from_nanos(1));
        let guard = Guard::new(Arc::clone(&validity), 1);
        let waiting = tokio::spawn({
            let guard = guard.clone();
            async move { guard.held().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        validity.extend(Duration::MAX);
        waiting.await.expect("held again");

        validity.begin(2, Duration::MAX);
        let over = tokio::time::timeout(Duration::from_millis(20), guard.held()).await;
        assert!(over.is_err(), "the first holding is over");
        Guard::new(validity, 2).held().await;
    }

    #[test]
    fn the_clock_goes_on() {
        let before = now();
        assert!(before > Duration::ZERO);
        while now() == before {}
        assert!(now() > before);
    }
}
