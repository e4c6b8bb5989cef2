//! Spans as OTLP has them in JSON: `opentelemetry-proto` 1.x, `ExportTraceServiceRequest`, with ids in hexadecimal and
//! 64-bit numbers as text.

use super::span::{Link, Span, Status, Value};
use serde_json::{Value as Json, json};

/// `SPAN_KIND_CONSUMER`.
const CONSUMER: u8 = 5;
const STATUS_OK: u8 = 1;
const STATUS_ERROR: u8 = 2;

/// One request's body.
pub fn body(service: &str, spans: &[Span]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", Value::Text(service.into())),
        ("service.version", Value::Text(version.into())),
        ("service.instance.id", Value::Text(std::process::id().to_string().into())),
    ];
    json!({
        "resourceSpans": [{
            "resource": { "attributes": attributes(&resource) },
            "scopeSpans": [{
                "scope": { "name": "recount", "version": version },
                "spans": spans.iter().map(span).collect::<Vec<_>>(),
            }],
        }],
    })
    .to_string()
    .into_bytes()
}

fn span(span: &Span) -> Json {
    let mut all = attributes(&span.of_flow);
    all.extend(attributes(&span.attributes));
    let status = match &span.status {
        Status::Committed => json!({ "code": STATUS_OK }),
        Status::GivenUp(why) => json!({ "code": STATUS_ERROR, "message": why }),
    };
    json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.span_id),
        "name": &*span.name,
        "kind": CONSUMER,
        "startTimeUnixNano": span.began.as_nanos().to_string(),
        "endTimeUnixNano": span.ended.as_nanos().to_string(),
        "attributes": all,
        "links": span.links.iter().map(link).collect::<Vec<_>>(),
        "droppedLinksCount": span.links_left_out,
        "status": status,
    })
}

fn link(link: &Link) -> Json {
    let offset = i64::try_from(link.offset).unwrap_or(i64::MAX);
    json!({
        "traceId": hex(&link.context.trace_id),
        "spanId": hex(&link.context.span_id),
        "flags": link.context.flags,
        "attributes": attributes(&[("recount.offset", Value::Number(offset))]),
    })
}

fn attributes(attributes: &[(&'static str, Value)]) -> Vec<Json> {
    let value = |value: &Value| match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
    };
    attributes.iter().map(|(key, of)| json!({ "key": key, "value": value(of) })).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many spans the collector did not take although it answered 200 (`partialSuccess`), and why.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let answer: Json = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let spans = &partial["rejectedSpans"];
    let spans = spans.as_u64().or_else(|| spans.as_str()?.parse().ok())?;
    let why = partial["errorMessage"].as_str().unwrap_or("no reason given").to_owned();
    (spans > 0).then_some((spans, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_s_refusals_are_read_as_number_or_text() {
        for (answer, expected) in [
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, Some((3, "too old"))),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, Some((2, "no reason given"))),
            (r#"{"partialSuccess":{}}"#, None),
            (r#"{"partialSuccess":{"rejectedSpans":"0","errorMessage":"a warning"}}"#, None),
            ("{}", None),
            ("", None),
        ] {
            let found = rejected(answer.as_bytes());
            assert_eq!(found.as_ref().map(|(spans, why)| (*spans, why.as_str())), expected, "{answer}");
        }
    }
}
