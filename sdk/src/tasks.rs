//! The tasks of one instance: counted, so that `stop` can wait for the deliveries and `destroy` for all of them.
//! `destroy` may only return when no task of the instance is left, or a task would run over freed memory.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    task::{self, Poll},
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    task::{AbortHandle, JoinHandle},
};
use tracing::{Dispatch, dispatcher};

/// What a task is to the instance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Holds a batch: `stop` waits for it.
    Delivery,
    /// Anything else.
    Background,
}

/// Everything of one instance that runs on the library's runtime.
pub(crate) struct Tasks {
    runtime: Handle,
    log: Dispatch,
    state: Mutex<State>,
    /// With `state`: no task is left.
    empty: Condvar,
    /// No delivery is left.
    settled: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    /// No handle: work on a blocking thread, which cannot be aborted.
    running: HashMap<u64, Option<AbortHandle>>,
    deliveries: usize,
    /// Nothing may be spawned any more.
    closed: bool,
}

impl Tasks {
    pub(crate) fn new(runtime: Handle, log: Dispatch) -> Arc<Self> {
        Arc::new(Self { runtime, log, state: Mutex::default(), empty: Condvar::new(), settled: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing of the author's runs under this lock, and each change under it is complete by itself.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Runs `work` here and now with this instance's log and runtime as the current ones.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.enter();
        dispatcher::with_default(&self.log, work)
    }

    /// False where the instance is ending: `future` was dropped without being polled.
    pub(crate) fn spawn(self: &Arc<Self>, kind: Kind, future: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        let running = self.register(&mut state, kind);
        let number = running.number;
        let task = Tracked { future: Some(Box::pin(future)), running };
        // Under the lock, so that the task cannot end before its handle is kept.
        let handle = self.runtime.spawn(task).abort_handle();
        state.running.insert(number, Some(handle));
        true
    }

    /// `None` where the instance is ending.
    pub(crate) fn spawn_blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        let running = self.register(&mut state, Kind::Background);
        let log = self.log.clone();
        Some(self.runtime.spawn_blocking(move || {
            // Declared before `work` is called, so that it goes last, also when `work` panics.
            let _running = running;
            dispatcher::with_default(&log, work)
        }))
    }

    fn register(self: &Arc<Self>, state: &mut State, kind: Kind) -> Running {
        let number = state.next;
        state.next += 1;
        state.running.insert(number, None);
        state.deliveries += usize::from(kind == Kind::Delivery);
        Running { tasks: self.clone(), number, kind }
    }

    /// Waits until no delivery is left.
    pub(crate) async fn deliveries_ended(&self) {
        loop {
            // Before the look: a delivery that ends in between still wakes this.
            let settled = self.settled.notified();
            if self.state().deliveries == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Aborts every task and waits until none is left. Work on blocking threads ends when it ends.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.closed = true;
        let handles: Vec<AbortHandle> = state.running.values().flatten().cloned().collect();
        drop(state);
        // Without the lock: aborting an idle task drops it here, and that takes the lock.
        for handle in handles {
            handle.abort();
        }
        let mut state = self.state();
        while !state.running.is_empty() {
            state = self.empty.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

/// Held by each task; what is not held any more has left nothing behind.
struct Running {
    tasks: Arc<Tasks>,
    number: u64,
    kind: Kind,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.tasks.state();
        state.running.remove(&self.number);
        if self.kind == Kind::Delivery {
            state.deliveries -= 1;
            if state.deliveries == 0 {
                self.tasks.settled.notify_waiters();
            }
        }
        if state.running.is_empty() {
            self.tasks.empty.notify_all();
        }
    }
}

/// A future with its instance's log as the current one, gone with all it owns before its `Running` is.
struct Tracked<F> {
    future: Option<Pin<Box<F>>>,
    running: Running,
}

impl<F: Future<Output = ()>> Future for Tracked<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        dispatcher::with_default(&this.running.tasks.log, || future.as_mut().poll(cx))
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        dispatcher::with_default(&self.running.tasks.log, || self.future = None);
    }
}
