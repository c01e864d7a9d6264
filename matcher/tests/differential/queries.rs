//! Queries over every operator: mostly such as the server takes, of values that the documents have, and some that it refuses.

use bson::{Bson, Document, doc};

use super::random::Random;
use super::values::{self, World, name};

/// A whole query.
pub fn query(random: &mut Random, world: &World) -> Document {
    let query = document(random, world, 3);
    // What does not match is as telling as what does.
    if random.percent(15) {
        doc! { "$nor": [query] }
    } else {
        query
    }
}

/// A query document, with at most so many levels of operators.
fn document(random: &mut Random, world: &World, levels: usize) -> Document {
    let mut query = Document::new();
    for _ in 0..*random.pick(&[1, 1, 1, 1, 1, 1, 1, 2, 2, 3]) {
        match random.below(40) {
            0..=9 if levels > 0 => {
                let operator = *random.pick(&["$and", "$or", "$or", "$or", "$or", "$nor", "$nor"]);
                let len = 1 + random.below(if operator == "$or" { 5 } else { 3 });
                let parts: Vec<Bson> = (0..len).map(|_| document(random, world, levels - 1).into()).collect();
                query.insert(operator, parts);
            }
            10 if random.percent(40) => {
                let (operator, value) = random.pick(&[("$comment", 1), ("$alwaysTrue", 1), ("$alwaysFalse", 1)]);
                query.insert(*operator, *value);
            }
            _ => {
                query.insert(path(random), condition(random, world, levels));
            }
        }
    }
    if random.percent(1) {
        spoil(random, &mut query);
    }
    query
}

/// A path of the names that documents have.
fn path(random: &mut Random) -> String {
    let usual = [
        "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "b", "b", "a.b", "a.b", "a.a", "a.0", "a.1", "a.0.b",
        "a.b.0", "a.b.a", "b.a", "b.0", "c", "c.a", "0",
    ];
    if random.percent(85) {
        return (*random.pick(&usual)).into();
    }
    let mut path = name(random).to_owned();
    for _ in 0..random.below(4) {
        path = path + "." + name(random);
    }
    // The server takes no operator for a path.
    if path.starts_with("$ref.") { path.replacen("$ref", "a", 1) } else { path }
}

/// What is asked of a field.
pub fn condition(random: &mut Random, world: &World, levels: usize) -> Bson {
    if random.percent(15) {
        return match random.below(8) {
            0 => pattern_value(random),
            1 => doc! { "$ref": "a", "$id": world.scalar(random) }.into(),
            _ => world.value(random, 2),
        };
    }
    operators(random, world, levels).into()
}

/// A document of operators on one value.
fn operators(random: &mut Random, world: &World, levels: usize) -> Document {
    let mut all = Document::new();
    for _ in 0..*random.pick(&[1, 1, 1, 1, 1, 1, 1, 2, 2, 3]) {
        operator(random, world, levels, &mut all);
    }
    all
}

fn operator(random: &mut Random, world: &World, levels: usize, all: &mut Document) {
    match random.below(26) {
        at @ 0..=5 => {
            let operator = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"][at];
            all.insert(operator, world.value(random, 2));
        }
        at @ (6 | 7) => {
            let len = random.below(9);
            let value =
                |random: &mut Random| if random.percent(8) { pattern_value(random) } else { world.value(random, 2) };
            let values: Vec<Bson> = (0..len).map(|_| value(random)).collect();
            all.insert(if at == 6 { "$in" } else { "$nin" }, values);
        }
        8 => {
            let truth = [
                Bson::Boolean(true),
                Bson::Boolean(true),
                Bson::Boolean(false),
                Bson::Boolean(false),
                world.scalar(random),
            ];
            all.insert("$exists", random.pick(&truth).clone());
        }
        9 => {
            all.insert("$type", types(random));
        }
        10 => {
            let divisor = random.pick(&[1, 2, 2, 3, 4, -2, -3, 10]);
            let (divisor, remainder) = (number(random, *divisor), random.below(7) as i64 - 3);
            let remainder = if random.percent(60) { Bson::Int32(0) } else { number(random, remainder) };
            let operand = if random.percent(5) {
                vec![world.scalar(random), world.scalar(random)]
            } else {
                vec![divisor, remainder]
            };
            all.insert("$mod", operand);
        }
        11 | 12 => {
            let (pattern, options) = pattern(random);
            all.insert("$regex", if random.percent(20) { pattern_value(random) } else { pattern.into() });
            if !options.is_empty() || random.percent(20) {
                all.insert("$options", options);
            }
        }
        13 => {
            all.insert("$all", all_of(random, world, levels));
        }
        14 | 15 if levels > 0 => {
            all.insert("$elemMatch", element(random, world, levels - 1));
        }
        16 => {
            let size = random.below(4) as i64;
            all.insert("$size", if random.percent(95) { number(random, size) } else { world.scalar(random) });
        }
        17..=19 => {
            let operator = *random.pick(&["$bitsAllSet", "$bitsAllClear", "$bitsAnySet", "$bitsAnyClear"]);
            all.insert(operator, bits(random, world));
        }
        20..=23 if levels > 0 => {
            let inner =
                if random.percent(12) { pattern_value(random) } else { operators(random, world, levels - 1).into() };
            all.insert("$not", inner);
        }
        _ => {
            all.insert(*random.pick(&["$eq", "$gte", "$lte", "$ne", "$ne"]), world.scalar(random));
        }
    }
}

/// A number in one of the types that can hold it.
fn number(random: &mut Random, n: i64) -> Bson {
    match random.below(6) {
        0 => Bson::Int64(n),
        1 => Bson::Double(n as f64),
        2 => Bson::Decimal128(n.to_string().parse().expect("a decimal")),
        3 if random.percent(30) => Bson::Double(n as f64 + 0.5),
        _ => Bson::Int32(n as i32),
    }
}

fn types(random: &mut Random) -> Bson {
    const NAMES: [&str; 22] = [
        "double",
        "string",
        "object",
        "array",
        "binData",
        "undefined",
        "objectId",
        "bool",
        "date",
        "null",
        "regex",
        "dbPointer",
        "javascript",
        "symbol",
        "javascriptWithScope",
        "int",
        "timestamp",
        "long",
        "decimal",
        "minKey",
        "maxKey",
        "number",
    ];
    const CODES: [i64; 26] =
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 127, -1, 1, 2, 0, 20, 255];
    let one = |random: &mut Random| match random.below(4) {
        0 => {
            let code = *random.pick(&CODES);
            number(random, code)
        }
        1 => (*random.pick(&["number", "string", "object", "array", "null", "nothing"])).into(),
        _ => (*random.pick(&NAMES)).into(),
    };
    if random.percent(60) {
        return one(random);
    }
    let len = random.below(7);
    Bson::Array((0..len).map(|_| one(random)).collect())
}

fn pattern(random: &mut Random) -> (String, String) {
    const PATTERNS: [&str; 36] = [
        "a", "b", "A", "ab", "^a", "a$", "^a$", "a.b", "a.c", "[ab]+", "(a|b)c", "a{2}", "a{2,}b?", "\\d", "\\w+$",
        "(?i)A", "^$", "", ".", "a.*b", "é", "É", "^.$", "^..$", "\\bb", "(a)\\1", "\\s", "a # b\nb", "a b", "[^a]",
        "\\p{L}", "\\p{Nd}", "(?<=a)b", "(?!a)b", "^a|b$", "漢",
    ];
    let mut options = String::new();
    if random.percent(40) {
        for _ in 0..1 + random.below(2) {
            options.push(*random.pick(&['i', 'i', 'm', 's', 'x', 'u']));
        }
    }
    if random.percent(1) {
        return ((*random.pick(&["(", "[", "a**", "\\"])).into(), options);
    }
    if random.percent(1) {
        options.push('q');
    }
    ((*random.pick(&PATTERNS)).into(), options)
}

fn pattern_value(random: &mut Random) -> Bson {
    let (pattern, mut options) = pattern(random);
    if random.percent(60) {
        options.clear();
    }
    values::regex(&pattern, &options)
}

fn all_of(random: &mut Random, world: &World, levels: usize) -> Bson {
    let len = *random.pick(&[0, 1, 1, 1, 2, 2, 3]);
    if levels > 0 && random.percent(35) {
        return (0..len).map(|_| doc! { "$elemMatch": element(random, world, levels - 1) }).collect::<Vec<_>>().into();
    }
    let value = |random: &mut Random| if random.percent(10) { pattern_value(random) } else { world.value(random, 2) };
    Bson::Array((0..len).map(|_| value(random)).collect())
}

fn element(random: &mut Random, world: &World, levels: usize) -> Document {
    match random.below(10) {
        0 => doc! {},
        1..=4 => document(random, world, levels),
        _ => operators(random, world, levels),
    }
}

fn bits(random: &mut Random, world: &World) -> Bson {
    match random.below(10) {
        0..=3 => {
            let masks = [0, 1, 2, 4, 5, 7, 8, 255, 1 << 31, 1 << 53, i64::MAX];
            let mask = *random.pick(&masks);
            number(random, mask)
        }
        4..=7 => {
            let len = random.below(4);
            let mut position = || {
                let position = *random.pick(&[0, 0, 1, 2, 3, 5, 8, 31, 32, 62, 63, 64, 65, 100, 159, 160, 200]);
                number(random, position)
            };
            Bson::Array((0..len).map(|_| position()).collect())
        }
        8 => {
            let binaries: Vec<Bson> = values::scalars().into_iter().filter(|v| matches!(v, Bson::Binary(_))).collect();
            random.pick(&binaries).clone()
        }
        _ => world.scalar(random),
    }
}

/// Puts something into a query that the server mostly refuses.
fn spoil(random: &mut Random, query: &mut Document) {
    let bad = [
        ("$and", Bson::Array(vec![])),
        ("$or", Bson::from("a")),
        ("$nor", doc! { "a": 1 }.into()),
        ("$not", doc! { "a": 1 }.into()),
        ("$gt", Bson::from(1)),
        ("a", doc! { "$wrong": 1 }.into()),
        ("a", doc! { "$eq": 1, "b": 2 }.into()),
        ("a", doc! { "b": 2, "$eq": 1 }.into()),
        ("a", doc! { "$and": [{ "b": 1 }] }.into()),
        ("a", doc! { "$comment": "x" }.into()),
        ("a", doc! { "$id": 1 }.into()),
        ("a", doc! { "$options": "i" }.into()),
        ("a", doc! { "$in": [{ "$gt": 1 }] }.into()),
        ("a", doc! { "$in": 1 }.into()),
        ("a", doc! { "$all": [{ "$gt": 1 }] }.into()),
        ("a", doc! { "$all": [{ "$elemMatch": { "a": 1 } }, 1] }.into()),
        ("a", doc! { "$elemMatch": 1 }.into()),
        ("a", doc! { "$elemMatch": { "$gt": 1, "$or": [{ "a": 1 }] } }.into()),
        ("a", doc! { "$size": -1 }.into()),
        ("a", doc! { "$not": {} }.into()),
        ("a", doc! { "$not": 1 }.into()),
        ("a", doc! { "$mod": [1] }.into()),
        ("a", doc! { "$type": [] }.into()),
        ("$alwaysTrue", Bson::from(2)),
        ("$id", Bson::from(1)),
        ("$db.a", Bson::from(1)),
    ];
    let (name, value) = random.pick(&bad).clone();
    query.insert(name, value);
}
