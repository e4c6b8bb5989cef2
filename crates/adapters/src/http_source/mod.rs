//! Events over HTTP: `source = { http = "/orders" }`.
//!
//! A `POST` answers `202` once each of its events is durable in the embedded log, with a receipt that names
//! their positions. All events of one request are appended together or not at all.
//!
//! Understood: CloudEvents 1.0 structured (`application/cloudevents+json`), batched
//! (`application/cloudevents-batch+json`, split into single events) and binary (`ce-*` headers, kept beside
//! the body as they came), plain JSON (`application/json`, one value) and lines of JSON
//! (`application/x-ndjson`, an event each; blank lines are left out).
//!
//! The receipt of a repeated `POST` names a new position: it is the flow's search for duplicates, by the
//! event's id, that applies it once.

pub(crate) mod answer;
mod auth;
mod body;

pub use auth::{Auth, SIGNATURE_HEADER, Secret, check_listen};

use crate::embedded_log::{EmbeddedLog, LogError};
use answer::Refusal;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use recount_model::{FlowName, Header, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Headers kept unless the settings name more; and every `ce-…`.
const KEPT_HEADERS: &[&str] = &["content-type", "traceparent", "tracestate"];
/// Headers that are never kept, whatever the settings say.
const SECRET_HEADERS: &[&str] =
    &["authorization", "proxy-authorization", "cookie", "set-cookie", SIGNATURE_HEADER];

/// What an HTTP source is made of.
#[derive(Clone)]
pub struct HttpSettings {
    /// The flow, for the positions in receipts.
    pub flow: FlowName,
    /// The path, beginning with a slash.
    pub path: String,
    /// Who may post.
    pub auth: Auth,
    /// A larger body is refused with 413.
    pub body_bytes_max: usize,
    /// More events in one request are refused with 413.
    pub events_max: usize,
    /// More requests at a time are refused with 503.
    pub requests_max: usize,
    /// Further headers to keep.
    pub keep_headers: Vec<String>,
    /// Takes a body of any other content type as one event, for flows that decode text or bytes.
    pub any_content_type: bool,
    /// The time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl HttpSettings {
    /// A mebibyte a body, 1,000 events a request, 256 requests at a time, nobody has to prove who they are.
    pub fn new(
        flow: FlowName,
        path: impl Into<String>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Self {
        Self {
            flow,
            path: path.into(),
            auth: Auth::None,
            body_bytes_max: 1 << 20,
            events_max: 1000,
            requests_max: 256,
            keep_headers: Vec::new(),
            any_content_type: false,
            clock,
        }
    }
}

struct Shared {
    settings: HttpSettings,
    kept_headers: Vec<HeaderName>,
    requests: Semaphore,
    log: EmbeddedLog,
}

/// The router that takes events for one flow; merge it into the server's. Whether the server may listen at
/// an address is for [`check_listen`] to say. Fails with a sentence where a setting can't be meant.
pub fn router(settings: HttpSettings, log: EmbeddedLog) -> Result<Router, String> {
    if !settings.path.starts_with('/') || settings.path.contains(['{', '}', '?', '#', ' ']) {
        return Err(format!(
            "source http path {:?}: write a plain path that begins with a slash, such as /orders",
            settings.path
        ));
    }
    let mut kept_headers: Vec<HeaderName> =
        KEPT_HEADERS.iter().map(|name| HeaderName::from_static(name)).collect();
    for name in &settings.keep_headers {
        let header = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("keep_headers: {name:?} is not the name of a header"))?;
        if SECRET_HEADERS.contains(&header.as_str()) {
            return Err(format!("keep_headers: {name} carries a secret and is never kept: leave it out"));
        }
        kept_headers.push(header);
    }
    let path = settings.path.clone();
    let requests = Semaphore::new(settings.requests_max);
    let shared = Arc::new(Shared { settings, kept_headers, requests, log });
    Ok(Router::new().route(&path, post(receive).fallback(method_not_allowed)).with_state(shared))
}

async fn method_not_allowed(method: Method) -> Response {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method",
        format!("{method} is not understood here: use POST"),
    )
    .into_response()
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    match take(&shared, &headers, body).await {
        Ok(offsets) => answer::receipts(&shared.settings.flow, offsets),
        Err(refusal) => refusal.into_response(),
    }
}

async fn take(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<std::ops::Range<u64>, Box<Refusal>> {
    let settings = &shared.settings;
    settings.auth.check_before_body(headers)?;
    let _permit = shared.requests.try_acquire().map_err(|_| busy(settings.requests_max))?;
    let body = read_body(&settings.auth, headers, body, settings.body_bytes_max).await?;
    let kept = kept_headers(&shared.kept_headers, headers)?;
    let events = body::events(settings, headers, &kept, &body, (settings.clock)())?;
    let count = events.len();
    if count > settings.events_max {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_many_events",
            format!("the body holds {count} events, at most {} are taken: split it", settings.events_max),
        ));
    }
    if events.is_empty() {
        return Ok(0..0);
    }
    shared.log.append(events).await.map_err(|e| log_error(&e))
}

/// As many requests are under way as may be.
pub(crate) fn busy(requests_max: usize) -> Box<Refusal> {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        format!("{requests_max} requests are under way, as many as may be: try again later"),
    )
}

/// The whole body, bounded in time and size, of somebody who may post it. What can be said of the headers
/// alone is said before the body is read.
pub(crate) async fn read_body(
    auth: &Auth,
    headers: &HeaderMap,
    body: Body,
    body_bytes_max: usize,
) -> Result<Bytes, Box<Refusal>> {
    auth.check_before_body(headers)?;
    let body = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, body_bytes_max))
        .await
        .map_err(|_| {
            let seconds = BODY_TIMEOUT.as_secs();
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", format!("the body took over {seconds} s"))
        })?
        .map_err(|e| body_error(&e, body_bytes_max))?;
    auth.check_body(headers, &body)?;
    Ok(body)
}

fn body_error(e: &axum::Error, body_bytes_max: usize) -> Box<Refusal> {
    let mut cause: Option<&dyn std::error::Error> = Some(e);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!(
                    "the body is larger than {body_bytes_max} bytes: split it, or raise body_max under [server]"
                ),
            );
        }
        cause = error.source();
    }
    Refusal::new(StatusCode::BAD_REQUEST, "body_broken", "the body ended early: send it again")
}

/// The path of the log and what SQLite says are for the log file, not for clients.
fn log_error(e: &LogError) -> Box<Refusal> {
    tracing::error!("an event was refused with 503: {e}");
    let sentence = match e {
        LogError::Busy { .. } => "too many events wait to be made durable: try again later",
        _ => {
            "the event could not be made durable and was not kept: try again later; the instance's log \
              says more"
        }
    };
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_durable", sentence)
}

fn kept_headers(kept: &[HeaderName], headers: &HeaderMap) -> Result<Vec<Header>, Box<Refusal>> {
    let mut found = Vec::new();
    for (name, value) in headers {
        if !(kept.contains(name) || name.as_str().starts_with("ce-")) {
            continue;
        }
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
            let sentence = format!("header {name} is not text in UTF-8: percent-encode it");
            Refusal::new(StatusCode::BAD_REQUEST, "header_not_text", sentence)
        })?;
        found.push(Header { name: name.as_str().into(), value: value.into() });
    }
    Ok(found)
}
