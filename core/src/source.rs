//! The change stream: open, resume, read. It knows no outputs and no disk.

pub mod config;
pub mod token;
