//! Errors of queries: each names the operator, the place and what it needs.

use bson::{Bson, Document, doc};

use crate::Matcher;

fn outcome(query: &Document) -> Result<&'static str, String> {
    Matcher::compile(query).map(|_| "accepted").map_err(|error| error.to_string())
}

#[track_caller]
fn check(query: Document, error: &str) {
    assert_eq!(outcome(&query), Err(format!("compile match: {error}")));
}

const COMPARING: &str = "$eq $ne $gt $gte $lt $lte $in $nin $not $exists $type $regex $options $mod $all $elemMatch $size $bitsAllSet \
                         $bitsAnySet $bitsAllClear $bitsAnyClear";

#[test]
fn unknown_operators_are_named_with_the_nearest_known_one() {
    let known = format!("there are {COMPARING}");
    check(
        doc! { "fullDocument.a": { "$nim": [1] } },
        &format!("unknown operator $nim on the field fullDocument.a; did you mean $nin? {known}"),
    );
    check(
        doc! { "a": { "$elematch": {} } },
        &format!("unknown operator $elematch on the field a; did you mean $elemMatch? {known}"),
    );
    check(
        doc! { "a": { "$_internalExprEq": {} } },
        &format!("unknown operator $_internalExprEq on the field a; {known}"),
    );
    let logical = "there are $and $or $nor $comment $alwaysTrue $alwaysFalse";
    check(doc! { "$ort": [] }, &format!("unknown operator $ort at the top; did you mean $or? {logical}"));
    check(doc! { "$not": { "a": 1 } }, &format!("unknown operator $not at the top; did you mean $nor? {logical}"));
}

#[test]
fn what_only_the_server_does_is_refused_with_what_to_do() {
    let in_pipeline = "is evaluated by the server only, put it into source.pipeline";
    check(doc! { "$expr": { "$eq": ["$a", 1] } }, &format!("$expr at the top {in_pipeline}"));
    check(doc! { "$jsonSchema": {} }, &format!("$jsonSchema at the top {in_pipeline}"));
    check(doc! { "a": { "$geoWithin": {} } }, &format!("$geoWithin on the field a {in_pipeline}"));
    check(doc! { "a": { "$elemMatch": { "$expr": 1 } } }, &format!("$expr at the top {in_pipeline}"));
    for query in [
        doc! { "$where": "1" },
        doc! { "$text": { "$search": "x" } },
        doc! { "$sampleRate": 0.5 },
        doc! { "a": { "$near": [0, 0] } },
        doc! { "a": { "$not": { "$geoIntersects": {} } } },
    ] {
        assert!(
            matches!(Matcher::compile(&query), Err(crate::MatchError::ServerOnly { .. })),
            "{query}: {:?}",
            outcome(&query)
        );
    }
}

#[test]
fn operands_are_refused_with_what_is_needed() {
    let on_a = |operator: &str, operand: Bson| doc! { "a": { operator: operand } };
    check(doc! { "$and": [] }, "$and at the top needs a non-empty array of documents");
    check(doc! { "$alwaysTrue": true }, "$alwaysTrue at the top needs the number 1");
    check(on_a("$in", 1.into()), "$in on the field a needs an array");
    check(
        doc! { "a": { "$in": [{ "$gt": 1 }] } },
        "$in on the field a needs values, not operators; a regular expression in it is a $regularExpression",
    );
    check(on_a("$size", (-1).into()), "$size on the field a needs a whole number from 0 on");
    check(
        on_a("$type", "text".into()),
        "$type on the field a needs a type's name such as \"string\" or \"number\", its number, or an array of them",
    );
    check(
        doc! { "a": { "$mod": [0, 1] } },
        "$mod on the field a needs an array of two finite numbers, divisor and remainder, of which the divisor is not 0",
    );
    check(
        on_a("$bitsAnySet", (-1).into()),
        "$bitsAnySet on the field a needs a whole number from 0 on, an array of positions, or binary",
    );
    check(on_a("$elemMatch", 1.into()), "$elemMatch on the field a needs a document");
    check(on_a("$not", 1.into()), "$not on the field a needs a document of operators or a regular expression");
    check(on_a("$options", "i".into()), "$options on the field a needs a $regex beside it");
    check(on_a("$regex", 1.into()), "$regex on the field a needs a string or a regular expression");
    check(
        doc! { "a": { "$all": [{ "$elemMatch": { "b": 1 } }, 1] } },
        "$all on the field a needs either only $elemMatch or only values",
    );
    check(
        doc! { "a": { "$eq": 1, "b": 2 } },
        "on the field a the operators are mixed with the plain field b; write a document with either",
    );
    check(
        on_a("$ne", Bson::Undefined),
        "the field a is compared with undefined, which is not possible; use null or $type",
    );
}

#[test]
fn patterns_are_refused_with_the_place() {
    let place = |reason: &str| format!("the regular expression \"(\" on the field a.b {reason}");
    let query = |pattern: &str, options: &str| doc! { "a.b": { "$regex": pattern, "$options": options } };
    check(query("(", ""), &place("is not valid: missing closing parenthesis at byte 1"));
    check(query("(", "iz"), &place("has the unknown option 'z'; there are i m s x u"));
    check(query("x\0", ""), "the regular expression \"x\\0\" on the field a.b contains a zero byte");
    let long = outcome(&query(&"a".repeat(40_000), "")).expect_err("too long");
    assert!(long.len() < 200 && long.ends_with("has 40000 bytes, write at most 32764"), "{long}");
    // It could end within a character.
    assert!(outcome(&query("\\C", "")).is_err());
}

#[test]
fn depth_is_bounded() {
    let nest =
        |levels: usize, of: &dyn Fn(Document) -> Document| (0..levels).fold(doc! { "a": 1 }, |query, _| of(query));
    assert_eq!(outcome(&nest(99, &|query| doc! { "$and": [query] })), Ok("accepted"));
    assert_eq!(outcome(&nest(199, &|query| doc! { "a": query })), Ok("accepted"));
    check(nest(100, &|query| doc! { "$and": [query] }), "nested more than 200 levels deep");
    check(nest(200, &|query| doc! { "a": query }), "nested more than 200 levels deep");
    let long = |components: usize| vec!["a"; components].join(".");
    assert_eq!(outcome(&doc! { long(180): 1 }), Ok("accepted"));
    let error = "has more than 180 components, or more than 1000 with those around it";
    let begins = format!("{}…", &long(180)[..60]);
    check(doc! { long(181): 1 }, &format!("the path that begins with {begins} {error}"));
    let inside =
        |levels: usize| (0..levels).fold(doc! { "a": 1 }, |query, _| doc! { long(99): { "$elemMatch": query } });
    assert_eq!(outcome(&inside(10)), Ok("accepted"));
    check(inside(11), &format!("the path that begins with {begins} {error}"));
}
