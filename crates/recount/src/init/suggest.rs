//! Checks that the sampled figures suggest. They are written as comments: whether a rule is right is for a
//! person to say.

use super::identity::{FEW_EVENTS, expression, id_name_score, time_name_score};
use super::profile::{Field, Kind, Profile};
use super::shape::words;
use super::write::count;
use recount_checks::expr::FieldPath;
use recount_model::ReasonCode;
use recount_model::reason::builtin;
use std::collections::BTreeSet;

/// More would be a wall.
const SUGGESTIONS_MAX: usize = 8;

/// A check to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// The figures, as a sentence.
    pub figures: String,
    /// A code of its own.
    pub reason: String,
    /// CEL.
    pub that: String,
    /// What is proposed to become of those it doesn't hold for.
    pub otherwise: &'static str,
    /// A budget that the sample would keep.
    pub at_most: String,
}

/// Checks that the sample suggests; `taken` are expressions that identify, and `secret` what isn't told.
pub fn suggestions(profile: &Profile, taken: &[String], secret: &[String]) -> Vec<Suggestion> {
    let mut found = Vec::new();
    if profile.events < FEW_EVENTS {
        return found;
    }
    let hidden: Vec<FieldPath> = secret.iter().filter_map(|secret| FieldPath::parse(secret)).collect();
    for field in profile.fields() {
        let Some(path) =
            expression(&field.path).filter(|path| field.is_always(profile.events) && !taken.contains(path))
        else {
            continue;
        };
        if field.path.segments.is_empty() || hidden.iter().any(|hidden| hidden.overlaps(&field.path)) {
            continue;
        }
        // Of an id or an instant, size says nothing.
        let is_identity = id_name_score(field.name()) > 0 || time_name_score(field.name()) > 0;
        if field.node.is_only(&[Kind::Integer, Kind::Number]) && !is_identity {
            found.extend(not_positive(&field, &path));
            found.extend(outlier(&field, &path));
        }
        if field.node.is_only(&[Kind::String]) {
            found.extend(empty(&field, &path));
            found.extend(few_texts(&field, &path));
        }
    }
    found.truncate(SUGGESTIONS_MAX);
    let mut codes = BTreeSet::new();
    for suggestion in &mut found {
        suggestion.reason = free_code(&suggestion.reason, &mut codes);
    }
    found
}

/// A code that is nobody's yet.
fn free_code(wanted: &str, codes: &mut BTreeSet<String>) -> String {
    let plain: String = wanted
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    let plain: String = plain.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    let is_usable = |code: &str, codes: &BTreeSet<String>| {
        ReasonCode::new(code).is_ok() && builtin(code).is_none() && !codes.contains(code)
    };
    let mut code = plain.chars().take(40).collect::<String>();
    for n in 2.. {
        if is_usable(&code, codes) {
            break;
        }
        code = format!("rule_{n}");
    }
    codes.insert(code.clone());
    code
}

/// Twice what was sampled, of the last thousand.
fn budget(broken: u64, of: u64) -> String {
    format!("{}% of 1000", (broken * 200).div_ceil(of.max(1)).clamp(1, 100))
}

fn is_rare(broken: u64, of: u64) -> bool {
    broken > 0 && broken * 20 <= of
}

fn not_positive(field: &Field<'_>, path: &str) -> Option<Suggestion> {
    let numbers = &field.node.numbers;
    let of = numbers.len() as u64;
    let below = |limit: &dyn Fn(f64) -> bool| numbers.iter().filter(|number| limit(**number)).count() as u64;
    let (negative, not_positive) = (below(&|n| n < 0.0), below(&|n| n <= 0.0));
    let (broken, that, what) = if is_rare(not_positive, of) {
        (not_positive, format!("{path} > 0"), "0 or less")
    } else if is_rare(negative, of) {
        (negative, format!("{path} >= 0"), "less than 0")
    } else {
        return None;
    };
    Some(Suggestion {
        figures: format!(
            "{broken} of {} have `{path}` {what}: skip, dead-letter or flag them?",
            count(of, "sampled event")
        ),
        reason: format!("{}_not_positive", field.name()),
        that,
        otherwise: "dead-letter",
        at_most: budget(broken, of),
    })
}

/// The smallest round number that at most one in a hundred is above, where the largest is far above it.
fn outlier(field: &Field<'_>, path: &str) -> Option<Suggestion> {
    let mut sorted = field.node.numbers.clone();
    sorted.sort_by(f64::total_cmp);
    let of = sorted.len();
    let largest = *sorted.last()?;
    let usual = sorted[(of - 1) - of / 100];
    let rounds = (0..15).flat_map(|power| [1.0, 2.0, 5.0].map(|lead| lead * 10_f64.powi(power)));
    let limit = rounds.into_iter().find(|limit| *limit >= usual && *limit >= 1.0)?;
    let broken = sorted.iter().filter(|number| **number > limit).count() as u64;
    // What stands out is many times what is usual.
    if broken == 0 || largest < 5.0 * limit || limit >= 1e12 {
        return None;
    }
    Some(Suggestion {
        figures: format!(
            "{broken} of {} have `{path}` above {limit}, and the largest is {largest}: is that expected?",
            count(of as u64, "sampled event")
        ),
        reason: format!("{}_unusually_large", field.name()),
        that: format!("{path} <= {limit}"),
        otherwise: "flag",
        at_most: budget(broken, of as u64),
    })
}

fn empty(field: &Field<'_>, path: &str) -> Option<Suggestion> {
    let (broken, of) = (field.node.shapes.empty, field.node.count(Kind::String));
    is_rare(broken, of).then(|| Suggestion {
        figures: format!(
            "{broken} of {} have `{path}` empty: skip, dead-letter or flag them?",
            count(of, "sampled event")
        ),
        reason: format!("{}_empty", field.name()),
        that: format!("{path} != ''"),
        otherwise: "dead-letter",
        at_most: budget(broken, of),
    })
}

/// A few texts that repeat: one that was never seen is news.
fn few_texts(field: &Field<'_>, path: &str) -> Option<Suggestion> {
    let texts = field.node.count(Kind::String);
    let common = &field.node.common;
    let is_name = words(field.name()).iter().any(|word| word == "name");
    let is_plain = |text: &String| text.chars().all(|c| c.is_alphanumeric() || " ._-/:".contains(c));
    if common.len() < 2 || texts < 10 * common.len() as u64 || is_name || !common.keys().all(is_plain) {
        return None;
    }
    let values: Vec<String> = common.keys().map(|text| format!("'{text}'")).collect();
    let told: Vec<String> = common.iter().map(|(text, n)| format!("{text:?} {n} times")).collect();
    Some(Suggestion {
        figures: format!("`{path}` was always one of these: {}", told.join(", ")),
        reason: format!("{}_unknown", field.name()),
        that: format!("{path} in [{}]", values.join(", ")),
        otherwise: "flag",
        at_most: "1% of 1000".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn suggested(event: impl Fn(u64) -> Value) -> Vec<String> {
        let mut profile = Profile::default();
        (0..1000).for_each(|n| profile.add(&event(n), n as usize));
        let secret = ["event.token".to_owned()];
        let suggestions = suggestions(&profile, &["event.id".to_owned()], &secret);
        suggestions.iter().map(|s| format!("{} {} {} {}", s.reason, s.that, s.otherwise, s.at_most)).collect()
    }

    #[test]
    fn figures_suggest_checks_and_nothing_is_made_of_what_is_even() {
        assert_eq!(
            suggested(|n| json!({ "id": n, "quantity": if n % 200 == 0 { 0 } else { 1 } })),
            ["quantity_not_positive event.quantity > 0 dead-letter 1% of 1000"]
        );
        assert_eq!(
            suggested(|n| json!({ "delta": if n < 30 { -1.5 } else { f64::from(n as u32 % 2) } })),
            ["delta_not_positive event.delta >= 0 dead-letter 6% of 1000"]
        );
        assert_eq!(
            suggested(|n| json!({ "quantity": if n < 8 { 24_000 } else { n % 90 + 1 } })),
            ["quantity_unusually_large event.quantity <= 100 flag 2% of 1000"]
        );
        assert_eq!(
            suggested(|n| json!({ "state": if n % 2 == 0 { "open" } else { "shut" }, "token": "x" })),
            ["state_unknown event.state in ['open', 'shut'] flag 1% of 1000"]
        );
        assert_eq!(
            suggested(|n| json!({ "id": n, "order_id": n * 1000, "n": n + 1, "t": format!("t{n}") })),
            [""; 0]
        );
    }

    #[test]
    fn a_reason_is_a_code_of_its_own() {
        let mut codes = BTreeSet::new();
        assert_eq!(free_code("Größe_not_positive", &mut codes), "gr_e_not_positive");
        assert_eq!(free_code("duplicate", &mut codes), "rule_2");
        assert_eq!(free_code("9", &mut codes), "rule_3");
    }
}
