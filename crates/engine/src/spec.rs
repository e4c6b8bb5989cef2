//! A flow as the engine and its effects need it: resolved, valid, without a trace of the config's syntax.

use crate::source::TakeLimits;
use recount_model::decide::AfterLast;
use recount_model::{Budget, ConfigVersion, FlowName, Origin, ReasonCode, Verdict};
use std::collections::BTreeMap;

/// How many rows a statement must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRange {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

/// One statement of an `apply`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlStatement {
    /// With named parameters, `:sku`.
    pub sql: String,
    /// What it must change; anything else isn't applied.
    pub rows: RowRange,
}

/// What an `otherwise` of an apply says, or a declared reason of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherwiseVerdict {
    /// Left out on purpose.
    Skip,
    /// Kept whole.
    DeadLetter,
    /// Held, and tried again.
    Retry,
}

impl OtherwiseVerdict {
    /// Whether a verdict is of this kind, whatever its reason.
    pub fn is_of(self, verdict: &Verdict) -> bool {
        matches!(
            (self, verdict),
            (Self::Skip, Verdict::Skip(_))
                | (Self::DeadLetter, Verdict::DeadLetter(_))
                | (Self::Retry, Verdict::Retry(_))
        )
    }
}

/// One `[[flow.x.apply.otherwise]]`; the first whose `when` holds gives the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherwiseRule {
    /// A query with the apply's parameters; holds if its first row's first column is true (not 0, not
    /// null). None always holds.
    pub when: Option<String>,
    /// Where not empty, it is asked where a statement erred, not of row counts: the SQLSTATEs (five
    /// characters) or classes (two) for which it gives the verdict.
    pub sqlstates: Vec<String>,
    /// What then.
    pub verdict: OtherwiseVerdict,
    /// The reason.
    pub reason: ReasonCode,
    /// The sentence.
    pub because: String,
}

impl OtherwiseRule {
    /// Whether it is asked where a statement changed another number of rows than declared.
    pub fn is_of_rows(&self) -> bool {
        self.sqlstates.is_empty()
    }
}

/// One `[[flow.x.apply]]` with SQL; the event's `route` is its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlRoute {
    /// In order; all in the event's own all-or-nothing.
    pub statements: Vec<SqlStatement>,
    /// Names of the event's `params`, in their order, without the colon.
    pub params: Vec<String>,
    /// What is said where a row count isn't the declared one, or a statement erred.
    pub otherwise: Vec<OtherwiseRule>,
    /// SQLSTATEs or classes that are the event's fault beside those that always are.
    pub sqlstates: Vec<String>,
}

/// How effects are counted in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectRows {
    /// One row an applied event in `recount_effect`, in the same transaction.
    Table,
    /// The user's own: a query that lists effects, and its column with the event's id.
    Custom {
        /// The query.
        sql: String,
        /// The column; none where only counting is possible.
        id: Option<String>,
    },
    /// Not counted: E2 is commit-attested only.
    None,
}

/// Retrying one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrySpec {
    /// At least 1.
    pub attempts_max: u32,
    /// Before the second attempt.
    pub backoff_first_ms: u64,
    /// It doubles up to this.
    pub backoff_max_ms: u64,
    /// A share of the backoff, 0 to 1, taken off at random.
    pub jitter: f64,
    /// What becomes of the key.
    pub after_last: AfterLast,
}

/// What may wait behind held keys, in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldSpec {
    /// Events; at the bound the partition stops and says so.
    pub events_max: usize,
    /// Payload bytes.
    pub bytes_max: usize,
}

/// What the breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerAction {
    /// The flow pauses until an operator resumes it.
    Pause,
    /// It only says so.
    Alert,
}

/// Too many not applied among the last: reasons with the budget `any` don't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSpec {
    /// Parts per million.
    pub share_ppm: u32,
    /// How many events back.
    pub of_last: u32,
    /// What then.
    pub action: BreakerAction,
}

/// A flow's settings for the loop.
#[derive(Debug, Clone)]
pub struct FlowSpec {
    /// Its name.
    pub flow: FlowName,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// The config version that decides.
    pub config: ConfigVersion,
    /// Where its decisions come from: Recount ran the effect, or a consumer's is reported or expected.
    pub origin: Origin,
    /// One take.
    pub take: TakeLimits,
    /// Retrying.
    pub retry: RetrySpec,
    /// Holding.
    pub hold: HoldSpec,
    /// Duplicates are found among this many last events with an id, in the partition.
    pub dedupe_events: usize,
    /// The breaker.
    pub breaker: BreakerSpec,
    /// Every reason that the flow may give, built-in ones included, with its budget. Flags too.
    pub budgets: BTreeMap<ReasonCode, Budget>,
    /// The id comes from a secret field: it isn't shown in logs.
    pub id_is_secret: bool,
    /// The key comes from a secret field: it isn't shown in logs.
    pub key_is_secret: bool,
    /// Bodies of skipped events are kept up to this many bytes; 0 keeps none.
    pub keep_skipped_bytes_max: usize,
    /// At most so many committed batches may wait for the ledger.
    pub ledger_batches_waiting_max: usize,
    /// First wait after the effect was away; doubles up to `away_backoff_max_ms`.
    pub away_backoff_first_ms: u64,
    /// The longest wait.
    pub away_backoff_max_ms: u64,
}
