//! Claim: a query matches here exactly the documents that it matches on a real mongod. The answers were given by mongod
//! 6.0.5 to the questions of `oracle/ask.py`, which makes them again.

use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use tailwater_match::Matcher;

/// What the server takes and this matcher refuses, in words of its error.
const REFUSED_HERE: [&str; 1] = ["compared with a regular expression"];

#[test]
fn answers_as_mongod_does() {
    let bytes = include_bytes!("oracle/answers.bson");
    let mut parts = split(bytes);
    let head = parts.next().expect("the fixture begins with the documents");
    let documents: Vec<RawDocumentBuf> = head
        .get_array("documents")
        .expect("documents")
        .into_iter()
        .map(|d| d.expect("document").as_document().expect("document").to_owned())
        .collect();
    let (mut answers, mut wrong) = (0, Vec::new());
    for part in parts {
        let part = Document::try_from(part).expect("valid BSON");
        let query = part.get_document("query").expect("query");
        match (Matcher::compile(query), part.get_array("matched")) {
            (Ok(matcher), Ok(matched)) => {
                for document in &documents {
                    let id = document.get_i32("_id").expect("_id");
                    let expected = matched.contains(&Bson::Int32(id));
                    answers += 1;
                    if matcher.matches(document) != expected {
                        let document = Document::try_from(&**document).expect("valid BSON");
                        wrong.push(format!("{query} on {document}: mongod says {expected}"));
                    }
                }
            }
            (Err(_), Err(_)) => {}
            (Err(error), Ok(_)) if REFUSED_HERE.iter().any(|why| error.to_string().contains(why)) => {}
            (Err(error), Ok(_)) => wrong.push(format!("{query}: mongod takes it, here: {error}")),
            (Ok(_), Err(_)) => wrong.push(format!("{query}: mongod refuses it ({:?})", part.get("refused"))),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {answers} answers differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(30)].join("\n")
    );
    assert!(answers >= 100_000, "the fixture holds only {answers} answers");
}

/// The BSON documents that stand one behind the other.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = &RawDocument> {
    std::iter::from_fn(move || {
        let len = i32::from_le_bytes(bytes.first_chunk::<4>().copied()?) as usize;
        let (document, rest) = bytes.split_at(len);
        bytes = rest;
        Some(RawDocument::from_bytes(document).expect("a document"))
    })
}
