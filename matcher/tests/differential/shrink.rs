//! Makes a disagreement small: takes away from the query and the document what it does not need.

use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use tailwater_match::Matcher;

use super::refused_on_purpose;
use super::server::Server;

/// Attempts for one disagreement.
const ATTEMPTS: usize = 400;

/// The smallest form found, and what each side says of it.
pub async fn explain(server: &Server, query: &Document, document: Option<&RawDocument>) -> String {
    let document = document.map_or_else(Document::new, |raw| Document::try_from(raw).expect("a document"));
    let (mut query, mut document) = (query.clone(), document);
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        let queries = smaller_documents(&query).into_iter().map(|query| (query, document.clone()));
        let documents = smaller_documents(&document).into_iter().map(|document| (query.clone(), document));
        let mut found = None;
        for (query, document) in documents.chain(queries).collect::<Vec<_>>() {
            attempts += 1;
            if disagree(server, &query, &document).await.is_some() {
                found = Some((query, document));
                break;
            }
        }
        let Some(smaller) = found else { break };
        (query, document) = smaller;
    }
    let json = |document: &Document| Bson::Document(document.clone()).into_canonical_extjson();
    let said = disagree(server, &query, &document).await.unwrap_or_else(|| "both agree on it alone".into());
    format!("  query {}\n  document {}\n  {said}\n", json(&query), json(&document))
}

/// What each side says, if that is not the same.
async fn disagree(server: &Server, query: &Document, document: &Document) -> Option<String> {
    let theirs = server.matches(query, document).await;
    let stored: RawDocumentBuf = server.single().await;
    let ours = match Matcher::compile(query) {
        Ok(matcher) => Ok(matcher.matches(&stored)),
        Err(error) if refused_on_purpose(&error) => return None,
        Err(error) => Err(error.to_string()),
    };
    let same = match (&theirs, &ours) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    (!same).then(|| format!("mongod says {theirs:?}, the matcher {ours:?}"))
}

/// Everything that is one step smaller.
fn smaller(value: &Bson) -> Vec<Bson> {
    match value {
        Bson::Document(document) => {
            let inner = document.values().filter(|value| matches!(value, Bson::Document(_) | Bson::Array(_))).cloned();
            inner.chain(smaller_documents(document).into_iter().map(Bson::Document)).collect()
        }
        Bson::Array(items) => {
            let without = (0..items.len()).map(|at| {
                let mut items = items.clone();
                items.remove(at);
                items
            });
            let changed = items.iter().enumerate().flat_map(|(at, item)| {
                smaller(item).into_iter().map(move |item| {
                    let mut items = items.clone();
                    items[at] = item;
                    items
                })
            });
            without.chain(changed).map(Bson::Array).collect()
        }
        _ => Vec::new(),
    }
}

fn smaller_documents(document: &Document) -> Vec<Document> {
    let without = document.keys().map(|name| {
        let mut document = document.clone();
        document.remove(name);
        document
    });
    let changed = document.iter().flat_map(|(name, value)| {
        smaller(value).into_iter().map(move |value| {
            let mut document = document.clone();
            document.insert(name.clone(), value);
            document
        })
    });
    without.chain(changed).collect()
}
