//! Health, metrics and their configuration.
pub mod config;
pub mod metrics;
pub mod readiness;
