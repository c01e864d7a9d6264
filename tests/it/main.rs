//! Integration tests: the real daemon against a real mongod, one fault or feature per file.

mod broken_libraries;
mod c_plugin;
mod config_errors;
mod delivery;
mod harness;
mod kill_loop;
mod plugin_faults;
mod restart_match;
mod restart_transaction;
mod tidy;
