//! A file system in memory that SQLite can be opened on: several disks, processes that die, power that
//! goes, and faults at a named operation. All of it from a seed.
//!
//! A path is `/PROCESS/DISK/NAME`: two processes that open the same name on the same disk see the same file,
//! and what one of them held is free when it is killed.

pub mod disk;
pub mod faults;
pub mod folder;
pub mod state;

#[allow(unsafe_code)]
mod binding;
#[allow(unsafe_code)]
mod shared_memory;

pub use disk::{DiskImage, Loss, LossTold};
pub use faults::{Failure, Fault, Operation};

use state::{Counts, State};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One simulated file system, registered with SQLite under [`FileSystem::name`]. It lives as long as the
/// program, since SQLite keeps a pointer to it: make one a thread and [`reset`](Self::reset) it.
pub struct FileSystem {
    name: String,
    state: Mutex<State>,
}

impl fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystem").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FileSystem {
    /// Registers a new one with SQLite.
    pub fn register() -> &'static Self {
        binding::register(|name| Self { name, state: Mutex::new(State::new(&[], 0)) })
    }

    /// What to give to `open_with_flags_and_vfs`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Empty disks with these names, and chance from this seed; SQLite's own random numbers too, as far as
    /// they are this process' (they are shared by all threads).
    ///
    /// # Panics
    /// If a connection is still open: its handle would then be another's.
    pub fn reset(&self, disks: &[&'static str], seed: u64) {
        binding::seed_sqlite(seed);
        let mut state = self.lock();
        assert_eq!(state.open_handles(), 0, "a connection outlived its run");
        *state = State::new(disks, seed);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a fault.
    pub fn plan(&self, fault: Fault) {
        self.lock().faults.plan(fault);
    }

    /// Forgets what is planned.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Kills a process: its locks are free and every call of its handles fails. The disks lose nothing.
    pub fn kill(&self, process: u32) {
        self.lock().kill(process);
    }

    /// Whether a process was killed, by [`kill`](Self::kill) or by a planned crash.
    pub fn is_dead(&self, process: u32) -> bool {
        self.lock().is_dead(process)
    }

    /// The power of a disk goes: every handle on it is dead, and what was not synced may be lost.
    pub fn lose_power(&self, disk: &str, loss: Loss) -> LossTold {
        let mut state = self.lock();
        let at = state.position(disk);
        at.map_or(LossTold::default(), |at| state.lose_power(at, loss))
    }

    /// From now on a sync of this disk does nothing and says that it did.
    pub fn make_syncs_lie(&self, disk: &str) {
        if let Some(disk) = self.lock().disk(disk) {
            disk.sync_lies = true;
        }
    }

    /// The disk as it is seen now.
    pub fn image(&self, disk: &str) -> Option<DiskImage> {
        self.lock().disk(disk).map(|disk| disk.image())
    }

    /// Puts a disk back; every handle on it is dead.
    pub fn restore(&self, disk: &str, image: &DiskImage) {
        let mut state = self.lock();
        if let Some(at) = state.position(disk) {
            state.restore(at, image);
        }
    }

    /// What the operations came to.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Planned faults that struck since this was last asked, by kind and operation.
    pub fn take_struck(&self) -> BTreeMap<(Failure, Operation), u64> {
        std::mem::take(&mut self.lock().struck)
    }

    /// A number over all operations so far, in order.
    pub fn trace(&self) -> u64 {
        self.lock().trace()
    }

    /// Adds to the trace something that isn't an operation.
    pub fn note(&self, value: u64) {
        self.lock().note(value);
    }

    /// How many handles are open.
    pub fn open_handles(&self) -> usize {
        self.lock().open_handles()
    }
}
