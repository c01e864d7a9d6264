//! Named cases, each with mongod's answer asked on the spot: after the ideas of MongoDB's own query tests (types, arrays, null, numbers),
//! and what was learnt while this was made.

use bson::{Bson, Document, RawDocumentBuf, doc};

use super::server::Server;
use super::tally::Tally;
use super::{compare, shrink, values};

/// Documents of one theme, and queries put to all of them.
struct Theme {
    name: &'static str,
    documents: Vec<Document>,
    queries: Vec<Document>,
}

/// Documents with these values as `a`.
fn with_a<V: Into<Bson>>(values: impl IntoIterator<Item = V>) -> Vec<Document> {
    values.into_iter().map(|value| doc! { "a": value.into() }).collect()
}

#[tokio::test]
async fn named_cases_are_answered_as_mongod_does() {
    let server = Server::start().await;
    let mut tally = Tally::new(0);
    let mut wrong = String::new();
    for theme in
        [null(), arrays(), empty_names(), numbers(), orders(), patterns(), elements(), operands(), references()]
    {
        let documents = theme.documents.iter().enumerate().map(|(id, document)| {
            let mut with_id = doc! { "_id": id as i32 };
            with_id.extend(document.clone());
            RawDocumentBuf::try_from(&with_id).expect("can be encoded")
        });
        let documents = server.store(documents).await;
        for query in &theme.queries {
            if let Some((query, document)) = compare(&server, &documents, query, &mut tally).await {
                wrong += &format!("{}:\n{}", theme.name, shrink::explain(&server, &query, document.as_deref()).await);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(tally.pairs > 4_000, "{tally}");
}

/// Null, undefined and missing, at the end of a path and on the way.
fn null() -> Theme {
    let empty: Vec<Bson> = Vec::new();
    let mut documents = vec![
        doc! {},
        doc! { "a": Bson::Null },
        doc! { "a": Bson::Undefined },
        doc! { "a": [Bson::Null] },
        doc! { "a": [Bson::Undefined] },
        doc! { "a": empty.clone() },
        doc! { "a": { "b": Bson::Null } },
        doc! { "a": { "b": Bson::Undefined } },
        doc! { "a": {} },
        doc! { "a": [{ "b": Bson::Null }, { "b": 1 }] },
        doc! { "a": [{}, 1] },
        doc! { "a": [1, 2] },
        doc! { "a": [[]] },
        doc! { "a": 1 },
        doc! { "a": { "b": empty } },
    ];
    documents.push(doc! { "a": [{ "b": [Bson::Null] }] });
    let mut queries = Vec::new();
    for path in ["a", "a.b", "a.0", "a.0.b", "a.b.0", "b"] {
        for condition in [
            Bson::Null,
            doc! { "$ne": Bson::Null }.into(),
            doc! { "$eq": Bson::Null }.into(),
            doc! { "$gt": Bson::Null }.into(),
            doc! { "$gte": Bson::Null }.into(),
            doc! { "$lt": Bson::Null }.into(),
            doc! { "$lte": Bson::Null }.into(),
            doc! { "$in": [Bson::Null, 7] }.into(),
            doc! { "$nin": [Bson::Null] }.into(),
            doc! { "$all": [Bson::Null] }.into(),
            doc! { "$not": { "$gte": Bson::Null } }.into(),
            doc! { "$exists": true }.into(),
            doc! { "$exists": Bson::Null }.into(),
            doc! { "$type": "null" }.into(),
            doc! { "$type": ["undefined", 10] }.into(),
            doc! { "$elemMatch": { "$eq": Bson::Null } }.into(),
            doc! { "$elemMatch": { "b": Bson::Null } }.into(),
            doc! { "$eq": [Bson::Null] }.into(),
            Bson::Undefined,
            doc! { "$eq": Bson::Undefined }.into(),
            doc! { "$in": [Bson::Undefined] }.into(),
            doc! { "$eq": [Bson::Undefined] }.into(),
        ] {
            queries.push(doc! { path: condition });
        }
    }
    Theme { name: "null", documents, queries }
}

/// Arrays on the way and at the end, indexes that are names, nested arrays.
fn arrays() -> Theme {
    let documents = vec![
        doc! { "a": [1, 2, 3] },
        doc! { "a": [[1, 2], [3]] },
        doc! { "a": [[1, 2], 3] },
        doc! { "a": [{ "b": 1 }, { "b": [1, 2] }] },
        doc! { "a": { "b": [{ "c": 1 }, { "c": 2 }] } },
        doc! { "a": { "0": 1 } },
        doc! { "a": [{ "0": 1 }] },
        doc! { "a": [{ "1": 4 }, 5] },
        doc! { "a": [5, [2, 4]] },
        doc! { "a": [[{ "b": 1 }]] },
        doc! { "a": [{ "0": { "b": 1 } }] },
        doc! { "a": { "00": 1 } },
        doc! { "a": [[[1]]] },
        doc! { "a": [{ "b": [{ "c": 1 }] }, { "b": { "c": [1] } }] },
        doc! { "a": [{ "b": 1, "c": 2 }] },
        doc! { "a": 1 },
    ];
    let mut queries = Vec::new();
    for path in [
        "a",
        "a.0",
        "a.1",
        "a.00",
        "a.b",
        "a.0.b",
        "a.0.0",
        "a.1.1",
        "a.b.c",
        "a.b.0",
        "a.b.0.c",
        "a.0.b.0.c",
        "a.0.0.0",
        "a.0.0.b",
    ] {
        for condition in [
            Bson::Int32(1),
            Bson::Int32(4),
            Bson::from(vec![1, 2]),
            doc! { "b": 1 }.into(),
            doc! { "$gt": 1, "$lt": 3 }.into(),
            doc! { "$not": { "$gt": 1, "$lt": 3 } }.into(),
            doc! { "$size": 2 }.into(),
            doc! { "$gte": [1] }.into(),
            doc! { "$all": [1, 2] }.into(),
            doc! { "$all": [[1, 2]] }.into(),
            doc! { "$in": [[1, 2], 4] }.into(),
            doc! { "$type": "array" }.into(),
            doc! { "$exists": false }.into(),
            doc! { "$ne": 1 }.into(),
            doc! { "$elemMatch": { "$gte": 2 } }.into(),
            doc! { "$elemMatch": { "b": 1 } }.into(),
            doc! { "$elemMatch": { "0": 1 } }.into(),
            doc! { "$mod": [2, 1] }.into(),
        ] {
            queries.push(doc! { path: condition });
        }
    }
    // One pass over the document and each path for itself have to come to the same.
    queries.extend([
        doc! { "a.b": 1, "a.c": 2 },
        doc! { "a.b": 1, "a": { "$type": "array" } },
        doc! { "a.b.c": 1, "a.b": { "$exists": true }, "a.0.b": { "$exists": true } },
        doc! { "a": { "$size": 2 }, "a.b": { "$exists": true } },
        doc! { "a.b": { "$ne": 1 }, "a.c": { "$ne": 2 }, "x": Bson::Null },
        doc! { "a.b": 1, "$or": [{ "a.c": 2 }, { "a.b": [1, 2] }] },
    ]);
    Theme { name: "arrays", documents, queries }
}

/// What the server makes of empty components.
fn empty_names() -> Theme {
    let documents = vec![
        doc! { "a": { "": 1 } },
        doc! { "a": [{ "": 1 }] },
        doc! { "a": [[{ "": 1 }]] },
        doc! { "a": { "": { "": 1 } } },
        doc! { "a": { "": [1] } },
        doc! { "a": { "": [{ "": 1 }] } },
        doc! { "a": [{ "": [{ "": 1 }] }] },
        doc! { "": { "": 1 } },
        doc! { "": 1 },
        doc! { "a": [1] },
        doc! { "a": 1 },
        doc! { "a": [[1]] },
    ];
    let mut queries = Vec::new();
    for path in ["a.", "a..", "a..a", "", ".", "a.0.", ".."] {
        for condition in [
            Bson::Int32(1),
            Bson::Null,
            doc! { "$exists": true }.into(),
            doc! { "$size": 1 }.into(),
            doc! { "$type": "array" }.into(),
            doc! { "$elemMatch": { "$eq": 1 } }.into(),
        ] {
            queries.push(doc! { path: condition.clone() });
            queries.push(doc! { path: condition, "a": { "$ne": 5 } });
        }
    }
    Theme { name: "empty names", documents, queries }
}

/// Every number beside every other, by every operator that compares.
fn numbers() -> Theme {
    let is_number =
        |value: &Bson| matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_));
    let numbers: Vec<Bson> = values::scalars().into_iter().filter(is_number).collect();
    let mut queries = Vec::new();
    for number in &numbers {
        for operator in ["$eq", "$gt", "$gte", "$lt", "$lte"] {
            queries.push(doc! { "a": { operator: number.clone() } });
        }
        queries.push(doc! { "a": { "$in": [number.clone(), 77] } });
        queries.push(doc! { "a": { "$mod": [number.clone(), 0] } });
        queries.push(doc! { "a": { "$mod": [3, number.clone()] } });
        queries.push(doc! { "a": { "$size": number.clone() } });
        queries.push(doc! { "a": { "$type": number.clone() } });
        queries.push(doc! { "a": { "$exists": number.clone() } });
        queries.push(doc! { "$alwaysTrue": number.clone() });
        for operator in ["$bitsAllSet", "$bitsAllClear", "$bitsAnySet", "$bitsAnyClear"] {
            queries.push(doc! { "a": { operator: number.clone() } });
            queries.push(doc! { "a": { operator: [number.clone()] } });
        }
    }
    for position in [0, 1, 2, 31, 62, 63, 64, 200] {
        queries.push(doc! { "a": { "$bitsAllSet": [position] } });
    }
    Theme { name: "numbers", documents: with_a(numbers), queries }
}

/// Every value beside every other, by every operator that compares.
fn orders() -> Theme {
    let is_number =
        |value: &Bson| matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_));
    let mut values: Vec<Bson> = values::scalars().into_iter().filter(|value| !is_number(value)).collect();
    values.extend([Bson::Int32(1), Bson::Double(1.0), Bson::from(vec![1, 2]), Bson::Array(vec![])]);
    values.extend(
        [
            doc! {},
            doc! { "a": 1 },
            doc! { "a": 1.0 },
            doc! { "b": 1 },
            doc! { "a": "x" },
            doc! { "a": 1, "b": 2 },
            doc! { "b": 2, "a": 1 },
            doc! { "a": { "b": [1, { "c": Bson::Null }] } },
            doc! { "a": { "b": [1, { "c": Bson::Undefined }] } },
            doc! { "$gt": 1 },
        ]
        .map(Bson::from),
    );
    let nested = values.iter().map(|value| Bson::Array(vec![value.clone()]));
    let all: Vec<Bson> = values.iter().cloned().chain(nested).collect();
    let mut queries = Vec::new();
    for value in &all {
        for operator in ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"] {
            queries.push(doc! { "a": { operator: value.clone() } });
        }
        for operator in ["$in", "$nin", "$all"] {
            queries.push(doc! { "a": { operator: [value.clone(), "none"] } });
            queries.push(doc! { "a": { operator: [value.clone()] } });
        }
        queries.push(doc! { "a": value.clone() });
        queries.push(doc! { "a": { "$exists": value.clone() } });
        queries.push(doc! { "a": { "$type": value.clone() } });
        queries.push(doc! { "a": { "$bitsAnySet": value.clone() } });
    }
    Theme { name: "order of types", documents: with_a(all), queries }
}

/// Regular expressions on strings, symbols and stored ones, with options in all places.
fn patterns() -> Theme {
    let mut texts: Vec<Bson> =
        ["", "a", "A", "abc", "a\nb", "b\na", "a b", "é", "É", "a\0b", "x1", "漢字"].map(Bson::from).to_vec();
    texts.extend([Bson::Symbol("abc".into()), Bson::JavaScriptCode("abc".into()), Bson::Int32(1), Bson::Null]);
    texts.extend([values::regex("a", ""), values::regex("a", "i"), values::regex("b", "im")]);
    texts.push(Bson::Array(vec!["abc".into(), 1.into()]));
    let mut queries = Vec::new();
    for pattern in [
        "a",
        "^a",
        "a$",
        "^a$",
        "a.b",
        "B",
        "é",
        "\\d",
        "\\w",
        "^.$",
        "(a)\\1",
        "a b",
        "(?i)ABC",
        "^",
        "[[:alpha:]]",
        "(?<!x)a",
        "(",
        "[",
        "\\",
    ] {
        for options in ["", "i", "m", "s", "x", "im", "mi", "u", "ii", "z", "imsx"] {
            queries.push(doc! { "a": { "$regex": pattern, "$options": options } });
            queries.push(doc! { "a": values::regex(pattern, options) });
        }
        queries.push(doc! { "a": { "$regex": values::regex(pattern, "i") } });
        queries.push(doc! { "a": { "$options": "i", "$regex": values::regex(pattern, "") } });
        queries.push(doc! { "a": { "$options": "i", "$regex": values::regex(pattern, "m") } });
        queries.push(doc! { "a": { "$not": values::regex(pattern, "") } });
        queries.push(doc! { "a": { "$not": { "$regex": pattern } } });
        for operator in ["$in", "$nin", "$all"] {
            queries.push(doc! { "a": { operator: [values::regex(pattern, "i"), "A"] } });
        }
        for operator in ["$eq", "$ne", "$gt"] {
            queries.push(doc! { "a": { operator: values::regex(pattern, "i") } });
        }
        queries.push(doc! { "a": { "$elemMatch": { "$regex": pattern } } });
    }
    queries.push(doc! { "a": { "$regex": "a\0b" } });
    Theme { name: "regular expressions", documents: with_a(texts), queries }
}

/// `$elemMatch` in its two forms, `$all` and `$not` around it.
fn elements() -> Theme {
    let documents = with_a([
        Bson::from(vec![1, 5, 9]),
        Bson::Array(vec![doc! { "b": 1, "c": 2 }.into(), doc! { "b": 2, "c": 1 }.into()]),
        Bson::Array(vec![doc! { "b": 1 }.into(), doc! { "c": 2 }.into()]),
        Bson::Array(vec![Bson::from(vec![1, 2]), Bson::from(vec![3])]),
        Bson::Array(vec![Bson::Array(vec![doc! { "b": 1 }.into()])]),
        Bson::Array(vec![doc! { "b": [{ "c": 1 }] }.into()]),
        Bson::Array(vec!["x".into(), Bson::Null]),
        Bson::Array(vec![]),
        doc! { "b": 1, "c": 2 }.into(),
        doc! { "$id": 1, "0": 1 }.into(),
        Bson::Array(vec![doc! { "$ref": 1, "$id": 1 }.into()]),
    ]);
    let operands = [
        doc! {},
        doc! { "b": 1 },
        doc! { "b": 1, "c": 2 },
        doc! { "0": 1 },
        doc! { "$gt": 1 },
        doc! { "$gt": 1, "$lt": 9 },
        doc! { "$gt": 1, "b": 1 },
        doc! { "b": 1, "$gt": 1 },
        doc! { "$not": { "$gt": 1 } },
        doc! { "$ne": 5 },
        doc! { "$nin": [1, Bson::Null] },
        doc! { "$in": [5, values::regex("x", "")] },
        doc! { "$exists": false },
        doc! { "$size": 2 },
        doc! { "$all": [1] },
        doc! { "$type": ["int", "object"] },
        doc! { "$regex": "x" },
        doc! { "$options": "i", "$regex": "X" },
        doc! { "$elemMatch": { "$gt": 1 } },
        doc! { "$elemMatch": { "b": 1 } },
        doc! { "b": { "$elemMatch": { "c": 1 } } },
        doc! { "$or": [{ "b": 1 }, { "c": 1 }] },
        doc! { "$and": [{ "b": 1 }], "c": 2 },
        doc! { "$nor": [{ "b": 1 }] },
        doc! { "$or": [{ "b": 1 }], "$gt": 1 },
        doc! { "$gt": 1, "$or": [{ "b": 1 }] },
        doc! { "$comment": "x" },
        doc! { "$comment": "x", "b": 1 },
        doc! { "$alwaysTrue": 1 },
        doc! { "$alwaysFalse": 1 },
        doc! { "$ref": 1, "$id": 1 },
        doc! { "$id": 1 },
        doc! { "$db": 1 },
        doc! { "$eq": { "b": 1 } },
        doc! { "$bitsAllSet": 1 },
        doc! { "$mod": [2, 1] },
    ];
    let mut queries = Vec::new();
    for operand in operands {
        queries.push(doc! { "a": { "$elemMatch": operand.clone() } });
        queries.push(doc! { "a": { "$not": { "$elemMatch": operand.clone() } } });
        queries.push(doc! { "a": { "$all": [{ "$elemMatch": operand.clone() }, { "$elemMatch": { "c": 1 } }] } });
        queries.push(doc! { "a": { "$all": [{ "$elemMatch": operand.clone(), "$size": 7 }] } });
        queries.push(doc! { "a": operand.clone() });
        queries.push(doc! { "a": { "$not": operand.clone() } });
        queries.push(doc! { "a": { "$all": [operand.clone()] } });
        queries.push(doc! { "a": { "$in": [operand.clone()] } });
        queries.push(operand);
    }
    Theme { name: "elements", documents, queries }
}

/// Values of which few operators take more than one or two.
fn odd() -> Vec<Bson> {
    vec![
        Bson::Null,
        Bson::Boolean(true),
        "1".into(),
        "".into(),
        Bson::Array(vec![]),
        Bson::from(vec![1]),
        Bson::from(vec![2, 1]),
        Bson::from(vec![2, 1, 0]),
        Bson::from(vec![0.5, 1.0]),
        doc! {}.into(),
        doc! { "$eq": 1 }.into(),
        doc! { "b": 1 }.into(),
        Bson::Double(0.5),
        Bson::Int64(1 << 40),
        Bson::MinKey,
        values::regex("a", ""),
        Bson::Undefined,
    ]
}

/// Operands that are refused, and those that look so and are taken.
fn operands() -> Theme {
    let of = |operator: &str, values: &[Bson]| {
        values.iter().map(|value| doc! { "a": { operator: value.clone() } }).collect::<Vec<_>>()
    };
    let odd = odd();
    let mut queries = Vec::new();
    for operator in [
        "$eq",
        "$ne",
        "$gt",
        "$in",
        "$nin",
        "$not",
        "$exists",
        "$type",
        "$regex",
        "$options",
        "$mod",
        "$all",
        "$elemMatch",
        "$size",
        "$bitsAllSet",
        "$and",
        "$comment",
        "$alwaysTrue",
        "$id",
        "$ref",
        "$",
        "$unknown",
        "",
    ] {
        queries.extend(of(operator, &odd));
        queries.extend(odd.iter().map(|value| doc! { operator: value.clone() }));
        queries.extend(odd.iter().map(|value| doc! { "a": { "$not": { operator: value.clone() } } }));
    }
    for operator in ["$and", "$or", "$nor"] {
        queries.extend(odd.iter().map(|value| doc! { operator: [value.clone()] }));
        queries.extend(odd.iter().map(|value| doc! { operator: value.clone() }));
    }
    for name in [
        "double",
        "objectId",
        "binData",
        "dbPointer",
        "minKey",
        "Number",
        "missing",
        "eoo",
        "jstNULL",
        "bindata",
        "integer",
    ] {
        queries.push(doc! { "a": { "$type": name } });
    }
    Theme {
        name: "operands",
        documents: with_a([Bson::Int32(1), Bson::Int32(3), "a".into(), Bson::from(vec![1])]),
        queries,
    }
}

/// DBRefs: values whose names look like operators.
fn references() -> Theme {
    let documents = vec![
        doc! { "a": { "$ref": "x", "$id": 1 } },
        doc! { "a": { "$ref": "x", "$id": 1, "$db": "d" } },
        doc! { "a": [{ "$ref": "x", "$id": 2 }] },
        doc! { "$ref": 1 },
        doc! { "$id": { "$gt": 1 } },
        doc! {},
    ];
    let queries = vec![
        doc! { "a": { "$ref": "x", "$id": 1 } },
        doc! { "a": { "$id": 1, "$ref": "x" } },
        doc! { "a": { "$ref": "x", "$id": 1, "$db": "d" } },
        doc! { "a": { "$ref": "x", "y": 1 } },
        doc! { "a": { "$gt": 1, "$ref": "x", "$id": 1 } },
        doc! { "a": { "$in": [{ "$ref": "x", "$id": 2 }] } },
        doc! { "a": { "$in": [{ "$id": 2 }] } },
        doc! { "a": { "$all": [{ "$id": 2 }] } },
        doc! { "a": { "$all": [{ "$ref": "x", "$id": 2 }] } },
        doc! { "a.$id": 1 },
        doc! { "a.$id": { "$gt": 1 } },
        doc! { "a.$ref": "x" },
        doc! { "$ref": 1 },
        doc! { "$ref": { "$exists": true } },
        doc! { "$id": { "$gt": 1 } },
        doc! { "$id": { "$gt": 0, "$lt": 5 } },
        doc! { "$db": values::regex("a", "") },
        doc! { "$id.a": 1 },
        doc! { "$or": [{ "$ref": 1 }] },
        doc! { "a": { "$ref": 1 } },
        doc! { "a": { "$not": { "$ref": "x", "$id": 1 } } },
    ];
    Theme { name: "references", documents, queries }
}
