//! Where each output begins, and where the stream they share is opened.

use std::time::Duration;

use tracing::info;

use crate::checkpoint::Store;
use crate::config::Config;
use crate::output::PreparedOutput;
use crate::pipeline::PipelineError;
use crate::source::config::Start;
use crate::source::connect::Deployment;
use crate::source::place::Place;
use crate::source::token::Timestamp64;

/// Outputs this close to the newest one share its stream from the start; those further behind begin in catch-up.
const TOGETHER: Duration = Duration::from_secs(30);

/// Where an output begins.
pub(super) struct FirstPlace {
    /// What is still to come begins here.
    pub place: Place,
    /// It is an output's checkpoint already.
    pub stored: bool,
}

/// At the output's checkpoint, or at `source.start`.
pub(super) async fn first_place(
    output: &PreparedOutput,
    store: &Store,
    config: &Config,
    deployment: &Deployment,
) -> Result<FirstPlace, PipelineError> {
    let name = &output.config.name;
    let after_now = Place::From(Timestamp64(deployment.now.0 + 1));
    if output.library.descriptor().broadcast {
        return Ok(FirstPlace { place: after_now, stored: false });
    }
    if let Some(place) = store.load(name).await? {
        info!(output = name, %place, "going on at the checkpoint");
        return Ok(FirstPlace { place, stored: true });
    }
    let place = match &config.source.start {
        Start::Now => after_now,
        Start::Time { seconds } => Place::From(Timestamp64(u64::from(*seconds) << 32)),
        Start::Event { id } => Place::AfterId(*id),
    };
    let ahead = place.time().seconds().saturating_sub(deployment.now.seconds() + 1);
    if ahead > 0 {
        return Err(PipelineError::StartInFuture { seconds: ahead });
    }
    info!(output = name, %place, "no checkpoint yet, beginning at source.start");
    Ok(FirstPlace { place, stored: false })
}

/// The oldest place within [`TOGETHER`] of the newest.
pub(super) fn shared_place(places: &[FirstPlace]) -> Place {
    let newest = places.iter().map(|first| first.place.time().seconds()).max().unwrap_or(0);
    let near = newest.saturating_sub(TOGETHER.as_secs() as u32);
    let oldest = places
        .iter()
        .map(|first| &first.place)
        .filter(|place| place.time().seconds() >= near)
        .reduce(|oldest, place| if oldest.is_covered_since(place) { place } else { oldest });
    oldest.cloned().unwrap_or(Place::From(Timestamp64(1)))
}
