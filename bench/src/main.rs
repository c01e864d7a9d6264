//! The benchmarks. `cargo xtask bench` builds everything they need and starts this binary; `bare` is one of the contenders, a
//! process of its own.

mod arrivals;
mod backlog;
mod backlog_load;
mod backlog_plot;
mod backlog_report;
mod backlog_samples;
mod bare;
mod contender;
mod daemon;
mod event;
mod latency;
mod latency_report;
mod load;
mod mongod;
mod paced;
mod process;
mod report;
mod routing;
mod statistics;
mod stream;
mod tail;

#[path = "../../tests/receivers/changes.rs"]
mod changes;
#[path = "../../tests/receivers/http.rs"]
mod http;
#[path = "../../tests/receivers/limited.rs"]
mod limited_receiver;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Tailwater's benchmarks; start them with `cargo xtask bench`")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Speed, CPU and memory from the change stream to a plugin's acknowledgement, against bare loops
    Tail(tail::Arguments),
    /// From an insert to the client of an `sse` output, against a bare watcher
    Latency(latency::Arguments),
    /// A receiver that is limited and far behind beside one at full speed
    Backlog(backlog::Arguments),
    /// JSON, match and template of one event, against the same on a `bson::Document`
    Event(event::Arguments),
    /// 1, 10 and 100 outputs with a `match` each, with pushdown and without
    Routing(routing::Arguments),
    /// The bare loop: reads raw batches and counts their documents
    Bare(bare::Arguments),
}

fn main() -> anyhow::Result<()> {
    // One thread: the cheapest there is, and the harness must not compete with what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Arguments::parse().command {
        Command::Tail(arguments) => runtime.block_on(tail::run(arguments)),
        Command::Latency(arguments) => runtime.block_on(latency::run(arguments)),
        Command::Backlog(arguments) => runtime.block_on(backlog::run(arguments)),
        Command::Event(arguments) => event::run(&arguments),
        Command::Routing(arguments) => runtime.block_on(routing::run(arguments)),
        Command::Bare(arguments) => runtime.block_on(bare::run(arguments)),
    }
}

/// One line of progress, apart from the table.
fn progress(line: &str) {
    eprintln!("bench: {line}");
}
