//! Which events of the stream a stretch of the window holds: those that any of some queries lets through. Pure; a query is
//! compared, never understood.

use bson::{Bson, Document, RawDocumentBuf, doc};

/// The union of the queries that a stretch of the stream is read for.
///
/// Queries are compared by their bytes: the order of keys is part of a query, because equality of sub-documents depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Coverage {
    /// Each query once; `None` = everything.
    queries: Option<Vec<Query>>,
}

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

impl Coverage {
    /// No event is left out.
    pub fn everything() -> Coverage {
        Coverage { queries: None }
    }

    /// What any of `queries` lets through; a `None` among them wants everything. No query at all covers nothing.
    pub fn of(queries: impl IntoIterator<Item = Option<Document>>) -> Coverage {
        let mut different: Vec<Query> = Vec::new();
        for query in queries {
            // What cannot be encoded never reaches a server either; everything is the safe answer.
            let Some((document, bytes)) = query.and_then(|query| Some((query.clone(), encode(&query)?))) else {
                return Coverage::everything();
            };
            let query = Query { document, bytes };
            if !different.contains(&query) {
                different.push(query);
            }
        }
        Coverage { queries: Some(different) }
    }

    /// True when every event that `query` lets through (all of them for `None`) is certainly among those covered.
    pub fn covers(&self, query: Option<&Document>) -> bool {
        let Some(queries) = &self.queries else { return true };
        let Some(bytes) = query.and_then(encode) else { return false };
        queries.iter().any(|covered| covered.bytes.as_bytes() == bytes.as_bytes())
    }

    /// The union as one query for `$match`, the only query as it is; `None` where no `$match` is needed.
    pub fn to_match(&self) -> Option<Document> {
        match self.queries.as_ref()?.as_slice() {
            // No stream can be told "nothing" in fewer words.
            [] => Some(doc! { "operationType": { "$in": [] } }),
            [only] => Some(only.document.clone()),
            several => {
                let queries = several.iter().map(|query| Bson::Document(query.document.clone()));
                Some(doc! { "$or": queries.collect::<Vec<_>>() })
            }
        }
    }
}

fn encode(query: &Document) -> Option<RawDocumentBuf> {
    RawDocumentBuf::try_from(query).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_union_covers() {
        let (insert, update) = (doc! { "operationType": "insert" }, doc! { "operationType": "update" });
        let none: [Option<Document>; 0] = [];
        // The queries of a coverage, a query, whether it is covered.
        let table = [
            (vec![Some(insert.clone())], Some(&insert), true),
            (vec![Some(insert.clone())], Some(&update), false),
            (vec![Some(insert.clone())], None, false),
            (vec![Some(insert.clone()), Some(update.clone())], Some(&update), true),
            (vec![Some(insert.clone()), Some(update.clone())], None, false),
            (vec![Some(insert.clone()), None], Some(&update), true),
            (vec![Some(insert.clone()), None], None, true),
            (none.to_vec(), Some(&insert), false),
            (none.to_vec(), None, false),
        ];
        for (queries, query, covered) in table {
            assert_eq!(Coverage::of(queries.clone()).covers(query), covered, "{queries:?} {query:?}");
        }
        assert!(Coverage::everything().covers(None) && Coverage::everything().covers(Some(&insert)));
    }

    #[test]
    fn the_order_of_keys_makes_another_query() {
        let (one, other) = (doc! { "x": { "a": 1, "b": 2 } }, doc! { "x": { "b": 2, "a": 1 } });
        assert_eq!(one, other, "documents are compared without order");
        let coverage = Coverage::of([Some(one.clone())]);
        assert!(coverage.covers(Some(&one)) && !coverage.covers(Some(&other)));
        assert_ne!(coverage, Coverage::of([Some(other.clone())]));
        assert_eq!(
            Coverage::of([Some(one.clone()), Some(other.clone())]).to_match(),
            Some(doc! { "$or": [one, other] })
        );
        let nan = doc! { "x": f64::NAN };
        assert!(Coverage::of([Some(nan.clone())]).covers(Some(&nan)), "the same bytes are the same query");
    }

    #[test]
    fn a_union_as_one_query() {
        let (insert, update) = (doc! { "operationType": "insert" }, doc! { "operationType": "update" });
        let of = |queries: &[&Document]| Coverage::of(queries.iter().map(|query| Some((*query).clone()))).to_match();
        assert_eq!(Coverage::everything().to_match(), None);
        assert_eq!(of(&[&insert]), Some(insert.clone()));
        assert_eq!(of(&[&insert, &insert]), Some(insert.clone()));
        assert_eq!(of(&[&insert, &update]), Some(doc! { "$or": [insert, update] }));
        assert_eq!(of(&[]), Some(doc! { "operationType": { "$in": [] } }));
    }
}
