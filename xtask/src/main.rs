//! The project's own commands. `cargo xtask test` gets what the tests need and runs all of them.

mod mongod;
mod tests;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get what the tests need (mongod, compilers for C and C++) and run all of them
    Test {
        /// Run only the tests whose name contains this
        #[arg(long)]
        filter: Option<String>,
    },
    /// Print the path of the mongod the tests use, after fetching it where there is none
    Mongod,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Test { filter } => tests::run(filter.as_deref()),
        Command::Mongod => {
            println!("{}", mongod::find_or_fetch()?.display());
            Ok(())
        }
    }
}

/// One line of progress, apart from the output that scripts read.
fn progress(line: &str) {
    eprintln!("xtask: {line}");
}
