//! What the outputs of a user want of the history: four ways to share it out over 1, 10 or 100 outputs.
//!
//! Each is said three times, which must agree: as each output's `match`, as one `$match` for all of them that a person would write,
//! and in Rust, from which is known how many events each output must get.

use bson::{Bson, Document, doc};

use super::history::{Change, Operation, collection, tenant};

/// The most outputs there are.
pub const OUTPUTS_MAX: usize = 100;

/// Which scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Tenant,
    SameTenants,
    Collection,
    Mixed,
}

/// What kind of `match` an output has in `mixed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tenant,
    Collection,
    Regex,
    Range,
}

impl Kind {
    fn of(output: usize) -> Kind {
        [Kind::Tenant, Kind::Collection, Kind::Regex, Kind::Range][output % 4]
    }
}

impl Scenario {
    /// In the order of the table.
    pub const ALL: [Scenario; 4] = [Scenario::Tenant, Scenario::SameTenants, Scenario::Collection, Scenario::Mixed];

    /// In the table.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Tenant => "tenant",
            Scenario::SameTenants => "same tenants",
            Scenario::Collection => "collection",
            Scenario::Mixed => "mixed",
        }
    }

    /// Under the table.
    pub fn says(self) -> &'static str {
        match self {
            Scenario::Tenant => "each output wants one of 1000 tenants",
            Scenario::SameTenants => {
                "the outputs share out the same 100 of 1000 tenants, so that they want the same events however many they are"
            }
            Scenario::Collection => "each output wants the inserts of one of 100 collections",
            Scenario::Mixed => {
                "of four outputs, one wants a tenant, one the inserts of a collection, one customers by a regex, one totals in a range"
            }
        }
    }

    /// `match` of one of so many outputs.
    pub fn query(self, output: usize, outputs: usize) -> Document {
        let number = output as u64;
        match (self, Kind::of(output)) {
            (Scenario::Tenant, _) | (Scenario::Mixed, Kind::Tenant) => doc! { "fullDocument.tenant": tenant(number) },
            (Scenario::SameTenants, _) => match &shared(output, outputs).map(tenant).collect::<Vec<_>>()[..] {
                [one] => doc! { "fullDocument.tenant": one },
                some => doc! { "fullDocument.tenant": { "$in": some } },
            },
            (Scenario::Collection, _) | (Scenario::Mixed, Kind::Collection) => {
                doc! { "ns.coll": collection(number), "operationType": "insert" }
            }
            (Scenario::Mixed, Kind::Regex) => {
                doc! { "fullDocument.customer": { "$regex": format!("^customer-{number:02}") } }
            }
            (Scenario::Mixed, Kind::Range) => {
                let least = number as i64 * 10;
                doc! { "fullDocument.total": { "$gte": least, "$lt": least + 5 } }
            }
        }
    }

    /// Whether this one of so many outputs wants it.
    pub fn wants(self, output: usize, outputs: usize, change: &Change) -> bool {
        let (number, is_insert) = (output as u64, change.operation == Operation::Insert);
        is_insert
            && match (self, Kind::of(output)) {
                (Scenario::Tenant, _) | (Scenario::Mixed, Kind::Tenant) => change.tenant == number,
                (Scenario::SameTenants, _) => shared(output, outputs).any(|tenant| tenant == change.tenant),
                (Scenario::Collection, _) | (Scenario::Mixed, Kind::Collection) => change.collection == number,
                (Scenario::Mixed, Kind::Regex) => change.customer / 10_000 == number,
                (Scenario::Mixed, Kind::Range) => {
                    (number as f64 * 10.0..number as f64 * 10.0 + 5.0).contains(&change.total)
                }
            }
    }

    /// What so many outputs want together, as a person would write it.
    pub fn union(self, outputs: usize) -> Document {
        let of = |kind: Kind| (0..outputs).filter(move |output| Kind::of(*output) == kind);
        let tenants = |some: &mut dyn Iterator<Item = usize>| {
            doc! { "fullDocument.tenant": { "$in": some.map(|output| tenant(output as u64)).collect::<Vec<_>>() } }
        };
        let collections = |some: &mut dyn Iterator<Item = usize>| {
            let names: Vec<String> = some.map(|output| collection(output as u64)).collect();
            doc! { "operationType": "insert", "ns.coll": { "$in": names } }
        };
        match self {
            Scenario::Tenant => tenants(&mut (0..outputs)),
            Scenario::SameTenants => tenants(&mut (0..OUTPUTS_MAX)),
            Scenario::Collection => collections(&mut (0..outputs)),
            Scenario::Mixed => {
                let mut any: Vec<Bson> = vec![tenants(&mut of(Kind::Tenant)).into()];
                if of(Kind::Collection).next().is_some() {
                    any.push(collections(&mut of(Kind::Collection)).into());
                }
                let prefixes: Vec<String> = of(Kind::Regex).map(|output| format!("{output:02}")).collect();
                if !prefixes.is_empty() {
                    let regex = format!("^customer-({})", prefixes.join("|"));
                    any.push(doc! { "fullDocument.customer": { "$regex": regex } }.into());
                }
                any.extend(of(Kind::Range).map(|output| self.query(output, outputs).into()));
                doc! { "$or": any }
            }
        }
    }

    /// How many of the changes each output wants.
    pub fn wanted(self, outputs: usize, changes: &[Change]) -> Vec<u64> {
        (0..outputs)
            .map(|output| changes.iter().filter(|change| self.wants(output, outputs, change)).count() as u64)
            .collect()
    }

    /// How many of the changes any output wants.
    pub fn wanted_by_any(self, outputs: usize, changes: &[Change]) -> u64 {
        let any = |change: &&Change| (0..outputs).any(|output| self.wants(output, outputs, change));
        changes.iter().filter(any).count() as u64
    }
}

/// The tenants of one of so many outputs in [`Scenario::SameTenants`].
fn shared(output: usize, outputs: usize) -> impl Iterator<Item = u64> {
    (output..OUTPUTS_MAX).step_by(outputs).map(|tenant| tenant as u64)
}

#[cfg(test)]
mod tests {
    use bson::RawDocumentBuf;
    use tailwater_match::Matcher;

    use super::super::history::{changes, order};
    use super::*;

    /// As mongod sends it, as far as a `match` may ask.
    fn event(change: &Change) -> RawDocumentBuf {
        let operation = match change.operation {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        let mut event = doc! { "operationType": operation, "ns": { "coll": collection(change.collection) } };
        if change.operation == Operation::Insert {
            event.insert("fullDocument", order(change, 1));
        }
        RawDocumentBuf::try_from(&event).expect("can be encoded")
    }

    #[test]
    fn the_queries_the_union_and_the_count_agree() {
        let changes = changes(2_000);
        let events: Vec<RawDocumentBuf> = changes.iter().map(event).collect();
        let wanted_by = |query: &Document| {
            let matcher = Matcher::compile(query).ok()?;
            Some(events.iter().map(|event| matcher.matches(event)).collect::<Vec<_>>())
        };
        for scenario in Scenario::ALL {
            for outputs in [1, 10, OUTPUTS_MAX] {
                let any = |change| (0..outputs).any(|output| scenario.wants(output, outputs, change));
                // What the matcher does not take is not measured.
                if let Some(found) = wanted_by(&scenario.union(outputs)) {
                    let expected: Vec<bool> = changes.iter().map(any).collect();
                    assert!(found == expected, "{scenario:?}: the union for {outputs} outputs");
                }
                for output in 0..outputs {
                    let Some(found) = wanted_by(&scenario.query(output, outputs)) else { continue };
                    let expected: Vec<bool> =
                        changes.iter().map(|change| scenario.wants(output, outputs, change)).collect();
                    assert!(found == expected, "{scenario:?}: output {output} of {outputs}");
                }
            }
        }
    }

    #[test]
    fn the_last_change_is_one_that_the_first_output_wants() {
        let changes = changes(10_000);
        let (end, last) = (&changes[changes.len() - OUTPUTS_MAX..], changes.last().expect("changes"));
        for scenario in Scenario::ALL {
            for outputs in [1, 10, OUTPUTS_MAX] {
                assert!(scenario.wants(0, outputs, last), "{scenario:?}, {outputs} outputs");
                for output in 0..outputs {
                    let any = end.iter().any(|change| scenario.wants(output, outputs, change));
                    assert!(any, "{scenario:?}: output {output} of {outputs} gets none of the last ones");
                }
            }
        }
    }

    #[test]
    fn the_same_tenants_are_the_same_events_however_many_outputs() {
        let changes = changes(10_000);
        let any = |outputs| Scenario::SameTenants.wanted_by_any(outputs, &changes);
        let all = |outputs| Scenario::SameTenants.wanted(outputs, &changes).iter().sum::<u64>();
        assert!([any(1), any(10), any(100), all(1), all(10), all(100)].iter().all(|count| *count == any(1)));
        assert!((800..1200).contains(&any(1)), "{}", any(1));
    }
}
