//! Any query on any document: compiled or refused, and then an answer, the same one again, and the opposite one from `$nor`.

#![no_main]

use bson::{Bson, Document, RawDocument, doc};
use libfuzzer_sys::fuzz_target;
use tailwater_fuzz::{Bytes, document, query};
use tailwater_match::Matcher;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (for_query, for_document) = rest.split_at((u16::from_le_bytes(*length) as usize).min(rest.len()));
    let wanted = match for_query.split_first() {
        Some((how, rest)) if how % 4 != 0 => query(&mut Bytes(rest), 3),
        _ => document(for_query),
    };
    // Not `from_reader`, which asks for as much memory as the first four bytes say.
    let Ok(wanted) = RawDocument::from_bytes(&wanted).and_then(Document::try_from) else { return };
    let document = document(for_document);
    let Ok(document) = RawDocument::from_bytes(&document) else { return };
    let Ok(matcher) = Matcher::compile(&wanted) else { return };
    let matches = matcher.matches(document);
    assert_eq!(matcher.matches(document), matches, "another answer the second time: {wanted}");
    if let Ok(opposite) = Matcher::compile(&doc! { "$nor": [Bson::Document(wanted.clone())] }) {
        assert_ne!(opposite.matches(document), matches, "$nor gives the same answer: {wanted}");
    }
});
