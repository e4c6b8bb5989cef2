//! Evidence (one JSON object) and sentences, without secrets.

use crate::expr::{Expr, FieldPath, Root, Segment};
use crate::secret::Secrets;
use recount_model::Meta;
use serde_json::{Map, Value};
use std::io;

/// A value in evidence, in bytes of JSON.
const VALUE_BYTES_MAX: usize = 200;
/// A value in a sentence, in bytes of JSON.
const SPOKEN_BYTES_MAX: usize = 60;
/// Fields that evidence shows of one expression.
const FIELDS_MAX: usize = 16;
/// Fields that a sentence names.
const SPOKEN_FIELDS_MAX: usize = 4;

/// What was seen where an expression was looked at.
pub(crate) struct Seen<'a> {
    pub data: &'a Value,
    pub rounded: bool,
    pub meta: &'a Meta,
    pub secrets: &'a Secrets,
}

impl Seen<'_> {
    /// The values of the fields that an expression names.
    pub fn fields(&self, exprs: &[&Expr]) -> Map<String, Value> {
        let mut fields = Map::new();
        for path in exprs.iter().flat_map(|expr| &expr.paths) {
            if fields.len() == FIELDS_MAX {
                break;
            }
            let until = path.segments.iter().position(|segment| *segment == Segment::Each);
            let mut shown = path.clone();
            shown.segments.truncate(until.unwrap_or(path.segments.len()));
            let name = shown.to_string();
            // A list that is gone through is shown once; it is hidden if any path through it is secret.
            if self.secrets.hides(path) {
                fields.insert(name, "(secret)".into());
            } else if !fields.contains_key(&name) {
                fields.insert(name, self.value(&shown));
            }
        }
        fields
    }

    fn value(&self, path: &FieldPath) -> Value {
        if self.secrets.hides(path) {
            return "(secret)".into();
        }
        if path.root == Root::Meta {
            return self.meta_value(path);
        }
        let mut value = self.data;
        for segment in &path.segments {
            let next = match segment {
                Segment::Name(name) => value.get(&**name),
                Segment::Index(place) => usize::try_from(*place).ok().and_then(|place| value.get(place)),
                Segment::Each => None,
            };
            match next {
                Some(next) => value = next,
                None => return "(missing)".into(),
            }
        }
        match value.as_f64() {
            Some(double) if self.rounded && value.is_f64() && double.abs() >= 9_223_372_036_854_775_808.0 => {
                "(an integer beyond 64 bits)".into()
            }
            _ => cut(value, VALUE_BYTES_MAX),
        }
    }

    fn meta_value(&self, path: &FieldPath) -> Value {
        let mut names = path.names();
        let text = |text: &Option<Box<str>>| text.as_deref().map_or(Value::Null, Value::from);
        let value = match names.next() {
            Some("id") => text(&self.meta.id),
            Some("key") => text(&self.meta.key),
            Some("type") => text(&self.meta.event_type),
            Some("time") => self.meta.time.map_or(Value::Null, |time| time.to_string().into()),
            Some("partition") => (*self.meta.partition).into(),
            Some("offset") => self.meta.offset.into(),
            Some("taken_at") => self.meta.taken_at.to_string().into(),
            Some("headers") => match names.next() {
                Some(name) => {
                    let header = self.meta.headers.iter().rev().find(|header| &*header.name == name);
                    header.map_or("(missing)".into(), |header| (*header.value).into())
                }
                None => format!("({} headers)", self.meta.headers.len()).into(),
            },
            _ => "(missing)".into(),
        };
        cut(&value, VALUE_BYTES_MAX)
    }
}

/// The value itself, or the beginning of its JSON as text.
fn cut(value: &Value, bytes_max: usize) -> Value {
    match written(value, bytes_max) {
        Ok(_) => value.clone(),
        Err(beginning) => format!("{beginning}…").into(),
    }
}

/// The value's JSON, or its beginning where it is longer than `bytes_max`.
fn written(value: &Value, bytes_max: usize) -> Result<String, String> {
    let mut writer = Bounded { bytes: Vec::with_capacity(bytes_max.min(64)), bytes_max };
    let whole = serde_json::to_writer(&mut writer, value).is_ok();
    let text = match String::from_utf8(writer.bytes) {
        Ok(text) => text,
        Err(error) => {
            let end = error.utf8_error().valid_up_to();
            String::from_utf8_lossy(&error.into_bytes()[..end]).into_owned()
        }
    };
    if whole { Ok(text) } else { Err(text) }
}

struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.bytes_max - self.bytes.len();
        self.bytes.extend_from_slice(&buffer[..buffer.len().min(room)]);
        if buffer.len() > room { Err(io::ErrorKind::WriteZero.into()) } else { Ok(buffer.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `quantity = 0, sku = "77"`: what a sentence says of fields.
pub(crate) fn spoken(fields: &Map<String, Value>) -> String {
    let said = fields.iter().take(SPOKEN_FIELDS_MAX).map(|(name, value)| {
        let name = name.strip_prefix("event.").unwrap_or(name);
        match value.as_str().filter(|text| text.starts_with('(') && text.ends_with(')')) {
            Some("(missing)") => format!("{name} is missing"),
            Some(instead) => format!("{name} = {instead}"),
            None => match written(value, SPOKEN_BYTES_MAX) {
                Ok(value) => format!("{name} = {value}"),
                Err(beginning) => format!("{name} = {beginning}…"),
            },
        }
    });
    said.collect::<Vec<_>>().join(", ")
}

/// One JSON object from its parts.
pub(crate) fn object<const N: usize>(parts: [(&str, Value); N]) -> Box<str> {
    let fields: Map<String, Value> =
        parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Value::Object(fields).to_string().into()
}
