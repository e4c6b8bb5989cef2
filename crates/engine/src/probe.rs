//! Where the loop stands, for whoever wants to strike there.

/// The steps of one batch, in the order of `PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Asking the source for a batch.
    Take,
    /// Decoding and checking.
    Check,
    /// Inside the effect's transaction: claim and statements.
    Effect,
    /// The record is made; the transaction is about to commit.
    Commit,
    /// Committed; the ledger does not have it yet.
    Ledger,
    /// The ledger has it; the source has not been told yet.
    Settle,
    /// Waiting for something to happen.
    Idle,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 7] =
        [Self::Take, Self::Check, Self::Effect, Self::Commit, Self::Ledger, Self::Settle, Self::Idle];

    /// One lower-case word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Check => "check",
            Self::Effect => "effect",
            Self::Commit => "commit",
            Self::Ledger => "ledger",
            Self::Settle => "settle",
            Self::Idle => "idle",
        }
    }
}

/// Is told each step as the loop reaches it. It must be quick and must not fail.
pub trait Probe: Send + Sync {
    /// The loop is about to do this step.
    fn reached(&self, step: Step);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn reached(&self, _: Step) {}
}

/// Guards that the simulator takes away one at a time, to show that it would notice. All true in every
/// other use.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Guards {
    /// Settle only what the ledger has.
    pub ledger_before_settle: bool,
    /// After a crash, append from `recount_batch` what the ledger lacks.
    pub redo_from_batch_rows: bool,
    /// Compare a redelivered position with what was decided.
    pub payload_compare: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self { ledger_before_settle: true, redo_from_batch_rows: true, payload_compare: true }
    }
}
