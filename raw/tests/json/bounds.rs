//! Size, depth and damage: no JSON of what is too deep or broken, and never a panic or a stack that grows with the document.

use std::{panic, thread};

use bson::RawDocument;
use tailwater_raw::{
    json::{self, JsonError, JsonForm, LEVELS_MAX},
    kind,
};

use crate::{
    documents::{self, Value, binary, code_with_scope, document, regex, string},
    example, ours,
};

const MEGABYTES_16: usize = 16 << 20;
/// What a thread may have at least on any system that Rust runs on, and far less than the threads of the daemon have.
const SMALL_STACK: usize = 64 << 10;

fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().stack_size(SMALL_STACK).spawn(work).expect("a thread");
    thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
}

/// `levels` documents, arrays or scopes, each in the one before.
fn nested(levels: usize, wrap: impl Fn(usize, Vec<u8>) -> Value) -> Vec<u8> {
    // From the inside: copying each level would take the square of the time, so only the lengths are made anew.
    (1..levels).fold(document(&[]), |inner, at| document(&[("0".to_owned(), wrap(at, inner))]))
}

fn mixed(at: usize, inner: Vec<u8>) -> Value {
    match at % 3 {
        0 => (kind::DOCUMENT, inner),
        1 => (kind::ARRAY, inner),
        _ => (kind::CODE_WITH_SCOPE, code_with_scope("f", &inner)),
    }
}

#[test]
fn as_many_levels_as_are_allowed_need_no_large_stack() {
    let levels = LEVELS_MAX as usize;
    let (most, more) = (nested(levels, mixed), nested(levels + 1, mixed));
    on_a_small_stack(move || {
        for form in JsonForm::ALL {
            let json = ours(&most, form);
            assert_eq!(json.matches(['{', '[']).count(), json.matches(['}', ']']).count());
            let refused = json::document(RawDocument::from_bytes(&more).expect("a document"), form);
            assert_eq!(refused, Err(JsonError::Depth(LEVELS_MAX)));
        }
    });
}

#[test]
fn many_documents_beside_each_other_are_not_deep() {
    let inner = [
        (kind::DOCUMENT, document(&[])),
        (kind::ARRAY, document(&[])),
        (kind::CODE_WITH_SCOPE, code_with_scope("f", &document(&[]))),
    ];
    let siblings: Vec<_> = (0..3 * LEVELS_MAX as usize).map(|at| (at.to_string(), inner[at % 3].clone())).collect();
    let array = ours(&example((kind::ARRAY, document(&siblings))), JsonForm::Canonical);
    let three = r#"{},[],{"$code":"f","$scope":{}},"#.repeat(LEVELS_MAX as usize);
    assert_eq!(array, format!("{{\"v\":[{}]}}", three.trim_end_matches(',')));
}

/// Arrays in arrays until 16 MB are full: lengths first, since each level knows that of all below it.
fn arrays_of_16_mb() -> Vec<u8> {
    const LEVEL: usize = 4 + 1 + 2;
    let levels = MEGABYTES_16 / (LEVEL + 1);
    let mut bytes = Vec::with_capacity(MEGABYTES_16);
    for level in 0..levels {
        let length = (levels - level) * LEVEL + 5 + (levels - level);
        bytes.extend_from_slice(&(length as i32).to_le_bytes());
        bytes.extend_from_slice(&[kind::ARRAY, b'0', 0]);
    }
    bytes.extend_from_slice(&5i32.to_le_bytes());
    bytes.resize(bytes.len() + levels + 1, 0);
    bytes
}

#[test]
fn a_document_of_16_mb_of_arrays_is_refused_on_a_small_stack() {
    let bytes = arrays_of_16_mb();
    assert!(bytes.len() > MEGABYTES_16 - 64, "{}", bytes.len());
    on_a_small_stack(move || {
        let document = RawDocument::from_bytes(&bytes).expect("a document");
        for form in JsonForm::ALL {
            assert_eq!(json::document(document, form), Err(JsonError::Depth(LEVELS_MAX)));
        }
    });
}

#[test]
fn a_document_of_16_mb_has_its_json() {
    let long = "x".repeat(MEGABYTES_16 - 64);
    let text = example((kind::STRING, string(&long)));
    assert_eq!(ours(&text, JsonForm::Relaxed), format!("{{\"v\":\"{long}\"}}"));
    let fields = MEGABYTES_16 / 13;
    let wide: Vec<_> = (0..fields).map(|at| (format!("{at:07}"), (kind::INT32, 7i32.to_le_bytes().to_vec()))).collect();
    let wide = on_a_small_stack(move || ours(&document(&wide), JsonForm::Canonical));
    assert_eq!(wide.matches(r#":{"$numberInt":"7"}"#).count(), fields);
    // What is longer as JSON than as BSON by most: each byte is an escape of six.
    let escapes = example((kind::STRING, string(&"\u{1}".repeat(MEGABYTES_16 - 64))));
    assert_eq!(ours(&escapes, JsonForm::Plain).len(), 6 * (MEGABYTES_16 - 64) + 8);
}

/// One field of each type, with text that is not ASCII, down to the third level.
fn every_type() -> Vec<u8> {
    let scalars: Vec<(&str, Value)> = vec![
        ("double", (kind::DOUBLE, 1.5f64.to_le_bytes().into())),
        ("é", (kind::STRING, string("漢\"\u{1}"))),
        ("binary", (kind::BINARY, binary(0, &[1, 2]))),
        ("old", (kind::BINARY, binary(2, &[1, 2]))),
        ("uuid", (kind::BINARY, binary(4, &[7; 16]))),
        ("undefined", (kind::UNDEFINED, vec![])),
        ("oid", (kind::OBJECT_ID, vec![7; 12])),
        ("boolean", (kind::BOOLEAN, vec![1])),
        ("date", (kind::DATE, 1i64.to_le_bytes().into())),
        ("null", (kind::NULL, vec![])),
        ("regex", (kind::REGEX, regex("é", "mi"))),
        ("pointer", (kind::DB_POINTER, [string("é"), vec![7; 12]].concat())),
        ("code", (kind::CODE, string("é"))),
        ("symbol", (kind::SYMBOL, string("é"))),
        ("int", (kind::INT32, vec![1; 4])),
        ("time", (kind::TIMESTAMP, vec![0xff; 8])),
        ("long", (kind::INT64, vec![1; 8])),
        ("decimal", (kind::DECIMAL128, vec![0x30; 16])),
        ("max", (kind::MAX_KEY, vec![])),
        ("min", (kind::MIN_KEY, vec![])),
    ];
    let scalars: Vec<_> = scalars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let scope = (kind::CODE_WITH_SCOPE, code_with_scope("é", &documents::document(&scalars)));
    let array = (kind::ARRAY, document(&[("0".to_owned(), scope)]));
    document(&[("d".to_owned(), (kind::DOCUMENT, document(&[("a".to_owned(), array)])))])
}

/// JSON or an error; if JSON, then JSON.
fn check(bytes: &[u8]) -> bool {
    let Ok(document) = RawDocument::from_bytes(bytes) else { return false };
    let made = JsonForm::ALL.map(|form| {
        let made = json::document(document, form);
        if let Ok(json) = &made {
            let json = std::str::from_utf8(json).expect("UTF-8");
            serde_json::from_str::<serde_json::Value>(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        }
        made.is_ok()
    });
    assert!(made[0] == made[1] && made[1] == made[2], "one form can be made and another cannot: {made:?}");
    made[0]
}

#[test]
fn damage_anywhere_is_an_error_or_still_json() {
    let whole = every_type();
    assert!(check(&whole));
    let (mut fine, mut refused) = (0, 0);
    for at in 0..whole.len() {
        for byte in [0, 1, 2, 3, 4, 5, 0x0b, 0x0f, 0x13, 0x7f, 0x80, 0xc3, 0xff, whole[at] ^ 1, whole[at] ^ 0x80] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            if check(&bytes) { fine += 1 } else { refused += 1 }
        }
        // Cut, with and without a length and an end that say so.
        let mut cut = whole[..at].to_vec();
        assert!(!check(&cut));
        if at >= 5 {
            cut[..4].copy_from_slice(&(at as i32).to_le_bytes());
            cut[at - 1] = 0;
            assert!(at == 5 || !check(&cut), "{at}");
        }
    }
    assert!(fine > 500 && refused > 500, "{fine} fine, {refused} refused");
}

#[test]
fn text_that_is_not_utf8_has_no_json_wherever_it_stands() {
    let whole = every_type();
    assert!(check(&whole));
    // The second byte of each é and 漢, made one that cannot follow the first.
    let places: Vec<usize> = (1..whole.len()).filter(|at| [0xc3, 0xe6].contains(&whole[at - 1])).collect();
    assert_eq!(places.len(), 7);
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] = b'x';
        assert!(!check(&bytes), "byte {at}");
    }
}
