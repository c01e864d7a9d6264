//! `tailwater dead-letters`: list, show, replay, drop. Through the admin API of the running daemon where one answers, else, but
//! for a replay, which only a daemon can do, directly in the store that the config names.

mod source;
mod text;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use self::source::{Found, SourceError};
use super::EXIT_USAGE;
use super::admin_client::{self, ClientError, Daemon};
use crate::dead_letters::api::{Job, Progress};
use crate::dead_letters::{LetterKey, Selection};

/// How often a replay is asked how far it is.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How many letters are asked for at once.
const PAGE: usize = 500;

/// `tailwater dead-letters …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show them, oldest event first.
    List {
        /// Of this output only.
        #[arg(long)]
        output: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// As JSON Lines.
        #[arg(long)]
        json: bool,
        /// Where they are.
        #[command(flatten)]
        place: Place,
    },
    /// Show one with its event.
    Show {
        /// OUTPUT/EVENTID, as in the list.
        id: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
        /// Where it is.
        #[command(flatten)]
        place: Place,
    },
    /// Deliver them again, in their order, by the running daemon. What is delivered is a dead letter no longer.
    Replay {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Where the daemon is.
        #[command(flatten)]
        place: Place,
    },
    /// Remove them for good.
    Drop {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Where they are.
        #[command(flatten)]
        place: Place,
    },
}

/// Which letters.
#[derive(Debug, Args)]
pub struct Which {
    /// OUTPUT for all of its letters, OUTPUT/EVENTID for one, EVENTID for those of one event in every output.
    #[arg(value_name = "OUTPUT|ID")]
    names: Vec<String>,
    /// All letters.
    #[arg(long)]
    all: bool,
}

/// Where the letters are.
#[derive(Debug, Args)]
pub struct Place {
    /// The config file: its admin.listen is asked first, then the store it names. Default: config.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin address of the running daemon, and no other way. Default: http://127.0.0.1:8081.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line or the config is wrong.
    #[error("{0}")]
    Usage(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Failure {
        match error {
            SourceError::Config(error) => Failure::Usage(error),
            SourceError::Client(ClientError::Url { .. }) => Failure::Usage(error.to_string()),
            error => Failure::Other(error.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        SourceError::Client(error).into()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Other(format!("write to standard output: {error}"))
    }
}

/// Does it. What went wrong is on stderr.
pub fn dead_letters(command: &Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::Other(format!("start a runtime: {error}"))),
    };
    let done = runtime.block_on(async {
        match command {
            Command::List { output, limit, json, place } => list(output.as_deref(), *limit, *json, place).await,
            Command::Show { id, json, place } => show(id, *json, place).await,
            Command::Replay { which, place } => replay(which, place).await,
            Command::Drop { which, yes, place } => drop_letters(which, *yes, place).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("tailwater: {failure}");
    match failure {
        Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
        Failure::Other(_) => ExitCode::FAILURE,
    }
}

async fn list(output: Option<&str>, limit: u32, json: bool, place: &Place) -> Result<(), Failure> {
    let letters = find(place).await?.open().await?;
    let (mut out, width) = (io::stdout().lock(), text::terminal_width());
    let (mut left, mut after, mut more, mut shown) = (limit as usize, None, true, 0);
    while more && left > 0 {
        let page = letters.list(output, left.min(PAGE), after.as_deref()).await?;
        if shown == 0 && !json && !page.letters.is_empty() {
            writeln!(out, "{}", text::HEADINGS)?;
        }
        for letter in &page.letters {
            match json {
                true => writeln!(out, "{}", serde_json::to_string(letter).map_err(io::Error::other)?)?,
                false => writeln!(out, "{}", text::row(letter, width))?,
            }
        }
        shown += page.letters.len();
        left = left.saturating_sub(page.letters.len());
        after = page.letters.last().map(|letter| letter.letter.clone());
        more = page.more && after.is_some();
    }
    out.flush()?;
    if shown == 0 && !json {
        eprintln!("no dead letters");
    } else if more {
        eprintln!("there are more; --limit N shows more of them");
    }
    Ok(())
}

async fn show(id: &str, json: bool, place: &Place) -> Result<(), Failure> {
    let key: LetterKey = id.parse().map_err(Failure::Usage)?;
    let letter = find(place).await?.open().await?.get(&key).await?;
    let letter = letter.ok_or_else(|| Failure::Other(format!("there is no dead letter {key}")))?;
    let text = match json {
        true => serde_json::to_string(&letter).map_err(io::Error::other)? + "\n",
        false => text::whole(&letter),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

async fn drop_letters(which: &Which, yes: bool, place: &Place) -> Result<(), Failure> {
    let selection = which.selection()?;
    if !yes && !io::stdin().is_terminal() {
        return Err(Failure::Usage("dropping is for good: add --yes where nobody can be asked".into()));
    }
    let found = find(place).await?;
    if !yes {
        // Nothing is held while somebody thinks about it: a daemon may be starting.
        eprint!("drop {} {} for good? [y/N] ", which.describe(), found.place());
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(|error| Failure::Other(format!("read the answer: {error}")))?;
        if !matches!(answer.trim(), "y" | "yes") {
            return Err(Failure::Other("nothing was dropped".into()));
        }
    }
    let dropped = found.open().await?.drop_letters(&selection).await?.dropped;
    writeln!(io::stdout(), "dropped {dropped}")?;
    Ok(())
}

async fn replay(which: &Which, place: &Place) -> Result<(), Failure> {
    let selection = which.selection()?;
    let daemon = place.daemon()?;
    let url = daemon.url().ok_or_else(|| {
        Failure::Usage(
            "a replay needs the running daemon, and the config has no admin.listen to ask; add --admin URL".into(),
        )
    })?;
    let body = serde_json::to_value(&selection).map_err(|error| Failure::Other(error.to_string()))?;
    let path = "/api/dead-letters/replay";
    let job: Job = source::read(url, path, admin_client::ask(url, Method::POST, path, Some(&body)).await?)?;
    if job.stubs > 0 {
        eprintln!("{} of {} are kept only as stubs and stay; `dead-letters show` says why", job.stubs, job.matched);
    }
    let total = job.total();
    if total == 0 {
        writeln!(io::stdout(), "nothing to replay")?;
        return reached(&job);
    }
    tokio::select! {
        progress = watch(url, job.job, total) => finish(&progress?, total).and_then(|()| reached(&job)),
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => {
                eprintln!("\nno longer watching; the daemon goes on with the replay");
                Ok(())
            }
            Err(error) => Err(Failure::Other(format!("watch for Ctrl-C: {error}"))),
        },
    }
}

/// Asks until there is no more to do.
async fn watch(url: &str, job: u64, total: u64) -> Result<Progress, Failure> {
    let path = format!("/api/dead-letters/replay/{job}");
    let live = io::stderr().is_terminal();
    loop {
        let answer: Value = admin_client::ask(url, Method::GET, &path, None).await?;
        let progress: Progress = source::read(url, &path, answer)?;
        if live {
            eprint!("\r{}", text::progress(&progress, total));
            if progress.done {
                eprintln!();
            }
        }
        if progress.done {
            return Ok(progress);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn finish(progress: &Progress, total: u64) -> Result<(), Failure> {
    writeln!(io::stdout(), "{}", text::progress(progress, total))?;
    match (&progress.error, progress.left) {
        (None, 0) => Ok(()),
        (error, left) => {
            let why = error.as_deref().unwrap_or("see the daemon's log");
            Err(Failure::Other(format!("the replay ended with {left} left ({why}); mend that, then replay again")))
        }
    }
}

/// Not when some of the letters are of outputs that nothing can be delivered to.
fn reached(job: &Job) -> Result<(), Failure> {
    match job.unreachable {
        0 => Ok(()),
        letters => Err(Failure::Other(format!(
            "{letters} dead letters stay: their outputs are not at work in this daemon (paused, stopped, delivered by another \
             instance, or no longer configured); `tailwater status` shows them"
        ))),
    }
}

/// The daemon's letters, else the store's.
async fn find(place: &Place) -> Result<Found, Failure> {
    let path = place.config.clone().unwrap_or_else(|| "config.toml".into());
    Ok(Found::find(place.daemon()?, &path).await?)
}

impl Place {
    fn daemon(&self) -> Result<Daemon, Failure> {
        Daemon::of(self.admin.as_deref(), self.config.as_deref()).map_err(|error| Failure::Usage(error.to_string()))
    }
}

impl Which {
    fn selection(&self) -> Result<Selection, Failure> {
        let selection = Selection::from_arguments(&self.names, self.all);
        match selection.check() {
            Ok(_) => Ok(selection),
            Err(_) if self.names.is_empty() && !self.all => {
                Err(Failure::Usage("nothing is chosen: name an OUTPUT, an OUTPUT/EVENTID, or add --all".into()))
            }
            Err(error) => Err(Failure::Usage(error)),
        }
    }

    fn describe(&self) -> String {
        if self.all { "all dead letters".to_owned() } else { format!("the dead letters {}", self.names.join(", ")) }
    }
}
