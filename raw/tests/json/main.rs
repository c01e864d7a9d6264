//! The canonical and the relaxed form are those of two official implementations, and both read back the BSON that was, for
//! generated documents over every type and its edges. `rules` has the exceptions, one by one.

mod bounds;
mod compare;
mod documents;
mod library;
mod plain;
mod pymongo;
mod rules;

use bson::RawDocument;
use rand::{SeedableRng, rngs::StdRng};
use tailwater_raw::json::{self, JsonForm};

use documents::Generator;
use rules::Oracle;

/// Our JSON of a document.
fn ours(document: &[u8], form: JsonForm) -> String {
    let document = RawDocument::from_bytes(document).expect("a document");
    String::from_utf8(json::document(document, form).expect("JSON")).expect("UTF-8")
}

/// Documents whose values the filter takes.
fn documents(count: usize, tags: bool, takes: &dyn Fn(u8, &[u8]) -> bool) -> Vec<Vec<u8>> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut generator = Generator { rng: &mut rng, takes, tags };
    (0..count).map(|_| generator.document(4)).collect()
}

/// Documents that the oracle must write as we do in this form.
fn to_write(oracle: Oracle, form: JsonForm, count: usize) -> Vec<Vec<u8>> {
    documents(count, true, &|kind, bytes| rules::writes_as_specified(oracle, form, kind, bytes))
}

/// Documents that the oracle must read back from this form.
fn to_read(oracle: Oracle, form: JsonForm, count: usize) -> Vec<Vec<u8>> {
    documents(count, false, &|kind, bytes| rules::reads_back(oracle, form, kind, bytes))
}

/// A document of this value only.
fn example((kind, bytes): documents::Value) -> Vec<u8> {
    documents::document(&[("v".to_owned(), (kind, bytes))])
}
