//! Order and equality over all types of numbers: every pair of a list that ascends.

use std::cmp::Ordering;

use super::Number;

/// Numbers in ascending order; those of one line are equal. `d` is a decimal, `i` an integer, else a double.
const ASCENDING: &str = "
    NaN dNaN
    -inf d-Infinity
    d-1E+6000
    -1.7976931348623157e308
    d-1E+300
    d-9223372036854775809
    d-9223372036854775808.5
    i-9223372036854775808 -9223372036854775808 d-9223372036854775808
    d-9223372036854775807.5
    i-9223372036854775807
    -1.5 d-1.50
    i-1 -1 d-1.0
    -0.1
    d-0.1
    -5e-324
    d-1E-6176
    i0 0 -0 d0E+3 d-0
    d1E-6176
    5e-324
    d4.940656458412465441765687928682214E-324
    d5E-324
    9.5367431640625e-7 d9.5367431640625E-7
    d0.1
    d0.1000000000000000055511151231257827
    0.1
    d0.1000000000000000055511151231257828
    d0.3333333333333333148296162562473909
    0.3333333333333333
    d0.9999999999999999999999999999999999
    i1 1 d1.000
    d1.000000000000000000000000000000001
    i9007199254740992 9007199254740992
    d9007199254740992.5
    i9007199254740993 d9007199254740993
    9223372036854774784
    i9223372036854775807 d9223372036854775807
    d9223372036854775807.5
    9223372036854775808 d9223372036854775808
    18446744073709551616 d18446744073709551616
    99999999999999991611392 d99999999999999991611392
    d1E+23
    1e300
    d1.7976931348623157E+308
    d1.797693134862315708145274237317044E+308
    d1E+6000
    inf dInfinity
";

fn number(text: &str) -> Number {
    if let Some(decimal) = text.strip_prefix('d') {
        return Number::of_decimal(decimal.parse::<bson::Decimal128>().expect(text).bytes());
    }
    match text.strip_prefix('i') {
        Some("nf") | None => Number::of_double(text.parse().expect(text)),
        Some(integer) => Number::Int(integer.parse().expect(text)),
    }
}

#[test]
fn order_is_by_exact_value() {
    let lines = ASCENDING.lines().map(str::trim).filter(|line| !line.is_empty());
    let all: Vec<(usize, &str)> =
        lines.enumerate().flat_map(|(at, line)| line.split(' ').map(move |text| (at, text))).collect();
    assert!(all.len() > 60);
    for (a_line, a) in &all {
        for (b_line, b) in &all {
            let (left, right) = (number(a), number(b));
            assert_eq!(left.cmp(&right), a_line.cmp(b_line), "{a} beside {b}");
            assert_eq!(left == right, left.cmp(&right) == Ordering::Equal, "{a} equals {b}");
        }
    }
}
