//! Output plugin `null`: acknowledges each batch at once without looking at it, so that a benchmark measures the daemon alone.

use tailwater_sdk::{Batch, Context, DeliverError, Output, StartError};

/// There is nothing to choose.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// Acknowledges everything.
pub struct Null;

impl Output for Null {
    type Options = Options;
    const SUMMARY: &'static str = "Acknowledges everything at once without looking; for benchmarks.";
    const BATCH_EVENTS_MAX: u32 = 1000;

    async fn start(_: Options, _: Context) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn deliver(&self, _: &Batch) -> Result<(), DeliverError> {
        Ok(())
    }
}

tailwater_sdk::export_output!(Null);
