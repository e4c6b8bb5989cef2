//! How the observed group stands, as the audit reports it.

use crate::beside_group::{GroupLooks, GroupMove, GroupWord, status_of};
use crate::books::PartitionFold;
use crate::report::plural;
use recount_model::budget::duration_text;
use recount_model::{PartitionId, Timestamp};
use serde_json::{Value, json};

/// In one sentence, so many partitions are named.
const NAMED_INLINE: usize = 3;
/// So many moves are told; the latest.
const MOVES_MAX: usize = 5;

/// One partition of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPartition {
    /// The partition.
    pub at: PartitionId,
    /// What the group has committed.
    pub committed: Option<u64>,
    /// One past the highest offset there.
    pub end: u64,
    /// Positions between.
    pub lag: u64,
    /// How it stands.
    pub status: GroupWord,
}

/// The group of an observed consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    /// Its name.
    pub group: String,
    /// The worst of its partitions.
    pub status: GroupWord,
    /// How far back the status looks.
    pub window_ms: u64,
    /// Members now; none where that can't be told.
    pub members: Option<u32>,
    /// Published, over all partitions.
    pub published: u64,
    /// Published, and below what it has committed.
    pub committed: u64,
    /// Published, and not.
    pub lag: u64,
    /// Each partition.
    pub partitions: Vec<GroupPartition>,
    /// The latest moves, oldest first.
    pub moves: Vec<GroupMove>,
}

impl GroupReport {
    pub(crate) fn new(looks: &GroupLooks, folds: &[PartitionFold], now: Timestamp) -> Self {
        let mut partitions = Vec::with_capacity(looks.partitions.len());
        for (at, seen) in &looks.partitions {
            let Some(last) = seen.last() else { continue };
            let no_event = folds.iter().find(|fold| fold.at == *at).and_then(|fold| fold.no_event_at_end);
            partitions.push(GroupPartition {
                at: at.clone(),
                committed: last.committed,
                end: last.end,
                lag: last.lag(no_event),
                status: status_of(seen, looks.window_ms, now, no_event),
            });
        }
        let published = looks.partitions.keys().filter_map(|at| folds.iter().find(|fold| fold.at == *at));
        let published: u64 = published.map(|fold| fold.books.counts.published).sum();
        let lag = partitions.iter().map(|partition| partition.lag).sum();
        let last = looks.partitions.values().filter_map(|seen| seen.last()).max_by_key(|look| look.at);
        let moves = &looks.moves[looks.moves.len().saturating_sub(MOVES_MAX)..];
        Self {
            group: looks.group.clone(),
            status: partitions.iter().map(|p| p.status).max().unwrap_or(GroupWord::Learning),
            window_ms: looks.window_ms,
            members: last.and_then(|look| look.members),
            published,
            committed: published.saturating_sub(lag),
            lag,
            partitions,
            moves: moves.to_vec(),
        }
    }

    /// Why the consumer is not working, by its group.
    pub fn not_working(&self) -> Option<String> {
        self.status.is_error().then(|| self.sentence())
    }

    /// How it stands, in one sentence.
    pub fn sentence(&self) -> String {
        let Self { group, status, members, lag, .. } = self;
        let window = duration_text(self.window_ms);
        let members = match members {
            Some(0) => "no member".to_owned(),
            Some(members) => plural(u64::from(*members), "member"),
            None => "members that can't be counted".to_owned(),
        };
        let behind = match lag {
            0 => "at the end of the topic".to_owned(),
            lag => format!("{} behind", plural(*lag, "position")),
        };
        let because = match status {
            GroupWord::Ok => String::new(),
            GroupWord::Learning => format!("; it was not looked at for {window} yet"),
            GroupWord::Warn => format!("; it goes on, and its lag never fell for {window}: {}", self.worst()),
            GroupWord::Stall => {
                format!("; members are there and commit nothing further for {window}: {}", self.worst())
            }
            GroupWord::Stop => {
                format!("; nobody is there, and nothing was committed for {window}: {}", self.worst())
            }
            GroupWord::Rewind => format!("; what it had committed went back: {}", self.worst()),
        };
        let rule = if status.is_error() { format!(" ({})", status.word()) } else { String::new() };
        format!("the group {group} is {}{rule}: {members}, {behind}{because}", status.of_group())
    }

    /// The partitions that the status is of.
    fn worst(&self) -> String {
        let worst: Vec<_> = self.partitions.iter().filter(|p| p.status == self.status).collect();
        let named = worst.iter().take(NAMED_INLINE).map(|partition| {
            let (name, end) = (&partition.at.partition, partition.end);
            match partition.committed {
                Some(committed) => format!("partition {name} at {committed} of {end}"),
                None => format!("partition {name}, of which it never committed anything, of {end}"),
            }
        });
        let more = if worst.len() > NAMED_INLINE { ", …" } else { "" };
        format!("{}{more}", named.collect::<Vec<_>>().join(", "))
    }

    /// The JSON form.
    pub fn json(&self) -> Value {
        json!({
            "group": self.group,
            "status": self.status.of_group(),
            "sentence": self.sentence(),
            "members": self.members,
            "window_ms": self.window_ms,
            "published": self.published,
            "committed": self.committed,
            "lag": self.lag,
            "partitions": self.partitions.iter().map(|partition| json!({
                "partition": partition.at.partition.as_str(),
                "status": partition.status.word(),
                "committed": partition.committed,
                "end": partition.end,
                "lag": partition.lag,
            })).collect::<Vec<_>>(),
            "moves": self.moves.iter().map(|moved| json!({
                "at": moved.at.to_string(),
                "partition": moved.partition.partition.as_str(),
                "kind": moved.kind.word(),
                "from": moved.from,
                "to": moved.to,
                "sentence": moved.sentence(&self.group),
            })).collect::<Vec<_>>(),
        })
    }
}
