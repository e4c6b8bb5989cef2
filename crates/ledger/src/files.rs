//! The few file operations that SQLite doesn't do. A simulator puts its own in place of them, and its own
//! SQLite VFS beside.

use std::fmt;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Held for as long as the folder is ours; dropping it lets go.
pub trait FolderLock: Send + fmt::Debug {}

/// Why a folder's lock was not got.
#[derive(Debug)]
pub enum LockFailure {
    /// Another holds it; what it wrote about itself.
    Held(String),
    /// The file system refused.
    Io(io::Error),
}

/// File operations of a ledger's folder. Every path given lies in that folder, or is it.
pub trait FileOps: Send + Sync + fmt::Debug {
    /// Makes the folder and those above it, for its owner alone (0700), durably. One that
    /// exists is left as it is.
    fn create_dir(&self, folder: &Path) -> io::Result<()>;

    /// Whether there is such a file or folder.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The names of the files in the folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// The file's length in bytes.
    fn bytes(&self, path: &Path) -> io::Result<u64>;

    /// Removes a file; one that isn't there is no error. Need not survive a loss of power.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Reads a small file whole.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Writes a small file whole, for its owner alone. Need not survive a loss of power.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Makes durable which files the folder has.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;

    /// Takes the lock without waiting and writes `about` into its file.
    fn lock(&self, path: &Path, about: &str) -> Result<Box<dyn FolderLock>, LockFailure>;
}

/// The file system itself.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealFiles;

#[derive(Debug)]
struct RealLock {
    _file: fs::File,
}

impl FolderLock for RealLock {}

impl RealFiles {
    /// Takes the lock without writing anything, to see whether another has it; dropping it lets go.
    pub(crate) fn lock_to_look(&self, path: &Path) -> Result<Box<dyn FolderLock>, LockFailure> {
        use rustix::fs::{FlockOperation, flock};
        let file = fs::File::open(path).map_err(LockFailure::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockFailure::Held(String::new())),
            Err(error) => Err(LockFailure::Io(error.into())),
        }
    }
}

impl FileOps for RealFiles {
    fn create_dir(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        match fs::canonicalize(folder)?.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(content)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path, about: &str) -> Result<Box<dyn FolderLock>, LockFailure> {
        use rustix::fs::{FlockOperation, flock};
        let mut options = fs::OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = opened.map_err(LockFailure::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let about = fs::read_to_string(path).unwrap_or_default();
                return Err(LockFailure::Held(about.trim().to_owned()));
            }
            Err(error) => return Err(LockFailure::Io(error.into())),
        }
        file.set_len(0).and_then(|()| file.write_all(about.as_bytes())).map_err(LockFailure::Io)?;
        Ok(Box::new(RealLock { _file: file }))
    }
}
