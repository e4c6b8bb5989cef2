//! A JSON Schema (draft 2020-12) that every sampled event fits: types, and what was in all of them. No
//! ranges, no lists of allowed values: these are for a person to add.

use super::profile::{Kind, Node, Profile};
use super::write::one_line;
use serde_json::{Map, Value, json};

/// What the schema is said to come from.
pub struct Origin<'o> {
    /// The flow.
    pub flow: &'o str,
    /// The path sampled.
    pub from: &'o str,
    /// Fields whose values are told nowhere, as written in `secret`.
    pub secret: &'o [String],
}

/// The schema of all sampled events.
pub fn schema(profile: &Profile, origin: &Origin<'_>) -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!(format!("an event of the flow {}", origin.flow)));
    let comment = format!(
        "written by recount init from {} sampled events of {}: types, and as required what all of them had; tighten it",
        profile.events,
        one_line(origin.from)
    );
    schema.insert("$comment".to_owned(), json!(comment));
    schema.extend(node(&profile.root, "event", origin));
    Value::Object(schema)
}

fn node(node: &Node, path: &str, origin: &Origin<'_>) -> Map<String, Value> {
    let mut schema = Map::new();
    let has_numbers = node.count(Kind::Number) > 0;
    let kinds: Vec<Value> = node
        .kinds
        .keys()
        .filter(|kind| !(has_numbers && **kind == Kind::Integer))
        .map(|kind| json!(kind.word()))
        .collect();
    match kinds.as_slice() {
        [] => {}
        [only] => drop(schema.insert("type".to_owned(), only.clone())),
        _ => drop(schema.insert("type".to_owned(), Value::Array(kinds))),
    }
    if let Some(comment) = suggested_enum(node, path, origin) {
        schema.insert("$comment".to_owned(), json!(comment));
    }
    let texts = node.count(Kind::String);
    if texts > 0 && node.shapes.strict_instants == texts {
        schema.insert("format".to_owned(), json!("date-time"));
    }
    if let Some(items) = &node.items {
        schema.insert("items".to_owned(), Value::Object(self::node(items, &format!("{path}[]"), origin)));
    }
    if node.count(Kind::Object) > 0 {
        schema.extend(object(node, path, origin));
    }
    schema
}

fn object(node: &Node, path: &str, origin: &Origin<'_>) -> Map<String, Value> {
    let objects = node.count(Kind::Object);
    let mut schema = Map::new();
    let is_required = |field: &Node| field.seen() == objects;
    // Of a map, the names that happened to come first mean nothing.
    let listed: Vec<_> = node.fields.iter().filter(|(_, field)| !node.is_map || is_required(field)).collect();
    let required: Vec<&str> =
        listed.iter().filter(|(_, field)| is_required(field)).map(|(name, _)| name.as_str()).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    let properties: Map<String, Value> = listed
        .iter()
        .map(|(name, field)| {
            (name.clone(), Value::Object(self::node(field, &format!("{path}.{name}"), origin)))
        })
        .collect();
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), Value::Object(properties));
    }
    // An empty schema allows the same as true, and says that names beyond those listed are expected.
    let others = if node.is_map { json!({}) } else { json!(true) };
    schema.insert("additionalProperties".to_owned(), others);
    schema
}

/// A few texts that repeat: what an `enum` would list.
fn suggested_enum(node: &Node, path: &str, origin: &Origin<'_>) -> Option<String> {
    let is_secret = origin.secret.iter().any(|secret| path.starts_with(secret.as_str()));
    let texts = node.count(Kind::String);
    if is_secret || node.common.is_empty() || texts < 20 || texts < 5 * node.common.len() as u64 {
        return None;
    }
    let values: Vec<String> = node.common.keys().map(|text| json!(text).to_string()).collect();
    Some(format!("only these were sampled, if nothing else is right: \"enum\": [{}]", values.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_what_all_events_had_are_written_and_nothing_is_invented() {
        let mut profile = Profile::default();
        for (line, event) in [
            json!({"id": "a", "n": 1, "at": "2017-01-01T11:53:26Z", "lines": [{"x": 1}, {"x": "y", "z": null}]}),
            json!({"id": "b", "n": 1.5, "at": "2017-01-01T11:53:27Z", "lines": [], "rare": true}),
        ]
        .iter()
        .enumerate()
        {
            profile.add(event, line);
        }
        let mut schema = schema(&profile, &Origin { flow: "orders", from: "orders.ndjson", secret: &[] });
        for head in ["$schema", "title", "$comment"] {
            schema.as_object_mut().unwrap().remove(head).unwrap();
        }
        assert_eq!(
            schema,
            json!({
                "type": "object",
                "required": ["id", "n", "at", "lines"],
                "properties": {
                    "id": {"type": "string"},
                    "n": {"type": "number"},
                    "at": {"type": "string", "format": "date-time"},
                    "lines": {"type": "array", "items": {
                        "type": "object",
                        "required": ["x"],
                        "properties": {"x": {"type": ["integer", "string"]}, "z": {"type": "null"}},
                        "additionalProperties": true
                    }},
                    "rare": {"type": "boolean"}
                },
                "additionalProperties": true
            })
        );
    }

    #[test]
    fn a_few_repeating_texts_are_a_suggestion_and_secrets_are_not_told() {
        let mut profile = Profile::default();
        for line in 0..40 {
            let word = if line % 2 == 0 { "open" } else { "shut" };
            profile.add(&json!({ "state": word, "token": word }), line);
        }
        let secret = ["event.token".to_owned()];
        let schema = schema(&profile, &Origin { flow: "doors", from: "-", secret: &secret });
        let comment = |name: &str| schema["properties"][name]["$comment"].as_str().map(str::to_owned);
        assert!(comment("state").unwrap().ends_with(r#""enum": ["open", "shut"]"#));
        assert_eq!(comment("token"), None);
        assert!(schema["properties"]["state"].get("enum").is_none());
    }
}
