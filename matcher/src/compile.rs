//! From a query to an expression: what is an operator, what is a value, what is refused. Here the parts that ask a document:
//! fields, `$and` and its like; `operators` has those that ask a value.

mod operands;
mod operators;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bson::{Bson, Document, RawBson};

use crate::error::{COMPONENTS_MAX, LEVELS_MAX, MatchError, NESTED_COMPONENTS_MAX};
use crate::expression::{Condition, Expression};
use crate::path::Path;
use crate::predicate::Predicate;
use crate::regex::Pattern;
use crate::value::Literal;

/// Operators that stand in the place of a field.
const LOGICAL: [&str; 6] = ["$and", "$or", "$nor", "$comment", "$alwaysTrue", "$alwaysFalse"];

/// Names that begin with `$` and are fields: the parts of a DBRef.
const REFERENCE: [&str; 3] = ["$ref", "$id", "$db"];

/// Operators of the server that are not built in, with the reason.
const SERVER_ONLY: [(&str, &str); 11] = [
    ("$expr", IN_PIPELINE),
    ("$jsonSchema", IN_PIPELINE),
    ("$geoWithin", IN_PIPELINE),
    ("$geoIntersects", IN_PIPELINE),
    ("$within", IN_PIPELINE),
    ("$geoNear", BY_DISTANCE),
    ("$near", BY_DISTANCE),
    ("$nearSphere", BY_DISTANCE),
    ("$where", "runs JavaScript, which neither change streams nor tailwater do; write it with other operators"),
    ("$text", "needs a text index, which events do not have; use $regex"),
    ("$sampleRate", "matches by chance, so that each restart would decide otherwise; put it into source.pipeline"),
];
const IN_PIPELINE: &str = "is evaluated by the server only, put it into source.pipeline";
const BY_DISTANCE: &str =
    "sorts by distance, which there is no use for in a stream; put $geoWithin into source.pipeline";

/// A compiled query and what is known of it.
pub(crate) struct Compiled {
    pub expression: Expression,
    /// The first components of all paths.
    pub fields: BTreeSet<String>,
    /// How often a pattern was given up.
    pub given_up: Arc<AtomicU64>,
}

/// Compiles a whole query.
pub(crate) fn query(query: &Document) -> Result<Compiled, MatchError> {
    // Before anything that goes down into it.
    if !is_shallow(query.values(), LEVELS_MAX - 1) {
        return Err(MatchError::Depth);
    }
    let mut compiler = Compiler { components: 0, fields: BTreeSet::new(), given_up: Arc::default() };
    let expression = compiler.document(query)?;
    Ok(Compiled { expression, fields: compiler.fields, given_up: compiler.given_up })
}

/// Whether no value is nested deeper than so many levels.
fn is_shallow<'a>(mut values: impl Iterator<Item = &'a Bson>, levels: usize) -> bool {
    values.all(|value| match value {
        Bson::Document(inner) => levels > 0 && is_shallow(inner.values(), levels - 1),
        Bson::Array(inner) => levels > 0 && is_shallow(inner.iter(), levels - 1),
        Bson::JavaScriptCodeWithScope(code) => levels > 0 && is_shallow(code.scope.values(), levels - 1),
        _ => true,
    })
}

/// What is known while a query is compiled.
struct Compiler {
    /// Components of the paths that the present place is within.
    components: usize,
    fields: BTreeSet<String>,
    given_up: Arc<AtomicU64>,
}

impl Compiler {
    /// All fields of one query document.
    fn document(&mut self, query: &Document) -> Result<Expression, MatchError> {
        let mut all = Vec::new();
        for (name, value) in query {
            match name.as_str() {
                "$and" => all.extend(self.list(name, value)?),
                "$or" => all.push(Expression::any(self.list(name, value)?)),
                "$nor" => all.push(Expression::any(self.list(name, value)?).not()),
                "$comment" => {}
                "$alwaysTrue" | "$alwaysFalse" => {
                    if operands::integer(value) != Some(1) {
                        return Err(operand(name, &at_the_top(), "the number 1"));
                    }
                    if name == "$alwaysFalse" {
                        all.push(Expression::Never);
                    }
                }
                // What these are asked is always a value.
                path if REFERENCE.contains(&path) => all.push(self.field(path, value, false)?),
                _ if name.starts_with('$') => return Err(unknown(name, at_the_top(), &LOGICAL)),
                path => all.push(self.field(path, value, true)?),
            }
        }
        Ok(Expression::all(all))
    }

    /// The parts of an `$and`, `$or` or `$nor`.
    fn list(&mut self, operator: &str, value: &Bson) -> Result<Vec<Expression>, MatchError> {
        let error = || operand(operator, &at_the_top(), "a non-empty array of documents");
        let items = value.as_array().filter(|items| !items.is_empty()).ok_or_else(error)?;
        items.iter().map(|item| self.document(item.as_document().ok_or_else(error)?)).collect()
    }

    /// One field of a query: an equality, a regular expression, or a document of operators.
    fn field(&mut self, dotted: &str, value: &Bson, may_be_operators: bool) -> Result<Expression, MatchError> {
        let path = Path::new(dotted);
        let components = path.components().len();
        if components > COMPONENTS_MAX || self.components + components > NESTED_COMPONENTS_MAX {
            return Err(MatchError::LongPath { path: beginning(dotted) });
        }
        if self.components == 0 {
            self.fields.insert(dotted.split('.').next().unwrap_or_default().to_owned());
        }
        self.components += components;
        let condition = match value {
            Bson::Document(operators) if may_be_operators && is_operators(operators) => {
                self.operators(dotted, operators)
            }
            value if may_be_operators => self.equality(dotted, value),
            value => literal(dotted, value).map(|literal| Condition::is(Predicate::Equal(literal))),
        };
        self.components -= components;
        Ok(condition?.at(&path))
    }

    /// A plain value: what equals it, or what a regular expression matches.
    fn equality(&self, path: &str, value: &Bson) -> Result<Condition, MatchError> {
        Ok(Condition::is(match value {
            Bson::RegularExpression(regex) => Predicate::Regex(self.stored_pattern(path, regex)?),
            value => Predicate::Equal(literal(path, value)?),
        }))
    }

    fn stored_pattern(&self, path: &str, regex: &bson::Regex) -> Result<Pattern, MatchError> {
        self.pattern(path, regex.pattern.as_str(), regex.options.as_str())
    }

    fn pattern(&self, path: &str, pattern: &str, options: &str) -> Result<Pattern, MatchError> {
        let error = |reason| MatchError::Regex { pattern: beginning(pattern), place: on_the_field(path), reason };
        Pattern::new(pattern, options, Arc::clone(&self.given_up)).map_err(error)
    }
}

/// Whether a document has operators and is no value.
fn is_operators(document: &Document) -> bool {
    document.keys().next().is_some_and(|name| name.starts_with('$')) && !is_reference(document)
}

/// A DBRef is a value although its names look like operators.
fn is_reference(document: &Document) -> bool {
    document.contains_key("$ref") && document.contains_key("$id")
}

/// A value to compare with.
fn literal(path: &str, value: &Bson) -> Result<Literal, MatchError> {
    if matches!(value, Bson::Undefined) {
        return Err(MatchError::Undefined { path: path.into() });
    }
    let raw = RawBson::try_from(value.clone());
    raw.map(Literal::new).map_err(|error| MatchError::Bson { path: path.into(), reason: error.to_string() })
}

fn at_the_top() -> String {
    "at the top".into()
}

fn on_the_field(path: &str) -> String {
    format!("on the field {path}")
}

/// As much of a long text as an error has room for.
fn beginning(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let mut shown: String = text.chars().take(CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn operand(operator: &str, place: &str, wanted: &'static str) -> MatchError {
    MatchError::Operand { operator: operator.into(), place: place.into(), wanted }
}

/// The error for an operator that is not taken here.
fn unknown(operator: &str, place: String, known: &[&'static str]) -> MatchError {
    if let Some((_, why)) = SERVER_ONLY.iter().find(|(name, _)| *name == operator) {
        return MatchError::ServerOnly { operator: operator.into(), place, why };
    }
    let distance = |name: &&&str| strsim::damerau_levenshtein(name, operator);
    let everywhere = || operators::COMPARING.iter().chain(&LOGICAL);
    let nearest = match operator {
        "$not" => Some("$nor"),
        // Known, but not here.
        _ if everywhere().any(|name| *name == operator) => None,
        _ => everywhere().min_by_key(distance).filter(|name| distance(name) <= 2).copied(),
    };
    MatchError::UnknownOperator { operator: operator.into(), place, nearest, known: known.join(" ") }
}
