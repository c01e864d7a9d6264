//! The JSON API of the admin port: commands to the running daemon, `{"error": "…"}` where one is refused. Knows no lanes; it asks
//! [`crate::control`].
//!
//! A page in somebody's browser can reach 127.0.0.1 too. So a request that a browser made for a page (it has an `Origin`), and one
//! for another host name than an address or `localhost` (DNS rebinding), is refused, and whatever changes something must carry
//! JSON, which a form cannot.

use std::net::IpAddr;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::AdminState;
use crate::control::{Command, Letters, Refusal, Target};
use crate::dead_letters::{Chosen, Filter, LetterKey, Selection};

/// A request's body: a selection of a few thousand ids.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// The routes below `/api`.
pub(super) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/status", get(status))
        .route("/checkpoints", get(checkpoints))
        .route("/outputs/{output}/pause", post(pause))
        .route("/outputs/{output}/resume", post(resume))
        .route("/outputs/{output}/checkpoint/set", post(set_checkpoint))
        .route("/outputs/{output}/checkpoint/reset", post(reset_checkpoint))
        .route("/outputs/{output}/snapshot", post(snapshot))
        .route("/dead-letters", get(list_letters))
        .route("/dead-letters/{output}/{id}", get(show_letter))
        .route("/dead-letters/replay", post(replay_letters))
        .route("/dead-letters/replay/{job}", get(replay_job))
        .route("/dead-letters/drop", post(drop_letters))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is no such path under /api") })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(refuse_browsers))
}

/// See the top of this file.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if headers.contains_key(header::ORIGIN) {
        return failure(StatusCode::FORBIDDEN, "requests of web pages are not answered here");
    }
    if !is_own_name(host) {
        return failure(StatusCode::FORBIDDEN, "ask by IP address or as localhost");
    }
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if request.method() == axum::http::Method::POST && !is_json {
        return failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON, with content-type: application/json");
    }
    next.run(request).await
}

/// An IP address or `localhost`, with or without a port.
fn is_own_name(host: &str) -> bool {
    if host.parse::<std::net::SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || bare.is_some_and(|bare| bare.parse::<IpAddr>().is_ok())
}

async fn ask(state: AdminState, command: Command) -> Response {
    match state.control.ask(command).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => {
            let status = match refusal {
                Refusal::NotFound(_) => StatusCode::NOT_FOUND,
                Refusal::Conflict(_) => StatusCode::CONFLICT,
                Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            failure(status, &refusal.to_string())
        }
    }
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn status(State(state): State<AdminState>) -> Response {
    ask(state, Command::Status).await
}

async fn checkpoints(State(state): State<AdminState>) -> Response {
    ask(state, Command::Checkpoints).await
}

async fn pause(State(state): State<AdminState>, Path(output): Path<String>) -> Response {
    ask(state, Command::Pause { output }).await
}

async fn resume(State(state): State<AdminState>, Path(output): Path<String>) -> Response {
    ask(state, Command::Resume { output }).await
}

async fn reset_checkpoint(State(state): State<AdminState>, Path(output): Path<String>) -> Response {
    ask(state, Command::ResetCheckpoint { output }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetCheckpoint {
    to: String,
}

async fn set_checkpoint(
    State(state): State<AdminState>,
    Path(output): Path<String>,
    body: Result<Json<SetCheckpoint>, JsonRejection>,
) -> Response {
    let Json(body) = match body {
        Ok(body) => body,
        Err(rejection) => return failure(rejection.status(), &rejection.body_text()),
    };
    match body.to.parse::<Target>() {
        Ok(to) => ask(state, Command::SetCheckpoint { output, to }).await,
        Err(error) => failure(StatusCode::BAD_REQUEST, &error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Collections {
    #[serde(default)]
    collections: Vec<String>,
}

async fn snapshot(
    State(state): State<AdminState>,
    Path(output): Path<String>,
    body: Result<Json<Collections>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(Collections { collections })) => ask(state, Command::Snapshot { output, collections }).await,
        Err(rejection) => failure(rejection.status(), &rejection.body_text()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    output: Option<String>,
    after: Option<String>,
    #[serde(default)]
    limit: usize,
}

async fn list_letters(State(state): State<AdminState>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return failure(rejection.status(), &rejection.body_text()),
    };
    let after = match query.after.map(|after| after.parse::<LetterKey>()).transpose() {
        Ok(after) => after,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    ask(state, Command::DeadLetters(Letters::List(Filter { output: query.output, after, limit: query.limit }))).await
}

async fn show_letter(State(state): State<AdminState>, Path((output, id)): Path<(String, String)>) -> Response {
    match format!("{output}/{id}").parse::<LetterKey>() {
        Ok(key) => ask(state, Command::DeadLetters(Letters::Show(key))).await,
        Err(error) => failure(StatusCode::BAD_REQUEST, &error),
    }
}

async fn replay_job(State(state): State<AdminState>, Path(job): Path<u64>) -> Response {
    ask(state, Command::DeadLetters(Letters::Job(job))).await
}

async fn letters(
    state: AdminState,
    selection: Result<Json<Selection>, JsonRejection>,
    command: fn(Chosen) -> Letters,
) -> Response {
    let Json(selection) = match selection {
        Ok(selection) => selection,
        Err(rejection) => return failure(rejection.status(), &rejection.body_text()),
    };
    match selection.check() {
        Ok(chosen) => ask(state, Command::DeadLetters(command(chosen))).await,
        Err(error) => failure(StatusCode::BAD_REQUEST, &error),
    }
}

async fn replay_letters(
    State(state): State<AdminState>,
    selection: Result<Json<Selection>, JsonRejection>,
) -> Response {
    letters(state, selection, Letters::Replay).await
}

async fn drop_letters(State(state): State<AdminState>, selection: Result<Json<Selection>, JsonRejection>) -> Response {
    letters(state, selection, Letters::Drop).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_else_could_own_is_not_ours() {
        for host in ["127.0.0.1:8081", "127.0.0.1", "localhost", "localhost:8081", "[::1]:8081", "[::1]", "10.0.0.7:80"]
        {
            assert!(is_own_name(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example:8081"] {
            assert!(!is_own_name(host), "{host}");
        }
    }
}
