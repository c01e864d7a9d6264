//! Any bytes as a document: no JSON in any form, or in all; then it is UTF-8 and JSON, and the canonical one means the same document.

#![no_main]

use bson::{Document, RawDocument};
use libfuzzer_sys::fuzz_target;
use tailwater_fuzz::document;
use tailwater_raw::{
    Elements, Value,
    json::{self, JsonForm},
    kind,
};

fuzz_target!(|data: &[u8]| {
    let bytes = document(data);
    let Ok(raw) = RawDocument::from_bytes(&bytes) else { return };
    let [relaxed, canonical, plain] = JsonForm::ALL.map(|form| json::document(raw, form));
    assert!(
        relaxed.is_ok() == canonical.is_ok() && canonical.is_ok() == plain.is_ok(),
        "one form can be made and one cannot"
    );
    let Ok(canonical) = canonical else { return };
    for json in [&relaxed.expect("made"), &canonical, &plain.expect("made")] {
        std::str::from_utf8(json).expect("UTF-8");
        if let Err(error) = serde_json::from_slice::<serde_json::Value>(json) {
            // The reader takes fewer levels than the writer.
            assert!(error.to_string().starts_with("recursion limit"), "{error}: {}", String::from_utf8_lossy(json));
            return;
        }
    }
    if !is_plain(Elements::of(raw)) {
        return;
    }
    // Of what the text does not tell (the bits of a NaN, the names of an array's places) the text is the measure.
    let read: Document = serde_json::from_slice(&canonical)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&canonical)));
    let read = bson::RawDocumentBuf::try_from(&read).expect("BSON");
    let again = json::document(&read, JsonForm::Canonical).expect("JSON");
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&canonical));
});

/// Whether all names are ones that a reader takes for names, each once.
fn is_plain(elements: Elements<'_>) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    elements
        .flatten()
        .all(|element| !element.name.starts_with(b"$") && seen.insert(element.name) && is_plain_value(element.value))
}

fn is_plain_value(value: Value<'_>) -> bool {
    match value.kind() {
        kind::DOCUMENT => is_plain(value.elements()),
        kind::ARRAY => value.elements().flatten().all(|element| is_plain_value(element.value)),
        kind::CODE_WITH_SCOPE => is_plain(value.code_with_scope().1.elements()),
        _ => true,
    }
}
