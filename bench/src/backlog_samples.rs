//! What is looked at every 250 ms while `backlog` runs: the daemon's memory, what it says of itself, and what the receivers have. On a
//! thread of its own, since each look is a request that waits for its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::daemon::Metrics;
use crate::limited_receiver::Receiver;
use crate::process::{anonymous_mb, resident_mb};

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(250);

/// The receivers and the writer, for all who look at them.
pub struct Seen {
    pub slow: Receiver,
    pub fast: Receiver,
    /// Changes acknowledged so far.
    pub written: AtomicU64,
}

/// One look.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    /// How much later it was than it should have been: the machine had no time for this process.
    pub late: Duration,
    /// All that is resident, and of it what is not backed by a file; megabytes.
    pub resident_mb: f64,
    pub anonymous_mb: f64,
    /// What the daemon says it holds: in the window, and for the slow output.
    pub window_mb: f64,
    pub slow_held_mb: f64,
    /// Of the slow output, as the daemon says.
    pub state: String,
    /// Of the fast output, as the daemon says: a difference of whole seconds.
    pub fast_lag_s: f64,
    /// How often the slow and the fast output fell off the window so far.
    pub catch_ups: [f64; 2],
    /// Changes that are written and that the slow receiver has not.
    pub left: u64,
}

/// Looks until it is asked for what it has seen.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Sample>>>,
}

impl Sampler {
    /// Begins to look at this process, whose admin port is at `admin`.
    pub fn start(pid: u32, admin: String, seen: Arc<Seen>) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            let mut turn = Instant::now();
            while !stopped.load(Ordering::SeqCst) {
                thread::sleep(turn.saturating_duration_since(Instant::now()));
                let late = turn.elapsed();
                samples.push(look(pid, &admin, &seen, late)?);
                turn = (turn + LOOK).max(Instant::now());
            }
            Ok(samples)
        });
        Sampler { stop, thread }
    }

    /// False once it has failed: the daemon is gone.
    pub fn is_looking(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends it and gives back what it has seen.
    pub fn end(self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the sampling thread panicked"))?.context("look at tailwater")
    }
}

fn look(pid: u32, admin: &str, seen: &Seen, late: Duration) -> Result<Sample> {
    let at = Instant::now();
    let metrics = Metrics::of(admin)?;
    let mb = |bytes: f64| bytes / 1e6;
    Ok(Sample {
        at,
        late,
        resident_mb: resident_mb(pid)?,
        anonymous_mb: anonymous_mb(pid)?,
        window_mb: mb(metrics.value("tailwater_window_bytes")),
        slow_held_mb: mb(metrics.output("held_bytes", "slow")),
        state: metrics.state("slow").to_owned(),
        fast_lag_s: metrics.output("lag_seconds", "fast"),
        catch_ups: ["slow", "fast"].map(|output| metrics.output("catch_ups_total", output)),
        // What was taken first: what is written meanwhile counts as left.
        left: {
            let taken = seen.slow.taken();
            seen.written.load(Ordering::SeqCst).saturating_sub(taken)
        },
    })
}
