//! From a query to what a server may be asked: the same query, without the conditions that not every supported server (4.4 to 8) is
//! sure to answer as the matcher does.
//!
//! A condition that is left out only lets more through, as long as it is not inside a negation; there, and inside `$elemMatch`, one
//! that would be left out takes the whole of it along. Each operator is argued for here; what is not named is left out.
//!
//! * Equality and `$in` with numbers, strings, booleans, ObjectIds, dates, timestamps, binary data, symbols, code, arrays and
//!   documents: alike in all versions. Not with min and max key, regular expressions as values, code with scope, and what the
//!   server refuses (undefined, a document whose first key begins with `$`).
//! * Null: since 8.0 it no longer equals undefined. Asked together with `$type: 6` the answer is the old one, which is the matcher's,
//!   everywhere. In `$ne` and `$nin` 8.0 lets more through than the matcher; that is safe as it is, and no longer where it is negated
//!   again. Elsewhere it is left out.
//! * `$gt` and its like with numbers, strings, booleans, ObjectIds, dates, timestamps and binary data. Not with null (see above), NaN,
//!   min and max key (they have changed), arrays and documents.
//! * `$exists`, `$size`, `$type` by names and numbers that exist since 4.4, `$mod` with whole numbers, bit tests with masks that are numbers or
//!   positions, `$all` of plain values, `$elemMatch`.
//! * Regular expressions of the plain kind alone, see [`super::plain`].
//! * Not `_id`, which depends on the stages behind the `$match`, nor `splitEvent`, which only the server sees.

use bson::{Bson, Document, doc};

use super::plain::is_plain;
use super::simplify::simplify;
use super::term::{Branch, Literal, Term, first_of};

/// A condition that is not asked of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropped {
    /// As it stands in the query.
    pub term: Document,
    /// In a few words.
    pub why: &'static str,
}

/// What is left of a query.
pub(crate) struct Weak {
    pub branch: Branch,
    pub dropped: Vec<Dropped>,
    /// Null is asked for: safe as it is written here, but not inside a negation.
    nulls: bool,
    /// Names are those of an array's elements.
    inside: bool,
}

/// Levels of `$and`, `$or` and operators that are walked into.
const LEVELS_MAX: usize = 32;

const OPERATOR: &str = "this operator is not pushed down";
const VALUE: &str = "servers do not all compare this value alike";
const NULL: &str = "null has changed its meaning in MongoDB 8.0";
const REGEX: &str = "only plain regular expressions are pushed down";
const PATH: &str = "the server sees this field otherwise";
const INSIDE: &str = "it holds a condition that is not pushed down";
const DEEP: &str = "it is nested too deep";
const ENCODING: &str = "it cannot be written as BSON";

/// What of a query can be asked of any server.
pub(crate) fn weaken(query: &Document) -> Weak {
    Weak::of(query, 0, false)
}

impl Weak {
    fn of(query: &Document, level: usize, inside: bool) -> Weak {
        let mut weak = Weak { branch: Branch::default(), dropped: Vec::new(), nulls: false, inside };
        weak.all_of(query, level);
        weak
    }

    /// The whole query means this to every server, wherever it stands.
    fn is_whole(&self) -> bool {
        self.dropped.is_empty() && !self.nulls
    }

    fn all_of(&mut self, query: &Document, level: usize) {
        for (name, value) in query {
            match name.as_str() {
                _ if level > LEVELS_MAX => self.drop_term(name, value, DEEP),
                "$comment" => {}
                "$and" => match documents(value) {
                    Some(all) => all.into_iter().for_each(|query| self.all_of(query, level + 1)),
                    None => self.drop_term(name, value, OPERATOR),
                },
                "$or" => match documents(value) {
                    Some(any) => self.any_of(&any, level + 1),
                    None => self.drop_term(name, value, OPERATOR),
                },
                "$nor" => match documents(value) {
                    Some(none) => none.into_iter().for_each(|query| self.none_of(query, level + 1)),
                    None => self.drop_term(name, value, OPERATOR),
                },
                _ if name.starts_with('$') => self.drop_term(name, value, OPERATOR),
                path => self.field(path, value, level),
            }
        }
    }

    fn any_of(&mut self, any: &[&Document], level: usize) {
        let mut branches = Vec::with_capacity(any.len());
        for query in any {
            let mut weak = Weak::of(query, level, self.inside);
            self.dropped.append(&mut weak.dropped);
            self.nulls |= weak.nulls;
            branches.push(weak.branch);
        }
        let branches = simplify(branches);
        match branches.as_slice() {
            [only] => only.terms.iter().for_each(|term| self.branch.require(term.clone())),
            [] => self.branch.require(Term::within("operationType", Vec::new())),
            _ => self.branch.require(Term::or(branches)),
        }
    }

    fn none_of(&mut self, query: &Document, level: usize) {
        let nor = doc! { "$nor": [query.clone()] };
        if Weak::of(query, level, self.inside).is_whole() {
            self.keep(None, nor)
        } else {
            self.dropped.push(Dropped { term: nor, why: INSIDE })
        }
    }

    /// One field of a query: an equality, or a document of operators.
    fn field(&mut self, path: &str, value: &Bson, level: usize) {
        if is_odd(path) || (!self.inside && ONLY_THERE.contains(&first_of(path))) {
            return self.drop_term(path, value, PATH);
        }
        match value {
            Bson::RegularExpression(regex) => {
                self.keep_if(is_plain(path, regex.pattern.as_str(), regex.options.as_str()), path, value, REGEX);
            }
            Bson::Document(operators) if operators.keys().next().is_some_and(|name| name.starts_with('$')) => {
                for (operator, operand) in operators {
                    self.operator(path, operator, operand, operators, level);
                }
            }
            _ => self.equals_any(path, std::slice::from_ref(value), value),
        }
    }

    /// One operator on a field; `all` are those that stand beside it.
    fn operator(&mut self, path: &str, operator: &str, operand: &Bson, all: &Document, level: usize) {
        let whole = Bson::Document(doc! { operator: operand.clone() });
        match (operator, operand) {
            ("$eq", value) => self.equals_any(path, std::slice::from_ref(value), &whole),
            ("$in", Bson::Array(values)) => self.equals_any(path, values, &whole),
            ("$regex", _) => self.regex(path, operand, all),
            // With its `$regex`.
            ("$options", _) if all.contains_key("$regex") => {}
            ("$comment", _) => {}
            ("$not", value) => {
                let is_safe = self.is_whole_negation(path, value, level);
                self.keep_if(is_safe, path, &whole, INSIDE);
            }
            ("$elemMatch", Bson::Document(inner)) => {
                self.keep_if(is_whole_element(path, inner, level), path, &whole, INSIDE);
            }
            _ => match why_not(operator, operand) {
                None => {
                    self.nulls |= asks_null(operator, operand);
                    self.keep(Some(path), doc! { path: whole });
                }
                Some(why) => self.drop_term(path, &whole, why),
            },
        }
    }

    fn equals_any(&mut self, path: &str, values: &[Bson], whole: &Bson) {
        let plain_regex = |value: &Bson| match value {
            Bson::RegularExpression(regex) => is_plain(path, regex.pattern.as_str(), regex.options.as_str()),
            _ => false,
        };
        let has_regex = values.iter().any(|value| matches!(value, Bson::RegularExpression(_)));
        if has_regex && values.iter().all(|value| plain_regex(value) || is_literal(value)) {
            // As the value of `$eq` it would be a value, not a pattern.
            let is_in = matches!(whole, Bson::Document(inner) if inner.contains_key("$in"));
            return self.keep_if(is_in, path, whole, VALUE);
        }
        if has_regex {
            return self.drop_term(path, whole, REGEX);
        }
        if !values.iter().all(|value| is_literal(value) || *value == Bson::Null) {
            return self.drop_term(path, whole, VALUE);
        }
        self.nulls |= values.contains(&Bson::Null);
        match values.iter().map(Literal::new).collect::<Option<Vec<_>>>() {
            Some(values) => self.branch.require(Term::within(path, values)),
            None => self.drop_term(path, whole, ENCODING),
        }
    }

    fn regex(&mut self, path: &str, operand: &Bson, all: &Document) {
        let own = all.get_str("$options").ok();
        let (pattern, options) = match operand {
            Bson::String(pattern) => (pattern.as_str(), ""),
            Bson::RegularExpression(regex) => (regex.pattern.as_str(), regex.options.as_str()),
            other => return self.drop_term(path, &doc! { "$regex": other.clone() }.into(), REGEX),
        };
        let options = own.unwrap_or(options);
        let mut whole = doc! { "$regex": pattern };
        if !options.is_empty() {
            whole.insert("$options", options);
        }
        let has_odd_options = all.contains_key("$options") && own.is_none();
        self.keep_if(!has_odd_options && is_plain(path, pattern, options), path, &whole.into(), REGEX);
    }

    /// What `$not` negates is asked in the same words of every server.
    fn is_whole_negation(&self, path: &str, negated: &Bson, level: usize) -> bool {
        match negated {
            Bson::RegularExpression(regex) => is_plain(path, regex.pattern.as_str(), regex.options.as_str()),
            Bson::Document(operators) if operators.keys().next().is_some_and(|name| name.starts_with('$')) => {
                Weak::of(&doc! { path: operators.clone() }, level + 1, self.inside).is_whole()
            }
            _ => false,
        }
    }

    fn keep_if(&mut self, is_safe: bool, path: &str, value: &Bson, why: &'static str) {
        if is_safe { self.keep(Some(path), doc! { path: value.clone() }) } else { self.drop_term(path, value, why) }
    }

    fn keep(&mut self, path: Option<&str>, document: Document) {
        match Term::other(path, document.clone()) {
            Some(term) => self.branch.require(term),
            None => self.dropped.push(Dropped { term: document, why: ENCODING }),
        }
    }

    fn drop_term(&mut self, name: &str, value: &Bson, why: &'static str) {
        self.dropped.push(Dropped { term: doc! { name: value.clone() }, why });
    }
}

/// Operators without a walk of their own. `None`: it is the same everywhere.
fn why_not(operator: &str, operand: &Bson) -> Option<&'static str> {
    let (is_safe, why) = match (operator, operand) {
        ("$ne", value) => (is_literal(value) || *value == Bson::Null, VALUE),
        ("$nin", Bson::Array(values)) => (values.iter().all(|value| is_literal(value) || *value == Bson::Null), VALUE),
        ("$gt" | "$gte" | "$lt" | "$lte", Bson::Null) => (false, NULL),
        ("$gt" | "$gte" | "$lt" | "$lte", value) => (is_ordered(value), VALUE),
        ("$exists", value) => (matches!(value, Bson::Boolean(_) | Bson::Int32(_) | Bson::Int64(_)), VALUE),
        ("$type", Bson::Array(types)) => (!types.is_empty() && types.iter().all(is_type), VALUE),
        ("$type", one) => (is_type(one), VALUE),
        ("$size", value) => (whole(value).is_some_and(|size| size >= 0), VALUE),
        ("$mod", Bson::Array(parts)) => {
            let parts: Vec<Option<i64>> = parts.iter().map(whole).collect();
            (matches!(parts.as_slice(), [Some(divisor), Some(_)] if *divisor != 0), VALUE)
        }
        ("$bitsAllSet" | "$bitsAnySet" | "$bitsAllClear" | "$bitsAnyClear", mask) => (is_mask(mask), VALUE),
        ("$all", Bson::Array(values)) => (!values.is_empty() && values.iter().all(is_literal), VALUE),
        _ => (false, OPERATOR),
    };
    (!is_safe).then_some(why)
}

/// A negation of null, of which 8.0 lets more through: one that is negated again lets less through there.
fn asks_null(operator: &str, operand: &Bson) -> bool {
    match (operator, operand) {
        ("$ne", value) => *value == Bson::Null,
        ("$nin", Bson::Array(values)) => values.contains(&Bson::Null),
        _ => false,
    }
}

/// `$elemMatch` in either of its forms: operators on the element, or a query on a document.
fn is_whole_element(path: &str, inner: &Document, level: usize) -> bool {
    let logical = |name: &str| ["$and", "$or", "$nor"].contains(&name);
    let of_values = inner.keys().next().is_some_and(|name| name.starts_with('$') && !logical(name));
    match of_values {
        true => Weak::of(&doc! { path: inner.clone() }, level + 1, true).is_whole(),
        false => Weak::of(inner, level + 1, true).is_whole(),
    }
}

/// The documents of a list that is not empty.
fn documents(value: &Bson) -> Option<Vec<&Document>> {
    let all: Vec<&Document> = value.as_array()?.iter().map(Bson::as_document).collect::<Option<_>>()?;
    (!all.is_empty()).then_some(all)
}

/// Fields that the server's stage and the reader do not see alike.
const ONLY_THERE: [&str; 2] = ["_id", "splitEvent"];

fn is_odd(path: &str) -> bool {
    path.contains('\0') || path.split('.').any(|name| name.is_empty() || name.starts_with('$'))
}

/// A value that equals the same values in all versions.
fn is_literal(value: &Bson) -> bool {
    match value {
        Bson::Document(document) => {
            let odd = document.keys().next().is_some_and(|name| name.starts_with('$'));
            !odd && document.values().all(|value| is_part(value, 1))
        }
        Bson::Array(values) => values.iter().all(|value| is_part(value, 1)),
        Bson::Null => false,
        other => is_part(other, 0),
    }
}

/// A value inside another one. Null is compared by its type there, in all versions.
fn is_part(value: &Bson, level: usize) -> bool {
    match value {
        _ if level > LEVELS_MAX => false,
        Bson::Document(document) => document.values().all(|value| is_part(value, level + 1)),
        Bson::Array(values) => values.iter().all(|value| is_part(value, level + 1)),
        Bson::Null | Bson::Symbol(_) | Bson::JavaScriptCode(_) | Bson::Boolean(_) => true,
        Bson::Double(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::Decimal128(_) | Bson::String(_) => true,
        Bson::ObjectId(_) | Bson::DateTime(_) | Bson::Timestamp(_) | Bson::Binary(_) => true,
        _ => false,
    }
}

fn is_ordered(value: &Bson) -> bool {
    match value {
        Bson::Double(number) => !number.is_nan(),
        // Its NaN has many forms.
        Bson::Decimal128(number) => !number.to_string().contains("NaN"),
        Bson::Int32(_) | Bson::Int64(_) | Bson::String(_) | Bson::Boolean(_) => true,
        Bson::ObjectId(_) | Bson::DateTime(_) | Bson::Timestamp(_) | Bson::Binary(_) => true,
        _ => false,
    }
}

fn is_type(value: &Bson) -> bool {
    const NAMES: [&str; 19] = [
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
        "javascript",
        "symbol",
        "int",
        "timestamp",
        "long",
        "decimal",
        "minKey",
        "number",
    ];
    match value {
        Bson::String(name) => NAMES.contains(&name.as_str()),
        other => {
            whole(other).is_some_and(|number| [1..=11, 13..=14, 16..=19].iter().any(|some| some.contains(&number)))
        }
    }
}

fn is_mask(value: &Bson) -> bool {
    match value {
        Bson::Array(positions) => positions.iter().all(|at| whole(at).is_some_and(|at| at >= 0)),
        other => whole(other).is_some_and(|mask| mask >= 0),
    }
}

fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}
