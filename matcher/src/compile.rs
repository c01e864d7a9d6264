//! From a query to expressions: what is an operator, what is a value, what is refused.

use bson::{Bson, Document, RawBson};

use tailwater_raw::number::Number;

use crate::{Expression, In, Path, value::Literal};

/// Operators that stand in the place of a field.
const LOGICAL: [&str; 2] = ["$and", "$or"];
/// Operators that stand in the place of a value.
const COMPARING: [&str; 5] = ["$eq", "$ne", "$in", "$nin", "$exists"];

/// Levels of `$and` and `$or` that may be nested, as in the server.
const LEVELS_MAX: usize = 100;

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// There is no such operator here.
    #[error(
        "compile match: unknown operator {operator} {place}; {}there are {known}",
        nearest.map(|n| format!("did you mean {n}? ")).unwrap_or_default()
    )]
    UnknownOperator {
        /// As it was written.
        operator: String,
        /// "at the top" or "on the field …".
        place: String,
        /// The known operator that looks most like it.
        nearest: Option<&'static str>,
        /// Those that may stand there.
        known: String,
    },
    /// An operator's value has a type or form that it does not take.
    #[error("compile match: {operator} {place} needs {wanted}")]
    Operand {
        /// The operator.
        operator: String,
        /// Where it stands.
        place: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// Plain fields stand between operators.
    #[error(
        "compile match: on the field {path} the operators are mixed with the plain field {field}; write a document with either"
    )]
    Mixed {
        /// The field of the query.
        path: String,
        /// The name without a `$`.
        field: String,
    },
    /// A value that cannot be compared with.
    #[error("compile match: the field {path} is compared with {what}, which is not supported")]
    Value {
        /// The field of the query.
        path: String,
        /// Its kind.
        what: &'static str,
    },
    /// `$and` and `$or` nested too deep.
    #[error("compile match: nested more than {LEVELS_MAX} levels deep")]
    Depth,
    /// The query cannot be written as BSON.
    #[error("compile match: the value of the field {path} is not valid BSON: {reason}")]
    Bson {
        /// The field of the query.
        path: String,
        /// The encoder's words.
        reason: String,
    },
}

/// Compiles a whole query.
pub(crate) fn query(query: &Document) -> Result<Expression, MatchError> {
    all_of(query, 0)
}

/// All fields of one query document.
fn all_of(query: &Document, level: usize) -> Result<Expression, MatchError> {
    if level > LEVELS_MAX {
        return Err(MatchError::Depth);
    }
    let mut all = Vec::new();
    for (name, value) in query {
        match name.as_str() {
            "$and" => all.push(Expression::And(list(name, value, level)?)),
            "$or" => all.push(Expression::Or(list(name, value, level)?)),
            _ if name.starts_with('$') => return Err(unknown(name, "at the top".into(), &LOGICAL)),
            path => field(path, value, &mut all)?,
        }
    }
    // Cheap tests first: a field at the top, such as operationType, decides without walking into documents.
    all.sort_by_key(cost);
    Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
}

/// The alternatives of an `$and` or `$or`.
fn list(operator: &str, value: &Bson, level: usize) -> Result<Vec<Expression>, MatchError> {
    let wanted = "a non-empty array of documents";
    let error = || MatchError::Operand { operator: operator.into(), place: "at the top".into(), wanted };
    let Bson::Array(items) = value else { return Err(error()) };
    if items.is_empty() {
        return Err(error());
    }
    items.iter().map(|item| all_of(item.as_document().ok_or_else(error)?, level + 1)).collect()
}

/// One field of a query: an equality, or a document of operators.
fn field(path: &str, value: &Bson, all: &mut Vec<Expression>) -> Result<(), MatchError> {
    let Bson::Document(operators) = value else {
        all.push(Expression::Equal(Path::new(path), Literal::new(literal(path, value)?)));
        return Ok(());
    };
    if !operators.keys().next().is_some_and(|name| name.starts_with('$')) || is_reference(operators) {
        all.push(Expression::Equal(Path::new(path), Literal::new(literal(path, value)?)));
        return Ok(());
    }
    for (operator, operand) in operators {
        all.push(comparison(path, operator, operand)?);
    }
    Ok(())
}

/// A DBRef is a value although its names look like operators.
fn is_reference(value: &Document) -> bool {
    value.contains_key("$ref") && value.contains_key("$id")
}

fn comparison(path: &str, operator: &str, operand: &Bson) -> Result<Expression, MatchError> {
    let equal = || Ok(Expression::Equal(Path::new(path), Literal::new(literal(path, operand)?)));
    let negated = |expression| Expression::Not(Box::new(expression));
    match operator {
        "$eq" => equal(),
        "$ne" => equal().map(negated),
        "$in" => within(path, operator, operand),
        "$nin" => within(path, operator, operand).map(negated),
        "$exists" => {
            let exists = Expression::Exists(Path::new(path));
            Ok(if is_true(operand) { exists } else { negated(exists) })
        }
        _ if operator.starts_with('$') => Err(unknown(operator, format!("on the field {path}"), &COMPARING)),
        _ => Err(MatchError::Mixed { path: path.into(), field: operator.into() }),
    }
}

fn within(path: &str, operator: &str, operand: &Bson) -> Result<Expression, MatchError> {
    let place = format!("on the field {path}");
    let Bson::Array(items) = operand else {
        return Err(MatchError::Operand { operator: operator.into(), place, wanted: "an array" });
    };
    let mut values = In::default();
    for item in items {
        if item.as_document().and_then(|d| d.keys().next()).is_some_and(|name| name.starts_with('$'))
            && !item.as_document().is_some_and(is_reference)
        {
            return Err(MatchError::Operand { operator: operator.into(), place, wanted: "values, not operators" });
        }
        match literal(path, item)? {
            RawBson::Null => values.null = true,
            RawBson::String(text) | RawBson::Symbol(text) => values.strings.push(text.into_bytes().into()),
            other => values.others.push(Literal::new(other)),
        }
    }
    values.strings.sort_unstable();
    Ok(Expression::In(Path::new(path), values))
}

/// A value to compare with.
fn literal(path: &str, value: &Bson) -> Result<RawBson, MatchError> {
    let refuse = |what| Err(MatchError::Value { path: path.into(), what });
    match value {
        Bson::RegularExpression(_) => refuse("a regular expression"),
        Bson::Undefined => refuse("undefined"),
        _ => RawBson::try_from(value.clone())
            .map_err(|error| MatchError::Bson { path: path.into(), reason: error.to_string() }),
    }
}

/// Truth as the server takes it from any value.
fn is_true(value: &Bson) -> bool {
    match value {
        Bson::Boolean(value) => *value,
        Bson::Null | Bson::Undefined => false,
        Bson::Int32(n) => *n != 0,
        Bson::Int64(n) => *n != 0,
        Bson::Double(n) => *n != 0.0,
        Bson::Decimal128(n) => Number::of_decimal(n.bytes()) != Number::Int(0),
        _ => true,
    }
}

fn cost(expression: &Expression) -> usize {
    match expression {
        Expression::And(inner) | Expression::Or(inner) => inner.iter().map(cost).sum::<usize>() + 1,
        Expression::Not(inner) => cost(inner),
        Expression::Equal(path, _) | Expression::In(path, _) | Expression::Exists(path) => path.len(),
    }
}

fn unknown(operator: &str, place: String, known: &[&'static str]) -> MatchError {
    let distance = |name: &&&str| strsim::damerau_levenshtein(name, operator);
    let everywhere = COMPARING.iter().chain(&LOGICAL);
    let nearest = everywhere.min_by_key(distance).filter(|name| distance(name) <= 2).copied();
    MatchError::UnknownOperator { operator: operator.into(), place, nearest, known: known.join(" ") }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use crate::Matcher;

    #[track_caller]
    fn check(query: Document, error: &str) {
        assert_eq!(Matcher::compile(&query).map(|_| "accepted").map_err(|e| e.to_string()), Err(error.to_owned()));
    }

    #[test]
    fn errors_name_the_operator_the_path_and_what_there_is() {
        check(
            doc! { "fullDocument.a": { "$nim": [1] } },
            "compile match: unknown operator $nim on the field fullDocument.a; did you mean $nin? \
             there are $eq $ne $in $nin $exists",
        );
        check(
            doc! { "a": { "$elemMatch": {} } },
            "compile match: unknown operator $elemMatch on the field a; there are $eq $ne $in $nin $exists",
        );
        check(
            doc! { "$ort": [] },
            "compile match: unknown operator $ort at the top; did you mean $or? there are $and $or",
        );
        check(doc! { "$and": [] }, "compile match: $and at the top needs a non-empty array of documents");
        check(doc! { "a": { "$in": 1 } }, "compile match: $in on the field a needs an array");
        check(
            doc! { "a": { "$eq": 1, "b": 2 } },
            "compile match: on the field a the operators are mixed with the plain field b; write a document with either",
        );
        let regex = bson::Regex { pattern: bson::cstr!("x").into(), options: bson::cstr!("").into() };
        check(
            doc! { "a": { "$in": [regex] } },
            "compile match: the field a is compared with a regular expression, which is not supported",
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let mut query = doc! { "a": 1 };
        for _ in 0..200 {
            query = doc! { "$and": [query] };
        }
        check(query, "compile match: nested more than 100 levels deep");
    }
}
