//! Starting a partition: the arbiter's row R against the ledger L. The broker's committed offset is never
//! asked where to begin.

use crate::book::Book;
use crate::effect::{Effect, EffectFault, Taken};
use crate::partition::Dealt;
use crate::plan::Progress;
use crate::probe::Guards;
use recount_ledger::{EncodedBatch, LedgerError, LedgerId, Mark};
use recount_model::{GapKind, OffsetSet, PartitionId, ReasonCode, reason};
use std::sync::Arc;

/// Why a partition can't go on. The flow stops and says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Stop {
    /// The finding.
    pub reason: ReasonCode,
    /// What was seen and what to do next.
    pub sentence: String,
}

impl Stop {
    pub(crate) fn new(reason: ReasonCode, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: sentence.into() }
    }
}

/// Why starting did not work out.
#[derive(Debug)]
pub enum StartError {
    /// It can't be started as things are.
    Stop(Stop),
    /// The effect's database is away; try again later.
    Away(String),
    /// Whoever deals the partitions can't say now whether this one is ours.
    Unconfirmed(String),
}

impl From<EffectFault> for StartError {
    fn from(fault: EffectFault) -> Self {
        match fault {
            EffectFault::Foreign(sentence) => Self::Stop(Stop::new(reason::LEDGER_FOREIGN, sentence)),
            EffectFault::NotMine => {
                Self::Stop(Stop::new(reason::PARTITION_TAKEN, "another process took the partition"))
            }
            EffectFault::Again(why) | EffectFault::Away(why) | EffectFault::CommitUnknown(why) => {
                Self::Away(why)
            }
        }
    }
}

impl From<Arc<LedgerError>> for StartError {
    fn from(error: Arc<LedgerError>) -> Self {
        Self::Stop(ledger_stop(&error))
    }
}

/// The stop that a failing ledger means.
pub(crate) fn ledger_stop(error: &LedgerError) -> Stop {
    let code = match error {
        LedgerError::Corrupt(_) => reason::LEDGER_CORRUPT,
        _ => reason::LEDGER_FULL,
    };
    Stop::new(
        code,
        format!("{error}; nothing was lost: the flow goes on from its own record once this is mended"),
    )
}

/// A partition that is ours.
#[derive(Debug)]
pub struct Started {
    /// The arbiter's row.
    pub taken: Taken,
    /// Where it stands.
    pub progress: Progress,
    /// Positions consumed without a record, to be recorded as such by the first batch (`--adopt`).
    pub unrecorded: OffsetSet,
    /// Batches that were committed and now stand in the ledger too.
    pub redone_batches: u64,
}

/// What the start may do beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Records a range that the ledger lost as `unrecorded`, for ever unprovable.
    pub adopt: bool,
}

/// The highest epoch that this process took, or tried to take without hearing how that ended. A process that
/// begins takes a partition from whoever has it; one that begins *again*, after a commit of unknown outcome or
/// a lost connection, goes on only if nobody took it since. Else a process that was frozen would, once woken,
/// rob its successor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owned(Option<u64>);

impl Owned {
    fn refuses(self, row_epoch: u64) -> bool {
        self.0.is_some_and(|mine| row_epoch > mine)
    }
}

/// Takes the partition and brings the ledger up to the arbiter's row.
pub async fn start(
    at: &PartitionId,
    effect: &dyn Effect,
    book: &Book,
    options: StartOptions,
    guards: Guards,
    owned: &mut Owned,
    dealt: Option<&Dealt<'_>>,
) -> Result<Started, StartError> {
    let (ledger_id, mark) = {
        let at = at.clone();
        book.with(move |store| Ok((store.id(), store.mark(&at)?))).await?
    };
    let before = effect.peek(at).await?;
    if before.is_none()
        && let Some(mark) = &mark
    {
        return Err(StartError::Stop(rolled_back(at, 0, 0, mark)));
    }
    if before.as_ref().is_some_and(|row| owned.refuses(row.epoch)) {
        return Err(EffectFault::NotMine.into());
    }
    // Whoever takes it from here on has a higher epoch than the row that was just read.
    confirm(dealt).await?;
    let epoch_expected = before.as_ref().map_or(0, |row| row.epoch) + 1;
    *owned = Owned(Some(epoch_expected));
    let taken = match effect.take(at, &ledger_id).await {
        Err(EffectFault::Foreign(_)) if options.adopt => {
            *owned = Owned(None);
            adopt_row(at, effect, &ledger_id).await?
        }
        taken => taken?,
    };
    if taken.epoch > epoch_expected && !options.adopt {
        // Somebody took it since the question: this process hung meanwhile, and may not be its owner any more.
        confirm(dealt).await?;
    }
    *owned = Owned(Some(taken.epoch));
    // Asked again now that nobody else can commit: another owner may have gone on since.
    let mark = {
        let at = at.clone();
        book.with(move |store| store.mark(&at)).await?
    };
    let ledger_seq = mark.as_ref().map_or(0, |m| m.seq);
    if let Some(mark) = mark.as_ref().filter(|m| m.seq > taken.seq) {
        refuse_if_lost(at, effect, &taken).await?;
        return Err(StartError::Stop(rolled_back(at, taken.seq, taken.next_offset, mark)));
    }
    let progress = Progress { next_offset: taken.next_offset, decided_above: taken.decided_above.clone() };
    let mut started = Started { taken, progress, unrecorded: OffsetSet::new(), redone_batches: 0 };
    if started.taken.seq > ledger_seq {
        redo(at, effect, book, mark, options, guards, &mut started).await?;
        *owned = Owned(Some(started.taken.epoch));
    }
    Ok(started)
}

/// Asks whoever deals the partitions whether this one is ours.
async fn confirm(dealt: Option<&Dealt<'_>>) -> Result<(), StartError> {
    match dealt {
        Some(dealt) => dealt.confirm().await,
        None => Ok(()),
    }
}

/// The row of a ledger that is lost becomes this ledger's, where an operator said so.
async fn adopt_row(at: &PartitionId, effect: &dyn Effect, ledger_id: &LedgerId) -> Result<Taken, StartError> {
    if let Some(row) = effect.peek(at).await? {
        tracing::warn!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
            "adopts the partition from another ledger, at batch {}, offset {}", row.seq, row.next_offset);
        effect.reset(at, ledger_id, row.seq, row.next_offset, &row.decided_above).await?;
    }
    Ok(effect.take(at, ledger_id).await?)
}

fn rolled_back(at: &PartitionId, seq: u64, next_offset: u64, mark: &Mark) -> Stop {
    Stop::new(
        reason::EFFECTS_ROLLED_BACK,
        format!(
            "{at}: the ledger holds decisions up to batch {}, offset {}, but the database only knows batch {seq}, \
             offset {next_offset}: it was restored from earlier, or is another one. To apply the events from {at}/{next_offset} \
             to {at}/{} again: recount ledger recover --reapply; to accept that their effects are gone: \
             recount ledger recover --accept",
            mark.seq,
            mark.next_offset,
            mark.next_offset.saturating_sub(1),
        ),
    )
}

async fn redo(
    at: &PartitionId,
    effect: &dyn Effect,
    book: &Book,
    mark: Option<Mark>,
    options: StartOptions,
    guards: Guards,
    started: &mut Started,
) -> Result<(), StartError> {
    let ledger_seq = mark.as_ref().map_or(0, |m| m.seq);
    if !guards.redo_from_batch_rows {
        return Ok(());
    }
    let stored = effect.stored_batches(at, ledger_seq).await?;
    let whole = stored.iter().map(|(seq, _)| *seq).eq(ledger_seq + 1..=started.taken.seq);
    if whole {
        for (seq, bytes) in stored {
            let record = recount_ledger::codec::decode(&bytes).map_err(|error| {
                let sentence = format!("{at}: batch {seq} in recount_batch can't be read: {error}");
                StartError::Stop(Stop::new(reason::LEDGER_CORRUPT, sentence))
            })?;
            if (&record.at, record.seq) != (at, seq) {
                let sentence = format!(
                    "{at}: the row of batch {seq} in recount_batch holds batch {} of {}: somebody changed the table",
                    record.seq, record.at
                );
                return Err(StartError::Stop(Stop::new(reason::LEDGER_CORRUPT, sentence)));
            }
            book.append(EncodedBatch { record: Arc::new(record), bytes: bytes.into() }).await?;
            started.redone_batches += 1;
        }
        return Ok(());
    }
    refuse_if_lost(at, effect, &started.taken).await?;
    let from = mark.as_ref().map_or(0, |m| m.next_offset);
    let to = started.taken.next_offset;
    if !options.adopt {
        let sentence = format!(
            "{at}: the database knows batch {}, but the ledger only batch {ledger_seq}, and the batches between are \
             gone: the ledger was lost or restored from earlier. What became of {at}/{from} to {at}/{} can't be \
             proven any more. To go on and record them as {} for ever: recount run --adopt",
            started.taken.seq,
            to.saturating_sub(1),
            GapKind::Unrecorded.word(),
        );
        return Err(StartError::Stop(Stop::new(reason::POSITIONS_UNRECORDED, sentence)));
    }
    started.unrecorded = decided_only_by(&started.taken, mark.as_ref());
    if let Some(mark) = mark.filter(|_| started.unrecorded.is_empty()) {
        // The lost batches decided no position for the first time: the row goes back to the ledger's seq.
        let id = book.with(|store| Ok(store.id())).await?;
        effect.reset(at, &id, mark.seq, mark.next_offset, &mark.decided_above).await?;
        started.taken = effect.take(at, &id).await?;
    }
    Ok(())
}

/// A process that hung since it took the partition may find what another one did meanwhile: that says nothing
/// of the ledger or the database.
async fn refuse_if_lost(at: &PartitionId, effect: &dyn Effect, taken: &Taken) -> Result<(), StartError> {
    match effect.peek(at).await? {
        Some(now) if now.epoch == taken.epoch => Ok(()),
        _ => Err(EffectFault::NotMine.into()),
    }
}

/// What the arbiter's row calls decided and the ledger doesn't. Neither is a plain prefix where keys are held.
fn decided_only_by(taken: &Taken, mark: Option<&Mark>) -> OffsetSet {
    let mut only = taken.decided_above.clone();
    only.insert_range(0, taken.next_offset);
    if let Some(mark) = mark {
        only.remove_range(0, mark.next_offset);
        for (from, to) in mark.decided_above.ranges() {
            only.remove_range(*from, *to);
        }
    }
    only
}
