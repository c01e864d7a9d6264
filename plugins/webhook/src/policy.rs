//! What an answer, or none, means for the event. Pure.

use std::time::{Duration, SystemTime};

use tailwater_sdk::{
    Verdict,
    http::{Answer, HttpError, StatusCode, Uri, header::LOCATION},
};

use crate::{config::Options, target::shown};

/// The operator's say in it.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    client_error_tries: u32,
    pause_max: Duration,
    pause_default: Duration,
}

/// What becomes of one event, and of those behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) verdict: Verdict,
    /// The whole output waits this long.
    pub(crate) pause: Option<Duration>,
    /// Nothing else is to be sent for now.
    pub(crate) stops: bool,
}

impl From<Verdict> for Ruling {
    fn from(verdict: Verdict) -> Self {
        let stops = matches!(verdict, Verdict::Fatal { .. });
        Self { verdict, pause: None, stops }
    }
}

impl Policy {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            client_error_tries: options.client_error_tries,
            pause_max: options.pause_max.0,
            pause_default: options.pause_default.0,
        }
    }

    /// Standard Webhooks 1.0.0: only a 2xx is success, a redirect is not followed, 410 ends it, load makes the output wait.
    /// `attempt` is the event's, 1 at first.
    pub(crate) fn of_answer(&self, uri: &Uri, answer: &Answer, attempt: u32, now: SystemTime) -> Ruling {
        let status = answer.status;
        if status.is_success() {
            return Verdict::Ack.into();
        }
        let said = said(uri, answer);
        // Not without bound, whatever the other side asks for.
        let after = answer.retry_after(now).map(|after| after.min(self.pause_max));
        match status.as_u16() {
            408 | 425 | 429 | 502 | 503 | 504 => {
                let pause = Some(after.unwrap_or(self.pause_default));
                Ruling { verdict: Verdict::retry(said), pause, stops: true }
            }
            410 => Verdict::fatal(format!(
                "{said}; the receiver wants no more events: put its new address into `url` or remove the output, then resume it"
            ))
            .into(),
            400..=499 if attempt >= self.client_error_tries => {
                Verdict::reject(format!("{said} (handed out {attempt} times, client_error_tries is {})", self.client_error_tries))
                    .into()
            }
            300..=399 => Verdict::retry(format!("{said}; redirects are not followed: {}", new_address(answer))).into(),
            // A wait of zero is none: the daemon's backoff then says how long.
            _ => Verdict::Retry { after: after.filter(|after| !after.is_zero()), reason: said }.into(),
        }
    }

    /// Nobody answered this event, so nobody would answer the next one.
    pub(crate) fn of_error(&self, uri: &Uri, error: &HttpError) -> Ruling {
        Ruling { verdict: Verdict::retry(format!("POST {}: {error}", shown(uri))), pause: None, stops: true }
    }
}

fn said(uri: &Uri, answer: &Answer) -> String {
    // With the phrase that belongs to the number, where there is one.
    let status = answer.status;
    let status =
        status.canonical_reason().map_or(status.as_str().to_owned(), |phrase| format!("{} {phrase}", status.as_str()));
    let text = answer.text();
    let separator = if text.is_empty() { "" } else { ": " };
    format!("POST {} answered {status}{separator}{text}", shown(uri))
}

fn new_address(answer: &Answer) -> String {
    let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()?.parse::<Uri>().ok());
    match location {
        Some(uri) if uri.host().is_some() => format!("put the new address, {}, into `url`", shown(&uri)),
        Some(uri) => format!("put the new address, with the path {}, into `url`", uri.path()),
        None => "put the new address into `url`".to_owned(),
    }
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
