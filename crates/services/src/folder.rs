//! The folder of the servers, who uses them, and who stops them.

use crate::{ServiceError, at};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a server may take to stop by itself.
const STOP_MAX_S: u32 = 20;

/// What this process's servers are called, where they are not the checkout's.
static APART: OnceLock<String> = OnceLock::new();

/// From here on this process has servers of its own, which no other one finds: for whoever stops and starts
/// them. To be called before the first is asked for; the guardian removes their folder with them.
pub fn apart(name: &str) {
    // A second name changes nothing: the servers of the first may run.
    drop(APART.set(format!("-{name}-{}", std::process::id())));
}

/// The folder of this checkout's servers: readable by other users, since PostgreSQL refuses to run as root.
pub(crate) fn folder() -> Result<PathBuf, ServiceError> {
    folder_called(APART.get().map_or("", String::as_str))
}

fn folder_called(apart: &str) -> Result<PathBuf, ServiceError> {
    let mut hasher = DefaultHasher::new();
    Path::new(env!("CARGO_MANIFEST_DIR")).hash(&mut hasher);
    let checkout = hasher.finish() as u32;
    let folder = std::env::temp_dir().join(format!("recount-services-{checkout:08x}{apart}"));
    std::fs::create_dir_all(&folder).map_err(at(folder.display().to_string()))?;
    Ok(folder)
}

fn lock_file(folder: &Path, name: &str) -> Result<File, ServiceError> {
    let path = folder.join(name);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    file.map_err(at(path.display().to_string()))
}

/// While it is held, servers that run go on.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Lease {
    /// Waits where the guardian is just stopping what an earlier process left.
    ///
    /// # Errors
    /// Where the folder can't be written.
    pub fn take() -> Result<Self, ServiceError> {
        let file = lock_file(&folder()?, "lease.lock")?;
        file.lock_shared().map_err(at("lease.lock"))?;
        Ok(Self { _file: file })
    }
}

/// Runs `start` while no other process of this checkout starts a server, or installs what it needs.
pub(crate) fn one_at_a_time<R>(start: impl FnOnce() -> Result<R, ServiceError>) -> Result<R, ServiceError> {
    let file = lock_file(&folder_called("")?, "start.lock")?;
    file.lock().map_err(at("start.lock"))?;
    start()
}

/// What a server left for others to find: its port and process.
pub(crate) fn remember(service: &str, port: u16, process: u32) -> Result<(), ServiceError> {
    let path = folder()?.join(format!("{service}.json"));
    let text = json!({ "port": port, "process": process }).to_string();
    std::fs::write(&path, text).map_err(at(path.display().to_string()))
}

/// The port of a server whose process is alive.
pub(crate) fn running(service: &str) -> Result<Option<(u16, u32)>, ServiceError> {
    let Ok(text) = std::fs::read_to_string(folder()?.join(format!("{service}.json"))) else {
        return Ok(None);
    };
    let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
    let number = |field: &str| value[field].as_u64();
    let (Some(port), Some(process)) = (number("port"), number("process")) else { return Ok(None) };
    Ok(is_alive(process as u32).then_some((port as u16, process as u32)))
}

/// Whether a process runs; one that ended and that its parent has not asked about does not.
pub(crate) fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold anything; the state is the letter behind it.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    // Of a process that is killed the first thread may be gone while others still hold its ports and locks.
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    threads > 1 || !rest.starts_with(['Z', 'X'])
}

/// Asks a process to end by a signal, and waits until it has.
pub(crate) fn end(process: u32, signal: &str) -> Result<(), ServiceError> {
    Command::new("kill").args([signal, &process.to_string()]).status().map_err(at("kill"))?;
    while is_alive(process) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Starts a program that outlives this process, with its output in a file.
pub(crate) fn detached(command: &mut Command, log: &Path) -> Result<u32, ServiceError> {
    let file = File::create(log).map_err(at(log.display().to_string()))?;
    let again = file.try_clone().map_err(at(log.display().to_string()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    // A group of its own: an interrupt at the terminal is not meant for it.
    let child = command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0).spawn();
    Ok(child.map_err(at(program))?.id())
}

/// Sees that somebody stops the servers when the last lease is gone.
pub(crate) fn guard() -> Result<(), ServiceError> {
    if running("guardian")?.is_some() {
        return Ok(());
    }
    let folder = folder()?;
    let script = folder.join("stop.sh");
    let text = format!(
        "for service in kafka postgres; do\n  file=\"{0}/$service.json\"\n  [ -f \"$file\" ] || continue\n  \
         pid=$(sed 's/.*\"process\":\\([0-9]*\\).*/\\1/' \"$file\")\n  \
         # A PostgreSQL that is asked with SIGINT closes its connections and stops in order.\n  \
         if [ $service = postgres ]; then kill -INT \"$pid\"; else kill -TERM \"$pid\"; fi 2>/dev/null\n  \
         for _ in $(seq {1}0); do kill -0 \"$pid\" 2>/dev/null || break; sleep 0.1; done\n  \
         kill -KILL \"$pid\" 2>/dev/null\n  rm -f \"$file\"\n  rm -rf \"{0}/$service-data\"\ndone\n\
         rm -f \"{0}/guardian.json\"\n{2}",
        folder.display(),
        STOP_MAX_S,
        // Nobody comes back to servers of a process of their own.
        if APART.get().is_some() { format!("rm -rf \"{}\"\n", folder.display()) } else { String::new() },
    );
    std::fs::write(&script, text).map_err(at(script.display().to_string()))?;
    let mut guardian = Command::new("flock");
    guardian.arg("-x").arg(folder.join("lease.lock")).arg("sh").arg(&script);
    let process = detached(&mut guardian, &folder.join("guardian.log"))?;
    remember("guardian", 0, process)
}

/// Keeps the servers after this process, until [`release`]: for `cargo xtask services up`.
///
/// # Errors
/// Where the folder can't be written.
pub fn keep() -> Result<(), ServiceError> {
    if running("keeper")?.is_some() {
        return Ok(());
    }
    let folder = folder()?;
    let mut keeper = Command::new("flock");
    keeper.arg("-s").arg("-o").arg(folder.join("lease.lock")).args(["sleep", "infinity"]);
    let process = detached(&mut keeper, &folder.join("keeper.log"))?;
    remember("keeper", 0, process)
}

/// Lets go of what [`keep`] held: the servers stop once no test uses them.
///
/// # Errors
/// Where the folder can't be read.
pub fn release() -> Result<bool, ServiceError> {
    let Some((_, process)) = running("keeper")? else { return Ok(false) };
    let group = format!("-{process}");
    Command::new("kill").args(["-TERM", "--", &group]).status().map_err(at("kill"))?;
    std::fs::remove_file(folder()?.join("keeper.json")).map_err(at("keeper.json"))?;
    Ok(true)
}

/// Which servers run now, and on which ports.
///
/// # Errors
/// Where the folder can't be read.
pub fn standing() -> Result<Vec<(&'static str, u16)>, ServiceError> {
    let mut found = Vec::new();
    for service in ["postgres", "kafka"] {
        found.extend(running(service)?.map(|(port, _)| (service, port)));
    }
    Ok(found)
}

/// A port that nobody has now.
pub(crate) fn free_port() -> Result<u16, ServiceError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(at("a free port"))?;
    Ok(listener.local_addr().map_err(at("a free port"))?.port())
}

/// Asks until it answers.
pub(crate) fn until(
    service: &'static str,
    log: &Path,
    max: Duration,
    mut answers: impl FnMut() -> bool,
) -> Result<(), ServiceError> {
    let began = Instant::now();
    while !answers() {
        if began.elapsed() > max {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let why = lines[lines.len().saturating_sub(20)..].join("\n");
            return Err(ServiceError::Silent { service, why });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
