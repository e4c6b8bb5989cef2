//! The fields that an expression names, looked up in the flow's schema before an event ever meets them.

use super::fault::nearest;
use recount_checks::{fields_named, path_in_schema};
use serde_json::Value;
use std::collections::BTreeSet;

/// Property names of a schema that are looked at to find what could be meant.
const NAMES_MAX: usize = 2000;

/// For each field of the expression that the schema declares others beside, but not this one: what is
/// wrong and what could be meant. Nothing where the schema doesn't tell.
pub(super) fn misspelt(schema: &Value, expression: &str) -> Vec<(String, String)> {
    let fields = fields_named(expression).unwrap_or_default();
    let unknown = fields.iter().filter(|field| path_in_schema(schema, field) == Some(false));
    unknown.map(|field| (format!("the schema has no {field}"), meant(schema, field))).collect()
}

fn meant(schema: &Value, field: &str) -> String {
    let mut names = BTreeSet::new();
    property_names(schema, &mut names);
    let ends = field.match_indices(['.', '[']).map(|(at, _)| at).skip(1).chain([field.len()]);
    let wrong = ends.map(|end| &field[..end]).find(|prefix| path_in_schema(schema, prefix) == Some(false));
    let Some((parent, name)) = wrong.and_then(|wrong| wrong.rsplit_once('.')) else {
        return "look at the schema".to_owned();
    };
    let is_there = |name: &&&str| path_in_schema(schema, &format!("{parent}.{name}")) == Some(true);
    let known: Vec<&str> = names.iter().filter(is_there).copied().collect();
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {parent}.{meant}? the schema has: {}", known.join(", ")),
        None => format!("the schema has: {}", known.join(", ")),
    }
}

fn property_names<'s>(schema: &'s Value, names: &mut BTreeSet<&'s str>) {
    match schema {
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                if let ("properties", Value::Object(properties)) = (keyword.as_str(), value) {
                    names.extend(
                        properties.keys().map(String::as_str).take(NAMES_MAX - names.len().min(NAMES_MAX)),
                    );
                }
                property_names(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| property_names(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_misspelt_only_where_the_schema_can_tell() {
        let schema = json!({
            "properties": {
                "quantity": {"type": "integer"},
                "buyer": {"$ref": "#/$defs/person"},
                "extra": {"type": "object"},
                "lines": {"type": "array", "items": {"properties": {"price": {"type": "number"}}}}
            },
            "$defs": {"person": {"properties": {"name": {}}}}
        });
        for (expression, help) in [
            ("event.quantity > 0", None),
            ("event.buyer.name == ''", None),
            ("event.extra.anything == 1", None),
            ("event.lines.all(line, line.price > 0.0)", None),
            (
                "event.quantitiy > 0",
                Some("did you mean event.quantity? the schema has: buyer, extra, lines, quantity"),
            ),
            ("event.buyer.nmae == ''", Some("did you mean event.buyer.name? the schema has: name")),
            ("event.zzzzzz == 1", Some("the schema has: buyer, extra, lines, quantity")),
        ] {
            let found = misspelt(&schema, expression);
            assert_eq!(found.first().map(|(_, help)| help.as_str()), help, "{expression}");
        }
    }
}
