//! The HTTP side of a running instance: events in, metrics and health out, and what operators ask of it.

use crate::config::{Config, FlowMode};
use crate::exit::Failure;
use crate::metrics::{FlowMetrics, render_with_spans};
use crate::spans::{SpanCounter, Spans};
use crate::status::{RunningInstance, gather};
use crate::wiring::audit::{AuditOptions, Live, count_again, tell_live};
use crate::wiring::letters::{self, tell_letters};
use crate::wiring::{Listening, Running, RunningFlow, control_token_path, now};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use recount_audit::AuditReport;
use recount_engine::{FlowEnd, FlowHandle};
use recount_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// An audit that health and metrics show is not older than this.
const AUDIT_AGE_MAX: Duration = Duration::from_secs(10);
/// How long requests under way may take at a stop.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The file in the ledger's folder that holds the token of the commands that write.
pub const CONTROL_TOKEN_FILE: &str = "control-token";

/// A server that runs until it is stopped.
pub struct Server {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    control_token: PathBuf,
}

struct Shared {
    config: Arc<Config>,
    flows: Vec<(crate::config::FlowConfig, FlowHandle)>,
    spans: Option<SpanCounter>,
    control_token: String,
    audit: Mutex<Option<(Instant, Arc<AuditReport>)>>,
    /// Held while the answer to a question about the status is counted.
    counting: tokio::sync::Mutex<()>,
    address: String,
    since: Timestamp,
}

/// What an operator says with a pause or a resume.
#[derive(Debug, Serialize, Deserialize)]
pub struct Operation {
    /// Who.
    pub by: String,
    /// Why.
    pub because: String,
}

impl Server {
    /// Serves the flows' routes, metrics, health and the commands that write.
    pub async fn start(
        config: &Config,
        running: &mut Running,
        listening: Listening,
    ) -> Result<Self, Failure> {
        let flows =
            running.flows.iter().map(|RunningFlow { config, handle }| (config.clone(), handle.clone()));
        let shared = Arc::new(Shared {
            config: Arc::new(config.clone()),
            flows: flows.collect(),
            spans: running.spans.as_ref().map(Spans::counter),
            control_token: listening.control_token,
            audit: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
            address: format!("http://{}", listening.address),
            since: now(),
        });
        let mut router = Router::new()
            .route("/metrics", get(metrics))
            .route("/health/running", get(running_health))
            .route("/health/working", get(working_health))
            .route("/v1/status", get(status))
            .route("/v1/flows/{flow}/pause", post(pause))
            .route("/v1/flows/{flow}/resume", post(resume))
            .route("/v1/flows/{flow}/replay", post(crate::replaying::serve))
            .with_state(Control(Arc::clone(&shared)));
        for route in running.routes.drain(..) {
            router = router.merge(route);
        }
        let (stop, mut stopped) = watch::channel(false);
        let listener = tokio::net::TcpListener::from_std(listening.listener).map_err(Failure::unreachable)?;
        let address = listener.local_addr().map_err(Failure::unreachable)?;
        tracing::info!("listens at http://{address}: /health/working, /metrics");
        for RunningFlow { config, .. } in
            running.flows.iter().filter(|flow| flow.config.mode == FlowMode::Report)
        {
            tracing::info!(flow = %config.spec.flow, "waits for the consumer's verdicts: POST http://{address}/v1/decisions");
        }
        let task = tokio::spawn(async move {
            let asked = async move {
                // The sender is dropped only after it asked.
                drop(stopped.wait_for(|stop| *stop).await);
            };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(asked).await {
                tracing::error!("the server ended: {error}");
            }
        });
        Ok(Self { stop, task, control_token: control_token_path(config) })
    }

    /// Stops taking requests; those under way may finish.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_MAX, self.task).await.is_err() {
            tracing::warn!("requests were still under way when the server stopped");
        }
        if let Err(error) = std::fs::remove_file(&self.control_token) {
            tracing::debug!("the control token stays behind, and is good for nothing: {error}");
        }
    }
}

/// What handlers share.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

impl Control {
    /// The flow of this name, if the request shows the control token; else the answer.
    #[allow(clippy::result_large_err)] // The error is the response itself.
    pub fn flow(&self, name: &str, headers: &HeaderMap) -> Result<FlowHandle, Response> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let expected = format!("Bearer {}", self.0.control_token);
        if !given.is_some_and(|given| same(given.as_bytes(), expected.as_bytes())) {
            let sentence = "this needs the control token, which lies in the ledger's folder";
            return Err(refusal(StatusCode::UNAUTHORIZED, sentence));
        }
        let flow = self.0.flows.iter().find(|(config, _)| config.spec.flow.as_str() == name);
        let no_such = || refusal(StatusCode::NOT_FOUND, &format!("this instance runs no flow {name}"));
        flow.map(|(_, handle)| handle.clone()).ok_or_else(no_such)
    }

    /// The config that the instance runs.
    pub fn config(&self) -> &Arc<Config> {
        &self.0.config
    }

    /// How each flow stands now.
    fn live(&self) -> Vec<Live> {
        let live = |(config, handle): &(crate::config::FlowConfig, FlowHandle)| Live {
            flow: config.spec.flow.clone(),
            counts: handle.stats(),
            ended: handle.ended(),
        };
        self.0.flows.iter().map(live).collect()
    }

    /// An audit that is at most a few seconds old; counted, not identified.
    async fn audit(&self) -> Option<Arc<AuditReport>> {
        if let Some(report) = self.recent_audit() {
            return Some(report);
        }
        let shared = Arc::clone(&self.0);
        let counted = tokio::task::spawn_blocking(move || {
            let report = count_again(&shared.config, &[], AuditOptions { identified: false, names_max: 5 });
            report.map(Arc::new)
        });
        match counted.await {
            Ok(Ok(report)) => {
                let mut kept = self.0.audit.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((Instant::now(), Arc::clone(&report)));
                Some(report)
            }
            Ok(Err(failure)) => {
                tracing::error!("the audit could not be made: {}", failure.message);
                None
            }
            Err(error) => {
                tracing::error!("the audit failed, which is a defect of the program: {error}");
                None
            }
        }
    }

    fn recent_audit(&self) -> Option<Arc<AuditReport>> {
        let kept = self.0.audit.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, report) = kept.as_ref()?;
        (at.elapsed() < AUDIT_AGE_MAX).then(|| Arc::clone(report))
    }
}

/// Compares without telling by its time where the first difference is.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let differs = given.iter().zip(expected).fold(0, |differs, (a, b)| differs | (a ^ b));
    given.len() == expected.len() && differs == 0
}

/// An error as every route of this server gives it.
pub fn refusal(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "recount": 1, "error": sentence }))).into_response()
}

async fn metrics(State(control): State<Control>) -> Response {
    let report = control.audit().await;
    let metrics: Vec<FlowMetrics<'_>> = control
        .0
        .flows
        .iter()
        .map(|(config, handle)| {
            let audited = report.as_ref().and_then(|r| r.flows.iter().find(|f| f.flow == config.spec.flow));
            FlowMetrics {
                config,
                counts: handle.stats(),
                books: audited.map(crate::metrics::book_metrics).unwrap_or_default(),
                group: audited.and_then(crate::metrics::group_metric),
                book_counts: audited.map(|flow| flow.books.counts),
                audit_completed_s: report.as_ref().map(|report| report.at.0 / 1000),
                letters: letters::standing(&control.0.config, config).ok().flatten(),
            }
        })
        .collect();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, kind)],
        render_with_spans(&metrics, control.0.spans.as_ref().map(SpanCounter::counts)),
    )
        .into_response()
}

/// For liveness probes: the process answers, and no flow has stopped for good.
async fn running_health(State(control): State<Control>) -> Response {
    let stopped: Vec<String> = control
        .0
        .flows
        .iter()
        .filter_map(|(config, handle)| match handle.ended() {
            Some(FlowEnd::Stopped(stops)) => {
                let sentences: Vec<_> = stops.iter().map(ToString::to_string).collect();
                Some(format!("flow {} stopped: {}", config.spec.flow, sentences.join("; ")))
            }
            _ => None,
        })
        .collect();
    let status = if stopped.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "recount": 1, "running": stopped.is_empty(), "sentences": stopped })))
        .into_response()
}

/// For people and alerts: whether the books balance and effects happen. Not for a liveness probe.
async fn working_health(State(control): State<Control>) -> Response {
    let Some(report) = control.audit().await else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the books can't be counted; the log says why");
    };
    let mut report = AuditReport::clone(&report);
    tell_live(&mut report, &control.live());
    if let Err(failure) = tell_letters(&control.0.config, &mut report) {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &failure.message);
    }
    let works = |flow: &recount_audit::FlowReport| flow.working() == Some(true);
    let working = report.ledger_error.is_none() && report.flows.iter().all(works);
    let flows: Vec<_> = report
        .flows
        .iter()
        .map(|flow| {
            let sentences: Vec<&String> = flow.not_working.iter().chain(&flow.not_known).collect();
            json!({
                "flow": flow.flow.as_str(),
                "working": works(flow),
                "status": flow.status().word(),
                "shares": recount_audit::render::shares(&flow.books),
                "sentences": sentences,
            })
        })
        .collect();
    let status = if working { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "recount": 1, "working": working, "flows": flows }))).into_response()
}

/// What `recount status` shows. Counted anew for each question, one at a time.
async fn status(State(control): State<Control>) -> Response {
    let _one_at_a_time = control.0.counting.lock().await;
    let instance =
        RunningInstance { address: control.0.address.clone(), since: control.0.since, flows: control.live() };
    let config = Arc::clone(&control.0.config);
    match tokio::task::spawn_blocking(move || gather(&config, Some(&instance))).await {
        Ok(Ok(status)) => Json(status).into_response(),
        Ok(Err(failure)) => refusal(StatusCode::SERVICE_UNAVAILABLE, &failure.message),
        Err(error) => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, &format!("a defect of the program: {error}"))
        }
    }
}

fn no_because() -> Response {
    refusal(StatusCode::BAD_REQUEST, "\"because\" is empty: say why, it is recorded")
}

async fn pause(
    State(control): State<Control>,
    Path(flow): Path<String>,
    headers: HeaderMap,
    Json(operation): Json<Operation>,
) -> Response {
    match control.flow(&flow, &headers) {
        Err(refusal) => refusal,
        Ok(_) if operation.because.trim().is_empty() => no_because(),
        Ok(handle) => match handle.pause(&operation.by, &operation.because).await {
            Ok(()) => Json(json!({ "recount": 1, "flow": flow, "paused": true })).into_response(),
            Err(error) => {
                let sentence = format!(
                    "flow {flow} is paused, but that could not be recorded, so a restart won't heed it: {error}"
                );
                refusal(StatusCode::INTERNAL_SERVER_ERROR, &sentence)
            }
        },
    }
}

async fn resume(
    State(control): State<Control>,
    Path(flow): Path<String>,
    headers: HeaderMap,
    Json(operation): Json<Operation>,
) -> Response {
    match control.flow(&flow, &headers) {
        Err(refusal) => refusal,
        Ok(_) if operation.because.trim().is_empty() => no_because(),
        Ok(handle) => match handle.resume(&operation.by, &operation.because).await {
            Ok(()) => Json(json!({ "recount": 1, "flow": flow, "paused": false })).into_response(),
            Err(error) => {
                let sentence = format!("flow {flow} is as it was: that could not be recorded: {error}");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, &sentence)
            }
        },
    }
}
