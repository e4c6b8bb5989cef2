//! Dead letters: the list, and one whole.

use crate::find::{SECRET, Secrets, find};
use crate::payload::ShownPayload;
use crate::sentence;
use crate::story::{attempts_json, evidence_json};
use recount_ledger::{DecisionFilter, LedgerError, LedgerRead, StoredDecision};
use recount_model::{FlowName, KeptBody, ReasonCode, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Header names whose values are credentials: never shown.
const CREDENTIALS: &[&str] = &["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];

/// Which dead letters. All conditions must hold.
#[derive(Debug, Clone)]
pub struct LetterFilter {
    /// Of this flow.
    pub flow: Option<FlowName>,
    /// With this reason.
    pub reason: Option<ReasonCode>,
    /// With exactly this key.
    pub key: Option<String>,
    /// Decided at or after.
    pub from: Option<Timestamp>,
    /// Decided before.
    pub to: Option<Timestamp>,
    /// At most so many are listed, the newest; the rest is counted.
    pub letters_max: usize,
}

impl Default for LetterFilter {
    fn default() -> Self {
        Self { flow: None, reason: None, key: None, from: None, to: None, letters_max: 100 }
    }
}

/// One dead letter of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterLine {
    /// The record.
    pub stored: StoredDecision,
}

/// The list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Letters {
    /// How many there are in all.
    pub total: u64,
    /// By flow and reason.
    pub by_reason: BTreeMap<(FlowName, ReasonCode), u64>,
    /// Oldest first.
    pub lines: Vec<LetterLine>,
}

/// Events whose current fate is a dead letter.
pub fn dead_letters(
    ledger: &dyn LedgerRead,
    filter: &LetterFilter,
    secrets: &Secrets,
) -> Result<Letters, LedgerError> {
    let decisions = DecisionFilter {
        flow: filter.flow.clone(),
        key: filter.key.clone(),
        verdict: Some("dead-lettered".into()),
        from: filter.from,
        to: filter.to,
        ..Default::default()
    };
    let mut letters = Letters::default();
    let mut newest = std::collections::VecDeque::new();
    ledger.decisions(&decisions, &mut |stored| {
        // The ledger's own filter by reason also takes flags.
        let code = stored.decision.fate.reason().map(|r| &r.code);
        let Some(code) = code.filter(|code| filter.reason.as_ref().is_none_or(|wanted| wanted == *code))
        else {
            return ControlFlow::Continue(());
        };
        letters.total += 1;
        *letters.by_reason.entry((stored.header.at.flow.clone(), code.clone())).or_default() += 1;
        newest.push_back(LetterLine { stored: secrets.masked(stored) });
        if newest.len() > filter.letters_max {
            newest.pop_front();
        }
        ControlFlow::Continue(())
    })?;
    letters.lines = newest.into();
    Ok(letters)
}

/// One dead letter, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// The record.
    pub stored: StoredDecision,
    /// The kept event; none where it was forgotten.
    pub body: Option<KeptBody>,
    /// Its payload, secrets masked.
    pub payload: Option<ShownPayload>,
    /// Commands that lead further.
    pub next: Vec<String>,
}

/// The newest dead letter that stands at a position `flow/partition/offset` or has this id or key. What
/// is secret is masked.
pub fn show(ledger: &dyn LedgerRead, asked: &str, secrets: &Secrets) -> Result<Option<Letter>, LedgerError> {
    let narrow = DecisionFilter { verdict: Some("dead-lettered".into()), ..Default::default() };
    let found = find(ledger, asked, &narrow, secrets, 10_000)?;
    let newest_of = |current: bool| found.decisions.iter().rev().find(move |s| s.current == current);
    let Some(stored) = newest_of(true).or_else(|| newest_of(false)) else { return Ok(None) };
    let body = ledger.body(&stored.header.at, stored.decision.offset)?;
    let secret = secrets.paths_of(&stored.header.at.flow);
    let payload = body.as_ref().map(|body| ShownPayload::of(&body.payload, secret));
    Ok(Some(Letter { stored: stored.clone(), body, payload, next: next_commands(stored) }))
}

fn next_commands(stored: &StoredDecision) -> Vec<String> {
    let position = stored.header.at.position(stored.decision.offset);
    let mut next = Vec::new();
    if let Some(reason) = stored.decision.fate.reason() {
        next.push(format!("recount explain {}", reason.code));
    }
    let key = stored.decision.key.as_deref().filter(|key| *key != SECRET);
    let about = key.map_or_else(|| position.to_string(), ToOwned::to_owned);
    next.push(format!("recount story {about}"));
    if stored.current {
        next.push(format!("recount replay {} --dead-letter {position} --dry-run", stored.header.at.flow));
    }
    next
}

fn line_json(stored: &StoredDecision) -> Value {
    let (header, decision) = (&stored.header, &stored.decision);
    let reason = decision.fate.reason();
    json!({
        "position": header.at.position(decision.offset).to_string(),
        "source": header.at.source.as_str(),
        "flow": header.at.flow.as_str(),
        "event_id": decision.event_id,
        "key": decision.key,
        "reason": reason.map(|r| r.code.as_str()),
        "sentence": reason.map(|r| r.sentence.as_str()),
        "decided_at": header.decided_at.to_string(),
        "event_time": decision.event_time.map(|at| at.to_string()),
        "attempt": decision.attempt,
        "config": header.config.0,
        "flags": decision.flags.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
        "current": stored.current,
    })
}

impl Letters {
    /// The JSON form.
    pub fn json(&self) -> Value {
        let by_reason = self.by_reason.iter().map(|((flow, reason), events)| {
            json!({ "flow": flow.as_str(), "reason": reason.as_str(), "dead-lettered": events })
        });
        json!({
            "recount": 1,
            "command": "dead-letters",
            "dead-lettered": self.total,
            "by_reason": by_reason.collect::<Vec<_>>(),
            "dead_letters": self.lines.iter().map(|line| line_json(&line.stored)).collect::<Vec<_>>(),
        })
    }

    /// The list for people.
    pub fn text(&self) -> String {
        let mut text = sentence::plural(self.total, "dead letter");
        let by_reason = self.by_reason.iter().map(|((flow, reason), n)| format!("{n} {reason} in {flow}"));
        let by_reason: Vec<String> = by_reason.collect();
        if !by_reason.is_empty() {
            text.push_str(&format!(": {}", by_reason.join(", ")));
        }
        text.push('\n');
        let left_out = self.total - self.lines.len() as u64;
        if left_out > 0 {
            text.push_str(&format!("the newest {}; {left_out} older ones are not shown\n", self.lines.len()));
        }
        for LetterLine { stored } in &self.lines {
            let (at, told) = (stored.header.decided_at, sentence::decision(stored, ""));
            text.push_str(&format!("{at}  {told}\n"));
        }
        text
    }
}

impl Letter {
    fn headers(&self) -> Vec<(&str, &str)> {
        let shown = |name: &str, value: &'_ str| -> bool {
            !value.is_empty() && !CREDENTIALS.contains(&name.to_ascii_lowercase().as_str())
        };
        let headers = self.body.iter().flat_map(|body| &body.headers);
        headers.map(|h| (&*h.name, if shown(&h.name, &h.value) { &*h.value } else { SECRET })).collect()
    }

    /// The JSON form.
    pub fn json(&self) -> Value {
        let mut json = line_json(&self.stored);
        json["recount"] = 1.into();
        json["command"] = "dead-letters show".into();
        json["evidence"] = evidence_json(self.stored.decision.evidence.as_deref());
        json["attempts"] =
            self.body.as_ref().map(|body| attempts_json(&body.attempts)).unwrap_or_default().into();
        json["headers"] =
            self.headers().iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json["payload"] = self.payload.as_ref().map_or(Value::Null, ShownPayload::json);
        json["payload_bytes"] = self.body.as_ref().map(|body| body.payload_bytes).into();
        json["next"] = self.next.clone().into();
        json
    }

    /// One dead letter for people.
    pub fn text(&self) -> String {
        let (header, decision) = (&self.stored.header, &self.stored.decision);
        let mut lines = vec![sentence::decision(&self.stored, "")];
        lines.push(format!("  decided {} by config {}", header.decided_at, header.config.0));
        lines.extend(decision.event_time.map(|at| format!("  happened {at}")));
        if !self.stored.current {
            lines.push("  a later decision replaced this one".to_owned());
        }
        let flags: Vec<&str> = decision.flags.iter().map(|flag| flag.as_str()).collect();
        if !flags.is_empty() {
            lines.push(format!("  flags {}", flags.join(", ")));
        }
        if let Some(evidence) = &decision.evidence {
            lines.push(format!("  found {evidence}"));
        }
        for attempt in self.body.iter().flat_map(|body| &body.attempts) {
            lines.push(format!("  attempt {} at {}: {}", attempt.number, attempt.at, attempt.found));
        }
        for (name, value) in self.headers() {
            lines.push(format!("  header {name}: {value}"));
        }
        match (&self.body, &self.payload) {
            (Some(body), Some(payload)) => {
                let kept = body.payload.len() as u64;
                let cut = if kept < body.payload_bytes { format!(", {kept} kept") } else { String::new() };
                lines.push(format!("  payload, {} bytes{cut}:", body.payload_bytes));
                lines.extend(payload.text().lines().map(|line| format!("    {line}")));
            }
            _ => lines.push("  the payload is no longer kept".to_owned()),
        }
        lines.extend(self.next.iter().map(|command| format!("  next: {command}")));
        lines.join("\n") + "\n"
    }
}
