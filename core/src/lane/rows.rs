//! The rows of a snapshot on their way into a lane, before the stream, and how far they are.

use std::time::{Duration, Instant};

use tracing::info;

use super::Lane;
use super::engine::effects::Taken;
use super::metrics::SkipReason;
use crate::snapshot::{Progress, SnapshotError, SnapshotReader};

/// Between two lines about progress in the log.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Waits until the reader has something; forever where there is none. Cancel-safe.
pub(super) async fn more(rows: &mut Option<SnapshotReader>) -> Result<(), SnapshotError> {
    match rows {
        Some(rows) => rows.more().await,
        None => std::future::pending().await,
    }
}

/// Rows settled, and rows expected: at least one while it is under way.
pub(crate) fn rows_of(progress: &Progress) -> (u64, u64) {
    (progress.rows_settled(), progress.total().max(1))
}

impl Lane {
    /// Rows come first: the stream begins when all of them are taken, and a later event of a document leaves after its row.
    pub(super) fn take_rows(&mut self) {
        let Some(rows) = &mut self.rows else { return };
        while self.engine.has_room() {
            let Some(read) = rows.try_next() else { break };
            self.waiting_since = None;
            match self.engine.take_read(read) {
                Taken::Filtered => _ = self.metrics.filtered.inc(),
                Taken::Superseded => self.metrics.skipped(SkipReason::Superseded, 1),
                Taken::Queued | Taken::TooOld => {}
            }
        }
        if self.rows.as_ref().is_some_and(SnapshotReader::is_done) {
            self.rows = None;
            info!(output = self.config.name, "every row of the snapshot is read, going on with the stream");
        }
    }

    /// Writes the gauges, and now and then a line.
    pub(super) fn tell_rows(&mut self, now: Instant) {
        let (settled, total) = self.engine.settle().snapshot().map_or((0, 0), rows_of);
        self.metrics.snapshot(settled, total);
        let output = &self.config.name;
        match (total > 0, self.rows_told) {
            (true, told) if told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY) => {
                self.rows_told = Some(now);
                info!(output, rows = settled, expected = total, "snapshot");
            }
            (false, Some(_)) => {
                self.rows_told = None;
                info!(output, "snapshot done: every row is settled");
            }
            _ => {}
        }
    }
}
