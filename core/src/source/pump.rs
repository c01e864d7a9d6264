//! The pump: reads the shared stream into the window. Never waits for a lane; knows no outputs and no disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::source::connect::cluster_time;
use crate::source::error::SourceError;
use crate::source::metrics::SourceMetrics;
use crate::source::place::Place;
use crate::source::stream::ChangeStream;
use crate::source::token::Timestamp64;
use crate::window::{Coverage, Window};

/// For the cluster time, when the shared stream has lost its history.
const ASK_AGAIN: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(10) };

/// A stream with another filter to go over to: already open, at or before the place the pump is at.
pub struct Switch {
    /// Nothing was read from it yet. `None`: the one that is read has the right filter already.
    pub stream: Option<ChangeStream>,
    /// What its filter is for.
    pub coverage: Coverage,
    /// Told once it is the stream that is read.
    pub done: oneshot::Sender<()>,
}

/// Reads the stream into the window until told to stop or until it cannot go on.
///
/// When the oplog no longer reaches back to where the stream broke, it goes on at now: each lane finds by itself what it has missed,
/// and does what its `history_lost` says.
///
/// # Errors
/// What no reopening mends; see [`SourceError`].
pub async fn pump(
    mut stream: ChangeStream,
    window: Arc<Window>,
    metrics: SourceMetrics,
    mut stop: watch::Receiver<bool>,
    mut switches: mpsc::Receiver<Switch>,
) -> Result<(), SourceError> {
    loop {
        // A read that is dropped here loses nothing, also where the same stream is read on.
        let batch = tokio::select! {
            batch = stream.next() => batch,
            Some(switch) = switches.recv() => {
                if let Some(other) = switch.stream {
                    let (place, health) = (stream.place().clone(), stream.take_health());
                    stream = other;
                    stream.continue_from(place);
                    stream.set_health(health);
                    info!("the shared stream is read with another filter now");
                }
                window.refilter(switch.coverage);
                // Who asked may have gone.
                let _ = switch.done.send(());
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        match batch {
            Ok(batch) => {
                metrics.read(&batch);
                window.push(batch.events, batch.reached);
            }
            Err(lost @ SourceError::HistoryLost { .. }) => {
                error!("{lost}; the shared stream goes on at now, outputs that were behind find out for themselves");
                let floor = after_now(&stream).await;
                stream.restart_at(floor.clone());
                window.restart(floor);
            }
            Err(error) => return Err(error),
        }
        let (events, bytes) = window.size();
        metrics.window(events, bytes);
    }
}

/// Asks until the server answers: a deployment that is away for a moment is no reason to end.
async fn after_now(stream: &ChangeStream) -> Place {
    let mut failures = 0;
    loop {
        match cluster_time(stream.client()).await {
            Ok(now) => return Place::From(Timestamp64(now.0 + 1)),
            Err(error) => {
                failures += 1;
                let wait = ASK_AGAIN.delay(failures, rand::random());
                warn!(?wait, "{error}; asking again");
                tokio::time::sleep(wait).await;
            }
        }
    }
}
