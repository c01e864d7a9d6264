//! Queries: operators and paths in all orders, with any value where one belongs.

use rand::{Rng, RngExt};

use crate::documents::{Generator, Value, document, regex, string};

const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;

/// Words where the server knows one.
const LOGICAL: [&str; 3] = ["$and", "$or", "$nor"];
const OPERATORS: [&str; 22] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$exists",
    "$type",
    "$mod",
    "$regex",
    "$options",
    "$all",
    "$size",
    "$elemMatch",
    "$not",
    "$bitsAllSet",
    "$bitsAnySet",
    "$bitsAllClear",
    "$bitsAnyClear",
    "$unknown",
];
const PATHS: [&str; 12] = ["a", "b", "", "key", "a.b", "a.0", "a.0.b", "a..b", ".", "0", "id", "$expr"];
const PATTERNS: [&str; 10] = ["a", "^a", "(a+)+$", "[", "\\d{2,}", "(?i)x", ".*", "é|漢", "(?=a)b", "(a)\\1"];

/// A query as BSON.
pub fn query<R: Rng>(rng: &mut R, levels: u32) -> Vec<u8> {
    let fields: Vec<(String, Value)> = (0..rng.random_range(0..4))
        .map(|_| {
            if levels > 0 && rng.random_bool(0.2) {
                let queries = (0..rng.random_range(0..3)).map(|_| (DOCUMENT, query(rng, levels - 1))).collect();
                return (pick(rng, &LOGICAL).to_owned(), array(queries));
            }
            (pick(rng, &PATHS).to_owned(), operand(rng, levels))
        })
        .collect();
    document(&fields)
}

/// What stands behind a path.
fn operand<R: Rng>(rng: &mut R, levels: u32) -> Value {
    if levels == 0 || rng.random_bool(0.3) {
        return value(rng);
    }
    let operators: Vec<_> = (0..rng.random_range(1..3))
        .map(|_| {
            let operator = pick(rng, &OPERATORS);
            let operand = match operator {
                "$in" | "$nin" | "$all" | "$mod" => array((0..rng.random_range(0..4)).map(|_| value(rng)).collect()),
                "$not" => operand(rng, levels - 1),
                "$elemMatch" if rng.random() => (DOCUMENT, query(rng, levels - 1)),
                "$elemMatch" => operand(rng, levels - 1),
                "$regex" => (0x02, string(pick(rng, &PATTERNS))),
                "$options" => (0x02, string(pick(rng, &["", "i", "imsx", "u", "z"]))),
                "$type" | "$size" => (0x10, rng.random_range(-2i32..22).to_le_bytes().into()),
                _ => value(rng),
            };
            (operator.to_owned(), operand)
        })
        .collect();
    (DOCUMENT, document(&operators))
}

/// Any value; also a pattern, which the generator of documents seldom makes a good one.
fn value<R: Rng>(rng: &mut R) -> Value {
    if rng.random_bool(0.1) {
        return (0x0b, regex(pick(rng, &PATTERNS), pick(rng, &["", "i", "imsx"])));
    }
    Generator { rng, takes: &|_, _| true, tags: true }.value(2)
}

fn array(values: Vec<Value>) -> Value {
    let fields: Vec<_> = values.into_iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect();
    (ARRAY, document(&fields))
}

fn pick<R: Rng>(rng: &mut R, of: &[&'static str]) -> &'static str {
    of[rng.random_range(0..of.len())]
}
