//! The ledger's own file operations, over the same disks as SQLite's.

use super::FileSystem;
use super::disk::parent;
use super::faults::Operation;
use super::state::{Place, Refusal, State};
use recount_ledger::files::{FileOps, FolderLock, LockFailure};
use std::io;
use std::path::Path;

/// File operations on a simulated file system.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedFiles(pub &'static FileSystem);

/// Let go by dropping it, or by the death of its process.
#[derive(Debug)]
struct SimulatedLock {
    files: &'static FileSystem,
    place: Place,
}

impl FolderLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.files.lock();
        let key = (self.place.disk, self.place.name.clone());
        if state.folder_locks.get(&key) == Some(&self.place.process) {
            state.folder_locks.remove(&key);
        }
    }
}

fn refused(refusal: Refusal) -> io::Error {
    let kind = match refusal {
        Refusal::NotFound => io::ErrorKind::NotFound,
        Refusal::Held => io::ErrorKind::WouldBlock,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("simulated: {refusal:?}"))
}

impl SimulatedFiles {
    fn with<R>(
        &self,
        path: &Path,
        operation: Operation,
        act: impl FnOnce(&mut State, &Place) -> Result<R, Refusal>,
    ) -> io::Result<R> {
        let mut state = self.0.lock();
        let place = path.to_str().and_then(|path| state.place(path));
        let place = place.ok_or_else(|| refused(Refusal::NotFound))?;
        state.begin(place.process, place.disk, operation).map_err(refused)?;
        act(&mut state, &place).map_err(refused)
    }
}

impl FileOps for SimulatedFiles {
    /// Folders are only prefixes of names here, and always there.
    fn create_dir(&self, folder: &Path) -> io::Result<()> {
        self.with(folder, Operation::Open, |_, _| Ok(()))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.with(path, Operation::Open, |state, place| {
            Ok(state.disk_at(place.disk).find(&place.name).is_some())
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.with(folder, Operation::Open, |state, place| {
            let names = state.disk_at(place.disk).list(&place.name);
            let last = |name: String| name.rsplit('/').next().map(str::to_owned).unwrap_or(name);
            Ok(names.into_iter().map(last).collect())
        })
    }

    fn bytes(&self, path: &Path) -> io::Result<u64> {
        self.with(path, Operation::Open, |state, place| {
            let disk = state.disk_at(place.disk);
            let file = disk.find(&place.name).ok_or(Refusal::NotFound)?;
            Ok(disk.file(file).current.len() as u64)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(path, Operation::Delete, |state, place| {
            state.disk_at(place.disk).remove(&place.name);
            Ok(())
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.with(path, Operation::Read, |state, place| {
            let disk = state.disk_at(place.disk);
            let file = disk.find(&place.name).ok_or(Refusal::NotFound)?;
            Ok(disk.file(file).current.clone())
        })
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.with(path, Operation::Write, |state, place| {
            let disk = state.disk_at(place.disk);
            let file = disk.find(&place.name).unwrap_or_else(|| disk.create(Some(&place.name)));
            disk.file(file).truncate(0);
            disk.file(file).write(0, content);
            Ok(())
        })
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.with(folder, Operation::Sync, |state, place| {
            state.disk_at(place.disk).sync_folder(&place.name);
            Ok(())
        })
    }

    fn lock(&self, path: &Path, about: &str) -> Result<Box<dyn FolderLock>, LockFailure> {
        let taken = self.with(path, Operation::Lock, |state, place| {
            let key = (place.disk, place.name.clone());
            match state.folder_locks.get(&key) {
                Some(holder) => Ok(Err(format!("{holder} in {}", parent(&place.name)))),
                None => {
                    state.folder_locks.insert(key, place.process);
                    Ok(Ok(place.clone()))
                }
            }
        });
        match taken.map_err(LockFailure::Io)? {
            Err(holder) => Err(LockFailure::Held(holder)),
            Ok(place) => {
                let lock = SimulatedLock { files: self.0, place };
                self.write(path, about.as_bytes()).map_err(LockFailure::Io)?;
                Ok(Box::new(lock))
            }
        }
    }
}
