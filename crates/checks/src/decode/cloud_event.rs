//! CloudEvents 1.0: the structured mode (a JSON object with `specversion`) and the binary mode (headers
//! `ce-…` of HTTP, `ce_…` of Kafka), as cloudevents/spec v1.0.2 and its bindings define them.

use recount_model::Header;
use serde_json::{Map, Value};

/// What a CloudEvent says of itself.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub id: Option<Box<str>>,
    pub event_type: Option<Box<str>>,
    pub time: Option<Value>,
}

/// What stands in the payload of a structured CloudEvent.
#[derive(Debug)]
pub(crate) enum Data {
    Json(Value),
    /// From `data_base64`.
    Bytes(Vec<u8>),
}

/// Whether this decoded payload is a structured CloudEvent.
pub(crate) fn is_structured(fields: &Map<String, Value>) -> bool {
    matches!(fields.get("specversion"), Some(Value::String(_)))
}

fn check_version(version: &str) -> Result<(), String> {
    if version == "1.0" || version.starts_with("1.0.") {
        return Ok(());
    }
    Err("it is a CloudEvent of another version than 1.0".to_owned())
}

/// Opens a structured CloudEvent; its attributes other than `data` become headers `ce-…`, so that
/// `meta.headers["ce-subject"]` is the same in both modes.
pub(crate) fn open_structured(
    fields: Map<String, Value>,
    headers: &mut Vec<Header>,
) -> Result<(Attributes, Data), String> {
    let mut attributes = Attributes::default();
    let (mut data, mut base64) = (None, None);
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("data", value) => data = Some(value),
            ("data_base64", Value::String(text)) => base64 = Some(text),
            ("data_base64", _) => return Err("data_base64 of the CloudEvent is not text".to_owned()),
            ("specversion", Value::String(version)) => check_version(&version)?,
            (_, value) => {
                match (name.as_str(), &value) {
                    ("id", Value::String(id)) => attributes.id = Some(id.as_str().into()),
                    ("type", Value::String(event_type)) => {
                        attributes.event_type = Some(event_type.as_str().into());
                    }
                    ("time", value) => attributes.time = Some(value.clone()),
                    _ => {}
                }
                if let Some(value) = attribute_text(value) {
                    headers.push(Header { name: format!("ce-{name}").into(), value });
                }
            }
        }
    }
    let data = match (data, base64) {
        (Some(_), Some(_)) => return Err("the CloudEvent has both data and data_base64".to_owned()),
        (_, Some(text)) => {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_bytes());
            Data::Bytes(bytes.map_err(|_| "data_base64 of the CloudEvent is not base64".to_owned())?)
        }
        (data, None) => Data::Json(data.unwrap_or(Value::Null)),
    };
    Ok((attributes, data))
}

/// Attributes are text, truth values or integers; anything else is left out.
fn attribute_text(value: Value) -> Option<Box<str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(truth) => Some(truth.to_string().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// The attributes of a binary CloudEvent; `None` where the headers have none.
pub(crate) fn from_headers(headers: &[Header]) -> Result<Option<Attributes>, String> {
    let mut attributes = Attributes::default();
    let mut version = None;
    for header in headers {
        let Some(name) = attribute_name(&header.name) else { continue };
        if name.eq_ignore_ascii_case("specversion") {
            version = Some(&*header.value);
        } else if name.eq_ignore_ascii_case("id") {
            attributes.id = Some(unescaped(&header.value));
        } else if name.eq_ignore_ascii_case("type") {
            attributes.event_type = Some(unescaped(&header.value));
        } else if name.eq_ignore_ascii_case("time") {
            attributes.time = Some(Value::String(unescaped(&header.value).into()));
        }
    }
    let Some(version) = version else { return Ok(None) };
    check_version(version)?;
    Ok(Some(attributes))
}

fn attribute_name(header: &str) -> Option<&str> {
    let (prefix, name) = header.split_at_checked(3)?;
    (prefix.eq_ignore_ascii_case("ce-") || prefix.eq_ignore_ascii_case("ce_")).then_some(name)
}

/// HTTP's binding percent-encodes what isn't printable ASCII.
fn unescaped(value: &str) -> Box<str> {
    if !value.contains('%') {
        return value.into();
    }
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| value.get(at + 1..at + 3)).flatten();
        match digits.filter(|d| !d.starts_with('+')).and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or_else(|_| value.into(), Into::into)
}
