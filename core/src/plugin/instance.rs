//! The life of one plugin instance: a thread of its own runs create, start, deliver, stop and destroy in turn, so a plugin
//! that blocks hurts only its own output. Batches go in over a queue, outcomes come back over a channel.

use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_abi::{TW_E_OPTIONS, TW_E_PANIC, TW_OK, tw_create_args, tw_instance, tw_progress, tw_str};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::batch::{Batch, Delivered};
use super::commands::{Commands, Receiver, commands};
use super::loader::Library;
use super::port::Port;
use super::text::Sink;
use super::tokens::Waiting;
use super::verdict::{Outcome, Verdict, Verdicts};
use crate::source::token::Timestamp64;

/// Part of the grace of a stop that is kept for `destroy`: a tenth, at most this.
const DESTROY_GRACE_MAX: Duration = Duration::from_millis(500);

/// Why an instance did not start.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StartError {
    /// The plugin says it never will, with these options: a retry does not help.
    #[error("start the plugin: {reason}")]
    Fatal {
        /// The plugin's own words.
        reason: String,
    },
    /// Passing trouble, as a server that cannot be reached.
    #[error("start the plugin: {reason} (will be tried again)")]
    Retry {
        /// Not before this long; `None` leaves it to the host.
        after: Option<Duration>,
        /// The plugin's own words.
        reason: String,
    },
    /// It panicked, hung or broke the border's rules. Another instance may do better.
    #[error("start the plugin: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}

/// A started instance. Dropping it is [`Instance::abandon`].
pub struct Instance {
    handle: Handle,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

/// The host's end of an instance's thread.
struct Handle {
    port: Arc<Port>,
    id: u64,
    commands: Arc<Commands<Command>>,
    /// Held here too, so that `next_outcome` never sees a closed channel.
    outcomes: mpsc::UnboundedSender<Outcome>,
    phase: Arc<Phase>,
    /// Told to the plugin by the next `Command::Progress`; there is one in the queue while this is `Some`. Newer progress replaces
    /// it, so that a plugin that hangs does not make a queue.
    progress: Arc<Mutex<Option<Progress>>>,
    /// Closed when the thread has ended.
    ended: oneshot::Receiver<()>,
}

/// How far the stream of a broadcast output has come; see `tw_progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The instance is given every event from this time on.
    pub complete_from: Timestamp64,
    /// Events before this time only fill its history.
    pub live_from: Timestamp64,
    /// Every event before this time was given and acknowledged.
    pub reached: Timestamp64,
}

enum Command {
    /// To call `progress` with what `Handle::progress` holds by then.
    Progress,
    Deliver {
        delivery: u64,
        batch: Vec<Delivered>,
        timeout: Duration,
    },
    Stop {
        deadline: Duration,
        reply: oneshot::Sender<Verdicts>,
    },
    Destroy,
}

/// Where an instance's thread is, as the host has to know it.
struct Phase(AtomicU8);

const RUNNING: u8 = 0;
const ABANDONED: u8 = 1;
const ENDED: u8 = 2;

impl Instance {
    /// Creates an instance on a new thread and waits until it has started, `within` at most.
    ///
    /// Cancel safe: an instance whose start is given up is torn down in the background.
    ///
    /// # Errors
    /// See [`StartError`]; only its `Fatal` is not worth a retry.
    pub async fn start(
        library: &Library,
        port: &Arc<Port>,
        options: &serde_json::Value,
        within: Duration,
    ) -> Result<Self, StartError> {
        let (commands, inbox) = commands();
        let (sender, outcomes) = mpsc::unbounded_channel();
        let (started, answer) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let phase = Arc::new(Phase(AtomicU8::new(RUNNING)));
        let progress = Arc::new(Mutex::new(None));
        let id = port.next_instance();
        let thread = Thread {
            library: library.clone(),
            port: port.clone(),
            id,
            outcomes: sender.clone(),
            phase: phase.clone(),
            progress: progress.clone(),
            raw: ptr::null_mut(),
            _alive: alive,
        };
        let options = options.to_string();
        std::thread::Builder::new()
            .name(format!("out {}", port.output()))
            .spawn(move || thread.run(&options, started, &inbox))
            .map_err(|error| StartError::Failed { reason: format!("start a thread for it: {error}") })?;
        let handle = Handle { port: port.clone(), id, commands, outcomes: sender, phase, progress, ended };
        let instance = Self { handle, outcomes };
        match timeout(within, answer).await {
            Ok(Ok(verdicts)) => started_as(verdicts.default).map(|()| instance),
            Ok(Err(_)) => Err(StartError::Failed { reason: "its thread ended before it had started".to_owned() }),
            Err(_) => Err(StartError::Failed { reason: format!("it did not start within {within:?}") }),
        }
    }

    /// Hands over a batch and owes one [`Outcome`] with this `delivery` number. Never blocks. `timeout` is only told to the
    /// plugin; to act on it is the caller's part.
    pub fn deliver(&self, delivery: u64, batch: Vec<Delivered>, timeout: Duration) {
        if self.handle.commands.send(Command::Deliver { delivery, batch, timeout }).is_err() {
            let verdicts = Verdicts::failed("the plugin's thread has ended");
            // This instance holds the receiver, so the send cannot fail.
            let _ = self.handle.outcomes.send(Outcome { delivery, verdicts });
        }
    }

    /// Tells the plugin how far its stream has come, in its place among the deliveries. Never blocks.
    pub fn progress(&self, progress: Progress) {
        let waiting = lock(&self.handle.progress).replace(progress);
        if waiting.is_none() {
            // Refused only when the thread has ended: then there is nobody to tell.
            let _ = self.handle.commands.send(Command::Progress);
        }
    }

    /// The next outcome, in the order of completion. Pends while there is none. Cancel safe.
    pub async fn next_outcome(&mut self) -> Outcome {
        match self.outcomes.recv().await {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }

    /// Stops and destroys within `grace`; what does not end by then is abandoned. Batches still in flight are given up
    /// without an outcome, so settle them first.
    pub async fn stop(mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let for_stop = grace - (grace / 10).min(DESTROY_GRACE_MAX);
        let (reply, answer) = oneshot::channel();
        let handle = &mut self.handle;
        // A send fails only when the thread has ended, which `ended` tells below.
        let _ = handle.commands.send(Command::Stop { deadline: for_stop, reply });
        match timeout(for_stop, answer).await {
            Ok(Ok(Verdicts { default: Verdict::Ack, .. })) => {}
            Ok(Ok(verdicts)) => {
                warn!(output = handle.port.output(), "the plugin did not stop cleanly: {:?}", verdicts.default);
            }
            Ok(Err(_)) => {}
            Err(_) => warn!(output = handle.port.output(), "the plugin did not stop within {for_stop:?}"),
        }
        handle.port.revoke_all(handle.id);
        handle.commands.replace(Command::Destroy);
        // Either way the drop that follows does what is left: nothing when the thread has ended, else abandon.
        let _ = timeout_at(deadline, &mut handle.ended).await;
    }

    /// Gives the instance up: every token is taken back now, batches that wait are dropped, destroy is queued, and the thread ends by itself, if it does.
    pub fn abandon(self) {
        drop(self);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Counted before the thread can see it, so that the thread never takes back what was not yet counted.
        self.port.count_abandoned();
        if self.phase.0.compare_exchange(RUNNING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            self.port.uncount_abandoned();
            return;
        }
        self.port.revoke_all(self.id);
        self.commands.replace(Command::Destroy);
    }
}

fn lock(progress: &Mutex<Option<Progress>>) -> MutexGuard<'_, Option<Progress>> {
    // Each change is one assignment, so a poisoned lock is still good.
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn started_as(verdict: Verdict) -> Result<(), StartError> {
    match verdict {
        Verdict::Ack => Ok(()),
        Verdict::Retry { after, reason } => Err(StartError::Retry { after, reason: reason_or(reason) }),
        Verdict::Fatal { reason } | Verdict::Reject { reason } => Err(StartError::Fatal { reason: reason_or(reason) }),
        Verdict::Failed { reason } => Err(StartError::Failed { reason: reason_or(reason) }),
    }
}

fn reason_or(reason: String) -> String {
    if reason.is_empty() { "the plugin gives no reason".to_owned() } else { reason }
}

/// What an instance's thread owns.
struct Thread {
    library: Library,
    port: Arc<Port>,
    id: u64,
    outcomes: mpsc::UnboundedSender<Outcome>,
    phase: Arc<Phase>,
    progress: Arc<Mutex<Option<Progress>>>,
    /// Null until created. Only this thread uses it.
    raw: *mut tw_instance,
    /// Dropped when the thread ends.
    _alive: oneshot::Sender<()>,
}

// SAFETY: `raw` is null when the struct moves to its thread and never leaves that thread afterwards.
unsafe impl Send for Thread {}

impl Thread {
    fn run(mut self, options: &str, started: oneshot::Sender<Verdicts>, inbox: &Receiver<Command>) {
        match self.create(options) {
            Ok(()) => self.start(started),
            // Nobody listens any more when the start was given up; then there is nobody to tell.
            Err(verdict) => drop(started.send(Verdicts::all(verdict))),
        }
        loop {
            match inbox.next() {
                Command::Deliver { delivery, batch, timeout } => self.deliver(delivery, batch, timeout),
                Command::Progress => self.tell_progress(),
                Command::Stop { deadline, reply } => self.stop(deadline, reply),
                Command::Destroy => break,
            }
        }
        if !self.raw.is_null() {
            // SAFETY: made by this library's `create`, destroyed once, not used afterwards.
            unsafe { (self.library.functions().destroy)(self.raw) };
        }
        self.port.release(self.id);
        if self.phase.0.swap(ENDED, Ordering::SeqCst) == ABANDONED {
            self.port.uncount_abandoned();
            debug!(output = self.port.output(), "a plugin instance that was given up has ended");
        }
    }

    fn create(&mut self, options: &str) -> Result<(), Verdict> {
        let mut sink = Sink::default();
        let error = sink.border();
        let args = tw_create_args {
            struct_size: size_of::<tw_create_args>() as u32,
            reserved0: 0,
            host: self.port.host(),
            output: tw_str::new(self.port.output()),
            options_json: tw_str::new(options),
            error: &raw const error,
        };
        // SAFETY: everything `args` leads to lives longer than the call; `raw` is where the instance goes.
        let status = unsafe { (self.library.functions().create)(&raw const args, &raw mut self.raw) };
        if status == TW_OK {
            if self.raw.is_null() {
                return Err(Verdict::Failed { reason: "create succeeded without an instance (null)".to_owned() });
            }
            return Ok(());
        }
        // An instance beside an error is the plugin's mistake; destroying it could be a second one.
        self.raw = ptr::null_mut();
        Err(match status {
            TW_E_OPTIONS => Verdict::Fatal { reason: sink.text_or("the plugin does not accept the options") },
            TW_E_PANIC => Verdict::Failed { reason: sink.text_or("the plugin panicked in create") },
            _ => Verdict::Failed { reason: sink.text_or(&format!("create failed with status {status}")) },
        })
    }

    fn start(&self, started: oneshot::Sender<Verdicts>) {
        let Some(start) = self.library.functions().start else {
            return drop(started.send(Verdicts::all(Verdict::Ack)));
        };
        let token = self.port.issue(self.id, Waiting::Call(started), None);
        // SAFETY: `raw` came from `create` and is not destroyed.
        let status = unsafe { start(self.raw, token) };
        self.settle_refusal(token, status, "start");
    }

    fn deliver(&self, delivery: u64, batch: Vec<Delivered>, timeout: Duration) {
        if self.raw.is_null() {
            let verdicts = Verdicts::failed("the plugin has no instance");
            return drop(self.outcomes.send(Outcome { delivery, verdicts }));
        }
        if batch.is_empty() {
            // The border promises at least one event; of none there is nothing to say but that all are done.
            return drop(self.outcomes.send(Outcome { delivery, verdicts: Verdicts::all(Verdict::Ack) }));
        }
        // Held until the call returns, too: the plugin may complete early and still be reading.
        let batch = Arc::new(Batch::new(batch, timeout));
        let waiting = Waiting::Delivery { delivery, outcomes: self.outcomes.clone() };
        let token = self.port.issue(self.id, waiting, Some(batch.clone()));
        // Looked at after the token is issued: an abandon before it did not see this token, one after it does.
        if self.phase.0.load(Ordering::SeqCst) == ABANDONED {
            drop(self.port.revoke(token));
            return;
        }
        // SAFETY: `raw` came from `create` and is not destroyed; the token table keeps the batch until it is completed.
        let status = unsafe { (self.library.functions().deliver)(self.raw, batch.border(), token) };
        self.settle_refusal(token, status, "deliver");
    }

    fn tell_progress(&self) {
        let (waiting, tell) = (lock(&self.progress).take(), self.library.functions().progress);
        let (Some(progress), Some(tell), false) = (waiting, tell, self.raw.is_null()) else { return };
        let progress = tw_progress {
            struct_size: size_of::<tw_progress>() as u32,
            reserved0: 0,
            complete_from: progress.complete_from.0,
            live_from: progress.live_from.0,
            reached: progress.reached.0,
        };
        // SAFETY: `raw` came from `create` and is not destroyed; the struct lives until the call returns.
        unsafe { tell(self.raw, &raw const progress) };
    }

    fn stop(&self, deadline: Duration, reply: oneshot::Sender<Verdicts>) {
        let (Some(stop), false) = (self.library.functions().stop, self.raw.is_null()) else {
            return drop(reply.send(Verdicts::all(Verdict::Ack)));
        };
        let token = self.port.issue(self.id, Waiting::Call(reply), None);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: `raw` came from `create` and is not destroyed.
        let status = unsafe { stop(self.raw, deadline_ms, token) };
        self.settle_refusal(token, status, "stop");
    }

    /// A call that did not take its token: it counts as failed, unless the plugin completed the token all the same.
    fn settle_refusal(&self, token: u64, status: i32, call: &str) {
        if status == TW_OK {
            return;
        }
        if let Some(waiting) = self.port.revoke(token) {
            waiting.answer(Verdicts::failed(match (call, status) {
                (_, TW_E_PANIC) => format!("the plugin panicked in {call}"),
                ("deliver", _) => format!("the plugin did not take the batch: status {status}"),
                _ => format!("{call} failed with status {status}"),
            }));
        }
    }
}
