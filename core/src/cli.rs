//! The command line: what can be asked of the binary, and its exit codes. One file per subcommand.

pub mod admin_client;
pub mod check;
pub mod dead_letters;
pub mod inspect;
pub mod offline;
pub mod operate;
pub mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::log::{self, LogFormat};

/// Exit code for a config or a command line that cannot be used (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// Tails one MongoDB change stream and delivers every event to any number of outputs.
#[derive(Debug, Parser)]
#[command(name = "tailwater", version, arg_required_else_help = true)]
pub struct Cli {
    /// Shape of the log on stderr.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// error, warn, info, debug, trace, or a filter such as tailwater=debug,mongodb=warn.
    #[arg(long, global = true, env = "TAILWATER_LOG", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deliver, until SIGTERM or SIGINT.
    Run(ConfigFile),
    /// Check the config, the plugins and their options, without contacting MongoDB.
    Check(check::CheckArgs),
    /// What every output of the running daemon is doing.
    Status(operate::StatusArgs),
    /// Pause and resume outputs.
    Output {
        /// What to do with one.
        #[command(subcommand)]
        command: operate::OutputCommand,
    },
    /// Look at the durable places of outputs, and move them.
    Checkpoint {
        /// What to do.
        #[command(subcommand)]
        command: operate::CheckpointCommand,
    },
    /// Deliver the documents that exist to an output, then go on where it was.
    Snapshot(operate::SnapshotArgs),
    /// Look at events that could not be delivered, deliver them again, or drop them.
    DeadLetters {
        /// What to do with them.
        #[command(subcommand)]
        command: dead_letters::Command,
    },
    /// Look at plugins.
    Plugin {
        /// What to do with one.
        #[command(subcommand)]
        command: PluginCommand,
    },
}

/// Where the config is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The config file.
    #[arg(long, value_name = "FILE", default_value = "config.toml")]
    pub config: PathBuf,
}

/// `tailwater plugin …`
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Show what a plugin library says of itself: version, capabilities, options.
    Inspect {
        /// The library, libtailwater_NAME.so.
        file: PathBuf,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// What is left to do after the command line was read.
pub enum Next {
    /// Nothing: the command is done.
    Exit(ExitCode),
    /// The daemon runs with this config. The log is set up.
    Run {
        /// What the file says.
        config: Box<Config>,
        /// The file, to be read again at SIGHUP.
        path: PathBuf,
    },
}

/// Reads the command line of this process and does everything but `run`. What went wrong is on stderr.
pub fn begin() -> Next {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed stderr.
            let _ = error.print();
            return Next::Exit(if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS });
        }
    };
    match cli.command {
        Command::Run(ConfigFile { config: path }) => {
            let config = match Config::load(&path) {
                Ok(config) => config,
                Err(error) => return Next::Exit(refuse(&error)),
            };
            match log::init(cli.log_format, &cli.log_level) {
                Ok(()) => Next::Run { config: Box::new(config), path },
                Err(error) => Next::Exit(refuse(&error)),
            }
        }
        Command::Check(args) => Next::Exit(check::check(&args)),
        Command::Status(args) => Next::Exit(operate::status(&args)),
        Command::Output { command } => Next::Exit(operate::output(&command)),
        Command::Checkpoint { command } => Next::Exit(operate::checkpoint(&command)),
        Command::Snapshot(args) => Next::Exit(operate::snapshot(&args)),
        Command::DeadLetters { command } => Next::Exit(dead_letters::dead_letters(&command)),
        Command::Plugin { command: PluginCommand::Inspect { file, json } } => Next::Exit(inspect::inspect(&file, json)),
    }
}

/// Says what cannot be used, and gives the exit code for it.
fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("tailwater: {error}");
    ExitCode::from(EXIT_USAGE)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["tailwater", "run", "--log-format", "json"]).unwrap();
        assert_eq!(cli.log_format, LogFormat::Json);
        let Command::Run(file) = cli.command else { panic!("not run") };
        assert_eq!(file.config, PathBuf::from("config.toml"));
    }
}
