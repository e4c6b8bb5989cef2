//! The consumer group that Recount looks at from beside: what it has committed, since when, and how it stands.
//!
//! A broker tells what a group has committed *now*, and never since when. So what was seen is kept, look by
//! look, and an event counts as passed since the first look from which on the group was always beyond it.
//!
//! How a group stands is judged by the rules of LinkedIn's Burrow
//! (<https://github.com/linkedin/Burrow/wiki/Consumer-Lag-Evaluation-Rules>, and as they run in its
//! `core/internal/evaluator/caching.go`), over a window and without a threshold:
//!
//! 1. no lag at any look in the window: `OK`;
//! 2. the committed offset moved back: `REWIND`;
//! 3. the offset does not move, and nobody commits: `STOP`;
//! 4. the offset does not move, and somebody is there: `STALL`;
//! 5. the offset moves on, and the lag never fell: `WARN`.
//!
//! Burrow reads each commit with its time; a look from outside sees only offsets. So what Burrow tells by the
//! time of the last commit (3 or 4) is told here by whether the group has members.

use crate::witness::WitnessError;
use recount_model::{PartitionId, Timestamp};
use std::collections::BTreeMap;

/// A lag that never fell is told only of at least so many looks.
const LOOKS_TO_WARN: usize = 3;

/// One look at what the group has of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLook {
    /// When.
    pub at: Timestamp,
    /// Everything below is done with, says the group; none where it has committed nothing.
    pub committed: Option<u64>,
    /// The lowest offset that could be read then.
    pub first: u64,
    /// One past the highest.
    pub end: u64,
    /// How many members the group had; none where that can't be told.
    pub members: Option<u32>,
}

impl GroupLook {
    /// How many positions lie between the group and the end. `no_event`: positions at the end that carry no event (a
    /// transaction's marker), behind which a consumer's committed offset may stay for ever; they are none.
    pub fn lag(&self, no_event: Option<(u64, u64)>) -> u64 {
        match (no_event, self.committed) {
            (Some((from, to)), Some(committed)) if committed >= from && self.end <= to => 0,
            _ => self.end.saturating_sub(self.committed.unwrap_or(self.first).max(self.first)),
        }
    }
}

/// What became of a committed offset otherwise than by going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveKind {
    /// It is lower than before.
    Back,
    /// It is higher than before, and nobody was in the group who could have committed it.
    Forward,
    /// There is none any more.
    Gone,
}

impl MoveKind {
    /// `back`, `forward` or `gone`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Back => "back",
            Self::Forward => "forward",
            Self::Gone => "gone",
        }
    }

    /// The kind of this name.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Back, Self::Forward, Self::Gone].into_iter().find(|kind| kind.word() == word)
    }
}

/// A committed offset that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMove {
    /// When it was seen.
    pub at: Timestamp,
    /// The partition.
    pub partition: PartitionId,
    /// The look before.
    pub from: u64,
    /// What was seen then; none where it is gone.
    pub to: Option<u64>,
    /// How.
    pub kind: MoveKind,
}

impl GroupMove {
    /// What two looks in a row say of the offset between them. `is_simple`: a group whose consumers never join
    /// it commits without members. `near`: nobody can have come and gone unseen in so short a time, as a rule.
    pub fn between(
        partition: &PartitionId,
        before: GroupLook,
        now: GroupLook,
        is_simple: bool,
        near: bool,
    ) -> Option<Self> {
        let from = before.committed?;
        let nobody = before.members == Some(0) && now.members == Some(0) && !is_simple && near;
        let kind = match now.committed {
            None => MoveKind::Gone,
            Some(to) if to < from => MoveKind::Back,
            Some(to) if to > from && nobody => MoveKind::Forward,
            Some(_) => return None,
        };
        Some(Self { at: now.at, partition: partition.clone(), from, to: now.committed, kind })
    }

    /// One sentence.
    pub fn sentence(&self, group: &str) -> String {
        let Self { partition, from, to, kind, .. } = self;
        let place = format!("the group {group} at {partition}");
        match (kind, to) {
            (MoveKind::Back, Some(to)) => format!(
                "{place} went back from {from} to {to}: somebody moved it, or a consumer committed less than was \
                 committed before; what lies between will come to it again"
            ),
            (MoveKind::Forward, Some(to)) => format!(
                "{place} went from {from} to {to} while nobody was in the group: somebody moved it, and what lies \
                 between will not come to it"
            ),
            _ => format!(
                "{place} had committed {from}, and has nothing any more: its offsets were deleted, or have expired"
            ),
        }
    }
}

/// What is known of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLooks {
    /// Its name.
    pub group: String,
    /// How far back its status looks.
    pub window_ms: u64,
    /// Of each partition of the topic, oldest first; the last is of now.
    pub partitions: BTreeMap<PartitionId, Vec<GroupLook>>,
    /// Moves that are remembered, oldest first.
    pub moves: Vec<GroupMove>,
}

/// The group, asked by the auditor.
pub trait GroupWitness {
    /// The group's name.
    fn group(&self) -> &str;

    /// Looks at it now, and tells what was seen before. It never changes anything of the group's.
    fn looks(&self) -> Result<GroupLooks, WitnessError>;
}

impl GroupLooks {
    fn of(&self, at: &PartitionId) -> &[GroupLook] {
        self.partitions.get(at).map_or(&[], Vec::as_slice)
    }

    /// What the group has committed of a partition; 0 where it has nothing.
    pub fn committed(&self, at: &PartitionId) -> u64 {
        self.of(at).last().and_then(|look| look.committed).unwrap_or(0)
    }

    /// Everything below was passed at least `within_ms` ago, and at every look since.
    pub fn due_below(&self, at: &PartitionId, now: Timestamp, within_ms: u64) -> u64 {
        let since = now.0.saturating_sub(i64::try_from(within_ms).unwrap_or(i64::MAX));
        let mut lowest = u64::MAX;
        for look in self.of(at).iter().rev() {
            lowest = lowest.min(look.committed.unwrap_or(0));
            if look.at.0 <= since {
                return lowest;
            }
        }
        // Nobody looked so long ago.
        0
    }

    /// How many positions lie between the group and the end of a partition; see [`GroupLook::lag`].
    pub fn lag(&self, at: &PartitionId, no_event: Option<(u64, u64)>) -> u64 {
        self.of(at).last().map_or(0, |look| look.lag(no_event))
    }
}

/// How one partition stands with the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupWord {
    /// Rule 1, or none of the others.
    Ok,
    /// Nobody has looked for as long as the window is.
    Learning,
    /// Rule 5.
    Warn,
    /// Rule 4.
    Stall,
    /// Rule 3.
    Stop,
    /// Rule 2.
    Rewind,
}

impl GroupWord {
    /// Burrow's word; `learning` is our own.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Learning => "learning",
            Self::Warn => "WARN",
            Self::Stall => "STALL",
            Self::Stop => "STOP",
            Self::Rewind => "REWIND",
        }
    }

    /// The word for the group, of its worst partition: Burrow calls all that stops it `ERR`.
    pub fn of_group(self) -> &'static str {
        if self.is_error() { "ERR" } else { self.word() }
    }

    /// Whether events wait that nobody takes, or are taken again.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Stall | Self::Stop | Self::Rewind)
    }
}

/// The status of one partition; `no_event` as in [`GroupLook::lag`].
pub fn status_of(
    looks: &[GroupLook],
    window_ms: u64,
    now: Timestamp,
    no_event: Option<(u64, u64)>,
) -> GroupWord {
    let since = now.0.saturating_sub(i64::try_from(window_ms).unwrap_or(i64::MAX));
    let inside = looks.iter().rposition(|look| look.at.0 <= since);
    let window = &looks[inside.unwrap_or(0)..];
    let lag = |look: &GroupLook| look.lag(no_event);
    let pairs = || window.windows(2).map(|pair| (pair[0], pair[1]));
    let Some(last) = window.last() else { return GroupWord::Learning };
    if window.iter().any(|look| lag(look) == 0) {
        return GroupWord::Ok;
    }
    if pairs().any(|(before, after)| after.committed < before.committed) {
        return GroupWord::Rewind;
    }
    if inside.is_none() {
        return GroupWord::Learning;
    }
    if pairs().all(|(before, after)| after.committed == before.committed) {
        return if last.members == Some(0) { GroupWord::Stop } else { GroupWord::Stall };
    }
    let never_fell = pairs().all(|(before, after)| lag(&after) >= lag(&before));
    if never_fell && window.len() >= LOOKS_TO_WARN { GroupWord::Warn } else { GroupWord::Ok }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_model::{FlowName, Partition, SourceId};

    const MEMBER: Option<u32> = Some(1);

    fn at() -> PartitionId {
        PartitionId {
            flow: FlowName::new("stock").unwrap(),
            source: SourceId::new("kafka:c:t"),
            partition: Partition::new("0"),
        }
    }

    /// Looks a second apart: what was committed, and the end.
    fn looks(committed_and_end: &[(u64, u64)], members: Option<u32>) -> Vec<GroupLook> {
        let look = |(second, (committed, end)): (usize, &(u64, u64))| GroupLook {
            at: Timestamp(second as i64 * 1000),
            committed: Some(*committed),
            first: 0,
            end: *end,
            members,
        };
        committed_and_end.iter().enumerate().map(look).collect()
    }

    /// The status now, at the last look, over a window of four seconds.
    fn told(looks: &[GroupLook]) -> &'static str {
        status_of(looks, 4000, looks.last().unwrap().at, None).word()
    }

    #[test]
    fn each_rule_of_burrow() {
        let none = Some(0);
        for (committed_and_end, members, expected) in [
            (&[(5, 5), (5, 9), (5, 9), (5, 9), (5, 9)][..], MEMBER, "OK"), // no lag once in the window
            (&[(5, 9), (5, 9), (5, 9), (5, 9), (9, 9)], none, "OK"),
            (&[(5, 9), (5, 9), (5, 9), (5, 9), (5, 9)], MEMBER, "STALL"),
            (&[(5, 9), (5, 9), (5, 9), (5, 9), (5, 20)], MEMBER, "STALL"),
            (&[(5, 9), (5, 9), (5, 9), (5, 9), (5, 9)], None, "STALL"), // members can't be told
            (&[(5, 9), (5, 9), (5, 9), (5, 9), (5, 9)], none, "STOP"),
            (&[(5, 9), (6, 10), (4, 11), (7, 12), (8, 13)], MEMBER, "REWIND"),
            (&[(5, 9), (4, 9)], MEMBER, "REWIND"), // is told at once
            (&[(5, 9), (6, 10), (7, 12), (8, 13), (9, 15)], MEMBER, "WARN"),
            (&[(5, 9), (6, 10), (8, 11), (9, 12), (9, 15)], MEMBER, "OK"), // the lag fell once
            (&[(5, 9), (5, 9), (5, 9)], MEMBER, "learning"),
            (&[(5, 9), (5, 9), (5, 9)], none, "learning"),
            (&[(9, 9)], none, "OK"),
            (&[(0, 9), (9, 9), (9, 20), (9, 20), (9, 20), (9, 20), (9, 20)], MEMBER, "STALL"),
        ] {
            assert_eq!(
                told(&looks(committed_and_end, members)),
                expected,
                "{committed_and_end:?} {members:?}"
            );
        }
    }

    #[test]
    fn a_group_that_never_committed_anything_is_stuck_while_there_are_events_and_well_while_there_are_none() {
        let never = |end: u64| -> Vec<GroupLook> {
            let looks = looks(&[(0, end); 5], MEMBER);
            looks.into_iter().map(|look| GroupLook { committed: None, ..look }).collect()
        };
        assert_eq!((told(&never(3)), told(&never(0))), ("STALL", "OK"));
        // All of it was removed by retention before anybody read it.
        let gone: Vec<_> = never(3).into_iter().map(|look| GroupLook { first: 3, ..look }).collect();
        assert_eq!(told(&gone), "OK");
    }

    #[test]
    fn a_markers_position_that_no_consumer_can_commit_past_is_no_lag() {
        let stays = looks(&[(8, 9); 6], MEMBER);
        assert_eq!(told(&stays), "STALL");
        let now = stays.last().unwrap().at;
        assert_eq!(status_of(&stays, 4000, now, Some((8, 9))), GroupWord::Ok);
        assert_eq!(status_of(&stays, 4000, now, Some((6, 8))), GroupWord::Stall, "what follows is an event");
    }

    #[test]
    fn what_is_due_was_passed_at_every_look_for_as_long_as_may_be() {
        let due = |looks: &[(u64, u64)], now_ms: i64, within_ms: u64| {
            let partitions = BTreeMap::from([(at(), self::looks(looks, MEMBER))]);
            let all = GroupLooks { group: "g".into(), window_ms: 0, partitions, moves: Vec::new() };
            all.due_below(&at(), Timestamp(now_ms), within_ms)
        };
        assert_eq!(due(&[(3, 9), (5, 9), (7, 9)], 2000, 0), 7);
        assert_eq!(due(&[(3, 9), (5, 9), (7, 9)], 2000, 1000), 5);
        assert_eq!(due(&[(3, 9), (5, 9), (7, 9)], 2000, 1500), 3);
        assert_eq!(due(&[(3, 9), (5, 9), (7, 9)], 2000, 5000), 0, "nobody looked so long ago");
        assert_eq!(due(&[(7, 9), (4, 9), (7, 9)], 2000, 2000), 4, "what came to it again has its time again");
        assert_eq!(due(&[], 2000, 0), 0);
    }

    #[test]
    fn moves_are_told_from_going_on() {
        let kind = |from: Option<u64>, to: Option<u64>, members: Option<u32>, simple: bool, near: bool| {
            let look = |second: i64, committed| GroupLook {
                at: Timestamp(second),
                committed,
                first: 0,
                end: 99,
                members,
            };
            GroupMove::between(&at(), look(0, from), look(1, to), simple, near).map(|moved| moved.kind.word())
        };
        for (from, to, members, simple, near, expected) in [
            (Some(5), Some(9), MEMBER, false, true, None),
            (Some(5), Some(5), Some(0), false, true, None),
            (None, Some(5), Some(0), false, true, None),
            (Some(5), Some(4), MEMBER, false, true, Some("back")),
            (Some(5), Some(9), Some(0), false, true, Some("forward")),
            (Some(5), Some(9), Some(0), true, true, None), // its consumers never join
            (Some(5), Some(9), Some(0), false, false, None), // somebody may have come and gone
            (Some(5), Some(9), None, false, true, None),
            (Some(5), None, Some(0), false, true, Some("gone")),
        ] {
            assert_eq!(kind(from, to, members, simple, near), expected, "{from:?} {to:?} {members:?}");
        }
    }
}
