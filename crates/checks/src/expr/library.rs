//! What our own evaluation doesn't cover, evaluated by the `cel` crate: optional fields, map literals,
//! types and bytes. Only the fields of the event that the expression names are converted.

use super::error::{EvalError, Fault};
use super::eval::Scope;
use super::path::{FieldPath, Root, Segment};
use super::value::{Steps, Val};
use cel::objects::{Key, Map};
use cel::{Context, Env, IdedExpr, Value};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// An expression that the CEL library evaluates.
#[derive(Debug)]
pub(crate) struct Library {
    expr: IdedExpr,
    /// First-level fields of the event that it names; none: the whole event.
    fields: Option<Vec<Box<str>>>,
}

impl Library {
    pub fn new(expr: IdedExpr, paths: &[FieldPath]) -> Self {
        let of_event = paths.iter().filter(|path| path.root == Root::Event);
        let first = |path: &FieldPath| match path.segments.first() {
            Some(Segment::Name(name)) => Some(name.clone()),
            _ => None,
        };
        Self { expr, fields: of_event.map(first).collect() }
    }

    pub fn evaluate<'a>(&'a self, scope: &Scope<'a>) -> Result<Val<'a>, EvalError<'a>> {
        let mut steps = Steps::new();
        let event = match (&self.fields, scope.data) {
            (Some(fields), Json::Object(object)) => {
                let mut kept = HashMap::new();
                for name in fields {
                    if let Some(value) = object.get(&**name) {
                        kept.insert(key(name), converted(value, &mut steps)?);
                    }
                }
                Value::Map(Map { map: Arc::new(kept) })
            }
            _ => converted(scope.data, &mut steps)?,
        };
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.add_variable_from_value("event", event);
        context.add_variable_from_value("meta", meta(scope));
        // The library is not ours: a panic in it must not take the process down for one event.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| context.resolve(&self.expr)));
        match result {
            Ok(Ok(value)) => made(value),
            _ => Err(Fault::Library.into()),
        }
    }
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

/// The library compares integers with doubles after rounding them, so integers beyond 2⁵³ stay out.
fn converted(json: &Json, steps: &mut Steps) -> Result<Value, Fault> {
    steps.take(1)?;
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) if int.unsigned_abs() <= 1 << 53 => Value::Int(int),
            (None, Some(double)) if !number.is_u64() && double.abs() < 9.0e15 => Value::Float(double),
            _ => return Err(Fault::Inexact),
        },
        Json::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(|item| converted(item, steps)).collect();
            Value::List(Arc::new(items?))
        }
        Json::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                map.insert(key(name), converted(value, steps)?);
            }
            Value::Map(Map { map: Arc::new(map) })
        }
    })
}

fn meta(scope: &Scope<'_>) -> Value {
    let meta = scope.meta;
    let text = |text: &Option<Box<str>>| {
        text.as_deref().map_or(Value::Null, |text| Value::String(Arc::new(text.to_owned())))
    };
    let headers = meta.headers.iter().map(|header| (header.name.to_string(), header.value.to_string()));
    let headers: HashMap<String, String> = headers.collect();
    let fields = HashMap::from([
        (key("id"), text(&meta.id)),
        (key("key"), text(&meta.key)),
        (key("type"), text(&meta.event_type)),
        (key("time"), meta.time.map_or(Value::Null, |time| Value::Int(time.0))),
        (key("headers"), headers.into()),
        (key("partition"), Value::String(Arc::new(meta.partition.to_string()))),
        (key("offset"), i64::try_from(meta.offset).map_or(Value::UInt(meta.offset), Value::Int)),
        (key("taken_at"), Value::Int(meta.taken_at.0)),
    ]);
    Value::Map(Map { map: Arc::new(fields) })
}

fn made<'a>(value: Value) -> Result<Val<'a>, EvalError<'a>> {
    Ok(match value {
        Value::Null => Val::Null,
        Value::Bool(truth) => Val::Bool(truth),
        Value::Int(int) => Val::Int(int),
        Value::UInt(uint) => Val::UInt(uint),
        Value::Float(double) => Val::Double(double),
        Value::String(text) => Val::Text(text.as_str().into()),
        _ => return Err(Fault::Library.into()),
    })
}
