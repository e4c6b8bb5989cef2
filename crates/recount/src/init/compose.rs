//! An id out of several fields, where no field tells the events apart by itself.

use super::identity::{FEW_EVENTS, Proposal, expression, id_name_score, is_time_like, scalars};
use super::input::Input;
use super::profile::{Field, Kind, Profile};
use super::shape::{hash_of, identifying};
use super::write::count;
use recount_checks::CheckResult;
use recount_checks::expr::FieldPath;
use serde_json::Value;
use std::collections::HashSet;

/// Fields that are tried together.
const FIELDS_MAX: usize = 8;

/// One to three fields that together differ in every event; none where none do, or too few were sampled.
pub fn compose(input: &Input, profile: &Profile, secret: &[String]) -> Option<Proposal> {
    if profile.events < FEW_EVENTS {
        return None;
    }
    let fields = parts(profile, secret);
    let mut rows: Vec<Vec<u64>> = Vec::new();
    input.each(|_, _, result| {
        if let CheckResult::Passed(event) = &result {
            let hash = |field: &Field<'_>| {
                at(&event.data, &field.path).and_then(identifying).map_or(0, |t| hash_of(&t))
            };
            rows.push(fields.iter().map(hash).collect());
        }
    });
    let chosen = choices(fields.len()).into_iter().find(|choice| {
        let mut seen = HashSet::new();
        rows.iter().all(|row| seen.insert(choice.iter().map(|at| row[*at]).collect::<Vec<_>>()))
    })?;
    let expressions: Option<Vec<String>> = chosen
        .iter()
        .map(|at| {
            let field = &fields[*at];
            let path = expression(&field.path)?;
            let is_text = field.node.is_only(&[Kind::String]);
            Some(if is_text { path } else { format!("string({path})") })
        })
        .collect();
    let expression = expressions?.join(" + '/' + ");
    let why =
        format!("no field differs in each of {}, but `{expression}` does", count(profile.events, "event"));
    Some(Proposal { expression, different: profile.events, why, others: Vec::new() })
}

/// The fields that may be part of an id, likeliest first.
fn parts<'p>(profile: &'p Profile, secret: &[String]) -> Vec<Field<'p>> {
    let score = |field: &Field<'_>| id_name_score(field.name()) + if is_time_like(field) { 35 } else { 0 };
    let is_secret = |path: &FieldPath| {
        secret.iter().filter_map(|secret| FieldPath::parse(secret)).any(|secret| secret.overlaps(path))
    };
    let mut fields: Vec<Field<'_>> = scalars(profile, &[Kind::String, Kind::Integer])
        .into_iter()
        .filter(|field| {
            field.is_always(profile.events)
                && field.node.different() > 1
                && field.node.shapes.longest_bytes <= 200
        })
        .filter(|field| !is_secret(&field.path) && expression(&field.path).is_some())
        .collect();
    fields.sort_by_key(|field| (-score(field), std::cmp::Reverse(field.node.different())));
    fields.truncate(FIELDS_MAX);
    fields
}

/// One, then two, then three of so many, likelier ones first.
fn choices(fields: usize) -> Vec<Vec<usize>> {
    let singles = (0..fields).map(|a| vec![a]);
    let pairs = (0..fields).flat_map(|b| (0..b).map(move |a| vec![a, b]));
    let triples = (0..fields).flat_map(|c| (0..c).flat_map(move |b| (0..b).map(move |a| vec![a, b, c])));
    singles.chain(pairs).chain(triples).collect()
}

fn at<'v>(event: &'v Value, path: &FieldPath) -> Option<&'v Value> {
    path.names().try_fold(event, |value, name| value.get(name))
}
