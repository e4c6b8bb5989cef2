//! From a sample to proposals, each tried on the sample before it is written.

use super::compose::compose;
use super::identity::{self, Proposal, Times};
use super::input::{Input, POSITION_ID, cloud_event_id};
use super::profile::Profile;
use super::schema::{Origin, schema};
use super::suggest::{Suggestion, suggestions};
use super::trial::{Trial, trial};
use super::warn::{self, SecretField, Warning};
use super::write::{count, one_line};
use recount_checks::expr::FieldPath;
use recount_checks::{CheckResult, Decode, FlowRules};
use recount_model::FlowName;
use serde_json::Value;
use std::path::Path;

/// Where an event's id comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdChoice {
    /// Each CloudEvent brings its own.
    CloudEvent,
    /// A field.
    Field(Proposal),
    /// Several fields together.
    Composed(Proposal),
    /// Where it stands: then an event that is delivered twice can't be told from two events.
    Position,
}

impl IdChoice {
    /// What stands in the config; none where nothing has to.
    pub fn expression(&self) -> Option<&str> {
        match self {
            Self::CloudEvent => None,
            Self::Field(proposal) | Self::Composed(proposal) => Some(&proposal.expression),
            Self::Position => Some(POSITION_ID),
        }
    }
}

/// All that is proposed.
pub struct Learned {
    /// The flow's name.
    pub flow: String,
    /// The path sampled, as the config names it.
    pub from: String,
    /// The sample.
    pub input: Input,
    /// What its events look like.
    pub profile: Profile,
    /// The id.
    pub id: IdChoice,
    /// The type.
    pub event_type: Option<Proposal>,
    /// The time.
    pub times: Times,
    /// The key.
    pub key: Option<Proposal>,
    /// What is told nowhere.
    pub secret: Vec<SecretField>,
    /// Checks to be looked at.
    pub suggestions: Vec<Suggestion>,
    /// What to look at before the flow runs.
    pub warnings: Vec<Warning>,
    /// The schema; none where events aren't JSON.
    pub schema: Option<Value>,
    /// What the checks make of the sample.
    pub trial: Trial,
}

/// Learns from the sample. `named`: the flow's name where somebody gave it.
///
/// # Errors
/// A rule that is proposed and doesn't compile.
pub fn learn(input: Input, from: &str, named: Option<&FlowName>) -> Result<Learned, String> {
    let Profiles { all: profile, plain, event_type: cloud_type } = profiles(&input);
    let is_json = input.decode == Decode::Json;
    let mut secret = warn::secrets(&profile);
    let hidden: Vec<String> = secret.iter().map(|secret| secret.path.clone()).collect();
    let id =
        if !is_json || plain.events == 0 { IdChoice::CloudEvent } else { id_of(&input, &plain, &hidden) };
    let event_type = identity::event_type(&plain);
    let times = identity::time(&plain);
    let type_text = event_type.as_ref().and_then(|_| most_common_type(&plain)).or(cloud_type);
    let noun = type_text.as_deref().and_then(|text| super::shape::words(short(text)).first().cloned());
    let mut taken: Vec<String> = [id.expression(), event_type.as_ref().map(|p| p.expression.as_str())]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    let key = identity::key(&profile, &taken, noun.as_deref(), &hidden);
    taken.extend(key.as_ref().map(|key| key.expression.clone()));
    let flow = named
        .map_or_else(|| flow_name(Path::new(from), type_text.as_deref().map(short)), ToString::to_string);
    let schema = is_json.then(|| schema(&profile, &Origin { flow: &flow, from, secret: &hidden }));
    // A path that the checks don't take can't be kept secret by them; the trial would fail for all.
    secret.retain(|one| FieldPath::parse(&one.path).is_some());
    let mut learned = Learned {
        suggestions: suggestions(&profile, &taken, &hidden),
        warnings: warn::warnings(&input, &profile),
        trial: Trial::default(),
        from: from.to_owned(),
        flow,
        input,
        profile,
        id,
        event_type,
        times,
        key,
        secret,
        schema,
    };
    learned.trial = trial(&learned.input, &learned.rules())?;
    let later = [of_id(&learned), of_time(&learned), of_secrets(&learned)].concat();
    learned.warnings.extend(later);
    Ok(learned)
}

/// Of all events, and of those that are no CloudEvents.
#[derive(Default)]
struct Profiles {
    all: Profile,
    plain: Profile,
    /// Of the first CloudEvent.
    event_type: Option<String>,
}

fn profiles(input: &Input) -> Profiles {
    let mut found = Profiles::default();
    input.each(|index, _, result| {
        if let CheckResult::Passed(event) = &result {
            found.all.add(&event.data, index);
            if cloud_event_id(&result).is_none() {
                found.plain.add(&event.data, index);
            } else if found.event_type.is_none() {
                found.event_type = event.meta.event_type.as_deref().map(str::to_owned);
            }
        }
    });
    found
}

/// A type without the domain in front: `com.example.order.placed` is `order.placed`.
fn short(event_type: &str) -> &str {
    let mut dots = event_type.rmatch_indices('.').map(|(at, _)| at);
    dots.nth(1).map_or(event_type, |at| &event_type[at + 1..])
}

fn id_of(input: &Input, plain: &Profile, hidden: &[String]) -> IdChoice {
    if let Some(field) = identity::id(plain, hidden) {
        return IdChoice::Field(field);
    }
    // Beside CloudEvents, which have ids of their own, a composed id would take precedence.
    let composed = if input.cloud_events == 0 { compose(input, plain, hidden) } else { None };
    composed.map_or(IdChoice::Position, IdChoice::Composed)
}

fn most_common_type(profile: &Profile) -> Option<String> {
    let expression = identity::event_type(profile)?.expression;
    let fields = profile.fields();
    let field =
        fields.iter().find(|field| identity::expression(&field.path).as_deref() == Some(&expression))?;
    field.node.common.iter().max_by_key(|(_, times)| **times).map(|(text, _)| text.clone())
}

/// A name from the file's, without dates and endings; else from the type.
pub fn flow_name(from: &Path, event_type: Option<&str>) -> String {
    let file = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = file.trim_start_matches('.').split('.').next().unwrap_or_default().to_owned();
    let from_file = if from.as_os_str() == "-" { None } else { named_by(&stem) };
    from_file.or_else(|| event_type.and_then(named_by)).unwrap_or_else(|| "events".to_owned())
}

fn named_by(text: &str) -> Option<String> {
    let plain: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    // Parts that are only digits are dates and numbers of rotated files.
    let parts: Vec<&str> = plain
        .split('-')
        .filter(|part| !part.is_empty() && !part.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let mut name = parts.join("-");
    name.truncate(64);
    FlowName::new(name.trim_end_matches('-')).ok().map(|name| name.to_string())
}

impl Learned {
    /// The rules as the config will have them.
    pub fn rules(&self) -> FlowRules {
        let text = |proposal: &Option<Proposal>| proposal.as_ref().map(|found| found.expression.clone());
        FlowRules {
            decode: self.input.decode,
            id: self.id.expression().map(str::to_owned),
            event_type: text(&self.event_type),
            time: text(&self.times.proposal),
            key: text(&self.key),
            schema: self.schema.clone(),
            secret: self.secret.iter().map(|secret| secret.path.clone()).collect(),
            ..FlowRules::default()
        }
    }

    /// Whether a field is kept secret, holds a secret or lies in one.
    pub fn is_secret(&self, path: &FieldPath) -> bool {
        let secret = self.secret.iter().filter_map(|secret| FieldPath::parse(&secret.path));
        secret.into_iter().any(|secret| secret.overlaps(path))
    }

    /// Whether ids must not be told.
    pub fn id_is_secret(&self) -> bool {
        let fields =
            self.id.expression().and_then(|id| recount_checks::fields_named(id).ok()).unwrap_or_default();
        fields.iter().filter_map(|field| FieldPath::parse(field)).any(|field| self.is_secret(&field))
    }
}

fn of_id(learned: &Learned) -> Vec<Warning> {
    let mut found = Vec::new();
    let trial = &learned.trial;
    if learned.id == IdChoice::Position {
        let sentence = "no field and no few fields together differ in each sampled event, so the id is the position: an event \
                        that is published twice is applied twice. let the producer give each event an id";
        found.push(Warning::of_input("no_unique_id", learned.profile.events, sentence.to_owned()));
    }
    if let IdChoice::Composed(proposal) = &learned.id {
        let sentence = format!(
            "no field is an id by itself; `{}` differs in each sampled event: does it have to?",
            proposal.expression
        );
        found.push(Warning::of_input("composed_id", learned.profile.events, sentence));
    }
    let repeats = trial.repeated + trial.reused;
    if repeats > 0 {
        let hidden = learned.id_is_secret();
        let named: Vec<String> = trial
            .named
            .iter()
            .map(|one| {
                let id = if hidden { "(secret)".to_owned() } else { one_line(&one.id) };
                let payloads = if one.is_same { "the same payload" } else { "another payload" };
                format!(
                    "{id} is there {} times with {payloads} (first: {})",
                    one.times,
                    learned.input.place(one.first)
                )
            })
            .collect();
        let id = learned.id.expression().unwrap_or("the CloudEvent's id");
        let sentence = format!(
            "{id} repeats in {} of the sampled events: {} with the same payload (duplicate, skipped), {} with another \
             (id_reused, dead-lettered); {}",
            repeats,
            trial.repeated,
            trial.reused,
            named.join("; ")
        );
        let field = learned.id.expression().map(str::to_owned);
        found.push(Warning { code: "id_repeats", field, events: repeats, sentence });
    }
    let without = trial.refused.get("no_id").map_or(0, |(n, ..)| *n);
    if without > 0 {
        let sentence =
            format!("{} have no id there and become dead letters, no_id", count(without, "sampled event"));
        found.push(Warning::of_input("no_id", without, sentence));
    }
    found
}

fn of_time(learned: &Learned) -> Vec<Warning> {
    let mut found: Vec<Warning> = learned
        .times
        .without_zone
        .iter()
        .map(|(field, in_utc)| Warning {
            code: "time_without_zone",
            field: Some(field.clone()),
            events: learned.profile.events,
            sentence: format!("`{field}` has date and time without a zone: an hour of it may be there twice. if it is UTC, write {in_utc}"),
        })
        .collect();
    let trial = &learned.trial;
    if let Some(time) = &learned.times.proposal
        && trial.with_time < trial.passed
    {
        let without = trial.passed - trial.with_time;
        let sentence = format!("{} have no time in `{}`", count(without, "sampled event"), time.expression);
        found.push(Warning {
            code: "no_time",
            field: Some(time.expression.clone()),
            events: without,
            sentence,
        });
    }
    found
}

fn of_secrets(learned: &Learned) -> Vec<Warning> {
    let secret = |secret: &SecretField| Warning {
        code: "looks_secret",
        field: Some(secret.path.clone()),
        events: learned.profile.events,
        sentence: format!(
            "`{}` looks like somebody's own ({}): it is listed in `secret`, take it out if it may be told",
            secret.path, secret.why
        ),
    };
    learned.secret.iter().take(20).map(secret).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_named_by_its_file_without_dates_else_by_its_type() {
        for (from, event_type, expected) in [
            ("data/orders-2017-01-02.ndjson.zst", None, "orders"),
            ("Order_Lines.jsonl", None, "order-lines"),
            ("data/orders-*.ndjson", None, "orders"),
            ("2017-01.log", Some("order.placed"), "order-placed"),
            ("-", Some("order.placed"), "order-placed"),
            ("größe.ndjson", None, "gr-e"),
            ("订单.ndjson", None, "events"),
            ("-", None, "events"),
        ] {
            assert_eq!(flow_name(Path::new(from), event_type), expected, "{from}");
        }
    }
}
