//! The lease: which instance of a deployment delivers to the exclusive outputs. The others stand by and take over when it ends.
//!
//! Knows nothing of outputs, lanes or places. It keeps three promises apart:
//!
//! - **Who delivers** is what [`Guard::holds`] says, asked before every hand-out. It is true only while this instance can be
//!   sure that no other may have taken the lease, by a clock of its own that also runs while the process is stopped.
//! - **Who may write checkpoints** is decided by the server, from the epoch in each write ([`crate::checkpoint`]): what comes
//!   late changes nothing, whatever anybody believes.
//! - **Who runs lanes** is [`Standing`]. It changes only when another instance has really taken the lease. A holder that could
//!   not renew in time, as during an election, has *lapsed*: its guards say no, its lanes hand out nothing new, and nothing is
//!   restarted. As soon as the server answers again it goes on in the same epoch, if nobody has taken the lease meanwhile.

pub mod file;
pub mod metrics;
pub mod mongodb;
pub mod process;
mod validity;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use self::metrics::LeaseMetrics;
pub use self::validity::Guard;
use self::validity::{Validity, now};

/// How long a lease lasts, and how often what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From each renewal on. What a standby waits at most after its holder was killed.
    pub duration: Duration,
    /// The holder stops to believe in its lease so much earlier than the server ends it: by so much the clocks of two members
    /// of the set may differ when one becomes primary after the other.
    pub margin: Duration,
    /// Between two renewals.
    pub renew_every: Duration,
    /// A standby asks so often, and a holder whose renewal failed; each time after half of it to all of it.
    pub ask_every: Duration,
    /// The longest wait for one answer: a connection that is dead without knowing must not use up the lease.
    pub attempt_max: Duration,
}

impl Times {
    /// Those of the daemon. Thirteen seconds of belief are three renewals that may fail and are longer than an election, for
    /// which a replica set needs ten to twelve by default; half a second keeps a hand-over well under two.
    pub const STANDARD: Times = Times {
        duration: Duration::from_secs(15),
        margin: Duration::from_secs(2),
        renew_every: Duration::from_secs(3),
        ask_every: Duration::from_millis(500),
        attempt_max: Duration::from_secs(4),
    };
}

/// Who decides which instance holds the lease.
pub enum Arbiter {
    /// A document in the deployment that is watched.
    MongoDb(mongodb::MongoDbArbiter),
    /// A lock on a file of this machine.
    File(file::FileArbiter),
}

/// What a contender is told.
enum Answer {
    /// It holds the lease from now on.
    Granted { epoch: u64, before: Option<Former> },
    /// Another has it, for so long unless it is renewed.
    Held { holder: Option<String>, remaining: Option<Duration> },
}

/// The holder before.
struct Former {
    holder: String,
    /// It gave the lease back; else it ran out.
    released: bool,
    /// Its process is dead: the lease had not run out.
    is_dead: bool,
    /// Since then.
    overdue: Duration,
}

/// What a holder is told.
enum Renewal {
    Kept,
    Lost { holder: Option<String> },
}

/// Why the arbiter gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The server did not answer as it should. A retry may help.
    #[error("{what} lease of {name} in MongoDB: {reason}")]
    MongoDb {
        /// `take`, `renew` or `release`.
        what: &'static str,
        /// The deployment's.
        name: String,
        /// The server's words.
        reason: String,
        /// A retry helps.
        passing: bool,
    },
    /// The file system did not. A retry may help.
    #[error("{what} {path}: {reason}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// No answer in time. A retry may help.
    #[error("{what} lease: no answer within {within:?}")]
    NoAnswer {
        /// `take`, `renew` or `release`.
        what: &'static str,
        /// How long that was waited for.
        within: Duration,
    },
}

impl Arbiter {
    async fn take(&mut self) -> Result<Answer, LeaseError> {
        match self {
            Arbiter::MongoDb(arbiter) => arbiter.take().await,
            Arbiter::File(arbiter) => arbiter.take(),
        }
    }

    async fn renew(&mut self, epoch: u64) -> Result<Renewal, LeaseError> {
        match self {
            Arbiter::MongoDb(arbiter) => arbiter.renew(epoch).await,
            Arbiter::File(arbiter) => arbiter.renew(epoch),
        }
    }

    async fn release(&mut self, epoch: u64) -> Result<(), LeaseError> {
        match self {
            Arbiter::MongoDb(arbiter) => arbiter.release(epoch).await,
            Arbiter::File(arbiter) => arbiter.release(epoch),
        }
    }

    /// Until when a holder that asked at `asked` may believe the answer.
    fn valid_until(&self, asked: Duration, times: &Times) -> Duration {
        match self {
            Arbiter::MongoDb(_) => validity::valid_until(asked, times),
            // A lock has no end: the system takes it from the process only with its life.
            Arbiter::File(_) => Duration::MAX,
        }
    }
}

/// What this instance is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Another delivers, or nobody for the moment.
    Standby {
        /// Who, where it is known.
        holder: Option<String>,
    },
    /// This one does.
    Holder {
        /// Greater with each time that any instance takes the lease.
        epoch: u64,
    },
}

/// A contender for the lease of one deployment, or its holder. Dropping it ends it like a crash does: guards say no at once, and
/// the lease runs out by itself (a file lock is free at once).
pub struct Lease {
    standing: watch::Receiver<Standing>,
    validity: Arc<Validity>,
    release: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Lease {
    /// Asks for the lease once, and goes on asking and renewing in the background. Afterwards it is known what this instance is.
    ///
    /// # Errors
    /// When the first question got no answer; nothing goes on then. Later failures are logged, counted and tried again.
    pub async fn begin(arbiter: Arbiter, times: Times, metrics: LeaseMetrics) -> Result<Lease, LeaseError> {
        let (standing, standing_seen) = watch::channel(Standing::Standby { holder: None });
        let (release, released) = watch::channel(false);
        let validity = Arc::new(Validity::default());
        let mut contender = Contender {
            arbiter,
            times,
            metrics,
            validity: Arc::clone(&validity),
            standing,
            failures: 0,
            lapsed: false,
        };
        let wait = contender.take().await?;
        if let Standing::Standby { holder } = &*contender.standing.borrow() {
            info!(holder, "standing by: another instance delivers; this one takes over when its lease ends");
        }
        let task = tokio::spawn(contender.run(wait, released));
        Ok(Lease { standing: standing_seen, validity, release, task })
    }

    /// What this instance is, and each change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// For what was started because this instance became [`Standing::Holder`] in `epoch`. It never holds in another epoch.
    pub fn guard(&self, epoch: u64) -> Guard {
        Guard::new(Arc::clone(&self.validity), epoch)
    }

    /// Gives the lease back, so that a standby has it as soon as it asks; for the end of a drain, when nothing is under way and
    /// all checkpoints are written. Guards say no from here on. Waits at most for one answer under way and one more; a lease
    /// that could not be given back runs out by itself.
    pub async fn release(mut self) {
        self.release.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            warn!("release lease: {error}; it runs out by itself");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.validity.end();
        self.task.abort();
    }
}

/// Asks, renews and releases, one after the other.
struct Contender {
    arbiter: Arbiter,
    times: Times,
    metrics: LeaseMetrics,
    validity: Arc<Validity>,
    standing: watch::Sender<Standing>,
    /// In a row.
    failures: u32,
    /// Said, and not yet renewed.
    lapsed: bool,
}

impl Contender {
    async fn run(mut self, first_wait: Duration, mut released: watch::Receiver<bool>) {
        let mut wait = first_wait;
        loop {
            tokio::select! {
                // Also when the sender is gone.
                _ = released.wait_for(|released| *released) => break,
                () = sleep(wait) => {}
            }
            // Never cut short by a release: what the server does with a question it has is not known, and would have to be.
            let asked = match self.epoch() {
                None => self.take().await,
                Some(epoch) => self.renew(epoch).await,
            };
            wait = asked.unwrap_or_else(|error| self.failed(&error));
        }
        self.release().await;
    }

    fn epoch(&self) -> Option<u64> {
        match *self.standing.borrow() {
            Standing::Holder { epoch } => Some(epoch),
            Standing::Standby { .. } => None,
        }
    }

    /// Gives back when to ask next.
    async fn take(&mut self) -> Result<Duration, LeaseError> {
        let asked = now();
        match within("take", &self.times, self.arbiter.take()).await? {
            Answer::Granted { epoch, before } => {
                self.validity.begin(epoch, self.arbiter.valid_until(asked, &self.times));
                self.standing.send_replace(Standing::Holder { epoch });
                self.metrics.taken(epoch);
                match before {
                    Some(Former { holder, is_dead: true, .. }) => {
                        warn!(epoch, "delivering: {holder}, which had the lease, is dead");
                    }
                    Some(Former { holder, released: true, overdue, .. }) => {
                        info!(epoch, "delivering: {holder} gave the lease back {overdue:?} ago");
                    }
                    Some(Former { holder, released: false, overdue, .. }) => {
                        warn!(epoch, "delivering: the lease of {holder} ran out {overdue:?} ago");
                    }
                    None => info!(epoch, "delivering: this instance holds the lease"),
                }
                self.answered();
                Ok(self.times.renew_every)
            }
            Answer::Held { holder, remaining } => {
                self.answered();
                // The name of the last holder is kept where the answer does not say one.
                let standby = Standing::Standby { holder };
                self.standing.send_if_modified(|standing| {
                    let news = matches!(&standby, Standing::Standby { holder: Some(_) }) && *standing != standby;
                    if news {
                        *standing = standby;
                    }
                    news
                });
                Ok(self.soon().min(remaining.unwrap_or(Duration::MAX)))
            }
        }
    }

    async fn renew(&mut self, epoch: u64) -> Result<Duration, LeaseError> {
        let asked = now();
        let renewal = within("renew", &self.times, self.arbiter.renew(epoch)).await?;
        self.look_for_lapse();
        match renewal {
            Renewal::Kept => {
                self.validity.extend(self.arbiter.valid_until(asked, &self.times));
                self.metrics.held.set(1);
                self.answered();
                if std::mem::take(&mut self.lapsed) {
                    info!(epoch, "delivering again: the lease is renewed, nobody had taken it");
                }
                Ok(self.times.renew_every.saturating_sub(now().saturating_sub(asked)))
            }
            Renewal::Lost { holder } => {
                self.validity.end();
                self.lapsed = false;
                self.answered();
                self.metrics.lost();
                let by = holder.as_deref().unwrap_or("another instance");
                warn!(epoch, "standing by: {by} has taken the lease, because this instance did not renew it in time");
                self.standing.send_replace(Standing::Standby { holder });
                Ok(self.soon())
            }
        }
    }

    async fn release(mut self) {
        // First of all: when the other instance begins, this one has ended.
        self.validity.end();
        self.metrics.held.set(0);
        let Some(epoch) = self.epoch() else { return };
        self.standing.send_replace(Standing::Standby { holder: None });
        match within("release", &self.times, self.arbiter.release(epoch)).await {
            Ok(()) => info!(epoch, "the lease is given back"),
            Err(error) => warn!(epoch, "{error}; it runs out by itself within {:?}", self.times.duration),
        }
    }

    fn answered(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            info!("the lease is answered again");
        }
    }

    /// Gives back when to ask again.
    fn failed(&mut self, error: &LeaseError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let holds = self.epoch().is_some();
        if holds {
            self.metrics.renewal_failures.inc();
        }
        match self.failures {
            1 => warn!("{error}; trying again"),
            _ => debug!("{error}; trying again"),
        }
        if holds {
            self.look_for_lapse();
        }
        self.soon()
    }

    /// Says and counts once when a holding has lapsed.
    fn look_for_lapse(&mut self) {
        if !self.lapsed && !self.validity.is_valid() {
            self.lapsed = true;
            self.metrics.lapsed();
            warn!(
                "the lease was not renewed in time: nothing is delivered until it is, or until another instance has it"
            );
        }
    }

    /// So that instances that began together do not ask together.
    fn soon(&self) -> Duration {
        self.times.ask_every.mul_f64(rand::random_range(0.5..=1.0))
    }
}

async fn within<T>(
    what: &'static str,
    times: &Times,
    answer: impl Future<Output = Result<T, LeaseError>>,
) -> Result<T, LeaseError> {
    // The driver closes a connection whose answer nobody waits for any more.
    let within = times.attempt_max;
    timeout(within, answer).await.unwrap_or(Err(LeaseError::NoAnswer { what, within }))
}

/// A name for people, of this process: host, process id and chance.
pub fn instance() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>())
}
