//! The table of `latency`.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::latency::{Measured, Percentiles, Phase, Round};
use crate::report::{self, Conditions};
use crate::statistics::{Summary, Target, verdict};

/// Of the design, in milliseconds: what the daemon may add.
const ADDED_MAX: Percentiles = Percentiles { p50: 1.0, p99: 3.0 };

/// The whole file.
pub fn markdown(conditions: &Conditions, rate: u32, seconds: u32, rounds: &[Round]) -> Result<String> {
    let mut text = String::from("# insert → SSE client\n\n");
    writeln!(
        text,
        "{} {rate} inserts/s in an open loop, {} events in each phase, {} interleaved runs. The \
         majority does not wait for the disk.\n",
        conditions.lines("latency")?,
        u64::from(rate) * u64::from(seconds),
        rounds.len()
    )?;
    writeln!(
        text,
        "Milliseconds from just before the insert is issued to the return of the read that brought its event: to a watcher of raw batches \
         with the\ndaemon's pipeline and options, and to a client of the daemon's `sse` output. \"Alone\": the other was not running, the \
         difference is that of the\npercentiles of one run. \"At once\": both had the same events, the difference is taken for each event. \
         A target is met or missed only where the\nspread is smaller than the median's distance to it.\n"
    )?;
    let mut table =
        vec![["phase", "what", "percentile", "median, ms", "min – max", "target", "result"].map(str::to_owned)];
    for percentile in [P50, P99] {
        alone(&mut table, rounds, &percentile)?;
    }
    for percentile in [P50, P99] {
        at_once(&mut table, rounds, &percentile)?;
    }
    report::lay_out(&mut text, &table)?;
    let late = rounds.iter().flat_map(Round::all).map(|measured| measured.late.p99).fold(0.0, f64::max);
    writeln!(
        text,
        "\nThe writer kept to its schedule: 99 of 100 inserts of each phase were at most {late:.1} ms late."
    )?;
    Ok(text)
}

/// Which of the percentiles.
struct Percentile {
    name: &'static str,
    of: fn(&Percentiles) -> f64,
}

const P50: Percentile = Percentile { name: "p50", of: |both| both.p50 };
const P99: Percentile = Percentile { name: "p99", of: |both| both.p99 };

fn alone(table: &mut Vec<[String; 7]>, rounds: &[Round], percentile: &Percentile) -> Result<()> {
    let of = |phase, what: Of| values(rounds, phase, what, percentile);
    let (watcher, sse) = (of(Phase::Watcher, |m| m.watcher)?, of(Phase::Sse, |m| m.sse)?);
    let added: Vec<f64> = sse.iter().zip(&watcher).map(|(sse, watcher)| sse - watcher).collect();
    push(table, "watcher alone", "insert → acknowledgement", percentile, of(Phase::Watcher, acknowledged)?, false)?;
    push(table, "watcher alone", "insert → watcher", percentile, watcher, false)?;
    push(table, "SSE alone", "insert → acknowledgement", percentile, of(Phase::Sse, acknowledged)?, false)?;
    push(table, "SSE alone", "insert → SSE client", percentile, sse, false)?;
    push(table, "alone", "SSE client − watcher", percentile, added, true)
}

fn at_once(table: &mut Vec<[String; 7]>, rounds: &[Round], percentile: &Percentile) -> Result<()> {
    for (what, of, judged) in [
        ("insert → acknowledgement", acknowledged as Of, false),
        ("insert → watcher", |measured| measured.watcher, false),
        ("insert → SSE client", |measured| measured.sse, false),
        ("SSE client − watcher, each event", |measured| measured.apart, true),
    ] {
        push(table, "at once", what, percentile, values(rounds, Phase::Both, of, percentile)?, judged)?;
    }
    Ok(())
}

type Of = fn(&Measured) -> Option<Percentiles>;

fn acknowledged(measured: &Measured) -> Option<Percentiles> {
    Some(measured.acknowledged)
}

/// One for each round.
fn values(rounds: &[Round], phase: Phase, of: Of, percentile: &Percentile) -> Result<Vec<f64>> {
    let of = |round: &Round| Some((percentile.of)(&of(round.of(phase)?)?));
    rounds.iter().map(of).collect::<Option<_>>().context("a phase without its readers")
}

fn push(
    table: &mut Vec<[String; 7]>,
    phase: &str,
    what: &str,
    percentile: &Percentile,
    values: Vec<f64>,
    judged: bool,
) -> Result<()> {
    let summary = Summary::of(values).context("no rounds")?;
    let Summary { median, min, max } = summary;
    let max_added = (percentile.of)(&ADDED_MAX);
    let (target, result) = if judged {
        (format!("≤ {max_added:.0} ms"), verdict(&summary, Target::AtMost(max_added)).to_owned())
    } else {
        Default::default()
    };
    table.push([
        phase.to_owned(),
        what.to_owned(),
        percentile.name.to_owned(),
        format!("{median:.2}"),
        format!("{min:.2} – {max:.2}"),
        target,
        result,
    ]);
    Ok(())
}
