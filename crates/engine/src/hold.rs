//! Keys that wait: an event to be retried holds its key, and later events of the key wait behind it.

use crate::spec::HoldSpec;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use tokio::time::Instant;

/// Until when a held key waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The backoff ends then.
    Due(Instant),
    /// An operator resumes it.
    Operator,
}

#[derive(Debug)]
struct Queue<T> {
    until: Until,
    events: VecDeque<T>,
}

/// Held keys of one partition with what waits behind each, in order. Bounded by its spec, which the
/// caller asks with [`is_full`](Self::is_full) before it takes more.
#[derive(Debug)]
pub struct Hold<K, T> {
    spec: HoldSpec,
    queues: HashMap<K, Queue<T>>,
    events: usize,
    bytes: usize,
}

/// What the hold must know of an event.
pub trait Weighed {
    /// Its payload, in bytes.
    fn weight_bytes(&self) -> usize;
}

impl<K: Hash + Eq + Clone + Ord, T: Weighed> Hold<K, T> {
    /// Nothing held.
    pub fn new(spec: HoldSpec) -> Self {
        Self { spec, queues: HashMap::new(), events: 0, bytes: 0 }
    }

    /// Whether the key is held.
    pub fn holds(&self, key: &K) -> bool {
        self.queues.contains_key(key)
    }

    /// Whether one of the waiting events is such.
    pub fn any(&self, is_such: impl Fn(&T) -> bool) -> bool {
        self.queues.values().flat_map(|queue| &queue.events).any(is_such)
    }

    /// How many events wait.
    pub fn events(&self) -> usize {
        self.events
    }

    /// How many keys are held.
    pub fn keys(&self) -> usize {
        self.queues.len()
    }

    /// Whether no more may be taken.
    pub fn is_full(&self) -> bool {
        self.events >= self.spec.events_max || self.bytes >= self.spec.bytes_max
    }

    /// Puts an event at the end of what waits behind its key; the key is held from now on, at least until
    /// `until` if it wasn't.
    pub fn push_behind(&mut self, key: K, event: T, until: Until) {
        self.weigh_in(&event);
        let queue = self.queues.entry(key).or_insert_with(|| Queue { until, events: VecDeque::new() });
        queue.events.push_back(event);
    }

    /// Puts events that were taken out back to the front, in their order.
    pub fn put_back(&mut self, key: K, events: Vec<T>, until: Until) {
        for event in &events {
            self.weigh_in(event);
        }
        let queue = self.queues.entry(key).or_insert_with(|| Queue { until, events: VecDeque::new() });
        queue.until = until;
        for event in events.into_iter().rev() {
            queue.events.push_front(event);
        }
    }

    /// Holds a key with nothing behind it yet.
    pub fn keep_held(&mut self, key: K) {
        let queue = self.queues.entry(key);
        queue.or_insert_with(|| Queue { until: Until::Operator, events: VecDeque::new() }).until =
            Until::Operator;
    }

    /// Lets every key go on that waits for an operator; returns how many.
    pub fn resume_all(&mut self, now: Instant) -> usize {
        let mut resumed = 0;
        for queue in self.queues.values_mut().filter(|q| q.until == Until::Operator) {
            queue.until = Until::Due(now);
            resumed += 1;
        }
        resumed
    }

    /// When the next key is due.
    pub fn next_due(&self) -> Option<Instant> {
        let due = |queue: &Queue<T>| match queue.until {
            Until::Due(at) => Some(at),
            Until::Operator => None,
        };
        self.queues.values().filter_map(due).min()
    }

    /// Takes what waits behind keys that are due, at most `events_max`, each key's events in order. A key
    /// that was emptied is no longer held. Keys are taken in their own order, so that the same state gives
    /// the same batch.
    pub fn take_due(&mut self, now: Instant, events_max: usize) -> Vec<T> {
        let is_due = |queue: &Queue<T>| matches!(queue.until, Until::Due(at) if at <= now);
        let mut due: Vec<K> =
            self.queues.iter().filter(|(_, queue)| is_due(queue)).map(|(key, _)| key.clone()).collect();
        due.sort();
        let mut taken = Vec::new();
        for key in due {
            while taken.len() < events_max {
                let Some(event) = self.queues.get_mut(&key).and_then(|queue| queue.events.pop_front()) else {
                    break;
                };
                self.events -= 1;
                self.bytes -= event.weight_bytes();
                taken.push(event);
            }
            if self.queues.get(&key).is_some_and(|queue| queue.events.is_empty()) {
                self.queues.remove(&key);
            }
        }
        taken
    }

    fn weigh_in(&mut self, event: &T) {
        self.events += 1;
        self.bytes += event.weight_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    impl Weighed for u32 {
        fn weight_bytes(&self) -> usize {
            10
        }
    }

    #[tokio::test(start_paused = true)]
    async fn later_events_wait_behind_their_key_in_order() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut hold = Hold::new(HoldSpec { events_max: 4, bytes_max: 1000 });
        hold.push_behind("a", 1, Until::Due(later));
        hold.push_behind("b", 2, Until::Due(now));
        hold.push_behind("a", 3, Until::Due(now));
        assert!(hold.holds(&"a") && !hold.is_full());
        assert_eq!(hold.take_due(now, 10), [2]);
        assert_eq!(hold.next_due(), Some(later));
        assert_eq!(hold.take_due(later, 1), [1]);
        hold.put_back("a", vec![1], Until::Due(later));
        assert_eq!(hold.take_due(later, 10), [1, 3]);
        assert_eq!((hold.events(), hold.keys()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_kept_held_waits_for_an_operator() {
        let now = Instant::now();
        let mut hold = Hold::new(HoldSpec { events_max: 1, bytes_max: 1000 });
        hold.keep_held("a");
        hold.push_behind("a", 1, Until::Due(now));
        assert!(hold.is_full());
        assert_eq!(hold.take_due(now, 10), Vec::<u32>::new());
        assert_eq!(hold.resume_all(now), 1);
        assert_eq!(hold.take_due(now, 10), [1]);
    }
}
