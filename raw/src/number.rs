//! BSON numbers in one form, so that 1, 1.0, NumberLong(1) and NumberDecimal("1.0") are one value.

use std::cmp::Ordering;

use crate::{Value, kind};

/// The first double above every i64.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// A number without its BSON type: equal for all types that hold the same value.
#[derive(Copy, Clone, Debug)]
pub enum Number {
    /// Any whole number within 64 bits, of whatever type. Negative zero is zero.
    Int(i64),
    /// A double that is no such whole number; infinities and NaN of decimals too.
    Double(f64),
    /// A finite decimal that is no such whole number: ± coefficient × 10^exponent, the coefficient without trailing zeros.
    Decimal {
        /// Whether it is below zero.
        negative: bool,
        /// At most 34 digits, never zero.
        coefficient: u128,
        /// Power of ten.
        exponent: i32,
    },
}

impl Number {
    /// The value of a number; `None` for every other type.
    pub fn of(value: Value<'_>) -> Option<Number> {
        match value.kind() {
            kind::INT32 => Some(Number::Int(i64::from(value.int32()))),
            kind::INT64 => Some(Number::Int(value.int64())),
            kind::DOUBLE => Some(Number::of_double(value.double())),
            kind::DECIMAL128 => Some(Number::of_decimal(value.decimal128())),
            _ => None,
        }
    }

    fn of_double(value: f64) -> Number {
        // NaN fails the comparison.
        if (-TWO_63..TWO_63).contains(&value) && value.trunc() == value {
            Number::Int(value as i64)
        } else {
            Number::Double(value)
        }
    }

    /// Takes a Decimal128 apart (IEEE 754-2008, binary integer significand).
    pub fn of_decimal(bytes: [u8; 16]) -> Number {
        let bits = u128::from_le_bytes(bytes);
        let negative = bits >> 127 == 1;
        match bits >> 122 & 31 {
            31 => return Number::Double(f64::NAN),
            30 => return Number::Double(if negative { f64::NEG_INFINITY } else { f64::INFINITY }),
            // A significand of more than 113 bits is above 10^34, which the standard reads as zero.
            24..=29 => return Number::Int(0),
            _ => {}
        }
        let mut exponent = (bits >> 113 & 0x3fff) as i32 - 6176;
        let mut coefficient = bits & ((1 << 113) - 1);
        if coefficient == 0 || coefficient >= 10u128.pow(34) {
            return Number::Int(0);
        }
        while coefficient.is_multiple_of(10) {
            coefficient /= 10;
            exponent += 1;
        }
        whole(negative, coefficient, exponent).map_or(Number::Decimal { negative, coefficient, exponent }, Number::Int)
    }

    /// The nearest double. Equal numbers have equal ones; NaN is one value and there is no negative zero.
    pub fn nearest_double(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Double(n) if n.is_nan() => f64::NAN,
            Number::Double(n) => n,
            Number::Decimal { negative, coefficient, exponent } => {
                let mut text = [0u8; 64];
                let sign = if negative { "-" } else { "" };
                let mut rest = &mut text[..];
                // 39 digits, sign, e, sign and 4 digits always fit.
                let _ = std::io::Write::write_fmt(&mut rest, format_args!("{sign}{coefficient}e{exponent}"));
                let len = 64 - rest.len();
                std::str::from_utf8(&text[..len]).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0)
            }
        }
    }
}

/// Equal in value. NaN is equal to itself, as the server has it.
impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Number::Int(a), Number::Int(b)) => a == b,
            (Number::Double(a), Number::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
            (
                Number::Decimal { negative: n, coefficient: c, exponent: e },
                Number::Decimal { negative: m, coefficient: d, exponent: f },
            ) => (n, c, e) == (m, d, f),
            (Number::Double(double), decimal @ Number::Decimal { .. })
            | (decimal @ Number::Decimal { .. }, Number::Double(double)) => exact(double) == Some(decimal),
            _ => false,
        }
    }
}

/// By value, exactly: nothing is rounded on the way. NaN is below every other number and equal to itself, as the server has it.
impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        use Number::{Decimal, Double, Int};
        match (*self, *other) {
            (Int(a), Int(b)) => a.cmp(&b),
            (Double(a), Double(b)) => a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())),
            (Int(a), b) => below_and_above(b, a).reverse(),
            (a, Int(b)) => below_and_above(a, b),
            (
                Decimal { negative: n, coefficient: c, exponent: e },
                Decimal { negative: m, coefficient: d, exponent: f },
            ) => signed(n, m, || magnitudes(c, e, d, f)),
            (Double(a), b) => double_and_decimal(a, b),
            (a, Double(b)) => double_and_decimal(b, a).reverse(),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Number {}

/// Where a number that is no whole one of 64 bits stands beside one that is.
fn below_and_above(number: Number, int: i64) -> Ordering {
    // What is before the point, and whether it is negative; `None` is beyond 64 bits.
    let (negative, whole) = match number {
        Number::Int(n) => return n.cmp(&int),
        Number::Double(n) if n.is_nan() => return Ordering::Less,
        Number::Double(n) => (n < 0.0, (n.abs() < TWO_63).then_some(n.trunc() as i64)),
        Number::Decimal { negative, coefficient, exponent } => {
            let places = 10u128.checked_pow(exponent.min(0).unsigned_abs());
            // More places than any coefficient has digits.
            let before = places.map_or(0, |places| coefficient / places);
            let whole = if exponent < 0 { i64::try_from(before).ok() } else { None };
            (negative, whole.map(|whole| if negative { -whole } else { whole }))
        }
    };
    match (negative, whole) {
        (false, Some(whole)) if whole >= int => Ordering::Greater,
        (true, Some(whole)) if whole > int => Ordering::Greater,
        (false, None) => Ordering::Greater,
        _ => Ordering::Less,
    }
}

/// Order of two numbers that are not zero, by sign and then as their magnitudes stand.
fn signed(a_negative: bool, b_negative: bool, magnitudes: impl FnOnce() -> Ordering) -> Ordering {
    match (a_negative, b_negative) {
        (false, false) => magnitudes(),
        (true, true) => magnitudes().reverse(),
        (a, b) => b.cmp(&a),
    }
}

/// Order of c × 10^e and d × 10^f.
fn magnitudes(c: u128, e: i32, d: u128, f: i32) -> Ordering {
    let digits = |n: u128| n.checked_ilog10().map_or(0, |log| log as i32 + 1);
    let (c_digits, d_digits) = (digits(c), digits(d));
    (c_digits + e).cmp(&(d_digits + f)).then_with(|| {
        // Both to the length of the longer one, which 128 bits hold.
        let widen = |n: u128, by: i32| n * 10u128.pow(by.max(0).unsigned_abs());
        widen(c, d_digits - c_digits).cmp(&widen(d, c_digits - d_digits))
    })
}

/// Order of a double and a decimal.
fn double_and_decimal(double: f64, decimal: Number) -> Ordering {
    if double.is_nan() {
        return Ordering::Less;
    }
    if double.is_infinite() {
        return if double < 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    // Rounding keeps order, so where the nearest double is another one, it decides.
    match double.partial_cmp(&decimal.nearest_double()) {
        Some(Ordering::Equal) | None => {}
        Some(order) => return order,
    }
    let Number::Decimal { negative, coefficient, exponent } = decimal else {
        return decimal.cmp(&Number::Double(double));
    };
    if double == 0.0 {
        return if negative { Ordering::Greater } else { Ordering::Less };
    }
    signed(double < 0.0, negative, || {
        // A double has at most 767 digits, all of which are written; a decimal has 34. What they have in common at the front is
        // compared as a number, and any digit of the double behind that makes it greater.
        let text = format!("{:.766e}", double.abs());
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let mut front = 0;
        for digit in digits.bytes().filter(u8::is_ascii_digit).take(35) {
            front = front * 10 + u128::from(digit - b'0');
        }
        let more = digits.bytes().filter(u8::is_ascii_digit).skip(35).any(|digit| digit != b'0');
        let power: i32 = power.parse().unwrap_or_default();
        magnitudes(front, power - 34, coefficient, exponent).then(if more {
            Ordering::Greater
        } else {
            Ordering::Equal
        })
    })
}

/// A double as a decimal, if one of 34 digits is exactly its value.
fn exact(value: f64) -> Option<Number> {
    if !value.is_finite() || value == 0.0 {
        return None;
    }
    // value = mantissa × 2^power, the mantissa odd.
    let bits = value.to_bits();
    let (field, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let (mantissa, power) = if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
    let shift = mantissa.trailing_zeros();
    let (mut mantissa, mut power) = (u128::from(mantissa >> shift), power + shift as i32);
    let mut exponent = 0;
    // Pairs of 2 and 5 become tens; missing fives are multiplied in.
    while power > 0 && mantissa.is_multiple_of(5) {
        (mantissa, power, exponent) = (mantissa / 5, power - 1, exponent + 1);
    }
    let coefficient = if power < 0 {
        exponent = power;
        mantissa.checked_mul(5u128.checked_pow(power.unsigned_abs())?)?
    } else {
        mantissa.checked_mul(2u128.checked_pow(power as u32)?)?
    };
    (coefficient < 10u128.pow(34)).then_some(Number::Decimal { negative: value < 0.0, coefficient, exponent })
}

/// `± coefficient × 10^exponent` as an i64, if it is one.
fn whole(negative: bool, coefficient: u128, exponent: i32) -> Option<i64> {
    let factor = 10i128.checked_pow(u32::try_from(exponent).ok()?)?;
    let magnitude = i128::try_from(coefficient).ok()?.checked_mul(factor)?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests;
