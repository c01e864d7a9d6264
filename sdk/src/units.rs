//! Durations and byte sizes as operators write them, for a plugin's options. Knows no key and no default.
//!
//! The forms are those of the daemon's own keys: a whole number, at once followed by its unit.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

const SPAN_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// A duration, written as `"500ms"`, `"15s"`, `"2m"`, `"1h"` or `"30d"`. Shown in the shortest of these forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, written as `"100B"`, `"64KiB"`, `"1MB"` or `"2GiB"`. Shown in the shortest form in powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Span {
    /// This many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// This many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// `None` where the text is no duration, or does not fit.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text, &SPAN_UNITS).map(Self::from_millis)
    }
}

impl Size {
    /// `None` where the text is no size, or does not fit.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text, &SIZE_UNITS).map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            // Every unit divides it; nobody writes zero days.
            return f.write_str("0s");
        }
        let divides = |unit: &&(&str, u64)| millis.is_multiple_of(u128::from(unit.1));
        let (unit, factor) = SPAN_UNITS.iter().rev().find(divides).unwrap_or(&SPAN_UNITS[0]);
        write!(f, "{}{unit}", millis / u128::from(*factor))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |unit: &&(&str, u64)| self.0.is_multiple_of(unit.1);
        let (unit, factor) = SIZE_UNITS[..4].iter().rev().find(divides).unwrap_or(&SIZE_UNITS[0]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format_args!("{text:?} is no duration: write \"500ms\", \"15s\", \"2m\" or \"1h\""))
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format_args!("{text:?} is no size: write \"100B\", \"64KiB\" or \"1MiB\"")))
    }
}

/// So that a default shows in the schema as an operator would write it.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// So that a default shows in the schema as an operator would write it.
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": ["500ms", "15s", "1h"] })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|KB|MB|GB)$", "examples": ["64KiB", "1MiB"] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_are_read_and_shown() {
        for (text, millis, shown) in [
            ("500ms", 500, "500ms"),
            ("1000ms", 1_000, "1s"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("36h", 129_600_000, "36h"),
            ("30d", 2_592_000_000, "30d"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = serde_json::from_value(json!(text)).expect(text);
            assert_eq!(span, Span::from_millis(millis), "{text}");
            assert_eq!(serde_json::to_value(span).expect("text"), json!(shown));
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("100B", 100, "100B"),
            ("64KiB", 64 << 10, "64KiB"),
            ("1536KiB", 1536 << 10, "1536KiB"),
            ("1048576B", 1 << 20, "1MiB"),
            ("2GiB", 2 << 30, "2GiB"),
            ("1MB", 1_000_000, "1000000B"),
        ] {
            let size: Size = serde_json::from_value(json!(text)).expect(text);
            assert_eq!(size, Size(bytes), "{text}");
            assert_eq!(serde_json::to_value(size).expect("text"), json!(shown));
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in
            ["", "15", "s", "1.5s", "1 s", "-1s", "1S", "1KiB", "99999999999999999999s", "18446744073709551615d"]
        {
            let error = serde_json::from_value::<Span>(json!(text)).expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text:?} is no duration: write \"500ms\"")), "{error}");
        }
        for text in ["", "16", "MiB", "16 MiB", "16mib", "1s", "18446744073709551615GiB"] {
            let error = serde_json::from_value::<Size>(json!(text)).expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text:?} is no size: write \"100B\"")), "{error}");
        }
        assert!(serde_json::from_value::<Span>(json!(15)).is_err());
    }
}
