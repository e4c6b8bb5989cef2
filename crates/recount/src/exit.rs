//! Exit codes and the errors that carry them.

use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a command ends, worst first where several apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0: well.
    Well,
    /// 3: unprovable.
    Unprovable,
    /// 1: what was asked about is not well.
    NotWell,
    /// 4: the instance or ledger that was asked can't be reached.
    Unreachable,
    /// 2: usage or config.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::NotWell => 1,
            Self::Usage => 2,
            Self::Unprovable => 3,
            Self::Unreachable => 4,
        }
    }

    /// From a report's own exit code.
    pub fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Well,
            2 => Self::Usage,
            3 => Self::Unprovable,
            4 => Self::Unreachable,
            _ => Self::NotWell,
        }
    }
}

/// A command that could not do what was asked: the sentence goes to standard error.
#[derive(Debug)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// What is wrong and what to do next.
    pub message: String,
}

impl Failure {
    /// Usage or config: 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    /// The instance or ledger can't be reached: 4.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Unreachable, message: message.to_string() }
    }

    /// Not well: 1.
    pub fn not_well(message: impl fmt::Display) -> Self {
        Self { exit: Exit::NotWell, message: message.to_string() }
    }
}

/// Whether what was read is only what a replica had.
static LEDGER_IS_OUT_OF_REACH: AtomicBool = AtomicBool::new(false);

/// Says whether the ledger itself could not be asked, whatever else the command finds. Gives what was said before.
pub(crate) fn ledger_is_out_of_reach(is: bool) -> bool {
    LEDGER_IS_OUT_OF_REACH.swap(is, Ordering::Relaxed)
}

/// The outcome, given whether the ledger could be asked.
pub(crate) fn as_reached(outcome: Outcome) -> Outcome {
    match outcome {
        Ok(exit) if LEDGER_IS_OUT_OF_REACH.load(Ordering::Relaxed) => Ok(exit.max(Exit::Unreachable)),
        outcome => outcome,
    }
}

/// What a command gives.
pub type Outcome = Result<Exit, Failure>;
