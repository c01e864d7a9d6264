//! Beside the crate `bson`.

use bson::{Bson, Document};
use tailwater_raw::json::JsonForm;

use crate::{
    compare::{self, sorted},
    example, ours,
    rules::{LOSES, Oracle, WRITES},
    to_read, to_write,
};

const FORMS: [JsonForm; 2] = [JsonForm::Canonical, JsonForm::Relaxed];

fn theirs(document: &[u8], form: JsonForm) -> String {
    let document = Bson::Document(Document::from_reader(document).expect("a document"));
    let json = match form {
        JsonForm::Canonical => document.into_canonical_extjson(),
        _ => document.into_relaxed_extjson(),
    };
    json.to_string()
}

fn read(json: &str) -> Vec<u8> {
    let document: Document = serde_json::from_str(json).expect("Extended JSON");
    document.to_vec().expect("BSON")
}

/// What the two texts differ in but the order of fields, which the library sorts; what is read back shows that ours is the document's.
fn difference(document: &[u8], form: JsonForm) -> Option<String> {
    compare::difference(&sorted(&ours(document, form)), &sorted(&theirs(document, form)))
}

#[test]
fn json_is_that_of_the_library() {
    for form in FORMS {
        for document in to_write(Oracle::Library, form, 5_000) {
            if let Some(difference) = difference(&document, form) {
                panic!("{form:?}: {difference}");
            }
        }
    }
}

#[test]
fn the_library_reads_back_the_bson_that_was() {
    for form in FORMS {
        for document in to_read(Oracle::Library, form, 5_000) {
            let json = ours(&document, form);
            assert_eq!(read(&json), document, "{form:?}: {json}");
        }
    }
}

#[test]
fn each_exception_of_the_library_is_one() {
    for rule in WRITES.iter().filter(|rule| rule.oracle == Oracle::Library) {
        let value = (rule.example)();
        assert!((rule.applies)(value.0, &value.1), "{}", rule.why);
        let document = example(value);
        assert_eq!(ours(&document, rule.forms[0]), format!("{{\"v\":{}}}", rule.specified), "{}", rule.why);
        for form in rule.forms {
            assert!(difference(&document, *form).is_some(), "{}", rule.why);
        }
    }
    for rule in LOSES.iter().filter(|rule| rule.oracle != Some(Oracle::PyMongo)) {
        let value = (rule.example)();
        assert!((rule.applies)(value.0, &value.1), "{}", rule.why);
        let document = example(value);
        for form in rule.forms {
            assert_ne!(read(&ours(&document, *form)), document, "{}", rule.why);
        }
    }
}
