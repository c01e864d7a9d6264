//! The daemon under its own configuration, as a user would run it: written to a file, started, watched through its log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::child::Child;
use crate::http;
use crate::shop;

/// How long it may take to be ready on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);
/// More than its own `shutdown_grace`, which is 20 s.
const END_MAX: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(20);
/// What is shown of its log when it dies.
const LINES_MAX: usize = 15;

/// Where the output `lines` writes, in the folder of the run.
pub const LINES_FILE: &str = "orders.jsonl";
/// The path of the event stream.
pub const EVENTS_PATH: &str = "/events";

/// What differs from run to run.
pub struct Wiring {
    /// MongoDB's connection string.
    pub mongodb: String,
    /// Where the page and the receiver of the webhook listen.
    pub page: SocketAddr,
    /// Where the event stream shall listen; 0: anywhere.
    pub sse_port: u16,
    /// What the webhook's requests are signed with.
    pub secret: String,
}

impl Wiring {
    /// The configuration.
    pub fn to_toml(&self) -> String {
        let (database, collection) = (shop::DATABASE, shop::COLLECTION);
        let Wiring { mongodb, page, sse_port, secret } = self;
        let port = page.port();
        format!(
            r#"# What the demo runs. config.toml at the top of the repository names every key with its default.

[source]
uri = "{mongodb}"
watch = ["{database}.{collection}"]
full_document = "update_lookup"    # updates carry the whole order, too

[admin]
listen = "127.0.0.1:0"             # /healthz, /readyz and /metrics, on a free port

[outputs.live]                     # to browsers, as server-sent events
plugin = "sse"
[outputs.live.options]
listen = "127.0.0.1:{sse_port}"
path = "{EVENTS_PATH}"
cors_origins = ["http://127.0.0.1:{port}", "http://localhost:{port}"]

[outputs.lines]                    # to a file, as lines of JSON
plugin = "stdout"
options = {{ path = "{LINES_FILE}" }}

[outputs.hook]                     # to another service, as signed POST requests
plugin = "webhook"
options = {{ url = "http://127.0.0.1:{port}/hook", secrets = ["{secret}"] }}
"#
        )
    }
}

/// A running `tailwater run`.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Log>>,
    /// Where browsers find the event stream.
    pub events: SocketAddr,
}

#[derive(Default)]
struct Log {
    last: VecDeque<String>,
    /// Warnings and errors that were not shown yet; as many as `last`.
    alarms: VecDeque<String>,
    admin: Option<SocketAddr>,
    events: Option<SocketAddr>,
}

impl Daemon {
    /// Starts it in `folder` with this configuration and waits until `/readyz` says that it is.
    ///
    /// # Errors
    /// When it ends or is not ready in time; with the end of its log.
    pub async fn start(binary: &Path, folder: &Path, config: &Path) -> Result<Daemon> {
        let mut command = Command::new(binary);
        command.args(["run", "--config"]).arg(config).current_dir(folder);
        let mut child = Child::start("tailwater", command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let log = Arc::new(Mutex::new(Log::default()));
        let stderr = child.stderr().context("standard error is piped")?;
        read_log(stderr, folder.join("tailwater.log"), Arc::clone(&log));
        let mut daemon = Daemon { child, log, events: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let deadline = Instant::now() + READY_MAX;
        while !daemon.is_ready().await {
            daemon.check()?;
            ensure!(
                Instant::now() < deadline,
                "tailwater is not ready after {READY_MAX:?}; the end of its log:\n{}",
                daemon.end_of_log()
            );
            sleep(LOOK).await;
        }
        Ok(daemon)
    }

    async fn is_ready(&mut self) -> bool {
        let addresses = self.log().addresses();
        let Some((admin, events)) = addresses else { return false };
        self.events = events;
        http::get(admin, "/readyz", &["Connection: close".to_owned()]).await.is_ok_and(|answer| answer.status == 200)
    }

    /// # Errors
    /// When it has ended; with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.ended()? else { return Ok(()) };
        bail!("tailwater ended, {status}; the end of its log:\n{}", self.end_of_log())
    }

    /// Warnings and errors of its log since the last look.
    pub fn alarms(&self) -> Vec<String> {
        self.log().alarms.drain(..).collect()
    }

    /// Lets it drain.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn end(self) -> Result<()> {
        let log = Arc::clone(&self.log);
        let ended: Option<ExitStatus> = self.child.terminate(END_MAX).await?;
        let status = ended.with_context(|| format!("tailwater has not drained within {END_MAX:?}"))?;
        ensure!(status.success(), "tailwater ended with {status}; the end of its log:\n{}", lock(&log).end());
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    fn end_of_log(&self) -> String {
        // Its last words may still be in the pipe; the reading thread needs a moment.
        std::thread::sleep(LOOK * 5);
        self.log().end()
    }
}

impl Log {
    fn push(&mut self, line: String) {
        if let Some((_, rest)) = line.split_once("admin listening on ") {
            self.admin = address(rest);
        } else if let Some((_, rest)) = line.split_once("listening on http://") {
            self.events = address(rest);
        }
        if line.contains(" WARN ") || line.contains(" ERROR ") {
            bounded_push(&mut self.alarms, line.clone());
        }
        bounded_push(&mut self.last, line);
    }

    /// Of the admin port and of the event stream, once both are known.
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.admin?, self.events?))
    }

    fn end(&self) -> String {
        self.last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// The address that a text begins with.
fn address(text: &str) -> Option<SocketAddr> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').next()?.parse().ok()
}

fn bounded_push(lines: &mut VecDeque<String>, line: String) {
    if lines.len() == LINES_MAX {
        lines.pop_front();
    }
    lines.push_back(line);
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads in a thread, so that the daemon never waits for whoever looks at its log; a copy goes to a file beside the configuration.
fn read_log(stderr: ChildStderr, copy: PathBuf, log: Arc<Mutex<Log>>) {
    std::thread::spawn(move || {
        let mut copy = File::create(copy).ok();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(copy) = &mut copy {
                let _ = writeln!(copy, "{line}");
            }
            lock(&log).push(line);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_log() {
        let mut log = Log::default();
        log.push("2026-01-01T00:00:00Z  INFO admin listening on 127.0.0.1:4001".to_owned());
        log.push(
            "2026-01-01T00:00:00Z  INFO output{output=live}: listening on http://127.0.0.1:4002/events".to_owned(),
        );
        log.push("2026-01-01T00:00:00Z  WARN something".to_owned());
        assert_eq!(log.admin, Some(SocketAddr::from(([127, 0, 0, 1], 4001))));
        assert_eq!(log.events, Some(SocketAddr::from(([127, 0, 0, 1], 4002))));
        assert_eq!(log.alarms.len(), 1);
        assert_eq!(log.last.len(), 3);
    }
}
