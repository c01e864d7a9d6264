//! Tokens that real servers made, tokens that none would make, and random damage.

use bson::{RawDocumentBuf, rawdoc};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// One line of a file in `testdata`.
struct Vector<'a> {
    line: &'a str,
    expected: Decoded,
    data: &'a str,
    type_bits: Option<Vec<u8>>,
}

fn vectors() -> Vec<Vector<'static>> {
    let files = [include_str!("../testdata/tokens-6.0.5.tsv"), include_str!("../testdata/tokens-6.0.27-split.tsv")];
    let lines = files.into_iter().flat_map(str::lines);
    let vectors = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let column: Vec<_> = line.split('\t').collect();
        let number = |at: usize| column[at].parse::<u64>().expect("a number");
        let position = Position { time: Timestamp64(number(1) << 32 | number(2)), txn_op_index: number(3) };
        Vector {
            line,
            expected: Decoded {
                position,
                format: number(4) as u8,
                is_event: column[5] == "event",
                from_invalidate: column[6] == "invalidate",
            },
            data: column[7],
            type_bits: (column[8] != "-").then(|| hex(column[8])),
        }
    });
    vectors.collect()
}

fn hex(digits: &str) -> Vec<u8> {
    digits.as_bytes().chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}

fn document(data: &str) -> RawDocumentBuf {
    rawdoc! { "_data": data }
}

#[test]
fn decodes_what_servers_made() {
    let vectors = vectors();
    assert!(vectors.len() >= 110, "only {} vectors", vectors.len());
    for Vector { line, expected, data, type_bits } in vectors {
        let mut document = document(data);
        if let Some(bytes) = &type_bits {
            let subtype = bson::spec::BinarySubtype::Generic;
            document.append(bson::cstr!("_typeBits"), bson::Binary { subtype, bytes: bytes.clone() });
        }
        let token = Token::from_document(&document).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(token.decoded, expected, "{line}");
        assert_eq!(token.data(), data);
        assert_eq!(token.document().as_bytes(), document.as_bytes(), "the whole document is kept");
    }
}

#[test]
fn order_of_tokens_is_order_of_the_stream() {
    let mut events = vectors();
    events.retain(|vector| vector.expected.is_event && vector.expected.format == 1);
    events.sort_by_key(|vector| vector.expected.position);
    for pair in events.windows(2) {
        let [a, b] = [&pair[0], &pair[1]].map(|v| Token::from_document(&document(v.data)).expect("a token"));
        assert!(a.data() < b.data() || a.position() == b.position(), "{}\n{}", pair[0].line, pair[1].line);
    }
}

#[test]
fn after_means_not_delivered_yet() {
    const MARK: &str = "826B024D1B000000042B0229296E04";
    const FIRST: &str = "826B024D1B000000042B022C0100296E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604";
    const INVALIDATE: &str = "826B024D1B000000042B022C0100296F5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604";
    const FIRST_FORMAT_2: &str = "826B024D1B000000042B042C0100296E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604";
    const SECOND: &str = "826B024D1B000000042B022C01002B026E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604";
    const LATER: &str = "826B024D1B000000052B022C0100296E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604";
    let check = |a: &str, b: &str, expected| {
        let [a, b] = [a, b].map(|data| Token::from_document(&document(data)).expect(data));
        assert_eq!(a.is_after(&b), expected, "{a:?} after {b:?}");
    };
    check(LATER, FIRST, true);
    check(FIRST, LATER, false);
    check(SECOND, FIRST, true);
    check(FIRST, SECOND, false);
    check(FIRST, MARK, true);
    check(MARK, FIRST, false);
    check(INVALIDATE, FIRST, true);
    check(FIRST, FIRST, false);
    check(&FIRST.to_lowercase(), FIRST, false);
    check(FIRST_FORMAT_2, FIRST, true);
    check(FIRST, FIRST_FORMAT_2, true);
    check(FIRST_FORMAT_2, SECOND, false);
}

#[test]
fn errors_name_what_is_wrong() {
    let check = |document: RawDocumentBuf, expected: &str| {
        let error = Token::from_document(&document).expect_err(expected).to_string();
        assert_eq!(error, format!("decode resume token: {expected}"));
    };
    check(rawdoc! {}, "the field _data is missing");
    check(rawdoc! { "_data": 1 }, "_data is of another type, not a string of hex digits");
    let cases = [
        ("", "_data ends within the cluster time"),
        ("8", "_data is not hex, at character 0"),
        ("826B0G", "_data is not hex, at character 5"),
        ("826B024D1B", "_data ends within the cluster time"),
        ("466B024D1B000000042B0229296E04", "the cluster time begins with the byte 0x46, which is not its type"),
        ("826B024D1B00000004", "_data ends within the format"),
        ("826B024D1B000000042B0629296E04", "the format is 3, which this version does not know"),
        ("826B024D1B000000042B0229", "_data ends within the txnOpIndex"),
        ("826B024D1B000000042B022B06296E04", "the token type is 3, which this version does not know"),
        ("826B024D1B000000042B0229276E04", "the txnOpIndex begins with the byte 0x27, which is not its type"),
        ("826B024D1B000000042B02292B036E04", "the txnOpIndex is 3, which this version does not know"),
        ("826B024D1B000000042B022929", "_data ends within the fromInvalidate"),
        ("826B024D1B000000042B02292904", "the fromInvalidate begins with the byte 0x04, which is not its type"),
        ("826B024D1B000000042B0229296E", "_data ends within the collection UUID"),
        ("826B024D1B000000042B0229296E3C", "the collection UUID begins with the byte 0x3c, which is not its type"),
    ];
    for (data, expected) in cases {
        check(document(data), expected);
    }
}

/// Integers of every width, built by the rule and not by the decoder.
#[test]
fn reads_integers_of_every_width() {
    for bits in 0..63 {
        for value in [1u64 << bits, (1u64 << bits) + 1, (1u64 << bits) - 1] {
            let doubled = (value << 1).to_be_bytes();
            let bytes = &doubled[doubled.iter().take_while(|b| **b == 0).count()..];
            let mut field = vec![if bytes.is_empty() { 0x29 } else { 0x2a + bytes.len() as u8 }];
            field.extend(bytes);
            let field: String = field.iter().map(|b| format!("{b:02X}")).collect();
            let token = Token::from_document(&document(&format!("826B024D1B000000042B022C0100{field}6E04")));
            assert_eq!(token.expect("a token").position().txn_op_index, value);
        }
    }
}

/// `documentKey` as it is written into a token: the type of a document, then the name.
const DOCUMENT_KEY: &str = "46646F63756D656E744B6579";

#[test]
fn a_token_without_its_key_is_at_the_same_place() {
    for vector in vectors() {
        let token = Token::from_document(&document(vector.data)).expect(vector.line);
        let cut = token.without_key();
        assert_eq!(cut.decoded, token.decoded, "{}", vector.line);
        assert!(!cut.data().contains(DOCUMENT_KEY) && cut.data().len() <= 90, "{}", vector.line);
        assert!(cut.document().get("_typeBits").expect("BSON").is_none());
    }
    assert!(vectors().iter().any(|vector| vector.data.contains(DOCUMENT_KEY)));
    assert!(vectors().iter().any(|vector| vector.data.ends_with("460000000004") || vector.data.len() > 90));
}

#[test]
fn damage_never_panics() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let vectors = vectors();
    for _ in 0..20_000 {
        let mut bytes = hex(vectors[rng.random_range(0..vectors.len())].data);
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len().min(40));
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(0..=bytes.len()));
        let digits: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
        if let Ok(token) = Token::from_document(&document(&digits)) {
            assert_eq!(token.data(), digits);
            assert_eq!(token.without_key().position().time, token.position().time);
            assert!(token.is_after(&token.clone()) || token == token.clone());
        }
        let mut whole = document(&digits).into_bytes();
        let at = rng.random_range(0..whole.len());
        whole[at] = rng.next_u32() as u8;
        if let Ok(damaged) = RawDocument::from_bytes(&whole) {
            let _ = Token::from_document(damaged).map(|token| token.data().len());
        }
    }
}
