//! The bounded ring of recent events.
pub mod config;
