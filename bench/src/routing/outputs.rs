//! The daemon's side of a scenario: its configuration with 1 to 101 outputs, and one run over the history.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document};

use super::Sample;
use super::server::{Server, Spent};
use crate::daemon::{Daemon, Metrics};
use crate::process::{Cpu, peak_resident_mb};
use crate::stream::DATABASE;

/// Between looks at `/metrics`. With 100 outputs it has thousands of lines, which costs the daemon a millisecond or so.
const LOOK: Duration = Duration::from_millis(100);

/// One output: its `match`, and how many events it must get.
pub struct Wanted {
    /// `None` takes every event.
    pub query: Option<Document>,
    pub events: u64,
}

/// Where the outputs begin.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// Behind all that there is.
    Now,
    /// With this second.
    Second(u32),
}

/// From the daemon's start until it is ready, at a place where there is nothing to read.
pub async fn start(binary: &Path, server: &Server, outputs: &[Wanted]) -> Result<Sample> {
    let before = server.look().await?;
    let mut daemon = Daemon::start(binary, &config(server, Start::Now, outputs)?)?;
    daemon.ready().await?;
    let cpu_s = Cpu::of(daemon.pid())?.seconds();
    let sample = sample(&daemon, cpu_s, server.look().await?.since(&before))?;
    daemon.end().await?;
    Ok(sample)
}

/// From the daemon's start until every output has acknowledged all that it wants.
pub async fn run(
    binary: &Path,
    server: &Server,
    start_seconds: u32,
    outputs: &[Wanted],
    limit: Duration,
) -> Result<Sample> {
    let before = server.look().await?;
    let mut daemon = Daemon::start(binary, &config(server, Start::Second(start_seconds), outputs)?)?;
    let begun = Instant::now();
    let wanted: u64 = outputs.iter().map(|output| output.events).sum();
    while daemon.metrics("tailwater_output_delivered_total")?.iter().sum::<u64>() < wanted {
        ensure!(begun.elapsed() < limit, "tailwater has not delivered all events within {limit:?}:\n{}", daemon.log());
        tokio::time::sleep(LOOK).await;
    }
    let cpu_s = Cpu::of(daemon.pid())?.seconds();
    let spent = server.look().await?.since(&before);
    let metrics = metrics(&daemon)?;
    for (index, output) in outputs.iter().enumerate() {
        let delivered = metrics.output("delivered_total", &name(index)) as u64;
        ensure!(delivered == output.events, "{} got {delivered} events instead of {}", name(index), output.events);
    }
    let catch_ups = daemon.metrics("tailwater_output_catch_ups_total")?.iter().sum();
    let sample = Sample { catch_ups, ..sample(&daemon, cpu_s, spent)? };
    daemon.end().await?;
    Ok(sample)
}

fn sample(daemon: &Daemon, cpu_s: f64, spent: Spent) -> Result<Sample> {
    Ok(Sample {
        mongod_s: spent.cpu_s,
        sent_bytes: spent.sent_bytes,
        cpu_s,
        events_read: metrics(daemon)?.value("tailwater_source_events_total") as u64,
        peak_mb: peak_resident_mb(daemon.pid())?,
        catch_ups: 0,
    })
}

fn metrics(daemon: &Daemon) -> Result<Metrics> {
    Metrics::of(daemon.admin().context("the log names no admin port")?)
}

fn name(index: usize) -> String {
    format!("o{index:03}")
}

fn config(server: &Server, start: Start, outputs: &[Wanted]) -> Result<String> {
    let start = match start {
        Start::Now => "now".to_owned(),
        Start::Second(seconds) => time::OffsetDateTime::from_unix_timestamp(i64::from(seconds))?
            .format(&time::format_description::well_known::Rfc3339)?,
    };
    // A name of its own for each run: no checkpoint is there yet.
    let deployment = format!("bench-{}", bson::oid::ObjectId::new());
    let uri = server.uri();
    let mut text = format!(
        "name = \"{deployment}\"\n[source]\nuri = \"{uri}\"\nwatch = [\"{DATABASE}.*\"]\nstart = \"{start}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"
    );
    for (index, output) in outputs.iter().enumerate() {
        writeln!(text, "[outputs.{}]\nplugin = \"null\"\nbatch = {{ events_max = 1000 }}", name(index))?;
        if let Some(query) = &output.query {
            writeln!(text, "match = {}", toml(&Bson::Document(query.clone()))?)?;
        }
    }
    Ok(text)
}

/// A query as an inline value of TOML.
fn toml(value: &Bson) -> Result<String> {
    Ok(match value {
        Bson::Document(document) => {
            let fields = document.iter().map(|(name, value)| Ok(format!("{} = {}", text(name)?, toml(value)?)));
            format!("{{ {} }}", fields.collect::<Result<Vec<_>>>()?.join(", "))
        }
        Bson::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Result<Vec<_>>>()?.join(", ")),
        Bson::String(string) => text(string)?,
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        other => anyhow::bail!("no scenario has {other:?} in its match"),
    })
}

/// What JSON escapes, TOML's basic strings do, too.
fn text(string: &str) -> Result<String> {
    Ok(serde_json::to_string(string)?)
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_query_is_written_as_toml() {
        let query = doc! { "a.b": { "$in": ["x\"y", 1] }, "c": 5_i64 };
        let expected = r#"{ "a.b" = { "$in" = ["x\"y", 1] }, "c" = 5 }"#;
        assert_eq!(toml(&Bson::Document(query)).expect("TOML"), expected);
        assert!(toml(&Bson::Null).is_err());
    }
}
