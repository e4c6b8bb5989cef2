//! A disk in memory: what is written is pending until it is synced, and a loss of power decides anew what
//! of the pending is there.

use crate::rng::Rng;
use std::collections::BTreeMap;

/// A write is torn only between sectors of this many bytes.
pub const SECTOR_BYTES: usize = 512;

/// One change of a file's bytes that was not synced yet.
#[derive(Debug, Clone)]
enum Pending {
    Write { offset: usize, data: Vec<u8> },
    Truncate { size_bytes: usize },
}

/// One change of the folder that was not synced yet. They survive in order: a journalling file system may
/// lose the last ones, never one in the middle.
#[derive(Debug, Clone)]
enum FolderChange {
    Link { name: String, file: usize },
    Unlink { name: String },
    Rename { from: String, to: String },
}

impl FolderChange {
    fn touches(&self, folder: &str) -> bool {
        let name = match self {
            Self::Link { name, .. } | Self::Unlink { name } => name,
            Self::Rename { to, .. } => to,
        };
        parent(name) == folder
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

/// The folder of a path, without the slash.
pub fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A file's bytes: as everyone sees them, and as they would be after a loss of power.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// What every process sees now.
    pub current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

impl File {
    /// Writes into the page cache.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        put(&mut self.current, offset, data);
        self.pending.push(Pending::Write { offset, data: data.to_vec() });
    }

    /// Cuts or lengthens.
    pub fn truncate(&mut self, size_bytes: usize) {
        self.current.resize(size_bytes, 0);
        self.pending.push(Pending::Truncate { size_bytes });
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Pending::Write { offset, data } => put(&mut self.durable, offset, &data),
                Pending::Truncate { size_bytes } => self.durable.resize(size_bytes, 0),
            }
        }
    }

    fn lose_power(&mut self, loss: Loss, rng: &mut Rng, told: &mut LossTold) {
        for change in std::mem::take(&mut self.pending) {
            let fate = match loss {
                Loss::Everything => 0,
                Loss::Some => rng.below(3),
                Loss::Nothing => 2,
            };
            match (change, fate) {
                (Pending::Write { offset, data }, 1) => {
                    told.torn += 1;
                    for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if rng.percent(50) {
                            put(&mut self.durable, offset + index * SECTOR_BYTES, sector);
                        }
                    }
                }
                (Pending::Write { offset, data }, 2) => put(&mut self.durable, offset, &data),
                (Pending::Truncate { size_bytes }, 1 | 2) => self.durable.resize(size_bytes, 0),
                _ => told.vanished += 1,
            }
        }
        self.current.clone_from(&self.durable);
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// How much a loss of power takes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Everything,
    /// Each write by itself is kept, lost or torn.
    Some,
    /// None of it: the process was killed, or the cache was written in time.
    Nothing,
}

/// What a loss of power did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LossTold {
    /// Changes of which nothing is left.
    pub vanished: u64,
    /// Writes of which some sectors are left.
    pub torn: u64,
}

/// A disk as it was; see [`Disk::image`].
#[derive(Debug, Clone, Default)]
pub struct DiskImage {
    files: BTreeMap<String, Vec<u8>>,
}

/// One disk: a name space, and files, that outlive their names while they are open.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<FolderChange>,
    /// A sync says that it is done and does nothing: the sabotage.
    pub sync_lies: bool,
    /// Grows with every loss of power; handles of before are dead.
    pub generation: u64,
}

impl Disk {
    /// The file of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Names under the folder.
    pub fn list(&self, folder: &str) -> Vec<String> {
        self.names.keys().filter(|name| parent(name) == folder).cloned().collect()
    }

    /// A new, empty file; without a name it is gone with its last handle.
    pub fn create(&mut self, name: Option<&str>) -> usize {
        let file = self.files.len();
        self.files.push(File::default());
        if let Some(name) = name {
            self.change(FolderChange::Link { name: name.to_owned(), file });
        }
        file
    }

    /// Takes a name away; false where there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        let found = self.names.contains_key(name);
        if found {
            self.change(FolderChange::Unlink { name: name.to_owned() });
        }
        found
    }

    /// Gives a file another name, over what has it now; false where there is none.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        let found = self.names.contains_key(from);
        if found {
            self.change(FolderChange::Rename { from: from.to_owned(), to: to.to_owned() });
        }
        found
    }

    fn change(&mut self, change: FolderChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    /// The file's bytes.
    pub fn file(&mut self, file: usize) -> &mut File {
        &mut self.files[file]
    }

    /// Makes a file's bytes durable, and its name, as a file system does that makes new files durable with
    /// their first sync.
    pub fn sync_file(&mut self, file: usize) {
        if self.sync_lies {
            return;
        }
        self.files[file].sync();
        let is_link = |c: &FolderChange| matches!(c, FolderChange::Link { file: f, .. } if *f == file);
        if let Some(last) = self.changes.iter().rposition(is_link) {
            for change in self.changes.drain(..=last) {
                change.apply(&mut self.durable_names);
            }
        }
    }

    /// Makes what was created, removed and renamed in the folder durable, and everything before it.
    pub fn sync_folder(&mut self, folder: &str) {
        if self.sync_lies {
            return;
        }
        if let Some(last) = self.changes.iter().rposition(|c| c.touches(folder)) {
            for change in self.changes.drain(..=last) {
                change.apply(&mut self.durable_names);
            }
        }
    }

    /// The power goes: every handle is dead, and of what was not synced so much is lost.
    pub fn lose_power(&mut self, loss: Loss, rng: &mut Rng) -> LossTold {
        let mut told = LossTold::default();
        let changes = std::mem::take(&mut self.changes);
        let kept = match loss {
            Loss::Everything => 0,
            Loss::Some => rng.below(changes.len() as u64 + 1) as usize,
            Loss::Nothing => changes.len(),
        };
        told.vanished += (changes.len() - kept) as u64;
        for change in &changes[..kept] {
            change.apply(&mut self.durable_names);
        }
        for file in &mut self.files {
            file.lose_power(loss, rng, &mut told);
        }
        self.names = self.durable_names.clone();
        self.generation += 1;
        told
    }

    /// A copy of every named file as it is seen now.
    pub fn image(&self) -> DiskImage {
        let files = self.names.iter().map(|(n, f)| (n.clone(), self.files[*f].current.clone())).collect();
        DiskImage { files }
    }

    /// Puts the disk back to an image, durably; every handle is dead.
    pub fn restore(&mut self, image: &DiskImage) {
        self.files.clear();
        self.names.clear();
        self.changes.clear();
        for (name, bytes) in &image.files {
            self.names.insert(name.clone(), self.files.len());
            self.files.push(File { current: bytes.clone(), durable: bytes.clone(), pending: Vec::new() });
        }
        self.durable_names = self.names.clone();
        self.generation += 1;
    }

    /// A number that changes if any named file's bytes change: for comparing two runs.
    pub fn size_bytes(&self) -> u64 {
        self.names.values().map(|f| self.files[*f].current.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(disk: &mut Disk, name: &str) -> Option<String> {
        let file = disk.find(name)?;
        Some(String::from_utf8_lossy(&disk.file(file).current).into_owned())
    }

    #[test]
    fn only_what_was_synced_outlives_a_total_loss() {
        let mut disk = Disk::default();
        let file = disk.create(Some("l/a"));
        disk.file(file).write(0, b"one");
        disk.sync_file(file);
        disk.file(file).write(0, b"two");
        let gone = disk.create(Some("l/b"));
        disk.file(gone).write(0, b"x");
        let told = disk.lose_power(Loss::Everything, &mut Rng::new(1));
        assert_eq!(seen(&mut disk, "l/a").unwrap(), "one");
        assert_eq!(seen(&mut disk, "l/b"), None);
        assert_eq!(told, LossTold { vanished: 3, torn: 0 });
    }

    #[test]
    fn a_rename_is_durable_only_after_the_folder_was_synced() {
        for (synced, expected) in [(false, "old"), (true, "new")] {
            let mut disk = Disk::default();
            for (name, bytes) in [("l/a", b"old"), ("l/a.tmp", b"new")] {
                let file = disk.create(Some(name));
                disk.file(file).write(0, bytes);
                disk.sync_file(file);
            }
            disk.rename("l/a.tmp", "l/a");
            assert_eq!(seen(&mut disk, "l/a").unwrap(), "new");
            if synced {
                disk.sync_folder("l");
            }
            disk.lose_power(Loss::Everything, &mut Rng::new(1));
            assert_eq!(seen(&mut disk, "l/a").unwrap(), expected);
        }
    }

    #[test]
    fn a_torn_write_ends_between_sectors() {
        let mut torn_seen = 0;
        for seed in 0..50 {
            let mut disk = Disk::default();
            let file = disk.create(Some("a"));
            disk.sync_file(file);
            disk.file(file).write(0, &[7; 4 * SECTOR_BYTES]);
            let told = disk.lose_power(Loss::Some, &mut Rng::new(seed));
            let bytes = &disk.file(file).current;
            assert!(bytes.len().is_multiple_of(SECTOR_BYTES));
            for sector in bytes.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|b| *b == sector[0]));
            }
            torn_seen += told.torn;
        }
        assert!(torn_seen > 5);
    }
}
