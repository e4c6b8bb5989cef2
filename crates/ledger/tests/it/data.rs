//! Batches to write, and small questions to ask.

use recount_ledger::{
    DecisionFilter, EncodedBatch, LedgerRead, LedgerReader, LedgerSettings, SqliteLedger, StoredDecision,
    codec,
};
use recount_model::batch::Attempt;
use recount_model::decision::Measure;
use recount_model::{
    Amount, BatchRecord, ConfigVersion, Corrects, Decision, Fate, FlowName, KeptBody, OffsetSet, Origin,
    Partition, PartitionId, PayloadHash, Reason, ReasonCode, SourceId, Timestamp,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

pub const NOON: i64 = 1_483_271_606_000;

pub fn partition(name: &str) -> PartitionId {
    PartitionId {
        flow: FlowName::new("reserve-stock").unwrap(),
        source: SourceId::new("file-3f9a0c11d2e4b5a6978877665544332211ffeeddccbbaa99"),
        partition: Partition::new(name),
    }
}

pub fn code(text: &str) -> ReasonCode {
    ReasonCode::new(text).unwrap()
}

/// What every test takes for the event at an offset: the key is one of 100.
pub fn applied(offset: u64) -> Decision {
    let sku = 1_000_000 + offset % 100;
    Decision {
        offset,
        event_id: Some(format!("{}-{sku}", 31_198_570_000 + offset / 3).into()),
        key: Some(sku.to_string().into()),
        payload_hash: PayloadHash(offset.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        fate: Fate::Applied,
        flags: if offset % 50 == 7 { vec![code("bulk_order")] } else { Vec::new() },
        attempt: 1,
        event_time: Some(Timestamp(NOON + offset as i64 * 1000)),
        origin: Origin::Ran,
        corrects: None,
        evidence: None,
        received: true,
        measures: vec![Some(Measure { amount: Amount::from_integer(1 + offset as i64 % 5), group: None })],
    }
}

pub fn dead(offset: u64) -> Decision {
    let reason = Reason::new(code("unknown_sku"), format!("no such article as {offset}"));
    let evidence = Some(format!("{{\"rows\":0,\"offset\":{offset}}}").into());
    Decision { fate: Fate::DeadLettered(reason), evidence, ..applied(offset) }
}

pub fn skipped(offset: u64) -> Decision {
    let reason = Reason::new(code("zero_quantity"), "takes nothing out of stock");
    Decision { fate: Fate::Skipped(reason), ..applied(offset) }
}

/// Every 20th skipped, every 50th (from 3 on) a dead letter, the others applied.
pub fn usual(offset: u64) -> Decision {
    match offset {
        _ if offset % 50 == 3 => dead(offset),
        _ if offset.is_multiple_of(20) => skipped(offset),
        _ => applied(offset),
    }
}

pub fn body(offset: u64) -> KeptBody {
    let payload = format!("{{\"id\":\"{offset}\",\"secret\":\"payload of {offset}\"}}").into_bytes();
    KeptBody {
        offset,
        payload_bytes: payload.len() as u64,
        payload,
        headers: vec![recount_model::Header { name: "ce-id".into(), value: offset.to_string().into() }],
        attempts: vec![Attempt {
            number: 1,
            at: Timestamp(NOON),
            found: "unknown_sku: no such article".into(),
        }],
    }
}

/// A batch of the usual decisions, with bodies for its dead letters.
pub fn batch(at: &PartitionId, seq: u64, offsets: std::ops::Range<u64>) -> BatchRecord {
    let decisions: Vec<Decision> = offsets.clone().map(usual).collect();
    let bodies =
        decisions.iter().filter(|d| d.fate.word() == "dead-lettered").map(|d| body(d.offset)).collect();
    BatchRecord {
        at: at.clone(),
        epoch: 1,
        seq,
        config: ConfigVersion(1),
        taken_at: Timestamp(NOON + seq as i64 * 1000),
        decided_at: Timestamp(NOON + seq as i64 * 1000 + 7),
        decisions,
        gaps: Vec::new(),
        bodies,
        next_offset: offsets.end,
        decided_above: OffsetSet::new(),
    }
}

/// A batch that decides one offset anew.
pub fn correction(
    at: &PartitionId,
    seq: u64,
    offset: u64,
    corrects_seq: u64,
    next_offset: u64,
) -> BatchRecord {
    let corrects = Some(Corrects { seq: corrects_seq, replay_id: 1 });
    let decision = Decision { corrects, attempt: 2, ..applied(offset) };
    BatchRecord { decisions: vec![decision], bodies: Vec::new(), next_offset, ..batch(at, seq, 0..0) }
}

pub fn encoded(record: BatchRecord) -> EncodedBatch {
    let bytes = codec::encode(&record).into();
    EncodedBatch { record: Arc::new(record), bytes }
}

/// Small stripes, so that a test has several; never sealed by age.
pub fn settings() -> LedgerSettings {
    LedgerSettings {
        stripe_decisions: 1000,
        segment_age_ms_max: 1_000_000_000_000,
        clock: Arc::new(|| Timestamp(NOON)),
        ..LedgerSettings::default()
    }
}

pub fn open(folder: &Path) -> SqliteLedger {
    SqliteLedger::open(folder, settings()).unwrap()
}

pub fn decisions(folder: &Path, filter: &DecisionFilter) -> Vec<StoredDecision> {
    all_of(&LedgerReader::open(folder).unwrap(), filter)
}

pub fn all_of(reader: &LedgerReader, filter: &DecisionFilter) -> Vec<StoredDecision> {
    let mut found = Vec::new();
    reader
        .decisions(filter, &mut |stored| {
            found.push(stored.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

pub fn offsets(found: &[StoredDecision]) -> Vec<u64> {
    found.iter().map(|stored| stored.decision.offset).collect()
}
