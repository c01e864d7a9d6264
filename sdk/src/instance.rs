//! One output between `create` and `destroy`: what it is made of, and its functions as tasks on the library's runtime.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use tailwater_abi::*;

use crate::{
    Batch, Context, Output, Progress, StartError,
    batch::millis,
    host::Host,
    log,
    runtime::runtime,
    tasks::{Kind, Tasks},
};

/// Why there is no instance.
pub(crate) enum CreateError {
    /// The options are wrong: no second try can help.
    Options(String),
    /// The system refused what every instance needs: it may pass.
    System(String),
}

/// What a `tw_instance` pointer leads to.
pub(crate) struct Instance<O: Output> {
    context: Context,
    /// Kept as text: a `start` that asked for a retry may be called again.
    options_json: String,
    starting: AtomicBool,
    /// It panicked where that could not be said.
    broken: AtomicBool,
    output: OnceLock<Arc<O>>,
}

impl<O: Output> Instance<O> {
    pub(crate) fn create(host: Host, output: &str, options_json: &str, plugin: &str) -> Result<Arc<Self>, CreateError> {
        read_options::<O>(options_json).map_err(CreateError::Options)?;
        let runtime =
            runtime(plugin).map_err(|error| CreateError::System(format!("starting the plugin's threads: {error}")))?;
        log::install();
        log::instance_lives(host);
        let context = Context { host, output: output.into(), tasks: Tasks::new(runtime, log::dispatch_to(host)) };
        Ok(Arc::new(Self {
            context,
            options_json: options_json.to_owned(),
            starting: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            output: OnceLock::new(),
        }))
    }

    pub(crate) fn start(self: Arc<Self>, token: u64) -> tw_status {
        let (host, tasks) = (self.context.host, self.context.tasks.clone());
        if self.output.get().is_some() || self.starting.swap(true, Ordering::AcqRel) {
            return TW_E_INVALID;
        }
        let started = tasks.spawn(Kind::Background, async move {
            let result = match read_options::<O>(&self.options_json) {
                Ok(options) => caught(async { O::start(options, self.context.clone()).await }).await,
                Err(reason) => Ok(Err(StartError::fatal(reason))),
            };
            let (verdict, after, reason) = match result {
                Ok(Ok(output)) => {
                    // The first and only `set`: `starting` was taken above.
                    let _ = self.output.set(Arc::new(output));
                    (TW_ACK, None, String::new())
                }
                Ok(Err(StartError::Retry { after, reason })) => (TW_RETRY, after, reason),
                Ok(Err(StartError::Fatal { reason })) => (TW_FATAL, None, reason),
                Err(panic) => (TW_FAILED, None, panic),
            };
            self.starting.store(false, Ordering::Release);
            // Gone before the host hears of it: it may free the instance at once.
            drop(self);
            host.finish(token, verdict, millis(after), &reason);
        });
        if started { TW_OK } else { TW_E_INVALID }
    }

    pub(crate) fn deliver(&self, batch: *const tw_batch, token: u64) -> tw_status {
        // SAFETY: the host's promise on `deliver`: null, or valid until the token is completed.
        let Some(batch) = (unsafe { Batch::new(batch, token, self.context.host) }) else { return TW_E_INVALID };
        let Some(output) = self.output.get().cloned() else {
            batch.disown();
            return TW_E_INVALID;
        };
        if self.broken.load(Ordering::Acquire) {
            batch.finish_failed("the plugin panicked when it was told of its progress");
            return TW_OK;
        }
        // The task owns the batch: where it is refused or aborted, dropping the batch completes the token.
        self.context.tasks.spawn(Kind::Delivery, async move {
            match caught(output.deliver(&batch)).await {
                Ok(result) => batch.finish(result),
                Err(panic) => batch.finish_failed(&panic),
            }
        });
        TW_OK
    }

    /// Here and now, so that it stays in its place among the deliveries. There is no answer in which to say that it panicked: the
    /// next delivery fails, and the host makes a new instance.
    pub(crate) fn progress(&self, progress: Progress) -> tw_status {
        let Some(output) = self.output.get() else { return TW_E_INVALID };
        let told = catch_unwind(AssertUnwindSafe(|| self.context.tasks.enter(|| output.progress(progress))));
        let Err(payload) = told else { return TW_OK };
        // As in `caught`.
        std::mem::forget(payload);
        self.broken.store(true, Ordering::Release);
        TW_E_PANIC
    }

    pub(crate) fn stop(&self, deadline: Duration, token: u64) -> tw_status {
        let (host, tasks) = (self.context.host, self.context.tasks.clone());
        let output = self.output.get().cloned();
        let spawned = self.context.tasks.spawn(Kind::Background, async move {
            let ended = tokio::time::timeout(deadline, tasks.deliveries_ended()).await;
            let stopped = match &output {
                Some(output) => caught(output.stop()).await,
                None => Ok(()),
            };
            drop(output);
            match (stopped, ended) {
                (Err(panic), _) => host.finish(token, TW_FAILED, 0, &panic),
                (Ok(()), Err(_)) => host.finish(token, TW_FAILED, 0, "deliveries did not end within the time to stop"),
                (Ok(()), Ok(())) => host.finish(token, TW_ACK, 0, ""),
            }
        });
        if spawned { TW_OK } else { TW_E_INVALID }
    }

    /// Ends every task, then drops the author's object on this thread, the last one that knows of it.
    pub(crate) fn destroy(self: Arc<Self>) {
        let Context { host, tasks, .. } = self.context.clone();
        tasks.end();
        tasks.enter(|| {
            // Its `Drop` may panic, and the rest must still happen. The panic hook has logged it.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(self)));
        });
        log::instance_ended(host);
    }
}

/// The options as the author's type, checked by `validate`.
pub(crate) fn read_options<O: Output>(json: &str) -> Result<O::Options, String> {
    let options = serde_json::from_str::<O::Options>(json).map_err(|error| format!("reading the options: {error}"))?;
    O::validate(&options).map_err(|error| error.to_string())?;
    Ok(options)
}

/// Runs `future`; a panic in it becomes an error with its text.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    struct Caught<'a, F>(Pin<&'a mut F>);

    impl<F: Future> Future for Caught<'_, F> {
        type Output = Result<F::Output, String>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
            match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
                Ok(poll) => poll.map(Ok),
                Err(payload) => {
                    let text = format!("the plugin panicked: {}", log::payload_text(&*payload));
                    // Its own `Drop` could panic once more, and the panic hook has reported it.
                    std::mem::forget(payload);
                    Poll::Ready(Err(text))
                }
            }
        }
    }

    Caught(pin!(future)).await
}
