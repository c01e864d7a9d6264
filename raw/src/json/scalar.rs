//! The pieces that a value's JSON is made of: text, dates, base64, hex. They know nothing of forms.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::Damaged;

/// Writes a JSON string with its quotes. Only what JSON requires is escaped; that the text is UTF-8 is seen to at the end.
#[inline]
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let clean = clean_len(text);
    out.extend_from_slice(&text[..clean]);
    if clean < text.len() {
        escaped(out, &text[clean..]);
    }
    out.push(b'"');
}

/// How many bytes from the beginning need no escape.
#[inline]
fn clean_len(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let found = escapes(u64::from_le_bytes(*eight));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    // Fewer than eight are left: four from the front and four from the back at once, when there are as many.
    let rest = &text[at..];
    if let (Some(front), Some(back)) = (rest.first_chunk(), rest.last_chunk()) {
        let (front, back) = (u32::from_le_bytes(*front), u32::from_le_bytes(*back));
        if escapes(u64::from(front) | u64::from(back) << 32) == 0 {
            return text.len();
        }
    }
    let needs_escape = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    rest.iter().position(needs_escape).map_or(text.len(), |more| at + more)
}

/// The lowest bit set is the highest one of the first byte to escape.
#[inline]
fn escapes(word: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, limit: u64| word.wrapping_sub(LOW * limit) & !word;
    let quote = below(word ^ (LOW * u64::from(b'"')), 1);
    let backslash = below(word ^ (LOW * u64::from(b'\\')), 1);
    (below(word, 0x20) | quote | backslash) & (LOW << 7)
}

/// The rest of a text from its first byte to escape on.
fn escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some((byte, rest)) = text.split_first() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                out.extend_from_slice(b"\\u00");
                hex(out, &[*byte]);
            }
        }
        let clean = clean_len(rest);
        out.extend_from_slice(&rest[..clean]);
        text = &rest[clean..];
    }
}

/// Writes lower-case hex digits.
pub(super) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    for (pair, byte) in out[start..].chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Writes padded base64.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).expect("four characters for three bytes suffice");
    out.truncate(start + written);
}

/// A regular expression's options in order. The server stores them sorted; the specification wants them so from any source.
pub(super) fn sorted(options: &[u8]) -> Result<String, Damaged> {
    let options = std::str::from_utf8(options).map_err(|_| Damaged::Text)?;
    let mut sorted: Vec<char> = options.chars().collect();
    sorted.sort_unstable();
    Ok(String::from_iter(sorted))
}

/// Writes the 16 bytes of a UUID as 8-4-4-4-12 hex digits.
pub(super) fn uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    for (at, range) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if at > 0 {
            out.push(b'-');
        }
        hex(out, &bytes[range]);
    }
}

/// Writes a double's shortest text that reads back as itself, always with a point or an exponent.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
}

/// Writes a Decimal128 as BSON's specification has it, its zeros kept: `1.50`, `0E+3`, `-Infinity`, `NaN`.
pub(super) fn decimal(out: &mut Vec<u8>, bytes: [u8; 16]) {
    let bits = u128::from_le_bytes(bytes);
    let special = bits >> 122 & 31;
    if special == 31 {
        // Of any sign.
        return out.extend_from_slice(b"NaN");
    }
    if bits >> 127 == 1 {
        out.push(b'-');
    }
    if special == 30 {
        return out.extend_from_slice(b"Infinity");
    }
    // These two bits move the exponent and mean a coefficient of more than 34 digits, which is read as zero.
    let (exponent, coefficient) =
        if bits >> 125 & 3 == 3 { (bits >> 111, 0) } else { (bits >> 113, bits & ((1 << 113) - 1)) };
    let coefficient = if coefficient < 10_u128.pow(34) { coefficient } else { 0 };
    let exponent = (exponent & 0x3fff) as i32 - 6176;
    let mut buffer = itoa::Buffer::new();
    // Most are small, and a division of 128 bits is slow.
    let digits = match u64::try_from(coefficient) {
        Ok(small) => buffer.format(small).as_bytes(),
        Err(_) => buffer.format(coefficient).as_bytes(),
    };
    // How many stand before the point.
    let whole = digits.len() as i32 + exponent;
    if exponent > 0 || whole < -5 {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if whole > 1 { b"E+" } else { b"E" });
        out.extend_from_slice(itoa::Buffer::new().format(whole - 1).as_bytes());
    } else if whole > 0 {
        let (front, back) = digits.split_at(whole as usize);
        out.extend_from_slice(front);
        if !back.is_empty() {
            out.push(b'.');
            out.extend_from_slice(back);
        }
    } else {
        out.extend_from_slice(b"0.");
        out.extend_from_slice(&b"00000"[..whole.unsigned_abs() as usize]);
        out.extend_from_slice(digits);
    }
}

/// Milliseconds since 1970 at the beginning of the years 0 and 10000.
const YEAR_0_MS: i64 = -62_167_219_200_000;
const YEAR_10000_MS: i64 = 253_402_300_800_000;

/// Whether a date is of the years that [`date`] can write.
pub(super) fn is_in_years(ms: i64) -> bool {
    (YEAR_0_MS..YEAR_10000_MS).contains(&ms)
}

/// How a date's milliseconds are written.
#[derive(Copy, Clone, PartialEq)]
pub(super) enum Millis {
    /// Three digits, or none when they are zero: Extended JSON.
    UnlessZero,
    /// Three digits.
    Always,
}

/// Writes a date of the years 0 to 9999 as RFC 3339 in UTC.
pub(super) fn date(out: &mut Vec<u8>, ms: i64, millis: Millis) {
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, value: i64| {
        text[at] += (value / 10) as u8;
        text[at + 1] += (value % 10) as u8;
    };
    put(0, year / 100);
    put(2, year % 100);
    put(5, month);
    put(8, day);
    put(11, in_day / 3_600_000);
    put(14, in_day / 60_000 % 60);
    put(17, in_day / 1000 % 60);
    out.extend_from_slice(&text);
    let rest = (in_day % 1000) as u16;
    if rest != 0 || millis == Millis::Always {
        let digit = |n: u16| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
    out.push(b'Z');
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years begin in March here, so
/// that the leap day is the last one, and 400 of them have 146,097 days.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}
