//! The output: each event of a batch is one exchange.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use tailwater_sdk::{
    Batch, Context, Counter, DeliverError, Event, Output, StartError, Verdict, Verdicts,
    bytes::Bytes,
    http::{Client, ClientSettings, HeaderMap, HeaderValue, Request, Uri, header::CONTENT_TYPE},
    template::Scope,
    tracing,
};

use crate::{
    config::Options,
    policy::{Policy, Ruling, class, is_client_error},
    signature::Keys,
    target::Target,
    tries::Tries,
};

/// Kept of a batch's timeout for telling the daemon; a tenth, where that is less.
const MARGIN: Duration = Duration::from_millis(500);

/// What the daemon allows as `concurrency`.
const CONCURRENCY_MAX: usize = 1024;

/// Sends each event as a signed POST.
pub struct Webhook {
    client: Client,
    target: Target,
    /// The operator's, and the content type.
    headers: HeaderMap,
    keys: Keys,
    deadline: Duration,
    policy: Policy,
    client_errors: Tries,
    exchanges: Exchanges,
    /// Said once that the output's `timeout` is shorter than `deadline`.
    warned: AtomicBool,
}

/// Counters by what came of an exchange.
struct Exchanges([(&'static str, Counter); 6]);

impl Exchanges {
    fn new(context: &Context) -> Self {
        Self(["2xx", "3xx", "4xx", "5xx", "other", "error"].map(|status| {
            let help = "Requests sent, by the class of the answer's status; error: no answer.";
            (status, context.counter_with("webhook_exchanges_total", help, &[("status", status)]))
        }))
    }

    fn count(&self, status: &str) {
        if let Some((_, counter)) = self.0.iter().find(|(name, _)| *name == status) {
            counter.add(1);
        }
    }
}

impl Output for Webhook {
    type Options = Options;
    const SUMMARY: &'static str = "Sends each event as a POST of its JSON, signed as Standard Webhooks says.";
    const BATCH_EVENTS_MAX: u32 = 1;
    const WANTS_JSON: bool = true;

    fn validate(options: &Options) -> Result<(), tailwater_sdk::Error> {
        options.check_limits()?;
        options.header_map()?;
        Keys::parse(&options.secrets)?;
        Target::compile(&options.url.0)?;
        Ok(())
    }

    async fn start(options: Options, context: Context) -> Result<Self, StartError> {
        let mut headers = options.header_map().map_err(StartError::fatal)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // All of those that any `concurrency` can use at once: one host needs no second limit.
        let idle_connections_max = CONCURRENCY_MAX;
        let answer_bytes_max = usize::try_from(options.answer_bytes_max.0)?;
        Ok(Self {
            client: Client::new(ClientSettings { answer_bytes_max, idle_connections_max, ..ClientSettings::default() }),
            target: Target::compile(&options.url.0).map_err(StartError::fatal)?,
            headers,
            keys: Keys::parse(&options.secrets).map_err(StartError::fatal)?,
            deadline: options.deadline.0,
            policy: Policy::new(&options),
            client_errors: Tries::default(),
            exchanges: Exchanges::new(&context),
            warned: AtomicBool::new(false),
        })
    }

    /// One event after the other, up to the first that is not acknowledged: whatever order the operator has asked for is kept so. What
    /// one who wants them side by side sets is `concurrency`, not a larger batch.
    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let end = self.end(batch.timeout());
        let mut verdicts = Verdicts::new(Verdict::Ack);
        let mut stopped = false;
        for event in batch.iter() {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let ruling = if stopped {
                Verdict::retry("not sent: an event before it in the batch comes first").into()
            } else if left.is_some_and(|left| left.is_zero()) {
                Verdict::retry("not sent: the batch's time was over; lower batch.events_max or raise timeout").into()
            } else {
                self.post(event, left.map_or(self.deadline, |left| left.min(self.deadline))).await
            };
            if ruling.verdict == Verdict::Ack {
                continue;
            }
            stopped = true;
            verdicts.set(&event, ruling.verdict);
            if let Some(pause) = ruling.pause {
                verdicts = verdicts.pause_output(pause);
            }
        }
        if verdicts.is_uniform() { Ok(()) } else { Err(verdicts.into()) }
    }
}

impl Webhook {
    /// When the last exchange of a batch must have ended.
    fn end(&self, timeout: Option<Duration>) -> Option<Instant> {
        let timeout = timeout?;
        let usable = timeout - MARGIN.min(timeout / 10);
        if usable < self.deadline && !self.warned.swap(true, Ordering::Relaxed) {
            let (deadline, timeout) = (self.deadline.as_millis() as u64, timeout.as_millis() as u64);
            tracing::warn!(
                deadline_ms = deadline,
                timeout_ms = timeout,
                "deadline is cut short: it must be less than the output's timeout"
            );
        }
        Some(Instant::now() + usable)
    }

    /// One exchange, signed anew: receivers refuse a timestamp that is more than five minutes old.
    async fn post(&self, event: Event<'_>, deadline: Duration) -> Ruling {
        let (uri, request) = match self.request(event) {
            Ok(made) => made,
            Err(verdict) => return verdict.into(),
        };
        match self.client.send(request, deadline).await {
            Ok(answer) => {
                self.exchanges.count(class(answer.status));
                let tries = if is_client_error(answer.status) { self.client_errors.count(event.id()) } else { 0 };
                let ruling = self.policy.of_answer(&uri, &answer, tries, SystemTime::now());
                if matches!(ruling.verdict, Verdict::Ack | Verdict::Reject { .. }) {
                    self.client_errors.forget(event.id());
                }
                ruling
            }
            Err(error) => {
                self.exchanges.count("error");
                self.policy.of_error(&uri, &error)
            }
        }
    }

    fn request(&self, event: Event<'_>) -> Result<(Uri, Request<Bytes>), Verdict> {
        let uri = self.target.of(&Scope::of(event))?;
        let body = event.json()?;
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = Request::post(uri.clone()).body(Bytes::copy_from_slice(body)).map_err(Verdict::reject)?;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.insert("webhook-id", HeaderValue::from_str(event.id()).map_err(Verdict::reject)?);
        headers.insert("webhook-timestamp", timestamp.into());
        if let Some(signature) = self.keys.sign(event.id(), timestamp, body) {
            headers.insert("webhook-signature", HeaderValue::from_str(&signature).map_err(Verdict::reject)?);
        }
        Ok((uri, request))
    }
}

#[cfg(test)]
mod tests;
