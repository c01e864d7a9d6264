//! A contender that is a loop: a process that reads the stream, prints one line of JSON and stays until it was looked at.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::mongod::Mongod;
use crate::process::{Cpu, peak_resident_mb};
use crate::statistics::Sample;

/// What a loop prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoopResult {
    /// All that were read.
    pub events: u64,
    /// Those that were there when the clock was started.
    pub first_events: u64,
    /// From then to the last event.
    pub seconds: f64,
}

/// The loop's side: prints the result and waits until standard input is closed.
pub fn hold_until_told(result: &LoopResult) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(result)?)?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What a loop said of itself, and what the operating system said of it while it stayed.
#[derive(Debug)]
pub struct LoopRun {
    pub result: LoopResult,
    /// CPU of its process from its start, in seconds.
    pub cpu_s: f64,
    /// The most memory that was resident, in megabytes.
    pub peak_mb: f64,
}

/// The harness' side: one run of a loop, per event.
pub async fn run_loop(command: Command, mongod: &Mongod, limit: Duration) -> Result<Sample> {
    let mongod_cpu = Cpu::of(mongod.pid())?;
    let (run, mongod_s) = watch_loop(command, limit, async || mongod_cpu.seconds_since(mongod.pid())).await?;
    let LoopRun { result, cpu_s, peak_mb } = run;
    Ok(Sample {
        events_per_s: (result.events - result.first_events) as f64 / result.seconds,
        cpu_us: cpu_s * 1e6 / result.events as f64,
        mongod_cpu_us: mongod_s * 1e6 / result.events as f64,
        peak_mb,
        catch_ups: 0,
    })
}

/// Lets a loop run; `at_end` is called when it has read all, before it ends.
pub async fn watch_loop<T>(
    mut command: Command,
    limit: Duration,
    at_end: impl AsyncFnOnce() -> Result<T>,
) -> Result<(LoopRun, T)> {
    let what = format!("{:?}", command.get_program());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Ended(command.spawn().with_context(|| format!("start {what}"))?);
    let stdout = process.0.stdout.take().context("piped")?;
    // A thread of its own: reading a pipe has no time limit.
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    let line = match tokio::time::timeout(limit, line).await {
        Ok(line) => line??,
        Err(_) => {
            drop(process);
            return Err(anyhow!("{what} has not read all events within {limit:?}"));
        }
    };
    let seen = at_end().await?;
    let result = serde_json::from_str(&line).with_context(|| format!("{what} failed; it printed {line:?}"))?;
    let pid = process.0.id();
    Ok((LoopRun { result, cpu_s: Cpu::of(pid)?.seconds(), peak_mb: peak_resident_mb(pid)? }, seen))
}

/// Ends the process however the run ended.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
