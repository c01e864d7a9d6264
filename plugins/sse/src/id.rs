//! Event ids as places in the stream: 16 hex digits of time, a hyphen, 8 of the index inside a transaction, 8 of a hash. Ids of one
//! place do not sort by their hash; only places do.

use std::fmt;

/// An event id, or a place without an event: `<time>-0000000000000000` is "from that time on, inclusive".
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id {
    place: Place,
    hash: u32,
}

/// Where an event stands in the stream: MongoDB's timestamp, then the index inside its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Seconds in the high half, increment in the low.
    pub time: u64,
    /// 0 outside transactions.
    pub index: u32,
}

impl Id {
    /// Characters of an id.
    pub const LEN: usize = 33;

    /// `None` where the text is no id: it may come from anywhere.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, rest) = text.split_once('-').filter(|(time, rest)| time.len() == 16 && rest.len() == 16)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !digits(time) || !digits(rest) {
            return None;
        }
        let (time, rest) = (u64::from_str_radix(time, 16).ok()?, u64::from_str_radix(rest, 16).ok()?);
        Some(Self { place: Place { time, index: (rest >> 32) as u32 }, hash: rest as u32 })
    }

    /// From `time` on, inclusive.
    pub fn at(time: u64) -> Self {
        Self { place: Place { time, index: 0 }, hash: 0 }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:08x}{:08x}", self.place.time, self.place.index, self.hash)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_anything_else_is_none() {
        let text = "6565a5d100000002-0000000a89abcdef";
        let id = Id::parse(text).expect("an id");
        assert_eq!((id.to_string().as_str(), id.to_string().len()), (text, Id::LEN));
        assert_eq!(id.place(), Place { time: 0x6565_a5d1_0000_0002, index: 10 });
        assert_eq!(Id::at(0xff).to_string(), "00000000000000ff-0000000000000000");
        for text in [
            "",
            "-",
            "null",
            "6565a5d100000002",
            "6565a5d100000002-0000000a89abcde",
            "6565a5d100000002-0000000a89abcdef0",
            "6565A5D100000002-0000000a89abcdef",
            "6565a5d10000000 -0000000a89abcdef",
            "+565a5d100000002-+000000a89abcdef",
            "6565a5d10000000２-000000a89abcdef",
        ] {
            assert_eq!(Id::parse(text), None, "{text:?}");
        }
    }
}
