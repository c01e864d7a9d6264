//! One loaded plugin.
pub mod config;
