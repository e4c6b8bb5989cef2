//! One guard taken away, to show that its absence is noticed.

use std::fmt;
use std::str::FromStr;

/// Which guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A batch is not claimed with epoch and seq.
    Claim,
    /// One disk's syncs do nothing and say that they did.
    Sync,
    /// Deliveries are settled before the ledger has their decisions.
    LedgerBeforeSettle,
    /// After a crash, what the ledger lacks is not appended from `recount_batch`.
    RedoFromBatchRows,
    /// A redelivered position is acknowledged without a look at its payload.
    PayloadCompare,
}

impl Sabotage {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Claim, Self::Sync, Self::LedgerBeforeSettle, Self::RedoFromBatchRows, Self::PayloadCompare];

    /// As it is written on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Sync => "sync",
            Self::LedgerBeforeSettle => "ledger-before-settle",
            Self::RedoFromBatchRows => "redo-from-batch-rows",
            Self::PayloadCompare => "payload-compare",
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|sabotage| sabotage.word() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::word).join(", ");
            format!("{text:?} is no guard: take away one of {words}")
        })
    }
}
