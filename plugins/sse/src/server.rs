//! The HTTP side: listens, reads one request per connection and makes it a client of the hub. Everything here is bounded: heads in
//! time and bytes, connections in number, dead peers in time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tailwater_sdk::tokio;
use tailwater_sdk::{Context, Counter, tracing};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::frame;
use crate::hub::{Hub, NoPlace, Wish};
use crate::request::{self, Offer};
use crate::stream::{Answer, Stream};

/// How long a client may take for the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head; hyper allows no less than 8 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Connections that wait to be accepted: a restart brings all clients at once.
const BACKLOG: u32 = 4096;
/// Connections beside those of the clients: requests that are read or refused.
const SPARE_CONNECTIONS: usize = 256;
/// What the kernel may hold for one client. Left to itself it grows to megabytes, and a slow reader would look as one that reads nothing
/// for as long as those last.
const SEND_BUFFER_BYTES: u32 = 128 << 10;
/// A peer that acknowledges nothing for this long, keep-alives included, is gone.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// After an accept that failed: out of file descriptors, which only others can give back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// A client for which there is no place comes back after this many of its `retry` times.
const FULL_RETRIES: u64 = 5;

/// What each connection needs.
pub struct Server {
    hub: Arc<Hub>,
    offer: Offer,
    retry: Duration,
    connections: Arc<Semaphore>,
    accept_failures: Counter,
    /// Told by the hub's owner when no more connections are taken.
    stop: watch::Receiver<bool>,
    context: Context,
}

/// Binds the address.
///
/// # Errors
/// As the system says. An address in use may pass.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // The accepted ones inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// A server of this hub for at most `clients_max` clients.
    pub fn new(
        hub: Arc<Hub>,
        offer: Offer,
        retry: Duration,
        clients_max: usize,
        stop: watch::Receiver<bool>,
        context: Context,
    ) -> Arc<Self> {
        let connections = Arc::new(Semaphore::new(clients_max + SPARE_CONNECTIONS));
        let accept_failures = context.counter("sse_accept_failures_total", "Connections that could not be accepted.");
        Arc::new(Server { hub, offer, retry, connections, accept_failures, stop, context })
    }

    /// Accepts connections until it is told to stop.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut stop = self.stop.clone();
        let mut said = false;
        loop {
            // A place first: what cannot be served waits in the backlog, not in memory.
            let accepted = async {
                let place = Arc::clone(&self.connections).acquire_owned().await;
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match (accepted, place) {
                (Ok((stream, _)), Ok(place)) => {
                    said = false;
                    let server = Arc::clone(&self);
                    self.context.spawn(async move { server.serve(stream, place).await });
                }
                (Err(error), _) => {
                    self.accept_failures.add(1);
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(
                            "accept a connection: {error}; where it is the limit of open files, raise it (LimitNOFILE) or lower \
                             clients_max"
                        );
                    }
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
                // The semaphore is never closed.
                (_, Err(_)) => return,
            }
        }
    }

    async fn serve(&self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        // Both only improve what works without.
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, DEAD_AFTER.as_millis() as u32);
        let cut = Arc::new(Notify::new());
        let answer = service_fn(|request| {
            let answer = self.answer(&request, &cut);
            async { Ok::<_, Infallible>(answer) }
        });
        let mut builder = http1::Builder::new();
        // One request each: what stays open is a stream, everything else is over at once.
        builder
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), answer);
        tokio::select! {
            // An error is a peer that went away or sent no HTTP: nobody's fault here.
            ended = connection => if let Err(error) = ended { tracing::debug!("connection ended: {error}") },
            // Also where the other end reads nothing, so that hyper would not ask for the end of the stream.
            () = cut.notified() => {}
        }
    }

    fn answer(&self, request: &Request<Incoming>, cut: &Arc<Notify>) -> Response<Answer> {
        let wish = request::read(&self.offer, request.method(), request.uri(), request.headers());
        let mut answer = match wish {
            Ok(wish) => self.admit(wish, cut),
            Err(refusal) => *refusal,
        };
        request::allow_origin(&self.offer, request.headers(), answer.headers_mut());
        answer
    }

    fn admit(&self, wish: Wish, cut: &Arc<Notify>) -> Response<Answer> {
        let retry_ms = self.retry.as_millis() as u64;
        // Spread, or all who were cut off together come back together.
        let spread = |ms: u64| rand::random_range(ms / 2..=ms + ms / 2);
        match self.hub.add(wish, frame::hello(spread(retry_ms)), Arc::clone(cut)) {
            Ok(client) => request::stream(Answer::Stream(Stream { hub: Arc::clone(&self.hub), client })),
            // With a 503 a browser's EventSource would give up for good.
            Err(NoPlace::Full) => request::stream(Answer::Text(Some(frame::hello(spread(retry_ms * FULL_RETRIES))))),
            Err(NoPlace::Closed) => request::stream(Answer::Text(Some(frame::hello(spread(retry_ms))))),
        }
    }
}

/// Keeps quiet clients alive and cuts stalled ones off for as long as it runs.
pub async fn sweep(hub: Arc<Hub>, quiet: Duration) {
    // Looked at a few times in each stretch, so that no client waits much longer.
    let pace = (quiet / 8).clamp(Duration::from_millis(100), Duration::from_secs(1));
    let mut ticks = tokio::time::interval(pace);
    loop {
        ticks.tick().await;
        hub.sweep(quiet - pace, Instant::now());
    }
}
