//! Integration tests: the real daemon against a real mongod, one fault or feature per file.

mod backlog;
mod broken_libraries;
mod browser_full;
mod browser_live;
mod browser_origins;
mod browser_reset;
mod browser_restart;
mod browser_topics;
mod busy_loop;
mod c_plugin;
mod catch_up_match;
mod catch_up_sharing;
mod catch_up_turns;
mod check_explain;
mod config_errors;
mod dead_letter_commands;
mod dead_letter_faults;
mod dead_letter_replay;
mod dead_letter_standby;
mod dead_letter_store;
mod dead_letter_unfinished;
mod dead_letters;
mod delivery;
mod documents;
mod election;
mod example_plugin;
mod examples;
mod expensive_patterns;
mod first_run;
mod half_open;
mod harness;
mod harness_parts;
mod history_lost;
mod idle_positions;
mod kill_loop;
mod kill_loop_outputs;
mod lane_policies;
mod large_events;
mod lease_fencing;
mod lease_files;
mod lease_holders;
mod operate;
mod oplog_window;
mod plugin_faults;
mod projection;
mod pushdown;
mod pusher_rate;
mod rates_and_order;
mod reconnect;
mod reload;
mod restart_match;
mod restart_transaction;
mod scopes;
mod slow_output;
mod snapshot;
mod snapshot_command;
mod snapshot_reader;
mod snapshot_terminal;
mod source_errors;
mod split_events;
mod sse_faults;
mod sse_restart;
mod standby;
mod start_faults;
mod start_in_election;
mod starts;
mod storm;
mod takeover;
mod tidy;
mod too_large;
mod unsupported;
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
