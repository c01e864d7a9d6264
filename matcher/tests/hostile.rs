//! Claim: no document and no text can make a match panic, run out of stack, or go on without end; what is too costly is counted.

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc, rawdoc};
use tailwater_match::Matcher;

fn compile(query: &Document) -> Matcher {
    Matcher::compile(query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// `{ a: [[[…]]] }` or `{ a: { a: { … } } }`, as deep as 16 MB allow.
fn deep(kind: u8, name: u8) -> RawDocumentBuf {
    const LEVELS: usize = 2_000_000;
    let mut bytes = Vec::with_capacity(LEVELS * 8 + 13);
    for level in 0..=LEVELS {
        // What is inside, with a type, a name, a length and a zero for each level, and this document's own length and zero.
        bytes.extend(u32::try_from((LEVELS - level) * 8 + 5).expect("16 MB").to_le_bytes());
        if level < LEVELS {
            bytes.extend([kind, if level == 0 { b'a' } else { name }, 0]);
        }
    }
    bytes.resize(bytes.len() + LEVELS + 1, 0);
    RawDocumentBuf::from_bytes(bytes).expect("a document")
}

#[test]
fn depth_of_a_document_costs_no_stack() {
    let nested = |levels: usize, of: &dyn Fn(Bson) -> Bson| (0..levels).fold(Bson::Int32(1), |value, _| of(value));
    let arrays = nested(190, &|value| Bson::Array(vec![value]));
    let documents = nested(190, &|value| doc! { "a": value }.into());
    let elements = (0..95).fold(doc! { "$gt": 1 }, |inner, _| doc! { "$elemMatch": inner });
    let long = |component: &str| format!("a.{}", [component; 170].join("."));
    let around = (0..5).fold(doc! { "a": 1 }, |query, _| doc! { long("0"): { "$elemMatch": query } });
    let queries = [
        doc! { "a": arrays.clone() },
        doc! { "a": documents.clone() },
        doc! { "a": { "$gte": arrays.clone() } },
        doc! { "a": { "$lt": documents.clone() } },
        doc! { "a": { "$in": [arrays.clone(), documents.clone(), 1] } },
        doc! { "a": { "$all": [arrays, documents] } },
        doc! { "a": elements },
        doc! { long("0"): 1, long("a"): { "$ne": 1 }, "a.b": 1 },
        doc! { long("0"): { "$exists": true } },
        doc! { long("a"): { "$exists": true } },
        around,
        doc! { "a": { "$size": 1 }, "a.0": { "$type": "array" } },
        doc! { "a": { "$regex": "x" } },
    ];
    // Much less than threads have, of a build that is not optimised: what is needed depends on the query alone.
    let run = move || {
        for document in [deep(4, b'0'), deep(3, b'a')] {
            let answers: Vec<bool> = queries.iter().map(|query| compile(query).matches(&document)).collect();
            assert_eq!(
                answers.iter().filter(|answer| **answer).count(),
                if document.as_bytes()[4] == 4 { 3 } else { 1 }
            );
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread").join().expect("enough stack");
}

/// One field of each type that can be made by hand.
fn every_type() -> RawDocumentBuf {
    rawdoc! {
        "a": [1, 2.5, "text", { "b": [1, { "c": 2 }] }],
        "b": { "c": bson::Timestamp { time: 1, increment: 2 }, "d": i64::MAX },
        "c": bson::Regex { pattern: bson::cstr!("a").into(), options: bson::cstr!("i").into() },
        "d": bson::RawJavaScriptCodeWithScope { code: "f".into(), scope: rawdoc! { "x": 1 } },
        "e": bson::Binary { subtype: bson::spec::BinarySubtype::BinaryOld, bytes: vec![1, 2, 3] },
        "f": "1.5".parse::<bson::Decimal128>().expect("a decimal"),
    }
}

#[test]
fn damage_is_no_panic_and_what_stands_before_it_is_read() {
    let whole = every_type();
    let queries = [
        doc! { "a": 2.5, "b.c": { "$exists": true }, "f": { "$gt": 1 } },
        doc! { "a.b.c": 2, "a": { "$elemMatch": { "b": { "$size": 2 } } } },
        doc! { "$or": [{ "d": { "$type": 15 } }, { "e": { "$bitsAnySet": 255 } }] },
        doc! { "a": { "$regex": "t" }, "c": { "$not": bson::Regex { pattern: bson::cstr!("b").into(), options: bson::cstr!("").into() } } },
        doc! { "$nor": [{ "b": { "$gte": { "c": 1 } } }, { "f": { "$mod": [2, 0] } }] },
        doc! { "d": Document::try_from(&*whole).expect("a document").remove("d").expect("d") },
        doc! { "a": { "$gt": [1, 2] }, "e": { "$in": [1, "x", doc! { "y": 1 }] } },
    ];
    let matchers: Vec<Matcher> = queries.iter().map(compile).collect();
    let mut answers = [0, 0];
    for at in 4..whole.as_bytes().len() - 1 {
        for byte in 0..=255 {
            let mut bytes = whole.as_bytes().to_vec();
            bytes[at] = byte;
            let document = RawDocument::from_bytes(&bytes).expect("length and end are right");
            for matcher in &matchers {
                answers[usize::from(matcher.matches(document))] += 1;
            }
        }
    }
    assert!(answers[0] > 10_000 && answers[1] > 10_000, "{answers:?}");
    let mut cut = rawdoc! { "a": 1, "b": 2, "c": 3 }.into_bytes();
    // The type of b: there is none such.
    cut[11] = 0x50;
    let document = RawDocument::from_bytes(&cut).expect("length and end are right");
    assert!(compile(&doc! { "a": 1 }).matches(document));
    assert!(compile(&doc! { "a": 1, "c": Bson::Null }).matches(document), "what is behind damage is missing");
    assert!(!compile(&doc! { "c": 3 }).matches(document));
}

#[test]
fn patterns_that_never_end_are_given_up_and_counted() {
    let text = format!("{}!", "a".repeat(40_000));
    for (pattern, text) in
        [("(a+)+$", &text[..]), ("^(a|a)*$", &text), ("(x+x+)+[yz]", &"x".repeat(5_000)), ("(?:(a*)*)*[bc]", &text)]
    {
        let matcher = compile(&doc! { "a": { "$regex": pattern } });
        assert!(!matcher.matches(&rawdoc! { "a": text }), "{pattern}");
        assert_eq!(matcher.patterns_given_up(), 1, "{pattern}");
        assert!(!matcher.clone().matches(&rawdoc! { "a": [text, 1, text] }), "{pattern}");
        assert_eq!(matcher.patterns_given_up(), 3, "{pattern}: clones share the count");
        assert!(!matcher.matches(&rawdoc! { "a": "-" }), "{pattern}");
        assert_eq!(matcher.patterns_given_up(), 3, "{pattern}: no match is not given up");
    }
    // More than the stack of the machine code, not more than the interpreter may take.
    let matcher = compile(&doc! { "a": { "$regex": "^(?:(a)|(b))*$" } });
    assert!(matcher.matches(&rawdoc! { "a": "ab".repeat(5_000) }));
    assert_eq!(matcher.patterns_given_up(), 0);
    // A recursion that consumes nothing.
    let endless = Matcher::compile(&doc! { "a": { "$regex": "^(?1)(a?(?1)|b)" } });
    endless.expect("can be compiled").matches(&rawdoc! { "a": "aaaa" });
}

#[test]
fn a_text_that_is_not_utf8_matches_no_pattern() {
    let mut bytes = rawdoc! { "a": "xxx" }.into_bytes();
    assert!(compile(&doc! { "a": { "$regex": "x" } }).matches(RawDocument::from_bytes(&bytes).expect("a document")));
    for broken in [[b'x', 0xff, b'x'], [b'x', 0xc3, b'x'], [0xed, 0xa0, 0x80], [b'x', b'x', 0xe2]] {
        bytes[11..14].copy_from_slice(&broken);
        let document = RawDocument::from_bytes(&bytes).expect("a document");
        for pattern in ["x", "", "^.*", "[^y]"] {
            let matcher = compile(&doc! { "a": { "$regex": pattern, "$options": "is" } });
            assert!(!matcher.matches(document), "{pattern} on {broken:x?}");
            assert_eq!(matcher.patterns_given_up(), 0);
        }
        assert!(compile(&doc! { "a": { "$gt": "", "$type": "string" } }).matches(document));
    }
}

#[test]
fn one_matcher_serves_many_threads() {
    let matcher = compile(&doc! { "a": { "$regex": "^(a+)+b$", "$options": "i" }, "b.c": { "$in": [1, "x"] } });
    let work = || {
        for round in 0..200 {
            let matched =
                matcher.matches(&rawdoc! { "a": format!("{}B", "a".repeat(round % 20 + 1)), "b": [{ "c": 1.0 }] });
            assert!(matched);
            assert!(!matcher.matches(&rawdoc! { "a": "aaaac", "b": { "c": "x" } }));
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|_| _ = scope.spawn(work)));
    assert_eq!(matcher.patterns_given_up(), 0);
}

#[test]
fn fields_are_the_first_components_of_all_paths() {
    let table = [
        (doc! {}, vec![]),
        (doc! { "$comment": "x", "$alwaysTrue": 1 }, vec![]),
        (doc! { "b.c": 1, "a": 1, "b": { "$exists": true } }, vec!["a", "b"]),
        (doc! { "$or": [{ "$nor": [{ "x.y": 1 }] }, { "a": { "$elemMatch": { "z": 1 } } }] }, vec!["a", "x"]),
        (doc! { "a": { "$not": { "$all": [{ "$elemMatch": { "q": 1 } }] } }, "$alwaysFalse": 1 }, vec!["a"]),
        (doc! { "": 1, ".a": 1 }, vec![""]),
    ];
    for (query, expected) in table {
        assert_eq!(compile(&query).fields().collect::<Vec<_>>(), expected, "{query}");
    }
}
