//! Sets of offsets, kept as ranges.

use std::fmt;

/// A set of offsets as sorted, disjoint, non-touching half-open ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetSet {
    ranges: Vec<(u64, u64)>,
}

impl OffsetSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one offset.
    pub fn insert(&mut self, offset: u64) {
        self.insert_range(offset, offset + 1);
    }

    /// Adds `from..to`; an empty range adds nothing.
    pub fn insert_range(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let start = self.ranges.partition_point(|&(_, end)| end < from);
        let end = self.ranges.partition_point(|&(begin, _)| begin <= to);
        let (mut from, mut to) = (from, to);
        if start < end {
            from = from.min(self.ranges[start].0);
            to = to.max(self.ranges[end - 1].1);
        }
        self.ranges.splice(start..end, [(from, to)]);
    }

    /// Takes `from..to` out.
    pub fn remove_range(&mut self, from: u64, to: u64) {
        let mut kept = Vec::with_capacity(self.ranges.len() + 1);
        for &(begin, end) in &self.ranges {
            if begin < from.min(end) {
                kept.push((begin, end.min(from)));
            }
            if end > to.max(begin) {
                kept.push((begin.max(to), end));
            }
        }
        self.ranges = kept;
    }

    /// Whether the offset is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        let next = self.ranges.partition_point(|&(begin, _)| begin <= offset);
        next > 0 && offset < self.ranges[next - 1].1
    }

    /// If the set begins at `next`, takes that range out and returns its end; else `next`. This is how a
    /// prefix grows over what was decided beyond it.
    pub fn absorb_prefix(&mut self, next: u64) -> u64 {
        match self.ranges.first() {
            Some(&(begin, end)) if begin <= next => {
                self.ranges.remove(0);
                end.max(next)
            }
            _ => next,
        }
    }

    /// How many offsets.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(begin, end)| end - begin).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, ascending, half-open.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// The complement within `from..to`: the offsets there that are not in the set.
    pub fn missing_within(&self, from: u64, to: u64) -> OffsetSet {
        let mut rest = OffsetSet::new();
        rest.insert_range(from, to);
        for &(begin, end) in &self.ranges {
            rest.remove_range(begin, end);
        }
        rest
    }

    /// Reads what [`Display`](fmt::Display) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            match part.split_once('-') {
                None => set.insert(part.parse().ok()?),
                Some((first, last)) => {
                    set.insert_range(first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?);
                }
            }
        }
        Some(set)
    }
}

impl fmt::Display for OffsetSet {
    /// `3,7-9,12`: single offsets and inclusive ranges; empty for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &(begin, end)) in self.ranges.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            if end == begin + 1 {
                write!(f, "{begin}")?;
            } else {
                write!(f, "{begin}-{}", end - 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> OffsetSet {
        OffsetSet::parse(text).unwrap()
    }

    #[test]
    fn ranges_merge_and_split() {
        for (start, from, to, expected) in [
            ("", 3, 4, "3"),
            ("3", 4, 5, "3-4"),
            ("3,5", 4, 5, "3-5"),
            ("1-2,8-9", 4, 6, "1-2,4-5,8-9"),
            ("1-2,8-9", 0, 20, "0-19"),
            ("1-2,8-9", 3, 8, "1-9"),
        ] {
            let mut s = set(start);
            s.insert_range(from, to);
            assert_eq!(s.to_string(), expected);
        }
        for (start, from, to, expected) in
            [("0-9", 3, 5, "0-2,5-9"), ("0-2,5-9", 2, 6, "0-1,6-9"), ("4", 0, 10, ""), ("4-6", 8, 9, "4-6")]
        {
            let mut s = set(start);
            s.remove_range(from, to);
            assert_eq!(s.to_string(), expected);
        }
    }

    #[test]
    fn a_prefix_grows_over_what_was_decided_beyond_it() {
        let mut s = set("5-7,9");
        assert_eq!(s.absorb_prefix(4), 4);
        assert_eq!(s.absorb_prefix(5), 8);
        assert_eq!(s.to_string(), "9");
        assert!(s.contains(9) && !s.contains(8));
        assert_eq!(s.missing_within(7, 12).to_string(), "7-8,10-11");
        assert_eq!(s.count(), 1);
    }
}
