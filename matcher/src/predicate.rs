//! What a query asks of one value: each operator on its own, arrays and paths left to `path`.

use std::cmp::Ordering;

use tailwater_raw::{Elements, Value, kind, number::Number};

use crate::bits::Bits;
use crate::expression::{Condition, Expression};
use crate::membership::Membership;
use crate::path::values;
use crate::regex::Pattern;
use crate::value::{self, Literal, rank};

/// One operator with its operand.
#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    Equal(Literal),
    /// A value of the literal's rank that stands so beside it.
    Ordered(Literal, Side),
    /// A value of whatever type, or none, that stands so beside the least or the greatest key.
    Ranked(i8, Side),
    Among(Box<Membership>),
    Exists,
    Type(Types),
    Modulo {
        divisor: i64,
        remainder: i64,
    },
    Regex(Pattern),
    Bits(Box<Bits>),
    Size(usize),
    /// An array with an element that is a document, or an array taken for one, that matches.
    ElementMatches(Box<Expression>),
    /// An array with an element of which the condition holds.
    ElementHolds(Box<Condition>),
}

/// Which side of a literal.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A set of BSON types.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types([u64; 4]);

impl Predicate {
    /// Whether it holds for one value; `None` is a missing field.
    #[inline]
    pub fn holds(&self, found: Option<Value<'_>>) -> bool {
        match self {
            Predicate::Equal(wanted) => value::equal_or_missing(found, wanted.value()),
            Predicate::Among(values) => values.contain(found),
            Predicate::Exists => found.is_some(),
            Predicate::Ranked(wanted, side) => {
                // A missing field is of undefined's rank.
                side.has(rank(found.map_or(kind::UNDEFINED, Value::kind)).cmp(wanted))
            }
            _ => found.is_some_and(|found| self.holds_for(found)),
        }
    }

    fn holds_for(&self, found: Value<'_>) -> bool {
        match self {
            Predicate::Ordered(wanted, side) => ordered(found, wanted.value(), *side),
            Predicate::Type(types) => types.contains(found.kind()),
            Predicate::Modulo { divisor, remainder } => {
                whole(found).is_some_and(|n| n.checked_rem(*divisor).unwrap_or(0) == *remainder)
            }
            Predicate::Regex(pattern) => pattern.matches(found),
            Predicate::Bits(bits) => bits.hold(found),
            Predicate::Size(wanted) => {
                found.kind() == kind::ARRAY && values(found.elements()).take(*wanted + 1).count() == *wanted
            }
            Predicate::ElementMatches(expression) => {
                let is_document = |element: &Value<'_>| matches!(element.kind(), kind::DOCUMENT | kind::ARRAY);
                let mut elements = elements_of(found).filter(is_document);
                elements.any(|element| expression.holds(element.elements()))
            }
            Predicate::ElementHolds(condition) => elements_of(found).any(|element| condition.holds(element)),
            Predicate::Equal(_) | Predicate::Among(_) | Predicate::Exists | Predicate::Ranked(..) => {
                self.holds(Some(found))
            }
        }
    }

    /// Whether an array at the end of a path stands for each of its elements, too.
    #[inline]
    pub fn looks_into_arrays(&self) -> bool {
        !matches!(self, Predicate::Size(_) | Predicate::ElementMatches(_) | Predicate::ElementHolds(_))
    }

    /// Whether it costs so much that everything else is asked first.
    pub fn is_costly(&self) -> bool {
        match self {
            Predicate::Regex(_) | Predicate::ElementMatches(_) | Predicate::ElementHolds(_) => true,
            Predicate::Among(values) => values.has_patterns(),
            _ => false,
        }
    }
}

impl Side {
    fn has(self, order: Ordering) -> bool {
        match self {
            Side::Less => order.is_lt(),
            Side::LessOrEqual => order.is_le(),
            Side::Greater => order.is_gt(),
            Side::GreaterOrEqual => order.is_ge(),
        }
    }

    /// Whether the literal itself is on this side.
    pub fn has_equal(self) -> bool {
        self.has(Ordering::Equal)
    }
}

impl Types {
    pub fn insert(&mut self, kind: u8) {
        self.0[usize::from(kind >> 6)] |= 1 << (kind & 63);
    }

    pub fn contains(self, kind: u8) -> bool {
        self.0[usize::from(kind >> 6)] >> (kind & 63) & 1 == 1
    }
}

/// The elements of an array; none of any other value.
fn elements_of(value: Value<'_>) -> impl Iterator<Item = Value<'_>> {
    let elements = (value.kind() == kind::ARRAY).then(|| value.elements());
    elements.into_iter().flat_map(|elements: Elements<'_>| values(elements))
}

fn ordered(found: Value<'_>, wanted: Value<'_>, side: Side) -> bool {
    if rank(found.kind()) != rank(wanted.kind()) || is_nan(found) {
        return false;
    }
    value::compare(found, wanted).is_some_and(|order| side.has(order))
}

/// NaN is on no side of anything.
pub(crate) fn is_nan(value: Value<'_>) -> bool {
    match value.kind() {
        kind::DOUBLE => value.double().is_nan(),
        kind::DECIMAL128 => matches!(Number::of(value), Some(Number::Double(n)) if n.is_nan()),
        _ => false,
    }
}

/// What is before the point of a number, if that fits into 64 bits.
pub(crate) fn whole(value: Value<'_>) -> Option<i64> {
    match Number::of(value)? {
        Number::Int(n) => Some(n),
        Number::Double(n) => {
            // A double that is not whole is within 2^53.
            (n.is_finite() && n.abs() < 9e15).then_some(n.trunc() as i64)
        }
        Number::Decimal { negative, coefficient, exponent } => {
            // One with no places after the point would be an Int, if it fitted.
            let places = u32::try_from(exponent.checked_neg()?).ok()?;
            let n = 10u128.checked_pow(places).map_or(0, |places| coefficient / places);
            i64::try_from(if negative { -(n as i128) } else { n as i128 }).ok()
        }
    }
}
