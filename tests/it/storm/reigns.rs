//! Which run of which instance delivered an output when: reigns that follow one another, with as many late requests of the one before
//! as it may have handed out; and how long each takeover took. Pure.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::fleet::{End, Run};
use super::receiver::Arrival;

/// One run after another, as the requests of one output show it.
#[derive(Debug, PartialEq, Eq)]
pub struct Reigns {
    /// How many.
    pub count: usize,
    /// The most requests of another run within one reign.
    pub strays_max: usize,
}

impl Reigns {
    /// The reading with the fewest strays, in which a run reigns from its first request on, and more requests than it may have
    /// handed out are a reign of their own. Two runs that deliver at the same time show as more strays, or more changes, than
    /// there can be.
    pub fn of(arrivals: &[Arrival], handed_out_max: usize) -> Reigns {
        let runs = arrivals.iter().map(|arrival| arrival.run + 1).max().unwrap_or(0);
        // Away and back again costs more than `handed_out_max` strays, and less than one more.
        let (stray, change) = (4, 2 * handed_out_max + 1);
        let never = (stray + change) * (arrivals.len() + 1);
        let mut seen = HashSet::new();
        // What it costs that each run reigns at the request looked at; which run came before it, where it was not itself.
        let mut costs = vec![0; runs];
        let mut before: Vec<(usize, Vec<bool>)> = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let cheapest = (0..runs).min_by_key(|run| costs[*run]).expect("a run");
            let other = if seen.insert(arrival.run) { never } else { stray };
            let cost = costs[cheapest] + change;
            let comes = costs.iter().map(|own| cost < *own).collect();
            for (run, own) in costs.iter_mut().enumerate() {
                *own = cost.min(*own) + if arrival.run == run { 0 } else { other };
            }
            before.push((cheapest, comes));
        }
        let Some(mut reigning) = (0..runs).min_by_key(|run| costs[*run]) else {
            return Reigns { count: 0, strays_max: 0 };
        };
        let (mut count, mut strays, mut strays_max) = (1, 0, 0);
        for (arrival, (cheapest, comes)) in arrivals.iter().zip(&before).rev() {
            strays += usize::from(arrival.run != reigning);
            strays_max = strays_max.max(strays);
            if comes[reigning] {
                (reigning, strays, count) = (*cheapest, 0, count + 1);
            }
        }
        Reigns { count, strays_max }
    }
}

/// For each end of a run that had delivered last: how long until another one delivered.
pub fn takeovers(runs: &[Run], arrivals: &[Arrival], end: End) -> Vec<Duration> {
    let mut times: Vec<(Instant, usize)> =
        arrivals.iter().filter_map(|arrival| Some((arrival.at?, arrival.run))).collect();
    times.sort();
    let mut takeovers = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let Some((at, how)) = run.ended else { continue };
        let next = times.partition_point(|(time, _)| *time <= at);
        let held = next.checked_sub(1).is_some_and(|last| times[last].1 == number);
        let other = times[next..].iter().find(|(_, by)| *by != number);
        if let (true, Some((time, _))) = (held && how == end, other) {
            takeovers.push(*time - at);
        }
    }
    takeovers.sort();
    takeovers
}

#[test]
fn two_that_deliver_at_once_are_seen() {
    let arrivals = |runs: &[usize]| -> Vec<Arrival> {
        let one = |run: &usize| Arrival { run: *run, id: "".into(), at: None, told: super::receiver::Told::Taken };
        runs.iter().map(one).collect()
    };
    let check = |runs: &[usize], count, strays_max| {
        assert_eq!(Reigns::of(&arrivals(runs), 1), Reigns { count, strays_max }, "{runs:?}");
    };
    check(&[], 0, 0);
    check(&[0, 0, 0, 0], 1, 0);
    check(&[[0; 20], [1; 20], [0; 20]].concat(), 3, 0);
    check(&[&[0; 20][..], &[1, 1, 0, 1], &[1; 20]].concat(), 2, 1);
    // Short lives.
    check(&[&[0; 20][..], &[1], &[2; 20]].concat(), 3, 0);
    check(&[&[0; 20][..], &[1; 20], &[0, 0], &[1; 20]].concat(), 4, 0);
    check(&[&[0; 20][..], &[1, 0].repeat(20), &[1; 20]].concat(), 2, 20);
}
