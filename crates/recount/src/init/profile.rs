//! What sampled events look like, field by field. Bounded whatever the events are: in fields, in depth, in
//! values remembered.

use super::shape::{Shapes, hash_of, identifying};
use recount_checks::expr::{FieldPath, Root, Segment};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Fields that are looked at; what comes later is taken as it is.
const NODES_MAX: usize = 2000;
/// Different names in one object: with more it is a map.
const NAMES_MAX: usize = 200;
/// Longer names are no fields that a config would name.
const NAME_BYTES_MAX: usize = 100;
const DEPTH_MAX: usize = 8;
/// Hashes and numbers remembered, over all fields.
const VALUES_MAX: usize = 2_000_000;
/// Different short texts of one field that are told one by one.
const COMMON_MAX: usize = 8;
const COMMON_BYTES_MAX: usize = 40;

/// A JSON type, as a schema names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_f64() => Self::Number,
            Value::Number(_) => Self::Integer,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }

    /// Its name in JSON Schema.
    pub fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// What one place in the events held.
#[derive(Debug, Default)]
pub struct Node {
    /// How often each type, and the line that had it first.
    pub kinds: BTreeMap<Kind, (u64, usize)>,
    /// Of objects, in the order first seen.
    pub fields: Vec<(String, Node)>,
    places: HashMap<String, usize>,
    /// There were more names than are looked at.
    pub is_map: bool,
    /// Of arrays.
    pub items: Option<Box<Node>>,
    /// What texts and numbers look like.
    pub shapes: Shapes,
    /// The numbers themselves, outside of arrays.
    pub numbers: Vec<f64>,
    /// Different values, outside of arrays: hashes of their texts.
    distinct: HashSet<u64>,
    /// Not all different values could be remembered.
    pub is_capped: bool,
    /// Short texts and how often each; empty where there are more different ones than are told.
    pub common: BTreeMap<String, u64>,
    is_uncommon: bool,
}

impl Node {
    /// How often it was there, be it null.
    pub fn seen(&self) -> u64 {
        self.kinds.values().map(|(count, _)| count).sum()
    }

    /// How often it had this type.
    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |(count, _)| *count)
    }

    /// How many different values there were.
    pub fn different(&self) -> u64 {
        self.distinct.len() as u64
    }

    /// Whether it never had another type than these.
    pub fn is_only(&self, kinds: &[Kind]) -> bool {
        !self.kinds.is_empty() && self.kinds.keys().all(|kind| kinds.contains(kind))
    }
}

/// What all sampled events look like.
#[derive(Debug, Default)]
pub struct Profile {
    /// The event itself.
    pub root: Node,
    /// How many.
    pub events: u64,
    nodes: usize,
    values: usize,
}

/// One field outside of arrays, or within.
#[derive(Debug, Clone)]
pub struct Field<'p> {
    /// Where it stands.
    pub path: FieldPath,
    /// What it held.
    pub node: &'p Node,
    /// In so many of the places where it could be.
    pub of: u64,
    /// Not an item, nor within one.
    pub is_single: bool,
}

impl Field<'_> {
    /// There in every event, never null.
    pub fn is_always(&self, events: u64) -> bool {
        self.is_single && self.node.seen() - self.node.count(Kind::Null) == events
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        self.path.names().last().unwrap_or_default()
    }
}

impl Profile {
    /// Adds one event; `line` is its index in the sample.
    pub fn add(&mut self, event: &Value, line: usize) {
        self.events += 1;
        let mut root = std::mem::take(&mut self.root);
        self.note(&mut root, event, line, 0, true);
        self.root = root;
    }

    fn note(&mut self, node: &mut Node, value: &Value, line: usize, depth: usize, is_single: bool) {
        node.kinds.entry(Kind::of(value)).or_insert((0, line)).0 += 1;
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let Some(place) = self.place(node, name, depth) else { continue };
                    self.note(&mut node.fields[place].1, value, line, depth + 1, is_single);
                }
            }
            Value::Array(items) => {
                if node.items.is_none() && !items.is_empty() && !self.may_grow(depth) {
                    return;
                }
                for item in items {
                    let mut of_items = node.items.take().unwrap_or_default();
                    self.note(&mut of_items, item, line, depth + 1, false);
                    node.items = Some(of_items);
                }
            }
            scalar => self.note_scalar(node, scalar, is_single),
        }
    }

    fn may_grow(&mut self, depth: usize) -> bool {
        if depth >= DEPTH_MAX || self.nodes >= NODES_MAX {
            return false;
        }
        self.nodes += 1;
        true
    }

    fn place(&mut self, node: &mut Node, name: &str, depth: usize) -> Option<usize> {
        if let Some(place) = node.places.get(name) {
            return Some(*place);
        }
        let too_many = node.fields.len() >= NAMES_MAX || name.len() > NAME_BYTES_MAX;
        if too_many || !self.may_grow(depth) {
            node.is_map = true;
            return None;
        }
        node.places.insert(name.to_owned(), node.fields.len());
        node.fields.push((name.to_owned(), Node::default()));
        Some(node.fields.len() - 1)
    }

    fn note_scalar(&mut self, node: &mut Node, value: &Value, is_single: bool) {
        node.shapes.note(value);
        if let Value::String(text) = value {
            note_common(node, text);
        }
        if !is_single || value.is_null() {
            return;
        }
        if self.values >= VALUES_MAX {
            node.is_capped = true;
            return;
        }
        if let Some(text) = identifying(value)
            && node.distinct.insert(hash_of(&text))
        {
            self.values += 1;
        }
        if let Some(number) = value.as_f64() {
            node.numbers.push(number);
            self.values += 1;
        }
    }

    /// Every field, in the order of the events; the event itself first.
    pub fn fields(&self) -> Vec<Field<'_>> {
        let mut found = Vec::new();
        walk(&self.root, &FieldPath::root(Root::Event), self.events, true, &mut found);
        found
    }
}

fn note_common(node: &mut Node, text: &str) {
    if node.is_uncommon {
        return;
    }
    let is_new = !node.common.contains_key(text);
    if text.len() > COMMON_BYTES_MAX || (is_new && node.common.len() == COMMON_MAX) {
        node.is_uncommon = true;
        node.common.clear();
        return;
    }
    *node.common.entry(text.to_owned()).or_default() += 1;
}

fn walk<'p>(node: &'p Node, path: &FieldPath, of: u64, is_single: bool, found: &mut Vec<Field<'p>>) {
    found.push(Field { path: path.clone(), node, of, is_single });
    for (name, field) in &node.fields {
        let path = path.then(Segment::Name(name.as_str().into()));
        walk(field, &path, node.count(Kind::Object), is_single, found);
    }
    if let Some(items) = &node.items {
        walk(items, &path.then(Segment::Each), items.seen(), false, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_counted_with_their_types_and_different_values() {
        let mut profile = Profile::default();
        for (line, event) in [
            json!({"id": "a", "n": 1, "lines": [{"x": 1}, {"x": "y"}]}),
            json!({"id": "b", "n": null, "lines": []}),
            json!({"id": "a", "n": 1.5}),
        ]
        .iter()
        .enumerate()
        {
            profile.add(event, line);
        }
        let told: Vec<String> = profile
            .fields()
            .iter()
            .map(|field| {
                let kinds: Vec<String> = field
                    .node
                    .kinds
                    .iter()
                    .map(|(kind, (count, _))| format!("{count} {}", kind.word()))
                    .collect();
                format!(
                    "{}: {} of {}, {} different",
                    field.path,
                    kinds.join(" "),
                    field.of,
                    field.node.different()
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "event: 3 object of 3, 0 different",
                "event.id: 3 string of 3, 2 different",
                "event.n: 1 null 1 integer 1 number of 3, 2 different",
                "event.lines: 2 array of 3, 0 different",
                "event.lines[]: 2 object of 2, 0 different",
                "event.lines[].x: 1 integer 1 string of 2, 0 different",
            ]
        );
    }

    #[test]
    fn ten_thousand_names_and_deep_nesting_stay_bounded() {
        let mut profile = Profile::default();
        for line in 0..100 {
            let names: serde_json::Map<String, Value> =
                (0..100).map(|n| (format!("k{line}-{n}"), json!({ "v": n }))).collect();
            let deep = (0..60).fold(json!(1), |inner, _| json!({ "a": inner }));
            profile.add(&json!({ "names": names, "deep": deep }), line);
        }
        assert!(profile.fields().len() < 600, "{}", profile.fields().len());
        assert!(profile.root.fields[0].1.is_map);
    }
}
