//! Output plugin `faulty`: writes what it acknowledges to a file, and misbehaves on request. Only for tests.

mod config;
mod meddler;
mod output;

use std::sync::OnceLock;

use tailwater_sdk::{Descriptor, abi, entry};

pub use config::{Mode, Options};
pub use output::Faulty;

/// What this library is. Not `export_output!`: some faults lie below what the SDK lets an author do, see `meddler.rs`.
#[unsafe(no_mangle)]
pub extern "C" fn tailwater_plugin_v0() -> *const abi::tw_plugin {
    static DESCRIPTOR: OnceLock<Descriptor> = OnceLock::new();
    entry(&DESCRIPTOR, || meddler::descriptor(tailwater_sdk::package!()))
}
