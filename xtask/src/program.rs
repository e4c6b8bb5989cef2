//! Building and running programs, and what a run cost.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The workspace's folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's output folder.
pub fn target() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(set.unwrap_or_else(|| PathBuf::from("target")))
}

/// `cargo`, in the workspace's folder, as if called from a shell. What `cargo run` tells this program of its own
/// package is left out: a dependency's build script asks for it (ring's does), so that everything above that
/// would be built anew by each chore, and once more by the next `cargo xtask`.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_this_package = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
            || ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"].contains(&name)
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_this_package) {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// Builds a package's binary of the same name with the release profile and returns its path.
///
/// # Errors
/// Where it doesn't build; the compiler's messages went to standard error.
pub fn build(package: &str) -> Result<PathBuf> {
    let status =
        cargo().args(["build", "--quiet", "--release", "--package", package, "--bin", package]).status()?;
    if !status.success() {
        bail!("{package} does not build");
    }
    let path = target().join("release").join(package);
    if !path.exists() {
        bail!("cargo built {package}, but {} is not there", path.display());
    }
    Ok(path)
}

/// The program under test: the one named by `RECOUNT_BINARY`, else built now.
pub fn recount() -> Result<PathBuf> {
    match std::env::var_os("RECOUNT_BINARY") {
        Some(binary) => Ok(Path::new(&binary).canonicalize().context("RECOUNT_BINARY can't be opened")?),
        None => {
            eprintln!("building recount …");
            build("recount")
        }
    }
}

/// What a finished run left and cost.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// From start to exit.
    pub wall: Duration,
    /// User and system time of all its threads; the kernel counts it in hundredths of a second.
    pub cpu_seconds: f64,
    /// The same by the name of the thread, sampled every 100 ms: the last moments are missing.
    pub thread_cpu_seconds: BTreeMap<String, f64>,
    /// The high-water mark of its resident memory, sampled every 10 ms.
    pub peak_rss_bytes: u64,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote.
    pub stderr: String,
}

impl Finished {
    /// The last line of standard output as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        let text = self.stdout.trim();
        serde_json::from_str(text)
            .or_else(|_| serde_json::from_str(text.lines().last().unwrap_or_default()))
            .with_context(|| format!("no JSON on standard output: {}", self.tail()))
    }

    /// Fails unless it ended well.
    pub fn expect_success(self, what: &str) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{what} ended with {}: {}", self.status, self.tail())
    }

    /// The end of what it wrote, for a message.
    pub fn tail(&self) -> String {
        let mut lines: Vec<&str> = self.stdout.lines().chain(self.stderr.lines()).collect();
        let skipped = lines.len().saturating_sub(12);
        lines.drain(..skipped);
        lines.join("\n")
    }
}

/// Runs a command to its end and measures it.
pub fn run(command: &mut Command) -> Result<Finished> {
    measured(command, None)
}

/// Runs a command that does not end by itself until `done` returns, and measures it up to then; it is asked
/// to end, and how it ended is left to the caller.
///
/// # Errors
/// Where it can't be started, or `done` says that it is not done.
pub fn run_until(command: &mut Command, done: impl FnOnce() -> bool) -> Result<Finished> {
    measured(command, Some(Box::new(done)))
}

type Done<'d> = Box<dyn FnOnce() -> bool + 'd>;

fn measured(command: &mut Command, until: Option<Done<'_>>) -> Result<Finished> {
    let output = tempfile::tempdir()?;
    let (stdout, stderr) = (output.path().join("stdout"), output.path().join("stderr"));
    command.stdin(Stdio::null()).stdout(fs::File::create(&stdout)?).stderr(fs::File::create(&stderr)?);
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("can't start {:?}", command.get_program()))?;
    let process = child.id();
    let done = Arc::new(AtomicBool::new(false));
    let sampler = std::thread::spawn({
        let done = Arc::clone(&done);
        move || sample(process, &done)
    });
    let pid = Pid::from_child(&child);
    let stat = PathBuf::from(format!("/proc/{process}/stat"));
    let is_watched = until.is_some();
    let is_done = until.is_none_or(|done| done());
    let at_done = (begun.elapsed(), cpu_seconds(&stat));
    if is_watched {
        kill_process(pid, Signal::TERM)?;
    }
    // Left unreaped for a moment, so that what it used can still be read.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let (wall, cpu_seconds) = if is_watched { at_done } else { (begun.elapsed(), cpu_seconds(&stat)) };
    done.store(true, Ordering::Relaxed);
    let status = child.wait()?;
    let Ok((peak_rss_bytes, thread_cpu_seconds)) = sampler.join() else { bail!("the sampler panicked") };
    let finished = Finished {
        status,
        wall,
        cpu_seconds,
        thread_cpu_seconds,
        peak_rss_bytes,
        stdout: String::from_utf8_lossy(&fs::read(&stdout)?).into_owned(),
        stderr: String::from_utf8_lossy(&fs::read(&stderr)?).into_owned(),
    };
    if !is_done {
        bail!("{:?} was not done: {}", command.get_program(), finished.tail());
    }
    Ok(finished)
}

/// `VmHWM` of a living process (proc(5)); 0 where it can't be read.
fn peak_rss_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Looks at a process until it is done: its peak of memory, and what each thread used.
fn sample(process: u32, done: &AtomicBool) -> (u64, BTreeMap<String, f64>) {
    let (mut peak, mut by_thread) = (0, BTreeMap::new());
    for round in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        peak = peak.max(peak_rss_bytes(process));
        if round % 10 == 0 {
            by_thread.extend(threads(process));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut by_name = BTreeMap::new();
    for (_, (name, seconds)) in by_thread {
        *by_name.entry(name).or_default() += seconds;
    }
    (peak, by_name)
}

/// Each thread's id, name and CPU seconds so far.
fn threads(process: u32) -> BTreeMap<OsString, (String, f64)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks
        .map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            (task.file_name(), (name.trim().to_owned(), cpu_seconds(&task.path().join("stat"))))
        })
        .collect()
}

/// What the children of a process used that have ended (`cutime` and `cstime` of proc(5)).
pub fn ended_children_cpu_seconds(process: u32) -> f64 {
    times(Path::new(&format!("/proc/{process}/stat")), 13)
}

/// `utime` and `stime` of proc(5); 0 where they can't be read.
pub fn cpu_seconds(stat: &Path) -> f64 {
    times(stat, 11)
}

fn times(stat: &Path, skipped: usize) -> f64 {
    let stat = fs::read_to_string(stat).unwrap_or_default();
    // The program's name stands in parentheses and may hold anything; the numbers follow it.
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        numbers.split_whitespace().skip(skipped).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Bytes of all files in a folder and its subfolders.
pub fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_of_the_package_that_calls_it() {
        // Cargo tells a test the same as a program that it runs.
        let told = ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"];
        assert!(told.iter().all(|name| std::env::var_os(name).is_some()));
        let command = cargo();
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).collect();
        for name in told {
            assert!(removed.iter().any(|(removed, _)| *removed == name), "{name} of {removed:?}");
        }
    }

    #[test]
    fn a_run_tells_its_output_memory_and_time() {
        let finished =
            run(Command::new("sh").args(["-c", "sleep 0.1; echo said; echo '{\"a\":1}'; exit 3"])).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.json().unwrap()["a"], 1);
        assert!(finished.wall >= Duration::from_millis(100), "{finished:?}");
        assert!(finished.peak_rss_bytes > 100_000, "{finished:?}");
        assert!(finished.expect_success("it").is_err());
    }
}
