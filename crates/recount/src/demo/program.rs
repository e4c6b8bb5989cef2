//! Recount itself, run as anybody would: this very program, in a folder of the demo.

use super::file_failure;
use crate::exit::Failure;
use jiff::Timestamp;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing that the demo waits for takes longer, or something is wrong.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// This program, where `recount` on the command line would not be it.
pub fn unless_on_path() -> Option<String> {
    let this = std::env::current_exe().ok()?;
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let first =
        std::env::split_paths(&folders).map(|folder| folder.join("recount")).find(|path| path.is_file());
    let is_this = first.and_then(|path| path.canonicalize().ok()) == this.canonicalize().ok();
    (!is_this).then(|| this.display().to_string())
}

/// A folder in which commands are run.
pub struct Program {
    /// The folder, with its `recount.toml`.
    pub folder: PathBuf,
}

/// What a command said.
pub struct Told {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    line: String,
    err: String,
}

impl Told {
    /// Its output as JSON.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.out).map_err(|_| self.failure())
    }

    /// Its output as one JSON object a line.
    pub fn json_lines(&self) -> Result<Vec<Value>, Failure> {
        self.out.lines().map(|line| serde_json::from_str(line).map_err(|_| self.failure())).collect()
    }

    fn failure(&self) -> Failure {
        let Self { line, code, err, .. } = self;
        Failure::not_well(format!("`{line}` ended with {code} and without an answer: {}", err.trim()))
    }
}

impl Program {
    /// In this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn command(&self, args: &[&str]) -> Result<Command, Failure> {
        // Where there is one, the link leads to this very program even after its file was replaced.
        let link = PathBuf::from("/proc/self/exe");
        let found = if link.exists() { Ok(link) } else { std::env::current_exe() };
        let program =
            found.map_err(|error| Failure::unreachable(format!("this program can't be found: {error}")))?;
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.folder).stdin(Stdio::null());
        for name in ["RECOUNT_CONFIG", "RECOUNT_LOG", "RECOUNT_STEP_FILE", "RECOUNT_REVISION"] {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Runs a command to its end; it must do what was asked, well or not.
    pub fn run(&self, args: &[&str]) -> Result<Told, Failure> {
        let line = format!("recount {}", args.join(" "));
        let output = self
            .command(args)?
            .output()
            .map_err(|error| Failure::unreachable(format!("`{line}` can't be started: {error}")))?;
        let told = Told {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            line,
        };
        match told.code {
            0 | 1 | 3 => Ok(told),
            _ => Err(told.failure()),
        }
    }

    /// `recount run` to its end, and its exit code; where the flow pauses itself, nothing would end it, so it
    /// is asked to stop.
    pub fn run_flow(&self, log: &str) -> Result<i32, Failure> {
        let mut running = self.start(log)?;
        running.paused()?;
        running.stop()
    }

    /// Starts `recount run`; what it says goes to this file of the folder.
    pub fn start(&self, log: &str) -> Result<Running, Failure> {
        let log = self.folder.join(log);
        let file = |path: &Path| File::create(path).map_err(|error| file_failure(path, error));
        let mut command = self.command(&["run"])?;
        command.stdout(file(&log.with_extension("out"))?).stderr(file(&log)?);
        let child = command
            .spawn()
            .map_err(|error| Failure::unreachable(format!("`recount run` can't be started: {error}")))?;
        Ok(Running { child, log })
    }
}

/// `recount run`, under way; dropped, it is ended.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Waits until the flow pauses by itself, and says when that was; none where it ended without.
    pub fn paused(&mut self) -> Result<Option<Timestamp>, Failure> {
        let began = Instant::now();
        while began.elapsed() < WAIT_MAX {
            let has_ended = self.child.try_wait().map_err(Failure::unreachable)?.is_some();
            let log = fs::read_to_string(&self.log).map_err(|error| file_failure(&self.log, error))?;
            if let Some(at) = log.lines().find_map(breaker_opened) {
                return Ok(Some(at));
            }
            if has_ended {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
        Err(Failure::not_well(format!("`recount run` goes on and on; see {}", self.log.display())))
    }

    /// Asks it to stop, waits, and gives its exit code.
    pub fn stop(&mut self) -> Result<i32, Failure> {
        let began = Instant::now();
        if self.child.try_wait().map_err(Failure::unreachable)?.is_none() {
            let id = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(id, rustix::process::Signal::TERM).map_err(Failure::unreachable)?;
        }
        while began.elapsed() < WAIT_MAX {
            if let Some(status) = self.child.try_wait().map_err(Failure::unreachable)? {
                return Ok(status.code().unwrap_or(-1));
            }
            std::thread::sleep(LOOK);
        }
        Err(Failure::not_well("`recount run` does not stop"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where it ended, both fail, and that is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// When the flow paused itself, if this line of its log says so. A breaker that only tells says it otherwise.
fn breaker_opened(line: &str) -> Option<Timestamp> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let pauses = entry["message"].as_str()?.contains("is paused");
    (entry["reason"] == "breaker_open" && pauses).then(|| entry["timestamp"].as_str()?.parse().ok())?
}
