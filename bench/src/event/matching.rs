//! Matching: a compiled query over raw BSON, beside the same written by hand in Rust, over a `bson::Document` and over the
//! driver's raw reader.

use std::collections::HashSet;
use std::hint::black_box;

use anyhow::{Result, ensure};
use bson::{Bson, Document, RawDocument, doc};
use regex::Regex;
use tailwater_match::Matcher;

use super::rounds::{Contender, Task};

/// A query by hand: `None` where a field is missing or of another type.
type ByHand<Event> = Box<dyn Fn(&Event) -> Option<bool>>;

/// A query and its two translations. The event matches, so that no term is spared.
pub struct Query {
    what: &'static str,
    query: Document,
    by_document: ByHand<Document>,
    by_raw: ByHand<RawDocument>,
    max_ns: Option<f64>,
}

/// All that are measured.
pub fn queries() -> Vec<Query> {
    vec![one_term(), three_terms(), within(), range(), regex(), elem_match()]
}

/// One task for each query, and a line for each that the matcher refuses.
pub fn tasks<'a>(
    size: &'static str,
    raw: &'a RawDocument,
    queries: &'a [Query],
) -> Result<(Vec<Task<'a>>, Vec<String>)> {
    let (mut tasks, mut refused) = (Vec::new(), Vec::new());
    for query in queries {
        match Matcher::compile(&query.query) {
            Ok(matcher) => tasks.push(task(size, raw, query, matcher)?),
            Err(error) => refused.push(format!("{}: {error}", query.what)),
        }
    }
    Ok((tasks, refused))
}

fn task<'a>(size: &'static str, raw: &'a RawDocument, query: &'a Query, matcher: Matcher) -> Result<Task<'a>> {
    let by_document = move |raw: &RawDocument| {
        let document = Document::try_from(raw).expect("a document");
        (query.by_document)(&document) == Some(true)
    };
    let by_raw = move |raw: &RawDocument| (query.by_raw)(raw) == Some(true);
    let answers = [matcher.matches(raw), by_document(raw), by_raw(raw)];
    ensure!(answers == [true; 3], "{}: matcher, Document and raw reader say {answers:?}", query.what);
    let contenders = vec![
        Contender::ours("Tailwater: Matcher", move || _ = black_box(matcher.matches(black_box(raw)))),
        Contender::document("bson::Document, by hand", move || _ = black_box(by_document(black_box(raw)))),
        Contender::other("bson::RawDocument, by hand", move || _ = black_box(by_raw(black_box(raw)))),
    ];
    Ok(Task { size, what: format!("match, {}", query.what), contenders, max_ns: query.max_ns })
}

fn one_term() -> Query {
    Query {
        what: "one term",
        query: doc! { "operationType": "insert" },
        by_document: Box::new(|event| Some(event.get_str("operationType").ok()? == "insert")),
        by_raw: Box::new(|event| Some(event.get_str("operationType").ok()? == "insert")),
        max_ns: None,
    }
}

fn three_terms() -> Query {
    Query {
        what: "three terms",
        query: doc! { "operationType": "insert", "ns.coll": "orders", "fullDocument.status": "open" },
        by_document: Box::new(|event| {
            Some(
                event.get_str("operationType").ok()? == "insert"
                    && event.get_document("ns").ok()?.get_str("coll").ok()? == "orders"
                    && event.get_document("fullDocument").ok()?.get_str("status").ok()? == "open",
            )
        }),
        by_raw: Box::new(|event| {
            Some(
                event.get_str("operationType").ok()? == "insert"
                    && event.get_document("ns").ok()?.get_str("coll").ok()? == "orders"
                    && event.get_document("fullDocument").ok()?.get_str("status").ok()? == "open",
            )
        }),
        max_ns: Some(150.0),
    }
}

fn within() -> Query {
    let users: Vec<String> = (0..1000).map(|number| format!("u-{}", 48_210 + number * 7)).collect();
    let (set, raw_set): (HashSet<_>, HashSet<_>) = (users.iter().cloned().collect(), users.iter().cloned().collect());
    Query {
        what: "$in of 1000 strings",
        query: doc! { "fullDocument.userId": { "$in": users } },
        by_document: Box::new(move |event| {
            Some(set.contains(event.get_document("fullDocument").ok()?.get_str("userId").ok()?))
        }),
        by_raw: Box::new(move |event| {
            Some(raw_set.contains(event.get_document("fullDocument").ok()?.get_str("userId").ok()?))
        }),
        max_ns: None,
    }
}

fn range() -> Query {
    Query {
        what: "range",
        query: doc! { "fullDocument.total": { "$gte": 100, "$lt": 200 } },
        by_document: Box::new(|event| {
            let total = event.get_document("fullDocument").ok()?.get_f64("total").ok()?;
            Some((100.0..200.0).contains(&total))
        }),
        by_raw: Box::new(|event| {
            let total = event.get_document("fullDocument").ok()?.get_f64("total").ok()?;
            Some((100.0..200.0).contains(&total))
        }),
        max_ns: None,
    }
}

fn regex() -> Query {
    let pattern = "^Ada .*lace$";
    let compile = || Regex::new(pattern).expect("a pattern");
    let (regex, raw_regex) = (compile(), compile());
    Query {
        what: "regex",
        query: doc! { "fullDocument.customer": { "$regex": pattern } },
        by_document: Box::new(move |event| {
            Some(regex.is_match(event.get_document("fullDocument").ok()?.get_str("customer").ok()?))
        }),
        by_raw: Box::new(move |event| {
            Some(raw_regex.is_match(event.get_document("fullDocument").ok()?.get_str("customer").ok()?))
        }),
        max_ns: None,
    }
}

fn elem_match() -> Query {
    Query {
        what: "$elemMatch",
        query: doc! { "fullDocument.lines": { "$elemMatch": { "sku": "B-2002", "count": { "$lt": 5 } } } },
        by_document: Box::new(|event| {
            let lines = event.get_document("fullDocument").ok()?.get_array("lines").ok()?;
            Some(lines.iter().filter_map(Bson::as_document).any(|line| {
                line.get_str("sku").is_ok_and(|sku| sku == "B-2002") && line.get_i32("count").is_ok_and(|n| n < 5)
            }))
        }),
        by_raw: Box::new(|event| {
            let lines = event.get_document("fullDocument").ok()?.get_array("lines").ok()?;
            let lines = lines.into_iter().filter_map(Result::ok);
            Some(lines.filter_map(|line| line.as_document()).any(|line| {
                line.get_str("sku").is_ok_and(|sku| sku == "B-2002") && line.get_i32("count").is_ok_and(|n| n < 5)
            }))
        }),
        max_ns: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn both_events_match_whatever_way_it_is_asked() {
        let queries = queries();
        for (size, raw) in [("500 B", samples::small()), ("20 KB", samples::large())] {
            let document = Document::try_from(&*raw).expect("a document");
            for query in &queries {
                let answers = [(query.by_document)(&document), (query.by_raw)(&raw)];
                assert_eq!(answers, [Some(true); 2], "{size}: {}", query.what);
            }
            let (tasks, refused) = tasks(size, &raw, &queries).unwrap_or_else(|error| panic!("{size}: {error:#}"));
            assert_eq!(tasks.len() + refused.len(), queries.len(), "{size}");
        }
    }
}
