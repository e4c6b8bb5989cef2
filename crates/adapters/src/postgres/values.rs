//! Values as PostgreSQL takes them: in its text form, so that the server reads each as the type that the
//! statement wants, and says so where it can't.

use recount_model::Value;
use std::error::Error;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

/// One parameter in text form; none is NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextParam(pub(crate) Option<String>);

impl TextParam {
    /// As the server reads it. A whole number that came as a double (3.0) is written without its fraction:
    /// an integer column takes it, as SQLite's does.
    pub(crate) fn of(value: &Value) -> Self {
        Self(match value {
            Value::Null => None,
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Real(number) if number.is_infinite() => {
                Some(if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned())
            }
            Value::Real(number) => Some(number.to_string()),
            // PostgreSQL holds no zero byte in a text; what it says of it is the event's fault.
            Value::Text(text) => Some(text.to_string()),
            Value::Bytes(bytes) => {
                let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
                Some(std::iter::once("\\x".to_owned()).chain(hex).collect())
            }
        })
    }
}

impl ToSql for TextParam {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match &self.0 {
            None => IsNull::Yes,
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_server_reads_them() {
        for (value, expected) in [
            (Value::Null, None),
            (Value::Bool(true), Some("true")),
            (Value::Integer(-3), Some("-3")),
            (Value::Real(3.0), Some("3")),
            (Value::Real(0.1), Some("0.1")),
            (Value::Real(f64::NEG_INFINITY), Some("-Infinity")),
            (Value::Text("it's".into()), Some("it's")),
            (Value::Bytes(vec![0, 255]), Some("\\x00ff")),
        ] {
            assert_eq!(TextParam::of(&value).0.as_deref(), expected, "{value:?}");
        }
    }
}
