//! What clients are answered. Versioned: the field `recount` is the version.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use recount_model::FlowName;
use serde::Serialize;
use std::borrow::Cow;
use std::ops::Range;

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Receipts {
    recount: u32,
    receipts: Vec<Receipt>,
}

#[derive(Serialize)]
struct Receipt {
    position: String,
    offset: u64,
}

/// `202` with a receipt for each event.
pub(super) fn receipts(flow: &FlowName, offsets: Range<u64>) -> Response {
    let receipts = offsets.map(|offset| Receipt { position: format!("{flow}/0/{offset}"), offset }).collect();
    (StatusCode::ACCEPTED, Json(Receipts { recount: VERSION, receipts })).into_response()
}

/// Why a request was refused; nothing of it was kept.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    sentence: Cow<'static, str>,
}

impl Refusal {
    /// A stable code, and a sentence that says what to do.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        sentence: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self { status, code, sentence: sentence.into() })
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    recount: u32,
    error: ErrorText<'a>,
}

#[derive(Serialize)]
struct ErrorText<'a> {
    code: &'a str,
    sentence: &'a str,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = ErrorText { code: self.code, sentence: &self.sentence };
        let mut response = (self.status, Json(ErrorBody { recount: VERSION, error })).into_response();
        let extra = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "POST")),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Some((header::RETRY_AFTER, "1"))
            }
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, header::HeaderValue::from_static(value));
        }
        response
    }
}
