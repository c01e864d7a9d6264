//! Output plugin `webhook`: each event as a POST of its JSON, signed as Standard Webhooks 1.0.0 says.

mod config;
mod output;
mod policy;
mod signature;
mod target;
mod tries;

pub use config::{Masked, Options};
pub use output::Webhook;

tailwater_sdk::export_output!(Webhook);
