//! Tailwater tails one MongoDB change stream and delivers every event to any number of outputs.

pub mod admin;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod event;
pub mod lane;
pub mod log;
pub mod plugin;
pub mod source;
pub mod window;
