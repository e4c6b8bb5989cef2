//! Everything behind the file system's calls: disks, open handles, locks, dead processes, planned faults.

use super::disk::{Disk, DiskImage, Loss, LossTold};
use super::faults::{Failure, Faults, Operation};
use super::shared_memory::SharedMemory;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// SQLite's lock levels, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// None.
    Unlocked,
    /// May read.
    Shared,
    /// Means to write; others may read on.
    Reserved,
    /// Waits for readers to leave; no new ones come.
    Pending,
    /// Writes.
    Exclusive,
}

/// A path of a simulated file: `/PROCESS/DISK/NAME`. The process is in the path, since SQLite hands a file
/// system nothing else that tells who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Who opens it.
    pub process: u32,
    /// The disk's place among the disks.
    pub disk: usize,
    /// The rest of the path, without a leading slash.
    pub name: String,
}

/// Why a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The process is dead, or the disk lost its power.
    Dead,
    /// No such file.
    NotFound,
    /// A planned fault.
    Planned(Failure),
    /// Somebody else holds the lock.
    Held,
}

/// One open file.
pub struct Handle {
    /// Who opened it.
    pub process: u32,
    /// Its disk.
    pub disk: usize,
    /// Its file on the disk.
    pub file: usize,
    /// The name, to be taken away at close where SQLite asked so.
    pub delete_on_close: Option<String>,
    generation: u64,
    level: Level,
    shm: Option<Arc<SharedMemory>>,
    shm_shared: u8,
    shm_exclusive: u8,
}

/// What the operations of a run came to; two runs of one seed have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Operations asked for.
    pub operations: u64,
    /// Syncs that did what they say.
    pub syncs: u64,
    /// Planned faults that happened.
    pub faults: u64,
}

/// The state of one simulated file system.
pub struct State {
    names: Vec<&'static str>,
    disks: Vec<Disk>,
    handles: Vec<Option<Handle>>,
    shared_memories: BTreeMap<(usize, usize), Arc<SharedMemory>>,
    dead: BTreeSet<u32>,
    /// Locks on whole folders: name of the lock to process.
    pub folder_locks: BTreeMap<(usize, String), u32>,
    /// Planned faults.
    pub faults: Faults,
    /// Chance: tearing, lost writes, SQLite's own random numbers.
    pub rng: Rng,
    /// Counted.
    pub counts: Counts,
    /// Failures that struck, by kind and operation.
    pub struck: BTreeMap<(Failure, Operation), u64>,
    trace: u64,
    /// What SQLite is told the time is, in Julian milliseconds.
    pub now_julian_ms: i64,
}

impl State {
    /// Empty disks with these names.
    pub fn new(names: &[&'static str], seed: u64) -> Self {
        Self {
            names: names.to_vec(),
            disks: names.iter().map(|_| Disk::default()).collect(),
            handles: Vec::new(),
            shared_memories: BTreeMap::new(),
            dead: BTreeSet::new(),
            folder_locks: BTreeMap::new(),
            faults: Faults::default(),
            rng: Rng::new(seed),
            counts: Counts::default(),
            struck: BTreeMap::new(),
            trace: seed,
            now_julian_ms: 210_866_760_000_000 + 1_483_228_800_000,
        }
    }

    /// Reads a path; none where it isn't one of ours.
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut parts = path.trim_start_matches('/').splitn(3, '/');
        let process = parts.next()?.parse().ok()?;
        let disk_name = parts.next()?;
        let disk = self.position(disk_name)?;
        Some(Place { process, disk, name: parts.next().unwrap_or("").trim_end_matches('/').to_owned() })
    }

    /// The disk of this name.
    pub fn disk(&mut self, name: &str) -> Option<&mut Disk> {
        let at = self.position(name)?;
        self.disks.get_mut(at)
    }

    /// The place of the disk of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| *n == name)
    }

    /// The disk at this place.
    pub fn disk_at(&mut self, disk: usize) -> &mut Disk {
        &mut self.disks[disk]
    }

    /// A number that differs as soon as two runs ask for different operations.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Adds something to the trace.
    pub fn note(&mut self, value: u64) {
        self.trace = (self.trace.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Counts an operation, and fails it if the process is dead or a fault is planned. A `Crash` kills the
    /// process.
    pub fn begin(&mut self, process: u32, disk: usize, operation: Operation) -> Result<(), Refusal> {
        if self.dead.contains(&process) {
            return Err(Refusal::Dead);
        }
        self.counts.operations += 1;
        self.note(u64::from(process) << 32 | (disk as u64) << 8 | operation as u64);
        let Some(failure) = self.faults.strike(process, self.names[disk], operation) else { return Ok(()) };
        self.counts.faults += 1;
        *self.struck.entry((failure, operation)).or_default() += 1;
        self.note(failure as u64 + 77);
        if failure == Failure::Crash {
            self.kill(process);
        }
        Err(Refusal::Planned(failure))
    }

    /// The process is dead: its locks are free, its handles fail for ever.
    pub fn kill(&mut self, process: u32) {
        self.dead.insert(process);
        self.folder_locks.retain(|_, holder| *holder != process);
        self.forget_unused_memory();
    }

    /// Whether a process was killed.
    pub fn is_dead(&self, process: u32) -> bool {
        self.dead.contains(&process)
    }

    /// The power of a disk goes.
    pub fn lose_power(&mut self, disk: usize, loss: Loss) -> LossTold {
        let mut rng = self.rng.fork();
        let told = self.disks[disk].lose_power(loss, &mut rng);
        self.forget_unused_memory();
        told
    }

    /// Puts a disk back to an image; every handle on it is dead.
    pub fn restore(&mut self, disk: usize, image: &DiskImage) {
        self.disks[disk].restore(image);
        self.forget_unused_memory();
    }

    /// A new handle for a file.
    pub fn add_handle(&mut self, place: &Place, file: usize, delete_on_close: bool) -> usize {
        let handle = Handle {
            process: place.process,
            disk: place.disk,
            file,
            delete_on_close: delete_on_close.then(|| place.name.clone()),
            generation: self.disks[place.disk].generation,
            level: Level::Unlocked,
            shm: None,
            shm_shared: 0,
            shm_exclusive: 0,
        };
        match self.handles.iter().position(Option::is_none) {
            Some(free) => {
                self.handles[free] = Some(handle);
                free
            }
            None => {
                self.handles.push(Some(handle));
                self.handles.len() - 1
            }
        }
    }

    /// How many handles are open, of dead processes too.
    pub fn open_handles(&self) -> usize {
        self.handles.iter().flatten().count()
    }

    fn alive(&self, handle: &Handle) -> bool {
        !self.dead.contains(&handle.process) && self.disks[handle.disk].generation == handle.generation
    }

    /// Begins an operation on a handle; gives its disk and file.
    pub fn on_handle(&mut self, handle: usize, operation: Operation) -> Result<(usize, usize), Refusal> {
        let (process, disk, file) = self.living(handle)?;
        self.begin(process, disk, operation)?;
        Ok((disk, file))
    }

    /// A handle's process, disk and file, where it isn't dead.
    pub fn living(&self, handle: usize) -> Result<(u32, usize, usize), Refusal> {
        match self.handles.get(handle).and_then(Option::as_ref) {
            Some(open) if self.alive(open) => Ok((open.process, open.disk, open.file)),
            _ => Err(Refusal::Dead),
        }
    }

    /// Closes a handle; works for dead ones too.
    pub fn close(&mut self, handle: usize) {
        let Some(open) = self.handles.get_mut(handle).and_then(Option::take) else { return };
        let alive = self.alive(&open);
        if let (true, Some(name)) = (alive, &open.delete_on_close) {
            self.disks[open.disk].remove(name);
        }
        drop(open);
        self.forget_unused_memory();
    }

    fn others_of(&self, handle: usize) -> impl Iterator<Item = &Handle> {
        let mine = self.handles[handle].as_ref().map(|h| (h.disk, h.file, h.generation));
        self.handles.iter().enumerate().filter_map(move |(index, other)| {
            let other = other.as_ref()?;
            let same = Some((other.disk, other.file, other.generation)) == mine;
            (index != handle && same && self.alive(other)).then_some(other)
        })
    }

    /// Takes or raises a lock as `sqlite3OsLock` describes it.
    pub fn lock(&mut self, handle: usize, wanted: Level) -> Result<(), Refusal> {
        let (process, disk, _) = self.living(handle)?;
        let level = self.handles[handle].as_ref().map_or(Level::Unlocked, |h| h.level);
        if level >= wanted {
            return Ok(());
        }
        self.begin(process, disk, Operation::Lock)?;
        let highest = self.others_of(handle).map(|h| h.level).max().unwrap_or(Level::Unlocked);
        let (granted, outcome) = match wanted {
            Level::Shared if highest >= Level::Pending => (level, Err(Refusal::Held)),
            Level::Reserved if highest >= Level::Reserved => (level, Err(Refusal::Held)),
            Level::Pending | Level::Exclusive if highest >= Level::Reserved => (level, Err(Refusal::Held)),
            Level::Exclusive if highest >= Level::Shared => (Level::Pending, Err(Refusal::Held)),
            _ => (wanted, Ok(())),
        };
        if let Some(open) = self.handles[handle].as_mut() {
            open.level = granted;
        }
        outcome
    }

    /// Lowers a lock.
    pub fn unlock(&mut self, handle: usize, to: Level) {
        if let Some(open) = self.handles.get_mut(handle).and_then(Option::as_mut) {
            open.level = open.level.min(to);
        }
    }

    /// Whether anyone has a reserved lock or more.
    pub fn reserved(&self, handle: usize) -> Result<bool, Refusal> {
        self.living(handle)?;
        let mine = self.handles[handle].as_ref().map_or(Level::Unlocked, |h| h.level);
        let highest = self.others_of(handle).map(|h| h.level).max().unwrap_or(Level::Unlocked);
        Ok(mine.max(highest) >= Level::Reserved)
    }

    /// The memory that all connections to a database share.
    pub fn shared_memory(&mut self, handle: usize) -> Result<Arc<SharedMemory>, Refusal> {
        let (_, disk, file) = self.living(handle)?;
        let memory = self.shared_memories.entry((disk, file)).or_default().clone();
        if let Some(open) = self.handles[handle].as_mut() {
            open.shm = Some(memory.clone());
        }
        Ok(memory)
    }

    /// Takes or releases locks on slots of the shared memory.
    pub fn lock_slots(&mut self, handle: usize, slots: u8, exclusive: bool) -> Result<(), Refusal> {
        let (process, disk, _) = self.living(handle)?;
        self.begin(process, disk, Operation::Lock)?;
        let held = |h: &Handle| if exclusive { h.shm_exclusive | h.shm_shared } else { h.shm_exclusive };
        if self.others_of(handle).any(|other| held(other) & slots != 0) {
            return Err(Refusal::Held);
        }
        if let Some(open) = self.handles[handle].as_mut() {
            if exclusive {
                open.shm_exclusive |= slots;
            } else {
                open.shm_shared |= slots;
            }
        }
        Ok(())
    }

    /// Releases slots.
    pub fn unlock_slots(&mut self, handle: usize, slots: u8) {
        if let Some(open) = self.handles.get_mut(handle).and_then(Option::as_mut) {
            open.shm_exclusive &= !slots;
            open.shm_shared &= !slots;
        }
    }

    /// A connection leaves the shared memory.
    pub fn leave_memory(&mut self, handle: usize) {
        if let Some(open) = self.handles.get_mut(handle).and_then(Option::as_mut) {
            open.shm = None;
            open.shm_exclusive = 0;
            open.shm_shared = 0;
        }
        self.forget_unused_memory();
    }

    /// Shared memory is gone with its last living user: the next one finds zeros and recovers. A dead
    /// connection keeps what it has mapped until it is dropped.
    fn forget_unused_memory(&mut self) {
        let used: BTreeSet<(usize, usize)> = self
            .handles
            .iter()
            .flatten()
            .filter(|h| h.shm.is_some() && self.alive(h))
            .map(|h| (h.disk, h.file))
            .collect();
        self.shared_memories.retain(|file, _| used.contains(file));
    }
}
