//! Integration tests: the real daemon against a real mongod, one fault or feature per file.

mod broken_libraries;
mod c_plugin;
mod config_errors;
mod delivery;
mod documents;
mod example_plugin;
mod examples;
mod first_run;
mod harness;
mod idle_positions;
mod kill_loop;
mod plugin_faults;
mod rates_and_order;
mod reconnect;
mod restart_match;
mod restart_transaction;
mod scopes;
mod slow_output;
mod source_errors;
mod start_faults;
mod starts;
mod tidy;
