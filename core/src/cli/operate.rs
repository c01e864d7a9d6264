//! `tailwater output | checkpoint | snapshot | status`: what an operator asks the running daemon, over its admin port.
//!
//! Checkpoints can be looked at and moved without a daemon too: then this takes the lease, so that no instance starts in between.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin_client::{ClientError, Daemon, get, post};
use super::{EXIT_USAGE, offline};
use crate::config::{Config, ConfigError};
use crate::control::Target;

/// Between two looks at a snapshot that is watched.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `tailwater output …`
#[derive(Debug, Subcommand)]
pub enum OutputCommand {
    /// Drain an output and keep it from delivering, over restarts too.
    Pause {
        /// Its name in the config.
        output: String,
        /// Where it runs.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Let a paused or stopped output deliver again, from its checkpoint.
    Resume {
        /// Its name in the config.
        output: String,
        /// Where it runs.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `tailwater checkpoint …`
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Show the durable place of every output.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Where it runs.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Move an output: paused, or with no instance running.
    Set {
        /// Its name in the config.
        output: String,
        /// An event id (goes on behind it) or an RFC 3339 time (from it on).
        to: String,
        /// Where it runs.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Forget the place of an output: it begins at source.start again.
    Reset {
        /// Its name in the config.
        output: String,
        /// Where it runs.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `tailwater snapshot …`
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The output that gets the documents that exist.
    pub output: String,
    /// Only this collection, db.collection; may be repeated. All that is watched without it.
    #[arg(long = "collection", value_name = "DB.COLLECTION")]
    pub collections: Vec<String>,
    /// Do not wait for its end.
    #[arg(long)]
    pub detach: bool,
    /// Where it runs.
    #[command(flatten)]
    admin: AdminArgs,
}

/// `tailwater status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Where it runs.
    #[command(flatten)]
    admin: AdminArgs,
}

/// How to reach the running daemon.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The config file of the daemon: for its admin.listen, and to work on its checkpoints while it does not run.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin address of the running daemon, and no other way. Default: http://127.0.0.1:8081.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line or the config is wrong.
    #[error("{0}")]
    Usage(String),
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl AdminArgs {
    fn daemon(&self) -> Result<Daemon, Failure> {
        Ok(Daemon::of(self.admin.as_deref(), self.config.as_deref())?)
    }

    /// Of a daemon that a command cannot do without.
    fn url(&self) -> Result<String, Failure> {
        match self.daemon()?.url() {
            Some(url) => Ok(url.to_owned()),
            None => {
                Err(Failure::Usage("the config does not say where admin.listen is, name it with --admin".to_owned()))
            }
        }
    }

    /// Through the daemon that answers; where none does and none was named, on the store of the config.
    fn or_offline(
        &self,
        online: impl FnOnce(&str) -> Result<Value, ClientError>,
        offline: impl FnOnce(&Config) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        let daemon = self.daemon()?;
        if let Some(url) = daemon.url() {
            match online(url) {
                Err(error) if error.is_unreachable() && matches!(daemon, Daemon::Assumed(_)) => {}
                answer => return Ok(answer?),
            }
        }
        offline(&Config::load(self.config.as_deref().unwrap_or(Path::new("config.toml")))?)
    }
}

/// `tailwater output …`
pub fn output(command: &OutputCommand) -> ExitCode {
    let (output, admin, what) = match command {
        OutputCommand::Pause { output, admin } => (output, admin, "pause"),
        OutputCommand::Resume { output, admin } => (output, admin, "resume"),
    };
    let asked = || Ok(post(&admin.url()?, &format!("/api/outputs/{}/{what}", name(output)), &json!({}))?);
    finish(asked(), |answer| println!("{output}: {}", text(answer, "state")))
}

/// `tailwater checkpoint …`
pub fn checkpoint(command: &CheckpointCommand) -> ExitCode {
    match command {
        CheckpointCommand::List { json, admin } => {
            let listed = admin.or_offline(|url| get(url, "/api/checkpoints"), offline::checkpoints);
            finish(listed, |answer| if *json { println!("{answer:#}") } else { print_checkpoints(answer) })
        }
        CheckpointCommand::Set { output, to, admin } => {
            let set = to.parse::<Target>().map_err(Failure::Usage).and_then(|target| {
                let path = format!("/api/outputs/{}/checkpoint/set", name(output));
                let online = |url: &str| post(url, &path, &json!({ "to": to }));
                admin.or_offline(online, |config| offline::set_checkpoint(config, output, target))
            });
            finish(set, |answer| println!("{output}: {}", text(answer, "place")))
        }
        CheckpointCommand::Reset { output, admin } => {
            let path = format!("/api/outputs/{}/checkpoint/reset", name(output));
            let online = |url: &str| post(url, &path, &json!({}));
            let reset = admin.or_offline(online, |config| offline::reset_checkpoint(config, output));
            finish(reset, |answer| println!("{output}: {}", text(answer, "place")))
        }
    }
}

/// `tailwater snapshot …`
pub fn snapshot(args: &SnapshotArgs) -> ExitCode {
    let begin = || -> Result<_, Failure> {
        let url = args.admin.url()?;
        let path = format!("/api/outputs/{}/snapshot", name(&args.output));
        let answer = post(&url, &path, &json!({ "collections": args.collections }))?;
        Ok((url, text(&answer, "state")))
    };
    match begin() {
        Err(error) => fail(&error),
        Ok((url, state)) if state == "running" => {
            println!("{}: snapshot begun", args.output);
            if args.detach { ExitCode::SUCCESS } else { watch(&url, &args.output) }
        }
        // Somebody was faster: it is planned, and waits.
        Ok((_, state)) => fail(&Failure::Other(waits(&args.output, &state))),
    }
}

/// Shows how far a snapshot is until it is over. Ctrl-C ends only the watching.
fn watch(url: &str, output: &str) -> ExitCode {
    let terminal = std::io::stdout().is_terminal();
    let (mut seen, mut bar_shown) = (false, false);
    let end = loop {
        let status = match get(url, "/api/status") {
            Ok(status) => status,
            Err(error) => break Err(error.into()),
        };
        let outputs = status["outputs"].as_array().into_iter().flatten();
        let Some(found) = outputs.into_iter().find(|found| found["name"] == output) else {
            break Err(Failure::Other(format!("output {output} is no longer configured")));
        };
        if let Some(snapshot) = found["snapshot"].as_object() {
            seen = true;
            if terminal {
                let rows = |key: &str| snapshot.get(key).and_then(Value::as_u64).unwrap_or(0);
                print!("\r{output}: {}\x1b[K", bar(rows("settled"), rows("estimated")));
                // A terminal that is gone is noticed by the next print.
                let _ = std::io::stdout().flush();
                bar_shown = true;
            }
        }
        match look(found, seen) {
            Look::Goes => std::thread::sleep(LOOK_AGAIN),
            Look::Over => break Ok(text(found, "state")),
            Look::Waits => break Err(Failure::Other(waits(output, &text(found, "state")))),
        }
    };
    if bar_shown {
        // What follows stands below the last bar, or in place of one that is not full though all is done.
        print!("{}", if end.is_ok() { "\r\x1b[K" } else { "\n" });
        let _ = std::io::stdout().flush();
    }
    match end {
        Ok(state) => {
            println!("{output}: every row is delivered, state {state}");
            ExitCode::SUCCESS
        }
        Err(failure) => fail(&failure),
    }
}

/// What the status of an output says about its snapshot.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It goes on.
    Goes,
    /// Every row is settled.
    Over,
    /// Not before somebody does something.
    Waits,
}

/// `seen`: it was under way at some time since it was asked for.
fn look(found: &Value, seen: bool) -> Look {
    let state = found["state"].as_str().unwrap_or_default();
    match (found["snapshot"].is_null(), state) {
        // Here its rows are not counted any more.
        (_, "standby") => Look::Waits,
        (false, "stopped" | "paused_by_operator") => Look::Waits,
        (true, "stopped" | "paused_by_operator") if !seen => Look::Waits,
        (false, _) | (true, "beginning" | "ending" | "starting" | "idle") => Look::Goes,
        (true, _) => Look::Over,
    }
}

/// Why there is nothing to watch, and what to do.
fn waits(output: &str, state: &str) -> String {
    match state {
        "standby" => format!("another instance delivers output {output} now, the snapshot goes on there"),
        "stopped" => format!(
            "output {output} has stopped, its log says why; the snapshot goes on after: tailwater output resume {output}"
        ),
        "paused_by_operator" => {
            format!("output {output} is paused; the snapshot goes on after: tailwater output resume {output}")
        }
        _ => format!("output {output} is {state}; the snapshot goes on when it is at work, see: tailwater status"),
    }
}

/// `[#####     ]  50 % of about 1000 rows`
fn bar(settled: u64, estimated: u64) -> String {
    const WIDTH: u64 = 30;
    // The estimate may be too low.
    let whole = estimated.max(settled).max(1);
    let done = (settled * WIDTH / whole) as usize;
    format!("[{:<30}] {:>3} % of about {whole} rows", "#".repeat(done), settled * 100 / whole)
}

/// `tailwater status`
pub fn status(args: &StatusArgs) -> ExitCode {
    let asked = || Ok(get(&args.admin.url()?, "/api/status")?);
    finish(asked(), |status| if args.json { println!("{status:#}") } else { print!("{}", status_table(status)) })
}

fn status_table(status: &Value) -> String {
    let mut rows =
        vec![["OUTPUT", "PLUGIN", "STATE", "LAG", "DELIVERED", "UNSETTLED", "OPLOG HEADROOM"].map(str::to_owned)];
    for output in status["outputs"].as_array().into_iter().flatten() {
        let state = match &output["snapshot"] {
            Value::Null => text(output, "state"),
            snapshot => format!(
                "{}, snapshot {}",
                text(output, "state"),
                bar(snapshot["settled"].as_u64().unwrap_or(0), snapshot["estimated"].as_u64().unwrap_or(0))
            ),
        };
        let headroom = output["oplog_headroom_seconds"].as_i64().map_or("unknown".to_owned(), |s| format!("{s} s"));
        rows.push([
            text(output, "name"),
            text(output, "plugin"),
            state,
            format!("{} s", output["lag_seconds"]),
            output["delivered"].to_string(),
            output["unsettled"].to_string(),
            headroom,
        ]);
    }
    format!("{}, lease: {}\n{}", text(status, "name"), text(status, "lease"), table(&rows))
}

fn print_checkpoints(answer: &Value) {
    let mut rows = vec![["OUTPUT", "TIME", "EVENT ID", "STATE"].map(str::to_owned)];
    for row in answer["checkpoints"].as_array().into_iter().flatten() {
        let time = row["time"].as_i64().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
        let time = time.and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_default();
        let mut state = Vec::new();
        if row["paused"] == true {
            state.push("paused");
        }
        if row["snapshot"] == true {
            state.push("in a snapshot");
        }
        if row["configured"] == false {
            state.push("not configured");
        }
        rows.push([text(row, "output"), time, text(row, "event_id"), state.join(", ")]);
    }
    print!("{}", table(&rows));
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().map_or_else(|| value[key].to_string(), str::to_owned)
}

/// A name as part of a path: one that cannot be a name becomes one that is not found.
fn name(output: &str) -> String {
    if crate::config::entry::check_name(output).is_ok() { output.to_owned() } else { "-".to_owned() }
}

fn finish(answer: Result<Value, Failure>, show: impl FnOnce(&Value)) -> ExitCode {
    match answer {
        Ok(answer) => {
            show(&answer);
            ExitCode::SUCCESS
        }
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("tailwater: {failure}");
    match failure {
        Failure::Usage(_) | Failure::Client(ClientError::Url { .. }) => ExitCode::from(EXIT_USAGE),
        Failure::Client(_) | Failure::Other(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_more_than_full() {
        assert_eq!(bar(0, 0), "[                              ]   0 % of about 1 rows");
        assert_eq!(bar(500, 1000), "[###############               ]  50 % of about 1000 rows");
        assert_eq!(bar(1200, 1000), "[##############################] 100 % of about 1200 rows");
    }

    #[test]
    fn a_snapshot_is_over_when_its_rows_are_not_when_its_output_is_at_rest() {
        let (some, none) = (json!({ "settled": 1, "estimated": 2 }), Value::Null);
        for (snapshot, state, seen, expected) in [
            (&some, "live", true, Look::Goes),
            (&some, "catching_up", true, Look::Goes),
            (&none, "live", false, Look::Over),
            (&none, "waiting", true, Look::Over),
            (&none, "starting", true, Look::Goes),
            (&none, "beginning", false, Look::Goes),
            (&none, "idle", false, Look::Goes),
            (&some, "stopped", true, Look::Waits),
            (&none, "stopped", false, Look::Waits),
            (&none, "stopped", true, Look::Over),
            (&some, "paused_by_operator", true, Look::Waits),
            (&none, "paused_by_operator", true, Look::Over),
            (&some, "standby", true, Look::Waits),
            (&none, "standby", true, Look::Waits),
        ] {
            let found = json!({ "state": state, "snapshot": snapshot });
            assert_eq!(look(&found, seen), expected, "{found}, {seen}");
        }
    }

    #[test]
    fn the_table_shows_every_output() {
        let status = json!({ "name": "default", "lease": "holder", "outputs": [
            { "name": "hooks", "plugin": "webhook", "state": "live", "lag_seconds": 0, "delivered": 12, "unsettled": 3,
              "oplog_headroom_seconds": 86400, "snapshot": null },
            { "name": "live", "plugin": "sse", "state": "catching_up", "lag_seconds": 7, "delivered": 0, "unsettled": 0,
              "oplog_headroom_seconds": null, "snapshot": null },
        ] });
        let expected = "default, lease: holder\n\
            OUTPUT  PLUGIN   STATE        LAG  DELIVERED  UNSETTLED  OPLOG HEADROOM\n\
            hooks   webhook  live         0 s  12         3          86400 s\n\
            live    sse      catching_up  7 s  0          0          unknown\n";
        assert_eq!(status_table(&status), expected);
    }
}
