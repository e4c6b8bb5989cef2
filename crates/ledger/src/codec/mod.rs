//! The packed form of a batch and of a sealed block: versioned, checksummed, full ids and keys.
//!
//! The same bytes travel in the arbiter's `recount_batch` and lie in the ledger's `block` table, there
//! without the bodies at the end. What follows is enough to write a decoder without this code;
//! `tests/it/independent.rs` is one.
//!
//! # Words of the format
//! * `varint`: LEB128, seven bits a byte, low bits first. `signed`: a varint of `(v << 1) ^ (v >> 63)`.
//! * `text`, `bytes`: a varint length, then so many bytes; text is UTF-8.
//! * `runs(n)`: pairs of varints *value, length* until the lengths sum to n.
//! * `sparse`: a varint count, then for each entry the varint *index less the index before* (the first: the
//!   index itself), then the entry.
//! * `range set`: a varint count, then for each range varint *from less the end before* and varint *length*.
//!
//! # Frame
//! | bytes | what |
//! |---|---|
//! | 0..4 | `RCNT` |
//! | 4..6 | version, little-endian (as all fixed numbers): 1 |
//! | 6 | kind: 1 a batch, 2 a sealed block |
//! | 7 | 0 |
//! | 8..16 | length of the core, packed |
//! | 16..24 | length of the core, unpacked |
//! | 24..32 | N, how many decisions |
//! | 32..40 | length of the bodies, packed; 0 where there are none |
//! | 40..48 | length of the bodies, unpacked |
//! | 48..56 | first 8 bytes of BLAKE3 over: bytes 0..48, the packed core, the hashes |
//! | 56..64 | first 8 bytes of BLAKE3 over the packed bodies |
//! | 64.. | the core (one zstd frame), then N payload hashes of 8 bytes, then the bodies (one zstd frame) |
//!
//! A frame in the `block` table ends after the hashes.
//!
//! # Core
//! A batch begins with its *head*: flow, source, partition (texts), epoch, seq, config (varints), taken_at
//! (signed), decided_at less taken_at (signed), next_offset (varint), decided_above (range set), gaps (varint
//! count, then for each: from, to (varints), kind byte 0 lost, 1 not-an-event, 2 unrecorded, cause (text)).
//! A sealed block begins with N signed *ranks*, each less the one before (the first: less 0): the decision's
//! place, from 0, among those of its partition and stripe in the order decided.
//!
//! Then the columns, each over all N decisions:
//! 1. **ids**: runs(N) of 1 (has one) or 0, then a *text column* of those there are.
//! 2. **keys**: runs(N) of 0 (none), 1 (written), 2 (the end of its own id); a text column of the written
//!    ones; for each of form 2 a varint: its length in bytes.
//! 3. **offsets**: runs(N) of the varint-coded zigzag of d − (d before, at first 0), where d = offset − rank,
//!    rank being the index in the block for a batch; in 64-bit wrapping arithmetic. (A run of 0 goes on.)
//! 4. **fates**: varint count of entries, each: verdict byte (1 skipped, 2 dead-lettered), code (text), sentence
//!    (text); then runs(N) of 0 (applied) or the entry's ordinal from 1.
//! 5. **flags**: varint count of entries, each: varint count of codes (texts); then runs(N) of 0 (none) or the
//!    entry's ordinal from 1.
//! 6. **attempt**: runs(N). 7. **origin**: runs(N) of 0 ran, 1 reported, 2 expected. 8. **received**: runs(N)
//!    of 0 or 1.
//! 9. **corrects**: sparse, each: seq, replay_id (varints). 10. **evidence**: sparse, each: text.
//! 11. **event times**: runs(N) of 1 (has one) or 0; a varint unit in milliseconds; for those there are, a
//!     signed (time ÷ unit) less the one before (the first: less 0), in 64-bit wrapping arithmetic.
//! 12. **measures**: runs(N) of how many each decision has; then for each measure j, over the decisions that
//!     have more than j, n of them: runs(n) of 0 (none), 1 (an amount), 2 (an amount and a group); a varint unit
//!     in 10⁻⁹; for each amount a zigzag varint (up to 128 bits) of nanos ÷ unit; for each group a text.
//!
//! A *text column* of n texts: n varints (bytes shared with the start of the text before, at first 0), n varints
//! (bytes that follow), then all those bytes in order.
//!
//! # Bodies
//! A varint count, then for each: offset (varint), payload (bytes), payload_bytes (varint), headers (varint
//! count, then name and value as texts), attempts (varint count, then number (varint), at (signed), found
//! (text)).

mod block;
mod columns;
mod wire;

use recount_model::batch::Attempt;
use recount_model::{
    BatchRecord, Decision, Gap, GapKind, Header, KeptBody, OffsetSet, PartitionId, Timestamp,
};
use wire::{Packer, Unpacker, checksum, compress, decompress};

pub(crate) use block::{BatchHead, Block, BlockHead, Rows};

/// The format that [`encode`] writes, and the newest that [`decode`] reads.
pub const VERSION: u16 = 1;

const MAGIC: &[u8; 4] = b"RCNT";
const PREAMBLE_BYTES: usize = 64;
const KIND_BATCH: u8 = 1;
const KIND_SEALED: u8 = 2;

/// Why packed bytes can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not what was written.
    #[error("the packed bytes are damaged: {0}")]
    Damaged(&'static str),
    /// A newer program wrote them.
    #[error("packed in format {found}, this program reads up to {VERSION}: use a newer recount")]
    TooNew {
        /// Its version.
        found: u16,
    },
}

/// Packs a whole batch. Deterministic for one version of zstd; any version reads it.
pub fn encode(record: &BatchRecord) -> Vec<u8> {
    let mut core = Packer(Vec::with_capacity(64 + record.decisions.len() * 32));
    put_head(&mut core, record);
    let decisions: Vec<&Decision> = record.decisions.iter().collect();
    columns::put(&mut core, &decisions, None);
    frame(KIND_BATCH, &core.0, &decisions, &record.bodies)
}

/// Packs decisions of one partition for a sealed segment, each with its rank.
pub(crate) fn encode_sealed(decisions: &[&Decision], ranks: &[u64]) -> Vec<u8> {
    let mut core = Packer(Vec::with_capacity(64 + decisions.len() * 32));
    let mut before = 0_u64;
    for rank in ranks {
        core.signed(rank.wrapping_sub(before) as i64);
        before = *rank;
    }
    columns::put(&mut core, decisions, Some(ranks));
    frame(KIND_SEALED, &core.0, decisions, &[])
}

/// Unpacks a batch that [`encode`] wrote, bodies and all. Checks everything, panics at nothing.
pub fn decode(bytes: &[u8]) -> Result<BatchRecord, CodecError> {
    let block = Block::open(bytes)?;
    let preamble = Preamble::read(bytes)?;
    let bodies = bytes.get(preamble.bodies_at()..).ok_or(CodecError::Damaged("it ends early"))?;
    let decisions = block.decisions()?;
    let BlockHead::Batch(head) = block.head else {
        return Err(CodecError::Damaged("it is a sealed block and not a batch"));
    };
    Ok(head.into_record(decisions, read_bodies(&preamble, bodies)?))
}

/// The part of an encoded batch that the ledger keeps as a block: everything but the bodies.
pub(crate) fn without_bodies(bytes: &[u8]) -> Result<&[u8], CodecError> {
    let preamble = Preamble::read(bytes)?;
    bytes.get(..preamble.bodies_at()).ok_or(CodecError::Damaged("it ends early"))
}

fn frame(kind: u8, core: &[u8], decisions: &[&Decision], bodies: &[KeptBody]) -> Vec<u8> {
    let packed = compress(core);
    let (bodies_packed, bodies_bytes) = match bodies {
        [] => (Vec::new(), 0),
        _ => pack_bodies(bodies),
    };
    let hashes_bytes = decisions.len() * 8;
    let mut out = Vec::with_capacity(PREAMBLE_BYTES + packed.len() + hashes_bytes + bodies_packed.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[kind, 0]);
    for number in [packed.len(), core.len(), decisions.len(), bodies_packed.len(), bodies_bytes] {
        out.extend_from_slice(&(number as u64).to_le_bytes());
    }
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&packed);
    for decision in decisions {
        out.extend_from_slice(&decision.payload_hash.0.to_le_bytes());
    }
    let sum = checksum(&[&out[..48], &out[PREAMBLE_BYTES..]]);
    out[48..56].copy_from_slice(&sum);
    out[56..64].copy_from_slice(&checksum(&[&bodies_packed]));
    out.extend_from_slice(&bodies_packed);
    out
}

/// The fixed part of a frame.
struct Preamble {
    kind: u8,
    core_packed: usize,
    core_bytes: u64,
    decisions: usize,
    bodies_packed: usize,
    bodies_bytes: u64,
    core_sum: [u8; 8],
    bodies_sum: [u8; 8],
}

impl Preamble {
    fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        let fixed = bytes.get(..PREAMBLE_BYTES).ok_or(CodecError::Damaged("it ends early"))?;
        if &fixed[..4] != MAGIC {
            return Err(CodecError::Damaged("it does not begin with RCNT"));
        }
        let version = u16::from_le_bytes([fixed[4], fixed[5]]);
        if version > VERSION {
            return Err(CodecError::TooNew { found: version });
        }
        let eight = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&fixed[at..at + 8]);
            number
        };
        let length = |at: usize| {
            let number = u64::from_le_bytes(eight(at));
            if number > (isize::MAX / 32) as u64 {
                return Err(CodecError::Damaged("a length is too large"));
            }
            Ok(number as usize)
        };
        Ok(Self {
            kind: fixed[6],
            core_packed: length(8)?,
            core_bytes: u64::from_le_bytes(eight(16)),
            decisions: length(24)?,
            bodies_packed: length(32)?,
            bodies_bytes: u64::from_le_bytes(eight(40)),
            core_sum: eight(48),
            bodies_sum: eight(56),
        })
    }

    fn hashes_at(&self) -> usize {
        PREAMBLE_BYTES + self.core_packed
    }

    fn bodies_at(&self) -> usize {
        self.hashes_at() + self.decisions * 8
    }
}

fn put_ranges(out: &mut Packer, set: &OffsetSet) {
    out.varint(set.ranges().len() as u64);
    let mut before = 0;
    for &(from, to) in set.ranges() {
        out.varint(from - before);
        out.varint(to - from);
        before = to;
    }
}

fn read_ranges(from: &mut Unpacker<'_>) -> Result<OffsetSet, CodecError> {
    let mut set = OffsetSet::new();
    let mut end = 0_u64;
    let too_far = CodecError::Damaged("an offset is too large");
    for _ in 0..from.count()? {
        let begin = end.checked_add(from.varint()?).ok_or(too_far)?;
        end = begin.checked_add(from.varint()?).ok_or(too_far)?;
        set.insert_range(begin, end);
    }
    Ok(set)
}

fn put_head(out: &mut Packer, record: &BatchRecord) {
    out.text(record.at.flow.as_str());
    out.text(record.at.source.as_str());
    out.text(record.at.partition.as_str());
    out.varint(record.epoch);
    out.varint(record.seq);
    out.varint(u64::from(record.config.0));
    out.signed(record.taken_at.0);
    out.signed(record.decided_at.0.wrapping_sub(record.taken_at.0));
    out.varint(record.next_offset);
    put_ranges(out, &record.decided_above);
    out.varint(record.gaps.len() as u64);
    for gap in &record.gaps {
        out.varint(gap.from);
        out.varint(gap.to);
        out.byte(match gap.kind {
            GapKind::Lost => 0,
            GapKind::NotAnEvent => 1,
            GapKind::Unrecorded => 2,
        });
        out.text(&gap.cause);
    }
}

fn read_head(from: &mut Unpacker<'_>) -> Result<BatchHead, CodecError> {
    use recount_model::{ConfigVersion, FlowName, Partition, SourceId};
    let flow = FlowName::new(from.text()?).map_err(|_| CodecError::Damaged("a flow's name is none"))?;
    let at =
        PartitionId { flow, source: SourceId::new(from.text()?), partition: Partition::new(from.text()?) };
    let (epoch, seq) = (from.varint()?, from.varint()?);
    let config = ConfigVersion(from.small()?);
    let taken_at = Timestamp(from.signed()?);
    let decided_at = Timestamp(taken_at.0.wrapping_add(from.signed()?));
    let next_offset = from.varint()?;
    let decided_above = read_ranges(from)?;
    let mut gaps = Vec::new();
    for _ in 0..from.count()? {
        let (begin, end) = (from.varint()?, from.varint()?);
        let kind = match from.byte()? {
            0 => GapKind::Lost,
            1 => GapKind::NotAnEvent,
            2 => GapKind::Unrecorded,
            _ => return Err(CodecError::Damaged("a gap is of no known kind")),
        };
        gaps.push(Gap { from: begin, to: end, kind, cause: from.text()?.to_owned() });
    }
    Ok(BatchHead { at, epoch, seq, config, taken_at, decided_at, gaps, next_offset, decided_above })
}

fn pack_bodies(bodies: &[KeptBody]) -> (Vec<u8>, usize) {
    let mut raw = Packer::default();
    raw.varint(bodies.len() as u64);
    for body in bodies {
        raw.varint(body.offset);
        raw.bytes(&body.payload);
        raw.varint(body.payload_bytes);
        raw.varint(body.headers.len() as u64);
        for header in &body.headers {
            raw.text(&header.name);
            raw.text(&header.value);
        }
        raw.varint(body.attempts.len() as u64);
        for attempt in &body.attempts {
            raw.varint(u64::from(attempt.number));
            raw.signed(attempt.at.0);
            raw.text(&attempt.found);
        }
    }
    (compress(&raw.0), raw.0.len())
}

fn read_bodies(preamble: &Preamble, packed: &[u8]) -> Result<Vec<KeptBody>, CodecError> {
    if packed.len() != preamble.bodies_packed || checksum(&[packed]) != preamble.bodies_sum {
        return Err(CodecError::Damaged("the bodies' checksum differs"));
    }
    if packed.is_empty() {
        return Ok(Vec::new());
    }
    let raw = decompress(packed, preamble.bodies_bytes)?;
    let mut from = Unpacker { rest: &raw };
    let mut bodies = Vec::new();
    for _ in 0..from.count()? {
        let offset = from.varint()?;
        let payload = from.bytes()?.to_vec();
        let payload_bytes = from.varint()?;
        let mut headers = Vec::new();
        for _ in 0..from.count()? {
            headers.push(Header { name: from.text()?.into(), value: from.text()?.into() });
        }
        let mut attempts = Vec::new();
        for _ in 0..from.count()? {
            let (number, at) = (from.small()?, Timestamp(from.signed()?));
            attempts.push(Attempt { number, at, found: from.text()?.to_owned() });
        }
        bodies.push(KeptBody { offset, payload, payload_bytes, headers, attempts });
    }
    from.done()?;
    Ok(bodies)
}
