//! `$bitsAllSet` and its like: positions asked of a number in two's complement without end, or of binary.

use tailwater_raw::{Value, kind, number::Number};

/// Bits wanted to be set or clear.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bits {
    pub quantity: Quantity,
    pub wanted: bool,
    /// Those below 64.
    pub low: u64,
    /// Those from 64 on, sorted, each once.
    pub high: Box<[u32]>,
}

/// How many of the positions have to be as wanted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    All,
    Any,
}

impl Bits {
    /// Bits at these positions.
    pub fn at(positions: impl IntoIterator<Item = u32>, quantity: Quantity, wanted: bool) -> Bits {
        let (mut low, mut high) = (0, Vec::new());
        for position in positions {
            match position {
                0..64 => low |= 1 << position,
                _ => high.push(position),
            }
        }
        high.sort_unstable();
        high.dedup();
        Bits { quantity, wanted, low, high: high.into() }
    }

    pub fn hold(&self, found: Value<'_>) -> bool {
        if found.kind() == kind::BINARY {
            // Also the old subtype is taken as it stands, with its second length.
            let bytes = found.bytes().get(5..).unwrap_or_default();
            let mut first = [0; 8];
            let len = bytes.len().min(8);
            first[..len].copy_from_slice(&bytes[..len]);
            let is_set =
                |position: u32| bytes.get(position as usize / 8).is_some_and(|byte| byte >> (position % 8) & 1 == 1);
            return self.judge(u64::from_le_bytes(first), is_set);
        }
        integer(found).is_some_and(|n| self.judge(n as u64, |_| n < 0))
    }

    fn judge(&self, low: u64, is_set: impl Fn(u32) -> bool) -> bool {
        let as_wanted = if self.wanted { low } else { !low };
        let mut high = self.high.iter().map(|position| is_set(*position) == self.wanted);
        match self.quantity {
            Quantity::All => as_wanted & self.low == self.low && high.all(|yes| yes),
            Quantity::Any => as_wanted & self.low != 0 || high.any(|yes| yes),
        }
    }
}

/// A number as the server takes its bits: of doubles only whole ones within 64 bits, decimals rounded to the nearest even, and
/// what is beyond 64 bits as the least integer, which is what the decimal library makes of it.
fn integer(value: Value<'_>) -> Option<i64> {
    match Number::of(value)? {
        Number::Int(n) => Some(n),
        _ if value.kind() == kind::DOUBLE => None,
        Number::Double(_) => Some(i64::MIN),
        Number::Decimal { negative, coefficient, exponent } => Some(rounded(negative, coefficient, exponent)),
    }
}

fn rounded(negative: bool, coefficient: u128, exponent: i32) -> i64 {
    if exponent >= 0 {
        return i64::MIN;
    }
    // More places than there are digits, and one more: below one half.
    let Some(unit) = 10u128.checked_pow(exponent.unsigned_abs()) else { return 0 };
    let (below, rest) = (coefficient / unit, coefficient % unit);
    let up = match (rest * 2).cmp(&unit) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => below & 1,
        std::cmp::Ordering::Greater => 1,
    };
    let magnitude = (below + up) as i128;
    i64::try_from(if negative { -magnitude } else { magnitude }).unwrap_or(i64::MIN)
}
