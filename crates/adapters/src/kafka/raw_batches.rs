//! What stands in a range of a partition's log, from the headers of its raw batches: why positions carry no event.
//!
//! The layouts are those of Kafka's protocol guide: the answer to Fetch, version 4, and the record batch of magic 2.
//! Whatever the bytes are, reading them ends with what could be understood of them.

use std::collections::BTreeSet;

/// Why a position carries no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// A transaction's marker.
    Control,
    /// A record of a transaction that was aborted.
    Aborted,
    /// No batch has it, or its batch has lost it.
    Compacted,
    /// It was not looked at, or a record ought to be there.
    Unexplained,
}

/// The header of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawBatch {
    pub base_offset: u64,
    /// One past its last.
    pub end_offset: u64,
    pub producer_id: i64,
    pub is_transactional: bool,
    pub is_control: bool,
    /// Of a control batch: whether its marker ends an aborted transaction.
    pub is_abort: bool,
    pub records: u64,
}

/// A part of a partition's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RawLog {
    pub batches: Vec<RawBatch>,
    /// Producer and first offset of each aborted transaction that reaches into it.
    pub aborted: Vec<(i64, u64)>,
}

const HEADER_BYTES: usize = 61;
const MAGIC: u8 = 2;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.i16()?).ok()?;
        self.take(length)
    }

    /// A number of seven bits a byte, in zigzag.
    fn varint(&mut self) -> Option<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        None
    }
}

/// The answer to a Fetch of one partition, behind its correlation id. None where it is an error, or not understood.
pub(super) fn read_fetched(answer: &[u8]) -> Option<RawLog> {
    let mut bytes = Bytes(answer);
    let _throttle_ms = bytes.i32()?;
    let _topics = bytes.i32().filter(|count| *count == 1)?;
    let _topic = bytes.text()?;
    let _partitions = bytes.i32().filter(|count| *count == 1)?;
    let _partition = bytes.i32()?;
    let _error = bytes.i16().filter(|error| *error == 0)?;
    let (_high_watermark, _last_stable) = (bytes.i64()?, bytes.i64()?);
    let mut aborted = Vec::new();
    for _ in 0..bytes.i32()? {
        let (producer, first) = (bytes.i64()?, bytes.i64()?);
        aborted.push((producer, u64::try_from(first).ok()?));
    }
    let length = usize::try_from(bytes.i32()?).unwrap_or(0);
    let records = bytes.take(length.min(bytes.0.len()))?;
    Some(RawLog { batches: read_batches(records), aborted })
}

/// The batches up to the first that is cut off or not understood.
fn read_batches(mut records: &[u8]) -> Vec<RawBatch> {
    let mut batches = Vec::new();
    while let Some((batch, rest)) = read_batch(records) {
        batches.push(batch);
        records = rest;
    }
    batches
}

fn read_batch(records: &[u8]) -> Option<(RawBatch, &[u8])> {
    let mut bytes = Bytes(records);
    let base_offset = u64::try_from(bytes.i64()?).ok()?;
    let length = usize::try_from(bytes.i32()?).ok()?;
    let (batch, rest) = bytes.0.split_at_checked(length)?;
    let mut bytes = Bytes(batch);
    let _leader_epoch = bytes.i32()?;
    let [_magic] = bytes.array().filter(|[magic]| *magic == MAGIC)?;
    let _crc = bytes.i32()?;
    let attributes = bytes.i16()?;
    let last_offset_delta = u64::try_from(bytes.i32()?).ok()?;
    let _timestamps = (bytes.i64()?, bytes.i64()?);
    let producer_id = bytes.i64()?;
    let (_producer_epoch, _base_sequence) = (bytes.i16()?, bytes.i32()?);
    let records = u64::try_from(bytes.i32()?).ok()?;
    debug_assert_eq!(batch.len() - bytes.0.len(), HEADER_BYTES - 12, "the header is as long as it is");
    let end_offset = base_offset.checked_add(last_offset_delta)?.checked_add(1)?;
    let is_control = attributes & 0x20 != 0;
    let batch = RawBatch {
        base_offset,
        end_offset,
        producer_id,
        is_transactional: attributes & 0x10 != 0,
        is_control,
        is_abort: is_control && read_is_abort(bytes).unwrap_or(false),
        records,
    };
    Some((batch, rest))
}

/// Whether a control batch's only record is an abort: the key is a version and a type, of which 0 is abort.
fn read_is_abort(mut record: Bytes<'_>) -> Option<bool> {
    let _length = record.varint()?;
    let [_attributes] = record.array()?;
    let (_timestamp_delta, _offset_delta) = (record.varint()?, record.varint()?);
    let _key_length = record.varint().filter(|length| *length >= 4)?;
    let _version = record.i16()?;
    Some(record.i16()? == 0)
}

impl RawLog {
    /// One past the last position of which it says anything.
    pub fn end_offset(&self) -> Option<u64> {
        self.batches.last().map(|batch| batch.end_offset)
    }

    /// What the positions from `from` on lack an event for, where they do: neighbouring parts without holes between.
    /// Aborted transactions are followed as Kafka's own consumer does: each begins with its first offset and ends with
    /// its producer's next abort marker.
    pub fn absences(&self, from: u64) -> Vec<(u64, u64, Absence)> {
        let mut to_come = self.aborted.clone();
        to_come.sort_by_key(|(_, first)| std::cmp::Reverse(*first));
        let (mut parts, mut next, mut aborted) = (Vec::new(), from, BTreeSet::new());
        for batch in &self.batches {
            if batch.base_offset > next {
                parts.push((next, batch.base_offset, Absence::Compacted));
                next = batch.base_offset;
            }
            while let Some((producer, _)) = to_come.pop_if(|(_, first)| *first < batch.end_offset) {
                aborted.insert(producer);
            }
            if batch.is_abort {
                aborted.remove(&batch.producer_id);
            }
            let absence = if batch.is_control {
                Absence::Control
            } else if batch.is_transactional && aborted.contains(&batch.producer_id) {
                Absence::Aborted
            } else if batch.records < batch.end_offset - batch.base_offset {
                Absence::Compacted
            } else {
                Absence::Unexplained
            };
            if batch.end_offset > next {
                parts.push((next, batch.end_offset, absence));
                next = batch.end_offset;
            }
        }
        parts
    }
}

#[cfg(test)]
#[path = "raw_batches_tests.rs"]
mod tests;
