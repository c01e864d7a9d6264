//! What an answer of the server means for the events of its request. Pure.

use std::time::Duration;

/// The longest pause that a server can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The pause where the server says "too many" and no time.
const PAUSE_TOO_MANY: Duration = Duration::from_secs(1);

/// The pause where the app's messages are used up, or the app is switched off: nothing passes soon.
const PAUSE_QUOTA: Duration = Duration::from_secs(5 * 60);

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server will send its events to the subscribers.
    Taken,
    /// Something in it is at fault, always.
    Refused { reason: String },
    /// Passing trouble.
    Retry { reason: String },
    /// Passing trouble that another request would only make worse.
    Pause { after: Duration, reason: String },
    /// No request can succeed.
    Fatal { reason: String },
}

/// Reads an answer. `text` is a short piece of its body, for people.
pub(crate) fn read(status: u16, retry_after: Option<Duration>, text: &str) -> Outcome {
    let says = |hint: &str| {
        let mut reason = format!("the server answered {status}");
        for part in [text, hint].into_iter().filter(|part| !part.is_empty()) {
            reason.push_str(": ");
            reason.push_str(part);
        }
        reason
    };
    // By one page of Pusher's documents a used-up quota is 403, by another 413.
    let quota = status == 413 && text.to_ascii_lowercase().contains("quota");
    match status {
        200..=299 => Outcome::Taken,
        403 | 413 if status == 403 || quota => Outcome::Pause {
            after: PAUSE_QUOTA,
            reason: says("the app is disabled, or over its message quota; see the app's page at Pusher"),
        },
        400 | 413 => Outcome::Refused { reason: says("") },
        401 => Outcome::Fatal {
            reason: says("check key and secret, and this machine's clock: it may be at most 600 s off the server's"),
        },
        408 | 425 | 429 | 500.. => match (retry_after, status) {
            (Some(after), _) => Outcome::Pause { after: after.min(PAUSE_MAX), reason: says("") },
            (None, 429) => Outcome::Pause { after: PAUSE_TOO_MANY, reason: says("") },
            (None, _) => Outcome::Retry { reason: says("") },
        },
        // A maintenance page passes; a wrong address is in the log until somebody reads it. Either way nothing is lost.
        ..400 => Outcome::Retry { reason: says("this is no answer of Pusher's; check cluster, or host, port and tls") },
        _ => Outcome::Fatal { reason: says("check app_id, and cluster or host, port and tls") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_means_what_it_should() {
        let seconds = Duration::from_secs;
        let table = [
            ((200, None, "{}"), "taken"),
            ((202, None, "202 ACCEPTED"), "taken"),
            ((204, Some(9), ""), "taken"),
            ((400, None, "bad"), "refused the server answered 400: bad"),
            ((400, Some(9), ""), "refused the server answered 400"),
            ((413, None, "too large (10240 bytes)"), "refused the server answered 413: too large (10240 bytes)"),
            ((413, None, "Over Quota"), "pause 300 the server answered 413: Over Quota: the app is disabled, or over"),
            ((403, None, ""), "pause 300 the server answered 403: the app is disabled, or over"),
            ((403, Some(1), ""), "pause 300 "),
            (
                (401, None, "bad sign"),
                "fatal the server answered 401: bad sign: check key and secret, and this machine's clock",
            ),
            ((402, None, ""), "fatal the server answered 402: check app_id"),
            ((404, None, "no app"), "fatal the server answered 404: no app: check app_id"),
            ((407, None, ""), "fatal the server answered 407"),
            ((408, None, ""), "retry the server answered 408"),
            ((425, Some(2), ""), "pause 2 the server answered 425"),
            ((429, None, ""), "pause 1 the server answered 429"),
            ((429, Some(0), ""), "pause 0 the server answered 429"),
            ((429, Some(7), "slow"), "pause 7 the server answered 429: slow"),
            ((429, Some(3601), ""), "pause 3600 "),
            ((500, None, "oops"), "retry the server answered 500: oops"),
            ((502, None, ""), "retry the server answered 502"),
            ((503, Some(30), ""), "pause 30 the server answered 503"),
            ((599, None, ""), "retry the server answered 599"),
            ((301, None, ""), "retry the server answered 301: this is no answer of Pusher's"),
        ];
        for ((status, retry_after, text), expected) in table {
            let said = match read(status, retry_after.map(seconds), text) {
                Outcome::Taken => "taken".to_owned(),
                Outcome::Refused { reason } => format!("refused {reason}"),
                Outcome::Retry { reason } => format!("retry {reason}"),
                Outcome::Pause { after, reason } => format!("pause {} {reason}", after.as_secs()),
                Outcome::Fatal { reason } => format!("fatal {reason}"),
            };
            let exact = !expected.starts_with("pause") && !expected.starts_with("fatal") && status != 301;
            assert!(if exact { said == expected } else { said.starts_with(expected) }, "{status}: {said}");
        }
    }
}
