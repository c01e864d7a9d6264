//! Exact texts for the corners, in the three forms. `tests/json` has generated documents beside other implementations.

use bson::{
    Bson, DateTime, DbPointer, Decimal128, Document, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp, doc,
    oid::ObjectId, spec::BinarySubtype,
};

use super::*;

fn json(document: &Document, form: JsonForm) -> Result<String, JsonError> {
    let raw = RawDocumentBuf::try_from(document).expect("can be encoded");
    Ok(String::from_utf8(super::document(&raw, form)?).expect("UTF-8"))
}

/// Checks one value in the three forms.
#[track_caller]
fn check(value: impl Into<Bson>, relaxed: &str, canonical: &str, plain: &str) {
    let document = doc! { "v": value };
    for (form, expected) in JsonForm::ALL.into_iter().zip([relaxed, canonical, plain]) {
        assert_eq!(json(&document, form).expect("JSON"), format!("{{\"v\":{expected}}}"), "{form:?}");
    }
}

#[test]
fn numbers() {
    check(1, "1", r#"{"$numberInt":"1"}"#, "1");
    check(i32::MIN, "-2147483648", r#"{"$numberInt":"-2147483648"}"#, "-2147483648");
    check(5i64, "5", r#"{"$numberLong":"5"}"#, "5");
    check((1i64 << 53) - 1, "9007199254740991", r#"{"$numberLong":"9007199254740991"}"#, "9007199254740991");
    check(1i64 << 53, "9007199254740992", r#"{"$numberLong":"9007199254740992"}"#, r#""9007199254740992""#);
    check(i64::MIN, "-9223372036854775808", r#"{"$numberLong":"-9223372036854775808"}"#, r#""-9223372036854775808""#);
    check(1.0, "1.0", r#"{"$numberDouble":"1.0"}"#, "1.0");
    check(-0.0, "-0.0", r#"{"$numberDouble":"-0.0"}"#, "-0.0");
    check(0.1, "0.1", r#"{"$numberDouble":"0.1"}"#, "0.1");
    let nan = r#"{"$numberDouble":"NaN"}"#;
    check(f64::NAN, nan, nan, r#""NaN""#);
    let infinity = r#"{"$numberDouble":"-Infinity"}"#;
    check(f64::NEG_INFINITY, infinity, infinity, r#""-Infinity""#);
    let decimal = r#"{"$numberDecimal":"1.50"}"#;
    check("1.50".parse::<Decimal128>().expect("decimal"), decimal, decimal, r#""1.50""#);
}

#[test]
fn dates() {
    let check = |ms: i64, relaxed: &str, plain: &str| {
        let canonical = format!(r#"{{"$date":{{"$numberLong":"{ms}"}}}}"#);
        let relaxed = if relaxed.is_empty() { canonical.clone() } else { format!(r#"{{"$date":"{relaxed}"}}"#) };
        check(DateTime::from_millis(ms), &relaxed, &canonical, plain);
    };
    check(0, "1970-01-01T00:00:00Z", r#""1970-01-01T00:00:00.000Z""#);
    check(1_356_351_330_501, "2012-12-24T12:15:30.501Z", r#""2012-12-24T12:15:30.501Z""#);
    check(1_709_208_000_500, "2024-02-29T12:00:00.500Z", r#""2024-02-29T12:00:00.500Z""#);
    check(253_402_300_799_999, "9999-12-31T23:59:59.999Z", r#""9999-12-31T23:59:59.999Z""#);
    check(253_402_300_800_000, "", "253402300800000");
    check(-1, "", r#""1969-12-31T23:59:59.999Z""#);
    check(-62_167_219_200_000, "", r#""0000-01-01T00:00:00.000Z""#);
    check(-62_167_219_200_001, "", "-62167219200001");
    check(i64::MIN, "", "-9223372036854775808");
    check(i64::MAX, "", "9223372036854775807");
}

#[test]
fn text() {
    let same = |text: &str, json: &str| check(text, json, json, json);
    same("", r#""""#);
    same("a\"b\\c/d", r#""a\"b\\c/d""#);
    same("\u{8}\t\n\u{c}\r\u{0}\u{1f}\u{7f}", "\"\\b\\t\\n\\f\\r\\u0000\\u001f\u{7f}\"");
    same("é漢\u{2028}😀", "\"é漢\u{2028}😀\"");
}

#[test]
fn other_types() {
    let oid = ObjectId::from_bytes([0x65, 0xe0, 0xd0, 0xc0, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0, 0x11]);
    let tagged = r#"{"$oid":"65e0d0c0aabbccddeeff0011"}"#;
    check(oid, tagged, tagged, r#""65e0d0c0aabbccddeeff0011""#);
    let tagged = r#"{"$timestamp":{"t":4294967295,"i":2}}"#;
    check(Timestamp { time: u32::MAX, increment: 2 }, tagged, tagged, r#"{"t":4294967295,"i":2}"#);
    let binary = |subtype, bytes: &[u8]| bson::Binary { subtype, bytes: bytes.to_vec() };
    let tagged = r#"{"$binary":{"base64":"AQI=","subType":"80"}}"#;
    check(binary(BinarySubtype::UserDefined(0x80), &[1, 2]), tagged, tagged, r#""AQI=""#);
    let tagged = r#"{"$binary":{"base64":"","subType":"00"}}"#;
    check(binary(BinarySubtype::Generic, &[]), tagged, tagged, r#""""#);
    let tagged = r#"{"$binary":{"base64":"AQI=","subType":"02"}}"#;
    check(binary(BinarySubtype::BinaryOld, &[1, 2]), tagged, tagged, r#""AQI=""#);
    let tagged = r#"{"$binary":{"base64":"AAECAwQFBgcICQoLDA0ODw==","subType":"04"}}"#;
    let uuid: Vec<u8> = (0..16).collect();
    check(binary(BinarySubtype::Uuid, &uuid), tagged, tagged, r#""00010203-0405-0607-0809-0a0b0c0d0e0f""#);
    let regex = Regex { pattern: bson::cstr!("a/\"").into(), options: bson::cstr!("xi").into() };
    let tagged = r#"{"$regularExpression":{"pattern":"a/\"","options":"ix"}}"#;
    check(regex, tagged, tagged, r#""/a/\"/ix""#);
    check(Bson::JavaScriptCode("f".into()), r#"{"$code":"f"}"#, r#"{"$code":"f"}"#, r#""f""#);
    check(
        JavaScriptCodeWithScope { code: "f".into(), scope: doc! { "n": 1 } },
        r#"{"$code":"f","$scope":{"n":1}}"#,
        r#"{"$code":"f","$scope":{"n":{"$numberInt":"1"}}}"#,
        r#"{"code":"f","scope":{"n":1}}"#,
    );
    check(Bson::Symbol("s".into()), r#"{"$symbol":"s"}"#, r#"{"$symbol":"s"}"#, r#""s""#);
    check(Bson::Undefined, r#"{"$undefined":true}"#, r#"{"$undefined":true}"#, "null");
    check(Bson::MinKey, r#"{"$minKey":1}"#, r#"{"$minKey":1}"#, r#""MinKey""#);
    check(Bson::MaxKey, r#"{"$maxKey":1}"#, r#"{"$maxKey":1}"#, r#""MaxKey""#);
    check(Bson::Null, "null", "null", "null");
    check(true, "true", "true", "true");
    check(
        doc! { "b": [1, {}], "a\"": [] },
        r#"{"b":[1,{}],"a\"":[]}"#,
        r#"{"b":[{"$numberInt":"1"},{}],"a\"":[]}"#,
        r#"{"b":[1,{}],"a\"":[]}"#,
    );
    let pointer: DbPointer = match Bson::try_from(serde_json::json!({
        "$dbPointer": { "$ref": "db.c", "$id": { "$oid": "65e0d0c0aabbccddeeff0011" } }
    })) {
        Ok(Bson::DbPointer(pointer)) => pointer,
        other => panic!("not a DBPointer: {other:?}"),
    };
    let tagged = r#"{"$dbPointer":{"$ref":"db.c","$id":{"$oid":"65e0d0c0aabbccddeeff0011"}}}"#;
    check(Bson::DbPointer(pointer), tagged, tagged, r#"{"ref":"db.c","id":"65e0d0c0aabbccddeeff0011"}"#);
}

#[test]
fn depth_is_bounded() {
    let nested = |levels| {
        (0..levels).fold(doc! {}, |inner, at| {
            if at % 2 == 0 {
                doc! { "a": inner }
            } else {
                doc! { "a": [inner] }
            }
        })
    };
    assert!(json(&nested(150), JsonForm::Relaxed).is_ok());
    assert_eq!(json(&nested(200), JsonForm::Relaxed), Err(JsonError::Depth(250)));
}

#[test]
fn decimals_are_written_as_the_bson_crate_writes_them() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        // Coefficients of all lengths and exponents of all kinds, most of them near zero; then any bits at all.
        let coefficient = random.random::<u128>() >> random.random_range(15..128);
        let exponent = if random.random() { random.random_range(6130..6200) } else { random.random_range(0..1 << 14) };
        let sign = u128::from(random.random::<bool>());
        let made = sign << 127 | exponent << 113 | coefficient;
        for bits in [made, random.random::<u128>(), made | 3 << 125, made | 15 << 123] {
            let mut text = Vec::new();
            super::scalar::decimal(&mut text, bits.to_le_bytes());
            let expected = Decimal128::from_bytes(bits.to_le_bytes()).to_string();
            assert_eq!(String::from_utf8(text).as_deref(), Ok(expected.as_str()), "{bits:#034x}");
        }
    }
}
