//! Lies about what has arrived, each of which the verifier must see: a storm that ended well shows with its own record that it could
//! have ended badly.

use std::collections::HashMap;

use super::oplog::Change;
use super::plan::Plan;
use super::receiver::{Arrival, Record, Told};

/// One lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lie {
    /// An event was acknowledged and forgotten.
    Forget,
    /// Two events of a document came in the other order.
    Swap,
    /// An event came before the one of its document before it was acknowledged.
    Overtake,
    /// An event has another id in one delivery.
    Rename,
    /// What was delivered is in no oplog entry.
    Invent,
    /// A document was not the one that was written.
    Falsify,
    /// Another event's output got it.
    Misdirect,
    /// Two runs delivered at once.
    Both,
}

pub const LIES: [Lie; 8] =
    [Lie::Forget, Lie::Swap, Lie::Overtake, Lie::Rename, Lie::Invent, Lie::Falsify, Lie::Misdirect, Lie::Both];

/// The record and the changes with this lie in them; `None` where this output has nothing to lie about.
pub fn tell(lie: Lie, plan: &Plan, changes: &[Change], record: &Record) -> Option<(Vec<Change>, Record)> {
    let (mut changes, mut record) = (changes.to_vec(), record.clone());
    let arrivals = &mut record.arrivals;
    let middle = arrivals.len() / 2;
    let id = arrivals.get(middle)?.id.clone();
    match lie {
        Lie::Forget => arrivals.retain(|arrival| arrival.id != id),
        Lie::Swap => {
            let (one, two) = successors(&changes, arrivals)?;
            arrivals.swap(one, two);
        }
        Lie::Overtake => {
            let (one, two) = successors(&changes, arrivals)?;
            let (run, early) = (arrivals[one].run, arrivals[one].id.clone());
            let same = arrivals.iter_mut().filter(|arrival| arrival.run == run && arrival.id == early);
            same.for_each(|arrival| arrival.told = Told::Later);
            // It is acknowledged at last, so that nothing but the order is wrong.
            let late = Arrival { told: Told::Taken, ..arrivals[one].clone() };
            arrivals.insert(two + 1, late);
        }
        Lie::Rename => {
            let facts = record.facts.get(&id)?.clone();
            let other: std::sync::Arc<str> = format!("{}0", &id[..id.len() - 1]).into();
            let other = if other == id { format!("{}1", &id[..id.len() - 1]).into() } else { other };
            record.facts.insert(other.clone(), facts);
            let again = Arrival { id: other, ..arrivals[middle].clone() };
            arrivals.insert(middle + 1, again);
        }
        Lie::Invent => changes.retain(|change| *change.id != *id),
        Lie::Falsify => record.facts.get_mut(&id)?.key += 1,
        Lie::Misdirect => {
            let change = changes.iter().find(|change| !(plan.wants)(&change.facts))?;
            let stray = Arrival { id: change.id.as_str().into(), ..arrivals[middle].clone() };
            record.facts.insert(stray.id.clone(), change.facts.clone());
            arrivals.insert(middle, stray);
        }
        Lie::Both => {
            arrivals[middle].at?;
            let other = arrivals.iter().map(|arrival| arrival.run).max()? + 1;
            let stretch = arrivals.iter_mut().skip(middle).take(12 * plan.handed_out_max + 100).step_by(2);
            stretch.for_each(|arrival| arrival.run = other);
        }
    }
    Some((changes, record))
}

/// Where two events of one document came one after the other in one run, each once.
fn successors(changes: &[Change], arrivals: &[Arrival]) -> Option<(usize, usize)> {
    let documents: HashMap<&str, (&str, i64)> =
        changes.iter().map(|change| (&*change.id, (&*change.facts.ns, change.facts.key))).collect();
    let mut last: HashMap<(usize, (&str, i64)), usize> = HashMap::new();
    let mut found = None;
    for (place, arrival) in arrivals.iter().enumerate() {
        let document = *documents.get(&*arrival.id)?;
        if let Some(before) = last.insert((arrival.run, document), place) {
            let told = |place: usize| arrivals[place].told == Told::Taken;
            if arrivals[before].id != arrival.id && told(before) && told(place) {
                found = Some((before, place));
            }
        }
    }
    found
}
