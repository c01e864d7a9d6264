//! MongoDB's query language over raw BSON, with the server's own answers. Pure: no IO, no clock.
//!
//! Reading order: [`Matcher`] here, `compile` (from a query to expressions), `path` (how a dotted path walks through
//! documents and arrays), `value` (when two values are equal). The oracle is a real
//! mongod: `tests/oracle/` has the script that asks it and its answers.

mod compile;
mod path;
mod value;

use bson::{Document, RawDocument};

pub use compile::MatchError;
use path::Path;
use tailwater_raw::{Value, kind};
use value::Literal;

/// A compiled query.
#[derive(Clone, Debug)]
pub struct Matcher {
    query: Document,
    expression: Expression,
}

/// One node of a compiled query.
#[derive(Clone, Debug)]
enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Equal(Path, Literal),
    In(Path, In),
    Exists(Path),
}

/// The values of an `$in`.
#[derive(Clone, Debug, Default)]
struct In {
    /// Strings, sorted, to be found by bisection.
    strings: Vec<Box<[u8]>>,
    /// All others.
    others: Vec<Literal>,
    /// Whether null is among them, which a missing field equals.
    null: bool,
}

impl Matcher {
    /// Compiles a query.
    ///
    /// # Errors
    /// When the server would refuse it, or it uses an operator that is not built in; the text names the path and the
    /// operator.
    pub fn compile(query: &Document) -> Result<Matcher, MatchError> {
        Ok(Matcher { query: query.clone(), expression: compile::query(query)? })
    }

    /// Whether the document matches, as a `find` or a `$match` of the server would have it.
    pub fn matches(&self, doc: &RawDocument) -> bool {
        self.expression.matches(doc)
    }

    /// The query as it was given.
    pub fn query(&self) -> &Document {
        &self.query
    }
}

impl Expression {
    fn matches(&self, doc: &RawDocument) -> bool {
        match self {
            Expression::And(all) => all.iter().all(|expression| expression.matches(doc)),
            Expression::Or(any) => any.iter().any(|expression| expression.matches(doc)),
            Expression::Not(expression) => !expression.matches(doc),
            Expression::Equal(path, wanted) => {
                let wanted = wanted.value();
                path.any(doc, &mut |found| value::equal_or_missing(found, wanted))
            }
            Expression::In(path, values) => path.any(doc, &mut |found| values.contains(found)),
            Expression::Exists(path) => path.any(doc, &mut |found| found.is_some()),
        }
    }
}

impl In {
    fn contains(&self, found: Option<Value<'_>>) -> bool {
        let Some(found) = found else { return self.null };
        match found.kind() {
            kind::NULL | kind::UNDEFINED if self.null => true,
            kind::STRING | kind::SYMBOL => self.strings.binary_search_by(|text| (**text).cmp(found.text())).is_ok(),
            _ => self.others.iter().any(|wanted| value::equal(found, wanted.value())),
        }
    }
}
