//! MongoDB's query language over raw BSON, with the server's own answers. Pure: no IO, no clock.
//!
//! Reading order: [`Matcher`] here, `compile` (from a query to an expression), `expression` (what is asked of a document),
//! `tree` (a conjunction in one pass), `path` (how a dotted path walks through documents and arrays), `predicate` (what is asked of
//! a value), `value` (what is equal and what is less). The oracle is a real mongod: `tests/differential`.

mod bits;
mod compile;
mod error;
mod expression;
pub mod head;
mod membership;
mod path;
mod predicate;
mod regex;
mod tree;
pub mod union;
mod value;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bson::{Document, RawDocument};
use tailwater_raw::Elements;

pub use error::MatchError;
use expression::Expression;

/// A compiled query. Clones share its count of patterns given up.
#[derive(Clone, Debug)]
pub struct Matcher {
    query: Document,
    expression: Expression,
    fields: BTreeSet<String>,
    given_up: Arc<AtomicU64>,
}

impl Matcher {
    /// Compiles a query.
    ///
    /// # Errors
    /// When the server would refuse it, or it uses an operator that is not built in; the text names the path and the
    /// operator.
    pub fn compile(query: &Document) -> Result<Matcher, MatchError> {
        let compile::Compiled { expression, fields, given_up } = compile::query(query)?;
        Ok(Matcher { query: query.clone(), expression, fields, given_up })
    }

    /// Whether the document matches, as a `find` or a `$match` of the server would have it. What stands behind damage in a
    /// document is taken for missing.
    pub fn matches(&self, document: &RawDocument) -> bool {
        self.expression.holds(Elements::of(document))
    }

    /// The query as it was given.
    pub fn query(&self) -> &Document {
        &self.query
    }

    /// The fields at the top of a document that the query reads: of each path the first component.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// How many texts a regular expression of the query did not match only because it would have cost too much.
    pub fn patterns_given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }
}
