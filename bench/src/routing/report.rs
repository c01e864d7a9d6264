//! The tables of `routing`.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::scenario::{OUTPUTS_MAX, Scenario};
use super::{Contender, Measured, OUTPUTS, Round, Sample};
use crate::report::{self, Conditions};
use crate::statistics::{Summary, Target, verdict};

/// Of the design: mongod's CPU with 100 outputs against that with one.
const RATIO_MAX: f64 = 1.15;

/// The whole file.
pub fn markdown(conditions: &Conditions, measured: &Measured) -> Result<String> {
    let mut text = String::from("# 1, 10 and 100 outputs on one stream\n\n");
    writeln!(
        text,
        "{} {} events of about 550 bytes (86 % inserts, 10 % updates, 4 % deletions) in 100 collections, {} interleaved runs.\n",
        conditions.lines("routing")?,
        measured.events,
        measured.rounds.len()
    )?;
    writeln!(
        text,
        "All read the same history to its end. Each output acknowledges without looking and must get exactly the events that it wants. \
         \"Bare loop\" is the\nsame driver that only counts, with one `$match` as a person would write it for all the outputs. \"Without \
         pushdown\" there is one more output, which\nwants every event: mongod can leave nothing out. CPU is that of the whole process from its \
         start (of mongod: meanwhile), user and system, checkpoints\nincluded; \"its start alone\" ends when the daemon is ready and has \
         nothing to read. Sent is all that mongod sent meanwhile, by its own count. Ratios are\ntaken within a round. A target is met or \
         missed only where the spread is smaller than the median's distance to it.\n"
    )?;
    report::lay_out(&mut text, &costs(measured)?)?;
    writeln!(text)?;
    report::lay_out(&mut text, &ratios(measured)?)?;
    writeln!(text)?;
    for scenario in &measured.scenarios {
        writeln!(text, "- {}: {}", scenario.name(), scenario.says())?;
    }
    for (scenario, reason) in &measured.refused {
        writeln!(text, "- {}: not measured, {reason}", scenario.name())?;
    }
    let catch_ups: u64 = measured.rounds.iter().flat_map(|round| &round.0).map(|(_, sample)| sample.catch_ups).sum();
    writeln!(text, "\nOutputs fell off the window, all runs together: {catch_ups}.")?;
    Ok(text)
}

type Cost = [String; 10];

fn costs(measured: &Measured) -> Result<Vec<Cost>> {
    let heads = [
        "match",
        "contender",
        "outputs",
        "events read",
        "sent, MB",
        "mongod CPU per event written, µs",
        "of 1 output",
        "our CPU per event written, µs",
        "per event read, µs",
        "peak memory, MB",
    ];
    let mut table = vec![heads.map(str::to_owned)];
    table.push(cost(measured, "every event", "bare loop", "", Contender::BareAll)?);
    table.push(cost(measured, "every event", "Tailwater", "1", Contender::All)?);
    for outputs in OUTPUTS {
        let start = Contender::Start(outputs);
        table.push(cost(measured, "none", "Tailwater, its start alone", &outputs.to_string(), start)?);
    }
    for scenario in measured.scenarios.iter().copied() {
        for (name, of) in KINDS {
            for outputs in OUTPUTS {
                table.push(cost(measured, scenario.name(), name, &outputs.to_string(), of(scenario, outputs))?);
            }
        }
    }
    Ok(table)
}

type Of = fn(Scenario, usize) -> Contender;

const KINDS: [(&str, Of); 3] = [
    ("bare loop, `$match` by hand", Contender::Bare),
    ("Tailwater", Contender::Pushed),
    ("Tailwater, without pushdown", Contender::Unpushed),
];

fn cost(measured: &Measured, what: &str, name: &str, outputs: &str, contender: Contender) -> Result<Cost> {
    let (rounds, written) = (&measured.rounds, measured.events as f64);
    let each = |value: fn(&Sample) -> f64| {
        let values = rounds.iter().filter_map(|round| round.of(contender)).map(value);
        Summary::of(values).with_context(|| format!("no {contender:?}"))
    };
    let per_written = |value: fn(&Sample) -> f64| {
        let Summary { median, min, max } = each(value)?;
        let [median, min, max] = [median, min, max].map(|seconds| seconds * 1e6 / written);
        anyhow::Ok(format!("{median:.2} ({min:.2} – {max:.2})"))
    };
    let one = contender.with(1);
    let of_one = match one == contender {
        true => String::new(),
        false => format!("{:.2}×", paired(rounds, contender, one, |sample| sample.mongod_s)?.median),
    };
    Ok([
        what.to_owned(),
        name.to_owned(),
        outputs.to_owned(),
        format!("{:.0}", each(|sample| sample.events_read as f64)?.median),
        format!("{:.2}", each(|sample| sample.sent_bytes as f64 / 1e6)?.median),
        per_written(|sample| sample.mongod_s)?,
        of_one,
        per_written(|sample| sample.cpu_s)?,
        match each(|sample| sample.events_read as f64)?.median > 0.0 {
            true => format!("{:.2}", each(|sample| sample.cpu_s * 1e6 / sample.events_read as f64)?.median),
            false => String::new(),
        },
        format!("{:.1}", each(|sample| sample.peak_mb)?.median),
    ])
}

type Ratio = [String; 6];

/// What is asked: whether more outputs cost mongod more, and how far the daemon is from a `$match` by hand.
fn ratios(measured: &Measured) -> Result<Vec<Ratio>> {
    let rounds = &measured.rounds;
    let mut table = vec![["match", "ratio", "median", "min – max", "target", "result"].map(str::to_owned)];
    for scenario in measured.scenarios.iter().copied() {
        let mut push = |what, values: &Summary, judged| table.push(ratio(scenario.name(), what, values, judged));
        let [bare, pushed, unpushed] = KINDS.map(|(_, of)| of(scenario, OUTPUTS_MAX));
        let mongod = |sample: &Sample| sample.mongod_s;
        push("mongod CPU, 100 outputs / 1 output", &paired(rounds, pushed, pushed.with(1), mongod)?, true);
        push("the same without the start", &reading(rounds, scenario)?, true);
        push("the same, `$match` by hand", &paired(rounds, bare, bare.with(1), mongod)?, false);
        push("mongod CPU, 100 outputs / `$match` by hand", &paired(rounds, pushed, bare, mongod)?, false);
        push("mongod CPU, 100 outputs, pushdown / without", &paired(rounds, pushed, unpushed, mongod)?, false);
        push("sent, 100 outputs, pushdown / without", &paired(rounds, pushed, unpushed, sent)?, false);
        push("our CPU, 100 outputs, pushdown / without", &paired(rounds, pushed, unpushed, own)?, false);
    }
    Ok(table)
}

/// mongod's CPU with 100 outputs against that with one, each less what their start alone costs it.
fn reading(rounds: &[Round], scenario: Scenario) -> Result<Summary> {
    let of = |round: &Round, outputs| {
        let (all, start) = (round.of(Contender::Pushed(scenario, outputs))?, round.of(Contender::Start(outputs))?);
        Some(all.mongod_s - start.mongod_s)
    };
    let ratios = rounds.iter().filter_map(|round| Some(of(round, OUTPUTS_MAX)? / of(round, 1)?));
    Summary::of(ratios).context("no rounds")
}

fn sent(sample: &Sample) -> f64 {
    sample.sent_bytes as f64
}

fn own(sample: &Sample) -> f64 {
    sample.cpu_s
}

fn ratio(scenario: &str, what: &str, ratio: &Summary, judged: bool) -> Ratio {
    let Summary { median, min, max } = ratio;
    let (target, result) = match judged {
        true => (format!("≤ {RATIO_MAX:.2}×"), verdict(ratio, Target::AtMost(RATIO_MAX))),
        false => Default::default(),
    };
    let cells = [scenario, what, &format!("{median:.2}"), &format!("{min:.2} – {max:.2}"), &target, result];
    cells.map(str::to_owned)
}

/// One ratio for each round.
fn paired(rounds: &[Round], over: Contender, under: Contender, value: fn(&Sample) -> f64) -> Result<Summary> {
    let pairs = rounds.iter().filter_map(|round| Some((round.of(over)?, round.of(under)?)));
    Summary::of(pairs.map(|(over, under)| value(over) / value(under))).context("no rounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round in which mongod's CPU for `many` outputs is so many seconds, and 1 s for one.
    fn round(many: f64) -> Round {
        let sample = |mongod_s| Sample {
            mongod_s,
            sent_bytes: 2_000_000,
            cpu_s: 0.5,
            events_read: 100,
            peak_mb: 20.0,
            catch_ups: 1,
        };
        let seconds = |contender| match contender {
            Contender::Pushed(_, OUTPUTS_MAX) => many,
            Contender::Unpushed(..) => 5.0,
            Contender::Start(1) => 0.1,
            Contender::Start(_) => 0.2,
            _ => 1.0,
        };
        let contenders = Contender::all(&[Scenario::Tenant]);
        Round(contenders.into_iter().map(|contender| (contender, sample(seconds(contender)))).collect())
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_judged() {
        let rounds = vec![round(1.05), round(1.06), round(1.04)];
        let measured = Measured { events: 1_000_000, scenarios: vec![Scenario::Tenant], refused: Vec::new(), rounds };
        let table = ratios(&measured).expect("ratios");
        assert_eq!(table[1][2..], ["1.05", "1.04 – 1.06", "≤ 1.15×", "met"].map(str::to_owned));
        // (1.05 − 0.2) / (1 − 0.1)
        assert_eq!(table[2][2..], ["0.94", "0.93 – 0.96", "≤ 1.15×", "met"].map(str::to_owned));
        assert_eq!(table[5][2..4], ["0.21", "0.21 – 0.21"].map(str::to_owned));
        let table = costs(&measured).expect("costs");
        assert_eq!(table.len(), 1 + 5 + 9);
        let hundred = &table[1 + 5 + 5];
        let expected =
            ["tenant", "Tailwater", "100", "100", "2.00", "1.05 (1.04 – 1.06)", "1.05×", "0.50 (0.50 – 0.50)"];
        assert_eq!(hundred[..8], expected.map(str::to_owned));
        assert_eq!(hundred[8], "5000.00");
    }
}
