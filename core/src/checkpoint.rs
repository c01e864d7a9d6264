//! A resume token made durable.
pub mod config;
