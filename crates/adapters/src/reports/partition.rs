//! What is reported of one partition, in memory: pure, and told the time.

use super::said::Said;
use super::store::Kept;
use recount_model::OffsetSet;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Reports that may wait until the source has brought their events and the ledger their decisions.
pub(super) const WAITING_MAX: usize = 100_000;
/// The same in bytes.
pub(super) const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Watermarks that age at a time; those reported at nearly the same moment are one.
const AGES_MAX: u32 = 64;

/// A report that the ledger does not have yet.
#[derive(Debug)]
struct Waiting {
    said: Said,
    /// It went to the loop.
    is_released: bool,
}

/// What a report is to what is known of its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was known.
    New,
    /// The same was reported before.
    Repeated,
    /// Another verdict was.
    Conflicts(String),
    /// It has a fate: the ledger knows which.
    Decided,
    /// The source ends before it.
    Beyond(u64),
}

/// What becomes of a position that the source brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Release {
    /// It was decided before: the loop compares it.
    Decided,
    /// It was reported.
    Reported(Said),
    /// The consumer is past it.
    Unreported,
}

/// How far was reported in a short span of time.
#[derive(Debug, Clone, Copy)]
struct Age {
    begun: Instant,
    last: Instant,
    reported_to: u64,
}

/// What is known of one partition's reports.
#[derive(Debug, Default)]
pub(super) struct PartitionState {
    waiting: BTreeMap<u64, Waiting>,
    waiting_bytes: usize,
    /// What the ledger has, what carries no event, and what was released as unreported.
    decided: OffsetSet,
    /// Every position below is dealt with, says the consumer.
    committed: u64,
    /// One past the highest position ever reported.
    reported_to: u64,
    /// The same of those that the source has brought: a position that is not there proves nothing, so that one
    /// mistaken offset must not pass all that is still to come.
    seen_to: u64,
    /// Watermarks that get old, oldest first.
    ages: VecDeque<Age>,
    /// Positions below were passed by a report that is old enough.
    passed: u64,
    /// One past the last position, where the source has ended.
    end: Option<u64>,
    /// How often the partition was taken up before: a reader of an earlier time releases nothing any more.
    pub(super) taken_up: u64,
}

impl PartitionState {
    /// What was kept, and what the ledger has decided. Whatever was reported before counts from now on, since
    /// a consumer can't report while Recount is down.
    pub(super) fn new(kept: Kept, decided: OffsetSet, now: Instant) -> Self {
        let seen_to = decided.ranges().last().map_or(0, |range| range.1);
        let reported_to = kept.reported_to.max(seen_to);
        let waiting_bytes = kept.waiting.values().map(Said::bytes).sum();
        let waiting =
            kept.waiting.into_iter().map(|(offset, said)| (offset, Waiting { said, is_released: false }));
        Self {
            waiting: waiting.collect(),
            waiting_bytes,
            decided,
            committed: kept.committed,
            reported_to,
            seen_to,
            ages: VecDeque::from([Age { begun: now, last: now, reported_to: seen_to }]),
            ..Self::default()
        }
    }

    /// How a report stands to what is known.
    pub(super) fn standing(&self, offset: u64, said: &Said) -> Standing {
        match self.waiting.get(&offset) {
            Some(waiting) if waiting.said.is_same_as(said) => Standing::Repeated,
            Some(waiting) => Standing::Conflicts(waiting.said.told()),
            None if self.decided.contains(offset) => Standing::Decided,
            None => match self.end {
                Some(end) if offset >= end => Standing::Beyond(end),
                _ => Standing::New,
            },
        }
    }

    /// Whether so many more may wait.
    pub(super) fn has_room_for(&self, said: &[(u64, Said)]) -> bool {
        let bytes: usize = said.iter().map(|(_, said)| said.bytes()).sum();
        self.waiting.len() + said.len() <= WAITING_MAX && self.waiting_bytes + bytes <= WAITING_BYTES_MAX
    }

    /// The lowest position whose report waits for the source, for messages.
    pub(super) fn lowest_waiting(&self) -> Option<u64> {
        self.waiting.iter().find(|(_, waiting)| !waiting.is_released).map(|(offset, _)| *offset)
    }

    /// The watermarks with a post added: committed, reported up to.
    pub(super) fn watermarks(&self, said: &[(u64, Said)], committed: Option<u64>) -> (u64, u64) {
        let highest = said.iter().map(|(offset, _)| offset + 1).max().unwrap_or(0);
        (self.committed.max(committed.unwrap_or(0)), self.reported_to.max(highest))
    }

    /// Adds what is durable now.
    pub(super) fn add(&mut self, said: Vec<(u64, Said)>, (committed, reported_to): (u64, u64)) {
        for (offset, said) in said {
            self.waiting_bytes += said.bytes();
            self.waiting.insert(offset, Waiting { said, is_released: false });
        }
        self.committed = self.committed.max(committed);
        self.reported_to = self.reported_to.max(reported_to);
    }

    /// A position that was reported is there: from now on it ages.
    fn see(&mut self, offset: u64, now: Instant, within: Duration) {
        if offset < self.seen_to {
            return;
        }
        self.seen_to = offset + 1;
        let apart = within / AGES_MAX;
        match self.ages.back_mut() {
            Some(age) if now.duration_since(age.begun) < apart => {
                (age.last, age.reported_to) = (now, self.seen_to);
            }
            _ => self.ages.push_back(Age { begun: now, last: now, reported_to: self.seen_to }),
        }
    }

    /// Lets what was reported long enough ago pass what was not.
    pub(super) fn age(&mut self, now: Instant, within: Duration) {
        while let Some(age) = self.ages.front()
            && now.duration_since(age.last) >= within
        {
            self.passed = self.passed.max(age.reported_to);
            self.ages.pop_front();
        }
    }

    /// When the next position may be passed by time alone.
    pub(super) fn next_age(&self, within: Duration) -> Option<Instant> {
        self.ages.front().map(|age| age.last + within)
    }

    /// What becomes of a position that the source brought; none while nothing is known of it.
    pub(super) fn release(&mut self, offset: u64, now: Instant, within: Duration) -> Option<Release> {
        if let Some(waiting) = self.waiting.get_mut(&offset) {
            waiting.is_released = true;
            let said = waiting.said.clone();
            self.see(offset, now, within);
            return Some(Release::Reported(said));
        }
        if self.decided.contains(offset) {
            return Some(Release::Decided);
        }
        if offset < self.committed.max(self.passed) {
            self.decided.insert(offset);
            return Some(Release::Unreported);
        }
        None
    }

    /// The ledger has it now.
    pub(super) fn settled(&mut self, offset: u64) {
        self.decided.insert(offset);
        if let Some(gone) = self.waiting.remove(&offset) {
            self.waiting_bytes -= gone.said.bytes();
        }
    }

    /// These positions carry no event; gives the reports that named some of them.
    pub(super) fn no_events(&mut self, from: u64, to: u64) -> Vec<u64> {
        self.decided.insert_range(from, to);
        let named: Vec<u64> = self.waiting.range(from..to).map(|(offset, _)| *offset).collect();
        named.iter().for_each(|offset| self.settled(*offset));
        named
    }

    /// The source has ended before this position; gives the reports of positions that never come.
    pub(super) fn ended(&mut self, end: u64) -> Vec<u64> {
        self.end = Some(end);
        let beyond = self.waiting.split_off(&end);
        self.waiting_bytes -= beyond.values().map(|waiting| waiting.said.bytes()).sum::<usize>();
        beyond.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::said::Word;
    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    fn said(word: &str) -> Said {
        let reason = if word == "applied" { "" } else { "viewed" };
        Said { word: Word::parse(word).unwrap(), reason: reason.into(), because: None }
    }

    fn post(state: &mut PartitionState, offsets: &[u64], committed: Option<u64>) {
        let said: Vec<_> = offsets.iter().map(|offset| (*offset, said("applied"))).collect();
        let marks = state.watermarks(&said, committed);
        state.add(said, marks);
    }

    fn fates(state: &mut PartitionState, offsets: std::ops::Range<u64>, now: Instant) -> String {
        let word = |release: Option<Release>| match release {
            None => '.',
            Some(Release::Decided) => 'd',
            Some(Release::Reported(_)) => 'r',
            Some(Release::Unreported) => 'u',
        };
        offsets.map(|offset| word(state.release(offset, now, WITHIN))).collect()
    }

    #[test]
    fn a_position_waits_for_its_report_or_until_the_consumer_is_past_it() {
        let now = Instant::now();
        let mut state = PartitionState::new(Kept::default(), OffsetSet::new(), now);
        assert_eq!(fates(&mut state, 0..6, now), "......", "a silent consumer leaves everything open");
        post(&mut state, &[1, 3], None);
        state.age(now + WITHIN / 2, WITHIN);
        assert_eq!(fates(&mut state, 0..6, now), ".r.r..", "a later report alone does not pass at once");
        state.age(now + WITHIN, WITHIN);
        assert_eq!(
            fates(&mut state, 0..6, now + WITHIN),
            "urur..",
            "after `within` it does, and only what is below it"
        );
        post(&mut state, &[], Some(6));
        assert_eq!(fates(&mut state, 0..7, now + WITHIN), "drdruu.", "what is committed is passed at once");
    }

    #[test]
    fn a_report_of_a_position_that_is_not_there_passes_nothing() {
        let now = Instant::now();
        let mut state = PartitionState::new(Kept::default(), OffsetSet::new(), now);
        post(&mut state, &[1, 1_000_000], None);
        assert_eq!(fates(&mut state, 0..3, now), ".r.");
        state.age(now + WITHIN, WITHIN);
        assert_eq!(
            fates(&mut state, 0..4, now + WITHIN),
            "ur..",
            "what comes later waits for its own report"
        );
        let kept = Kept { reported_to: 1_000_001, ..Kept::default() };
        let mut state = PartitionState::new(kept, OffsetSet::new(), now);
        state.age(now + WITHIN, WITHIN);
        assert_eq!(fates(&mut state, 0..4, now + WITHIN), "....", "nor after a restart");
    }

    #[test]
    fn the_time_of_a_report_before_a_restart_counts_from_the_restart() {
        let now = Instant::now();
        let kept = Kept { reported_to: 4, waiting: [(3, said("applied"))].into(), ..Kept::default() };
        let mut decided = OffsetSet::new();
        decided.insert(0);
        let mut state = PartitionState::new(kept, decided, now);
        state.age(now + WITHIN / 2, WITHIN);
        assert_eq!(fates(&mut state, 0..5, now), "d..r.");
        state.age(now + WITHIN, WITHIN);
        assert_eq!(fates(&mut state, 0..5, now + WITHIN), "duur.");
    }

    #[test]
    fn a_repeated_report_is_harmless_and_another_verdict_is_refused() {
        let now = Instant::now();
        let mut state = PartitionState::new(Kept::default(), OffsetSet::new(), now);
        assert_eq!(state.standing(2, &said("applied")), Standing::New);
        post(&mut state, &[2], None);
        assert_eq!(state.standing(2, &said("applied")), Standing::Repeated);
        assert_eq!(state.standing(2, &said("skip")), Standing::Conflicts("applied".to_owned()));
        state.settled(2);
        assert_eq!(state.standing(2, &said("applied")), Standing::Decided);
        assert_eq!(state.no_events(5, 7), Vec::<u64>::new());
        assert_eq!(state.standing(6, &said("applied")), Standing::Decided);
        assert_eq!(state.ended(9), Vec::<u64>::new());
        assert_eq!(state.standing(9, &said("applied")), Standing::Beyond(9));
        assert_eq!(state.waiting_bytes, 0);
    }

    #[test]
    fn what_waits_and_what_ages_is_bounded() {
        let now = Instant::now();
        let mut state = PartitionState::new(Kept::default(), OffsetSet::new(), now);
        for i in 0..10_000 {
            post(&mut state, &[i], None);
            state.release(i, now + Duration::from_millis(i), WITHIN);
        }
        assert!(state.ages.len() <= 2 + AGES_MAX as usize, "{}", state.ages.len());
        state.age(now + WITHIN + Duration::from_secs(5), WITHIN);
        assert!((4_400..5_500).contains(&state.passed), "a steady stream ages too: {}", state.passed);
        let many: Vec<_> = (0..WAITING_MAX as u64).map(|offset| (offset + 20_000, said("applied"))).collect();
        assert!(!state.has_room_for(&many));
        assert!(state.has_room_for(&many[..10]));
        let long = Said { because: Some("x".repeat(WAITING_BYTES_MAX).into()), ..said("skip") };
        assert!(!state.has_room_for(&[(1, long)]));
    }
}
