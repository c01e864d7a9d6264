//! The library's own tokio runtime. A cdylib has its own copy of tokio's thread-locals, so it can never use the daemon's.

use std::{io, sync::Mutex};

use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// At most this many threads wait in blocking calls (file writes, name lookups); more wait for their turn.
const BLOCKING_THREADS_MAX: usize = 64;

/// The runtime, started on first use and never stopped: its threads live as long as the process, as the library does.
/// One worker, not tokio's default of one per CPU: ten plugins on 64 cores would be 640 threads.
pub(crate) fn runtime(plugin: &str) -> io::Result<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    let started = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name(format!("tw-{plugin}"))
        .enable_all()
        .build()?;
    Ok(runtime.insert(started).handle().clone())
}
