//! Output plugin `sse`: each event to any number of browsers as Server-Sent Events, resumed from memory by event id.
//!
//! A broadcast output: the daemon keeps no position for it, each client carries its own. `history` is what can be given again,
//! `hub` who is to get what, `server` how a request becomes a `client` of the hub and `stream` what it then receives.

mod client;
mod config;
mod frame;
mod history;
mod hub;
mod id;
mod output;
mod request;
mod server;
mod stream;

pub use config::{History, Options};
pub use output::Sse;

tailwater_sdk::export_output!(Sse);
