//! What an audit is given.

use crate::beside_group::GroupWitness;
use crate::witness::{EffectWitness, SourceWitness};
use recount_checks::RawEvent;
use recount_ledger::LedgerRead;
use recount_model::{Amount, Budget, ConfigVersion, FlowName, Origin, ReasonCode, Timestamp};
use std::collections::BTreeMap;

/// The auditor's own way from a record to the event's id: the flow's rules, compiled for the audit.
pub trait Identify {
    /// The id that the record carries under the rules of `config`; `None` for the present rules, which also
    /// stand in where that version's are not to be had.
    fn event_id(&self, config: Option<ConfigVersion>, raw: &RawEvent) -> Option<Box<str>>;
}

impl<F: Fn(Option<ConfigVersion>, &RawEvent) -> Option<Box<str>>> Identify for F {
    fn event_id(&self, config: Option<ConfigVersion>, raw: &RawEvent) -> Option<Box<str>> {
        self(config, raw)
    }
}

/// How the flow's effects can be counted.
#[derive(Clone, Copy, Default)]
pub enum EffectsDeclared<'a> {
    /// The flow has no effect, or no witness for it: E2 is not declared.
    #[default]
    None,
    /// Position rows only (`effects = "none"`): commit-attested.
    Attested(&'a dyn EffectWitness),
    /// One row an effect in `recount_effect`.
    Table(&'a dyn EffectWitness),
    /// The user's own query.
    Custom {
        /// Who runs it.
        witness: &'a dyn EffectWitness,
        /// The query.
        sql: &'a str,
        /// Its column with the event's id; none where only counting is possible.
        id: Option<&'a str>,
    },
    /// The effects of a consumer that Recount doesn't run, which know nothing of our positions.
    Beside {
        /// Position rows from our own arbiter, all else from the consumer's database.
        witness: &'a dyn EffectWitness,
        /// The user's query.
        sql: &'a str,
        /// Its column with the event's id; none where only counting is possible.
        id: Option<&'a str>,
        /// For how long after an event was decided its effect may be missing.
        within_ms: u64,
    },
}

impl<'a> EffectsDeclared<'a> {
    /// The witness, where there is one.
    pub fn witness(&self) -> Option<&'a dyn EffectWitness> {
        match *self {
            Self::None => None,
            Self::Attested(witness)
            | Self::Table(witness)
            | Self::Custom { witness, .. }
            | Self::Beside { witness, .. } => Some(witness),
        }
    }
}

/// Which decisions the left side of a reconcile sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReconcileOf {
    /// Decoded, duplicates left out; each position once, however often it was corrected.
    #[default]
    Received,
    /// Applied.
    Applied,
}

/// One `[[reconcile]]` whose left side counts this flow.
#[derive(Clone)]
pub struct ReconcileAudit<'a> {
    /// Its name.
    pub name: String,
    /// Which of a decision's measures.
    pub measure: usize,
    /// The same for config versions whose reconciles were declared in another order; `None`: that version
    /// did not declare it. A version that is not here uses `measure`.
    pub measure_of: BTreeMap<ConfigVersion, Option<usize>>,
    /// What is summed.
    pub of: ReconcileOf,
    /// Reasons whose amounts did not come to an effect.
    pub less: Vec<ReasonCode>,
    /// Whether both sides are told by group. The group is the measure's, else the event's key.
    pub by_group: bool,
    /// Who is asked for the right side; none: the witness of the flow's effects, in its snapshot, so that
    /// there is a cut.
    pub witness: Option<&'a dyn EffectWitness>,
    /// The right side's query.
    pub sql: String,
    /// By how much the sides (of each group) may differ.
    pub tolerance: Amount,
    /// Where there is no cut: for how long after the last decision they may differ.
    pub within_ms: u64,
}

/// One flow to be counted.
pub struct FlowAudit<'a> {
    /// Its name.
    pub flow: FlowName,
    /// The source; none where no witness is declared for it.
    pub source: Option<&'a dyn SourceWitness>,
    /// The group of an observed consumer; none: only its effects are looked at.
    pub group: Option<&'a dyn GroupWitness>,
    /// How the auditor finds ids; none: E1 is counted, not identified.
    pub identify: Option<&'a dyn Identify>,
    /// How single events are named by id where a finding is about positions that the ledger has no event of.
    pub naming: Option<&'a dyn Identify>,
    /// Where its decisions come from.
    pub origin: Origin,
    /// The effects.
    pub effects: EffectsDeclared<'a>,
    /// In the order of the config.
    pub reconciles: Vec<ReconcileAudit<'a>>,
    /// Every reason with its budget, flags too.
    pub budgets: BTreeMap<ReasonCode, Budget>,
    /// How long positions may stay open.
    pub open_allowed_ms: u64,
    /// When the flow first began, as the journal says: the age of what is open before anything was decided.
    pub began: Option<Timestamp>,
    /// How long there may be silence (`expect`); none: nothing is claimed.
    pub silence_allowed_ms: Option<u64>,
    /// Whether ids come from a secret field: they are then never named, only positions.
    pub id_is_secret: bool,
    /// Whether groups of reconciles come from a secret field: they are then counted, not named.
    pub groups_are_secret: bool,
}

impl<'a> FlowAudit<'a> {
    /// A flow without witnesses; fill in what is declared.
    pub fn new(flow: FlowName) -> Self {
        Self {
            flow,
            source: None,
            group: None,
            identify: None,
            naming: None,
            origin: Origin::Ran,
            effects: EffectsDeclared::None,
            reconciles: Vec::new(),
            budgets: BTreeMap::new(),
            open_allowed_ms: 300_000,
            began: None,
            silence_allowed_ms: None,
            id_is_secret: false,
            groups_are_secret: false,
        }
    }
}

/// What an audit is given.
pub struct AuditInputs<'a> {
    /// The ledger.
    pub ledger: &'a dyn LedgerRead,
    /// In the order of the config.
    pub flows: Vec<FlowAudit<'a>>,
    /// What the ages of open positions are measured by.
    pub now: Timestamp,
    /// Keys the sums of identity; any secret of the installation.
    pub identity_key: [u8; 32],
    /// At most so many positions, ids or groups are named in a finding; the rest is counted.
    pub names_max: usize,
}
