//! What a run of one seed shares: the disks, the published events, what was seen of the ledger, the time,
//! counts of faults, and the first invariant that was broken.

use crate::observe::Books;
use crate::rng::Rng;
use crate::scene::Item;
use crate::vfs::FileSystem;
use recount_engine::{Clock, Probe, Step};
use recount_model::{BatchRecord, PartitionId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// The disks of a world.
pub const DISKS: [&str; 3] = ["effects", "ledger", "log"];
/// The last so many steps are kept for a failure.
const STEPS_KEPT: usize = 80;
/// When every world begins.
const BEGINNING_MS: i64 = 1_767_225_600_000;

/// An instance of the program: a number in the paths that it opens, and a name for the trace.
pub type Process = u32;

/// A crash planned at a step of the loop.
#[derive(Debug, Clone, Copy)]
pub struct StepCrash {
    /// Where.
    pub step: Step,
    /// So many times it passes before.
    pub after: u64,
}

/// What is kept under the lock.
pub struct Inner {
    /// Chance for everything that isn't the file system's.
    pub rng: Rng,
    /// Faults by name.
    pub counts: BTreeMap<String, u64>,
    /// The first invariant that was broken.
    pub violation: Option<String>,
    steps: VecDeque<String>,
    /// Batches that the ledger said it has, by partition and seq.
    pub history: BTreeMap<(PartitionId, u64), Arc<BatchRecord>>,
    /// Offsets that the ledger said it has a decision of, or passed over.
    pub recorded: BTreeSet<(PartitionId, u64)>,
    /// How far the ledger said it is.
    pub next_offset: BTreeMap<PartitionId, u64>,
    /// Positions that an operator gave up as unrecorded.
    pub has_adopted: bool,
    /// A crash planned at a step.
    pub step_crash: Option<StepCrash>,
    /// Passes of steps so far, in this life.
    pub steps_passed: BTreeMap<Step, u64>,
    base_ms: i64,
    life_began: Option<Instant>,
    /// Whether steps are written down.
    pub is_traced: bool,
}

/// See the module.
pub struct World {
    /// The disks.
    pub files: &'static FileSystem,
    /// What each partition publishes, in order.
    pub items: Vec<Vec<Item>>,
    /// How many of them are known to be published.
    published: Mutex<Vec<u64>>,
    /// So many in a thousand of them may be published in this life.
    publish_permille: AtomicU64,
    inner: Mutex<Inner>,
}

impl World {
    /// A world with these events, on disks that were reset.
    pub fn new(files: &'static FileSystem, items: Vec<Vec<Item>>, rng: Rng, is_traced: bool) -> Arc<Self> {
        let inner = Inner {
            rng,
            counts: BTreeMap::new(),
            violation: None,
            steps: VecDeque::new(),
            history: BTreeMap::new(),
            recorded: BTreeSet::new(),
            next_offset: BTreeMap::new(),
            has_adopted: false,
            step_crash: None,
            steps_passed: BTreeMap::new(),
            base_ms: BEGINNING_MS,
            life_began: None,
            is_traced,
        };
        let published = Mutex::new(vec![0; items.len()]);
        let publish_permille = AtomicU64::new(1000);
        Arc::new(Self { files, items, published, publish_permille, inner: Mutex::new(inner) })
    }

    /// The shared state.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number below the bound.
    pub fn below(&self, bound: u64) -> u64 {
        self.lock().rng.below(bound)
    }

    /// Counts a fault or another thing that is to be shown to have occurred.
    pub fn count(&self, what: &str) {
        self.count_many(what, 1);
    }

    /// [`count`](Self::count) several.
    pub fn count_many(&self, what: &str, times: u64) {
        if times > 0 {
            *self.lock().counts.entry(what.to_owned()).or_default() += times;
        }
    }

    /// Writes down a step; the text is made only if somebody will read it.
    pub fn tell(&self, number: u64, text: impl FnOnce() -> String) {
        self.files.note(number);
        let now = self.now();
        let mut inner = self.lock();
        if !inner.is_traced {
            return;
        }
        if inner.steps.len() == STEPS_KEPT {
            inner.steps.pop_front();
        }
        let at_ms = now.0 - BEGINNING_MS;
        inner.steps.push_back(format!("{at_ms:>7} ms  {}", text()));
    }

    /// An invariant is broken; the first one is kept.
    pub fn violated(&self, what: impl fmt::Display) {
        let what = what.to_string();
        self.tell(0xbad, || format!("BROKEN: {what}"));
        self.lock().violation.get_or_insert(what);
    }

    /// Whether an invariant was broken.
    pub fn is_broken(&self) -> bool {
        self.lock().violation.is_some()
    }

    /// The last steps, oldest first.
    pub fn steps(&self) -> Vec<String> {
        self.lock().steps.iter().cloned().collect()
    }

    /// Virtual time begins to pass; call it inside the life's runtime.
    pub fn begin_life(&self) {
        let mut inner = self.lock();
        inner.life_began = Some(Instant::now());
        inner.steps_passed.clear();
    }

    /// The life's time is added to the world's; call it inside the life's runtime.
    pub fn end_life(&self) {
        let mut inner = self.lock();
        if let Some(began) = inner.life_began.take() {
            inner.base_ms += began.elapsed().as_millis() as i64 + 1000;
        }
    }

    fn now(&self) -> Timestamp {
        let inner = self.lock();
        let passed = inner.life_began.map_or(0, |began| began.elapsed().as_millis() as i64);
        Timestamp(inner.base_ms + passed)
    }

    /// How many events are published in all.
    pub fn published_of(&self, partition: usize) -> u64 {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)[partition]
    }

    /// From now on this share of the events may be published, and is all that there is to decide.
    pub fn limit_publishing(&self, permille: u64) {
        self.publish_permille.store(permille, Ordering::Relaxed);
    }

    /// How many events of a partition may be published now.
    pub fn publishable_of(&self, partition: usize) -> u64 {
        let all = self.items[partition].len() as u64;
        (all * self.publish_permille.load(Ordering::Relaxed) / 1000).max(self.published_of(partition))
    }

    /// So many events are published for certain.
    pub fn set_published(&self, partition: usize, events: u64) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)[partition] = events;
    }

    /// The ledger was restored from earlier: what it says now is all that it can be held to.
    pub fn relearn(&self, books: Option<&Books>) {
        let mut inner = self.lock();
        inner.recorded.clear();
        inner.next_offset.clear();
        let Some(books) = books else {
            inner.history.clear();
            return;
        };
        inner.history.retain(|batch, _| books.batches.contains_key(batch));
        drop(inner);
        self.learn(books);
    }

    /// What the ledger has is known, also where nobody lived to hear of it.
    pub fn learn(&self, books: &Books) {
        let mut inner = self.lock();
        for stored in &books.decisions {
            inner.recorded.insert((stored.header.at.clone(), stored.decision.offset));
        }
        for (at, gap) in &books.gaps {
            inner.recorded.extend((gap.from..gap.to).map(|offset| (at.clone(), offset)));
        }
        for (at, mark) in &books.marks {
            inner.next_offset.insert(at.clone(), mark.next_offset);
        }
    }

    /// The ledger has a batch, and a loss of power would not take it.
    pub fn remember(&self, record: &Arc<BatchRecord>) {
        let mut inner = self.lock();
        let key = (record.at.clone(), record.seq);
        if inner.history.contains_key(&key) {
            return;
        }
        let decided = record.decisions.iter().map(|decision| decision.offset);
        let passed_over = record.gaps.iter().flat_map(|gap| gap.from..gap.to);
        for offset in decided.chain(passed_over) {
            inner.recorded.insert((record.at.clone(), offset));
        }
        let next = inner.next_offset.entry(record.at.clone()).or_default();
        *next = (*next).max(record.next_offset);
        inner.history.insert(key, Arc::clone(record));
    }
}

/// The world's time as the engine asks it.
pub struct WorldClock(pub Arc<World>);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

/// Hears of each step, and strikes at the planned one.
pub struct WorldProbe {
    /// The world.
    pub world: Arc<World>,
    /// Whose steps these are.
    pub process: Process,
}

impl Probe for WorldProbe {
    fn reached(&self, step: Step) {
        if self.world.files.is_dead(self.process) {
            return;
        }
        let strikes = {
            let mut inner = self.world.lock();
            *inner.steps_passed.entry(step).or_default() += 1;
            match &mut inner.step_crash {
                Some(crash) if crash.step == step && crash.after == 0 => {
                    inner.step_crash = None;
                    true
                }
                Some(crash) if crash.step == step => {
                    crash.after -= 1;
                    false
                }
                _ => false,
            }
        };
        if !matches!(step, Step::Idle | Step::Take | Step::Check) {
            self.world.tell(step as u64 + 100, || format!("process {}: {}", self.process, step.word()));
        }
        if strikes {
            self.world.count(&format!("crash at {}", step.word()));
            self.world.tell(7, || format!("process {} crashes at {}", self.process, step.word()));
            self.world.files.kill(self.process);
        }
    }
}
