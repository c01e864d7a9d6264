//! Claim: a query matches here exactly the documents that it matches on a real mongod, and is refused here exactly when it is there.
//!
//! Documents and queries are generated from a seed, which is printed, over all operators and all types; each query is put to a mongod
//! and to the matcher over the same documents. `TAILWATER_MATCH_SEED` repeats a run, `TAILWATER_MATCH_PAIRS` makes it longer:
//! `TAILWATER_MATCH_PAIRS=10000000 cargo test --release -p tailwater-match --test differential -- --nocapture`.

mod cases;
mod documents;
#[path = "../../../tests/it/harness/mongod_process.rs"]
#[allow(dead_code)] // It holds its folder, and starts again for others.
mod mongod_process;
mod queries;
mod random;
mod server;
mod shrink;
mod tally;
mod values;

use std::collections::BTreeSet;
use std::env;

use bson::{Document, RawDocumentBuf};
use tailwater_match::{MatchError, Matcher};

use random::Random;
use server::Server;
use tally::Tally;

/// Documents of one batch, and queries put to them.
const DOCUMENTS: usize = 400;
const QUERIES: usize = 300;

/// Pairs of a query and a document where nothing else is said.
const PAIRS: u64 = 500_000;

/// Disagreements that are made small and shown.
const SHOWN: usize = 8;

#[tokio::test]
async fn answers_are_those_of_mongod() {
    let seed = number("TAILWATER_MATCH_SEED").unwrap_or_else(rand::random);
    let wanted = number("TAILWATER_MATCH_PAIRS").unwrap_or(PAIRS);
    println!("TAILWATER_MATCH_SEED={seed} TAILWATER_MATCH_PAIRS={wanted}");
    let server = Server::start().await;
    let mut tally = Tally::new(wanted);
    let mut disagreements: Vec<(Document, Option<RawDocumentBuf>)> = Vec::new();
    for batch in 0.. {
        let mut random = Random::new(seed.wrapping_add(batch));
        let world = values::World::new(&mut random);
        let documents = server.store((0..DOCUMENTS).map(|id| documents::document(&mut random, &world, id))).await;
        for _ in 0..QUERIES {
            let query = queries::query(&mut random, &world);
            disagreements.extend(compare(&server, &documents, &query, &mut tally).await);
        }
        tally.show_progress(disagreements.len());
        if tally.pairs >= wanted || disagreements.len() > 200 {
            break;
        }
    }
    println!("{tally}");
    if disagreements.is_empty() {
        return tally.check();
    }
    let mut text = String::new();
    // Small ones first, and of each operator one: many are one fault seen many times.
    disagreements.sort_by_key(|(query, _)| query.to_string().len());
    let mut shown = BTreeSet::new();
    let found = disagreements.len();
    disagreements.retain(|(query, _)| shown.insert(tally::operators(query)));
    for (query, document) in disagreements.iter().take(SHOWN) {
        text += &shrink::explain(&server, query, document.as_deref()).await;
    }
    panic!("seed {seed}: {found} queries are answered differently:\n{text}");
}

/// Puts a query to both. A disagreement has the document that it is about, or none where one takes the query and the other does not.
async fn compare(
    server: &Server,
    documents: &[RawDocumentBuf],
    query: &Document,
    tally: &mut Tally,
) -> Option<(Document, Option<RawDocumentBuf>)> {
    let (matcher, matched) = match (Matcher::compile(query), server.find(query).await) {
        (Ok(matcher), Ok(matched)) => (matcher, matched),
        (Err(_), Err(_)) => {
            tally.refused += 1;
            return None;
        }
        (Err(error), Ok(_)) if refused_on_purpose(&error) => return None,
        (Err(_), Ok(_)) | (Ok(_), Err(_)) => return Some((query.clone(), None)),
    };
    let count = matched.len();
    tally.count(query, documents.len(), count);
    let mut matched = matched.into_iter().peekable();
    for (id, document) in documents.iter().enumerate() {
        let expected = matched.next_if(|next| *next == id as i32).is_some();
        if matcher.matches(document) != expected {
            return Some((query.clone(), Some(document.clone())));
        }
    }
    assert!(matched.next().is_none(), "the answers are sorted by _id");
    None
}

/// What mongod takes and the matcher does not, said in its error.
fn refused_on_purpose(error: &MatchError) -> bool {
    matches!(error, MatchError::ServerOnly { .. })
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}
