//! The one pass over a flow's decisions: identity sums, reconcile sums, and what corrections replaced.

use crate::books::{PartitionFold, fate_index};
use crate::fingerprint::{ChunkSums, IdentityHash, Sum, id_hash, position_hash};
use crate::inputs::{ReconcileAudit, ReconcileOf};
use recount_ledger::{DecisionFilter, LedgerError, LedgerRead, StoredDecision};
use recount_model::{Amount, Fate, FlowName, ReasonCode};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

/// Ids of effects that know no position are summed in so many buckets; one that differs is looked into.
pub(crate) const ID_BUCKETS: usize = 4096;

/// More groups than this are not told one by one: the reconcile is unprovable by group.
pub(crate) const GROUPS_MAX: usize = 1_000_000;

/// The bucket of an id's hash.
pub(crate) fn id_bucket(hash: u128) -> usize {
    (hash % ID_BUCKETS as u128) as usize
}

/// The left side of one reconcile, at the common cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftSums {
    /// Σ of what is summed, before anything is taken off.
    pub total: Amount,
    /// How many decisions that is.
    pub events: u64,
    /// Σ by current reason, of the same decisions.
    pub by_reason: BTreeMap<ReasonCode, Amount>,
    /// Σ by group, with `less` taken off.
    pub groups: BTreeMap<Box<str>, Amount>,
    /// There were more groups than are kept.
    pub too_many_groups: bool,
    /// Decisions that name no group: without a key, or forgotten on request.
    pub ungrouped: u64,
    /// Decisions whose config version did not declare the reconcile.
    pub unmeasured: u64,
    /// Decisions for which the expression gave no number.
    pub without_amount: u64,
}

/// What the decisions of one partition told.
#[derive(Debug, Default)]
pub(crate) struct PartitionHistory {
    /// Position and id of every current decision.
    pub identities: ChunkSums,
    /// Decisions told, corrections included: applied, skipped, dead-lettered.
    pub told_by_decisions: [u64; 3],
    /// Corrections of a decision that was corrected already.
    pub corrected_twice: Vec<u64>,
}

/// What the pass brought.
pub(crate) struct History {
    /// In the order of the folds.
    pub partitions: Vec<PartitionHistory>,
    /// In the order of the flow's reconciles.
    pub left: Vec<LeftSums>,
    /// Ids of what is applied at the common cut, by [`id_bucket`].
    pub applied_ids: Vec<Sum>,
    /// Applied decisions without an id.
    pub applied_without_id: u64,
}

/// One decision of a position that was corrected.
struct Past {
    seq: u64,
    fate: Fate,
    received: bool,
    corrects_seq: Option<u64>,
    event_id: Option<Box<str>>,
    /// One per reconcile: amount and group, or why there is none.
    amounts: Vec<Contribution>,
}

/// What one decision adds to one reconcile.
#[derive(Clone)]
enum Contribution {
    Amount(Amount, Option<Box<str>>),
    NoNumber,
    NotDeclared,
}

/// Reads a flow's decisions once and takes the corrections into the folds' books and applied positions.
pub(crate) fn read(
    ledger: &dyn LedgerRead,
    flow: &FlowName,
    folds: &mut [PartitionFold],
    reconciles: &[ReconcileAudit<'_>],
    identity_key: &[u8; 32],
    position_key: u64,
) -> Result<History, LedgerError> {
    let places: HashMap<_, _> = folds.iter().enumerate().map(|(i, f)| (f.at.clone(), i)).collect();
    let mut hashers: Vec<_> =
        folds.iter().map(|fold| IdentityHash::of_partition(identity_key, &fold.at)).collect();
    let mut history = History {
        partitions: folds.iter().map(|_| PartitionHistory::default()).collect(),
        left: vec![LeftSums::default(); reconciles.len()],
        applied_ids: vec![Sum::default(); ID_BUCKETS],
        applied_without_id: 0,
    };
    let mut pasts: BTreeMap<(usize, u64), Vec<Past>> = BTreeMap::new();
    let filter = DecisionFilter { flow: Some(flow.clone()), superseded: true, ..Default::default() };
    ledger.decisions(&filter, &mut |stored| {
        let Some(&place) = places.get(&stored.header.at) else { return ControlFlow::Continue(()) };
        let fold = &folds[place];
        if stored.header.seq > fold.cut.ledger_seq {
            return ControlFlow::Continue(());
        }
        let decision = &stored.decision;
        if !fold.is_dropped(stored.header.seq) {
            history.partitions[place].told_by_decisions[fate_index(&decision.fate)] += 1;
        }
        if fold.corrected.contains(decision.offset) {
            pasts.entry((place, decision.offset)).or_default().push(Past::of(stored, reconciles));
            return ControlFlow::Continue(());
        }
        if fold.is_dropped(stored.header.seq) {
            return ControlFlow::Continue(());
        }
        let id = decision.event_id.as_deref();
        history.partitions[place].identities.add(decision.offset, hashers[place].of(decision.offset, id));
        if stored.header.seq <= fold.cut.common_seq() {
            if matches!(decision.fate, Fate::Applied) {
                history.add_applied_id(identity_key, id);
            }
            for (left, reconcile) in history.left.iter_mut().zip(reconciles) {
                if decision.received || reconcile.of == ReconcileOf::Applied {
                    left.add(reconcile, &decision.fate, contribution(stored, reconcile));
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    for ((place, offset), past) in pasts {
        let at = (&mut folds[place], place, offset);
        history.take_corrections(at, past, reconciles, &mut hashers[place], identity_key, position_key);
    }
    Ok(history)
}

fn contribution(stored: &StoredDecision, reconcile: &ReconcileAudit<'_>) -> Contribution {
    let declared = reconcile.measure_of.get(&stored.header.config).copied();
    let Some(index) = declared.unwrap_or(Some(reconcile.measure)) else { return Contribution::NotDeclared };
    match stored.decision.measures.get(index) {
        None => Contribution::NotDeclared,
        Some(None) => Contribution::NoNumber,
        Some(Some(measure)) => {
            let group = measure.group.as_ref().or(stored.decision.key.as_ref());
            Contribution::Amount(measure.amount, group.filter(|_| reconcile.by_group).cloned())
        }
    }
}

impl Past {
    fn of(stored: &StoredDecision, reconciles: &[ReconcileAudit<'_>]) -> Self {
        let decision = &stored.decision;
        Self {
            seq: stored.header.seq,
            fate: decision.fate.clone(),
            received: decision.received,
            corrects_seq: decision.corrects.map(|c| c.seq),
            event_id: decision.event_id.clone(),
            amounts: reconciles.iter().map(|r| contribution(stored, r)).collect(),
        }
    }
}

impl LeftSums {
    fn add(&mut self, reconcile: &ReconcileAudit<'_>, current: &Fate, contribution: Contribution) {
        if reconcile.of == ReconcileOf::Applied && !matches!(current, Fate::Applied) {
            return;
        }
        let (amount, group) = match contribution {
            Contribution::NotDeclared => return self.unmeasured += 1,
            Contribution::NoNumber => return self.without_amount += 1,
            Contribution::Amount(amount, group) => (amount, group),
        };
        self.events += 1;
        self.total = self.total.plus(amount);
        let mut left_out = false;
        if let Some(reason) = current.reason() {
            left_out = reconcile.less.contains(&reason.code);
            match self.by_reason.get_mut(&reason.code) {
                Some(sum) => *sum = sum.plus(amount),
                None => drop(self.by_reason.insert(reason.code.clone(), amount)),
            }
        }
        if reconcile.by_group && !left_out {
            self.ungrouped += u64::from(group.is_none());
            self.add_to_group(group.unwrap_or_default(), amount);
        }
    }

    fn add_to_group(&mut self, group: Box<str>, amount: Amount) {
        if let Some(sum) = self.groups.get_mut(&group) {
            *sum = sum.plus(amount);
        } else if self.groups.len() < GROUPS_MAX {
            self.groups.insert(group, amount);
        } else {
            self.too_many_groups = true;
        }
    }

    /// What the right side ought to be.
    pub fn expected(&self, less: &[ReasonCode]) -> Amount {
        less.iter().filter_map(|code| self.by_reason.get(code)).fold(self.total, |sum, n| sum.minus(*n))
    }
}

impl History {
    fn add_applied_id(&mut self, key: &[u8; 32], event_id: Option<&str>) {
        match event_id {
            Some(id) => {
                let hash = id_hash(key, id);
                self.applied_ids[id_bucket(hash)].add(hash);
            }
            None => self.applied_without_id += 1,
        }
    }

    /// One corrected position: the last decision counts, at each cut its own last.
    fn take_corrections(
        &mut self,
        (fold, place, offset): (&mut PartitionFold, usize, u64),
        mut past: Vec<Past>,
        reconciles: &[ReconcileAudit<'_>],
        hasher: &mut IdentityHash,
        identity_key: &[u8; 32],
        position_key: u64,
    ) {
        past.sort_by_key(|p| p.seq);
        for old in &past[..past.len() - 1] {
            fold.books.remove_fate(&old.fate);
        }
        let mut named: Vec<_> = past.iter().filter_map(|p| p.corrects_seq).collect();
        named.sort_unstable();
        if named.windows(2).any(|pair| pair[0] == pair[1]) {
            self.partitions[place].corrected_twice.push(offset);
        }
        let id = past.iter().rev().find_map(|p| p.event_id.as_deref());
        if !fold.dropped.contains(offset) {
            self.partitions[place].identities.add(offset, hasher.of(offset, id));
        }

        let until = fold.cut.common_seq();
        let at_cut: Vec<&Past> = past.iter().filter(|p| p.seq <= until).collect();
        let Some(current) = at_cut.last() else { return };
        let first_applied =
            at_cut.iter().any(|p| p.corrects_seq.is_none() && matches!(p.fate, Fate::Applied));
        match (first_applied, matches!(current.fate, Fate::Applied)) {
            _ if fold.dropped.contains(offset) => {}
            (true, false) => fold.applied.remove(offset, position_hash(position_key, offset)),
            (false, true) => fold.applied.add(offset, position_hash(position_key, offset)),
            _ => {}
        }
        if matches!(current.fate, Fate::Applied) {
            self.add_applied_id(identity_key, id);
        }
        for (i, (left, reconcile)) in self.left.iter_mut().zip(reconciles).enumerate() {
            if at_cut.iter().any(|p| p.received) || reconcile.of == ReconcileOf::Applied {
                left.add(reconcile, &current.fate, current.amounts[i].clone());
            }
        }
    }
}
