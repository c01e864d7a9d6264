//! An answer, read whole or up to the cap, and what a plugin wants to know of it. Pure.

use std::time::{Duration, SystemTime};

use ::bytes::Bytes;
use ::http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// Longest [`Answer::text`], in characters.
const TEXT_CHARS_MAX: usize = 200;

/// The answer of an exchange.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status of the final answer; informational ones (1xx) are skipped.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, at most as long as the client's cap.
    pub body: Bytes,
    /// True where the body was longer.
    pub truncated: bool,
}

impl Answer {
    /// How long the other side asks to wait: `Retry-After` in either form, seconds or a date (RFC 9110 §10.2.3). A date that has
    /// passed is zero; `None` where the header is absent or is neither.
    pub fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than fit: a wait without end, for the caller's own limit.
            return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(now).unwrap_or(Duration::ZERO))
    }

    /// The beginning of the body for a person to read: one line, at most 200 characters, nothing that steers a terminal.
    pub fn text(&self) -> String {
        // A character has at most four bytes; twice that, because white space shrinks.
        let beginning = &self.body[..self.body.len().min(TEXT_CHARS_MAX * 8)];
        let text = String::from_utf8_lossy(beginning);
        let words: Vec<String> = text
            .split(|c: char| c.is_whitespace())
            .map(|word| word.chars().filter(|c| !steers(*c)).collect::<String>())
            .filter(|word| !word.is_empty())
            .collect();
        let line = words.join(" ");
        let is_short = line.chars().count() <= TEXT_CHARS_MAX && beginning.len() == self.body.len() && !self.truncated;
        if is_short {
            return line;
        }
        let mut cut: String = line.chars().take(TEXT_CHARS_MAX - 1).collect();
        cut.push('…');
        cut
    }
}

/// Control characters, and those that turn the direction of writing.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(retry_after: Option<&str>, body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().expect("a header value"));
        }
        let body = Bytes::copy_from_slice(body);
        Answer { status: StatusCode::SERVICE_UNAVAILABLE, headers, body, truncated: false }
    }

    #[test]
    fn retry_after_in_both_forms() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7, is 784111777.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        for (value, secs) in [
            (None, None),
            (Some("120"), Some(120)),
            (Some(" 7 "), Some(7)),
            (Some("0"), Some(0)),
            (Some("99999999999999999999999"), Some(u64::MAX)),
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), Some(60)),
            (Some("Sunday, 06-Nov-94 08:49:37 GMT"), Some(60)),
            (Some("Sun Nov  6 08:49:37 1994"), Some(60)),
            (Some("Sun, 06 Nov 1994 08:48:37 GMT"), Some(0)),
            (Some("Sat, 05 Nov 1994 08:48:37 GMT"), Some(0)),
            (Some("-1"), None),
            (Some("1.5"), None),
            (Some("+5"), None),
            (Some("soon"), None),
            (Some(""), None),
        ] {
            assert_eq!(answer(value, b"").retry_after(now), secs.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn text_is_one_short_harmless_line() {
        for (body, expected) in [
            (&b""[..], ""),
            (b"  busy\r\n\ttry\x00 again\x1b[31m\n", "busy try again[31m"),
            ("nur \u{202e}kurz\u{2028}da".as_bytes(), "nur kurz da"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(answer(None, body).text(), expected);
        }
        for long in ["é".repeat(201), "é".repeat(100_000), "a ".repeat(300)] {
            let text = answer(None, long.as_bytes()).text();
            assert!(text.chars().count() <= 200 && text.ends_with('…'), "{text}");
        }
        assert_eq!(answer(None, "é".repeat(200).as_bytes()).text(), "é".repeat(200));
        assert_eq!(Answer { truncated: true, ..answer(None, b"abc") }.text(), "abc…");
    }
}
