//! Takes the time of each contender in short turns, round after round, so that what disturbs one disturbs all of them.

use std::time::Instant;

use crate::progress;
use crate::statistics::Summary;

/// A turn takes at least this long: the clock itself costs 30 ns or so.
const TURN_NS: f64 = 50_000.0;

/// What is done with an event, by several that do it differently.
pub struct Task<'a> {
    /// Which event.
    pub size: &'static str,
    pub what: String,
    /// The first is the one that all are compared with.
    pub contenders: Vec<Contender<'a>>,
    /// Tailwater's target for the small event.
    pub max_ns: Option<f64>,
}

/// One way to do it.
pub struct Contender<'a> {
    pub name: &'static str,
    /// How it counts.
    pub role: Role,
    work: Box<dyn Fn() + 'a>,
}

/// How a contender counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has the target.
    Ours,
    /// The reference of the target: decodes to `bson::Document` first.
    Document,
    /// Only shown.
    Other,
}

impl<'a> Contender<'a> {
    /// See [`Role::Ours`].
    pub fn ours(name: &'static str, work: impl Fn() + 'a) -> Contender<'a> {
        Contender { name, role: Role::Ours, work: Box::new(work) }
    }

    /// See [`Role::Document`].
    pub fn document(name: &'static str, work: impl Fn() + 'a) -> Contender<'a> {
        Contender { role: Role::Document, ..Contender::ours(name, work) }
    }

    /// See [`Role::Other`].
    pub fn other(name: &'static str, work: impl Fn() + 'a) -> Contender<'a> {
        Contender { role: Role::Other, ..Contender::ours(name, work) }
    }

    /// Nanoseconds for once, from a turn of so many times.
    fn turn(&self, times: u32) -> f64 {
        let start = Instant::now();
        (0..times).for_each(|_| (self.work)());
        start.elapsed().as_nanos() as f64 / f64::from(times)
    }

    /// How many times make a turn.
    fn times(&self) -> u32 {
        let once = (0..20).map(|_| self.turn(20)).fold(f64::INFINITY, f64::min);
        (TURN_NS / once).clamp(1.0, 5_000.0).ceil() as u32
    }
}

/// The times of one task, without the work.
pub struct Times {
    pub size: &'static str,
    pub what: String,
    pub max_ns: Option<f64>,
    pub contenders: Vec<(&'static str, Role, Vec<Run>)>,
}

/// What a run of many rounds gave for one contender, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub median: f64,
    pub best: f64,
}

/// All contenders of all tasks in turn, `rounds` times in each run.
pub fn measure(tasks: &[Task<'_>], runs: usize, rounds: usize) -> Vec<Times> {
    let times: Vec<Vec<u32>> =
        tasks.iter().map(|task| task.contenders.iter().map(Contender::times).collect()).collect();
    let mut measured: Vec<Times> = tasks.iter().map(Times::of).collect();
    for run in 0..runs {
        let mut turns: Vec<Vec<Vec<f64>>> =
            tasks.iter().map(|task| vec![Vec::with_capacity(rounds); task.contenders.len()]).collect();
        for round in 0..rounds {
            for (at, task) in tasks.iter().enumerate() {
                for step in 0..task.contenders.len() {
                    // Each begins in turn, so that none always follows the same one.
                    let which = (round + step) % task.contenders.len();
                    turns[at][which].push(task.contenders[which].turn(times[at][which]));
                }
            }
        }
        for (measured, turns) in measured.iter_mut().zip(turns) {
            for ((_, _, runs), turns) in measured.contenders.iter_mut().zip(turns) {
                runs.extend(Summary::of(turns).map(|summary| Run { median: summary.median, best: summary.min }));
            }
        }
        progress(&format!("run {}/{runs}", run + 1));
    }
    measured
}

impl Times {
    fn of(task: &Task<'_>) -> Times {
        let contenders = task.contenders.iter().map(|contender| (contender.name, contender.role, Vec::new())).collect();
        Times { size: task.size, what: task.what.clone(), max_ns: task.max_ns, contenders }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn each_contender_has_a_turn_in_each_round() {
        let (first, second) = (Cell::new(0_u64), Cell::new(0_u64));
        let spin = |count: &Cell<u64>| {
            count.set(count.get() + 1);
            (0..2_000).for_each(|n| _ = std::hint::black_box(n));
        };
        let contenders = vec![Contender::ours("a", || spin(&first)), Contender::document("b", || spin(&second))];
        let task = Task { size: "s", what: "spin".to_owned(), contenders, max_ns: Some(1.0) };
        let measured = measure(&[task], 3, 4);
        let [(a, Role::Ours, a_runs), (b, Role::Document, b_runs)] = &measured[0].contenders[..] else { panic!("two") };
        assert_eq!((*a, *b, a_runs.len(), b_runs.len()), ("a", "b", 3, 3));
        assert!(a_runs.iter().chain(b_runs).all(|run| run.best > 0.0 && run.best <= run.median));
        // 20 turns of 20 to find out how many make a turn, then 12 of at least one.
        assert!(first.get() >= 412 && second.get() >= 412, "{first:?} {second:?}");
    }
}
