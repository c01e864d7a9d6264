//! The life of one lane's plugin instance: started, replaced after a fault with growing waits, given up after too many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::admin::Pending;
use crate::backoff::Backoff;
use crate::plugin::{Delivered, Instance, Library, Outcome, Port, Progress, StartError};

/// Between instances.
const RESTART: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(60) };

/// How long an instance may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Instances of one output that were given up and never ended. Each one keeps a thread and the batches it had.
const ABANDONED_MAX: u64 = 8;

/// One output's plugin.
pub struct Life {
    library: Library,
    port: Arc<Port>,
    options: Arc<serde_json::Value>,
    state: State,
    /// Faults since the last acknowledged batch.
    failures: u32,
    /// `/readyz` waits for the first instance to be up.
    first_start: Option<Pending>,
}

enum State {
    Down { until: Instant },
    Starting(JoinHandle<Result<Instance, StartError>>),
    Up(Instance),
    Off,
}

/// What happened to the instance.
pub enum Change {
    /// It is ready for batches.
    Started,
    /// It did not start; another attempt follows by itself.
    NotStarted {
        /// In the plugin's words.
        reason: String,
        /// How long until the next attempt.
        wait: Duration,
    },
    /// It can never start like this.
    Fatal(String),
    /// A batch is done.
    Outcome(Outcome),
}

impl Life {
    /// An output's plugin that is not started yet.
    pub fn new(library: Library, port: Arc<Port>, options: Arc<serde_json::Value>, condition: Option<Pending>) -> Self {
        let state = State::Down { until: Instant::now() };
        Life { library, port, options, state, failures: 0, first_start: condition }
    }

    /// What happens next. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn change(&mut self) -> Change {
        loop {
            match &mut self.state {
                State::Off => std::future::pending().await,
                State::Up(instance) => return Change::Outcome(instance.next_outcome().await),
                State::Down { until } => {
                    tokio::time::sleep_until((*until).into()).await;
                    let (library, port, options) =
                        (self.library.clone(), Arc::clone(&self.port), Arc::clone(&self.options));
                    self.state = State::Starting(tokio::spawn(async move {
                        Instance::start(&library, &port, &options, START_TIMEOUT).await
                    }));
                }
                State::Starting(task) => {
                    let started = match task.await {
                        Ok(started) => started,
                        Err(error) => Err(StartError::Failed { reason: error.to_string() }),
                    };
                    return self.started(started);
                }
            }
        }
    }

    fn started(&mut self, started: Result<Instance, StartError>) -> Change {
        let (after, reason) = match started {
            Ok(instance) => {
                self.state = State::Up(instance);
                self.is_awaited_no_more();
                return Change::Started;
            }
            Err(StartError::Fatal { reason }) => {
                self.state = State::Off;
                return Change::Fatal(reason);
            }
            Err(StartError::Retry { after, reason }) => (after, reason),
            Err(StartError::Failed { reason }) => (None, reason),
        };
        let wait = self.down(after);
        if self.port.abandoned_instances() >= ABANDONED_MAX {
            self.state = State::Off;
            return Change::Fatal(format!("{ABANDONED_MAX} instances hang and never end; the last: {reason}"));
        }
        Change::NotStarted { reason, wait }
    }

    fn down(&mut self, after: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = after.unwrap_or_else(|| RESTART.delay(self.failures, rand::random()));
        self.state = State::Down { until: Instant::now() + wait };
        wait
    }

    /// Gives the instance up: its late answers change nothing. A new one follows after the wait returned.
    ///
    /// # Errors
    /// Too many instances hang; there will be no new one.
    pub fn replace(&mut self) -> Result<Duration, String> {
        self.give_up();
        if self.port.abandoned_instances() >= ABANDONED_MAX {
            return Err(format!("{ABANDONED_MAX} instances hang and never end"));
        }
        Ok(self.down(None))
    }

    /// Stops the instance for good, in the background: it may take until `grace` to say goodbye to its clients.
    pub fn dismiss(&mut self, grace: Duration) {
        if let State::Up(instance) = std::mem::replace(&mut self.state, State::Off) {
            tokio::spawn(instance.stop(grace));
        }
    }

    /// Gives the instance up for good.
    pub fn give_up(&mut self) {
        if let State::Up(instance) = std::mem::replace(&mut self.state, State::Off) {
            instance.abandon();
        }
    }

    /// `/readyz` no longer waits for this plugin.
    pub fn is_awaited_no_more(&mut self) {
        if let Some(condition) = self.first_start.take() {
            condition.done();
        }
    }

    /// Hands out a batch; without an instance nothing happens and false is returned.
    pub fn deliver(&self, delivery: u64, batch: Vec<Delivered>, timeout: Duration) -> bool {
        let State::Up(instance) = &self.state else { return false };
        instance.deliver(delivery, batch, timeout);
        true
    }

    /// Tells a broadcast output's plugin how far its stream has come; without an instance nothing happens.
    pub fn progress(&self, progress: Progress) {
        if let State::Up(instance) = &self.state {
            instance.progress(progress);
        }
    }

    /// How far back a broadcast output's plugin wants its stream to begin.
    pub fn wanted_history(&self) -> Duration {
        self.port.wanted_history()
    }

    /// True while there is an instance ready for batches.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// A batch was acknowledged: the instance is sound.
    pub fn is_sound(&mut self) {
        self.failures = 0;
    }

    /// Ends the instance within `grace`.
    pub async fn stop(&mut self, grace: Duration) {
        self.is_awaited_no_more();
        let deadline = Instant::now() + grace;
        match std::mem::replace(&mut self.state, State::Off) {
            State::Up(instance) => instance.stop(grace).await,
            // An aborted start would leave its instance behind unowned; waited for, it can be stopped.
            State::Starting(task) => {
                if let Ok(Ok(Ok(instance))) = tokio::time::timeout(grace, task).await {
                    instance.stop(deadline.saturating_duration_since(Instant::now())).await;
                }
            }
            State::Down { .. } | State::Off => {}
        }
    }
}
