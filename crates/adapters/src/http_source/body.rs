//! From a request's body to events.

use super::HttpSettings;
use super::answer::Refusal;
use crate::embedded_log::NewEvent;
use axum::http::{HeaderMap, StatusCode, header};
use recount_model::{Header, Timestamp};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

const STRUCTURED: &str = "application/cloudevents+json";
/// CloudEvents 1.0.2 §3.1: required, and not empty.
const REQUIRED_ATTRIBUTES: [&str; 4] = ["specversion", "id", "source", "type"];

/// The events of a body, in its order.
pub(super) fn events(
    settings: &HttpSettings,
    headers: &HeaderMap,
    kept: &[Header],
    body: &[u8],
    received_at: Timestamp,
) -> Result<Vec<NewEvent>, Box<Refusal>> {
    let content_type = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or(""));
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let event = |payload: &[u8], headers: Vec<Header>| {
        let mut event = NewEvent::new(payload, received_at);
        event.headers = headers;
        event
    };
    match media_type.as_str() {
        STRUCTURED => {
            check_structured(body).map_err(|why| not_a_cloud_event(&why))?;
            Ok(vec![event(body, kept.to_vec())])
        }
        "application/cloudevents-batch+json" => {
            let one_of_batch = with_content_type(kept, STRUCTURED);
            let events: Vec<&RawValue> = serde_json::from_slice(body)
                .map_err(|e| not_json(&format!("the batch is not a JSON array: {e}")))?;
            for (i, one) in events.iter().enumerate() {
                check_structured(one.get().as_bytes())
                    .map_err(|why| not_a_cloud_event(&format!("event {i} of the batch: {why}")))?;
            }
            Ok(events.iter().map(|one| event(one.get().as_bytes(), one_of_batch.clone())).collect())
        }
        other if other.starts_with("application/cloudevents") => Err(unsupported(other)),
        _ if headers.contains_key("ce-specversion") => {
            check_binary(headers)?;
            Ok(vec![event(body, kept.to_vec())])
        }
        "application/json" => {
            check_json(body).map_err(|why| not_json(&format!("the body is not JSON: {why}")))?;
            Ok(vec![event(body, kept.to_vec())])
        }
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            let one_line = with_content_type(kept, "application/json");
            let lines = lines_of_json(body)?;
            Ok(lines.into_iter().map(|line| event(line, one_line.clone())).collect())
        }
        _ if settings.any_content_type => Ok(vec![event(body, kept.to_vec())]),
        other => Err(unsupported(other)),
    }
}

fn unsupported(media_type: &str) -> Box<Refusal> {
    let shown: String = media_type.chars().take(100).collect();
    let what = if shown.is_empty() { "no content type".to_owned() } else { format!("content type {shown}") };
    Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content_type",
        format!(
            "{what} is not understood: send application/json, application/x-ndjson, \
             application/cloudevents+json, application/cloudevents-batch+json, or any with ce- headers"
        ),
    )
}

fn not_json(why: &str) -> Box<Refusal> {
    Refusal::new(StatusCode::BAD_REQUEST, "not_json", format!("{why}; nothing of the request was kept"))
}

fn not_a_cloud_event(why: &str) -> Box<Refusal> {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "not_a_cloud_event",
        format!("{why}; nothing of the request was kept"),
    )
}

fn check_json(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 from byte {}", e.valid_up_to()))?;
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|e| e.to_string())
}

/// A JSON object with the required attributes.
fn check_structured(bytes: &[u8]) -> Result<(), String> {
    let object: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(bytes).map_err(|e| format!("not a JSON object: {e}"))?;
    for name in REQUIRED_ATTRIBUTES {
        let value = object.get(name).ok_or_else(|| format!("the CloudEvent has no {name}: add it"))?;
        let text: Cow<'_, str> = serde_json::from_str::<String>(value.get())
            .map(Cow::from)
            .map_err(|_| format!("the CloudEvent's {name} is not a text"))?;
        check_attribute(name, &text)?;
    }
    Ok(())
}

fn check_binary(headers: &HeaderMap) -> Result<(), Box<Refusal>> {
    for name in REQUIRED_ATTRIBUTES {
        let header = format!("ce-{name}");
        let value = headers.get(&header).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        let checked = match value {
            None => Err(format!("the CloudEvent has no header {header}: add it")),
            Some(value) => check_attribute(name, value.trim()),
        };
        checked.map_err(|why| not_a_cloud_event(&why))?;
    }
    Ok(())
}

fn check_attribute(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("the CloudEvent's {name} is empty"));
    }
    if name == "specversion" && value != "1.0" {
        let shown: String = value.chars().take(20).collect();
        return Err(format!("the CloudEvent's specversion is {shown}, only 1.0 is understood"));
    }
    Ok(())
}

fn lines_of_json(body: &[u8]) -> Result<Vec<&[u8]>, Box<Refusal>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut lines = Vec::new();
    for (i, line) in body.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        check_json(line).map_err(|why| not_json(&format!("line {} is not JSON: {why}", i + 1)))?;
        lines.push(line);
    }
    Ok(lines)
}

fn with_content_type(kept: &[Header], content_type: &str) -> Vec<Header> {
    let others = kept.iter().filter(|h| &*h.name != "content-type").cloned();
    let own = Header { name: "content-type".into(), value: content_type.into() };
    std::iter::once(own).chain(others).collect()
}
