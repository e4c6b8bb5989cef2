//! Faults that are to happen at a named operation of the file system.

/// What a file system is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Open or create.
    Open,
    /// Read bytes.
    Read,
    /// Write bytes.
    Write,
    /// Cut.
    Truncate,
    /// Make durable.
    Sync,
    /// Take a lock.
    Lock,
    /// Take away a name.
    Delete,
    /// Give another name.
    Rename,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// `SQLITE_IOERR`.
    IoError,
    /// `SQLITE_FULL`.
    Full,
    /// `SQLITE_BUSY`.
    Busy,
    /// `SQLITE_CANTOPEN`.
    CantOpen,
    /// The process is dead from here on; a write is cut between sectors.
    Crash,
}

/// One planned fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Only this process; none: any.
    pub process: Option<u32>,
    /// Only this disk; none: any.
    pub disk: Option<&'static str>,
    /// Only this operation; none: any.
    pub operation: Option<Operation>,
    /// So many that match pass before.
    pub after: u64,
    /// It happens so many times, and is then used up.
    pub times: u64,
    /// What happens.
    pub failure: Failure,
}

/// The faults that are planned.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Vec<Fault>,
}

impl Faults {
    /// Plans one more.
    pub fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.planned.clear();
    }

    /// Whether this operation fails, and how.
    pub fn strike(&mut self, process: u32, disk: &str, operation: Operation) -> Option<Failure> {
        let mut struck = None;
        for fault in &mut self.planned {
            let applies = fault.process.is_none_or(|p| p == process)
                && fault.disk.is_none_or(|d| d == disk)
                && fault.operation.is_none_or(|o| o == operation);
            if !applies {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if struck.is_none() {
                fault.times -= 1;
                struck = Some(fault.failure);
            }
        }
        if struck.is_some() {
            self.planned.retain(|fault| fault.times > 0);
        }
        struck
    }
}
