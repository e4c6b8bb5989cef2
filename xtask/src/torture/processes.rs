//! The processes under torture: one that works, those that were frozen, and their folders.
//!
//! A ledger's folder has one process, and its lock ends with it; a process that is frozen keeps it. Whoever takes
//! over then goes on from a copy of the folder, made while the frozen one can't write: the same ledger, as from
//! a snapshot of its volume. The epoch in the effect's database decides between the two.

use crate::kill::Step;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const LEDGER: &str = "recount-data";
/// A process that settles nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process at work, or frozen.
pub struct Process {
    /// Which ledger's folder it has, from 1; also the database's role that it writes as.
    pub number: u64,
    child: Child,
    folder: PathBuf,
}

/// Where the processes run, and what they are told.
pub struct Place {
    /// The program.
    pub binary: PathBuf,
    /// Holds a folder for each.
    pub folder: PathBuf,
    /// The config of the one with this number.
    pub config: Box<dyn Fn(u64) -> String>,
}

impl Place {
    /// The folder of one.
    pub fn of(&self, number: u64) -> PathBuf {
        self.folder.join(format!("process-{number}"))
    }

    /// A command of Recount in the folder of one.
    pub fn command(&self, number: u64, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(self.of(number));
        command.env_remove("RECOUNT_CONFIG").env_remove("RECOUNT_STEP_FILE").env_remove("RECOUNT_LOG");
        command
    }

    /// Starts the one with this number on the ledger in its folder.
    pub fn start(&self, number: u64) -> Result<Process> {
        let folder = self.of(number);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("recount.toml"), (self.config)(number))?;
        fs::write(folder.join("step"), "start")?;
        let log = File::options().create(true).append(true).open(folder.join("run.log"))?;
        let mut command = self.command(number, &["run", "recount.toml"]);
        command.env("RECOUNT_STEP_FILE", folder.join("step")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Process { number, child, folder })
    }

    /// Starts another one on a copy of the ledger of one that is frozen.
    pub fn take_over(&self, frozen: &Process) -> Result<Process> {
        let number = frozen.number + 1;
        copy(&frozen.folder.join(LEDGER), &self.of(number).join(LEDGER))?;
        self.start(number)
    }
}

impl Process {
    /// Its id, by which others may signal it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it last wrote of itself.
    pub fn step(&self) -> Step {
        Step::read(&self.folder.join("step"))
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has settled so many batches; false where it ended before.
    pub fn settles(&mut self, batches: u64) -> Result<bool> {
        let begun = Instant::now();
        while self.step().settled < batches {
            if self.ended()?.is_some() {
                return Ok(false);
            }
            if begun.elapsed() > PATIENCE {
                bail!(
                    "{} batches settled in {} s, {batches} awaited: {}",
                    self.step().settled,
                    PATIENCE.as_secs(),
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(true)
    }

    /// Kills it; the step that it was at, none where it had ended by itself.
    pub fn kill(&mut self) -> Result<Option<String>> {
        self.child.kill()?;
        let status = self.child.wait()?;
        Ok(status.code().is_none().then(|| self.step().word))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).context("the process can't be signalled")
    }

    /// Waits until it ends, for so long.
    pub fn ends_within(&mut self, max: Duration) -> Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            match self.ended()? {
                None if begun.elapsed() < max => std::thread::sleep(Duration::from_millis(20)),
                ended => return Ok(ended),
            }
        }
    }

    /// Whether its log has these words.
    pub fn says(&self, words: &str) -> bool {
        fs::read_to_string(self.folder.join("run.log")).is_ok_and(|log| log.contains(words))
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(self.folder.join("run.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever went wrong, no process is left behind; a frozen one dies of this too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("can't read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}
