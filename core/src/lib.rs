//! Tailwater tails one MongoDB change stream and delivers every event to any number of outputs.
//!
//! The modules in the order in which they are best read; `ARCHITECTURE.md` has the picture.

pub mod event;
pub mod source;
pub mod window;
pub mod lane;
pub mod plugin;
pub mod checkpoint;
pub mod output;
pub mod pipeline;
pub mod config;
pub mod admin;
pub mod log;
pub mod backoff;
