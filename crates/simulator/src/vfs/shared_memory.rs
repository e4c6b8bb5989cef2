//! What the connections of one database in WAL mode share: an index that SQLite reads and writes through
//! plain pointers.

use std::sync::{Mutex, PoisonError};

/// Regions of zeros at first, handed out as pointers, alive as long as anyone holds this.
#[derive(Default)]
pub struct SharedMemory {
    regions: Mutex<Vec<Region>>,
}

/// A region's words, owned by the memory it stands in; `u64` for SQLite's alignment.
struct Region(*mut [u64]);

// The words are reached only through SQLite, which orders its accesses with the locks of this file
// system, and are freed only when nobody holds the memory.
unsafe impl Send for Region {}

impl SharedMemory {
    /// The region's first byte; null where it isn't there and is not to be made.
    pub fn region(&self, index: usize, size_bytes: usize, make: bool) -> *mut u8 {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        while make && regions.len() <= index {
            let words = vec![0_u64; size_bytes.div_ceil(8)].into_boxed_slice();
            regions.push(Region(Box::into_raw(words)));
        }
        regions.get(index).map_or(std::ptr::null_mut(), |region| region.0.cast())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let regions = self.regions.get_mut().unwrap_or_else(PoisonError::into_inner);
        for region in regions.drain(..) {
            // Each came from `Box::into_raw` and is dropped once, here.
            drop(unsafe { Box::from_raw(region.0) });
        }
    }
}
