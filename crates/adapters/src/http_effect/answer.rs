//! Reading a handler's answer: fails closed, an event without a plain verdict has none.

use super::HandlerReason;
use super::request::position;
use crate::sql::cut;
use recount_engine::{EffectEvent, Outcome};
use recount_model::{PartitionId, Reason, ReasonCode, Verdict, reason};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// The whole answer is evidence up to this many bytes.
const EVIDENCE_BYTES_MAX: usize = 4096;
/// A handler's sentence is kept up to this many bytes.
const SENTENCE_BYTES_MAX: usize = 1024;

/// What the answer says of one event.
enum Given<'a> {
    Nothing,
    Entry(&'a Value),
    Contradiction,
}

/// One outcome for each event that was sent, in order.
pub(super) fn read(
    status: u16,
    answer: &[u8],
    at: &PartitionId,
    sent: &[&EffectEvent],
    reasons: &BTreeMap<ReasonCode, HandlerReason>,
) -> Vec<Outcome> {
    let parsed: Option<Value> = serde_json::from_slice(answer).ok();
    let entries = parsed.as_ref().and_then(|p| p.get("verdicts")).and_then(Value::as_array);
    let given = by_event(entries.map_or(&[], Vec::as_slice), at, sent);
    let whole = || {
        let text = String::from_utf8_lossy(answer);
        json!({ "status": status, "answer": cut(&text, EVIDENCE_BYTES_MAX) })
    };
    let no_verdict = |sentence: &str| {
        let evidence = Some(whole().to_string().into());
        Outcome::Said { verdict: Verdict::dead_letter(reason::NO_VERDICT, sentence), evidence }
    };
    let without = match (&parsed, entries) {
        (None, _) => "the handler answered something that is no JSON",
        (_, None) => "the handler answered without `verdicts`",
        _ => "the handler's answer leaves this event out",
    };
    given
        .iter()
        .map(|given| match given {
            Given::Nothing => no_verdict(without),
            Given::Contradiction => {
                no_verdict("the handler's answer has two different verdicts for this event")
            }
            Given::Entry(entry) => match verdict(entry, reasons) {
                Ok(verdict) => {
                    let evidence = match verdict {
                        Verdict::Applied => None,
                        _ => Some(json!({ "status": status, "verdict": bounded(entry) }).to_string().into()),
                    };
                    Outcome::Said { verdict, evidence }
                }
                Err(sentence) => no_verdict(&sentence),
            },
        })
        .collect()
}

/// What belongs to each event; entries that name none that was sent are passed over.
fn by_event<'a>(entries: &'a [Value], at: &PartitionId, sent: &[&EffectEvent]) -> Vec<Given<'a>> {
    let positions: HashMap<String, usize> =
        sent.iter().enumerate().map(|(place, event)| (position(at, event), place)).collect();
    let mut ids: HashMap<&str, Option<usize>> = HashMap::new();
    for (place, event) in sent.iter().enumerate() {
        if let Some(id) = event.event.meta.id.as_deref() {
            // An id that was sent twice names neither.
            ids.entry(id).and_modify(|known| *known = None).or_insert(Some(place));
        }
    }
    let mut given: Vec<Given<'a>> = sent.iter().map(|_| Given::Nothing).collect();
    for entry in entries {
        let id = match entry.get("id") {
            Some(Value::String(id)) => Some(id.clone()),
            Some(Value::Number(id)) => Some(id.to_string()),
            _ => None,
        };
        let place = match entry.get("position").and_then(Value::as_str) {
            Some(position) => positions.get(position).copied().filter(|&place| {
                let sent_id = sent[place].event.meta.id.as_deref();
                id.is_none() || id.as_deref() == sent_id
            }),
            None => id.and_then(|id| ids.get(id.as_str()).copied().flatten()),
        };
        if let Some(place) = place {
            given[place] = match given[place] {
                Given::Nothing => Given::Entry(entry),
                Given::Entry(before) if same_verdict(before, entry) => Given::Entry(before),
                _ => Given::Contradiction,
            };
        }
    }
    given
}

fn same_verdict(one: &Value, other: &Value) -> bool {
    one.get("verdict") == other.get("verdict") && one.get("reason") == other.get("reason")
}

/// The verdict, or a sentence why it is none.
fn verdict(entry: &Value, reasons: &BTreeMap<ReasonCode, HandlerReason>) -> Result<Verdict, String> {
    let word = entry.get("verdict").and_then(Value::as_str).unwrap_or("");
    let with: fn(Reason) -> Verdict = match word {
        "applied" => return Ok(Verdict::Applied),
        "skip" => Verdict::Skip,
        "dead-letter" => Verdict::DeadLetter,
        "retry" => Verdict::Retry,
        other => {
            return Err(format!(
                "the handler's verdict is {:?}: it must be applied, skip, dead-letter or retry",
                cut(other, 64)
            ));
        }
    };
    let given = entry.get("reason").and_then(Value::as_str).unwrap_or("");
    let declared = ReasonCode::new(given).ok().and_then(|code| reasons.get_key_value(&code));
    Ok(match declared {
        Some((code, declared)) => {
            let because = entry.get("because").and_then(Value::as_str).unwrap_or(&declared.because);
            let verdict = with(Reason::new(code.clone(), cut(because, SENTENCE_BYTES_MAX)));
            if declared.verdict.is_of(&verdict) {
                return Ok(verdict);
            }
            let sentence =
                format!("the handler said {word} for the reason {code}, declared with another verdict");
            Verdict::dead_letter(reason::UNDECLARED_REASON, sentence)
        }
        None if given.is_empty() => Verdict::dead_letter(
            reason::UNDECLARED_REASON,
            format!("the handler said {word} without a reason"),
        ),
        None => Verdict::dead_letter(
            reason::UNDECLARED_REASON,
            format!(
                "the handler said {word} for the reason {:?}, which the flow does not declare",
                cut(given, 64)
            ),
        ),
    })
}

/// An entry as evidence: whole where it is short, else its beginning as text.
fn bounded(entry: &Value) -> Value {
    let text = entry.to_string();
    if text.len() <= EVIDENCE_BYTES_MAX { entry.clone() } else { cut(&text, EVIDENCE_BYTES_MAX).into() }
}
