//! A contender that is the daemon: started from a config of its own, watched through `/metrics`, ended by SIGTERM.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::load::Load;
use crate::mongod::Mongod;
use crate::process::{Cpu, peak_resident_mb, resident_mb, terminate};
use crate::statistics::Sample;
use crate::stream;

/// Between looks at `/metrics`: rare enough not to be work worth measuring, 1 % of a run of 2 s.
const LOOK: Duration = Duration::from_millis(20);
/// The same where the clock is about to be started or stopped.
const LOOK_CLOSELY: Duration = Duration::from_millis(2);
/// How long the daemon may take to be ready, or to end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the daemon delivers to.
#[derive(Clone, Copy, Debug)]
pub enum Outputs {
    /// This many that acknowledge without looking.
    Null(usize),
    /// One that writes JSON Lines to /dev/null.
    Json,
    /// One that serves Server-Sent Events.
    Sse,
}

/// One run of the daemon over the whole load.
pub async fn run(binary: &Path, mongod: &Mongod, load: &Load, outputs: Outputs, limit: Duration) -> Result<Sample> {
    let start = time::OffsetDateTime::from_unix_timestamp(i64::from(load.start_seconds))?;
    let start = start.format(&time::format_description::well_known::Rfc3339)?;
    let mongod_cpu = Cpu::of(mongod.pid())?;
    let mut daemon = Daemon::start(binary, &config(mongod, outputs, &start))?;
    let count = if let Outputs::Null(count) = outputs { count } else { 1 };
    let begun = Instant::now();
    let mut first: Option<(Instant, u64)> = None;
    let last = loop {
        ensure!(begun.elapsed() < limit, "tailwater has not delivered all events within {limit:?}:\n{}", daemon.log());
        // The slowest output counts.
        let delivered = daemon.metrics("tailwater_output_delivered_total")?;
        let least = if delivered.len() < count { 0 } else { delivered.iter().copied().min().unwrap_or(0) };
        let now = Instant::now();
        if least >= load.events {
            break now;
        }
        if first.is_none() && least > 0 {
            first = Some((now, least));
        }
        let near = first.is_none() || least > load.events - load.events / 20;
        tokio::time::sleep(if near { LOOK_CLOSELY } else { LOOK }).await;
    };
    let mongod_seconds = mongod_cpu.seconds_since(mongod.pid())?;
    let cpu = Cpu::of(daemon.pid())?.seconds();
    let (since, first_events) = first.context("all events were delivered between two looks, use more --events")?;
    let sample = Sample {
        events_per_s: (load.events - first_events) as f64 / last.duration_since(since).as_secs_f64(),
        cpu_us: cpu * 1e6 / load.events as f64,
        mongod_cpu_us: mongod_seconds * 1e6 / load.events as f64,
        peak_mb: peak_resident_mb(daemon.pid())?,
        catch_ups: daemon.metrics("tailwater_output_catch_ups_total")?.iter().sum(),
    };
    daemon.end().await?;
    Ok(sample)
}

/// Resident megabytes of a daemon with one null output that has tailed nothing for a second.
pub async fn idle_mb(binary: &Path, mongod: &Mongod) -> Result<f64> {
    let mut daemon = Daemon::start(binary, &config(mongod, Outputs::Null(1), "now"))?;
    daemon.ready().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = resident_mb(daemon.pid())?;
    daemon.end().await?;
    Ok(idle)
}

/// A daemon with one `sse` output that is ready.
pub struct SseDaemon {
    daemon: Daemon,
    /// Where its output listens.
    pub address: String,
}

impl SseDaemon {
    /// Starts it and waits.
    pub async fn start(binary: &Path, mongod: &Mongod) -> Result<SseDaemon> {
        let mut daemon = Daemon::start(binary, &config(mongod, Outputs::Sse, "now"))?;
        daemon.ready().await?;
        let address = daemon.logged("listening on http://").context("the log names no address of the output")?;
        let address = address.strip_suffix("/events").context("the output's path is not /events")?.to_owned();
        Ok(SseDaemon { daemon, address })
    }

    /// By SIGTERM.
    pub async fn end(self) -> Result<()> {
        self.daemon.end().await
    }
}

fn config(mongod: &Mongod, outputs: Outputs, start: &str) -> String {
    // A name of its own for each run: no checkpoint is there yet.
    let name = format!("bench-{}", bson::oid::ObjectId::new());
    let mut text = format!(
        "name = \"{name}\"\n[source]\nuri = \"{}\"\nwatch = [\"{}.{}\"]\nstart = \"{start}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        mongod.uri(),
        stream::DATABASE,
        stream::COLLECTION
    );
    let output = |index, plugin, options| {
        format!(
            "[outputs.o{index}]\nplugin = \"{plugin}\"\nmatch = {}\nbatch = {{ events_max = 1000 }}\n{POLICIES}options = {options}\n",
            stream::MATCH_TOML
        )
    };
    match outputs {
        Outputs::Null(count) => (0..count).for_each(|index| text += &output(index, "null", "{}")),
        Outputs::Json => text += &output(0, "stdout", "{ path = \"/dev/null\" }"),
        Outputs::Sse => text += &output(0, "sse", "{ listen = \"127.0.0.1:0\" }"),
    }
    text
}

/// Every policy that does not change what is delivered here: what they cost is part of the measure.
const POLICIES: &str = "rate_limit = { per_second = 10000000, burst = 10000000 }\nbacklog = { max_age = \"7d\" }\n\
                        history_lost = \"resume\"\non_reject = \"dead_letter\"\nretry = { give_up_after = \"24h\" }\n";

/// A running daemon, whatever its outputs.
pub struct Daemon {
    process: Child,
    /// Every line of its standard error so far; the reading thread holds the other end.
    lines: Arc<Mutex<Vec<String>>>,
    admin: Option<String>,
    // Dropped after `drop` has ended the process.
    _folder: TempDir,
}

impl Daemon {
    /// Starts it with this configuration, in a folder of its own.
    pub fn start(binary: &Path, config: &str) -> Result<Daemon> {
        let folder = tempfile::tempdir().context("make a folder for tailwater")?;
        let file = folder.path().join("config.toml");
        std::fs::write(&file, config).context("write config.toml")?;
        let mut command = Command::new(binary);
        command.args(["run", "--config"]).arg(&file).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let stderr = process.stderr.take().context("piped")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line);
            }
        });
        Ok(Daemon { process, lines, admin: None, _folder: folder })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).join("\n")
    }

    /// The word that stands behind these in its log.
    fn logged(&self, before: &str) -> Option<String> {
        let log = self.log();
        log.split_once(before).and_then(|(_, rest)| rest.split_whitespace().next()).map(str::to_owned)
    }

    /// Waits until it is.
    pub async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.get("/readyz")?.is_none_or(|(status, _)| status != 200) {
            ensure!(begun.elapsed() < PATIENCE, "tailwater is not ready after {PATIENCE:?}:\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// A GET on the admin port; `None` while nothing listens.
    fn get(&mut self, path: &str) -> Result<Option<(u16, String)>> {
        if let Some(status) = self.process.try_wait()? {
            bail!("tailwater ended, {status}:\n{}", self.log());
        }
        if self.admin.is_none() {
            self.admin = self.logged("admin listening on ");
        }
        let Some(admin) = &self.admin else { return Ok(None) };
        get(admin, path).map(Some)
    }

    /// The word for what this output is doing.
    pub fn state(&self, output: &str) -> Result<String> {
        Ok(Metrics::of(self.admin().context("the log names no admin port")?)?.state(output).to_owned())
    }

    /// The address of its admin port, once it has said so.
    pub fn admin(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// The value of this counter for each output; empty while there is none.
    pub fn metrics(&mut self, name: &str) -> Result<Vec<u64>> {
        let Some((200, body)) = self.get("/metrics")? else { return Ok(Vec::new()) };
        let values = body.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' '));
        values.map(|(_, value)| value.parse().with_context(|| format!("{name} is {value:?}"))).collect()
    }

    /// By SIGTERM; waits until it has ended.
    pub async fn end(mut self) -> Result<()> {
        terminate(self.pid())?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "tailwater ended with {status}:\n{}", self.log());
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "tailwater does not end after SIGTERM:\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A GET; the status and the body of the answer.
fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("read {path}"))?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP in the answer to {path}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}

/// All metrics at one time.
pub struct Metrics(String);

impl Metrics {
    /// Of the daemon with this admin port.
    pub fn of(admin: &str) -> Result<Metrics> {
        let (status, body) = get(admin, "/metrics")?;
        ensure!(status == 200, "/metrics answers {status}");
        Ok(Metrics(body))
    }

    /// The one with this name and these labels, as they are written there; 0 while there is none.
    pub fn value(&self, name: &str) -> f64 {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(of).unwrap_or(0.0)
    }

    /// `tailwater_output_NAME` of this output.
    pub fn output(&self, name: &str, output: &str) -> f64 {
        self.value(&format!("tailwater_output_{name}{{output=\"{output}\"}}"))
    }

    /// The word for what this output is doing.
    pub fn state(&self, output: &str) -> &str {
        let start = format!("tailwater_output_state{{output=\"{output}\",state=\"");
        let is = |line| str::strip_suffix(str::strip_prefix(line, start.as_str())?, "\"} 1");
        self.0.lines().find_map(is).unwrap_or("unknown")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
