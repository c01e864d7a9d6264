//! The plot of `backlog`: memory, the fast output's lag, and the slow receiver's pace and backlog, over one axis of time. A few lines of
//! SVG; it knows nothing of how the numbers came about.

use std::fmt::Write;
use std::time::Instant;

use anyhow::Result;

use crate::backlog::Run;
use crate::backlog_report::{BOUND_MB, LAG_MAX_MS, lags};
use crate::limited_receiver::Arrival;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 200.0;
/// Between panels: room for a title.
const GAP: f64 = 50.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;

struct Line {
    name: &'static str,
    colour: &'static str,
    /// Seconds, value.
    points: Vec<(f64, f64)>,
}

struct Panel {
    title: &'static str,
    lines: Vec<Line>,
    /// A limit: its name, its value.
    limit: Option<(&'static str, f64)>,
    scale: Scale,
}

#[derive(Clone, Copy)]
enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From 0.1 to this, in powers of ten.
    Powers(f64),
}

impl Scale {
    /// From the bottom, as a share of the height.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Scale::Linear(max) => value / max,
            Scale::Powers(max) => (value.max(0.1).log10() + 1.0) / (max.log10() + 1.0),
        };
        share.clamp(0.0, 1.0)
    }

    fn marks(self) -> Vec<f64> {
        match self {
            Scale::Linear(max) => (0..=5).map(|fifth| max * f64::from(fifth) / 5.0).collect(),
            Scale::Powers(max) => (-1..=max.log10().round() as i32).map(|power| 10_f64.powi(power)).collect(),
        }
    }
}

/// The whole file.
pub fn svg(run: &Run) -> Result<String> {
    let seconds = |at: Instant| at.saturating_duration_since(run.begun).as_secs_f64();
    let end = run.samples.last().map_or(1.0, |sample| seconds(sample.at)).max(1.0);
    let panels = panels(run, &seconds, end)?;
    let height = GAP + panels.len() as f64 * (PANEL + GAP);
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    let mut text = String::new();
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    )?;
    for (number, panel) in panels.iter().enumerate() {
        let top = GAP + number as f64 * (PANEL + GAP);
        panel_svg(&mut text, panel, top, &x)?;
        for (at, word) in [(run.opened, "the slow receiver opens"), (run.gone, "backlog gone")] {
            let at = x(seconds(at));
            writeln!(
                text,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{}\" stroke=\"#888\"/>",
                top + PANEL
            )?;
            if number == 0 {
                writeln!(
                    text,
                    "<text x=\"{at:.1}\" y=\"{}\" fill=\"#555\" text-anchor=\"end\">{word}</text>",
                    top - 28.0
                )?;
            }
        }
        let step = [5.0, 10.0, 20.0, 50.0, 100.0].into_iter().find(|step| end / step <= 12.0).unwrap_or(300.0);
        for mark in 0..=(end / step) as u32 {
            let at = f64::from(mark) * step;
            let y = top + PANEL + 15.0;
            writeln!(text, "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#555\">{at:.0} s</text>", x(at))?;
        }
    }
    text.push_str("</svg>\n");
    Ok(text)
}

fn panels(run: &Run, seconds: &impl Fn(Instant) -> f64, end: f64) -> Result<Vec<Panel>> {
    let sampled = |name, colour, value: fn(&crate::backlog_samples::Sample) -> f64| {
        let points = run.samples.iter().map(|sample| (seconds(sample.at), value(sample))).collect();
        Line { name, colour, points }
    };
    let lags: Vec<(f64, f64)> = lags(run)?.iter().map(|lag| (seconds(lag.at), lag.acknowledged_ms)).collect();
    let each_second = |name, colour, of: fn(&[f64]) -> f64| Line { name, colour, points: windows(&lags, of) };
    let most = lags.iter().map(|lag| lag.1).fold(LAG_MAX_MS, f64::max);
    let pace_max = f64::from(run.rate) * 1.25;
    Ok(vec![
        Panel {
            title: "memory of the daemon, MB",
            lines: vec![
                sampled("resident", "#c33", |sample| sample.resident_mb),
                sampled("heap and stacks", "#e90", |sample| sample.anonymous_mb),
                sampled("held for slow", "#36c", |sample| sample.slow_held_mb),
            ],
            limit: Some(("bound", BOUND_MB)),
            scale: Scale::Linear(run.samples.iter().map(|s| s.resident_mb).fold(100.0, f64::max)),
        },
        Panel {
            title: "fast output: from the acknowledged write to its receipt, ms, each second",
            lines: vec![
                each_second("max", "#c33", |sorted| sorted.last().copied().unwrap_or(0.0)),
                each_second("median", "#36c", |sorted| sorted[sorted.len() / 2]),
            ],
            limit: Some(("1 s", LAG_MAX_MS)),
            scale: Scale::Powers(10_f64.powf(most.log10().ceil())),
        },
        Panel {
            title: "slow receiver, events/s",
            lines: vec![Line { name: "taken", colour: "#383", points: pace(&run.slow, seconds, end) }],
            limit: Some(("its limit", f64::from(run.rate))),
            scale: Scale::Linear(pace_max),
        },
        Panel {
            title: "slow receiver, events left",
            lines: vec![sampled("left", "#36c", |sample| sample.left as f64)],
            limit: None,
            scale: Scale::Linear(round_up(run.samples.iter().map(|sample| sample.left as f64).fold(1.0, f64::max))),
        },
    ])
}

/// To one digit and zeros.
fn round_up(value: f64) -> f64 {
    let step = 10_f64.powf(value.log10().floor());
    (value / step).ceil() * step
}

/// Of the values of each second, sorted; at the middle of the second.
fn windows(points: &[(f64, f64)], of: fn(&[f64]) -> f64) -> Vec<(f64, f64)> {
    let of_second = |second: &[(f64, f64)]| {
        let mut values: Vec<f64> = second.iter().map(|point| point.1).collect();
        values.sort_by(f64::total_cmp);
        (second[0].0.floor() + 0.5, of(&values))
    };
    points.chunk_by(|a, b| a.0.floor() == b.0.floor()).map(of_second).collect()
}

fn pace(arrivals: &[Arrival], seconds: &impl Fn(Instant) -> f64, end: f64) -> Vec<(f64, f64)> {
    let mut counts = vec![0_u32; end as usize + 1];
    for arrival in arrivals {
        if let Some(count) = counts.get_mut(seconds(arrival.at) as usize) {
            *count += 1;
        }
    }
    counts.iter().enumerate().map(|(second, count)| (second as f64 + 0.5, f64::from(*count))).collect()
}

fn panel_svg(text: &mut String, panel: &Panel, top: f64, x: &impl Fn(f64) -> f64) -> Result<()> {
    let y = |value: f64| top + PANEL * (1.0 - panel.scale.share(value));
    let (right, title) = (WIDTH - RIGHT, panel.title);
    writeln!(text, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>", top - 10.0)?;
    for mark in panel.scale.marks() {
        let at = y(mark);
        writeln!(text, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>")?;
        let digits = usize::from(mark < 1.0 && mark > 0.0);
        let (left, base) = (LEFT - 6.0, at + 4.0);
        writeln!(text, "<text x=\"{left}\" y=\"{base:.1}\" text-anchor=\"end\" fill=\"#555\">{mark:.digits$}</text>")?;
    }
    if let Some((name, value)) = panel.limit {
        let at = y(value);
        writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#000\" stroke-dasharray=\"5 4\"/>"
        )?;
        writeln!(text, "<text x=\"{}\" y=\"{:.1}\">{name}</text>", LEFT + 4.0, at + 14.0)?;
    }
    for (number, line) in panel.lines.iter().enumerate() {
        let Line { name, colour, points } = line;
        let points: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        writeln!(text, "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/>", points.join(" "))?;
        let at = right - 110.0 * (panel.lines.len() - 1 - number) as f64;
        writeln!(text, "<text x=\"{at:.1}\" y=\"{}\" fill=\"{colour}\" text-anchor=\"end\">{name}</text>", top - 10.0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_second_become_one_point() {
        let points = [(0.1, 3.0), (0.9, 1.0), (2.0, 5.0)];
        assert_eq!(windows(&points, |sorted| sorted[sorted.len() - 1]), [(0.5, 3.0), (2.5, 5.0)]);
    }

    #[test]
    fn a_scale_reaches_from_its_bottom_to_its_top() {
        for (scale, value, share) in [
            (Scale::Linear(80.0), 20.0, 0.25),
            (Scale::Linear(80.0), 99.0, 1.0),
            (Scale::Powers(1000.0), 0.0, 0.0),
            (Scale::Powers(1000.0), 10.0, 0.5),
            (Scale::Powers(1000.0), 1000.0, 1.0),
        ] {
            assert!((scale.share(value) - share).abs() < 1e-9, "{value}");
        }
        assert_eq!(Scale::Powers(1000.0).marks().len(), 5);
    }
}
