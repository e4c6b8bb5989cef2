//! Bytes to what expressions call `event`.

mod cloud_event;
pub(crate) mod json;
mod looks_like;

use crate::rules::Decode;
pub(crate) use cloud_event::Attributes;
use cloud_event::{Data, is_structured};
use json::JsonError;
use looks_like::looks_like;
use recount_model::Header;
use serde_json::Value;

/// How one flow decodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder {
    pub decode: Decode,
    pub depth_max: usize,
}

/// A decoded payload.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub data: Value,
    /// It holds whole numbers beyond 64 bits, of which `data` has only a rounded form.
    pub rounded: bool,
    /// What a CloudEvent says of itself.
    pub attributes: Option<Attributes>,
}

/// Why a payload can't be decoded: sentences without a byte of it.
#[derive(Debug)]
pub(crate) struct DecodeError {
    /// What is wrong.
    pub error: String,
    /// What the bytes look like.
    pub looks_like: &'static str,
}

impl Decoder {
    /// Decodes, and opens CloudEvents; those of the structured mode add their attributes to `headers`.
    pub fn decode(&self, payload: &[u8], headers: &mut Vec<Header>) -> Result<Decoded, DecodeError> {
        let plain = |error| DecodeError { error, looks_like: "" };
        let binary = cloud_event::from_headers(headers).map_err(plain)?;
        if let Some(attributes) = binary {
            if payload.is_empty() && self.decode == Decode::Json {
                return Ok(Decoded { data: Value::Null, rounded: false, attributes: Some(attributes) });
            }
            let (data, rounded) = self.data(payload)?;
            return Ok(Decoded { data, rounded, attributes: Some(attributes) });
        }
        let (data, rounded) = self.data(payload)?;
        match data {
            Value::Object(fields) if self.decode == Decode::Json && is_structured(&fields) => {
                let opened = cloud_event::open_structured(fields, headers);
                let (attributes, data) = opened.map_err(plain)?;
                let (data, rounded) = match data {
                    Data::Json(data) => (data, rounded),
                    Data::Bytes(bytes) => self.data(&bytes)?,
                };
                Ok(Decoded { data, rounded, attributes: Some(attributes) })
            }
            data => Ok(Decoded { data, rounded, attributes: None }),
        }
    }

    fn data(&self, payload: &[u8]) -> Result<(Value, bool), DecodeError> {
        match self.decode {
            Decode::Json => self.json(payload),
            Decode::Text => match std::str::from_utf8(payload) {
                Ok(text) => Ok((Value::from(text), false)),
                Err(error) => Err(DecodeError {
                    error: format!("it is not UTF-8 from byte {} on", error.valid_up_to()),
                    looks_like: looks_like(payload),
                }),
            },
            Decode::Bytes => {
                let mut fields = serde_json::Map::new();
                fields.insert("bytes".to_owned(), payload.len().into());
                Ok((Value::Object(fields), false))
            }
        }
    }

    fn json(&self, payload: &[u8]) -> Result<(Value, bool), DecodeError> {
        json::parse(payload, self.depth_max).map(|json| (json.value, json.rounded)).map_err(|error| {
            match error {
                JsonError::TooDeep => DecodeError {
                    error: format!(
                        "it is nested deeper than the {} levels that this flow takes",
                        self.depth_max
                    ),
                    looks_like: "",
                },
                JsonError::RepeatedKey { line, column } => DecodeError {
                    error: format!("an object has the same key twice (line {line}, column {column})"),
                    looks_like: "",
                },
                JsonError::Truncated => DecodeError {
                    error: "the JSON ends before it is complete".to_owned(),
                    looks_like: match looks_like(payload) {
                        "it starts like JSON" => "it looks cut off",
                        other => other,
                    },
                },
                JsonError::Syntax { line, column } => DecodeError {
                    error: format!("it is not JSON from line {line}, column {column} on"),
                    looks_like: looks_like(payload),
                },
            }
        })
    }
}
