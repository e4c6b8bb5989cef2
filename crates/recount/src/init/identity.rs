//! Which fields are an event's id, type, time and key, by their values first and their names second.

use super::profile::{Field, Kind, Profile};
use super::shape::words;
use super::write::{count, grouped};
use recount_checks::expr::{FieldPath, Segment};
use recount_checks::fields_named;

/// A longer id is refused when the flow runs.
const ID_BYTES_MAX: usize = 1024;
/// From so few events nothing can be learned from values alone.
pub const FEW_EVENTS: u64 = 20;

/// An expression that is proposed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// CEL.
    pub expression: String,
    /// Different values in the sample.
    pub different: u64,
    /// What speaks for it, with figures.
    pub why: String,
    /// What else it could be, best first.
    pub others: Vec<(String, u64)>,
}

/// A field as an expression; none where CEL can't name it.
pub fn expression(path: &FieldPath) -> Option<String> {
    use std::fmt::Write as _;
    let dotted = path.to_string();
    let mut indexed = "event".to_owned();
    for segment in &path.segments {
        match segment {
            Segment::Name(name) => write!(indexed, "[{}]", serde_json::Value::from(&**name)).ok()?,
            Segment::Index(_) | Segment::Each => return None,
        }
    }
    // Words that CEL keeps for itself (`in`, `true`) can't follow a dot, but stand in brackets.
    [dotted.clone(), indexed]
        .into_iter()
        .find(|text| fields_named(text).is_ok_and(|named| named == [dotted.clone()]))
}

/// Fields that may hold an id, type, time or key: outside of arrays, of one scalar type.
pub fn scalars<'p>(profile: &'p Profile, kinds: &[Kind]) -> Vec<Field<'p>> {
    let fits =
        |field: &Field<'_>| field.is_single && field.node.is_only(kinds) && !field.path.segments.is_empty();
    profile.fields().into_iter().filter(fits).collect()
}

/// How much a name sounds like the id of an event.
pub fn id_name_score(name: &str) -> i32 {
    let words = words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["id" | "uuid" | "guid" | "ulid"] | ["event" | "message" | "msg", "id" | "uuid" | "guid"] => 100,
        [.., "id" | "uuid" | "guid" | "ulid"] => 60,
        [only] if only.len() > 3 && only.ends_with("id") => 40,
        [.., "number" | "no" | "nr" | "num" | "ref" | "reference" | "code" | "key" | "seq" | "sequence"] => {
            30
        }
        _ => 0,
    }
}

/// Whether the values are instants, or numbers that a time field holds.
pub fn is_time_like(field: &Field<'_>) -> bool {
    let values = field.node.count(Kind::String) + field.node.count(Kind::Integer);
    let shapes = &field.node.shapes;
    let texts = shapes.instants + shapes.without_zone;
    let numbers = *shapes.unix.iter().max().unwrap_or(&0);
    values > 0
        && (texts * 10 > values * 9 || (numbers * 10 > values * 9 && time_name_score(field.name()) > 0))
}

/// The field that tells events apart; `secret` are fields that shall not.
pub fn id(profile: &Profile, secret: &[String]) -> Option<Proposal> {
    let events = profile.events;
    let mut found: Vec<(i32, Proposal)> = Vec::new();
    for field in scalars(profile, &[Kind::String, Kind::Integer, Kind::Null]) {
        let present = field.node.seen() - field.node.count(Kind::Null) - field.node.shapes.empty;
        let name = id_name_score(field.name());
        if is_time_like(&field) || field.node.shapes.longest_bytes > ID_BYTES_MAX || present * 10 < events * 9
        {
            continue;
        }
        let different = field.node.different();
        let mut score = name - 5 * (field.path.segments.len() as i32 - 1);
        score += match (different, present) {
            (different, present) if different == present => 50,
            (different, present) if different * 100 >= present * 99 => 30,
            (different, present) if different * 10 >= present * 9 => 10,
            // A few events may well be the same one again and again.
            _ if events < FEW_EVENTS && name == 100 => 0,
            _ => -150,
        };
        score += if present < events { -20 } else { 0 };
        score += if field.node.shapes.uuids * 10 > present * 9 { 20 } else { 0 };
        score -= if is_hidden(&field.path, secret) { 70 } else { 0 };
        let Some(expression) = expression(&field.path) else { continue };
        let why = format!(
            "`{expression}` has {} in {}",
            count(different, "different value"),
            count(present, "event")
        );
        found.push((score, Proposal { expression, different, why, others: Vec::new() }));
    }
    found.sort_by_key(|(score, proposal)| (-score, std::cmp::Reverse(proposal.different)));
    let needed = if events < FEW_EVENTS { 60 } else { 50 };
    best(found, needed, 3)
}

/// The first, where it scores enough, with those behind it.
fn best(found: Vec<(i32, Proposal)>, needed: i32, others: usize) -> Option<Proposal> {
    let mut found = found.into_iter();
    let (score, mut first) = found.next()?;
    let behind = found.take(others).map(|(_, other)| (other.expression, other.different));
    first.others = behind.collect();
    (score >= needed).then_some(first)
}

fn is_hidden(path: &FieldPath, secret: &[String]) -> bool {
    let hidden = secret.iter().filter_map(|secret| FieldPath::parse(secret));
    hidden.into_iter().any(|hidden| hidden.overlaps(path))
}

/// The field that says what kind of event it is.
pub fn event_type(profile: &Profile) -> Option<Proposal> {
    let events = profile.events;
    let mut found = Vec::new();
    for field in scalars(profile, &[Kind::String]) {
        let different = field.node.different();
        let few = if events < FEW_EVENTS { events } else { (events / 10).clamp(1, 50) };
        let name = type_name_score(field.name());
        if name == 0 || !field.is_always(events) || different > few || field.node.shapes.empty > 0 {
            continue;
        }
        let Some(expression) = expression(&field.path) else { continue };
        let told: Vec<String> =
            field.node.common.iter().map(|(text, n)| format!("{text:?} {} times", grouped(*n))).collect();
        let told = if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) };
        let why = format!(
            "`{expression}` has {} in {}{told}",
            count(different, "different value"),
            count(events, "event")
        );
        let score = name - 20 * (field.path.segments.len() as i32 - 1);
        found.push((score, Proposal { expression, different, why, others: Vec::new() }));
    }
    found.sort_by_key(|(score, _)| -score);
    best(found, 1, 2)
}

fn type_name_score(name: &str) -> i32 {
    let words = words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["type"] | ["event", "type" | "name"] => 100,
        ["event" | "kind" | "topic"] | ["message" | "msg", "type"] => 80,
        ["action" | "op" | "operation"] => 60,
        _ => 0,
    }
}

/// How much a name sounds like the time of the event.
pub fn time_name_score(name: &str) -> i32 {
    let words = words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["time" | "timestamp" | "ts"] | ["event", "time" | "timestamp" | "at" | "ts"] => 100,
        ["occurred" | "happened", ..] => 90,
        [.., "updated" | "modified" | "received" | "processed" | "expires" | "due", _] => 30,
        [.., "at" | "time" | "timestamp" | "ts" | "on" | "when"] => 70,
        [.., "date" | "datetime" | "ms" | "millis" | "epoch"] | ["created"] => 50,
        _ => 0,
    }
}

/// When the event happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    /// What can be used as it is.
    pub proposal: Option<Proposal>,
    /// Fields with date and time but no zone: expression, and what it would be in UTC.
    pub without_zone: Vec<(String, String)>,
}

/// The field that says when the event happened, as an instant or in Unix time.
pub fn time(profile: &Profile) -> Times {
    let events = profile.events;
    let mut times = Times::default();
    let mut found = Vec::new();
    for field in scalars(profile, &[Kind::String, Kind::Integer, Kind::Number]) {
        let Some(path) = expression(&field.path) else { continue };
        let (shapes, name) = (&field.node.shapes, time_name_score(field.name()));
        let present = field.node.seen();
        let is_most = |count: u64| count * 10 > present * 9;
        if is_most(shapes.without_zone) {
            times.without_zone.push((path.clone(), format!("{path} + 'Z'")));
            continue;
        }
        let in_unix = |place: usize| name > 0 && is_most(shapes.unix[place]);
        let is_whole = field.node.is_only(&[Kind::Integer]);
        let (expression, form) = if is_most(shapes.instants) {
            (path.clone(), "is text with date, time and zone")
        } else if in_unix(1) && is_whole {
            (path.clone(), "is in Unix milliseconds")
        } else if in_unix(0) {
            let ms = if is_whole { format!("{path} * 1000") } else { format!("int({path} * 1000.0)") };
            (ms, "is in Unix seconds, and milliseconds are needed")
        } else if in_unix(2) && is_whole {
            (format!("{path} / 1000"), "is in Unix microseconds, and milliseconds are needed")
        } else if in_unix(3) && is_whole {
            (format!("{path} / 1000000"), "is in Unix nanoseconds, and milliseconds are needed")
        } else {
            continue;
        };
        let ascending = shapes.ascending * 100 / present.saturating_sub(1).max(1);
        let why = format!(
            "`{path}` {form}, in {} of {}; {ascending} % of them come in order",
            grouped(present),
            count(events, "event")
        );
        let score = name - 20 * (field.path.segments.len() as i32 - 1) + ascending as i32 / 10
            - if present < events { 40 } else { 0 };
        found.push((
            score,
            Proposal { expression, different: field.node.different(), why, others: Vec::new() },
        ));
    }
    found.sort_by_key(|(score, _)| -score);
    times.proposal = best(found, i32::MIN, 2);
    times
}

/// Whose events have to stay in order. `taken`: expressions that are something else already.
pub fn key(profile: &Profile, taken: &[String], noun: Option<&str>, secret: &[String]) -> Option<Proposal> {
    let events = profile.events;
    let mut found = Vec::new();
    for field in scalars(profile, &[Kind::String, Kind::Integer]) {
        let Some(expression) = expression(&field.path) else { continue };
        let different = field.node.different();
        let is_usable = field.is_always(events)
            && field.node.shapes.empty == 0
            && field.node.shapes.longest_bytes <= ID_BYTES_MAX;
        if !is_usable || different < 2 || taken.contains(&expression) || is_time_like(&field) {
            continue;
        }
        let mut score = key_name_score(field.name(), noun);
        if score == 0 {
            continue;
        }
        score -= 5 * (field.path.segments.len() as i32 - 1);
        score -= if is_hidden(&field.path, secret) { 70 } else { 0 };
        score -= if different == events { 20 } else { 0 };
        let each = events as f64 / different.max(1) as f64;
        let why = format!(
            "`{expression}` has {} in {}, {each:.1} events each",
            count(different, "different value"),
            count(events, "event")
        );
        found.push((score, Proposal { expression, different, why, others: Vec::new() }));
    }
    found.sort_by_key(|(score, _)| -score);
    best(found, 10, 4)
}

fn key_name_score(name: &str, noun: Option<&str>) -> i32 {
    const THINGS: &[&str] = &[
        "sku",
        "account",
        "user",
        "customer",
        "device",
        "sensor",
        "symbol",
        "product",
        "item",
        "article",
        "tenant",
        "host",
        "vehicle",
        "order",
        "cart",
        "session",
        "meter",
        "machine",
        "entity",
        "aggregate",
        "subject",
        "key",
    ];
    let words = words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let of_noun = noun.is_some_and(|noun| words.first() == Some(&noun));
    match words.as_slice() {
        ["key"] | [_, "key"] => 60,
        [_, .., "id" | "uuid" | "number" | "no" | "ref" | "code"] if of_noun => 80,
        [_, .., "id" | "uuid" | "guid"] => 40,
        [thing] if THINGS.contains(thing) => 40,
        [only] if only.len() > 3 && only.ends_with("id") => 30,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn profile_of(events: u64, event: impl Fn(u64) -> Value) -> Profile {
        let mut profile = Profile::default();
        (0..events).for_each(|n| profile.add(&event(n), n as usize));
        profile
    }

    #[test]
    fn the_id_is_what_differs_and_is_named_so() {
        let by = |event: fn(u64) -> Value| id(&profile_of(100, event), &[]).map(|found| found.expression);
        for (event, expected) in [
            ((|n| json!({"id": format!("e{n}"), "order_id": n / 3})) as fn(u64) -> Value, Some("event.id")),
            (|n| json!({"order_id": n / 2, "uuid": n.to_string()}), Some("event.uuid")),
            (|n| json!({"seq": n, "id": if n == 7 { 6 } else { n }}), Some("event.id")),
            (|n| json!({"order_id": n, "line": n % 3}), Some("event.order_id")),
            (|n| json!({"what": format!("w{n}")}), Some("event.what")),
            (|n| json!({"meta": {"event-id": n}, "x": 1}), Some("event.meta[\"event-id\"]")),
            (|n| json!({"in": n, "x": 1}), Some("event[\"in\"]")),
            (|n| json!({"order_id": n / 5, "qty": n % 3}), None),
            (|n| json!({"at": format!("2026-01-01T00:{:02}:00Z", n % 60), "value": n as f64 + 0.5}), None),
        ] {
            assert_eq!(by(event).as_deref(), expected, "{}", event(1));
        }
    }

    #[test]
    fn a_secret_or_half_missing_field_is_no_id() {
        let profile = profile_of(100, |n| json!({"token_id": n, "order": format!("o{n}")}));
        let found = id(&profile, &["event.token_id".to_owned()]).unwrap();
        assert_eq!(found.expression, "event.order");
        let profile = profile_of(100, |n| if n % 2 == 0 { json!({"id": n}) } else { json!({}) });
        assert_eq!(id(&profile, &[]), None);
    }

    #[test]
    fn time_is_found_in_each_form() {
        let by =
            |event: fn(u64) -> Value| time(&profile_of(100, event)).proposal.map(|found| found.expression);
        for (event, expected) in [
            (
                (|n| json!({"at": format!("2026-01-01T00:{:02}:00Z", n % 60)})) as fn(u64) -> Value,
                Some("event.at"),
            ),
            (|n| json!({"ts": 1_700_000_000 + n}), Some("event.ts * 1000")),
            (|n| json!({"ts": 1_700_000_000.5 + n as f64}), Some("int(event.ts * 1000.0)")),
            (|n| json!({"ts": 1_700_000_000_000_u64 + n}), Some("event.ts")),
            (|n| json!({"ts": 1_700_000_000_000_000_u64 + n}), Some("event.ts / 1000")),
            (|n| json!({"order_id": 1_700_000_000 + n}), None),
            (|n| json!({"at": format!("2026-01-01 00:{:02}:00", n % 60)}), None),
            (
                |n| json!({"updated_at": "2026-01-01T00:00:00Z", "placed_at": format!("2026-01-01T00:{:02}:00Z", n / 2)}),
                Some("event.placed_at"),
            ),
        ] {
            assert_eq!(by(event).as_deref(), expected, "{}", event(1));
        }
        let zoneless = time(&profile_of(10, |_| json!({"at": "2026-01-01 00:00:00"})));
        assert_eq!(zoneless.without_zone, [("event.at".to_owned(), "event.at + 'Z'".to_owned())]);
    }

    #[test]
    fn type_and_key_are_found_by_name_and_repetition() {
        let profile =
            profile_of(100, |n| json!({"id": n, "type": "order.placed", "order_id": n / 4, "sku": n % 9}));
        assert_eq!(event_type(&profile).unwrap().expression, "event.type");
        let taken = ["event.id".to_owned()];
        assert_eq!(key(&profile, &taken, Some("order"), &[]).unwrap().expression, "event.order_id");
        assert_eq!(
            key(&profile, &taken, None, &["event.order_id".to_owned()]).unwrap().expression,
            "event.sku"
        );
        let plain = profile_of(100, |n| json!({"value": n, "type": format!("t{n}")}));
        assert_eq!((event_type(&plain), key(&plain, &[], None, &[])), (None, None));
    }
}
