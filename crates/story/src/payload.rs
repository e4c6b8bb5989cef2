//! What of a kept payload is shown.

use crate::find::SECRET;
use serde_json::Value;

/// At most so much of a payload that isn't JSON is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 4096;

/// A payload, as it may be shown.
#[derive(Debug, Clone, PartialEq)]
pub enum ShownPayload {
    /// JSON, its secret fields masked.
    Json(Value),
    /// Text that isn't JSON.
    Text(String),
    /// Neither: the first bytes, in hexadecimal.
    Bytes(String),
    /// Not shown: the flow has secret fields, and in bytes that aren't JSON they can't be found.
    Hidden,
}

impl ShownPayload {
    /// Masks the fields that `secret` names by paths such as `event.customer_id`; in a CloudEvent, `event`
    /// is its `data`. Array elements are all looked into.
    pub fn of(payload: &[u8], secret: &[String]) -> Self {
        if let Ok(mut json) = serde_json::from_slice::<Value>(payload) {
            for path in secret {
                let path = path.strip_prefix("event").unwrap_or(path);
                let steps: Vec<&str> = path.split(['.', '[', ']']).filter(|step| is_name(step)).collect();
                mask(&mut json, &steps);
                if json.get("specversion").is_some()
                    && let Some(data) = json.get_mut("data")
                {
                    mask(data, &steps);
                }
            }
            return Self::Json(json);
        }
        if !secret.is_empty() {
            return Self::Hidden;
        }
        let shown = &payload[..payload.len().min(SHOWN_BYTES_MAX)];
        match std::str::from_utf8(shown) {
            Ok(text) => Self::Text(text.to_owned()),
            // A character may be cut in two at the very end.
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                Self::Text(String::from_utf8_lossy(&shown[..error.valid_up_to()]).into_owned())
            }
            Err(_) => Self::Bytes(shown.iter().take(256).map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// The JSON form.
    pub fn json(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Text(text) | Self::Bytes(text) => Value::String(text.clone()),
            Self::Hidden => Value::String(SECRET.to_owned()),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Json(value) => serde_json::to_string_pretty(value).unwrap_or_default(),
            Self::Text(text) => text.clone(),
            Self::Bytes(hex) => format!("{hex} (first bytes, hexadecimal)"),
            Self::Hidden => {
                "(not shown: it is not JSON, and the flow has secret fields that can't be found in it)"
                    .to_owned()
            }
        }
    }
}

/// Indices and quotes of a path are passed over.
fn is_name(step: &str) -> bool {
    !step.is_empty() && !step.bytes().all(|byte| byte.is_ascii_digit())
}

fn mask(value: &mut Value, steps: &[&str]) {
    let Some((step, rest)) = steps.split_first() else {
        *value = Value::String(SECRET.to_owned());
        return;
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, steps)),
        Value::Object(fields) => {
            if let Some(field) = fields.get_mut(step.trim_matches(['"', '\''])) {
                mask(field, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_a_path_leads() {
        for (payload, path, expected) in [
            (r#"{"a":1,"b":2}"#, "event.b", r#"{"a":1,"b":"(secret)"}"#),
            (r#"{"a":{"b":2}}"#, "event.a.b", r#"{"a":{"b":"(secret)"}}"#),
            (r#"{"a":[{"b":2},{"b":3}]}"#, "event.a[0].b", r#"{"a":[{"b":"(secret)"},{"b":"(secret)"}]}"#),
            (r#"{"a":1}"#, "event[\"a\"]", r#"{"a":"(secret)"}"#),
            (
                r#"{"specversion":"1.0","data":{"a":1}}"#,
                "event.a",
                r#"{"specversion":"1.0","data":{"a":"(secret)"}}"#,
            ),
            (r#"{"a":1}"#, "event", r#""(secret)""#),
            (r#"{"a":1}"#, "event.missing", r#"{"a":1}"#),
        ] {
            let shown = ShownPayload::of(payload.as_bytes(), &[path.to_owned()]);
            assert_eq!(shown.json().to_string(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_json_is_shown_only_where_nothing_is_secret() {
        assert_eq!(ShownPayload::of(b"not json", &[]), ShownPayload::Text("not json".into()));
        assert_eq!(ShownPayload::of(b"\xff\x00", &[]), ShownPayload::Bytes("ff00".into()));
        assert_eq!(ShownPayload::of(b"not json", &["event.a".into()]), ShownPayload::Hidden);
    }
}
