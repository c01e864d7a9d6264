//! What a lane does when MongoDB no longer has what it needs: finds out how far back the oplog still reaches, and then stops or goes
//! over the gap, as `history_lost` says. Never a silent restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::Lane;
use super::config::HistoryLost;
use crate::event::gap;
use crate::source::error::SourceError;
use crate::source::oplog::{OplogWindow, oldest_available, oplog_window};
use crate::source::place::Place;
use crate::source::stream::StreamOptions;

/// For finding out how far back the oplog reaches. After that the oplog's first entry is taken without proof, or it is asked again.
const LOOK_MAX: Duration = Duration::from_secs(120);

/// A look at what is left, while the lane goes on settling what it has.
pub(super) struct Look {
    /// In the server's words.
    error: String,
    task: JoinHandle<Left>,
}

/// What is left of the oplog.
pub(super) struct Left {
    error: String,
    oldest: Result<Place, String>,
    window: Option<OplogWindow>,
}

/// Waits for a look; forever where there is none. Cancel-safe.
pub(super) async fn found(look: &mut Option<Look>) -> Left {
    let Some(open) = look else { return std::future::pending().await };
    let left = (&mut open.task).await;
    let error = std::mem::take(&mut open.error);
    *look = None;
    match left {
        Ok(left) => Left { error, ..left },
        Err(failed) => Left { error, oldest: Err(failed.to_string()), window: None },
    }
}

fn look(error: String, options: StreamOptions) -> Look {
    let task = tokio::spawn(async move {
        loop {
            let window = tokio::time::timeout(LOOK_MAX, oplog_window(&options.client)).await.ok().and_then(Result::ok);
            let oldest = match (tokio::time::timeout(LOOK_MAX, oldest_available(&options)).await, window) {
                (Ok(Ok(place)), _) => Ok(place),
                (Ok(Err(error)), _) => Err(error.to_string()),
                // Should it be lost before it is read, that is found out like this time.
                (Err(_), Some(window)) => Ok(window.near_oldest()),
                (Err(_), None) => {
                    warn!("the server did not tell within {LOOK_MAX:?} how far back the oplog reaches, asking again");
                    continue;
                }
            };
            return Left { error: String::new(), oldest, window };
        }
    });
    Look { error, task }
}

impl Lane {
    /// The stream this lane catches up on cannot go on.
    pub(super) fn on_source_error(&mut self, error: SourceError) {
        match error {
            SourceError::HistoryLost { error, .. } => {
                let Some(options) = self.intake.options() else { return self.stop(&error) };
                self.look = Some(look(error, options));
            }
            error => self.stop(&error.to_string()),
        }
    }

    /// It is known now what is left.
    pub(super) fn on_left(&mut self, left: Left) {
        let Left { error, oldest, window } = left;
        let from = self.engine.settle().read_to().clone();
        let lost = describe(&from, window.as_ref(), &error);
        // The clients of a broadcast carry their positions, and are told from where on they can go on.
        let resumes = self.config.history_lost == HistoryLost::Resume || self.broadcast.is_some();
        if !resumes {
            let advice = "enlarge the oplog; then set history_lost = \"resume\" to go on with a gap, or move it with tailwater \
                          checkpoint set";
            return self.stop(&format!("{lost}; {advice}"));
        }
        let to = match oldest {
            Ok(place) => place,
            Err(reason) => return self.stop(&format!("{lost}; no place to go on at was found: {reason}")),
        };
        error!(output = self.config.name, %from, %to, "{lost}; going on at the oldest place there is");
        self.metrics.gaps.inc();
        if self.broadcast.is_some() {
            self.engine.pass(to.clone());
            // The new instance vouches only for what it is given: clients from before are told to begin anew.
            self.replace_instance(super::FaultKind::Failed, "its history is lost");
        } else {
            match gap::event(from.time(), to.time()) {
                Ok(event) => {
                    let is_kept = self.burial.is_there();
                    self.engine.take_gap(Arc::new(event), lost, to.clone(), is_kept);
                }
                Err(error) => return self.stop(&format!("{lost}; {error}")),
            }
            if !self.burial.is_there() {
                warn!(output = self.config.name, "the gap is in no dead letter: this output has no store for them");
            }
        }
        self.intake.begin_at(&to);
    }
}

/// How far behind what is left the place is, as far as that is known.
fn describe(place: &Place, window: Option<&OplogWindow>, error: &str) -> String {
    let position = place.time().seconds();
    let span = |seconds: u32| format!("{:?}", Duration::from_secs(u64::from(seconds)));
    let reach = match window {
        Some(window) => format!(
            "its oldest entry is {} newer, and it holds {} in all",
            span(window.oldest.seconds().saturating_sub(position)),
            span(window.newest.seconds().saturating_sub(window.oldest.seconds()))
        ),
        None => "how far it reaches is not known, the user may not read local.oplog.rs".to_owned(),
    };
    format!("history lost: the oplog no longer reaches back to {place}, {reach} ({error})")
}
