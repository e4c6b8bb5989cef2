//! A small world: a source, a ledger and a database that agree, until a test damages one of them.

use crate::memory::MemoryLedger;
use recount_audit::{
    AuditInputs, AuditReport, EffectSnapshot, EffectWitness, EffectsDeclared, FlowAudit, PositionRow,
    Published, ReconcileAudit, ReconcileOf, SourceWitness, WitnessError, audit,
};
use recount_checks::RawEvent;
use recount_ledger::LedgerRead;
use recount_model::decision::Measure;
use recount_model::{
    Amount, BatchRecord, Budget, ConfigVersion, Corrects, Decision, Fate, FlowName, Header, OffsetSet,
    Origin, Partition, PartitionId, PayloadHash, Reason, ReasonCode, SourceId, Timestamp,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

pub const ZERO: ReasonCode = ReasonCode::literal("zero_quantity");
pub const SHORT: ReasonCode = ReasonCode::literal("insufficient_stock");

/// Which witnesses of effects a test declares.
#[derive(Clone, Copy, PartialEq)]
pub enum Effects {
    Attested,
    Table,
    CustomIds,
    CustomTotal,
}

pub struct World {
    pub at: PartitionId,
    pub ledger: MemoryLedger,
    pub source: Source,
    pub database: Database,
    pub effects: Effects,
    pub budgets: BTreeMap<ReasonCode, Budget>,
    pub names_max: usize,
    pub now: Timestamp,
    pub id_is_secret: bool,
}

pub struct Source {
    pub at: PartitionId,
    /// One payload a position; none where the position carries no event.
    pub records: Vec<Option<String>>,
    pub first: u64,
    pub away: Option<WitnessError>,
}

#[derive(Clone, Default)]
pub struct Database {
    pub rows: Vec<PositionRow>,
    pub effects: Vec<u64>,
    pub stored: Vec<u64>,
    /// sku → units that left the stock.
    pub taken: BTreeMap<String, i64>,
    pub custom: Vec<String>,
    pub away: Option<WitnessError>,
}

pub fn sku(offset: u64) -> String {
    format!("sku-{}", offset % 3)
}

pub fn quantity(offset: u64) -> i64 {
    offset as i64 % 5 + 1
}

pub fn payload(offset: u64) -> String {
    format!(r#"{{"id":"o-{offset}","sku":"{}","quantity":{}}}"#, sku(offset), quantity(offset))
}

/// As its documentation in the model says, so that the auditor's own is held against another.
fn payload_hash(offset: u64) -> PayloadHash {
    let hash = blake3::hash(format!("o-{offset}\0{}", payload(offset)).as_bytes());
    PayloadHash(u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap()))
}

/// Every seventh is skipped, every eleventh dead-lettered.
pub fn fate(offset: u64) -> Fate {
    if offset % 7 == 6 {
        Fate::Skipped(Reason::new(ZERO, "nothing ordered"))
    } else if offset % 11 == 10 {
        Fate::DeadLettered(Reason::new(SHORT, "less on hand than asked for"))
    } else {
        Fate::Applied
    }
}

pub fn decision(offset: u64, fate: Fate) -> Decision {
    let evidence = matches!(fate, Fate::DeadLettered(_)).then(|| r#"{"rows":0}"#.into());
    Decision {
        offset,
        event_id: Some(format!("o-{offset}").into()),
        key: Some(sku(offset).into()),
        payload_hash: payload_hash(offset),
        fate,
        flags: vec![],
        attempt: 1,
        event_time: None,
        origin: Origin::Ran,
        corrects: None,
        evidence,
        received: true,
        measures: vec![Some(Measure { amount: Amount::from_integer(quantity(offset)), group: None })],
    }
}

impl World {
    /// `events` in batches of ten, decided a second apart.
    pub fn new(events: u64) -> Self {
        let at = PartitionId {
            flow: FlowName::new("reserve-stock").unwrap(),
            source: SourceId::new("file-1"),
            partition: Partition::new("orders"),
        };
        let source = Source { at: at.clone(), records: vec![], first: 0, away: None };
        let mut world = Self {
            at,
            ledger: MemoryLedger::default(),
            source,
            database: Database::default(),
            effects: Effects::Table,
            budgets: BTreeMap::from([(ZERO, Budget::ANY), (SHORT, Budget::ANY)]),
            names_max: 5,
            now: Timestamp(1_000_000),
            id_is_secret: false,
        };
        for offset in 0..events {
            world.publish(offset);
        }
        for from in (0..events).step_by(10) {
            let to = (from + 10).min(events);
            world.batch((from..to).map(|o| decision(o, fate(o))).collect(), to);
        }
        world
    }

    pub fn publish(&mut self, offset: u64) {
        self.source.records.push(Some(payload(offset)));
    }

    /// Records a batch, with its effects and its position row.
    pub fn batch(&mut self, decisions: Vec<Decision>, next_offset: u64) {
        for decision in &decisions {
            if decision.fate == Fate::Applied {
                self.effect(decision.offset);
            }
        }
        let seq = self.ledger.batches.len() as u64 + 1;
        let at = Timestamp(seq as i64 * 1000);
        self.ledger.batches.push(BatchRecord {
            at: self.at.clone(),
            epoch: 1,
            seq,
            config: ConfigVersion(1),
            taken_at: at,
            decided_at: at,
            decisions,
            gaps: vec![],
            bodies: vec![],
            next_offset,
            decided_above: OffsetSet::new(),
        });
        self.database.rows = vec![PositionRow {
            at: self.at.clone(),
            seq,
            next_offset,
            decided_above: OffsetSet::new(),
            ledger_id: "ledger-1".into(),
        }];
    }

    pub fn effect(&mut self, offset: u64) {
        self.database.effects.push(offset);
        self.database.custom.push(format!("o-{offset}"));
        *self.database.taken.entry(sku(offset)).or_default() += quantity(offset);
    }

    /// Replays a position: a new batch with one decision that corrects the old.
    pub fn replay(&mut self, offset: u64, fate: Fate) {
        let old = self.ledger.batches.iter().rev().find(|b| b.decisions.iter().any(|d| d.offset == offset));
        let corrects = Some(Corrects { seq: old.unwrap().seq, replay_id: 1 });
        let next_offset = self.ledger.batches.last().unwrap().next_offset;
        self.batch(vec![Decision { corrects, ..decision(offset, fate) }], next_offset);
    }

    pub fn forget_decision(&mut self, offset: u64) {
        self.ledger.batches.iter_mut().for_each(|b| b.decisions.retain(|d| d.offset != offset));
    }

    pub fn forget_effect(&mut self, offset: u64) {
        self.database.effects.retain(|o| *o != offset);
        self.database.custom.retain(|id| *id != format!("o-{offset}"));
    }

    pub fn audit(&self) -> AuditReport {
        self.audit_of(&self.ledger)
    }

    /// The same source and database against another ledger.
    pub fn audit_of(&self, ledger: &dyn LedgerRead) -> AuditReport {
        let identify = |_: Option<ConfigVersion>, raw: &RawEvent| -> Option<Box<str>> {
            let json: serde_json::Value = serde_json::from_slice(&raw.payload).ok()?;
            Some(json.get("id")?.as_str()?.into())
        };
        let effects = match self.effects {
            Effects::Attested => EffectsDeclared::Attested(&self.database),
            Effects::Table => EffectsDeclared::Table(&self.database),
            Effects::CustomIds => {
                EffectsDeclared::Custom { witness: &self.database, sql: "", id: Some("id") }
            }
            Effects::CustomTotal => EffectsDeclared::Custom { witness: &self.database, sql: "", id: None },
        };
        let reconcile = ReconcileAudit {
            name: "units ordered leave the stock".into(),
            measure: 0,
            measure_of: BTreeMap::new(),
            of: ReconcileOf::Received,
            less: vec![SHORT, ZERO],
            by_group: true,
            witness: None,
            sql: String::new(),
            tolerance: Amount::ZERO,
            within_ms: 60_000,
        };
        let flow = FlowAudit {
            source: Some(&self.source),
            identify: Some(&identify),
            effects,
            reconciles: vec![reconcile],
            budgets: self.budgets.clone(),
            open_allowed_ms: 3_600_000,
            id_is_secret: self.id_is_secret,
            ..FlowAudit::new(self.at.flow.clone())
        };
        audit(&AuditInputs {
            ledger,
            flows: vec![flow],
            now: self.now,
            identity_key: [7; 32],
            names_max: self.names_max,
        })
    }
}

impl SourceWitness for Source {
    fn partitions(&self) -> Result<Vec<PartitionId>, WitnessError> {
        self.away.clone().map_or(Ok(vec![self.at.clone()]), Err)
    }

    fn published(&self, at: &PartitionId) -> Result<Published, WitnessError> {
        match &self.away {
            Some(error) => Err(error.clone()),
            None if *at != self.at => {
                Err(WitnessError::Changed(format!("source {} stands there now", self.at.source)))
            }
            None => Ok(Published { first: self.first, end: self.records.len() as u64 }),
        }
    }

    fn read(
        &self,
        _: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&RawEvent) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        for (offset, record) in self.records.iter().enumerate() {
            let offset = offset as u64;
            let Some(record) = record.as_ref().filter(|_| (from..to).contains(&offset)) else { continue };
            let raw = RawEvent {
                payload: record.as_bytes().into(),
                payload_bytes: record.len() as u64,
                headers: Vec::<Header>::new(),
                broker_key: None,
                partition: self.at.partition.as_str().into(),
                offset,
                taken_at: Timestamp(0),
            };
            if visit(&raw).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl EffectWitness for Database {
    fn snapshot(&self) -> Result<Box<dyn EffectSnapshot + '_>, WitnessError> {
        self.away.clone().map_or_else(|| Ok(Box::new(self.clone()) as _), Err)
    }
}

impl EffectSnapshot for Database {
    fn positions(&self, _: &FlowName) -> Result<Vec<PositionRow>, WitnessError> {
        Ok(self.rows.clone())
    }

    fn stored_batches(&self, _: &PartitionId, above_seq: u64) -> Result<Vec<u64>, WitnessError> {
        Ok(self.stored.iter().copied().filter(|seq| *seq > above_seq).collect())
    }

    fn effects(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        if !self.rows.iter().any(|row| row.at == *at) {
            return Ok(());
        }
        for offset in self.effects.iter().filter(|o| (from..to).contains(*o)) {
            let _ = visit(*offset, None);
        }
        Ok(())
    }

    fn custom_ids(
        &self,
        _: &str,
        _: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        for id in &self.custom {
            let _ = visit(id);
        }
        Ok(())
    }

    fn custom_count(&self, _: &str) -> Result<u64, WitnessError> {
        Ok(self.custom.len() as u64)
    }

    fn reconcile(
        &self,
        _: &str,
        by_group: bool,
        visit: &mut dyn FnMut(Option<&str>, Amount) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        for (sku, units) in &self.taken {
            let _ = visit(by_group.then_some(sku), Amount::from_integer(*units));
        }
        Ok(())
    }
}
