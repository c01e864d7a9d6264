//! Which events of the stream a stretch of the window holds: those that any of some queries lets through, and what the server is asked
//! for that. Pure; how queries are put together is the matcher's, see `tailwater_match::union`.

use std::sync::Arc;

use bson::{Document, RawDocumentBuf};
use tailwater_match::head::Heads;
use tailwater_match::union::{Fate, Union};

use crate::event::Event;

/// What a reader wants of the stream: one query, or everything.
#[derive(Clone, Debug, Default)]
pub struct Wanted(Option<Query>);

/// Queries are compared by their bytes: the order of keys is part of a query, because equality of sub-documents depends on it.
#[derive(Clone, Debug)]
struct Query {
    document: Document,
    bytes: RawDocumentBuf,
}

impl PartialEq for Query {
    fn eq(&self, other: &Query) -> bool {
        self.bytes.as_bytes() == other.bytes.as_bytes()
    }
}

impl Wanted {
    /// Every event.
    pub fn everything() -> Wanted {
        Wanted(None)
    }

    /// What the query lets through; `None`: everything. One that cannot be encoded never reaches a server either; everything is the
    /// safe answer.
    pub fn new(query: Option<Document>) -> Wanted {
        Wanted(query.and_then(|document| {
            let bytes = RawDocumentBuf::try_from(&document).ok()?;
            Some(Query { document, bytes })
        }))
    }
}

impl From<Option<Document>> for Wanted {
    fn from(query: Option<Document>) -> Wanted {
        Wanted::new(query)
    }
}

impl From<Document> for Wanted {
    fn from(query: Document) -> Wanted {
        Wanted::new(Some(query))
    }
}

/// The union of the queries that a stretch of the stream is read for. Cheap to clone; two of the same queries in the same order are
/// equal.
#[derive(Clone, Debug)]
pub struct Coverage(Arc<Queries>);

#[derive(Debug)]
struct Queries {
    /// One of the readers wants everything.
    everything: bool,
    /// Each query once.
    different: Vec<Query>,
    union: Union,
    heads: Heads,
}

impl PartialEq for Coverage {
    fn eq(&self, other: &Coverage) -> bool {
        let same = || self.0.everything == other.0.everything && self.0.different == other.0.different;
        Arc::ptr_eq(&self.0, &other.0) || same()
    }
}

impl Coverage {
    /// No event is left out.
    pub fn everything() -> Coverage {
        Coverage::of([Wanted::everything()])
    }

    /// What any of `readers` wants. No reader at all covers nothing.
    pub fn of(readers: impl IntoIterator<Item = impl Into<Wanted>>) -> Coverage {
        let (mut everything, mut different) = (false, Vec::<Query>::new());
        for reader in readers {
            match reader.into().0 {
                None => everything = true,
                Some(query) if !different.contains(&query) => different.push(query),
                Some(_) => {}
            }
        }
        let queries = || different.iter().map(|query| &query.document);
        let (union, heads) = (Union::of(queries()), Heads::of(queries()));
        Coverage(Arc::new(Queries { everything, union, heads, different }))
    }

    /// True when every event that the reader wants is certainly among those covered.
    pub fn covers(&self, wanted: &Wanted) -> bool {
        let Some(query) = &wanted.0 else { return self.is_everything() };
        self.is_everything() || self.0.different.contains(query) || self.0.union.covers(&query.document)
    }

    /// The union as one query for `$match`; `None` where no `$match` is needed, or none would pay.
    pub fn to_match(&self) -> Option<&Document> {
        if self.0.everything { None } else { self.0.union.to_match() }
    }

    /// What became of the reader's query on the way to the server; `None` where it wants everything, or is not one of those this is for.
    pub fn fate(&self, wanted: &Wanted) -> Option<&Fate> {
        let own = wanted.0.as_ref()?;
        let at = self.0.different.iter().position(|query| query == own)?;
        self.0.union.fates().get(at)
    }

    /// The server is asked for the same events.
    pub fn asks_the_same(&self, other: &Coverage) -> bool {
        let bytes = |coverage: &Coverage| coverage.to_match().map(|query| RawDocumentBuf::try_from(query).ok());
        let (own, others) = (bytes(self), bytes(other));
        own.as_ref().map(|raw| raw.as_ref().map(|raw| raw.as_bytes()))
            == others.as_ref().map(|raw| raw.as_ref().map(|raw| raw.as_bytes()))
    }

    fn is_everything(&self) -> bool {
        self.to_match().is_none()
    }

    /// Bits of an event, to be compared with those of a reader: see [`Coverage::mask`].
    ///
    /// A stub has all: what it was of nobody knows, and each output decides. So has an event whose namespace is not two names: there
    /// are few of those, and `source.pipeline` may have made something else of it.
    pub fn classify(&self, event: &Event) -> u64 {
        let (db, coll) = (event.db(), event.coll());
        match event.poison().is_some() || db.is_empty() || coll.is_empty() {
            true => u64::MAX,
            false => self.0.heads.classify(event.operation_type(), db, coll),
        }
    }

    /// Bits of a reader: an event that shares none with it is certainly not wanted.
    pub fn mask(&self, wanted: &Wanted) -> u64 {
        wanted.0.as_ref().map_or(u64::MAX, |query| self.0.heads.mask(query.bytes.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn wanted(query: &Document) -> Wanted {
        Wanted::from(query.clone())
    }

    #[test]
    fn what_a_union_covers() {
        let (insert, update) = (doc! { "operationType": "insert" }, doc! { "operationType": "update" });
        let narrow = doc! { "operationType": "insert", "ns.coll": "orders" };
        let everything = Wanted::everything();
        let none: Vec<Wanted> = Vec::new();
        // The readers of a coverage, another one, whether it is covered.
        let table = [
            (vec![wanted(&insert)], wanted(&insert), true),
            (vec![wanted(&insert)], wanted(&update), false),
            (vec![wanted(&insert)], wanted(&narrow), true),
            (vec![wanted(&narrow)], wanted(&insert), false),
            (vec![wanted(&insert)], everything.clone(), false),
            (vec![wanted(&insert), wanted(&update)], wanted(&update), true),
            (vec![wanted(&insert), wanted(&update)], everything.clone(), false),
            (vec![wanted(&insert), everything.clone()], wanted(&update), true),
            (vec![wanted(&insert), everything.clone()], everything.clone(), true),
            // Nothing of it can be asked of the server, so the stream has everything.
            (vec![wanted(&doc! { "_id._data": "82" })], everything.clone(), true),
            (none.clone(), wanted(&insert), false),
            (none, everything, false),
        ];
        for (readers, other, covered) in table {
            assert_eq!(Coverage::of(readers.clone()).covers(&other), covered, "{readers:?} {other:?}");
        }
        assert!(
            Coverage::everything().covers(&Wanted::everything()) && Coverage::everything().covers(&wanted(&insert))
        );
    }

    #[test]
    fn the_order_of_keys_makes_another_query() {
        let (one, other) = (doc! { "x": { "a": 1, "b": 2 } }, doc! { "x": { "b": 2, "a": 1 } });
        assert_eq!(one, other, "documents are compared without order");
        let coverage = Coverage::of([one.clone()]);
        assert!(coverage.covers(&wanted(&one)) && !coverage.covers(&wanted(&other)));
        assert_ne!(coverage, Coverage::of([other.clone()]));
        assert!(!coverage.asks_the_same(&Coverage::of([other.clone()])));
        let nan = doc! { "x": f64::NAN };
        assert!(Coverage::of([nan.clone()]).covers(&wanted(&nan)), "the same bytes are the same query");
        let (both, twice) = (Coverage::of([one.clone(), other.clone()]), Coverage::of([one.clone(), other, one]));
        assert!(both == twice && both.asks_the_same(&twice));
    }

    #[test]
    fn a_union_as_one_query() {
        let (insert, update) = (doc! { "operationType": "insert" }, doc! { "operationType": "update" });
        let of = |queries: &[&Document]| Coverage::of(queries.iter().map(|query| wanted(query))).to_match().cloned();
        assert_eq!(Coverage::everything().to_match(), None);
        assert_eq!(of(&[&insert]), Some(insert.clone()));
        assert_eq!(of(&[&insert, &insert]), Some(insert.clone()));
        assert_eq!(of(&[&insert, &update]), Some(doc! { "operationType": { "$in": ["insert", "update"] } }));
        assert_eq!(of(&[]), Some(doc! { "operationType": { "$in": [] } }));
    }

    #[test]
    fn other_queries_may_ask_the_server_the_same() {
        let (insert, narrow) =
            (doc! { "operationType": "insert" }, doc! { "operationType": "insert", "ns.coll": "orders" });
        let (one, two) = (Coverage::of([insert.clone()]), Coverage::of([insert, narrow]));
        assert!(one != two && one.asks_the_same(&two) && two.asks_the_same(&one));
        assert!(!Coverage::everything().asks_the_same(&one));
    }
}
