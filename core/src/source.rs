//! The source: one change stream for all outputs, read into the window. Knows no outputs and no disk.

pub mod config;
pub mod connect;
pub mod error;
pub mod health;
pub mod metrics;
pub mod oplog;
pub mod place;
pub mod scope;
pub mod split;
pub mod stream;
pub mod token;
pub mod unsupported;

use std::sync::Arc;

use mongodb::Client;
use tokio::sync::watch;

use crate::source::config::Config;
use crate::source::error::SourceError;
use crate::source::metrics::SourceMetrics;
use crate::source::split::splits;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::unsupported::refuse_unsupported;
use crate::window::Window;

/// What all streams on this deployment are opened with, without a filter: as configured, and as the server can.
///
/// # Errors
/// [`SourceError::Refused`] when something is watched that has no change events; what keeps the server from answering.
pub async fn prepare(client: Client, source: &Config) -> Result<StreamOptions, SourceError> {
    refuse_unsupported(&client, &source.watch).await?;
    let options = StreamOptions::new(client, source);
    Ok(StreamOptions { splits: splits(&options).await?, ..options })
}

/// Reads the stream into the window until told to stop or until it cannot go on.
///
/// # Errors
/// What no reopening mends; see [`SourceError`]. After [`SourceError::HistoryLost`] it takes a stream
/// [restarted](ChangeStream::restart_at) at the [oldest place there is](oplog::oldest_available), and a window that begins there.
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
