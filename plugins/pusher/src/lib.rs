//! Output plugin `pusher`: each event to channels of Pusher, or of a server that speaks its HTTP API.

mod answer;
mod api;
mod config;
mod entry;
mod names;
mod output;
mod plan;
mod signature;
mod turns;

pub use config::{Options, Secret};
pub use output::Pusher;

tailwater_sdk::export_output!(Pusher);
