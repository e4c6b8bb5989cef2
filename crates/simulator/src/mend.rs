//! What `recount ledger recover` does, over the simulated disks: bring the rows to where the ledger is, then
//! decide anew what lost its effect.

use crate::life::{Life, Scene, open_effect};
use crate::observe::{Standing, read_books};
use crate::plan::LifePlan;
use crate::world::Process;
use recount_checks::RawEvent;
use recount_engine::{Effect, ReplayEvent, ReplayFrom};
use recount_ledger::{LedgerRead, StoredDecision};
use recount_model::{Fate, PartitionId, Timestamp, Verdict, reason};

/// What the operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Apply them again.
    Reapply,
    /// Accept that they are gone.
    Accept,
}

/// A recovery, as the journal keeps it until it is done.
#[derive(Debug, Clone)]
pub struct Recovery {
    replay_id: u64,
    lost: Vec<(PartitionId, u64, u64)>,
    /// How.
    pub mend: Mend,
}

impl Recovery {
    /// Of what was found at the start.
    pub fn new(replay_id: u64, standing: &Standing, mend: Mend) -> Self {
        Self { replay_id, lost: standing.rolled_back.clone(), mend }
    }
}

/// Does it, or as much of it as the faults allow; doing it again goes on where it ended.
pub async fn recover(
    scene: &Scene,
    plan: &LifePlan,
    process: Process,
    recovery: &Recovery,
) -> Result<(), String> {
    reset(scene, process, recovery).await?;
    let life = Life::begin(scene, plan, process, false).await?;
    for (at, from_seq, to_seq) in &recovery.lost {
        let applied = applied_between(scene, at, *from_seq, *to_seq)?;
        let events: Vec<_> = applied.iter().map(|stored| event(scene, recovery.mend, stored)).collect();
        let replay = life.handle().replay(at, recovery.replay_id, events);
        let patience = std::time::Duration::from_secs(60);
        match tokio::time::timeout(patience, replay).await {
            Ok(Ok(receipt)) => scene.world.tell(receipt.already, || format!("replayed {at}: {receipt:?}")),
            Ok(Err(stop)) => return Err(stop.to_string()),
            Err(_) => return Err("the replay hangs".into()),
        }
    }
    if scene.world.files.is_dead(process) { Err("the process died".into()) } else { Ok(()) }
}

async fn reset(scene: &Scene, process: Process, recovery: &Recovery) -> Result<(), String> {
    let books = read_books(&scene.world).map_err(|error| error.to_string())?.ok_or("no ledger")?;
    let effect = open_effect(scene, process)?;
    for (at, _, _) in &recovery.lost {
        let Some(mark) = books.marks.get(at) else { continue };
        let row = effect.peek(at).await.map_err(|fault| fault.to_string())?;
        if row.is_none_or(|row| row.seq < mark.seq) {
            let id = books.reader.id();
            let done = effect.reset(at, &id, mark.seq, mark.next_offset, &mark.decided_above).await;
            done.map_err(|fault| fault.to_string())?;
        }
    }
    Ok(())
}

fn applied_between(
    scene: &Scene,
    at: &PartitionId,
    from_seq: u64,
    to_seq: u64,
) -> Result<Vec<StoredDecision>, String> {
    let books = read_books(&scene.world).map_err(|error| error.to_string())?.ok_or("no ledger")?;
    let mut applied = books.decisions;
    applied.retain(|stored| {
        let header = &stored.header;
        stored.current
            && stored.decision.fate == Fate::Applied
            && header.at == *at
            && header.seq > from_seq
            && header.seq <= to_seq
    });
    applied.sort_by_key(|stored| stored.decision.offset);
    Ok(applied)
}

fn event(scene: &Scene, mend: Mend, stored: &StoredDecision) -> ReplayEvent {
    let (at, decision) = (&stored.header.at, &stored.decision);
    let partition: usize = at.partition.as_str().parse().unwrap_or(0);
    let item = &scene.world.items[partition][decision.offset as usize];
    let from = match mend {
        Mend::Reapply => ReplayFrom::Delivered(RawEvent {
            payload: item.payload.clone(),
            payload_bytes: item.payload.len() as u64,
            headers: Vec::new(),
            broker_key: None,
            partition: at.partition.as_str().into(),
            offset: decision.offset,
            taken_at: Timestamp(0),
        }),
        Mend::Accept => ReplayFrom::Operator {
            decision: Box::new(decision.clone()),
            verdict: Verdict::skip(reason::ACCEPTED, "its effect went with a restored database"),
        },
    };
    ReplayEvent { corrects_seq: stored.header.seq, of_applied: true, from }
}
