//! BSON numbers in one form, so that 1, 1.0, NumberLong(1) and NumberDecimal("1.0") are one value.

use crate::{Value, kind};

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
        // 2^63 is the first double that no i64 equals; NaN fails the comparison.
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        if (-LIMIT..LIMIT).contains(&value) && value.trunc() == value {
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
