//! A small HTTP/1.1 client for plugins: one deadline over the whole exchange, a capped answer, no redirects, no proxies.
//! Knows nothing of verdicts: what a status means is the plugin's to say.
//!
//! `https` is rustls with Mozilla's certificate authorities, compiled in: the same on every machine. Heads of answers keep to
//! hyper's limits (100 headers) and to [`HEAD_BYTES_MAX`].

mod answer;
mod connection;
#[cfg(all(test, feature = "testing"))]
mod tests;
#[cfg(all(test, feature = "testing"))]
mod tls_tests;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ::bytes::Bytes;
use ::http::{Extensions, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};

pub use answer::Answer;
use connection::{Connect, Used};

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, uri};

/// Longest head of an answer, give or take one read from the socket; a longer one fails the exchange.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// Longest wait for TCP, shared among the addresses of a name: without it a dead first address would eat the whole deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a [`Client`] keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Most bytes of an answer's body; the rest is not read.
    pub answer_bytes_max: usize,
    /// Most connections kept open without an exchange on them, per host.
    pub idle_connections_max: usize,
    /// A connection without an exchange for this long is closed.
    pub idle_timeout: Duration,
    /// Sent where a request has no `user-agent` of its own.
    pub user_agent: String,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            answer_bytes_max: 64 << 10,
            idle_connections_max: 64,
            // Below the 60 s after which common servers and load balancers close: seldom met half closed.
            idle_timeout: Duration::from_secs(50),
            user_agent: concat!("tailwater/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// An HTTP client with a pool of connections. Clones share the pool.
#[derive(Clone)]
pub struct Client {
    pooled: legacy::Client<HttpsConnector<Connect>, Full<Bytes>>,
    answer_bytes_max: usize,
    user_agent: HeaderValue,
}

/// Why there is no answer. Never contains the request's URL, whose path, query or userinfo may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The deadline passed.
    #[error("{doing}: not done after {} ms", deadline.as_millis())]
    Timeout {
        /// What was being done at the end.
        doing: &'static str,
        /// For the whole exchange.
        deadline: Duration,
    },
    /// No connection: name lookup, TCP or TLS. Nothing of the request was sent.
    #[error("connect: {0}")]
    Connect(String),
    /// The connection broke, or what came was not HTTP. The other side may have taken the request.
    #[error("send the request and read the answer: {0}")]
    Exchange(String),
    /// This request cannot be sent: its URL is not absolute `http` or `https`.
    #[error("make the request: {0}")]
    Request(String),
}

impl HttpError {
    /// True where the other side cannot have seen any of the request.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Request(_))
    }
}

impl Client {
    /// A client without connections. They are made on the runtime that calls [`send`](Self::send).
    pub fn new(settings: ClientSettings) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring offers TLS 1.2 and 1.3")
            .with_webpki_roots()
            .with_no_client_auth();
        Self::with_tls(settings, tls)
    }

    fn with_tls(settings: ClientSettings, tls: rustls::ClientConfig) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connect::new(CONNECT_TIMEOUT));
        let pooled = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_timeout)
            .pool_max_idle_per_host(settings.idle_connections_max)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        // Only a control character in it makes it unfit to be sent.
        let user_agent = HeaderValue::from_str(&settings.user_agent).unwrap_or(HeaderValue::from_static("tailwater"));
        Self { pooled, answer_bytes_max: settings.answer_bytes_max, user_agent }
    }

    /// One exchange: connects where no connection is idle, sends, reads head and body of the answer, all within `deadline`.
    /// A redirect is an answer as any other. Where an idle connection turns out to be closed by the other side, the request is
    /// sent once more, at once and on the same deadline.
    ///
    /// # Errors
    /// No whole answer: see [`HttpError`]. All but [`HttpError::Request`] may pass by themselves.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection. The other side may have taken the request.
    pub async fn send(&self, mut request: Request<Bytes>, deadline: Duration) -> Result<Answer, HttpError> {
        if !matches!(request.uri().scheme_str(), Some("http" | "https")) || request.uri().host().is_none() {
            return Err(HttpError::Request("the URL must be absolute, http or https".to_owned()));
        }
        request.headers_mut().entry(header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        let mut doing = "connect";
        match tokio::time::timeout(deadline, self.exchange(request, &mut doing)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout { doing, deadline }),
        }
    }

    async fn exchange(&self, request: Request<Bytes>, doing: &mut &'static str) -> Result<Answer, HttpError> {
        let (parts, body) = request.into_parts();
        let response = match self.head(&parts, &body, doing).await {
            Err(error) if is_stale(&error) => self.head(&parts, &body, doing).await,
            result => result,
        };
        let response = response.map_err(|error| match error.is_connect() {
            true => HttpError::Connect(causes(&error)),
            false => HttpError::Exchange(causes(&error)),
        })?;
        if let Some(Used(used)) = response.extensions().get() {
            used.store(true, Ordering::Relaxed);
        }
        *doing = "read the answer's body";
        let (head, body) = response.into_parts();
        let (body, truncated) = read(body, self.answer_bytes_max).await?;
        Ok(Answer { status: head.status, headers: head.headers, body, truncated })
    }

    async fn head(
        &self,
        parts: &Parts,
        body: &Bytes,
        doing: &mut &'static str,
    ) -> Result<Response<Incoming>, legacy::Error> {
        *doing = "connect";
        let mut request = Request::from_parts(parts.clone(), Full::new(body.clone()));
        let mut connection = capture_connection(&mut request);
        let mut response = std::pin::pin!(self.pooled.request(request));
        tokio::select! {
            biased;
            response = &mut response => return response,
            _ = connection.wait_for_connection_metadata() => *doing = "wait for the answer",
        }
        response.await
    }
}

/// True where a connection that had served before broke before anything of an answer came: the other side closed it while it
/// was idle. (Where nothing was sent yet, hyper-util has sent it again by itself.)
fn is_stale(error: &legacy::Error) -> bool {
    let mut extensions = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extensions);
    }
    extensions.get::<Used>().is_some_and(|Used(used)| used.load(Ordering::Relaxed)) && broke(error)
}

fn broke(error: &legacy::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_incomplete_message()
        {
            return true;
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset);
        }
        next = error.source();
    }
    false
}

/// At most `bytes_max` of the body, and whether there was more. What is left is dropped with the connection.
async fn read(mut body: Incoming, bytes_max: usize) -> Result<(Bytes, bool), HttpError> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpError::Exchange(causes(&error)))?;
        let Ok(chunk) = frame.into_data() else { continue };
        let room = bytes_max - read.len();
        read.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok((read.into(), true));
        }
    }
    Ok((read.into(), false))
}

/// The innermost cause says what happened; the layers above it only name themselves.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
