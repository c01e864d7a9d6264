//! Operands of which the server takes several forms: whole numbers of any type, types by name or number, positions of bits.

use bson::{Bson, RawBson};
use tailwater_raw::{kind, number::Number};

use crate::predicate::{self, Types};
use crate::value::Literal;

/// BSON's types by the server's names.
const TYPE_NAMES: [(&str, u8); 21] = [
    ("double", kind::DOUBLE),
    ("string", kind::STRING),
    ("object", kind::DOCUMENT),
    ("array", kind::ARRAY),
    ("binData", kind::BINARY),
    ("undefined", kind::UNDEFINED),
    ("objectId", kind::OBJECT_ID),
    ("bool", kind::BOOLEAN),
    ("date", kind::DATE),
    ("null", kind::NULL),
    ("regex", kind::REGEX),
    ("dbPointer", kind::DB_POINTER),
    ("javascript", kind::CODE),
    ("symbol", kind::SYMBOL),
    ("javascriptWithScope", kind::CODE_WITH_SCOPE),
    ("int", kind::INT32),
    ("timestamp", kind::TIMESTAMP),
    ("long", kind::INT64),
    ("decimal", kind::DECIMAL128),
    ("minKey", kind::MIN_KEY),
    ("maxKey", kind::MAX_KEY),
];
const NUMBERS: [u8; 4] = [kind::DOUBLE, kind::INT32, kind::INT64, kind::DECIMAL128];

/// A number's literal; `None` of any other type.
fn number(value: &Bson) -> Option<Literal> {
    let is_number = matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_));
    is_number.then(|| RawBson::try_from(value.clone()).ok().map(Literal::new))?
}

/// A number of any type that is whole and fits into 64 bits.
pub(super) fn integer(value: &Bson) -> Option<i64> {
    match Number::of(number(value)?.value())? {
        Number::Int(n) => Some(n),
        _ => None,
    }
}

/// Truth as the server takes it from any value.
pub(super) fn is_true(value: &Bson) -> bool {
    match value {
        Bson::Boolean(value) => *value,
        Bson::Null | Bson::Undefined => false,
        value => number(value).is_none_or(|number| Number::of(number.value()) != Some(Number::Int(0))),
    }
}

/// The operand of `$type`.
pub(super) fn types(value: &Bson) -> Result<Types, &'static str> {
    let wanted = "a type's name such as \"string\" or \"number\", its number, or an array of them";
    let mut types = Types::default();
    let items = match value {
        Bson::Array(items) if items.is_empty() => return Err(wanted),
        Bson::Array(items) => items.as_slice(),
        value => std::slice::from_ref(value),
    };
    for item in items {
        match item {
            Bson::String(name) if name == "number" => NUMBERS.into_iter().for_each(|kind| types.insert(kind)),
            Bson::String(name) => {
                let found = TYPE_NAMES.iter().find(|(known, _)| known == name);
                types.insert(found.ok_or(wanted)?.1);
            }
            item => types.insert(match integer(item).ok_or(wanted)? {
                -1 => kind::MIN_KEY,
                n @ (1..=19 | 127) => n as u8,
                _ => return Err(wanted),
            }),
        }
    }
    Ok(types)
}

/// The operand of `$mod`: divisor and remainder, without what is behind the point.
pub(super) fn modulo(value: &Bson) -> Result<(i64, i64), &'static str> {
    let wanted = "an array of two finite numbers, divisor and remainder, of which the divisor is not 0";
    let [divisor, remainder] = value.as_array().ok_or(wanted)?.as_slice() else { return Err(wanted) };
    let whole = |value| predicate::whole(number(value).ok_or(wanted)?.value()).ok_or(wanted);
    let (divisor, remainder) = (whole(divisor)?, whole(remainder)?);
    if divisor == 0 { Err(wanted) } else { Ok((divisor, remainder)) }
}

/// The operand of `$bitsAllSet` and its like: the positions that it names.
pub(super) fn positions(value: &Bson) -> Result<Vec<u32>, &'static str> {
    let wanted = "a whole number from 0 on, an array of positions, or binary";
    let of_bytes = |bytes: &[u8]| {
        let bits =
            bytes.iter().enumerate().flat_map(|(at, byte)| (0..8).map(move |bit| (at * 8 + bit, byte >> bit & 1)));
        bits.filter(|(_, set)| *set == 1).map(|(at, _)| at as u32).collect()
    };
    match value {
        Bson::Array(items) => {
            let position = |item| integer(item).and_then(|n| i32::try_from(n).ok()).and_then(|n| u32::try_from(n).ok());
            items.iter().map(|item| position(item).ok_or(wanted)).collect()
        }
        Bson::Binary(binary) => {
            let literal = RawBson::try_from(value.clone()).map(Literal::new).map_err(|_| wanted)?;
            let bytes = literal.value().bytes().get(5..).unwrap_or(&binary.bytes).to_vec();
            Ok(of_bytes(&bytes))
        }
        value => {
            let mask = integer(value).and_then(|n| u64::try_from(n).ok()).ok_or(wanted)?;
            Ok(of_bytes(&mask.to_le_bytes()))
        }
    }
}
