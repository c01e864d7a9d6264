//! Health, metrics and their configuration.
pub mod config;
