//! What the demo serves: the page, what the page asks for, and the receiver of the webhook.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bson::Bson;
use mongodb::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::daemon::EVENTS_PATH;
use crate::hook::Secret;
use crate::ledger::{Ledger, Output};
use crate::shop;

const PAGE: &str = include_str!("page.html");
/// The one place of the page that is filled in.
const EVENTS_MARK: &str = "EVENTS_URL";

/// What the answers are made of.
pub struct Served {
    /// For the orders so far.
    pub client: Client,
    /// For the counts; requests of the webhook are entered.
    pub ledger: Arc<Ledger>,
    /// What these requests are signed with.
    pub secret: Secret,
    /// What the daemon runs.
    pub config: String,
    /// Where the browser finds the event stream.
    pub events: SocketAddr,
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, served: Served) -> Result<()> {
    let page = PAGE.replace(EVENTS_MARK, &format!("http://{}{EVENTS_PATH}", served.events));
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    let app = Router::new()
        .route("/", get(async move || (html, page)))
        .route("/orders", get(orders))
        .route("/status", get(status))
        .route("/config", get(async |State(served): State<Arc<Served>>| served.config.clone()))
        .route("/hook", post(receive))
        .with_state(Arc::new(served));
    axum::serve(listener, app).await.context("serve the page")
}

/// The state that the events go on from. The page listens first and asks then: an event of an order that the page already has in
/// this version, or a later one, changes nothing.
async fn orders(State(served): State<Arc<Served>>) -> Response {
    match shop::recent(&served.client).await {
        Ok(orders) => {
            let orders = orders.into_iter().map(|order| Bson::Document(order).into_relaxed_extjson());
            as_json(&Value::Array(orders.collect()))
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("read the orders: {error}\n")).into_response(),
    }
}

async fn status(State(served): State<Arc<Served>>) -> Response {
    let received = |output| served.ledger.count(output).received;
    as_json(&json!({
        "written": served.ledger.written(),
        "live": received(Output::Live),
        "lines": received(Output::Lines),
        "hook": received(Output::Hook),
    }))
}

async fn receive(State(served): State<Arc<Served>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    if let Err(error) = served.secret.verify(&headers, &body, SystemTime::now()) {
        return (StatusCode::UNAUTHORIZED, format!("{error}\n"));
    }
    match serde_json::from_slice(&body) {
        Ok(event) => {
            served.ledger.receive(Output::Hook, &event);
            (StatusCode::NO_CONTENT, String::new())
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}\n")),
    }
}

fn as_json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], value.to_string())
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        assert!(PAGE.contains(EVENTS_MARK));
        for elsewhere in ["http://", "https://", "@import", "url("] {
            assert!(!PAGE.contains(elsewhere), "the page works offline, and has {elsewhere}");
        }
    }
}
