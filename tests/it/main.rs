//! Integration tests: the real daemon against a real mongod, one fault or feature per file.

mod broken_libraries;
mod browser_full;
mod browser_live;
mod browser_origins;
mod browser_reset;
mod browser_restart;
mod browser_topics;
mod busy_loop;
mod c_plugin;
mod config_errors;
mod delivery;
mod documents;
mod election;
mod example_plugin;
mod examples;
mod first_run;
mod half_open;
mod harness;
mod harness_parts;
mod idle_positions;
mod kill_loop;
mod kill_loop_outputs;
mod large_events;
mod oplog_window;
mod plugin_faults;
mod pusher_rate;
mod rates_and_order;
mod reconnect;
mod restart_match;
mod restart_transaction;
mod scopes;
mod slow_output;
mod source_errors;
mod split_events;
mod sse_faults;
mod sse_restart;
mod start_faults;
mod starts;
mod takeover;
mod tidy;
mod too_large;
mod unsupported;
mod webhook_down;
mod webhook_signatures;

#[path = "../receivers/http.rs"]
mod http;
#[path = "../receivers/pusher.rs"]
mod pusher_receiver;
#[path = "../receivers/webhook.rs"]
mod webhook_receiver;
