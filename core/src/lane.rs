//! One output: order, batch, rate, retry, verdict, settle.
pub mod config;
