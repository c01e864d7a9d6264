//! The table of `event`.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::rounds::{Role, Run, Times};
use super::{Arguments, Measured};
use crate::report::{self, Conditions};
use crate::statistics::{Summary, Target, verdict};

/// How much faster than the Document path.
const RATIO_MIN: f64 = 4.0;

type Row = [String; 9];

/// The whole file.
pub fn markdown(conditions: &Conditions, arguments: &Arguments, measured: &Measured) -> Result<String> {
    let [small, large] = measured.sizes;
    let mut text = String::from("# JSON, match and template of one event\n\n");
    writeln!(
        text,
        "{} Insert events of {small} and {large} bytes, {} runs of {} interleaved rounds.\n",
        conditions.lines("event")?,
        arguments.runs,
        arguments.rounds
    )?;
    writeln!(
        text,
        "Nanoseconds for one event, on one thread: each contender has a turn of 50 µs or more in each round. \"Median\" is that of the runs' \
         medians, \"min –\nmax\" are theirs, \"best\" is the shortest turn of all. \"Times Tailwater\" says how often as long a contender takes as \
         the first of its task, within a run.\n`Event::json` copies the event, finds its fields, makes its id (SHA-256) and the JSON; \
         `tailwater_raw alone` makes the JSON only. A Document is decoded\nfrom the event's BSON each time. The SDK's template gets its \
         event through the border; if it asks for JSON, that is already made. A target is met or\nmissed only where the spread is smaller than \
         the median's distance to it.\n"
    )?;
    let heads =
        ["event", "task", "contender", "median, ns", "min – max", "best", "times Tailwater", "target", "result"];
    let mut table = vec![heads.map(str::to_owned)];
    for times in &measured.times {
        rows(&mut table, times)?;
    }
    report::lay_out(&mut text, &table)?;
    for refused in &measured.refused {
        writeln!(text, "\nRefused by the matcher and not measured: {refused}.")?;
    }
    Ok(text)
}

fn rows(table: &mut Vec<Row>, times: &Times) -> Result<()> {
    let (_, _, ours) = times.contenders.first().context("a task without contenders")?;
    // Targets are for the small event.
    let judged = times.max_ns.filter(|_| times.size == "500 B");
    for (name, role, runs) in &times.contenders {
        let own = summary(runs.iter().map(|run| run.median))?;
        let ratio = summary(runs.iter().zip(ours).map(|(run, ours)| run.median / ours.median))?;
        let best = runs.iter().map(|run: &Run| run.best).fold(f64::INFINITY, f64::min);
        let (target, result) = match (role, judged) {
            (Role::Ours, Some(max)) => (format!("≤ {max:.0} ns"), verdict(&own, Target::AtMost(max))),
            (Role::Document, Some(_)) => (format!("≥ {RATIO_MIN:.1}×"), verdict(&ratio, Target::AtLeast(RATIO_MIN))),
            _ => Default::default(),
        };
        table.push([
            times.size.to_owned(),
            times.what.clone(),
            (*name).to_owned(),
            format!("{:.0}", own.median),
            format!("{:.0} – {:.0}", own.min, own.max),
            format!("{best:.0}"),
            match role {
                Role::Ours => String::new(),
                _ => format!("{:.1}× ({:.1} – {:.1})", ratio.median, ratio.min, ratio.max),
            },
            target,
            result.to_owned(),
        ]);
    }
    Ok(())
}

fn summary(values: impl IntoIterator<Item = f64>) -> Result<Summary> {
    Summary::of(values).context("no runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_judged_for_the_small_event_only() {
        let run = |median| Run { median, best: median - 1.0 };
        let times = |size| Times {
            size,
            what: "match".to_owned(),
            max_ns: Some(150.0),
            contenders: vec![
                ("ours", Role::Ours, vec![run(100.0), run(110.0), run(90.0)]),
                ("document", Role::Document, vec![run(500.0), run(330.0), run(900.0)]),
                ("other", Role::Other, vec![run(200.0); 3]),
            ],
        };
        let mut table = Vec::new();
        rows(&mut table, &times("500 B")).expect("rows");
        rows(&mut table, &times("20 KB")).expect("rows");
        let cells = |row: &Row| row[3..].to_vec();
        assert_eq!(cells(&table[0]), ["100", "90 – 110", "89", "", "≤ 150 ns", "met"]);
        // 5, 3 and 10 times as long.
        assert_eq!(
            cells(&table[1]),
            ["500", "330 – 900", "329", "5.0× (3.0 – 10.0)", "≥ 4.0×", "undecided (median meets)"]
        );
        assert_eq!(cells(&table[2]), ["200", "200 – 200", "199", "2.0× (1.8 – 2.2)", "", ""]);
        assert!(table[3..].iter().all(|row| row[7].is_empty() && row[8].is_empty()));
    }
}
