//! Integration tests: the real daemon against a real mongod, one fault or feature per file.

mod backlog;
mod broken_libraries;
mod browser_full;
mod browser_live;
mod browser_origins;
mod browser_reset;
mod browser_restart;
mod browser_topics;
mod c_plugin;
mod config_errors;
mod delivery;
mod documents;
mod example_plugin;
mod examples;
mod first_run;
mod harness;
mod harness_parts;
mod idle_positions;
mod kill_loop;
mod kill_loop_outputs;
mod plugin_faults;
mod pusher_rate;
mod rates_and_order;
mod reconnect;
mod restart_match;
mod restart_transaction;
mod scopes;
mod slow_output;
mod source_errors;
mod sse_faults;
mod sse_restart;
mod start_faults;
mod starts;
mod tidy;
mod webhook_down;
mod webhook_signatures;

#[path = "../receivers/changes.rs"]
mod changes;
#[path = "../receivers/http.rs"]
mod http;
#[path = "../receivers/limited.rs"]
mod limited_receiver;
#[path = "../receivers/pusher.rs"]
mod pusher_receiver;
#[path = "../receivers/webhook.rs"]
mod webhook_receiver;
