//! `POST /v1/decisions`.

use super::FlowReports;
use super::post::{Post, Rejected};
use super::wire::{Answer, Body, DECISIONS_MAX};
use crate::http_source::answer::Refusal;
use crate::http_source::{Auth, busy, read_body};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use recount_model::Partition;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Posts under way at a time.
const REQUESTS_MAX: usize = 64;
/// What a body looks like, for whoever sent another.
const EXAMPLE: &str = "{\"flow\": \"reserve-stock\", \"partition\": \"0\", \"committed\": 18, \"decisions\": \
                       [{\"offset\": 17, \"verdict\": \"skipped\", \"reason\": \"zero_quantity\"}]}";

/// What the endpoint is made of.
pub struct ReportRouter {
    /// Every flow of the instance by its name; none where it is not in report mode.
    pub flows: BTreeMap<String, Option<Arc<FlowReports>>>,
    /// Who may post.
    pub auth: Auth,
    /// A larger body is refused with 413.
    pub body_bytes_max: usize,
}

struct Shared {
    settings: ReportRouter,
    requests: Semaphore,
}

/// The router of `/v1/decisions`; merge it into the server's. Whether the server may listen at an address is
/// for [`check_listen`](crate::http_source::check_listen) to say.
pub fn router(settings: ReportRouter) -> Router {
    let shared = Arc::new(Shared { settings, requests: Semaphore::new(REQUESTS_MAX) });
    Router::new().route("/v1/decisions", post(receive).fallback(method_not_allowed)).with_state(shared)
}

async fn method_not_allowed(method: Method) -> Response {
    let sentence = format!("{method} is not understood here: use POST");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", sentence).into_response()
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: axum::body::Body) -> Response {
    match take(&shared, &headers, body).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn take(shared: &Shared, headers: &HeaderMap, body: axum::body::Body) -> Result<Answer, Box<Refusal>> {
    let settings = &shared.settings;
    settings.auth.check_before_body(headers)?;
    let _permit = shared.requests.try_acquire().map_err(|_| busy(REQUESTS_MAX))?;
    let bytes = read_body(&settings.auth, headers, body, settings.body_bytes_max).await?;
    let body: Body = serde_json::from_slice(&bytes).map_err(|error| {
        let sentence = format!("the body can't be read: {error}; nothing of it was kept; write: {EXAMPLE}");
        Refusal::new(StatusCode::BAD_REQUEST, "malformed", sentence)
    })?;
    let flow = flow(settings, &body.flow)?;
    if body.decisions.len() > DECISIONS_MAX {
        let sentence = format!(
            "the post holds {} decisions, at most {DECISIONS_MAX} are taken: split it",
            body.decisions.len()
        );
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_decisions", sentence));
    }
    if body.committed.is_some_and(|committed| i64::try_from(committed).is_err()) {
        let sentence = "no source has an offset as large as `committed`; nothing of the post was kept";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "malformed", sentence));
    }
    let partition = body.partition.as_ref().map_or_else(|| "0".to_owned(), super::wire::Name::text);
    let (mut said, mut refused) = (Vec::with_capacity(body.decisions.len()), Vec::new());
    for one in &body.decisions {
        match one.read(&body.flow, &partition) {
            Ok(read) => said.push(read),
            Err(why) => refused.push(why),
        }
    }
    let post = Post { partition: Partition::new(&partition), committed: body.committed, said, refused };
    flow.take(post).await.map_err(|rejected| refusal(&body.flow, &rejected))
}

fn flow<'s>(settings: &'s ReportRouter, name: &str) -> Result<&'s Arc<FlowReports>, Box<Refusal>> {
    match settings.flows.get(name) {
        Some(Some(flow)) => Ok(flow),
        Some(None) => Err(Refusal::new(
            StatusCode::CONFLICT,
            "not_report_mode",
            format!(
                "flow {name} takes no reports: write mode = \"report\" in [flow.{name}], and start again"
            ),
        )),
        None => {
            let reporting = settings.flows.iter().filter(|(_, flow)| flow.is_some());
            let names: Vec<&str> = reporting.map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let shown: String = name.chars().take(64).collect();
            let sentence = format!("this instance runs no flow {shown:?}; flows that take reports: {names}");
            Err(Refusal::new(StatusCode::NOT_FOUND, "no_flow", sentence))
        }
    }
}

fn refusal(flow: &str, rejected: &Rejected) -> Box<Refusal> {
    let (status, code) = match rejected {
        Rejected::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Rejected::NoPartition(_) => (StatusCode::NOT_FOUND, "no_partition"),
        Rejected::Full(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_waiting"),
        Rejected::NotDurable(_) | Rejected::Ledger(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_durable"),
        Rejected::Defect(_) => (StatusCode::INTERNAL_SERVER_ERROR, "defect"),
    };
    let (sentence, for_the_log) = rejected.told(flow);
    if let Some(cause) = for_the_log {
        tracing::error!(target: "recount::report", flow, "a report was refused with {status}: {cause}");
    }
    Refusal::new(status, code, sentence)
}
