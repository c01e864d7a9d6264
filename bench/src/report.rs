//! The table of `tail`, and what all benchmarks' tables share: Markdown that can be read on a terminal too.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use bson::doc;
use mongodb::Client;

use crate::load::Load;
use crate::statistics::{Sample, Summary, Target, verdict};
use crate::tail::{Contender, Round};

/// Versions of what is measured are in here.
const CARGO_LOCK: &str = include_str!("../../Cargo.lock");

/// `window.bytes_max` by default, in megabytes.
pub const WINDOW_MB: f64 = 16.0 * 1.048_576;

/// Where and when a benchmark was run.
pub struct Conditions {
    /// `None` where none takes part.
    mongod_version: Option<String>,
    /// Of the machine, before the benchmark began.
    load_average: String,
    duration: Duration,
}

impl Conditions {
    /// Asks mongod for its version.
    pub async fn new(client: &Client, load_average: String, duration: Duration) -> Result<Conditions> {
        let build = client.database("admin").run_command(doc! { "buildInfo": 1 }).await;
        let build = build.context("ask mongod for its version")?;
        let mongod_version = Some(build.get_str("version")?.to_owned());
        Ok(Conditions { mongod_version, load_average, duration })
    }

    /// Of a benchmark that needs none.
    pub fn without_mongod(load_average: String, duration: Duration) -> Conditions {
        Conditions { mongod_version: None, load_average, duration }
    }

    /// Two lines; the second goes on with what was measured.
    pub fn lines(&self, bench: &str) -> Result<String> {
        let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339)?;
        let versions = match &self.mongod_version {
            Some(mongod) => format!("mongod {mongod}, Rust driver {}", locked_version("mongodb")?),
            None => format!("bson {}, serde_json {}", locked_version("bson")?, locked_version("serde_json")?),
        };
        Ok(format!(
            "`cargo xtask bench {bench}`, {}, {}, {} cores, load average before {}, {} s.\n{versions}.",
            now.get(..16).unwrap_or(&now).replace('T', " ") + " UTC",
            cpu_model(),
            std::thread::available_parallelism()?,
            self.load_average,
            self.duration.as_secs(),
        ))
    }
}

/// Under which conditions the rounds of `tail` were run.
pub struct Setting {
    pub conditions: Conditions,
    pub load: Load,
    pub runs: usize,
}

/// Processes that wanted a CPU in the last minute.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().filter(|first| !first.is_empty()).unwrap_or("unknown").to_owned()
}

/// The whole file.
pub fn markdown(setting: &Setting, rounds: &[Round]) -> Result<String> {
    let mut text = String::new();
    head(&mut text, setting)?;
    let mut table =
        vec![["what", "contender", "median", "min – max", "of bare", "target", "result"].map(str::to_owned)];
    speed(&mut table, rounds)?;
    processor(&mut table, rounds)?;
    fan_out(&mut table, rounds)?;
    memory(&mut table, rounds)?;
    lay_out(&mut text, &table)?;
    if rounds.iter().all(|round| round.of(Contender::PyMongo).is_none()) {
        writeln!(text, "\nWithout PyMongo, which could not be had.")?;
    }
    let catch_ups = |contender| rounds.iter().filter_map(|round| round.of(contender)).map(|s| s.catch_ups).sum::<u64>();
    writeln!(
        text,
        "\nOutputs fell off the window, all runs together: null {}, JSON {}, 10 null {}.",
        catch_ups(Contender::Null),
        catch_ups(Contender::Json),
        catch_ups(Contender::TenNull)
    )?;
    Ok(text)
}

fn head(text: &mut String, setting: &Setting) -> Result<()> {
    let load = &setting.load;
    writeln!(text, "# tail → match → plugin → ack → checkpoint\n")?;
    writeln!(
        text,
        "{} {} insert events of {:.0} bytes, batches of 1000, {} interleaved runs.\n",
        setting.conditions.lines("tail")?,
        load.events,
        load.event_bytes,
        setting.runs
    )?;
    writeln!(
        text,
        "Speed is from the first event seen to the last. CPU is that of the whole process from its start, user and system. Ratios are \
         taken within a round.\nA target is met or missed only where the spread is smaller than the median's distance to it.\n"
    )?;
    Ok(())
}

fn speed(table: &mut Vec<[String; 7]>, rounds: &[Round]) -> Result<()> {
    for contender in Contender::ALL {
        let Some(own) = summary(rounds, contender, |sample| sample.events_per_s) else { continue };
        let mut row = row("events/s", contender.name(), &own, 0);
        row[4] = ratio(rounds, contender, |sample| sample.events_per_s)?;
        table.push(row);
    }
    let ratio = paired(rounds, Contender::Null, Contender::Bare, |sample| sample.events_per_s)?;
    push_judged(table, "events/s, ratio", "null output / bare", &ratio, 2, Target::AtLeast(0.95), "×");
    Ok(())
}

fn processor(table: &mut Vec<[String; 7]>, rounds: &[Round]) -> Result<()> {
    for contender in Contender::ALL {
        let Some(own) = summary(rounds, contender, |sample| sample.cpu_us) else { continue };
        let target = match contender {
            Contender::Null => Some(Target::AtMost(4.0)),
            Contender::Json => Some(Target::AtMost(10.0)),
            _ => None,
        };
        let mut row = row("CPU per event, µs", contender.name(), &own, 2);
        row[4] = ratio(rounds, contender, |sample| sample.cpu_us)?;
        if let Some(target) = target {
            judge(&mut row, &own, target, 0, " µs");
        }
        table.push(row);
    }
    Ok(())
}

fn fan_out(table: &mut Vec<[String; 7]>, rounds: &[Round]) -> Result<()> {
    for contender in Contender::ALL {
        let Some(own) = summary(rounds, contender, |sample| sample.mongod_cpu_us) else { continue };
        let mut row = row("mongod CPU per event, µs", contender.name(), &own, 2);
        row[4] = ratio(rounds, contender, |sample| sample.mongod_cpu_us)?;
        table.push(row);
    }
    let ratio = paired(rounds, Contender::TenNull, Contender::Null, |sample| sample.mongod_cpu_us)?;
    push_judged(table, "mongod CPU, ratio", "10 outputs / 1 output", &ratio, 2, Target::AtMost(1.15), "×");
    Ok(())
}

fn memory(table: &mut Vec<[String; 7]>, rounds: &[Round]) -> Result<()> {
    let idle = Summary::of(rounds.iter().map(|round| round.idle_mb)).context("no rounds")?;
    for contender in Contender::ALL {
        let Some(own) = summary(rounds, contender, |sample| sample.peak_mb) else { continue };
        let mut row = row("peak memory, MB", contender.name(), &own, 1);
        if contender == Contender::Null {
            judge(&mut row, &own, Target::AtMost(WINDOW_MB + 24.0), 1, " MB");
        }
        table.push(row);
    }
    push_judged(table, "idle memory, MB", Contender::Null.name(), &idle, 1, Target::AtMost(20.0), " MB");
    Ok(())
}

fn summary(rounds: &[Round], contender: Contender, value: impl Fn(&Sample) -> f64) -> Option<Summary> {
    Summary::of(rounds.iter().filter_map(|round| round.of(contender)).map(value))
}

/// One ratio for each round.
fn paired(rounds: &[Round], over: Contender, under: Contender, value: impl Fn(&Sample) -> f64) -> Result<Summary> {
    let pairs = rounds.iter().filter_map(|round| Some((round.of(over)?, round.of(under)?)));
    Summary::of(pairs.map(|(over, under)| value(over) / value(under))).context("no rounds")
}

fn ratio(rounds: &[Round], contender: Contender, value: impl Fn(&Sample) -> f64) -> Result<String> {
    Ok(format!("{:.2}×", paired(rounds, contender, Contender::Bare, value)?.median))
}

fn row(what: &str, contender: &str, summary: &Summary, digits: usize) -> [String; 7] {
    let Summary { median, min, max } = summary;
    let spread = format!("{min:.digits$} – {max:.digits$}");
    [
        what.to_owned(),
        contender.to_owned(),
        format!("{median:.digits$}"),
        spread,
        String::new(),
        String::new(),
        String::new(),
    ]
}

fn push_judged(
    table: &mut Vec<[String; 7]>,
    what: &str,
    contender: &str,
    summary: &Summary,
    digits: usize,
    target: Target,
    unit: &str,
) {
    let mut row = row(what, contender, summary, digits);
    judge(&mut row, summary, target, digits, unit);
    table.push(row);
}

fn judge(row: &mut [String; 7], summary: &Summary, target: Target, digits: usize, unit: &str) {
    row[5] = match target {
        Target::AtLeast(value) => format!("≥ {value:.digits$}{unit}"),
        Target::AtMost(value) => format!("≤ {value:.digits$}{unit}"),
    };
    row[6] = verdict(summary, target).to_owned();
}

/// Columns as wide as their widest cell.
pub fn lay_out<const COLUMNS: usize>(text: &mut String, table: &[[String; COLUMNS]]) -> Result<()> {
    let widths: Vec<usize> =
        (0..COLUMNS).map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for (number, row) in table.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "| {cell:width$} ")?;
        }
        writeln!(text, "|")?;
        if number == 0 {
            widths.iter().try_for_each(|width| write!(text, "| {:-<width$} ", ""))?;
            writeln!(text, "|")?;
        }
    }
    Ok(())
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or("unknown CPU", |(_, name)| name.trim()).to_owned()
}

fn locked_version(package: &str) -> Result<&'static str> {
    let (_, rest) =
        CARGO_LOCK.split_once(&format!("name = \"{package}\"\nversion = \"")).context("not in Cargo.lock")?;
    rest.split('"').next().context("Cargo.lock")
}
