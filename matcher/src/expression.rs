//! The compiled query: what is asked of a document, and of one value.

use std::sync::Arc;

use tailwater_raw::{Elements, Value};

use crate::path::{self, Path};
use crate::predicate::Predicate;
use crate::tree::Tree;

/// What a query asks of a document.
#[derive(Clone, Debug)]
pub(crate) enum Expression {
    Always,
    Never,
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Leaf(Leaf),
    /// Several leaves of a conjunction, answered in one pass over the document.
    Tree(Tree),
}

/// What is asked of the values at the end of a path.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub path: Path,
    pub predicate: Arc<Predicate>,
    /// Whether it must hold for none of them.
    pub negated: bool,
}

/// What a query asks of one value, before it is known where the value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    Never,
    Is(Arc<Predicate>),
    Not(Box<Condition>),
    All(Vec<Condition>),
}

impl Expression {
    pub fn holds(&self, document: Elements<'_>) -> bool {
        match self {
            Expression::Always => true,
            Expression::Never => false,
            Expression::And(all) => all.iter().all(|expression| expression.holds(document.clone())),
            Expression::Or(any) => any.iter().any(|expression| expression.holds(document.clone())),
            Expression::Not(expression) => !expression.holds(document),
            Expression::Leaf(leaf) => leaf.holds(document),
            Expression::Tree(tree) => tree.holds(document),
        }
    }

    /// All of them, cheap ones first and those on fields in one pass.
    pub fn all(expressions: Vec<Expression>) -> Expression {
        let (mut cheap, mut costly, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = expressions;
        open.reverse();
        while let Some(expression) = open.pop() {
            match expression {
                Expression::Always => {}
                Expression::Never => return Expression::Never,
                Expression::And(inner) => open.extend(inner.into_iter().rev()),
                Expression::Leaf(leaf) if leaf.predicate.is_costly() => costly.push(leaf),
                Expression::Leaf(leaf) => cheap.push(leaf),
                other => rest.push(other),
            }
        }
        let mut all = Tree::of(cheap);
        // Stable, so that what costs the same stays in the order written.
        rest.sort_by_key(Expression::cost);
        all.extend(rest);
        all.extend(Tree::of(costly));
        match all.len() {
            0 => Expression::Always,
            1 => all.remove(0),
            _ => Expression::And(all),
        }
    }

    /// Any of them.
    pub fn any(mut expressions: Vec<Expression>) -> Expression {
        expressions.retain(|expression| !matches!(expression, Expression::Never));
        if expressions.iter().any(|expression| matches!(expression, Expression::Always)) {
            return Expression::Always;
        }
        expressions.sort_by_key(Expression::cost);
        match expressions.len() {
            0 => Expression::Never,
            1 => expressions.remove(0),
            _ => Expression::Or(expressions),
        }
    }

    pub fn not(self) -> Expression {
        match self {
            Expression::Always => Expression::Never,
            Expression::Never => Expression::Always,
            Expression::Not(inner) => *inner,
            Expression::Leaf(leaf) => Expression::Leaf(Leaf { negated: !leaf.negated, ..leaf }),
            other => Expression::Not(Box::new(other)),
        }
    }

    fn cost(&self) -> usize {
        match self {
            Expression::Always | Expression::Never => 0,
            Expression::And(inner) | Expression::Or(inner) => inner.iter().map(Expression::cost).sum::<usize>() + 1,
            Expression::Not(inner) => inner.cost(),
            Expression::Leaf(leaf) => leaf.path.components().len() + if leaf.predicate.is_costly() { 50 } else { 0 },
            Expression::Tree(tree) => tree.cost(),
        }
    }
}

impl Leaf {
    pub fn holds(&self, document: Elements<'_>) -> bool {
        path::walk(document, self.path.components(), &self.predicate) != self.negated
    }
}

impl Condition {
    pub fn is(predicate: Predicate) -> Condition {
        Condition::Is(Arc::new(predicate))
    }

    pub fn not(self) -> Condition {
        Condition::Not(Box::new(self))
    }

    /// Whether it holds for a value as it is: an array is not looked into.
    pub fn holds(&self, value: Value<'_>) -> bool {
        match self {
            Condition::Never => false,
            Condition::Is(predicate) => predicate.holds(Some(value)),
            Condition::Not(condition) => !condition.holds(value),
            Condition::All(all) => all.iter().all(|condition| condition.holds(value)),
        }
    }

    /// The same asked of the values at the end of a path: each predicate on its own of all of them.
    pub fn at(self, path: &Path) -> Expression {
        match self {
            Condition::Never => Expression::Never,
            Condition::Is(predicate) => Expression::Leaf(Leaf { path: path.clone(), predicate, negated: false }),
            Condition::Not(condition) => condition.at(path).not(),
            Condition::All(all) => Expression::all(all.into_iter().map(|condition| condition.at(path)).collect()),
        }
    }
}
