//! The source: one change stream for all outputs, read into the window. Knows no outputs and no disk.

pub mod config;
pub mod connect;
pub mod error;
pub mod health;
pub mod metrics;
pub mod place;
pub mod scope;
pub mod stream;
pub mod token;

use std::sync::Arc;

use tokio::sync::watch;

use crate::source::error::SourceError;
use crate::source::metrics::SourceMetrics;
use crate::source::stream::ChangeStream;
use crate::window::Window;

/// Reads the stream into the window until told to stop or until it cannot go on.
///
/// # Errors
/// What no reopening mends; see [`SourceError`].
pub async fn pump(
    mut stream: ChangeStream,
    window: Arc<Window>,
    metrics: SourceMetrics,
    mut stop: watch::Receiver<bool>,
) -> Result<(), SourceError> {
    loop {
        // A read that is dropped here is never continued, so its cancellation costs nothing.
        let batch = tokio::select! {
            batch = stream.next() => batch?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        metrics.read(&batch);
        window.push(batch.events, batch.reached);
        let (events, bytes) = window.size();
        metrics.window(events, bytes);
    }
}
