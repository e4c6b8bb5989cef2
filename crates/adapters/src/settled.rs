//! How far a partition is settled without a hole.

use recount_model::OffsetSet;

/// Collects settled offsets, which may come out of order, into a prefix.
#[derive(Debug)]
pub(crate) struct SettledPrefix {
    next_offset: u64,
    above: OffsetSet,
}

impl SettledPrefix {
    /// Everything below `next_offset` is settled.
    pub(crate) fn starting_at(next_offset: u64) -> Self {
        Self { next_offset, above: OffsetSet::new() }
    }

    /// Adds `from..to`: settled deliveries, or positions that carry none.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        self.above.insert_range(from.max(self.next_offset), to);
        self.next_offset = self.above.absorb_prefix(self.next_offset);
    }

    /// The first offset that isn't settled.
    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_grows_over_what_was_settled_beyond_a_hole() {
        let mut prefix = SettledPrefix::starting_at(5);
        prefix.add(7, 9);
        assert_eq!(prefix.next_offset(), 5);
        prefix.add(2, 6);
        assert_eq!(prefix.next_offset(), 6);
        prefix.add(6, 7);
        assert_eq!(prefix.next_offset(), 9);
        prefix.add(0, 3);
        assert_eq!(prefix.next_offset(), 9);
    }
}
