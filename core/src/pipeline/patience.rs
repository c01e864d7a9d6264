//! A start that meets an election, or a connection that is cut, waits for its end: it is no reason to end the daemon, whose supervisor
//! would only start it again.

use std::time::{Duration, Instant};

use tracing::warn;

use super::PipelineError;
use crate::backoff::Backoff;
use crate::checkpoint::CheckpointError;
use crate::dead_letters::DeadLetterError;
use crate::lease::LeaseError;
use crate::snapshot::SnapshotError;
use crate::source::error::SourceError;

/// Longer than any election, shorter than an operator's patience with a daemon that does not come up.
const PATIENCE: Duration = Duration::from_secs(60);

const AGAIN: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(5) };

/// Attempts until one succeeds, or fails for good, or [`PATIENCE`] is over.
pub(super) async fn patiently<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    let began = Instant::now();
    let mut failures = 0;
    loop {
        match attempt().await {
            Err(error) if error.is_passing() && began.elapsed() < PATIENCE => {
                failures += 1;
                let wait = AGAIN.delay(failures, rand::random());
                warn!(?wait, "{error}; trying again");
                tokio::time::sleep(wait).await;
            }
            done => return done,
        }
    }
}

impl PipelineError {
    /// Whether a retry helps.
    fn is_passing(&self) -> bool {
        match self {
            PipelineError::Source(error) => matches!(error, SourceError::Passing { .. } | SourceError::Unreachable(_)),
            PipelineError::Checkpoint(error) => matches!(error, CheckpointError::MongoDb { passing: true, .. }),
            PipelineError::Lease(error) => {
                matches!(error, LeaseError::MongoDb { passing: true, .. } | LeaseError::NoAnswer { .. })
            }
            PipelineError::DeadLetters(error) => match error {
                DeadLetterError::MongoDb { denied, .. } => !denied,
                DeadLetterError::InUse { .. } => true,
                _ => false,
            },
            PipelineError::Snapshot(error) => matches!(error, SnapshotError::Passing { .. }),
            _ => false,
        }
    }
}
