//! The account of one output: every change that it wants, from the oplog, against everything that arrived there. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::oplog::Change;
use super::plan::{AHEAD_MAX, Plan};
use super::receiver::{Arrival, Record, Told};
use super::reigns::Reigns;

/// More of one kind say nothing new.
const SHOWN_MAX: usize = 5;

/// All that is known of one output.
pub struct Case<'a> {
    pub plan: &'a Plan,
    pub changes: &'a [Change],
    pub record: &'a Record,
    /// The ids of its dead letters, where rejected events become such.
    pub letters: Option<&'a HashSet<String>>,
    pub bounds: Bounds,
}

/// What several instances may do that one may not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// How often a run may have come to deliver.
    pub reigns_max: usize,
    /// How often, in all runs together, a lane may have begun anew at its checkpoint: a run that comes to deliver again does.
    pub restarts_max: usize,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Sum {
    /// Changes it had to get.
    pub wanted: usize,
    /// Of these, rejected for good.
    pub rejected: usize,
    pub arrivals: usize,
    /// Arrivals of what an earlier run had got there already, and the most of them in one run.
    pub repeats: usize,
    pub repeats_max: usize,
    pub reigns: usize,
    pub strays_max: usize,
    pub restarts: usize,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { wanted, rejected, arrivals, repeats, repeats_max, reigns, strays_max, restarts } = self;
        write!(
            f,
            "{wanted} wanted, {rejected} of them rejected, {arrivals} arrivals, {repeats} repeats of earlier runs, at most \
             {repeats_max} in one, {reigns} reigns with at most {strays_max} strays, {restarts} restarts within a run"
        )
    }
}

impl Sum {
    /// Bounds that leave no room.
    pub fn bounds(&self) -> Bounds {
        Bounds { reigns_max: self.reigns, restarts_max: self.restarts }
    }
}

/// What is wrong; nothing, if the output got what it must.
pub fn violations(case: &Case) -> (Vec<String>, Sum) {
    let mut found = case.record.violations.clone();
    let places: HashMap<&str, usize> = (0..).zip(case.changes).map(|(place, change)| (&*change.id, place)).collect();
    let missing = missing(case);
    found.extend(missing.iter().take(SHOWN_MAX).map(|change| format!("not delivered: {change:?}")));
    if missing.len() > SHOWN_MAX {
        found.push(format!("{} in all are not delivered", missing.len()));
    }
    check_truth(case, &places, &mut found);
    let restarts = check_order(case, &places, &mut found);
    let repeats = repeats(&case.record.arrivals);
    for (run, repeats) in &repeats {
        // A run that lost the lease and has it again begins behind another instance a second time.
        let begun = 1 + restarts.get(run).copied().unwrap_or(0);
        if *repeats > AHEAD_MAX * begun {
            found.push(format!("{repeats} repeats in run {run}, begun {begun} times, with ahead_max = {AHEAD_MAX}"));
        }
    }
    let wanted = || case.changes.iter().filter(|change| (case.plan.wants)(&change.facts));
    let rejected = wanted().filter(|change| is_rejected(case, change)).count();
    let mut sum = Sum { wanted: wanted().count(), rejected, arrivals: case.record.arrivals.len(), ..Sum::default() };
    sum.repeats = repeats.values().sum();
    sum.repeats_max = repeats.values().copied().max().unwrap_or(0);
    sum.restarts = restarts.values().sum();
    if case.record.arrivals.iter().all(|arrival| arrival.at.is_some()) {
        let reigns = Reigns::of(&case.record.arrivals, case.plan.handed_out_max);
        (sum.reigns, sum.strays_max) = (reigns.count, reigns.strays_max);
        if reigns.count > case.bounds.reigns_max || reigns.strays_max > case.plan.handed_out_max {
            found.push(format!(
                "two delivered at once: {reigns:?}, of at most {} reigns and {} strays",
                case.bounds.reigns_max, case.plan.handed_out_max
            ));
        }
    }
    let found = found.into_iter().map(|violation| format!("output {}: {violation}", case.plan.name)).collect();
    (found, sum)
}

/// Changes that this output must still get: acknowledged, or rejected and buried.
pub fn missing<'a>(case: &'a Case) -> Vec<&'a Change> {
    let arrivals = case.record.arrivals.iter();
    let settled: HashSet<(&str, Told)> = arrivals.map(|arrival| (&*arrival.id, arrival.told)).collect();
    let is_settled = |change: &&Change| {
        let told = if is_rejected(case, change) { Told::Rejected } else { Told::Taken };
        let buried = told == Told::Taken || case.letters.is_none_or(|letters| letters.contains(&change.id));
        settled.contains(&(&*change.id, told)) && buried
    };
    case.changes.iter().filter(|change| (case.plan.wants)(&change.facts) && !is_settled(change)).collect()
}

fn is_rejected(case: &Case, change: &Change) -> bool {
    case.plan.rejects && change.facts.is_rejected()
}

/// Everything delivered or buried is in the oplog, as it was told, and wanted here.
fn check_truth(case: &Case, places: &HashMap<&str, usize>, found: &mut Vec<String>) {
    let before = found.len();
    let mut note = |violation: String| {
        if found.len() < before + SHOWN_MAX {
            found.push(violation);
        }
    };
    let ids: HashSet<&str> = case.record.arrivals.iter().map(|arrival| &*arrival.id).collect();
    for id in ids {
        let Some(change) = places.get(id).map(|place| &case.changes[*place]) else {
            note(format!("{id} is in no oplog entry: {:?}", case.record.facts.get(id)));
            continue;
        };
        if case.record.facts.get(id) != Some(&change.facts) {
            note(format!("{id} is {:?} in the oplog, {:?} was told", change.facts, case.record.facts.get(id)));
        }
        if !(case.plan.wants)(&change.facts) {
            note(format!("it does not want {change:?}"));
        }
    }
    for id in case.letters.into_iter().flatten() {
        if !places.get(id.as_str()).is_some_and(|place| is_rejected(case, &case.changes[*place])) {
            note(format!("a dead letter of what nobody rejected: {id}"));
        }
    }
}

/// Within each run an event comes only when the one of its document (`strict`: of the output) before it that the run was sent is
/// settled, and never after a later one. Gives back how often each run began anew, which is no violation while the bound allows it.
fn check_order(case: &Case, places: &HashMap<&str, usize>, found: &mut Vec<String>) -> HashMap<usize, usize> {
    let (before, mut restarts) = (found.len(), HashMap::new());
    let mut runs: HashMap<usize, Newest> = HashMap::new();
    for arrival in &case.record.arrivals {
        let Some(place) = places.get(&*arrival.id).copied() else { continue };
        let facts = &case.changes[place].facts;
        let key = if case.plan.strict { None } else { Some((&*facts.ns, facts.key)) };
        let last = runs.entry(arrival.run).or_default();
        let (newest, settled) = last.get(&key).copied().unwrap_or((place, false));
        if place < newest || (place > newest && !settled) {
            *restarts.entry(arrival.run).or_default() += 1;
            if restarts.values().sum::<usize>() > case.bounds.restarts_max && found.len() < before + SHOWN_MAX {
                let how = if place < newest { "comes after" } else { "overtakes" };
                found.push(format!("run {}: {} {how} {}", arrival.run, arrival.id, case.changes[newest].id));
            }
            last.clear();
        }
        last.insert(key, (place, (place == newest && settled) || arrival.told != Told::Later));
    }
    restarts
}

/// Of each document, or of all: the place of the last event that arrived, and whether it is settled.
type Newest<'a> = HashMap<Option<(&'a str, i64)>, (usize, bool)>;

/// How many events each run was sent that an earlier run had acknowledged.
fn repeats(arrivals: &[Arrival]) -> HashMap<usize, usize> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut repeated: HashMap<usize, HashSet<&str>> = HashMap::new();
    for arrival in arrivals {
        match first.get(&*arrival.id) {
            Some(run) if *run != arrival.run => {
                repeated.entry(arrival.run).or_default().insert(&arrival.id);
            }
            None if arrival.told != Told::Later => {
                first.insert(&arrival.id, arrival.run);
            }
            _ => {}
        }
    }
    repeated.into_iter().map(|(run, repeated)| (run, repeated.len())).collect()
}
