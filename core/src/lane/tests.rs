//! The pure heart of a lane against plain models over seeded interleavings; a failure prints its seed.

mod burial;
mod engine;
mod interleavings;
mod reader;
mod run;
mod schedule;
mod settings;
mod settle;
