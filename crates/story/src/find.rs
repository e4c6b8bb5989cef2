//! From what a person types to the decisions that it means.

use recount_ledger::{DecisionFilter, LedgerError, LedgerRead, StoredDecision};
use recount_model::{Address, FlowName};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

/// What stands in the place of a secret.
pub(crate) const SECRET: &str = "(secret)";

/// What the config calls secret: it reaches no page.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Paths into a flow's events, such as `event.customer_id`.
    pub paths: BTreeMap<FlowName, Vec<String>>,
    /// Flows whose id comes from a secret field.
    pub ids: BTreeSet<FlowName>,
    /// Flows whose key does.
    pub keys: BTreeSet<FlowName>,
}

impl Secrets {
    /// A copy of a record that may be shown.
    pub fn masked(&self, stored: &StoredDecision) -> StoredDecision {
        let mut shown = stored.clone();
        let flow = &stored.header.at.flow;
        let fields = [(&self.ids, &mut shown.decision.event_id), (&self.keys, &mut shown.decision.key)];
        for (secret, field) in fields {
            if secret.contains(flow) && field.is_some() {
                *field = Some(SECRET.into());
            }
        }
        shown
    }

    /// The secret paths of a flow.
    pub fn paths_of(&self, flow: &FlowName) -> &[String] {
        self.paths.get(flow).map_or(&[], Vec::as_slice)
    }
}

/// What a text turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedAs {
    /// `flow/partition/offset`.
    Position,
    /// An event's key, an event's id, or both.
    KeyOrId,
}

/// The decisions that are meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// In the order decided; those that were corrected too.
    pub decisions: Vec<StoredDecision>,
    /// How many more there are than were kept.
    pub more: u64,
    /// What the text turned out to be.
    pub asked_as: AskedAs,
}

/// Looks a position up, or else a key and an id: at most two questions to the ledger besides. `narrow`
/// gives further conditions; what is secret is masked in what is found.
pub fn find(
    ledger: &dyn LedgerRead,
    asked: &str,
    narrow: &DecisionFilter,
    secrets: &Secrets,
    decisions_max: usize,
) -> Result<Found, LedgerError> {
    if let Ok(address) = asked.parse::<Address>() {
        let filter = DecisionFilter {
            flow: Some(address.flow),
            partition: Some(address.partition.as_str().to_owned()),
            offset_from: Some(address.offset),
            offset_to: address.offset.checked_add(1),
            superseded: true,
            ..narrow.clone()
        };
        let found = collect(ledger, &[filter], AskedAs::Position, secrets, decisions_max)?;
        if !found.decisions.is_empty() {
            return Ok(found);
        }
    }
    let by_key = DecisionFilter { key: Some(asked.to_owned()), superseded: true, ..narrow.clone() };
    let by_id = DecisionFilter { event_id: Some(asked.to_owned()), superseded: true, ..narrow.clone() };
    collect(ledger, &[by_key, by_id], AskedAs::KeyOrId, secrets, decisions_max)
}

fn collect(
    ledger: &dyn LedgerRead,
    filters: &[DecisionFilter],
    asked_as: AskedAs,
    secrets: &Secrets,
    decisions_max: usize,
) -> Result<Found, LedgerError> {
    let mut decisions: Vec<StoredDecision> = Vec::new();
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    let mut more = 0;
    for (ordinal, filter) in filters.iter().enumerate() {
        ledger.decisions(filter, &mut |stored| {
            let place = (stored.header.ordinal, stored.decision.offset);
            if ordinal > 0 && seen.contains(&place) {
                return ControlFlow::Continue(());
            }
            if decisions.len() >= decisions_max {
                more += 1;
                return ControlFlow::Continue(());
            }
            seen.insert(place);
            decisions.push(secrets.masked(stored));
            ControlFlow::Continue(())
        })?;
    }
    decisions.sort_by_key(|stored| (stored.header.decided_at, stored.header.ordinal));
    Ok(Found { decisions, more, asked_as })
}
