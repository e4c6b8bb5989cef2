//! The window in which a repeated id is noticed. Full ids are compared, never only hashes.

use recount_ledger::RecentEvent;
use recount_model::PayloadHash;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What became of the first event with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstFate {
    /// Not decided yet.
    Open,
    /// Applied or skipped.
    Done,
    /// A dead letter: a repeated delivery is processed, linked to it.
    DeadLettered,
}

/// The first event with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// Its offset.
    pub offset: u64,
    /// Hash of its id and payload.
    pub payload_hash: PayloadHash,
    /// Its fate.
    pub fate: FirstFate,
}

/// How an event stands to the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// No earlier one with its id within the window.
    New,
    /// The same event was decided: skip it.
    Duplicate(First),
    /// The same event is still open: wait behind it.
    OfOpen(First),
    /// The same event is a dead letter: process this one and link it.
    OfDeadLetter(First),
    /// The id was used for another payload.
    IdReused(First),
}

/// The last events of a partition that have an id. Memory: one id and 32 bytes an event.
#[derive(Debug)]
pub struct DuplicateWindow {
    events_max: usize,
    firsts: HashMap<Arc<str>, First>,
    order: VecDeque<Arc<str>>,
}

impl DuplicateWindow {
    /// An empty window over so many events.
    pub fn new(events_max: usize) -> Self {
        Self { events_max, firsts: HashMap::new(), order: VecDeque::new() }
    }

    /// Fills the window from the ledger, newest first as it gives them.
    pub fn fill(&mut self, recent: Vec<RecentEvent>) {
        for event in recent.into_iter().rev() {
            let fate = if event.dead_lettered { FirstFate::DeadLettered } else { FirstFate::Done };
            let first = First { offset: event.offset, payload_hash: event.payload_hash, fate };
            self.put(&event.event_id, first);
        }
    }

    /// How an event at this offset stands to the earlier ones; changes nothing.
    pub fn look(&self, id: &str, offset: u64, payload_hash: PayloadHash) -> Seen {
        match self.firsts.get(id) {
            Some(first) if first.offset != offset => match first.fate {
                _ if first.payload_hash != payload_hash => Seen::IdReused(*first),
                FirstFate::Open => Seen::OfOpen(*first),
                FirstFate::Done => Seen::Duplicate(*first),
                FirstFate::DeadLettered => Seen::OfDeadLetter(*first),
            },
            _ => Seen::New,
        }
    }

    /// Remembers an event as the first with its id, or its new fate.
    pub fn put(&mut self, id: &str, first: First) {
        if let Some(known) = self.firsts.get_mut(id) {
            *known = first;
            return;
        }
        let id: Arc<str> = id.into();
        self.order.push_back(Arc::clone(&id));
        self.firsts.insert(id, first);
        // An event that is still open stays known however old it is; the hold bounds their number.
        for _ in 0..self.order.len() {
            if self.order.len() <= self.events_max {
                break;
            }
            let Some(oldest) = self.order.pop_front() else { break };
            if self.firsts.get(&oldest).is_some_and(|first| first.fate == FirstFate::Open) {
                self.order.push_back(oldest);
            } else {
                self.firsts.remove(&oldest);
            }
        }
    }

    /// Writes the fate of an event, unless a later event took its id over.
    pub fn decided(&mut self, id: &str, offset: u64, fate: FirstFate) {
        if let Some(first) = self.firsts.get_mut(id)
            && first.offset == offset
        {
            first.fate = fate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_id_in_a_table() {
        let mut window = DuplicateWindow::new(3);
        let first = |offset, fate| First { offset, payload_hash: PayloadHash(7), fate };
        window.put("open", first(0, FirstFate::Open));
        window.put("done", first(1, FirstFate::Done));
        window.put("dead", first(2, FirstFate::DeadLettered));
        let same = PayloadHash(7);
        assert_eq!(window.look("new", 9, same), Seen::New);
        assert_eq!(window.look("open", 9, same), Seen::OfOpen(first(0, FirstFate::Open)));
        assert_eq!(window.look("done", 9, same), Seen::Duplicate(first(1, FirstFate::Done)));
        assert_eq!(window.look("done", 9, PayloadHash(8)), Seen::IdReused(first(1, FirstFate::Done)));
        assert_eq!(window.look("dead", 9, same), Seen::OfDeadLetter(first(2, FirstFate::DeadLettered)));
        assert_eq!(window.look("done", 1, same), Seen::New, "its own redelivery");
    }

    #[test]
    fn the_window_forgets_the_oldest_decided_but_nothing_open() {
        let mut window = DuplicateWindow::new(2);
        let first = |offset, fate| First { offset, payload_hash: PayloadHash(7), fate };
        window.put("open", first(0, FirstFate::Open));
        window.put("a", first(1, FirstFate::Done));
        window.put("b", first(2, FirstFate::Done));
        assert_eq!(window.look("a", 9, PayloadHash(7)), Seen::New);
        assert_ne!(window.look("open", 9, PayloadHash(7)), Seen::New);
        assert_ne!(window.look("b", 9, PayloadHash(7)), Seen::New);
    }
}
