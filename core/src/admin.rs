//! What operators and their machines ask over HTTP: `/healthz`, `/readyz`, `/metrics` and the JSON API. Bounded in connections and
//! time.
//!
//! Knows no lanes and no source: it renders a [`Readiness`] and a registry that others fill, and passes commands on.

mod api;
pub mod config;
pub mod metrics;
pub mod ready;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::control::Control;
pub use metrics::SharedRegistry;
pub use ready::{Pending, Readiness};

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// From the first byte of a request to the end of its head, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A whole connection: nobody here has more to ask than this.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What an accept waits after it failed, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Answers under way get this long when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What the server tells. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    /// What `/readyz` renders.
    pub readiness: Readiness,
    /// What `/metrics` renders.
    pub registry: SharedRegistry,
    /// Who carries out what `/api` is asked.
    pub control: Control,
}

/// Serves until `shutdown`, then lets answers under way end, for a second at most.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: impl Future<Output = ()>) {
    let app = router(state);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("accept a connection on admin.listen: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                debug!("a connection of admin.listen ended: {error}");
            }
            drop(place);
        });
    }
    // What has not ended by then has no claim to more.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The place comes first: a connection nobody serves is not taken from the queue.
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .nest("/api", api::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found; there are /healthz /readyz /metrics /api/status\n") })
        .with_state(state)
}

async fn readyz(State(state): State<AdminState>) -> (StatusCode, String) {
    let waiting = state.readiness.waiting();
    if waiting.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines: String = waiting.iter().map(|name| format!("waiting for {name}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

async fn render_metrics(State(state): State<AdminState>) -> Response {
    match state.registry.render() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("render the metrics: {error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::metrics::OutputLabel;
    use super::*;

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_every_path_and_stops() {
        let state = AdminState {
            readiness: Readiness::default(),
            registry: SharedRegistry::default(),
            control: crate::control::control().0,
        };
        let delivered = Family::<OutputLabel, Counter>::default();
        state.registry.with(|registry| registry.register("tailwater_delivered_events", "Delivered", delivered.clone()));
        delivered.get_or_create(&OutputLabel::new("live")).inc_by(3);
        let (source, plugin) = (state.readiness.wait_for("source"), state.readiness.wait_for("plugin of live"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, state, async move { drop(stopped.await) }));

        let health = ask(address, "/healthz").await;
        assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("\r\n\r\nok\n"), "{health}");
        let ready = ask(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.ends_with("\r\n\r\nwaiting for source\nwaiting for plugin of live\n"), "{ready}");
        source.done();
        plugin.done();
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = ask(address, "/metrics").await;
        assert!(metrics.contains(r#"tailwater_delivered_events_total{output="live"} 3"#), "{metrics}");
        let unknown = ask(address, "/nope").await;
        assert!(unknown.starts_with("HTTP/1.1 404") && unknown.contains("/healthz /readyz /metrics"), "{unknown}");

        // A connection that says nothing does not hold up the end.
        let _silent = TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
    }
}
