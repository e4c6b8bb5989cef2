//! Whether a field that an expression names is one that a JSON Schema knows.

use crate::expr::{FieldPath, Segment};
use serde_json::Value;

/// References followed on the way to one field; more are taken as unknown.
const REFERENCES_MAX: usize = 32;

/// Whether a schema knows the field at `path` (as [`fields_named`](crate::fields_named) writes it).
///
/// `Some(true)`: it is declared. `Some(false)`: the schema declares other fields there but not this one,
/// so an expression that names it is probably misspelt. `None`: the schema doesn't say (no `properties`,
/// patterns, references outside of the document), or the text is not a path.
pub fn path_in_schema(schema: &Value, path: &str) -> Option<bool> {
    let path = FieldPath::parse(path)?;
    Lookup { root: schema, references_left: REFERENCES_MAX }.knows(schema, &path.segments)
}

struct Lookup<'s> {
    root: &'s Value,
    references_left: usize,
}

impl<'s> Lookup<'s> {
    fn knows(&mut self, schema: &'s Value, segments: &[Segment]) -> Option<bool> {
        let Some((segment, rest)) = segments.split_first() else { return Some(true) };
        let Value::Object(keywords) = schema else { return None };
        let mut answers = vec![match segment {
            Segment::Name(name) => self.field(schema, name, rest),
            Segment::Index(_) | Segment::Each => self.item(schema, segment, rest),
        }];
        if let Some(Value::String(reference)) = keywords.get("$ref") {
            answers.push(match self.referenced(reference) {
                Some(referenced) => Answer::of(self.knows(referenced, segments)),
                None => Answer::Unknown,
            });
        }
        for applicator in ["allOf", "anyOf", "oneOf"] {
            for branch in keywords.get(applicator).and_then(Value::as_array).into_iter().flatten() {
                answers.push(Answer::of(self.knows(branch, segments)));
            }
        }
        for applicator in ["then", "else"] {
            if let Some(branch) = keywords.get(applicator) {
                answers.push(Answer::of(self.knows(branch, segments)));
            }
        }
        combine(&answers)
    }

    fn field(&mut self, schema: &'s Value, name: &str, rest: &[Segment]) -> Answer {
        let properties = schema.get("properties").and_then(Value::as_object);
        if let Some(property) = properties.and_then(|properties| properties.get(name)) {
            return if rest.is_empty() {
                Answer::Yes
            } else {
                Answer::of_declared(self.knows(property, rest))
            };
        }
        if schema.get("patternProperties").is_some() {
            return Answer::Unknown;
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => Answer::No,
            Some(additional @ Value::Object(_)) => Answer::of_declared(self.knows(additional, rest)),
            _ if properties.is_some() => Answer::No,
            _ if excludes(schema, "object") => Answer::No,
            _ => Answer::Silent,
        }
    }

    fn item(&mut self, schema: &'s Value, segment: &Segment, rest: &[Segment]) -> Answer {
        let tuple = schema.get("prefixItems").or_else(|| schema.get("items")).and_then(Value::as_array);
        if let (Some(tuple), Segment::Index(place)) = (tuple, segment) {
            let place = usize::try_from(*place).ok();
            if let Some(item) = place.and_then(|place| tuple.get(place)) {
                return Answer::of_declared(self.knows(item, rest));
            }
        }
        if tuple.is_some() && *segment == Segment::Each {
            return Answer::Unknown;
        }
        match schema.get("items").or_else(|| schema.get("additionalItems")) {
            Some(item @ Value::Object(_)) => Answer::of_declared(self.knows(item, rest)),
            Some(Value::Bool(false)) => Answer::No,
            _ if excludes(schema, "array") => Answer::No,
            _ => Answer::Silent,
        }
    }

    /// `#`, `#/…` or `#anchor` within the document.
    fn referenced(&mut self, reference: &str) -> Option<&'s Value> {
        self.references_left = self.references_left.checked_sub(1)?;
        let fragment = reference.strip_prefix('#')?;
        if fragment.is_empty() || fragment.starts_with('/') { self.root.pointer(fragment) } else { None }
    }
}

/// Whether `type` is given and leaves this type out.
fn excludes(schema: &Value, wanted: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(only)) => only != wanted,
        Some(Value::Array(several)) => !several.iter().any(|one| one == wanted),
        _ => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// Something there can't be followed.
    Unknown,
    /// Nothing there speaks of it.
    Silent,
}

impl Answer {
    fn of(answer: Option<bool>) -> Self {
        match answer {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Silent,
        }
    }

    /// As [`of`](Self::of), where the parent is declared: silence below it is not knowing.
    fn of_declared(answer: Option<bool>) -> Self {
        match answer {
            None => Self::Unknown,
            known => Self::of(known),
        }
    }
}

fn combine(answers: &[Answer]) -> Option<bool> {
    if answers.contains(&Answer::Yes) {
        Some(true)
    } else if answers.contains(&Answer::Unknown) || !answers.contains(&Answer::No) {
        None
    } else {
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_misspelt_field_is_told_from_one_that_the_schema_leaves_open() {
        let schema = json!({
            "type": "object",
            "properties": {
                "sku": { "type": "string" },
                "free": {},
                "customer": { "$ref": "#/$defs/customer" },
                "lines": { "type": "array", "items": { "properties": { "price": {} } } },
                "pair": { "prefixItems": [{ "properties": { "a": {} } }] },
                "by_name": { "additionalProperties": { "properties": { "x": {} }, "additionalProperties": false } },
                "either": { "oneOf": [{ "properties": { "a": {} } }, { "properties": { "b": {} } }] },
                "loop": { "$ref": "#/properties/loop" },
                "far": { "$ref": "https://example.com/schema" }
            },
            "$defs": { "customer": { "properties": { "name": {} }, "patternProperties": { "^x": {} } } }
        });
        for (path, expected) in [
            ("event", Some(true)),
            ("event.sku", Some(true)),
            ("event.skw", Some(false)),
            ("event.sku.length", Some(false)),
            ("event.free.anything", None),
            ("event.customer.name", Some(true)),
            ("event.customer.nmae", None),
            ("event.lines[].price", Some(true)),
            ("event.lines[3].prize", Some(false)),
            ("event.lines.price", Some(false)),
            ("event.pair[0].a", Some(true)),
            ("event.pair[].a", None),
            ("event.by_name.anything.x", Some(true)),
            ("event.by_name.anything.y", Some(false)),
            ("event.either.b", Some(true)),
            ("event.either.c", Some(false)),
            ("event.loop.a", None),
            ("event.far.a", None),
            ("customer", None),
        ] {
            assert_eq!(path_in_schema(&schema, path), expected, "{path}");
        }
        assert_eq!(path_in_schema(&json!(true), "event.sku"), None);
        assert_eq!(path_in_schema(&json!({ "additionalProperties": false }), "event.sku"), Some(false));
    }
}
