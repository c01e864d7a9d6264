//! Drives an output through its real border functions inside a test: no daemon, no MongoDB, no loaded library.
//!
//! ```
//! # use tailwater_sdk::{Batch, Context, DeliverError, Output, StartError};
//! use tailwater_sdk::testing::{Harness, TestEvent, Verdict};
//! # #[derive(serde::Deserialize, schemars::JsonSchema)]
//! # struct Options {}
//! # struct Null;
//! # impl Output for Null {
//! #     type Options = Options;
//! #     const SUMMARY: &'static str = "";
//! #     async fn start(_: Options, _: Context) -> Result<Self, StartError> { Ok(Null) }
//! #     async fn deliver(&self, _: &Batch) -> Result<(), DeliverError> { Ok(()) }
//! # }
//! let harness = Harness::<Null>::start(serde_json::json!({})).expect("it starts");
//! let outcome = harness.deliver(vec![TestEvent::new("insert", "shop", "orders")]);
//! assert_eq!(outcome.verdicts, [Verdict::Ack]);
//! harness.stop();
//! ```

mod event;
mod host;
mod receiver;

use std::{marker::PhantomData, sync::Arc, thread::ThreadId, time::Duration};

use tailwater_abi::*;

pub use event::TestEvent;
use host::TestHost;
pub use receiver::{Received, Receiver, Reply};

use crate::{Output, Progress, functions};

/// How long the harness waits for anything before it calls the test failed.
const PATIENCE: Duration = Duration::from_secs(if cfg!(miri) { 300 } else { 30 });
/// The time `stop` gives the output.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// One output, started. Dropping it destroys the output as the daemon would.
pub struct Harness<O: Output> {
    host: Arc<TestHost>,
    instance: *mut tw_instance,
    output: PhantomData<O>,
}

// SAFETY: the functions of the border may be called from any thread, one at a time: none takes a second `&Harness` at once,
// because `Harness` is not `Sync`.
unsafe impl<O: Output> Send for Harness<O> {}

/// Settings of a harness, before it starts the output.
pub struct Builder {
    output: String,
    while_completing: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Builder {
    /// The output's name; `test` where nothing is said.
    pub fn output(mut self, name: &str) -> Self {
        self.output = name.to_owned();
        self
    }

    /// Called at the end of each of the host's `complete`, on the plugin's thread, when the batch is already gone and the test
    /// already knows the outcome: a host that takes its time.
    pub fn while_completing(mut self, work: impl Fn() + Send + Sync + 'static) -> Self {
        self.while_completing = Some(Box::new(work));
        self
    }

    /// Creates and starts an output.
    ///
    /// # Errors
    /// What the output said instead of starting.
    pub fn start<O: Output>(self, options: serde_json::Value) -> Result<Harness<O>, StartFailure> {
        let harness = Harness::<O>::create(self, &options.to_string()).map_err(StartFailure::Refused)?;
        match harness.start_again() {
            Verdict::Ack => Ok(harness),
            verdict => Err(StartFailure::Verdict(verdict)),
        }
    }
}

/// Why an output did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartFailure {
    /// The options are not acceptable.
    Refused(String),
    /// `start` ended otherwise.
    Verdict(Verdict),
}

/// What the daemon would know of an event after a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Ack,
    /// To be delivered again.
    Retry {
        /// Not before this long; `None` leaves it to the daemon.
        after: Option<Duration>,
        /// What went wrong.
        reason: String,
    },
    /// Can never be delivered.
    Reject {
        /// Why not.
        reason: String,
    },
    /// The output stops.
    Fatal {
        /// Why.
        reason: String,
    },
    /// The instance is given up: it panicked, or dropped the delivery.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One for each event, in order.
    pub verdicts: Vec<Verdict>,
    /// The whole output waits this long.
    pub pause_output: Option<Duration>,
}

/// One record that the output logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// `TW_LEVEL_*`.
    pub level: tw_level,
    /// Module that spoke.
    pub target: String,
    /// Text.
    pub message: String,
    /// Fields, in order.
    pub fields: Vec<(String, String)>,
    /// Thread it was logged on.
    pub thread: ThreadId,
}

/// A delivery whose end the test has not waited for yet.
#[must_use = "wait for it"]
pub struct Pending {
    host: Arc<TestHost>,
    token: u64,
}

impl Pending {
    /// Waits until the output has completed the delivery.
    ///
    /// # Panics
    /// Where it takes more than 30 seconds.
    pub fn wait(self) -> Outcome {
        self.host.wait(self.token, PATIENCE).expect("the output completes its delivery within 30 seconds")
    }

    /// True where the output has completed the delivery.
    pub fn is_completed(&self) -> bool {
        self.host.is_completed(self.token)
    }
}

impl<O: Output> Harness<O> {
    /// Creates and starts an output with these options.
    ///
    /// # Errors
    /// What the output said instead of starting.
    pub fn start(options: serde_json::Value) -> Result<Self, StartFailure> {
        Self::builder().start(options)
    }

    /// Settings that differ from the defaults.
    pub fn builder() -> Builder {
        Builder { output: "test".to_owned(), while_completing: None }
    }

    /// What `tailwater check` would say of these options.
    ///
    /// # Errors
    /// The output's own words.
    pub fn validate(options: serde_json::Value) -> Result<(), String> {
        let options = options.to_string();
        let mut error = String::new();
        let validate = functions::<O>().validate.expect("the SDK offers validate");
        let sink = host::sink(&mut error);
        let args = tw_validate_args {
            struct_size: size_of::<tw_validate_args>() as u32,
            reserved0: 0,
            output: tw_str::new("test"),
            options_json: tw_str::new(&options),
            error: &sink,
        };
        // SAFETY: everything in `args` lives until the call returns.
        match unsafe { validate(&args) } {
            TW_OK => Ok(()),
            _ => Err(error),
        }
    }

    fn create(builder: Builder, options: &str) -> Result<Self, String> {
        let host = TestHost::new(builder.while_completing);
        let mut error = String::new();
        let sink = host::sink(&mut error);
        let args = tw_create_args {
            struct_size: size_of::<tw_create_args>() as u32,
            reserved0: 0,
            host: host.table(),
            output: tw_str::new(&builder.output),
            options_json: tw_str::new(options),
            error: &sink,
        };
        let mut instance = std::ptr::null_mut();
        let create = functions::<O>().create.expect("the SDK offers create");
        // SAFETY: everything in `args` lives until the call returns, the table as long as the process.
        match unsafe { create(&args, &mut instance) } {
            TW_OK => Ok(Self { host, instance, output: PhantomData }),
            _ => Err(error),
        }
    }

    fn start_again(&self) -> Verdict {
        let start = functions::<O>().start.expect("the SDK offers start");
        let token = self.host.issue(Vec::new());
        // SAFETY: the instance is from `create` and lives as long as `self`.
        let status = unsafe { start(self.instance, token) };
        self.first_verdict(token, status)
    }

    fn first_verdict(&self, token: u64, status: tw_status) -> Verdict {
        if status != TW_OK {
            return Verdict::Failed { reason: format!("not taken: {status}") };
        }
        self.host.wait_single(token, PATIENCE).expect("the output completes within 30 seconds")
    }

    /// Delivers a batch and waits for its end.
    pub fn deliver(&self, events: Vec<TestEvent>) -> Outcome {
        self.begin_delivery(events).wait()
    }

    /// Delivers a batch. Others may be delivered before it has ended.
    ///
    /// # Panics
    /// Where the output does not take it.
    pub fn begin_delivery(&self, events: Vec<TestEvent>) -> Pending {
        let deliver = functions::<O>().deliver.expect("the SDK offers deliver");
        let token = self.host.issue(events);
        // SAFETY: the instance lives as long as `self`, the batch until its token is completed.
        let status = unsafe { deliver(self.instance, self.host.batch(token), token) };
        assert_eq!(status, TW_OK, "the output takes the batch");
        Pending { host: self.host.clone(), token }
    }

    /// Tells a broadcast output how far its stream has come.
    pub fn progress(&self, progress: Progress) {
        let Progress { complete_from, live_from, reached } = progress;
        let struct_size = size_of::<tw_progress>() as u32;
        let progress = tw_progress { struct_size, reserved0: 0, complete_from, live_from, reached };
        let tell = functions::<O>().progress.expect("the SDK offers progress");
        // SAFETY: the instance lives as long as `self`, the struct until the call returns.
        unsafe { tell(self.instance, &progress) };
    }

    /// How much history a broadcast output has asked for.
    pub fn wanted_history(&self) -> Duration {
        self.host.wanted_history()
    }

    /// Stops the output and destroys it.
    pub fn stop(self) -> Verdict {
        self.stop_within(STOP_DEADLINE)
    }

    /// Stops the output, giving deliveries in hand this long, and destroys it.
    pub fn stop_within(self, deadline: Duration) -> Verdict {
        let stop = functions::<O>().stop.expect("the SDK offers stop");
        let token = self.host.issue(Vec::new());
        // SAFETY: the instance lives as long as `self`.
        let status = unsafe { stop(self.instance, deadline.as_millis() as u64, token) };
        self.first_verdict(token, status)
    }

    /// What the output has logged so far.
    pub fn logs(&self) -> Vec<LogRecord> {
        self.host.logs()
    }

    /// Highest level that the daemon writes from now on, `TW_LEVEL_*`. Everything, where nothing is said.
    pub fn set_log_level(&self, level: tw_level) {
        self.host.set_log_level(level);
    }

    /// Value of a metric, with its labels as `name{key="value"}`; 0 where it was never recorded.
    pub fn metric(&self, name: &str) -> f64 {
        self.host.metric(name)
    }

    /// How often a token was completed that was not open any more: must be 0.
    pub fn late_completions(&self) -> u64 {
        self.host.late_completions()
    }
}

impl<O: Output> Drop for Harness<O> {
    fn drop(&mut self) {
        let destroy = functions::<O>().destroy.expect("the SDK offers destroy");
        // SAFETY: from `create`, and nobody uses it after this.
        unsafe { destroy(self.instance) };
    }
}
