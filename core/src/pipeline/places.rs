//! Where an output without a checkpoint begins, and where the stream they share is opened.

use std::time::Duration;

use tracing::info;

use crate::pipeline::PipelineError;
use crate::pipeline::begin::FirstPlace;
use crate::source::config::Start;
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;

/// Outputs this close to the newest one share its stream from the start; those further behind begin in catch-up.
const TOGETHER: Duration = Duration::from_secs(30);

/// A history is proved to be there for this much more than it is to have, and an eighth of it.
const PROOF_SECONDS: u32 = 10;

/// `source.start` as a place, where the deployment's cluster time is `now`.
pub(super) fn start_place(start: &Start, now: Timestamp64) -> Result<Place, PipelineError> {
    let place = match start {
        Start::Now | Start::Snapshot => Place::From(Timestamp64(now.0 + 1)),
        Start::Time { seconds } => Place::From(Timestamp64(u64::from(*seconds) << 32)),
        Start::Event { id } => Place::AfterId(*id),
    };
    let ahead = place.time().seconds().saturating_sub(now.seconds() + 1);
    if ahead > 0 {
        return Err(PipelineError::StartInFuture { seconds: ahead });
    }
    Ok(place)
}

/// Begins a broadcast output as long before `now` as its plugin wants to have history, or as far back as the oplog reaches.
pub(super) async fn go_back(
    first: &mut FirstPlace,
    output: &str,
    wanted: Duration,
    stream: &StreamOptions,
    now: Timestamp64,
) -> Result<(), PipelineError> {
    // Not before the first second: a stream cannot be opened at time zero.
    let ago = |seconds| {
        let from = now.seconds().saturating_sub(seconds).max(1);
        Place::From(Timestamp64(u64::from(from) << 32))
    };
    let mut seconds = u32::try_from(wanted.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX);
    while seconds > 0 {
        // Proved a little further back than where it begins: the oplog moves on until the lane opens its own stream there.
        let proof = ago(seconds.saturating_add(seconds / 8).saturating_add(PROOF_SECONDS));
        match ChangeStream::open(stream.clone(), proof.clone()).await {
            Ok(_) => {
                first.place = ago(seconds);
                info!(output, place = %first.place, "broadcast: history first");
                return Ok(());
            }
            Err(error @ SourceError::HistoryLost { .. }) => {
                // Halved, because the oplog's own first entry is nothing that a user of change streams may read.
                seconds /= 2;
                info!(output, ?wanted, "less history: the oplog does not reach back to {proof}: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The oldest place within [`TOGETHER`] of the newest; `now` where there is none.
pub(super) fn shared_place<'a>(places: impl Iterator<Item = &'a Place> + Clone, now: Place) -> Place {
    let newest = places.clone().map(|place| place.time().seconds()).max().unwrap_or(0);
    let near = newest.saturating_sub(TOGETHER.as_secs() as u32);
    let oldest = places
        .filter(|place| place.time().seconds() >= near)
        .reduce(|oldest, place| if oldest.is_covered_since(place) { place } else { oldest });
    oldest.cloned().unwrap_or(now)
}
