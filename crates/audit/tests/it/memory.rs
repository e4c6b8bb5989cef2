//! A ledger in memory, for tests of what reads one.

use recount_ledger::store::Run;
use recount_ledger::{
    BatchHeader, DecisionFilter, JournalEntry, LedgerError, LedgerId, LedgerRead, Mark, StoredBatch,
    StoredConfig, StoredDecision,
};
use recount_model::{BatchRecord, Decision, FlowName, KeptBody, PartitionId, Timestamp};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Batches in the order decided. A test damages it by taking decisions out of the records.
#[derive(Default)]
pub struct MemoryLedger {
    pub batches: Vec<BatchRecord>,
    pub configs: Vec<StoredConfig>,
    pub journal: Vec<JournalEntry>,
}

impl MemoryLedger {
    fn header(&self, ordinal: usize) -> BatchHeader {
        let record = &self.batches[ordinal];
        BatchHeader {
            at: record.at.clone(),
            epoch: record.epoch,
            seq: record.seq,
            ordinal: ordinal as u64 + 1,
            config: record.config,
            taken_at: record.taken_at,
            decided_at: record.decided_at,
            persisted_at: Timestamp(record.decided_at.0 + 5),
            next_offset: record.next_offset,
            decided_above: record.decided_above.clone(),
        }
    }

    /// Which decisions a later batch corrects: partition, seq, offset.
    fn corrected(&self) -> HashSet<(&PartitionId, u64, u64)> {
        let of_batch = |batch: &'_ BatchRecord| -> Vec<(u64, u64)> {
            batch.decisions.iter().filter_map(|d| Some((d.corrects?.seq, d.offset))).collect()
        };
        let all = self.batches.iter();
        all.flat_map(|b| of_batch(b).into_iter().map(|(seq, offset)| (&b.at, seq, offset))).collect()
    }
}

fn runs(decisions: &[Decision]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for decision in decisions {
        let mut fate = decision.fate.clone();
        if let recount_model::Fate::Skipped(reason) | recount_model::Fate::DeadLettered(reason) = &mut fate {
            reason.sentence.clear();
        }
        let run = Run {
            from: decision.offset,
            to: decision.offset + 1,
            fate,
            flags: decision.flags.clone(),
            received: decision.received,
            correction: decision.corrects.is_some(),
        };
        match runs.last_mut() {
            Some(last)
                if last.to == run.from
                    && (&last.fate, &last.flags, last.received, last.correction)
                        == (&run.fate, &run.flags, run.received, run.correction) =>
            {
                last.to += 1;
            }
            _ => runs.push(run),
        }
    }
    runs
}

fn matches(filter: &DecisionFilter, stored: &StoredDecision) -> bool {
    let (header, decision) = (&stored.header, &stored.decision);
    let reason = decision.fate.reason().map(|r| &r.code);
    filter.flow.as_ref().is_none_or(|flow| *flow == header.at.flow)
        && filter.partition.as_deref().is_none_or(|name| name == header.at.partition.as_str())
        && filter.offset_from.is_none_or(|from| decision.offset >= from)
        && filter.offset_to.is_none_or(|to| decision.offset < to)
        && filter.event_id.as_deref().is_none_or(|id| decision.event_id.as_deref() == Some(id))
        && filter.key.as_deref().is_none_or(|key| decision.key.as_deref() == Some(key))
        && filter.verdict.as_deref().is_none_or(|word| word == decision.fate.word())
        && filter
            .reason
            .as_ref()
            .is_none_or(|wanted| reason == Some(wanted) || decision.flags.contains(wanted))
        && filter.from.is_none_or(|from| header.decided_at >= from)
        && filter.to.is_none_or(|to| header.decided_at < to)
        && (filter.superseded || stored.current)
}

impl LedgerRead for MemoryLedger {
    fn id(&self) -> LedgerId {
        LedgerId("ledger-1".into())
    }

    fn partitions(&self) -> Result<Vec<PartitionId>, LedgerError> {
        let mut seen: Vec<PartitionId> = Vec::new();
        for batch in &self.batches {
            if !seen.contains(&batch.at) {
                seen.push(batch.at.clone());
            }
        }
        Ok(seen)
    }

    fn mark(&self, at: &PartitionId) -> Result<Option<Mark>, LedgerError> {
        let last = self.batches.iter().rev().find(|batch| batch.at == *at);
        Ok(last.map(|batch| Mark {
            seq: batch.seq,
            next_offset: batch.next_offset,
            decided_above: batch.decided_above.clone(),
        }))
    }

    fn batches(
        &self,
        flow: Option<&FlowName>,
        visit: &mut dyn FnMut(&StoredBatch) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        for (ordinal, record) in self.batches.iter().enumerate() {
            if flow.is_none_or(|flow| *flow == record.at.flow) {
                let header = self.header(ordinal);
                let batch = StoredBatch { header, runs: runs(&record.decisions), gaps: record.gaps.clone() };
                if visit(&batch).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn decisions(
        &self,
        filter: &DecisionFilter,
        visit: &mut dyn FnMut(&StoredDecision) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        let corrected = self.corrected();
        for (ordinal, record) in self.batches.iter().enumerate() {
            let header = Arc::new(self.header(ordinal));
            for decision in &record.decisions {
                let current = !corrected.contains(&(&record.at, record.seq, decision.offset));
                let stored = StoredDecision { header: header.clone(), decision: decision.clone(), current };
                if matches(filter, &stored) && visit(&stored).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn body(&self, at: &PartitionId, offset: u64) -> Result<Option<KeptBody>, LedgerError> {
        let of_partition = self.batches.iter().filter(|batch| batch.at == *at);
        Ok(of_partition.flat_map(|batch| &batch.bodies).find(|body| body.offset == offset).cloned())
    }

    fn configs(&self) -> Result<Vec<StoredConfig>, LedgerError> {
        Ok(self.configs.clone())
    }

    fn journal(&self, flow: Option<&FlowName>) -> Result<Vec<(u64, JournalEntry)>, LedgerError> {
        let of_flow = |entry: &JournalEntry| match (flow, &entry.flow) {
            (Some(wanted), Some(about)) => wanted == about,
            _ => true,
        };
        let numbered = self.journal.iter().enumerate().map(|(i, entry)| (i as u64 + 1, entry.clone()));
        Ok(numbered.filter(|(_, entry)| of_flow(entry)).collect())
    }
}
