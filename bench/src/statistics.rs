//! Medians, spreads, and what they allow to say about a target. Pure.

/// What one run of one contender gave.
#[derive(Clone, Debug)]
pub struct Sample {
    /// From the first event seen to the last.
    pub events_per_s: f64,
    /// CPU of the contender's process for each event, its start included, in microseconds.
    pub cpu_us: f64,
    /// CPU of mongod for each event, in microseconds.
    pub mongod_cpu_us: f64,
    /// The most memory that was resident, in megabytes.
    pub peak_mb: f64,
    /// How often outputs fell off the window, all outputs together.
    pub catch_ups: u64,
}

/// A median and what it was taken from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Summary { median, min, max })
    }
}

/// The smallest value that this many of a hundred do not exceed; of sorted values.
pub fn percentile(sorted: &[f64], hundredths: usize) -> Option<f64> {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// What a value should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// `met` or `missed` only where the spread of the runs is smaller than the distance of their median to the target.
pub fn verdict(summary: &Summary, target: Target) -> &'static str {
    let distance = match target {
        Target::AtLeast(value) => summary.median - value,
        Target::AtMost(value) => value - summary.median,
    };
    match (summary.max - summary.min < distance.abs(), distance > 0.0) {
        (true, true) => "met",
        (true, false) => "missed",
        (false, true) => "undecided (median meets)",
        (false, false) => "undecided (median misses)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_count_is_the_mean_of_the_middle() {
        let expected = Some(Summary { median: 2.5, min: 1.0, max: 9.0 });
        assert_eq!(Summary::of([9.0, 2.0, 1.0, 3.0]), expected);
        assert_eq!(Summary::of([3.0, 1.0, 2.0]).map(|summary| summary.median), Some(2.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (values, hundredths, expected) in [
            (&hundred[..], 50, Some(50.0)),
            (&hundred[..], 99, Some(99.0)),
            (&hundred[..], 100, Some(100.0)),
            (&hundred[..3], 50, Some(2.0)),
            (&hundred[..3], 99, Some(3.0)),
            (&hundred[..1], 0, Some(1.0)),
            (&[], 50, None),
        ] {
            assert_eq!(percentile(values, hundredths), expected, "{hundredths} of {}", values.len());
        }
    }

    #[test]
    fn a_spread_as_large_as_the_distance_decides_nothing() {
        for (values, target, expected) in [
            ([0.97, 0.98, 0.99], Target::AtLeast(0.95), "met"),
            ([0.93, 0.98, 1.10], Target::AtLeast(0.95), "undecided (median meets)"),
            ([0.50, 0.51, 0.52], Target::AtLeast(0.95), "missed"),
            ([3.0, 3.1, 3.2], Target::AtMost(4.0), "met"),
            ([3.0, 4.1, 4.2], Target::AtMost(4.0), "undecided (median misses)"),
            ([7.0, 7.1, 7.2], Target::AtMost(4.0), "missed"),
        ] {
            let summary = Summary::of(values).expect("values");
            assert_eq!(verdict(&summary, target), expected, "{values:?} {target:?}");
        }
    }
}
