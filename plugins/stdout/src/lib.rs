//! Output plugin `stdout`: each event as one line of JSON, to standard output or to a file.

mod config;
mod lines;
mod output;

pub use config::{Fsync, Options};
pub use output::Stdout;

tailwater_sdk::export_output!(Stdout);
