//! Identity sums: whether two sets of positions and ids are the same, without keeping either.

use recount_model::PartitionId;
use std::ops::AddAssign;

/// The key of a ledger's identity hashes: 32 random bytes, kept in the catalog.
pub type IdentityKey = [u8; 32];

/// A sum of identity hashes modulo 2¹²⁸. The order of what was added does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct IdentitySum(pub u128);

impl IdentitySum {
    /// Adds one identity hash.
    pub fn add(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }
}

impl AddAssign for IdentitySum {
    fn add_assign(&mut self, other: Self) {
        self.add(other.0);
    }
}

/// BLAKE3 keyed with `key`, the first 16 bytes little-endian, over: the source's id, a zero byte, the
/// partition, a zero byte, the offset as 8 bytes little-endian, the event's id (nothing where it has none).
pub fn identity_hash(key: &IdentityKey, at: &PartitionId, offset: u64, event_id: Option<&str>) -> u128 {
    IdentityHasher::new(key, at).hash(offset, event_id)
}

/// [`identity_hash`] for many events of one partition.
pub struct IdentityHasher {
    key: IdentityKey,
    input: Vec<u8>,
    prefix_bytes: usize,
}

impl IdentityHasher {
    /// For this partition.
    pub fn new(key: &IdentityKey, at: &PartitionId) -> Self {
        let mut input = Vec::with_capacity(128);
        input.extend_from_slice(at.source.as_str().as_bytes());
        input.push(0);
        input.extend_from_slice(at.partition.as_str().as_bytes());
        input.push(0);
        Self { key: *key, prefix_bytes: input.len(), input }
    }

    /// The hash of one event.
    pub fn hash(&mut self, offset: u64, event_id: Option<&str>) -> u128 {
        self.input.truncate(self.prefix_bytes);
        self.input.extend_from_slice(&offset.to_le_bytes());
        self.input.extend_from_slice(event_id.unwrap_or("").as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::keyed_hash(&self.key, &self.input).as_bytes()[..16]);
        u128::from_le_bytes(first)
    }
}
