//! A PostgreSQL server of one's own.

use crate::certificates::certificates;
use crate::folder::{
    Lease, detached, end, folder, free_port, guard, one_at_a_time, remember, running, until,
};
use crate::install::{debian, is_root, on_path, run};
use crate::{ServiceError, at};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SERVICE: &str = "postgres";
/// Tests run side by side, each with connections of its own.
const CONNECTIONS_MAX: u32 = 200;

/// A running server. Anybody on this machine may connect as `postgres`, without a password.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    programs: PathBuf,
    _lease: Lease,
}

impl Postgres {
    /// Finds the server of this checkout, or starts one.
    ///
    /// # Errors
    /// Where it is missing and can't be installed, or does not answer.
    pub fn start() -> Result<Self, ServiceError> {
        let lease = Lease::take()?;
        let programs = programs()?;
        let port = one_at_a_time(|| match running(SERVICE)? {
            Some((port, _)) => Ok(port),
            None => launch(&programs, free_port()?, true),
        })?;
        Ok(Self { port, programs, _lease: lease })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its first process, which starts one for each connection.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn process(&self) -> Result<u32, ServiceError> {
        let gone = || ServiceError::Silent { service: SERVICE, why: "it does not run".to_owned() };
        running(SERVICE)?.map(|(_, process)| process).ok_or_else(gone)
    }

    /// A database of its own for one test: its URL.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub fn fresh_database(&self) -> Result<String, ServiceError> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://postgres@127.0.0.1:{}/{name}", self.port))
    }

    /// The certificate of the authority that it has its own from, which names it `localhost`. It takes
    /// connections with TLS and without.
    ///
    /// # Errors
    /// Where the folder can't be written.
    pub fn authority(&self) -> Result<PathBuf, ServiceError> {
        Ok(certificates(&folder()?, SERVICE)?.authority)
    }

    /// Runs SQL with `psql`; returns what it prints, unaligned and without headers.
    ///
    /// # Errors
    /// Where the server does not answer, or refuses it.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, ServiceError> {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-d", database]);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let output = command.output().map_err(at("psql"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(ServiceError::Silent { service: SERVICE, why });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills the server and starts it again on the same port and data, as after a crash of its machine.
    ///
    /// # Errors
    /// Where it does not come back.
    pub fn crash_and_restart(&self) -> Result<(), ServiceError> {
        one_at_a_time(|| {
            if let Some((_, process)) = running(SERVICE)? {
                // SIGQUIT is the server's own immediate shutdown: no checkpoint, no word to its clients.
                end(process, "-QUIT")?;
            }
            launch(&self.programs, self.port, false).map(drop)
        })
    }
}

fn programs() -> Result<PathBuf, ServiceError> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    debian(&["postgresql"], SERVICE)?;
    installed().ok_or_else(|| ServiceError::Missing {
        what: "initdb".to_owned(),
        next: "install PostgreSQL 14 or newer".to_owned(),
        service: SERVICE,
    })
}

/// Debian keeps the server's programs off the PATH, in a folder a version.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|folder| folder.join("initdb").is_file());
    folders.sort();
    folders.pop().or_else(|| on_path("initdb")?.parent().map(Path::to_owned))
}

/// PostgreSQL refuses to run as root.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    command
}

fn launch(programs: &Path, port: u16, fresh: bool) -> Result<u16, ServiceError> {
    let folder = folder()?;
    let data = folder.join("postgres-data");
    if fresh {
        drop(std::fs::remove_dir_all(&data));
        std::fs::create_dir_all(&data).map_err(at(data.display().to_string()))?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&data))?;
        }
        let mut initdb = as_user(&programs.join("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D"]).arg(&data);
        if !run(initdb.current_dir("/"))? {
            return Err(ServiceError::Silent { service: SERVICE, why: "initdb failed".to_owned() });
        }
    }
    let mut server = as_user(&programs.join("postgres"));
    server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    server.arg("-c").arg(format!("unix_socket_directories={}", data.display()));
    server.arg("-c").arg(format!("max_connections={CONNECTIONS_MAX}"));
    let tls = certificates(&folder, SERVICE)?;
    server.args(["-c", "ssl=on"]);
    server.arg("-c").arg(format!("ssl_cert_file={}", tls.server.display()));
    server.arg("-c").arg(format!("ssl_key_file={}", tls.key.display()));
    let log = folder.join("postgres.log");
    let process = detached(server.current_dir("/"), &log)?;
    remember(SERVICE, port, process)?;
    guard()?;
    let ready = programs.join("pg_isready");
    until(SERVICE, &log, Duration::from_secs(30), || {
        let asked = Command::new(&ready).args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]).status();
        TcpStream::connect(("127.0.0.1", port)).is_ok() && asked.is_ok_and(|status| status.success())
    })?;
    Ok(port)
}
