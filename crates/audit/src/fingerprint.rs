//! Sums that two readers can compare without keeping what they read.

use recount_model::PartitionId;
use std::collections::BTreeMap;

/// How many positions share one sum: what is read again, and held at once, when sums differ.
pub const CHUNK_POSITIONS: u64 = 65_536;

/// How many members, and the sum of their hashes modulo 2¹²⁸. Order does not matter; a member can be
/// taken out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Members.
    pub count: i64,
    /// Σ hash mod 2¹²⁸.
    pub hash: u128,
}

impl Sum {
    /// Adds a member.
    pub fn add(&mut self, hash: u128) {
        self.count += 1;
        self.hash = self.hash.wrapping_add(hash);
    }

    /// Takes a member out.
    pub fn remove(&mut self, hash: u128) {
        self.count -= 1;
        self.hash = self.hash.wrapping_sub(hash);
    }
}

/// One [`Sum`] for each chunk of positions. Memory: one entry for every [`CHUNK_POSITIONS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkSums(BTreeMap<u64, Sum>);

impl ChunkSums {
    /// Adds a member at an offset.
    pub fn add(&mut self, offset: u64, hash: u128) {
        self.0.entry(offset / CHUNK_POSITIONS).or_default().add(hash);
    }

    /// Takes a member at an offset out.
    pub fn remove(&mut self, offset: u64, hash: u128) {
        self.0.entry(offset / CHUNK_POSITIONS).or_default().remove(hash);
    }

    /// Adds the bare positions `from..to`.
    pub fn add_positions(&mut self, key: u64, from: u64, to: u64) {
        let mut offset = from;
        while offset < to {
            let end = to.min((offset / CHUNK_POSITIONS + 1) * CHUNK_POSITIONS);
            let sum = self.0.entry(offset / CHUNK_POSITIONS).or_default();
            (offset..end).for_each(|o| sum.add(position_hash(key, o)));
            offset = end;
        }
    }

    /// How many members there are.
    pub fn count(&self) -> i64 {
        self.0.values().map(|sum| sum.count).sum()
    }

    /// The chunks in which two sides differ, ascending, as ranges of positions `from..to`.
    pub fn differing(&self, other: &Self) -> Vec<(u64, u64)> {
        let of = |side: &Self, chunk: &u64| side.0.get(chunk).copied().unwrap_or_default();
        let mut chunks: Vec<u64> = self.0.keys().chain(other.0.keys()).copied().collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks.retain(|chunk| of(self, chunk) != of(other, chunk));
        chunks.iter().map(|c| (c * CHUNK_POSITIONS, (c + 1).saturating_mul(CHUNK_POSITIONS))).collect()
    }
}

/// A cheap keyed hash of a bare position: two rounds of SplitMix64 (Steele, Lea, Flood 2014). It only has
/// to keep a lost and an extra position of one chunk from cancelling, not to withstand an attacker.
pub fn position_hash(key: u64, offset: u64) -> u128 {
    let high = splitmix(key ^ offset);
    let low = splitmix(high ^ offset.rotate_left(32));
    (u128::from(high) << 64) | u128::from(low)
}

fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keyed BLAKE3 of a position and the id that stands there, 16 bytes.
pub struct IdentityHash {
    key: [u8; 32],
    buffer: Vec<u8>,
}

impl IdentityHash {
    /// For the events of one partition.
    pub fn of_partition(key: &[u8; 32], at: &PartitionId) -> Self {
        let mut names = Vec::new();
        for part in [at.flow.as_str(), at.source.as_str(), at.partition.as_str()] {
            names.extend((part.len() as u64).to_be_bytes());
            names.extend(part.as_bytes());
        }
        Self { key: *blake3::keyed_hash(key, &names).as_bytes(), buffer: Vec::with_capacity(64) }
    }

    /// An event without an id differs from one whose id is empty.
    pub fn of(&mut self, offset: u64, event_id: Option<&str>) -> u128 {
        self.buffer.clear();
        self.buffer.extend(offset.to_be_bytes());
        self.buffer.push(u8::from(event_id.is_some()));
        self.buffer.extend(event_id.unwrap_or_default().as_bytes());
        first_16(&blake3::keyed_hash(&self.key, &self.buffer))
    }
}

/// Keyed BLAKE3 of a bare id, for effects that know no position.
pub fn id_hash(key: &[u8; 32], event_id: &str) -> u128 {
    first_16(&blake3::keyed_hash(key, event_id.as_bytes()))
}

fn first_16(hash: &blake3::Hash) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_model::{FlowName, Partition, SourceId};

    #[test]
    fn one_lost_and_one_extra_do_not_cancel() {
        let (mut left, mut right) = (ChunkSums::default(), ChunkSums::default());
        left.add_positions(7, 0, 200_000);
        right.add_positions(7, 0, 200_000);
        assert_eq!(left.differing(&right), []);
        right.remove(70_000, position_hash(7, 70_000));
        right.add(70_001, position_hash(7, 70_001));
        assert_eq!(left.count(), right.count());
        assert_eq!(left.differing(&right), [(65_536, 131_072)]);
    }

    #[test]
    fn identity_depends_on_every_part() {
        let at = |flow, source, partition| PartitionId {
            flow: FlowName::new(flow).unwrap(),
            source: SourceId::new(source),
            partition: Partition::new(partition),
        };
        let of = |at: &PartitionId, offset, id| IdentityHash::of_partition(&[1; 32], at).of(offset, id);
        let base = of(&at("f", "ab", "c"), 1, Some("x"));
        assert_eq!(base, of(&at("f", "ab", "c"), 1, Some("x")));
        for other in [
            of(&at("f", "a", "bc"), 1, Some("x")),
            of(&at("f", "ab", "c"), 2, Some("x")),
            of(&at("f", "ab", "c"), 1, Some("y")),
            of(&at("f", "ab", "c"), 1, Some("")),
            of(&at("f", "ab", "c"), 1, None),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(of(&at("f", "ab", "c"), 1, Some("")), of(&at("f", "ab", "c"), 1, None));
    }
}
