//! The law: over every closed range of positions, what was published is what has a fate.

use crate::batch::GapKind;
use crate::verdict::Fate;

/// One side of the books of a flow, a partition or a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BookCounts {
    /// Positions that the source holds or held, as far as the witness says.
    pub published: u64,
    /// Decided: effect committed.
    pub applied: u64,
    /// Decided: left out for a declared reason.
    pub skipped: u64,
    /// Decided: kept whole.
    pub dead_lettered: u64,
    /// Never reached us.
    pub lost: u64,
    /// Carry no event.
    pub not_an_event: u64,
    /// Consumed without a record.
    pub unrecorded: u64,
    /// Not decided yet, and inside the allowed time.
    pub open: u64,
}

impl BookCounts {
    /// Adds one decision.
    pub fn add_fate(&mut self, fate: &Fate) {
        match fate {
            Fate::Applied => self.applied += 1,
            Fate::Skipped(_) => self.skipped += 1,
            Fate::DeadLettered(_) => self.dead_lettered += 1,
        }
    }

    /// Takes one decision back, since another corrects it.
    pub fn remove_fate(&mut self, fate: &Fate) {
        let count = match fate {
            Fate::Applied => &mut self.applied,
            Fate::Skipped(_) => &mut self.skipped,
            Fate::DeadLettered(_) => &mut self.dead_lettered,
        };
        *count = count.checked_sub(1).expect("a correction takes back a decision that was counted");
    }

    /// Adds positions without a verdict.
    pub fn add_gap(&mut self, kind: GapKind, positions: u64) {
        match kind {
            GapKind::Lost => self.lost += positions,
            GapKind::NotAnEvent => self.not_an_event += positions,
            GapKind::Unrecorded => self.unrecorded += positions,
        }
    }

    /// Adds another partition's books.
    pub fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.applied += other.applied;
        self.skipped += other.skipped;
        self.dead_lettered += other.dead_lettered;
        self.lost += other.lost;
        self.not_an_event += other.not_an_event;
        self.unrecorded += other.unrecorded;
        self.open += other.open;
    }

    /// Decided by a verdict.
    pub fn decided(&self) -> u64 {
        self.applied + self.skipped + self.dead_lettered
    }

    /// Published less everything that has a fate or is open: 0 where the law holds. Negative where more
    /// has a fate than was published.
    pub fn unexplained(&self) -> i128 {
        let explained = [
            self.applied,
            self.skipped,
            self.dead_lettered,
            self.lost,
            self.not_an_event,
            self.unrecorded,
            self.open,
        ];
        i128::from(self.published) - explained.iter().map(|n| i128::from(*n)).sum::<i128>()
    }

    /// What these counts allow to be said. A witness that can't tell makes it unprovable beforehand.
    pub fn status(&self) -> BookStatus {
        if self.unexplained() != 0 {
            BookStatus::Imbalanced
        } else if self.unrecorded > 0 {
            BookStatus::Unprovable
        } else if self.open > 0 {
            BookStatus::Open
        } else {
            BookStatus::Balanced
        }
    }
}

/// What an equation of the books comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BookStatus {
    /// Both sides agree.
    Balanced,
    /// Something is undecided, inside its allowed time.
    Open,
    /// The witness can't tell. Never shown as balanced.
    Unprovable,
    /// The sides differ.
    Imbalanced,
}

impl BookStatus {
    /// The law's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Open => "open",
            Self::Unprovable => "unprovable",
            Self::Imbalanced => "imbalanced",
        }
    }

    /// Of several statements, the one to be told first: imbalanced, unprovable, open, balanced.
    pub fn worst(self, other: Self) -> Self {
        self.max(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_in_a_table() {
        let check = |published, applied, open, unrecorded, expected: (i128, BookStatus)| {
            let books = BookCounts { published, applied, open, unrecorded, ..Default::default() };
            assert_eq!((books.unexplained(), books.status()), expected);
        };
        check(10, 10, 0, 0, (0, BookStatus::Balanced));
        check(10, 8, 2, 0, (0, BookStatus::Open));
        check(10, 8, 0, 2, (0, BookStatus::Unprovable));
        check(10, 9, 0, 0, (1, BookStatus::Imbalanced));
        check(10, 11, 0, 0, (-1, BookStatus::Imbalanced));
        check(0, 0, 0, 0, (0, BookStatus::Balanced));
    }
}
