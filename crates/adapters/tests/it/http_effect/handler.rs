//! A handler that answers as it is told and remembers what it was asked.

use crate::flow::*;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use recount_adapters::http_effect::{HandlerReason, HttpEffect, HttpEffectSettings};
use recount_checks::FlowChecks;
use recount_engine::{EffectEvent, OtherwiseVerdict};
use recount_model::ReasonCode;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// One request as it came.
#[derive(Clone)]
pub struct Asked {
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Asked {
    /// Ids of the events in it, in order.
    pub fn ids(&self) -> Vec<&str> {
        self.body["events"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

type Answer = Arc<dyn Fn(usize, &Value) -> Response + Send + Sync>;

#[derive(Clone)]
struct Shared {
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Answer,
}

pub struct Handler {
    pub folder: tempfile::TempDir,
    pub effect: HttpEffect,
    pub checks: FlowChecks,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Handler {
    /// A server that answers each request, given its ordinal and its JSON.
    pub async fn new(answer: impl Fn(usize, &Value) -> Response + Send + Sync + 'static) -> Self {
        Self::with(answer, |_| {}).await
    }

    pub async fn with(
        answer: impl Fn(usize, &Value) -> Response + Send + Sync + 'static,
        change: impl FnOnce(&mut HttpEffectSettings),
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared { asked: Arc::clone(&asked), answer: Arc::new(answer) };
        let app = Router::new().fallback(serve).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/reserve", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let folder = tempfile::tempdir().unwrap();
        let mut settings = HttpEffectSettings::new(url, flow(), folder.path());
        settings.deadline_ms = 2_000;
        let reason = |verdict, because: &str| HandlerReason { verdict, because: because.to_owned() };
        settings.reasons = [
            (ReasonCode::literal("sold_out"), reason(OtherwiseVerdict::Skip, "nothing is left")),
            (ReasonCode::literal("not_yet"), reason(OtherwiseVerdict::Retry, "the shop is closed")),
        ]
        .into();
        change(&mut settings);
        let effect = HttpEffect::open(settings).unwrap();
        Self { folder, effect, checks: checks(&[]), asked }
    }

    /// An event whose key and id are these.
    pub fn event(&self, offset: u64, key: &str) -> EffectEvent {
        let json = json!({ "id": format!("e{offset}"), "key": key, "traceparent": "00-abc-def-01" });
        checked(&self.checks, offset, &json)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn arbiter(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("arbiter.db")).unwrap()
    }
}

async fn serve(State(shared): State<Shared>, request: Request) -> Response {
    let text = |v: &axum::http::HeaderValue| v.to_str().unwrap_or("").to_owned();
    let headers = request.headers().iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let ordinal = {
        let mut asked = shared.asked.lock().unwrap();
        asked.push(Asked { headers, body: body.clone() });
        asked.len() - 1
    };
    tokio::task::spawn_blocking(move || (shared.answer)(ordinal, &body)).await.unwrap()
}

/// 200 with JSON.
pub fn ok(json: &Value) -> Response {
    axum::Json(json).into_response()
}

/// The same verdict for every event that was sent, by position.
pub fn all(body: &Value, verdict: &Value) -> Response {
    let one = |event: &Value| {
        let mut entry = verdict.clone();
        entry["position"] = event["position"].clone();
        entry
    };
    let verdicts: Vec<Value> = body["events"].as_array().unwrap().iter().map(one).collect();
    ok(&json!({ "verdicts": verdicts }))
}
