//! Dead letters on their way from the ledger to a topic: what was sent is noted beside the ledger, after the cluster
//! acknowledged it, so that a crash between the two sends again rather than never.

use crate::config::{Config, FlowConfig};
use crate::exit::Failure;
use recount_ledger::{DecisionFilter, LedgerRead};
use recount_model::{FlowName, Timestamp};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Dead letters may wait for their topic for so long before the flow is not working.
const TROUBLE_MS_MAX: i64 = 60_000;

/// How far a flow's dead letters have come, as it is kept beside the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterNotes {
    /// The version of this form.
    pub recount: u32,
    /// Of which ledger.
    pub ledger: String,
    /// To which topic, and on which broker.
    pub topic: String,
    /// Everything decided before this place in the ledger's order is settled.
    pub next_ordinal: u64,
    /// Acknowledged by the topic's cluster.
    pub sent: u64,
    /// Refused by it for good.
    pub refused: u64,
    /// Forgotten by the ledger before they were sent.
    pub forgotten: u64,
    /// Why none could be sent of late.
    pub trouble: Option<LetterTrouble>,
}

/// Why dead letters wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterTrouble {
    /// What the cluster, or its client, said.
    pub why: String,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
}

/// How a flow's dead letters stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterStanding {
    /// The topic.
    pub topic: String,
    /// What is noted.
    pub notes: LetterNotes,
    /// On record, and not sent.
    pub waiting: u64,
}

/// Dead letters of a flow that were decided at this place in the ledger's order or later.
pub(super) fn filter(flow: &FlowName, ordinal_from: u64) -> DecisionFilter {
    DecisionFilter {
        flow: Some(flow.clone()),
        verdict: Some("dead-lettered".to_owned()),
        ordinal_from: Some(ordinal_from),
        ..DecisionFilter::default()
    }
}

impl LetterNotes {
    /// Nothing of this ledger was sent to this topic yet.
    pub(super) fn new(ledger: &str, topic: String) -> Self {
        Self { recount: 1, ledger: ledger.to_owned(), topic, ..Self::default() }
    }

    /// What is noted of a flow, if that is of this ledger and topic.
    ///
    /// # Errors
    /// Where there are notes that can't be read.
    pub(super) fn read(path: &Path, ledger: &str, topic: &str) -> Result<Option<Self>, String> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
        };
        let notes: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{} can't be understood: {error}", path.display()))?;
        Ok((notes.ledger == ledger && notes.topic == topic).then_some(notes))
    }

    /// Notes it, so that it outlives a loss of power.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{} can't be written: {error}", path.display());
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        let beside = path.with_extension("tmp");
        let write = || {
            let mut file = std::fs::File::create(&beside)?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)?;
            path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
        };
        write().map_err(failed)
    }
}

/// Where a flow's notes are.
pub(super) fn path(config: &Config, flow: &FlowName) -> PathBuf {
    config.ledger.path.join(format!("dead-letters-{flow}.json"))
}

/// The topic and its broker, as the notes name them.
pub(super) fn name(flow: &FlowConfig) -> String {
    flow.letters
        .as_ref()
        .map(|letters| format!("{} on {}", letters.topic, letters.broker))
        .unwrap_or_default()
}

/// How a flow's dead letters stand; none where it sends them nowhere.
pub fn standing(config: &Config, flow: &FlowConfig) -> Result<Option<LetterStanding>, Failure> {
    if flow.letters.is_none() {
        return Ok(None);
    }
    let (topic, name) = (name(flow), &flow.spec.flow);
    let ledger = super::read_ledger(&config.ledger)?;
    let read = LetterNotes::read(&path(config, name), &ledger.id().0, &topic).map_err(Failure::not_well)?;
    let notes = read.unwrap_or_else(|| LetterNotes::new(&ledger.id().0, topic.clone()));
    let mut waiting = 0;
    ledger
        .decisions(&filter(name, notes.next_ordinal), &mut |_| {
            waiting += 1;
            ControlFlow::Continue(())
        })
        .map_err(super::ledger_failure)?;
    Ok(Some(LetterStanding { topic, notes, waiting }))
}

impl LetterStanding {
    /// Why the flow is not working, where dead letters have waited too long.
    pub fn not_working(&self, now: Timestamp) -> Option<String> {
        let trouble = self.notes.trouble.as_ref().filter(|_| self.waiting > 0)?;
        (now.0.saturating_sub(trouble.since_ms) > TROUBLE_MS_MAX).then(|| self.trouble_sentence(trouble))
    }

    fn trouble_sentence(&self, trouble: &LetterTrouble) -> String {
        let Self { topic, waiting, .. } = self;
        let (noun, wait) = if *waiting == 1 { ("dead letter", "waits") } else { ("dead letters", "wait") };
        let since = Timestamp(trouble.since_ms);
        format!("{waiting} {noun} {wait} in the ledger for the topic {topic} since {since}: {}", trouble.why)
    }

    /// One sentence for a status.
    pub fn sentence(&self) -> String {
        if let Some(trouble) = self.notes.trouble.as_ref().filter(|_| self.waiting > 0) {
            return self.trouble_sentence(trouble);
        }
        let LetterNotes { sent, refused, forgotten, .. } = &self.notes;
        let mut text = format!("dead letters to the topic {}: {sent} sent", self.topic);
        let more = [(self.waiting, "wait"), (*refused, "refused by it"), (*forgotten, "forgotten before")];
        for (count, word) in more.iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!(", {count} {word}"));
        }
        text
    }
}

/// Adds to an audit what it can't see: dead letters that have waited too long for their topic.
pub fn tell_letters(config: &Config, report: &mut recount_audit::AuditReport) -> Result<(), Failure> {
    let now = super::now();
    for audited in &mut report.flows {
        let Some(flow) = config.flow(audited.flow.as_str()) else { continue };
        audited.not_working.extend(standing(config, flow)?.and_then(|letters| letters.not_working(now)));
    }
    Ok(())
}
