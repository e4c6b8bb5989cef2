//! Everything that was decided about one key, id or position, in the order decided.

use crate::find::{AskedAs, Secrets, find};
use crate::sentence::{self, plural};
use recount_ledger::{
    DecisionFilter, JournalEntry, JournalKind, LedgerError, LedgerRead, StoredConfig, StoredDecision,
};
use recount_model::batch::Attempt;
use recount_model::{Fate, FlowName, Partition, PartitionId, SourceId, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How a story is told.
#[derive(Debug, Clone)]
pub struct StoryOptions {
    /// Tell every applied event by itself.
    pub all: bool,
    /// Only what was decided at or after.
    pub from: Option<Timestamp>,
    /// Only what was decided before.
    pub to: Option<Timestamp>,
    /// Up to this many events, each applied one is told by itself anyway.
    pub unfolded_max: usize,
    /// At most so many decisions are held; the rest is counted.
    pub decisions_max: usize,
    /// Entries of the journal are told from this long before the first decision to this long after the
    /// last.
    pub nearby_ms: i64,
    /// At most so many bodies are read for their attempts, and so many entries of the journal told.
    pub details_max: usize,
    /// What must not be shown.
    pub secrets: Secrets,
}

impl Default for StoryOptions {
    fn default() -> Self {
        Self {
            all: false,
            from: None,
            to: None,
            unfolded_max: 20,
            decisions_max: 100_000,
            nearby_ms: 3_600_000,
            details_max: 100,
            secrets: Secrets::default(),
        }
    }
}

/// One line of a story.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// One decision.
    Decision(Box<DecisionEntry>),
    /// Several applied events in a row, with nothing to be said of them.
    Applied {
        /// When the first was decided.
        at: Timestamp,
        /// When the last was.
        until: Timestamp,
        /// How many.
        count: u64,
        /// Where the first stands.
        first: String,
        /// Where the last stands.
        last: String,
        /// Which incarnation of the source they are from, where the flow has several.
        incarnation: Option<String>,
    },
    /// Another config version decides from here on.
    Config {
        /// When its first decision here was made.
        at: Timestamp,
        /// Its ordinal.
        version: u32,
        /// The sentence.
        sentence: String,
    },
    /// Something that concerns the flow, nearby.
    Journal {
        /// When it happened.
        at: Timestamp,
        /// The entry's ordinal.
        ordinal: u64,
        /// The sentence.
        sentence: String,
        /// The entry's own detail.
        detail: Value,
    },
}

/// One decision, told.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionEntry {
    /// The record.
    pub stored: StoredDecision,
    /// The sentence.
    pub sentence: String,
    /// Attempts, oldest first, where the event was kept and there was more than one.
    pub attempts: Vec<Attempt>,
    /// What it replaced, in words.
    pub replaced: Option<String>,
    /// What replaced it, in words.
    pub replaced_by: Option<String>,
    /// Which incarnation of the source its position is of, where the flow has several.
    pub incarnation: Option<String>,
}

/// What happened, summary first.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// What was asked for.
    pub asked: String,
    /// One sentence.
    pub summary: String,
    /// How many events (positions) it is about.
    pub events: u64,
    /// In the order decided.
    pub entries: Vec<Entry>,
    /// Decisions that were left out, since there were too many.
    pub more: u64,
}

/// Tells the story of a key, an id or a position `flow/partition/offset`. One pass over the decisions; a
/// body is read only where there were several attempts.
pub fn story(ledger: &dyn LedgerRead, asked: &str, options: &StoryOptions) -> Result<Story, LedgerError> {
    let narrow = DecisionFilter { from: options.from, to: options.to, ..Default::default() };
    let found = find(ledger, asked, &narrow, &options.secrets, options.decisions_max)?;
    let decisions = found.decisions;
    let histories = Histories::of(&decisions);
    let summary = summary(asked, found.asked_as, &decisions, &histories);
    let configs = ledger.configs()?;
    let journal = journal_nearby(ledger, &decisions, options)?;
    let incarnations = Incarnations::of(ledger)?;
    let told = Told { ledger, asked, options, histories: &histories, incarnations };
    let entries = told.entries(&decisions, &configs, journal)?;
    Ok(Story { asked: asked.to_owned(), summary, events: histories.events(), entries, more: found.more })
}

/// Decisions by position: what replaced what.
struct Histories<'a> {
    by_position: HashMap<(PartitionId, u64), Vec<&'a StoredDecision>>,
}

impl<'a> Histories<'a> {
    fn of(decisions: &'a [StoredDecision]) -> Self {
        let mut by_position: HashMap<_, Vec<&StoredDecision>> = HashMap::new();
        for stored in decisions {
            by_position.entry((stored.header.at.clone(), stored.decision.offset)).or_default().push(stored);
        }
        by_position.values_mut().for_each(|history| history.sort_by_key(|stored| stored.header.seq));
        Self { by_position }
    }

    fn events(&self) -> u64 {
        self.by_position.len() as u64
    }

    fn of_position(&self, stored: &StoredDecision) -> &[&'a StoredDecision] {
        self.by_position.get(&(stored.header.at.clone(), stored.decision.offset)).map_or(&[], Vec::as_slice)
    }

    fn before(&self, stored: &StoredDecision) -> Option<&'a StoredDecision> {
        let corrects = stored.decision.corrects?;
        self.of_position(stored).iter().find(|old| old.header.seq == corrects.seq).copied()
    }

    fn after(&self, stored: &StoredDecision) -> Option<&'a StoredDecision> {
        let replaces =
            |new: &&&StoredDecision| new.decision.corrects.is_some_and(|c| c.seq == stored.header.seq);
        self.of_position(stored).iter().find(replaces).copied()
    }
}

/// `3 events about 1095275 in flow reserve-stock: 2 applied, 1 dead-lettered insufficient_stock`.
fn summary(
    asked: &str,
    asked_as: AskedAs,
    decisions: &[StoredDecision],
    histories: &Histories<'_>,
) -> String {
    if decisions.is_empty() {
        return format!(
            "nothing was decided about {asked}: no key, id or position in this ledger is called that"
        );
    }
    let mut fates: BTreeMap<String, u64> = BTreeMap::new();
    let mut anew: BTreeMap<String, u64> = BTreeMap::new();
    for history in histories.by_position.values() {
        let (Some(first), Some(last)) = (history.first(), history.last()) else { continue };
        *fates.entry(sentence::became(&last.decision)).or_default() += 1;
        if history.len() > 1 {
            let change = format!("{} became {}", first.decision.fate, last.decision.fate);
            *anew.entry(change).or_default() += 1;
        }
    }
    let flows: BTreeSet<&str> = decisions.iter().map(|stored| stored.header.at.flow.as_str()).collect();
    let flows: Vec<&str> = flows.into_iter().collect();
    let about = match asked_as {
        AskedAs::Position => "at",
        AskedAs::KeyOrId => "about",
    };
    let mut text = format!(
        "{} {about} {asked} in flow{} {}: {}",
        plural(histories.events(), "event"),
        if flows.len() == 1 { "" } else { "s" },
        flows.join(", "),
        counted(&fates)
    );
    if !anew.is_empty() {
        text.push_str(&format!("; replayed: {}", counted(&anew)));
    }
    text
}

/// `2 applied, 1 skipped zero_quantity`, the most frequent first.
fn counted(counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), (*word).clone()));
    sorted.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

/// What operators and the flows themselves did around the decisions.
fn journal_nearby(
    ledger: &dyn LedgerRead,
    decisions: &[StoredDecision],
    options: &StoryOptions,
) -> Result<Vec<(u64, JournalEntry)>, LedgerError> {
    let (Some(first), Some(last)) = (decisions.first(), decisions.last()) else { return Ok(Vec::new()) };
    let from = first.header.decided_at.0.saturating_sub(options.nearby_ms);
    let to = last.header.decided_at.0.saturating_add(options.nearby_ms);
    let flows: BTreeSet<&FlowName> = decisions.iter().map(|stored| &stored.header.at.flow).collect();
    let mut nearby = ledger.journal(None)?;
    nearby.retain(|(_, entry)| {
        matches!(entry.kind, JournalKind::Operator | JournalKind::Flow)
            && (from..=to).contains(&entry.at.0)
            && entry.flow.as_ref().is_none_or(|flow| flows.contains(flow))
    });
    nearby.truncate(options.details_max);
    nearby.sort_by_key(|(ordinal, entry)| (entry.at, *ordinal));
    Ok(nearby)
}

/// What telling needs at hand.
struct Told<'a> {
    ledger: &'a dyn LedgerRead,
    asked: &'a str,
    options: &'a StoryOptions,
    histories: &'a Histories<'a>,
    incarnations: Incarnations,
}

/// The sources that each flow has had, oldest first.
struct Incarnations(BTreeMap<FlowName, Vec<SourceId>>);

impl Incarnations {
    fn of(ledger: &dyn LedgerRead) -> Result<Self, LedgerError> {
        let mut of_flow: BTreeMap<FlowName, Vec<SourceId>> = BTreeMap::new();
        let mut seen: BTreeSet<PartitionId> = BTreeSet::new();
        let mut places: BTreeMap<(FlowName, Partition), u64> = BTreeMap::new();
        for at in ledger.partitions()? {
            if seen.insert(at.clone()) {
                *places.entry((at.flow.clone(), at.partition.clone())).or_default() += 1;
                let sources = of_flow.entry(at.flow).or_default();
                if !sources.contains(&at.source) {
                    sources.push(at.source);
                }
            }
        }
        // Files of one folder are different sources too, but a position of theirs means only one event.
        of_flow.retain(|flow, _| places.iter().any(|((of, _), count)| of == flow && *count > 1));
        Ok(Self(of_flow))
    }

    /// `incarnation 2 of 3 (file:…)`; none where the flow has had only one.
    fn told(&self, at: &PartitionId) -> Option<String> {
        let sources = self.0.get(&at.flow)?;
        let place = sources.iter().position(|source| *source == at.source)?;
        Some(format!("incarnation {} of {} of the source ({})", place + 1, sources.len(), at.source))
    }
}

impl Told<'_> {
    fn entries(
        &self,
        decisions: &[StoredDecision],
        configs: &[StoredConfig],
        journal: Vec<(u64, JournalEntry)>,
    ) -> Result<Vec<Entry>, LedgerError> {
        let configs: BTreeMap<u32, &StoredConfig> = configs.iter().map(|c| (c.version.0, c)).collect();
        let fold = !self.options.all && decisions.len() > self.options.unfolded_max;
        let mut entries: Vec<Entry> = Vec::new();
        let mut journal = journal.into_iter().peekable();
        let mut config_of: HashMap<&FlowName, u32> = HashMap::new();
        let mut bodies_left = self.options.details_max;
        for stored in decisions {
            let at = stored.header.decided_at;
            while let Some(entry) = journal.next_if(|(_, entry)| entry.at <= at) {
                entries.push(journal_entry(entry));
            }
            let version = stored.header.config.0;
            if config_of.insert(&stored.header.at.flow, version) != Some(version) {
                entries.push(Entry::Config { at, version, sentence: sentence::config(version, &configs) });
            }
            if fold && is_plain(stored) {
                add_applied(&mut entries, stored, self.incarnations.told(&stored.header.at));
            } else {
                entries.push(Entry::Decision(Box::new(self.decision(stored, &mut bodies_left)?)));
            }
        }
        entries.extend(journal.map(journal_entry));
        Ok(entries)
    }

    fn decision(
        &self,
        stored: &StoredDecision,
        bodies_left: &mut usize,
    ) -> Result<DecisionEntry, LedgerError> {
        let decision = &stored.decision;
        let mut attempts = Vec::new();
        if decision.attempt > 1 && *bodies_left > 0 {
            *bodies_left -= 1;
            let body = self.ledger.body(&stored.header.at, decision.offset)?;
            attempts = body.map(|body| body.attempts).unwrap_or_default();
        }
        let replay = |of: &StoredDecision| of.decision.corrects.map_or(0, |c| c.replay_id);
        let replaced = decision.corrects.map(|corrects| match self.histories.before(stored) {
            Some(old) => format!("replay {} decided it anew; before, it {}", corrects.replay_id, past(old)),
            None => format!("replay {} decided it anew", corrects.replay_id),
        });
        let replaced_by = self.histories.after(stored).map(|new| {
            format!("replay {} decided it anew at {}: it {}", replay(new), new.header.decided_at, past(new))
        });
        let sentence = sentence::decision(stored, self.asked);
        let incarnation = self.incarnations.told(&stored.header.at);
        Ok(DecisionEntry { stored: stored.clone(), sentence, attempts, replaced, replaced_by, incarnation })
    }
}

fn past(stored: &StoredDecision) -> String {
    format!("was {}", stored.decision.fate)
}

fn journal_entry((ordinal, entry): (u64, JournalEntry)) -> Entry {
    Entry::Journal { at: entry.at, ordinal, sentence: sentence::journal(&entry), detail: entry.detail }
}

/// Applied at the first attempt, without a flag, never corrected: nothing more to be said.
fn is_plain(stored: &StoredDecision) -> bool {
    let decision = &stored.decision;
    matches!(decision.fate, Fate::Applied)
        && decision.flags.is_empty()
        && decision.attempt <= 1
        && decision.corrects.is_none()
        && decision.evidence.is_none()
        && stored.current
}

fn add_applied(entries: &mut Vec<Entry>, stored: &StoredDecision, of: Option<String>) {
    let decided_at = stored.header.decided_at;
    let position = stored.header.at.position(stored.decision.offset).to_string();
    if let Some(Entry::Applied { until, count, last, incarnation, .. }) = entries.last_mut()
        && *incarnation == of
    {
        (*until, *last) = (decided_at, position);
        *count += 1;
    } else {
        let (first, last) = (position.clone(), position);
        let (at, until) = (decided_at, decided_at);
        entries.push(Entry::Applied { at, until, count: 1, first, last, incarnation: of });
    }
}

impl Story {
    /// Whether anything was found.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// The JSON form.
    pub fn json(&self) -> Value {
        json!({
            "recount": 1,
            "command": "story",
            "asked": self.asked,
            "summary": self.summary,
            "events": self.events,
            "more": self.more,
            "entries": self.entries.iter().map(Entry::json).collect::<Vec<_>>(),
        })
    }
}

impl Entry {
    fn json(&self) -> Value {
        match self {
            Self::Decision(entry) => entry.json(),
            Self::Applied { at, until, count, first, last, incarnation } => json!({
                "kind": "applied",
                "at": at.to_string(),
                "until": until.to_string(),
                "count": count,
                "first": first,
                "last": last,
                "incarnation": incarnation,
            }),
            Self::Config { at, version, sentence } => json!({
                "kind": "config",
                "at": at.to_string(),
                "config": version,
                "sentence": sentence,
            }),
            Self::Journal { at, ordinal, sentence, detail } => json!({
                "kind": "journal",
                "at": at.to_string(),
                "ordinal": ordinal,
                "sentence": sentence,
                "detail": detail,
            }),
        }
    }
}

/// Evidence is one JSON object; what isn't is kept as text.
pub(crate) fn evidence_json(evidence: Option<&str>) -> Value {
    let Some(text) = evidence else { return Value::Null };
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Attempts in their JSON form.
pub(crate) fn attempts_json(attempts: &[Attempt]) -> Vec<Value> {
    let told = |a: &Attempt| json!({ "attempt": a.number, "at": a.at.to_string(), "found": a.found });
    attempts.iter().map(told).collect()
}

impl DecisionEntry {
    fn json(&self) -> Value {
        let (header, decision) = (&self.stored.header, &self.stored.decision);
        json!({
            "kind": "decision",
            "at": header.decided_at.to_string(),
            "sentence": self.sentence,
            "position": header.at.position(decision.offset).to_string(),
            "source": header.at.source.as_str(),
            "event_id": decision.event_id,
            "key": decision.key,
            "verdict": decision.fate.word(),
            "reason": decision.fate.reason().map(|r| r.code.as_str()),
            "flags": decision.flags.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
            "attempt": decision.attempt,
            "attempts": attempts_json(&self.attempts),
            "evidence": evidence_json(decision.evidence.as_deref()),
            "config": header.config.0,
            "origin": decision.origin.word(),
            "event_time": decision.event_time.map(|at| at.to_string()),
            "taken_at": header.taken_at.to_string(),
            "persisted_at": header.persisted_at.to_string(),
            "current": self.stored.current,
            "replay": decision.corrects.map(|c| c.replay_id),
            "replaced": self.replaced,
            "replaced_by": self.replaced_by,
            "incarnation": self.incarnation,
        })
    }
}
