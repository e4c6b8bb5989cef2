//! [`SqliteLedger`] behind the seam.

use crate::journal::read_journal;
use crate::query::Query;
use crate::store::{
    DecisionFilter, EncodedBatch, JournalEntry, JournalKind, LedgerError, LedgerId, LedgerStore, Mark,
    RecentEvent, StoredConfig,
};
use crate::writer::SqliteLedger;
use recount_model::{ConfigVersion, Decision, FlowName, PartitionId, Timestamp, reason};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

impl LedgerStore for SqliteLedger {
    fn id(&self) -> LedgerId {
        self.id.clone()
    }

    fn append(&mut self, batches: &[EncodedBatch], persisted_at: Timestamp) -> Result<(), LedgerError> {
        self.healthy()?;
        if batches.is_empty() {
            return Ok(());
        }
        let done = self.append_all(batches, persisted_at);
        self.written(done)
    }

    fn mark(&mut self, at: &PartitionId) -> Result<Option<Mark>, LedgerError> {
        Ok(self.shelf.partitions.number(at).and_then(|number| self.marks.get(&number).cloned()))
    }

    fn partitions(&mut self, flow: &FlowName) -> Result<Vec<PartitionId>, LedgerError> {
        let of_flow = self.shelf.partitions.iter().filter(|(_, at)| at.flow == *flow);
        Ok(of_flow.map(|(_, at)| at.clone()).collect())
    }

    fn current(&mut self, at: &PartitionId, offset: u64) -> Result<Option<(u64, Decision)>, LedgerError> {
        match self.shelf.partitions.number(at) {
            Some(number) => self.shelf.current(&self.catalog, &self.corrections, number, offset),
            None => Ok(None),
        }
    }

    fn recent(&mut self, at: &PartitionId, events_max: usize) -> Result<Vec<RecentEvent>, LedgerError> {
        match self.shelf.partitions.number(at) {
            Some(number) => self.shelf.recent(&self.corrections, number, events_max),
            None => Ok(Vec::new()),
        }
    }

    fn keys_exhausted(&mut self, at: &PartitionId) -> Result<Vec<Box<str>>, LedgerError> {
        let resumed = read_journal(&self.catalog, Some(&at.flow))?.into_iter().map(|(_, entry)| entry);
        let resumed = resumed.filter(|entry| {
            entry.kind == JournalKind::Operator && entry.what == "resumed" && entry.flow.is_some()
        });
        let filter = DecisionFilter {
            flow: Some(at.flow.clone()),
            partition: Some(at.partition.to_string()),
            reason: Some(reason::RETRIES_EXHAUSTED),
            verdict: Some("dead-lettered".to_owned()),
            from: resumed.map(|entry| entry.at).max(),
            ..DecisionFilter::default()
        };
        let mut keys = BTreeSet::new();
        Query::new(&self.shelf, &self.catalog, &filter)?.run(&mut |stored| {
            if stored.header.at == *at {
                keys.extend(stored.decision.key.clone());
            }
            ControlFlow::Continue(())
        })?;
        Ok(keys.into_iter().collect())
    }

    fn journal(&mut self, entry: &JournalEntry) -> Result<u64, LedgerError> {
        self.healthy()?;
        let done = self.put_entry(entry);
        self.written(done)
    }

    fn config(&mut self, config: &StoredConfig) -> Result<ConfigVersion, LedgerError> {
        self.healthy()?;
        let done = self.put_config(config);
        self.written(done)
    }

    fn maintain(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        self.healthy()?;
        let done = self.upkeep(now);
        self.written(done)
    }
}
