//! What every source must show, as far as it declares it.

mod crashes;
mod owners;
mod ranges;
mod steady;

use super::handler::{Answer, Answers};
use super::scene::Scene;
use anyhow::Result;

/// A property, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Property {
    /// Effects come in the order of what was published
    Order,
    /// After SIGKILL what was not done is done, and nothing twice
    Crash,
    /// An event that kills the process is a dead letter, others are applied; kills from outside condemn none
    Poison,
    /// A retried event holds its key in order, and others go on
    Retry,
    /// On SIGTERM everything taken is decided or open, and the next run goes on exactly
    Drain,
    /// Any position can be read again once it is done: the bytes are those that were published
    Again,
    /// What was gone before it was taken is recorded as lost
    Unread,
    /// What serves the source crashes in mid-batch: whatever was acknowledged has its effect once
    Restart,
    /// Another source under the same name stops the flow
    Anew,
    /// A frozen owner that was replaced does nothing when it wakes
    Frozen,
    /// An offset moved from outside moves nothing, and is told
    Moved,
}

impl Property {
    /// Every one, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Order,
        Self::Crash,
        Self::Poison,
        Self::Retry,
        Self::Drain,
        Self::Again,
        Self::Unread,
        Self::Restart,
        Self::Anew,
        Self::Frozen,
        Self::Moved,
    ];

    /// As it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "in order",
            Self::Crash => "redelivered after a crash",
            Self::Poison => "poison isolated",
            Self::Retry => "key order through retry",
            Self::Drain => "drain on SIGTERM",
            Self::Again => "read again afterwards",
            Self::Unread => "unread range recorded",
            Self::Restart => "broker restarted mid-batch",
            Self::Anew => "source made anew",
            Self::Frozen => "owner frozen and woken",
            Self::Moved => "offsets moved from outside",
        }
    }

    /// The capability without which it can't be asked, and what that means.
    pub fn needs(self) -> (&'static str, &'static str) {
        match self {
            Self::Order | Self::Retry => ("ordered", "its events have no order"),
            Self::Crash | Self::Poison | Self::Drain | Self::Restart => {
                ("redelivers", "what is not settled is gone")
            }
            Self::Again => ("replayable", "what was taken is gone"),
            Self::Unread => {
                ("tells_lost", "where unread events are gone it is another source, and stops the flow")
            }
            Self::Anew | Self::Frozen => ("positions", "nothing tells one incarnation from another"),
            Self::Moved => ("commits_offset", "nobody keeps an offset for it"),
        }
    }

    /// How much a batch takes: small where a batch must be struck.
    pub fn batch_events(self) -> u64 {
        match self {
            Self::Poison => 6,
            Self::Crash | Self::Retry | Self::Drain | Self::Restart | Self::Frozen => 10,
            _ => 50,
        }
    }

    /// What the handler answers, where the effect is one.
    pub fn handler(self) -> Option<Answers> {
        match self {
            Self::Poison => Some(crashes::poisoned),
            Self::Retry => Some(steady::retried),
            _ => None,
        }
    }

    /// Asks it; what does not hold, a sentence each.
    pub fn ask(self, scene: &mut Scene<'_>) -> Result<Vec<String>> {
        match self {
            Self::Order => steady::order(scene),
            Self::Crash => crashes::crash(scene),
            Self::Poison => crashes::poison(scene),
            Self::Retry => steady::retry(scene),
            Self::Drain => steady::drain(scene),
            Self::Again => steady::again(scene),
            Self::Unread => ranges::unread(scene),
            Self::Restart => crashes::restart(scene),
            Self::Anew => ranges::anew(scene),
            Self::Frozen => owners::frozen(scene),
            Self::Moved => ranges::moved(scene),
        }
    }
}

/// How often a handler was asked about an event.
fn asked(scene: &Scene<'_>, number: u64) -> u32 {
    scene.handler.as_ref().map_or(0, |handler| handler.times_asked(number))
}

/// What an answer is where the event is none of the special ones.
const USUAL: Answer = Answer::Applied;
