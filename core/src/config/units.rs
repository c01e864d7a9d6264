//! Durations and byte sizes as people write them. Knows no key and no default.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const BYTE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Reads `"500ms"`, `"1s"`, `"2m"`, `"1h"` or `"30d"`: a whole number, at once followed by its unit.
/// `None` when the text is anything else, or does not fit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// Reads `"16MiB"`, `"1MB"`, `"512KiB"`, `"2GiB"` or `"100B"` as a number of bytes. `None` when the text is anything
/// else, or does not fit.
pub fn parse_bytes(text: &str) -> Option<u64> {
    parse(text, &BYTE_UNITS)
}

/// The shortest form [`parse_duration`] reads back as the same value (whole milliseconds).
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let (unit, factor) =
        DURATION_UNITS.iter().rev().find(|(_, factor)| ms.is_multiple_of(u128::from(*factor))).expect("1 divides");
    format!("{}{unit}", ms / u128::from(*factor))
}

/// The shortest form in powers of 1024 that [`parse_bytes`] reads back as the same value.
pub fn format_bytes(bytes: u64) -> String {
    let fits = |unit: &&(&str, u64)| bytes.is_multiple_of(unit.1);
    let (unit, factor) = BYTE_UNITS[..3].iter().rev().find(fits).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", Some(500)),
            ("1s", Some(1_000)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("30d", Some(2_592_000_000)),
            ("0ms", Some(0)),
            ("1.5s", None),
            ("1 s", None),
            ("s", None),
            ("", None),
            ("10", None),
            ("-1s", None),
            ("1S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn byte_sizes() {
        for (text, bytes) in [
            ("16MiB", Some(16 << 20)),
            ("1MB", Some(1_000_000)),
            ("512KiB", Some(512 << 10)),
            ("2GiB", Some(2 << 30)),
            ("100B", Some(100)),
            ("3GB", Some(3_000_000_000)),
            ("16mib", None),
            ("16", None),
            ("16 MiB", None),
            ("MiB", None),
            ("18446744073709551615GiB", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn formats_are_read_back() {
        for text in ["500ms", "1s", "90s", "2m", "36h", "30d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["1B", "1KiB", "1536KiB", "16MiB", "3GiB"] {
            assert_eq!(format_bytes(parse_bytes(text).unwrap()), text);
        }
    }
}
