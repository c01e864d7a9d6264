//! Tailwater tails one MongoDB change stream and delivers every event to any number of outputs.

pub mod event;
pub mod source;
