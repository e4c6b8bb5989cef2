//! Reading packed decisions: ids and keys first, so that a search leaves the rest alone.

use super::wire::{Unpacker, checksum, decompress};
use super::{CodecError, KIND_BATCH, KIND_SEALED, PREAMBLE_BYTES, Preamble, read_head};
use recount_model::decision::Measure;
use recount_model::{
    Amount, BatchRecord, ConfigVersion, Corrects, Decision, Fate, Gap, KeptBody, OffsetSet, Origin,
    PartitionId, PayloadHash, Reason, ReasonCode, Timestamp,
};
use std::ops::Range;

/// A batch without its decisions and bodies.
pub(crate) struct BatchHead {
    pub(crate) at: PartitionId,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) config: ConfigVersion,
    pub(crate) taken_at: Timestamp,
    pub(crate) decided_at: Timestamp,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) next_offset: u64,
    pub(crate) decided_above: OffsetSet,
}

impl BatchHead {
    pub(crate) fn into_record(self, decisions: Vec<Decision>, bodies: Vec<KeptBody>) -> BatchRecord {
        let Self { at, epoch, seq, config, taken_at, decided_at, gaps, next_offset, decided_above } = self;
        BatchRecord {
            at,
            epoch,
            seq,
            config,
            taken_at,
            decided_at,
            decisions,
            gaps,
            bodies,
            next_offset,
            decided_above,
        }
    }
}

/// What stands before the columns.
pub(crate) enum BlockHead {
    Batch(Box<BatchHead>),
    /// The rank of each decision.
    Sealed(Vec<u64>),
}

type Span = Option<Range<u32>>;

/// A block whose ids and keys are unpacked.
pub(crate) struct Block {
    pub(crate) head: BlockHead,
    arena: String,
    ids: Vec<Span>,
    keys: Vec<Span>,
    core: Vec<u8>,
    rest_at: usize,
    hashes: Vec<u8>,
}

impl Block {
    /// Checks and unpacks; `bytes` may end with the bodies or without them.
    pub(crate) fn open(bytes: &[u8]) -> Result<Self, CodecError> {
        let preamble = Preamble::read(bytes)?;
        let ends_early = CodecError::Damaged("it ends early");
        let packed = bytes.get(PREAMBLE_BYTES..preamble.hashes_at()).ok_or(ends_early)?;
        let hashes = bytes.get(preamble.hashes_at()..preamble.bodies_at()).ok_or(ends_early)?;
        if checksum(&[&bytes[..48], packed, hashes]) != preamble.core_sum {
            return Err(CodecError::Damaged("the checksum differs"));
        }
        let core = decompress(packed, preamble.core_bytes)?;
        let mut from = Unpacker { rest: &core };
        let head = match preamble.kind {
            KIND_BATCH => BlockHead::Batch(Box::new(read_head(&mut from)?)),
            KIND_SEALED => BlockHead::Sealed(read_ranks(&mut from, preamble.decisions)?),
            _ => return Err(CodecError::Damaged("it is of no known kind")),
        };
        let mut texts = Texts::default();
        let ids = texts.read_ids(&mut from, preamble.decisions)?;
        let keys = texts.read_keys(&mut from, &ids)?;
        let arena = texts.finish(&ids, &keys)?;
        let rest_at = core.len() - from.rest.len();
        Ok(Self { head, arena, ids, keys, rest_at, core, hashes: hashes.to_vec() })
    }

    /// How many decisions.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn id(&self, index: usize) -> Option<&str> {
        self.text(&self.ids[index])
    }

    pub(crate) fn key(&self, index: usize) -> Option<&str> {
        self.text(&self.keys[index])
    }

    fn text(&self, span: &Span) -> Option<&str> {
        span.as_ref().map(|s| &self.arena[s.start as usize..s.end as usize])
    }

    pub(crate) fn hash(&self, index: usize) -> PayloadHash {
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.hashes[index * 8..index * 8 + 8]);
        PayloadHash(u64::from_le_bytes(eight))
    }

    /// The place of a decision in its partition's order within the stripe; the index in a batch.
    pub(crate) fn rank(&self, index: usize) -> u64 {
        match &self.head {
            BlockHead::Batch(_) => index as u64,
            BlockHead::Sealed(ranks) => ranks[index],
        }
    }

    /// Unpacks the other columns.
    pub(crate) fn rows(&self) -> Result<Rows<'_>, CodecError> {
        Rows::read(self)
    }

    /// All decisions, in the block's order.
    pub(crate) fn decisions(&self) -> Result<Vec<Decision>, CodecError> {
        let rows = self.rows()?;
        Ok((0..self.len()).map(|index| rows.decision(index)).collect())
    }
}

fn read_ranks(from: &mut Unpacker<'_>, total: usize) -> Result<Vec<u64>, CodecError> {
    let mut rank = 0_u64;
    (0..total)
        .map(|_| {
            rank = rank.wrapping_add(from.signed()? as u64);
            Ok(rank)
        })
        .collect()
}

/// Texts of all columns one behind the other.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
}

impl Texts {
    fn read_ids(&mut self, from: &mut Unpacker<'_>, total: usize) -> Result<Vec<Span>, CodecError> {
        let present = from.flags(total)?;
        let mut texts = self.read_column(from, present.iter().filter(|p| **p).count())?.into_iter();
        Ok(present.into_iter().map(|p| if p { texts.next() } else { None }).collect())
    }

    fn read_keys(&mut self, from: &mut Unpacker<'_>, ids: &[Span]) -> Result<Vec<Span>, CodecError> {
        let forms = from.runs(ids.len())?;
        let written = forms.iter().filter(|form| **form == 1).count();
        let mut written = self.read_column(from, written)?.into_iter();
        let mut keys = Vec::with_capacity(ids.len());
        for (form, id) in forms.iter().zip(ids) {
            keys.push(match form {
                0 => None,
                1 => written.next(),
                2 => {
                    let id = id.as_ref().ok_or(CodecError::Damaged("a key is the end of no id"))?;
                    let length = from.small()?;
                    let start = id.end.checked_sub(length).filter(|start| *start >= id.start);
                    Some(start.ok_or(CodecError::Damaged("a key is longer than its id"))?..id.end)
                }
                _ => return Err(CodecError::Damaged("a key has no known form")),
            });
        }
        Ok(keys)
    }

    fn read_column(&mut self, from: &mut Unpacker<'_>, total: usize) -> Result<Vec<Range<u32>>, CodecError> {
        let shared = (0..total).map(|_| from.small()).collect::<Result<Vec<u32>, _>>()?;
        let more = (0..total).map(|_| from.varint()).collect::<Result<Vec<u64>, _>>()?;
        let mut spans: Vec<Range<u32>> = Vec::with_capacity(total);
        for (shared, more) in shared.into_iter().zip(more) {
            let before = spans.last().cloned().unwrap_or(0..0);
            if shared > before.end - before.start {
                return Err(CodecError::Damaged("a text shares more than there is"));
            }
            let (same, start) = (before.start as usize, self.bytes.len());
            self.bytes.extend_from_within(same..same + shared as usize);
            self.bytes.extend_from_slice(from.take(more)?);
            let end =
                u32::try_from(self.bytes.len()).map_err(|_| CodecError::Damaged("the texts are too long"))?;
            spans.push(start as u32..end);
        }
        Ok(spans)
    }

    fn finish(self, ids: &[Span], keys: &[Span]) -> Result<String, CodecError> {
        let not_text = CodecError::Damaged("a text is not UTF-8");
        let arena = String::from_utf8(self.bytes).map_err(|_| not_text)?;
        for span in ids.iter().chain(keys).flatten() {
            if !arena.is_char_boundary(span.start as usize) || !arena.is_char_boundary(span.end as usize) {
                return Err(not_text);
            }
        }
        Ok(arena)
    }
}

/// A block with everything unpacked; a [`Decision`] is built only where one is asked for.
pub(crate) struct Rows<'b> {
    block: &'b Block,
    offsets: Vec<u64>,
    fates: Vec<Fate>,
    fate_of: Vec<u64>,
    flags: Vec<Vec<ReasonCode>>,
    flags_of: Vec<u64>,
    attempts: Vec<u64>,
    origins: Vec<u64>,
    received: Vec<bool>,
    corrects: Vec<(usize, Corrects)>,
    evidence: Vec<(usize, Box<str>)>,
    event_times: Vec<Option<Timestamp>>,
    measures: Vec<Vec<Option<Measure>>>,
}

impl<'b> Rows<'b> {
    fn read(block: &'b Block) -> Result<Self, CodecError> {
        let total = block.len();
        let mut from = Unpacker { rest: &block.core[block.rest_at..] };
        let offsets = read_offsets(&mut from, block)?;
        let fates = read_fates(&mut from)?;
        let fate_of = read_ordinals(&mut from, total, fates.len())?;
        let flags = read_flag_sets(&mut from)?;
        let flags_of = read_ordinals(&mut from, total, flags.len())?;
        let attempts = from.runs(total)?;
        if attempts.iter().any(|attempt| u32::try_from(*attempt).is_err()) {
            return Err(CodecError::Damaged("an attempt is too large"));
        }
        let origins = from.runs(total)?;
        if origins.iter().any(|origin| *origin > 2) {
            return Err(CodecError::Damaged("an origin is not known"));
        }
        let received = from.flags(total)?;
        let corrects = read_sparse(&mut from, total, |from| {
            Ok(Corrects { seq: from.varint()?, replay_id: from.varint()? })
        })?;
        let evidence = read_sparse(&mut from, total, |from| Ok(from.text()?.into()))?;
        let event_times = read_event_times(&mut from, total)?;
        let measures = read_measures(&mut from, total)?;
        from.done()?;
        Ok(Self {
            block,
            offsets,
            fates,
            fate_of,
            flags,
            flags_of,
            attempts,
            origins,
            received,
            corrects,
            evidence,
            event_times,
            measures,
        })
    }

    pub(crate) fn offset(&self, index: usize) -> u64 {
        self.offsets[index]
    }

    pub(crate) fn fate(&self, index: usize) -> Fate {
        match self.fate_of[index] {
            0 => Fate::Applied,
            ordinal => self.fates[ordinal as usize - 1].clone(),
        }
    }

    pub(crate) fn decision(&self, index: usize) -> Decision {
        let flags = match self.flags_of[index] {
            0 => Vec::new(),
            ordinal => self.flags[ordinal as usize - 1].clone(),
        };
        let origin = match self.origins[index] {
            0 => Origin::Ran,
            1 => Origin::Reported,
            _ => Origin::Expected,
        };
        let evidence = self.evidence.binary_search_by_key(&index, |e| e.0).ok();
        let corrects = self.corrects.binary_search_by_key(&index, |c| c.0).ok();
        Decision {
            offset: self.offsets[index],
            event_id: self.block.id(index).map(Into::into),
            key: self.block.key(index).map(Into::into),
            payload_hash: self.block.hash(index),
            fate: self.fate(index),
            flags,
            attempt: self.attempts[index] as u32,
            event_time: self.event_times[index],
            origin,
            corrects: corrects.map(|at| self.corrects[at].1),
            evidence: evidence.map(|at| self.evidence[at].1.clone()),
            received: self.received[index],
            measures: self.measures[index].clone(),
        }
    }
}

fn read_offsets(from: &mut Unpacker<'_>, block: &Block) -> Result<Vec<u64>, CodecError> {
    let mut distance = 0_u64;
    let steps = from.runs(block.len())?;
    let offset = |(index, step): (usize, u64)| {
        distance = distance.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
        distance.wrapping_add(block.rank(index))
    };
    Ok(steps.into_iter().enumerate().map(offset).collect())
}

fn read_fates(from: &mut Unpacker<'_>) -> Result<Vec<Fate>, CodecError> {
    let mut fates = Vec::new();
    for _ in 0..from.count()? {
        let verdict = from.byte()?;
        let reason = Reason::new(from.code()?, from.text()?);
        fates.push(match verdict {
            1 => Fate::Skipped(reason),
            2 => Fate::DeadLettered(reason),
            _ => return Err(CodecError::Damaged("a verdict is not known")),
        });
    }
    Ok(fates)
}

fn read_flag_sets(from: &mut Unpacker<'_>) -> Result<Vec<Vec<ReasonCode>>, CodecError> {
    let mut sets = Vec::new();
    for _ in 0..from.count()? {
        let codes = from.count()?;
        sets.push((0..codes).map(|_| from.code()).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(sets)
}

fn read_ordinals(from: &mut Unpacker<'_>, total: usize, entries: usize) -> Result<Vec<u64>, CodecError> {
    let ordinals = from.runs(total)?;
    if ordinals.iter().any(|ordinal| *ordinal > entries as u64) {
        return Err(CodecError::Damaged("an entry is missing"));
    }
    Ok(ordinals)
}

fn read_sparse<T>(
    from: &mut Unpacker<'_>,
    total: usize,
    read_one: impl Fn(&mut Unpacker<'_>) -> Result<T, CodecError>,
) -> Result<Vec<(usize, T)>, CodecError> {
    let mut entries = Vec::new();
    let mut index = 0_u64;
    for nth in 0..from.count()? {
        let step = from.varint()?;
        index = index.checked_add(step).ok_or(CodecError::Damaged("an index is too large"))?;
        if index >= total as u64 || (nth > 0 && step == 0) {
            return Err(CodecError::Damaged("an index is out of range"));
        }
        entries.push((index as usize, read_one(from)?));
    }
    Ok(entries)
}

fn read_event_times(from: &mut Unpacker<'_>, total: usize) -> Result<Vec<Option<Timestamp>>, CodecError> {
    let present = from.flags(total)?;
    let unit = from.varint()? as i64;
    let mut before = 0_i64;
    let mut time = |present: bool| {
        if !present {
            return Ok(None);
        }
        before = before.wrapping_add(from.signed()?);
        let time = before.checked_mul(unit).ok_or(CodecError::Damaged("a time is too large"))?;
        Ok(Some(Timestamp(time)))
    };
    present.into_iter().map(&mut time).collect()
}

fn read_measures(from: &mut Unpacker<'_>, total: usize) -> Result<Vec<Vec<Option<Measure>>>, CodecError> {
    let lengths = from.runs(total)?;
    let most = lengths.iter().copied().max().unwrap_or(0);
    let mut measures: Vec<Vec<Option<Measure>>> = vec![Vec::new(); total];
    for j in 0..most {
        let holders: Vec<usize> = (0..total).filter(|i| lengths[*i] > j).collect();
        let forms = from.runs(holders.len())?;
        let unit = i128::from(from.varint()?);
        let mut amounts = Vec::new();
        for _ in forms.iter().filter(|form| **form != 0) {
            let coded = from.wide_varint()?;
            let units = (coded >> 1) as i128 ^ -((coded & 1) as i128);
            let nanos = units.checked_mul(unit).ok_or(CodecError::Damaged("an amount is too large"))?;
            amounts.push(Amount::from_nanos(nanos));
        }
        let mut amounts = amounts.into_iter();
        for (holder, form) in holders.into_iter().zip(forms) {
            let group = match form {
                0 | 1 => None,
                2 => Some(from.text()?.into()),
                _ => return Err(CodecError::Damaged("a measure has no known form")),
            };
            let amount = if form == 0 { None } else { amounts.next() };
            measures[holder].push(amount.map(|amount| Measure { amount, group }));
        }
    }
    Ok(measures)
}
