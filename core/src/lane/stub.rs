//! Which queries can be decided on a stub, which is all there is of an event that cannot be delivered. Pure.

use tailwater_match::Matcher;

/// The fields that a stub has, if the event has them.
const FIELDS: [&str; 7] = ["_id", "operationType", "ns", "documentKey", "clusterTime", "wallTime", "to"];

/// True when the query reads nothing else. Where it does, nobody knows whether the event matches, and the stub must be taken
/// for one that does: an event too many in the dead letters is seen, one that is missing is not.
pub fn decides(matcher: &Matcher) -> bool {
    matcher.fields().all(|field| FIELDS.contains(&field))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn only_what_a_stub_has_decides() {
        let table = [
            (doc! {}, true),
            (doc! { "operationType": { "$in": ["insert", "delete"] }, "ns.coll": "orders" }, true),
            (doc! { "$or": [{ "documentKey._id": 1 }, { "$and": [{ "to.db": "x" }] }] }, true),
            (doc! { "fullDocument.status": "open" }, false),
            (doc! { "operationType": "insert", "fullDocument.status": "open" }, false),
            (doc! { "$or": [{ "ns.coll": "orders" }, { "fullDocument": { "$exists": true } }] }, false),
            (doc! { "updateDescription.removedFields": "x" }, false),
            (doc! { "$nor": [{ "documentKey": { "$elemMatch": { "fullDocument": 1 } } }], "$comment": "x" }, true),
            (doc! { "$nor": [{ "$and": [{ "fullDocument.a": { "$not": { "$gt": 1 } } }] }] }, false),
            (doc! { "nsx": 1 }, false),
        ];
        for (query, expected) in table {
            let matcher = Matcher::compile(&query).expect("a query");
            assert_eq!(decides(&matcher), expected, "{query}");
        }
    }
}
