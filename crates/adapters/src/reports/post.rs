//! Taking a post: what is new is durable before the answer is given.

use super::partition::{Standing, WAITING_MAX};
use super::said::Said;
use super::store::StoreError;
use super::wire::{Answer, Refused};
use super::{FlowReports, PartitionReports};
use recount_ledger::LedgerError;
use recount_model::{Decision, Partition};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Positions that the ledger is asked about at a time: it has batches to append between.
const LOOKED_UP_AT_ONCE: usize = 500;

/// For so long a post waits for its partition to be opened.
const OPENS_WITHIN: Duration = Duration::from_secs(3);
/// So often it is looked whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why nothing of a post was kept.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The flow has not opened its source yet.
    Starting,
    /// It has no such partition; these are there.
    NoPartition(Vec<String>),
    /// Too many reports wait; the first of them for this position.
    Full(Option<u64>),
    /// Reports can't be kept now.
    NotDurable(StoreError),
    /// The ledger can't say what was decided before.
    Ledger(Arc<LedgerError>),
    /// The task that takes posts failed.
    Defect(String),
}

/// A post, its items read.
pub(super) struct Post {
    pub(super) partition: Partition,
    pub(super) committed: Option<u64>,
    pub(super) said: Vec<(u64, Said)>,
    /// Items that could not be read.
    pub(super) refused: Vec<Refused>,
}

/// What the items of a post come to.
#[derive(Default)]
struct Sorted {
    new: BTreeMap<u64, Said>,
    decided: Vec<(u64, Said)>,
    already: usize,
    refused: Vec<Refused>,
}

impl Sorted {
    fn refuse(&mut self, offset: u64, why: String) {
        self.refused.push(Refused { offset: Some(offset), position: None, why });
    }

    fn refuse_conflict(&mut self, offset: u64, before: &str, now: &Said) {
        let why = format!(
            "{offset} was reported as {before} before, which stands: {} is not recorded beside it",
            now.told()
        );
        self.refuse(offset, why);
    }

    fn add(&mut self, partition: &PartitionReports, offset: u64, said: Said) {
        let standing = partition.state().standing(offset, &said);
        match standing {
            Standing::New => match self.new.entry(offset) {
                Entry::Vacant(place) => drop(place.insert(said)),
                Entry::Occupied(first) if first.get().is_same_as(&said) => self.already += 1,
                Entry::Occupied(first) => {
                    let before = first.get().told();
                    self.refuse_conflict(offset, &before, &said);
                }
            },
            Standing::Repeated => self.already += 1,
            Standing::Conflicts(before) => self.refuse_conflict(offset, &before, &said),
            Standing::Decided => self.decided.push((offset, said)),
            Standing::Beyond(end) => self.refuse(
                offset,
                format!("{}/{offset} does not exist: the source ends before {end}", partition.at),
            ),
        }
    }
}

impl FlowReports {
    /// Takes a post. It is done to its end even where the client goes away in between.
    pub(super) async fn take(self: &Arc<Self>, post: Post) -> Result<Answer, Rejected> {
        let flow = Arc::clone(self);
        let taken = tokio::spawn(async move { flow.take_to_its_end(post).await }).await;
        taken.unwrap_or_else(|error| Err(Rejected::Defect(error.to_string())))
    }

    async fn take_to_its_end(&self, post: Post) -> Result<Answer, Rejected> {
        let partition = self.opened(&post.partition).await?;
        let _one_at_a_time = partition.posting.lock().await;
        let mut sorted = Sorted { refused: post.refused, ..Sorted::default() };
        for (offset, said) in post.said {
            sorted.add(&partition, offset, said);
        }
        self.compare_decided(&partition, &mut sorted).await?;
        let new: Vec<(u64, Said)> = std::mem::take(&mut sorted.new).into_iter().collect();
        let (marks, was_behind) = {
            let state = partition.state();
            if !state.has_room_for(&new) {
                return Err(Rejected::Full(state.lowest_waiting()));
            }
            let marks = state.watermarks(&new, post.committed);
            (marks, marks != state.watermarks(&[], None))
        };
        let accepted = new.len();
        if accepted > 0 || was_behind {
            let (place_no, kept) = (partition.place_no, new.clone());
            let keep = self.settings.store.ask(move |store| store.keep(place_no, &kept, marks.0, marks.1));
            keep.await.map_err(Rejected::NotDurable)?;
            partition.state().add(new, marks);
            partition.changed.notify_one();
        }
        Ok(Answer { recount: 1, accepted, already: sorted.already, refused: sorted.refused })
    }

    /// The partition. A consumer that is quicker than the flow's start waits a moment for it.
    async fn opened(&self, name: &Partition) -> Result<Arc<PartitionReports>, Rejected> {
        let until = Instant::now() + OPENS_WITHIN;
        loop {
            if let Some(partition) = self.partition(name) {
                return Ok(partition);
            }
            if Instant::now() >= until {
                let names = self.partition_names();
                return Err(if names.is_empty() { Rejected::Starting } else { Rejected::NoPartition(names) });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Positions that have a fate: a repeated report is harmless, another one comes too late.
    async fn compare_decided(
        &self,
        partition: &PartitionReports,
        sorted: &mut Sorted,
    ) -> Result<(), Rejected> {
        let decided = std::mem::take(&mut sorted.decided);
        for some in decided.chunks(LOOKED_UP_AT_ONCE) {
            let (at, offsets) = (partition.at.clone(), some.iter().map(|(offset, _)| *offset));
            let offsets: Vec<u64> = offsets.collect();
            let look_up = self.settings.book.with(move |store| {
                let current = |offset: &u64| Ok(store.current(&at, *offset)?.map(|(_, decision)| decision));
                offsets.iter().map(current).collect::<Result<Vec<Option<Decision>>, LedgerError>>()
            });
            let found = look_up.await.map_err(Rejected::Ledger)?;
            for ((offset, said), decision) in some.iter().zip(found) {
                match decision {
                    Some(decision) if said.is_recorded_as(&decision.fate, decision.evidence.as_deref()) => {
                        sorted.already += 1;
                    }
                    Some(decision) => sorted.refuse_conflict(*offset, &decision.fate.to_string(), said),
                    None => {
                        let why = self.without_decision(partition, *offset).await?;
                        sorted.refuse(*offset, why);
                    }
                }
            }
        }
        Ok(())
    }

    /// Why a position that has a fate has no decision.
    async fn without_decision(&self, partition: &PartitionReports, offset: u64) -> Result<String, Rejected> {
        let place_no = partition.place_no;
        let recorded = self.settings.store.ask(move |store| store.unreported_at(place_no, offset)).await;
        let at = &partition.at;
        Ok(match recorded.map_err(Rejected::NotDurable)? {
            Some(recorded_at) => format!(
                "{at}/{offset} was recorded as unreported at {recorded_at}, when the consumer had gone past it: the \
                 record stands, and this report came too late; accept it with: recount resume {} --because …",
                at.flow
            ),
            None => format!("{at}/{offset} carries no event, or its fate is not in the ledger any more"),
        })
    }
}

impl Rejected {
    /// The sentence for the client, and whether the log is to have more.
    pub(super) fn told(&self, flow: &str) -> (String, Option<String>) {
        match self {
            Self::Starting => (format!("flow {flow} has not opened its source yet: try again"), None),
            Self::NoPartition(names) => {
                let names = names.join(", ");
                (format!("flow {flow} has no such partition; it has {names}"), None)
            }
            Self::Full(lowest) => {
                let first = lowest.map_or(String::new(), |offset| format!(", the first for offset {offset}"));
                let sentence = format!(
                    "as many reports wait for their events as may be ({WAITING_MAX}{first}): nothing of this post \
                     was kept; try again later"
                );
                (sentence, None)
            }
            Self::NotDurable(error) => (not_kept(), Some(error.to_string())),
            Self::Ledger(error) => (not_kept(), Some(error.to_string())),
            Self::Defect(error) => (not_kept(), Some(format!("a defect of the program: {error}"))),
        }
    }
}

/// Paths and what SQLite says are for the log, not for clients.
fn not_kept() -> String {
    "the report could not be made durable and was not kept: try again later; the instance's log says more"
        .to_owned()
}
