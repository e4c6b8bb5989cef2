//! What `recount status` says, as data: the command prints it, `GET /v1/status` sends it.

use crate::wiring::letters::{LetterNotes, LetterStanding};
use recount_model::{BookCounts, Timestamp};
use serde::{Deserialize, Serialize};

/// The answer for every flow of a config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this form.
    pub recount: u32,
    /// `status`.
    pub command: String,
    /// When the books were counted.
    pub at: String,
    /// The command's exit code.
    pub exit_code: u8,
    /// Whether every flow works; none where that can't be told.
    pub working: Option<bool>,
    /// The first line.
    pub answer: String,
    /// Whether an instance runs.
    pub running: bool,
    /// Where it listens.
    pub instance: Option<String>,
    /// Since when it runs.
    pub running_since: Option<String>,
    /// The config that was looked at: BLAKE3 of its text and schemas.
    pub config_hash: String,
    /// What should be known beside the answer.
    pub notes: Vec<String>,
    /// Why the ledger could not be read to the end.
    pub ledger_error: Option<String>,
    /// In the order of the config.
    pub flows: Vec<FlowStatus>,
    /// Commands to paste.
    pub next: Vec<String>,
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Its name.
    pub flow: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// Whether the running instance runs it.
    pub running: bool,
    /// Whether it works; none where that can't be told.
    pub working: Option<bool>,
    /// The worst of its statements.
    pub status: String,
    /// Why it is not working.
    pub not_working: Vec<String>,
    /// What would have to be known to say that it works.
    pub not_known: Vec<String>,
    /// Whether the published side could be counted.
    pub published_known: bool,
    /// The law's terms.
    pub books: Terms,
    /// Shares of skipped and dead-lettered, in words.
    pub shares: String,
    /// Each equation.
    pub statements: Vec<StatementStatus>,
    /// Each reason and flag that occurred.
    pub reasons: Vec<ReasonStatus>,
    /// Published and not decided; none where the published side is not known.
    pub backlog: Option<u64>,
    /// When the oldest open event was taken, or, with no instance, the last decision before it.
    pub oldest_open_at: Option<String>,
    /// Its age when the books were counted, in milliseconds.
    pub oldest_open_age_ms: Option<u64>,
    /// Events that wait behind a held key; none where no instance runs.
    pub held: Option<u64>,
    /// Keys that stay held after their last attempt, until somebody resumes the flow.
    pub keys_held: u64,
    /// By reason, the most frequent first.
    pub dead_letters: Vec<DeadLetterStatus>,
    /// The topic that they are sent to; none where there is none.
    pub dead_letter_topic: Option<LetterTopicStatus>,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// The group of an observed consumer, as in the audit's JSON; none where none is declared or it can't be asked.
    pub group: Option<serde_json::Value>,
    /// When it last decided something.
    pub last_decided_at: Option<String>,
    /// The last change of its config.
    pub change: Option<Change>,
}

/// The law's terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Terms {
    /// Positions that the source holds or held.
    pub published: u64,
    /// Positions with a verdict.
    pub decided: u64,
    /// Applied.
    pub applied: u64,
    /// Skipped.
    pub skipped: u64,
    /// Dead-lettered.
    pub dead_lettered: u64,
    /// Never reached us.
    pub lost: u64,
    /// Carry no event.
    pub not_an_event: u64,
    /// Consumed without a record.
    pub unrecorded: u64,
    /// Without a fate, inside of their allowed time.
    pub open: u64,
    /// Anything but 0 is imbalanced.
    pub unexplained: i64,
}

impl From<&BookCounts> for Terms {
    fn from(counts: &BookCounts) -> Self {
        Self {
            published: counts.published,
            decided: counts.decided(),
            applied: counts.applied,
            skipped: counts.skipped,
            dead_lettered: counts.dead_lettered,
            lost: counts.lost,
            not_an_event: counts.not_an_event,
            unrecorded: counts.unrecorded,
            open: counts.open,
            unexplained: i64::try_from(counts.unexplained()).unwrap_or(i64::MAX),
        }
    }
}

/// One equation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatementStatus {
    /// `E1`, `E2`, `E3`.
    pub equation: String,
    /// What it says.
    pub name: String,
    /// What it comes to.
    pub status: String,
    /// How much it can see.
    pub strength: String,
    /// One side, where both could be counted.
    pub left: Option<String>,
    /// The other.
    pub right: Option<String>,
}

/// One reason or flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReasonStatus {
    /// `skipped`, `dead-lettered` or `flagged`.
    pub verdict: String,
    /// Its code.
    pub reason: String,
    /// Current decisions with it.
    pub events: u64,
    /// Their share of what was decided.
    pub share_percent: f64,
    /// The same as it is printed.
    pub share: String,
    /// Its budget as declared.
    pub budget: String,
    /// `within`, `at its limit`, `exceeded` or `any`.
    pub budget_status: String,
    /// How many the budget allows in its window; none where that is no number of events.
    pub allowed: Option<u64>,
    /// The most that a window held.
    pub worst: u64,
}

/// The dead letters of one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterStatus {
    /// The reason.
    pub reason: String,
    /// How many.
    pub events: u64,
    /// The position of the newest.
    pub newest: String,
    /// When that was decided.
    pub newest_at: String,
}

/// How far dead letters have come to their topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LetterTopicStatus {
    /// The topic and its broker.
    pub topic: String,
    /// All of it in one sentence.
    pub sentence: String,
    /// On record, and not sent.
    pub waiting: u64,
    /// Acknowledged.
    pub sent: u64,
    /// Refused for good; the ledger keeps them.
    pub refused: u64,
    /// Forgotten before they were sent.
    pub forgotten: u64,
    /// Why none could be sent of late.
    pub trouble: Option<String>,
    /// Since when.
    pub trouble_since: Option<String>,
}

impl From<LetterStanding> for LetterTopicStatus {
    fn from(standing: LetterStanding) -> Self {
        let sentence = standing.sentence();
        let LetterStanding { topic, notes, waiting } = standing;
        let LetterNotes { sent, refused, forgotten, trouble, .. } = notes;
        let trouble_since = trouble.as_ref().map(|trouble| Timestamp(trouble.since_ms).to_string());
        let trouble = trouble.map(|trouble| trouble.why);
        Self { topic, sentence, waiting, sent, refused, forgotten, trouble, trouble_since }
    }
}

/// The last change of a flow's config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The config version that brought it.
    pub config: u32,
    /// By whom.
    pub author: String,
    /// Which revision of the repository.
    pub revision: String,
    /// Since when.
    pub since: String,
    /// What changed, in words; empty for the first version.
    pub what: Vec<String>,
}
