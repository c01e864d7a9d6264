//! What an answer, or none, means for the event. Pure.

use std::time::{Duration, SystemTime};

use tailwater_sdk::{
    Verdict,
    http::{Answer, HttpError, StatusCode, Uri, header::LOCATION},
};

use crate::{
    config::{Masked, Options},
    target::shown,
};

/// As much of a failed exchange's answer is looked at for its beginning.
const LOOKED_AT_BYTES_MAX: usize = 16 << 10;
/// A shorter value is no secret, and would blank out half of any text.
const HIDDEN_BYTES_MIN: usize = 6;

/// The operator's say in it.
#[derive(Clone)]
pub(crate) struct Policy {
    client_error_tries: u32,
    pause_max: Duration,
    pause_default: Duration,
    /// What must not show where a receiver repeats it: values of headers and their words, the longest first.
    hidden: Vec<String>,
}

/// What becomes of one event, and of those behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) verdict: Verdict,
    /// The whole output waits this long.
    pub(crate) pause: Option<Duration>,
}

impl From<Verdict> for Ruling {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, pause: None }
    }
}

impl Policy {
    pub(crate) fn new(options: &Options) -> Self {
        let values = options.headers.values().flat_map(|Masked(value)| value.split(' ').chain([value.as_str()]));
        let mut hidden: Vec<String> = values.filter(|text| text.len() >= HIDDEN_BYTES_MIN).map(str::to_owned).collect();
        hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Self {
            client_error_tries: options.client_error_tries,
            pause_max: options.pause_max.0,
            pause_default: options.pause_default.0,
            hidden,
        }
    }

    /// Standard Webhooks 1.0.0: only a 2xx is success, a redirect is not followed, 410 ends it, load makes the output wait.
    /// `tries` says how often the event was answered with a client error, this one included.
    pub(crate) fn of_answer(&self, uri: &Uri, answer: &Answer, tries: u32, now: SystemTime) -> Ruling {
        let status = answer.status;
        if status.is_success() {
            return Verdict::Ack.into();
        }
        let said = self.said(uri, answer);
        // Not without bound, whatever the other side asks for.
        let after = answer.retry_after(now).map(|after| after.min(self.pause_max));
        match status.as_u16() {
            408 | 425 | 429 | 502 | 503 | 504 => {
                let pause = Some(after.unwrap_or(self.pause_default));
                Ruling { verdict: Verdict::retry(said), pause }
            }
            410 => Verdict::fatal(format!(
                "{said}; the receiver wants no more events: put its new address into `url` or remove the output"
            ))
            .into(),
            400..=499 if tries >= self.client_error_tries => Verdict::reject(format!(
                "{said} (client error {tries} of client_error_tries = {})",
                self.client_error_tries
            ))
            .into(),
            300..=399 => Verdict::retry(format!("{said}; redirects are not followed: {}", new_address(answer))).into(),
            // A wait of zero is none: the daemon's backoff then says how long.
            _ => Verdict::Retry { after: after.filter(|after| !after.is_zero()), reason: said }.into(),
        }
    }

    /// Nobody answered.
    pub(crate) fn of_error(&self, uri: &Uri, error: &HttpError) -> Ruling {
        Verdict::retry(format!("POST {}: {error}", shown(uri))).into()
    }

    fn said(&self, uri: &Uri, answer: &Answer) -> String {
        // With the phrase that belongs to the number, where there is one.
        let status = answer.status;
        let phrase = status.canonical_reason().map_or(String::new(), |phrase| format!(" {phrase}"));
        let text = self.beginning(uri, answer);
        let separator = if text.is_empty() { "" } else { ": " };
        format!("POST {} answered {}{phrase}{separator}{text}", shown(uri), status.as_str())
    }

    /// Of the answer's body, for a person. Receivers like to repeat what they did not like: "invalid token abc".
    fn beginning(&self, uri: &Uri, answer: &Answer) -> String {
        let mut text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(LOOKED_AT_BYTES_MAX)]).into_owned();
        let query = uri.query().unwrap_or_default();
        let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        // As `shown` does not show them.
        let of_url = [query].into_iter().chain(values).chain(uri.path().split('/'));
        for hidden in self.hidden.iter().map(String::as_str).chain(of_url.filter(|text| text.len() >= HIDDEN_BYTES_MIN))
        {
            text = text.replace(hidden, "***");
        }
        Answer { body: text.into(), ..answer.clone() }.text()
    }
}

fn new_address(answer: &Answer) -> String {
    let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()?.parse::<Uri>().ok());
    match location {
        Some(uri) if uri.host().is_some() => format!("put the new address, {}, into `url`", shown(&uri)),
        Some(_) => "put the new path into `url`".to_owned(),
        None => "put the new address into `url`".to_owned(),
    }
}

/// What is the request's own fault, and not about load or the end of the endpoint.
pub(crate) fn is_client_error(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 410 | 425 | 429)
}

/// The class of a status as a metric's label.
pub(crate) fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}
