//! The operators that ask a value: each from its operand to a condition.

use bson::{Bson, Document};

use crate::MatchError;
use crate::bits::{Bits, Quantity};
use crate::expression::Condition;
use crate::membership::Membership;
use crate::predicate::{self, Predicate, Side};
use crate::value::{Literal, rank};
use tailwater_raw::kind;

use super::{
    Compiler, LOGICAL, REFERENCE, SERVER_ONLY, is_operators, is_reference, literal, on_the_field, operand, operands,
    unknown,
};

/// Operators that stand in the place of a value.
pub(super) const COMPARING: [&str; 21] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
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
    "$bitsAnySet",
    "$bitsAllClear",
    "$bitsAnyClear",
];

impl Compiler {
    /// All operators of one document.
    pub(super) fn operators(&mut self, path: &str, operators: &Document) -> Result<Condition, MatchError> {
        let mut all = Vec::new();
        for (operator, value) in operators {
            match operator.as_str() {
                "$options" if operators.contains_key("$regex") => {}
                "$regex" => all.push(self.regex(path, value, operators.get("$options"))?),
                _ => all.push(self.operator(path, operator, value)?),
            }
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::All(all) })
    }

    fn operator(&mut self, path: &str, operator: &str, value: &Bson) -> Result<Condition, MatchError> {
        let needs = |wanted| operand(operator, &on_the_field(path), wanted);
        match operator {
            "$eq" => Ok(Condition::is(Predicate::Equal(literal(path, value)?))),
            "$ne" if matches!(value, Bson::RegularExpression(_)) => {
                Err(needs("a value; to leave out matches of a regular expression, use $not"))
            }
            "$ne" => Ok(Condition::is(Predicate::Equal(literal(path, value)?)).not()),
            "$gt" => ordered(path, operator, value, Side::Greater),
            "$gte" => ordered(path, operator, value, Side::GreaterOrEqual),
            "$lt" => ordered(path, operator, value, Side::Less),
            "$lte" => ordered(path, operator, value, Side::LessOrEqual),
            "$in" => self.within(path, operator, value),
            "$nin" => self.within(path, operator, value).map(Condition::not),
            "$not" => self.not(path, value),
            "$exists" => {
                let exists = Condition::is(Predicate::Exists);
                Ok(if operands::is_true(value) { exists } else { exists.not() })
            }
            "$type" => operands::types(value).map(|types| Condition::is(Predicate::Type(types))).map_err(needs),
            "$options" => Err(needs("a $regex beside it")),
            "$mod" => {
                let (divisor, remainder) = operands::modulo(value).map_err(needs)?;
                Ok(Condition::is(Predicate::Modulo { divisor, remainder }))
            }
            "$all" => self.all(path, value),
            "$elemMatch" => self.element(path, value),
            "$size" => {
                let size = operands::integer(value).and_then(|size| i32::try_from(size).ok());
                let size = size
                    .and_then(|size| usize::try_from(size).ok())
                    .ok_or_else(|| needs("a whole number from 0 on"))?;
                Ok(Condition::is(Predicate::Size(size)))
            }
            "$bitsAllSet" => bits(value, Quantity::All, true).map_err(needs),
            "$bitsAnySet" => bits(value, Quantity::Any, true).map_err(needs),
            "$bitsAllClear" => bits(value, Quantity::All, false).map_err(needs),
            "$bitsAnyClear" => bits(value, Quantity::Any, false).map_err(needs),
            _ if operator.starts_with('$') => Err(unknown(operator, on_the_field(path), &COMPARING)),
            _ => Err(MatchError::Mixed { path: path.into(), field: operator.into() }),
        }
    }

    fn regex(&self, path: &str, value: &Bson, options: Option<&Bson>) -> Result<Condition, MatchError> {
        let needs = |operator: &str, wanted| Err(operand(operator, &on_the_field(path), wanted));
        let given = match options {
            None => "",
            Some(Bson::String(options)) => options,
            Some(_) => return needs("$options", "a string of the letters i m s x u"),
        };
        let pattern = match value {
            Bson::String(pattern) => self.pattern(path, pattern, given)?,
            Bson::RegularExpression(regex) if options.is_none() => self.stored_pattern(path, regex)?,
            Bson::RegularExpression(regex) if regex.options.as_str().is_empty() => {
                self.pattern(path, regex.pattern.as_str(), given)?
            }
            Bson::RegularExpression(_) => return needs("$options", "a $regex without options of its own"),
            _ => return needs("$regex", "a string or a regular expression"),
        };
        Ok(Condition::is(Predicate::Regex(pattern)))
    }

    fn within(&self, path: &str, operator: &str, value: &Bson) -> Result<Condition, MatchError> {
        let needs = |wanted| operand(operator, &on_the_field(path), wanted);
        let (mut values, mut patterns) = (Vec::new(), Vec::new());
        for item in value.as_array().ok_or_else(|| needs("an array"))? {
            match item {
                Bson::Document(document) if is_operators(document) => {
                    return Err(needs("values, not operators; a regular expression in it is a $regularExpression"));
                }
                Bson::RegularExpression(regex) => patterns.push(self.stored_pattern(path, regex)?),
                item => values.push(literal(path, item)?),
            }
        }
        Ok(Condition::is(Predicate::Among(Box::new(Membership::new(values, patterns)))))
    }

    fn not(&mut self, path: &str, value: &Bson) -> Result<Condition, MatchError> {
        let wanted = "a document of operators or a regular expression";
        match value {
            Bson::RegularExpression(_) => self.equality(path, value).map(Condition::not),
            Bson::Document(operators) if !operators.is_empty() => self.operators(path, operators).map(Condition::not),
            _ => Err(operand("$not", &on_the_field(path), wanted)),
        }
    }

    fn all(&mut self, path: &str, value: &Bson) -> Result<Condition, MatchError> {
        let needs = |wanted| operand("$all", &on_the_field(path), wanted);
        let items = value.as_array().ok_or_else(|| needs("an array"))?;
        if items.is_empty() {
            return Ok(Condition::Never);
        }
        let first_name = |item: &Bson| item.as_document().and_then(|item| item.keys().next().cloned());
        let is_element = |item: &Bson| first_name(item).is_some_and(|name| name == "$elemMatch");
        let of_elements = is_element(&items[0]);
        let mut all = Vec::new();
        for item in items {
            all.push(match item {
                // What stands behind $elemMatch in the same document is not looked at, as on the server.
                Bson::Document(inner) if of_elements && is_element(item) => self.element(path, &inner["$elemMatch"])?,
                _ if of_elements => return Err(needs("either only $elemMatch or only values")),
                item if first_name(item).is_some_and(|name| asks_values(&name)) => {
                    return Err(needs("values or only $elemMatch; a regular expression in it is a $regularExpression"));
                }
                item => self.equality(path, item)?,
            });
        }
        Ok(Condition::All(all))
    }

    /// `$elemMatch` asks the elements as values when it begins with an operator on values, else as documents.
    fn element(&mut self, path: &str, value: &Bson) -> Result<Condition, MatchError> {
        let inner = value.as_document().ok_or_else(|| operand("$elemMatch", &on_the_field(path), "a document"))?;
        let first = inner.keys().next().map_or("", String::as_str);
        let asks_documents = |name: &str| {
            let is_known = LOGICAL.contains(&name) || SERVER_ONLY.iter().any(|(known, _)| *known == name);
            is_known && !asks_values(name)
        };
        let predicate = if first.starts_with('$') && !asks_documents(first) && !is_part_of_reference(inner) {
            Predicate::ElementHolds(Box::new(self.operators(path, inner)?))
        } else {
            Predicate::ElementMatches(Box::new(self.document(inner)?))
        };
        Ok(Condition::is(predicate))
    }
}

/// Whether the server knows an operator of this name that asks a value, leaving `$not` aside.
fn asks_values(name: &str) -> bool {
    const PLACES: [&str; 6] = ["$geoWithin", "$geoIntersects", "$within", "$geoNear", "$near", "$nearSphere"];
    (COMPARING.contains(&name) && name != "$not") || PLACES.contains(&name) || name.starts_with("$_internal")
}

/// Whether it could be a DBRef of which a part is left out.
fn is_part_of_reference(document: &Document) -> bool {
    is_reference(document) || REFERENCE.iter().any(|name| document.contains_key(name))
}

/// `$gt` and its like.
fn ordered(path: &str, operator: &str, value: &Bson, side: Side) -> Result<Condition, MatchError> {
    if matches!(value, Bson::RegularExpression(_)) {
        let wanted = "a value that has an order, not a regular expression";
        return Err(operand(operator, &on_the_field(path), wanted));
    }
    let literal: Literal = literal(path, value)?;
    let (kind, is_nan) = (literal.value().kind(), predicate::is_nan(literal.value()));
    Ok(match kind {
        kind::MIN_KEY | kind::MAX_KEY => Condition::is(Predicate::Ranked(rank(kind), side)),
        // Nothing is less or greater than these.
        _ if (kind == kind::NULL || is_nan) && side.has_equal() => Condition::is(Predicate::Equal(literal)),
        _ if kind == kind::NULL || is_nan => Condition::Never,
        _ => Condition::is(Predicate::Ordered(literal, side)),
    })
}

fn bits(value: &Bson, quantity: Quantity, wanted: bool) -> Result<Condition, &'static str> {
    let positions = operands::positions(value)?;
    Ok(Condition::is(Predicate::Bits(Box::new(Bits::at(positions, quantity, wanted)))))
}
