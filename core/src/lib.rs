//! Tailwater tails one MongoDB change stream and delivers every event to any number of outputs.
//!
//! The modules in the order in which they are best read; `ARCHITECTURE.md` has the picture.

pub mod admin;
pub mod backoff;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod event;
pub mod lane;
pub mod log;
pub mod output;
pub mod pipeline;
pub mod plugin;
pub mod snapshot;
pub mod source;
pub mod window;
