//! From the value of an expression to what is kept or bound.

use crate::compile::MeasureExprs;
use crate::expr::{Scope, Val, identifying_text};
use recount_model::decision::{Measure, PayloadHash};
use recount_model::{Amount, Timestamp, Value};

/// BLAKE3 of id, a zero byte and payload; see [`PayloadHash`].
pub fn payload_hash(id: Option<&str>, payload: &[u8]) -> PayloadHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.unwrap_or_default().as_bytes());
    hasher.update(&[0]);
    hasher.update(payload);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    PayloadHash(u64::from_be_bytes(first))
}

/// RFC 3339 text, or whole Unix milliseconds, within the years -9999 to 9999.
pub(crate) fn instant(value: &Val<'_>) -> Option<Timestamp> {
    let ms = match value {
        Val::Int(ms) => *ms,
        Val::Double(ms) if ms.fract() == 0.0 && ms.abs() < 1e15 => *ms as i64,
        other => {
            return other.text()?.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()));
        }
    };
    jiff::Timestamp::from_millisecond(ms).ok().map(|_| Timestamp(ms))
}

/// What is bound to a statement: integers as integers, doubles as doubles (3.0 stays one, since SQL
/// divides the two differently).
pub(crate) fn parameter(value: &Val<'_>) -> Result<Value, String> {
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(truth) => Value::Bool(*truth),
        Val::Int(int) => Value::Integer(*int),
        Val::UInt(uint) => Value::Integer(i64::try_from(*uint).map_err(|_| {
            "it is an integer beyond the database's 64 bits; bind string(…) of it".to_owned()
        })?),
        Val::Double(double) if double.is_finite() => Value::Real(*double),
        Val::Double(_) => return Err("it is not a finite number".to_owned()),
        other => match other.text() {
            Some(text) => Value::Text(text.into()),
            None => return Err(format!("it gives {}, which can't be bound; bind its parts", other.kind())),
        },
    })
}

/// What an event adds to a reconcile; `None` where that can't be had exactly.
pub(crate) fn measure<'a>(exprs: &'a MeasureExprs, scope: &mut Scope<'a>) -> Option<Measure> {
    let amount = match exprs.sum.evaluate(scope).ok()? {
        Val::Int(int) => Amount::from_integer(int),
        Val::UInt(uint) => Amount::from_nanos(i128::from(uint) * 1_000_000_000),
        Val::Double(double) => Amount::from_float(double)?,
        _ => return None,
    };
    let group = match &exprs.by {
        None => None,
        Some(by) => {
            let value = by.evaluate(scope).ok()?;
            let text = identifying_text(&value).ok()?;
            // A group cut short would be another group.
            if text.len() > crate::flow::ID_BYTES_MAX {
                return None;
            }
            Some((*text).into())
        }
    };
    Some(Measure { amount, group })
}
