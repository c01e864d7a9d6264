//! The keys of `[outputs.NAME.options]`, and what the schema cannot say of them. Connects nothing.

use std::{collections::BTreeMap, fmt, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use tailwater_sdk::{
    Error,
    http::{HeaderMap, HeaderName, HeaderValue},
    units::{Size, Span},
};

/// Most headers of the operator's own.
const HEADERS_MAX: usize = 64;
/// Longest pause: a week, so that a slip of the pen does not stop an output for years.
const PAUSE_LONGEST: Span = Span::from_secs(7 * 24 * 3600);
/// Largest answer that is worth reading.
const ANSWER_BYTES_LARGEST: Size = Size(16 << 20);

/// Headers that this plugin or HTTP itself sets; those that begin with `webhook-` are, too.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Options of the plugin `webhook`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where each event is sent, with POST. A template over the event, whose expressions may stand in the path and the query:
    /// `https://example.com/orders/{{ fullDocument._id }}`. Their values are percent-encoded; `| safe` switches that off.
    pub url: Masked,
    /// Headers to send along: `{ Authorization = "Bearer …" }`.
    #[serde(default)]
    pub headers: BTreeMap<String, Masked>,
    /// Keys of the signature, each `whsec_` and base64 of 24 to 64 random bytes. With several, each request carries a signature by
    /// each: to change a key, add the new one, have the receiver take it up, then remove the old one. None: not signed.
    #[serde(default)]
    pub secrets: Vec<Masked>,
    /// For the whole exchange: connecting, sending, and reading the answer. Keep it below the output's `timeout`.
    #[serde(default = "defaults::deadline")]
    pub deadline: Span,
    /// A 4xx that is not about load rejects the event when it was answered so this often: receivers answer 404 or 401 while they
    /// are being deployed.
    #[serde(default = "defaults::client_error_tries")]
    pub client_error_tries: u32,
    /// Longest pause that an answer's `Retry-After` can ask for.
    #[serde(default = "defaults::pause_max")]
    pub pause_max: Span,
    /// Pause after a 408, 425, 429, 502, 503 or 504 that does not say how long.
    #[serde(default = "defaults::pause_default")]
    pub pause_default: Span,
    /// Most bytes of an answer's body that are read. Of the body only its beginning is used, in the log.
    #[serde(default = "defaults::answer_bytes_max")]
    pub answer_bytes_max: Size,
}

mod defaults {
    use super::{Size, Span};

    pub fn deadline() -> Span {
        Span::from_secs(15)
    }

    pub fn client_error_tries() -> u32 {
        3
    }

    pub fn pause_max() -> Span {
        Span::from_secs(3600)
    }

    pub fn pause_default() -> Span {
        Span::from_secs(5)
    }

    pub fn answer_bytes_max() -> Size {
        Size(64 << 10)
    }
}

/// Text that may be a secret: never shown.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Masked(pub String);

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

impl Options {
    /// Checks the numbers and durations.
    pub(crate) fn check_limits(&self) -> Result<(), Error> {
        if self.deadline.0 == Duration::ZERO {
            return Err("deadline is 0: write at least \"1ms\"; \"15s\" is usual".into());
        }
        if self.client_error_tries == 0 {
            return Err("client_error_tries is 0: write 1 to reject an event at its first 4xx".into());
        }
        if self.pause_max > PAUSE_LONGEST {
            return Err(format!("pause_max is {}: write at most \"{PAUSE_LONGEST}\"", self.pause_max).into());
        }
        if self.pause_default > self.pause_max {
            let (default, max) = (self.pause_default, self.pause_max);
            return Err(format!("pause_default is {default}, more than pause_max, which is {max}").into());
        }
        if self.answer_bytes_max > ANSWER_BYTES_LARGEST {
            return Err(format!("answer_bytes_max: write at most \"{ANSWER_BYTES_LARGEST}\"").into());
        }
        Ok(())
    }

    /// The operator's headers, ready to be sent.
    pub(crate) fn header_map(&self) -> Result<HeaderMap, Error> {
        if self.headers.len() > HEADERS_MAX {
            return Err(format!("headers has {} entries: at most {HEADERS_MAX}", self.headers.len()).into());
        }
        let mut map = HeaderMap::new();
        for (name, Masked(value)) in &self.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("headers: {name:?} is no name of a header"))?;
            if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("webhook-") {
                return Err(format!("headers: {name} is set by the plugin or by HTTP itself, leave it out").into());
            }
            // The error of the value's type says nothing of the value, and neither does this.
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("headers: the value of {name} has a character that no header may have"))?;
            value.set_sensitive(true);
            if map.insert(parsed, value).is_some() {
                return Err(format!("headers: {name} is there twice, in capitals and not").into());
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use tailwater_sdk::{schemars::schema_for, serde_json::json};

    use super::*;

    #[test]
    fn the_schema_shows_each_default_as_it_would_be_written() {
        let schema = schema_for!(Options);
        let property = |name: &str| schema.as_value()["properties"][name].clone();
        for (name, default) in [
            ("deadline", json!("15s")),
            ("client_error_tries", json!(3)),
            ("pause_max", json!("1h")),
            ("pause_default", json!("5s")),
            ("answer_bytes_max", json!("64KiB")),
        ] {
            assert_eq!(property(name)["default"], default, "{name}");
            assert!(property(name)["description"].is_string(), "{name}");
        }
        assert_eq!(schema.as_value()["required"], json!(["url"]));
        assert_eq!(schema.as_value()["additionalProperties"], json!(false));
    }
}
