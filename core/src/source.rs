//! The change stream: open, resume, split, pushdown.
pub mod config;
