//! Values of every BSON type with the edges of each, and worlds: the few of them that the documents and the queries of one batch share,
//! so that they meet.

use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc, oid::ObjectId,
};

use super::random::Random;

/// The values that one batch is made of.
pub struct World {
    scalars: Vec<Bson>,
}

impl World {
    pub fn new(random: &mut Random) -> World {
        let all = scalars();
        let mut scalars: Vec<Bson> = (0..4).map(|_| random.pick(&all).clone()).collect();
        // Numbers that are equal, or nearly, in other types.
        for at in 0..2 {
            let near = neighbour(random, &scalars[at]);
            scalars.push(near);
        }
        scalars.extend([Bson::Int32(1), Bson::Int32(5), Bson::Null, Bson::from("a")]);
        World { scalars }
    }

    /// One value without anything in it.
    pub fn scalar(&self, random: &mut Random) -> Bson {
        match random.below(20) {
            0 => random.pick(&scalars()).clone(),
            1 => {
                let of = random.pick(&self.scalars).clone();
                neighbour(random, &of)
            }
            _ => random.pick(&self.scalars).clone(),
        }
    }

    /// Any value, nested at most so many levels.
    pub fn value(&self, random: &mut Random, levels: usize) -> Bson {
        match random.below(10) {
            0 | 1 if levels > 0 => {
                let len = random.below(4);
                Bson::Array((0..len).map(|_| self.value(random, levels - 1)).collect())
            }
            2 | 3 if levels > 0 => Bson::Document(self.document(random, levels - 1)),
            _ => self.scalar(random),
        }
    }

    /// A document of the few names that paths are made of.
    pub fn document(&self, random: &mut Random, levels: usize) -> Document {
        let mut document = Document::new();
        for _ in 0..random.below(4) {
            document.insert(name(random), self.value(random, levels));
        }
        document
    }
}

/// A field's name.
pub fn name(random: &mut Random) -> &'static str {
    const NAMES: [&str; 14] = ["a", "a", "a", "b", "b", "b", "c", "0", "1", "", "00", "é", "x$y", "$ref"];
    NAMES[random.below(NAMES.len())]
}

/// A value near another: the same number in another type, the next one, or the string or code of the same text.
fn neighbour(random: &mut Random, value: &Bson) -> Bson {
    let integer = match value {
        Bson::Int32(n) => i64::from(*n),
        Bson::Int64(n) => *n,
        Bson::Double(n) if n.trunc() == *n && n.abs() < 9e18 => *n as i64,
        Bson::Double(n) => return format!("{n:e}").parse().map_or(Bson::Double(*n), Bson::Decimal128),
        Bson::Decimal128(n) => return n.to_string().parse().map_or(Bson::Decimal128(*n), Bson::Double),
        Bson::String(text) => {
            return match random.below(4) {
                0 => Bson::Symbol(text.clone()),
                1 => Bson::JavaScriptCode(text.clone()),
                2 => Bson::String(text.to_uppercase()),
                _ => Bson::String(format!("{text}a")),
            };
        }
        Bson::DateTime(date) => {
            return Bson::Timestamp(Timestamp { time: date.timestamp_millis() as u32, increment: 0 });
        }
        Bson::Binary(binary) => {
            return Bson::Binary(Binary { subtype: BinarySubtype::UserDefined(128), bytes: binary.bytes.clone() });
        }
        Bson::Undefined => return Bson::Null,
        Bson::Null => return Bson::Undefined,
        other => return other.clone(),
    };
    let integer = integer.wrapping_add(random.below(3) as i64 - 1);
    match random.below(5) {
        0 => i32::try_from(integer).map_or(Bson::Int64(integer), Bson::Int32),
        1 => Bson::Int64(integer),
        2 => Bson::Double(integer as f64),
        3 => decimal(&format!("{integer}.5")),
        _ => decimal(&integer.to_string()),
    }
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse::<Decimal128>().unwrap_or_else(|error| panic!("{text}: {error}")))
}

/// A regular expression as a value.
pub fn regex(pattern: &str, options: &str) -> Bson {
    let text = |text: &str| bson::raw::CString::try_from(text.to_owned()).expect("no zero byte");
    Bson::RegularExpression(Regex { pattern: text(pattern), options: text(options) })
}

/// Values of each type, with its edges.
pub fn scalars() -> Vec<Bson> {
    let mut all = numbers();
    let texts = [
        "",
        "a",
        "A",
        "ab",
        "abc",
        "b",
        "b a",
        "a\0b",
        "a\nb",
        "1",
        "é",
        "É",
        "ﬁ",
        "漢字",
        "\u{10ffff}",
        "$a",
        "a.b",
        "aaaaaaaaaa",
    ];
    all.extend(texts.map(Bson::from));
    all.extend(["a", "", "é"].map(|text| Bson::Symbol(text.into())));
    all.extend(["a", "", "f()"].map(|text| Bson::JavaScriptCode(text.into())));
    let scoped =
        |code: &str, scope| Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: code.into(), scope });
    all.extend([
        scoped("a", doc! {}),
        scoped("a", doc! { "a": 1 }),
        scoped("a", doc! { "a": 1.0 }),
        scoped("f()", doc! {}),
    ]);
    all.extend([regex("a", ""), regex("a", "i"), regex("b", "im"), regex("^a", ""), regex("", ""), regex("a|b", "")]);
    all.extend([Bson::Null, Bson::Undefined, Bson::MinKey, Bson::MaxKey, Bson::Boolean(true), Bson::Boolean(false)]);
    let dates = [0, 1, -1, 1_709_208_000_000, i64::MAX, i64::MIN, 253_402_300_800_000];
    all.extend(dates.map(|ms| Bson::DateTime(DateTime::from_millis(ms))));
    let timestamps = [(0, 0), (0, 1), (1, 0), (1, 2), (u32::MAX, u32::MAX), (1 << 31, 0)];
    all.extend(timestamps.map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })));
    all.extend([[0; 12], [0xff; 12], [7; 12]].map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))));
    all.extend(binaries());
    for (namespace, id) in
        [("db.c", "070707070707070707070707"), ("db.d", "000000000000000000000000"), ("d", "070707070707070707070707")]
    {
        let pointer = doc! { "$dbPointer": { "$ref": namespace, "$id": { "$oid": id } } };
        let json = serde_json(&pointer);
        all.push(Bson::try_from(json).expect("a DBPointer"));
    }
    all
}

/// The driver's library makes DBPointers from Extended JSON only.
fn serde_json(document: &Document) -> serde_json::Value {
    serde_json::to_value(document).expect("JSON")
}

fn binaries() -> Vec<Bson> {
    let of = |subtype: u8, bytes: &[u8]| {
        Bson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes: bytes.to_vec() })
    };
    vec![
        of(0, b""),
        of(0, b"\x05"),
        of(128, b"\x05"),
        of(0, b"abc"),
        of(0, b"abd"),
        of(2, b"\x07"),
        of(2, b""),
        of(4, &[0x42; 16]),
        of(3, &[0x42; 16]),
        of(5, &[0x42; 16]),
        of(0, &[0xff; 20]),
        of(0, &[0, 0, 0, 0, 0, 0, 0, 0, 1]),
        of(7, b"\x01\x00"),
    ]
}

/// Doubles and decimals at the edges of what they and the integers can hold, many of them near each other.
const DOUBLES: &str = "0 -0 1 1.5 -1.5 0.1 5 4.7 -4.7 0.5 9007199254740992 9223372036854775808 -9223372036854775808 18446744073709551616 \
    9223372036854774784 1e22 1e23 1e300 1e308 1.7976931348623157e308 -1.7976931348623157e308 2.2250738585072014e-308 \
    5e-324 1e-320 NaN -NaN inf -inf 9.5367431640625e-7 1.2676506002282294e30 1.329227995784916e36 0.3333333333333333 1e15 \
    123456789.123";
const DECIMALS: &str = "0 -0 0E+3 0E-6176 1 1.0 1.50 -1.5 5 4.7 4.5 5.5 0.1 0.5 NaN -NaN Infinity -Infinity \
    0.1000000000000000055511151231257827 0.1000000000000000055511151231257828 1E+3 1E+30 9007199254740993 \
    9007199254740992.5 9223372036854775807 9223372036854775807.5 9223372036854775808 -9223372036854775808 \
    -9223372036854775808.5 -9223372036854775809 1E+300 1E+6111 9.999999999999999999999999999999999E+6144 1E-6176 -1E-6176 \
    1267650600228229401496703205376 1.329227995784915872903807060280345E+36 9.5367431640625E-7 1E+22 1E+23 \
    99999999999999991611392 0.3333333333333333148296162562473909 5E-324 4.940656458412465441765687928682214E-324 \
    1.797693134862315708145274237317044E+308 1.7976931348623157E+308 123456789.123 1.000000000000000000000000000000001 \
    4.999999999999999999999999999999999 18446744073709551616";

fn numbers() -> Vec<Bson> {
    let mut all: Vec<Bson> = [0, 1, 2, 3, 4, 5, 7, 10, -1, -2, -5, i32::MAX, i32::MIN, 1000].map(Bson::Int32).to_vec();
    let edges = [i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1];
    let longs = [0, 1, 5, -5, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, 1 << 31, 1 << 32];
    all.extend(edges.into_iter().chain(longs).map(Bson::Int64));
    all.extend(DOUBLES.split(' ').map(|text| Bson::Double(text.parse().expect(text))));
    all.extend(DECIMALS.split(' ').map(decimal));
    all
}
