//! One loaded plugin: found, verified, started, and given batches. All `unsafe` of this crate is in here.
//!
//! Knows nothing of lanes, positions or MongoDB: it turns events into the C border's structs and completions into verdicts.
//!
//! Reading order: `loader` finds a library and `descriptor` verifies it, `instance` is its life, `commands`
//! what waits for it, `batch` what it is given, `tokens` what it owes, `host` what it may call, `verdict` what it answers.

pub(crate) mod batch;
mod commands;
pub mod config;
pub(crate) mod descriptor;
mod elf;
pub(crate) mod host;
pub(crate) mod instance;
pub(crate) mod loader;
pub(crate) mod metrics;
pub(crate) mod options;
pub(crate) mod port;
mod process;
mod text;
pub(crate) mod tokens;
pub(crate) mod verdict;

pub use batch::Delivered;
pub use descriptor::{Descriptor, Refusal};
pub use instance::{Instance, Progress, StartError};
pub use loader::{Library, LoadError, default_dir};
pub use metrics::register_metrics;
pub use options::OptionsError;
pub use port::Port;
pub use process::{bound_allocator, end_process};
pub use verdict::{Outcome, Verdict, Verdicts};

#[cfg(test)]
mod tests;
