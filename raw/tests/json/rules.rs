//! Where an official implementation does not write what the specification says, or what it reads cannot be what was: each with the
//! reason and an example, which is tried, so that a rule that is no longer true fails. Everything not listed here must be equal.
//!
//! The judge is `source/extended-json/extended-json.md` of MongoDB's specifications.

use bson::{Decimal128, oid::ObjectId};
use tailwater_raw::{json::JsonForm, kind};

use crate::documents::{self, Value};

/// Who writes and reads the JSON.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Oracle {
    /// The crate `bson`.
    Library,
    /// PyMongo's `bson.json_util`.
    PyMongo,
}

/// A kind of value that an oracle writes otherwise.
pub struct Writes {
    pub oracle: Oracle,
    pub forms: &'static [JsonForm],
    pub why: &'static str,
    pub applies: fn(u8, &[u8]) -> bool,
    pub example: fn() -> Value,
    /// What the specification wants, in the first of `forms`.
    pub specified: &'static str,
}

const BOTH: &[JsonForm] = &[JsonForm::Canonical, JsonForm::Relaxed];

pub const WRITES: &[Writes] = &[
    Writes {
        oracle: Oracle::Library,
        forms: &[JsonForm::Canonical],
        why: "a subnormal double is a double: the conversion table has no other form of it",
        applies: |kind, bytes| kind == kind::DOUBLE && double(bytes).is_subnormal(),
        example: || (kind::DOUBLE, 5e-324f64.to_le_bytes().into()),
        specified: r#"{"$numberDouble":"5e-324"}"#,
    },
    Writes {
        oracle: Oracle::Library,
        forms: BOTH,
        why: "the only words for what is no number are Infinity, -Infinity and NaN; -NaN is none",
        applies: |kind, bytes| kind == kind::DOUBLE && double(bytes).is_nan() && double(bytes).is_sign_negative(),
        example: || (kind::DOUBLE, (-f64::NAN).to_le_bytes().into()),
        specified: r#"{"$numberDouble":"NaN"}"#,
    },
    Writes {
        oracle: Oracle::Library,
        forms: &[JsonForm::Relaxed],
        why: "fractional seconds should have exactly 3 digits if they are not zero",
        applies: |kind, bytes| {
            kind == kind::DATE && is_usual(date(bytes)) && date(bytes) % 1000 != 0 && date(bytes) % 10 == 0
        },
        example: || (kind::DATE, 1_356_351_330_500i64.to_le_bytes().into()),
        specified: r#"{"$date":"2012-12-24T12:15:30.500Z"}"#,
    },
    Writes {
        oracle: Oracle::Library,
        forms: &[JsonForm::Relaxed],
        why: "behind the year 9999 a date is {\"$date\":{\"$numberLong\":…}}; the library writes 9999's last moment",
        applies: |kind, bytes| kind == kind::DATE && date(bytes) >= YEAR_10000,
        example: || (kind::DATE, YEAR_10000.to_le_bytes().into()),
        specified: r#"{"$date":{"$numberLong":"253402300800000"}}"#,
    },
    Writes {
        oracle: Oracle::PyMongo,
        forms: BOTH,
        why: "PyMongo has no undefined and decodes None",
        applies: |kind, _| kind == kind::UNDEFINED,
        example: || (kind::UNDEFINED, Vec::new()),
        specified: r#"{"$undefined":true}"#,
    },
    Writes {
        oracle: Oracle::PyMongo,
        forms: BOTH,
        why: "PyMongo has no symbol and decodes a string",
        applies: |kind, _| kind == kind::SYMBOL,
        example: || (kind::SYMBOL, documents::string("s")),
        specified: r#"{"$symbol":"s"}"#,
    },
    Writes {
        oracle: Oracle::PyMongo,
        forms: BOTH,
        why: "PyMongo has no DBPointer and decodes a DBRef",
        applies: |kind, _| kind == kind::DB_POINTER,
        example: || {
            (kind::DB_POINTER, [documents::string("db.c"), ObjectId::from_bytes([7; 12]).bytes().into()].concat())
        },
        specified: r#"{"$dbPointer":{"$ref":"db.c","$id":{"$oid":"070707070707070707070707"}}}"#,
    },
];

/// A kind of value that cannot be read back as it was, by any reader or by one.
pub struct Loses {
    pub oracle: Option<Oracle>,
    pub forms: &'static [JsonForm],
    pub why: &'static str,
    pub applies: fn(u8, &[u8]) -> bool,
    pub example: fn() -> Value,
}

pub const LOSES: &[Loses] = &[
    Loses {
        oracle: None,
        forms: &[JsonForm::Relaxed],
        why: "a long is a bare number in the relaxed form; one that is small enough is read as an int",
        applies: |kind, bytes| kind == kind::INT64 && i32::try_from(date(bytes)).is_ok(),
        example: || (kind::INT64, 5i64.to_le_bytes().into()),
    },
    Loses {
        oracle: None,
        forms: BOTH,
        why: "there is one NaN, without sign and payload",
        applies: |kind, bytes| {
            kind == kind::DOUBLE && double(bytes).is_nan() && double(bytes).to_bits() != f64::NAN.to_bits()
        },
        example: || (kind::DOUBLE, f64::from_bits(0x7ff0_0000_0000_0001).to_le_bytes().into()),
    },
    Loses {
        oracle: None,
        forms: BOTH,
        why: "options are written sorted, as the specification wants them",
        applies: |kind, bytes| {
            let options = bytes.split(|byte| *byte == 0).nth(1).unwrap_or_default();
            kind == kind::REGEX && !options.is_sorted()
        },
        example: || (kind::REGEX, documents::regex("a", "xi")),
    },
    Loses {
        oracle: None,
        forms: BOTH,
        why: "Decimal128's text does not tell NaN, infinities and zeros with superfluous bits from those without",
        applies: |kind, bytes| kind == kind::DECIMAL128 && !is_canonical(bytes),
        example: || (kind::DECIMAL128, (0b11110u128 << 122 | 1).to_le_bytes().into()),
    },
    Loses {
        oracle: Some(Oracle::Library),
        forms: &[JsonForm::Relaxed],
        why: "the library reads a negative number as a long",
        applies: |kind, bytes| kind == kind::INT32 && bytes[3] & 0x80 != 0,
        example: || (kind::INT32, (-1i32).to_le_bytes().into()),
    },
    Loses {
        oracle: Some(Oracle::PyMongo),
        forms: BOTH,
        why: "PyMongo has no undefined, symbol and DBPointer: it reads None, a string, a DBRef",
        applies: |kind, _| [kind::UNDEFINED, kind::SYMBOL, kind::DB_POINTER].contains(&kind),
        example: || (kind::SYMBOL, documents::string("s")),
    },
];

/// Whether the oracle writes a value as the specification wants it.
pub fn writes_as_specified(oracle: Oracle, form: JsonForm, kind: u8, bytes: &[u8]) -> bool {
    !WRITES.iter().any(|rule| rule.oracle == oracle && rule.forms.contains(&form) && (rule.applies)(kind, bytes))
}

/// Whether the oracle can read a value back as it was.
pub fn reads_back(oracle: Oracle, form: JsonForm, kind: u8, bytes: &[u8]) -> bool {
    let of = |rule: &Loses| rule.oracle.is_none_or(|other| other == oracle) && rule.forms.contains(&form);
    !LOSES.iter().any(|rule| of(rule) && (rule.applies)(kind, bytes))
}

const YEAR_10000: i64 = 253_402_300_800_000;

fn is_usual(ms: i64) -> bool {
    (0..YEAR_10000).contains(&ms)
}

fn double(bytes: &[u8]) -> f64 {
    f64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

fn date(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

/// IEEE 754-2008 §3.5.2: of what has several encodings in 128 bits, the one that operations give.
fn is_canonical(bytes: &[u8]) -> bool {
    let bits = u128::from_le_bytes(bytes.try_into().expect("16 bytes"));
    match bits >> 122 & 31 {
        // The specification of BSON's Decimal128 has one NaN, without a sign.
        31 => bits == 31 << 122,
        30 => bits << 1 == 30 << 123,
        24..=29 => false,
        _ => bits & ((1 << 113) - 1) < 10u128.pow(34),
    }
}

#[test]
fn canonical_decimals_are_those_that_are_read_from_text() {
    for (text, canonical) in [("0", true), ("-0E+6111", true), ("9999999999999999999999999999999999E+6111", true)] {
        let decimal: Decimal128 = text.parse().expect(text);
        assert_eq!(is_canonical(&decimal.bytes()), canonical, "{text}");
    }
    for bits in [10u128.pow(34), 3 << 125, 31 << 122 | 1, 1 << 127 | 31 << 122, 63 << 121] {
        assert!(!is_canonical(&bits.to_le_bytes()), "{bits:x}");
    }
}
