//! The source: one change stream for all outputs, read into the window. Knows no outputs and no disk.

pub mod config;
pub mod connect;
pub mod error;
pub mod health;
pub mod metrics;
pub mod oplog;
pub mod place;
pub mod pump;
pub mod scope;
pub mod split;
pub mod stream;
pub mod token;
pub mod unsupported;

use mongodb::Client;

use crate::source::config::Config;
use crate::source::error::SourceError;
use crate::source::split::splits;
use crate::source::stream::StreamOptions;
use crate::source::unsupported::refuse_unsupported;

/// What all streams on this deployment are opened with, without a filter: as configured, and as the server can.
///
/// # Errors
/// [`SourceError::Refused`] when something is watched that has no change events; what keeps the server from answering.
pub async fn prepare(client: Client, source: &Config) -> Result<StreamOptions, SourceError> {
    refuse_unsupported(&client, &source.watch).await?;
    let options = StreamOptions::new(client, source);
    Ok(StreamOptions { splits: splits(&options).await?, ..options })
}
