//! `cargo xtask dist`: what is handed to others: a stripped binary with completions, man pages and examples in
//! an archive, a container's recipe and a service's unit, each checked as far as this machine allows.

mod archive;
mod checks;
mod container;
mod root;
mod stage;
mod unit;

use crate::program;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// What to pack, and where.
#[derive(clap::Args)]
pub struct Options {
    /// `dist` is what is handed out: link-time optimisation, stripped; `release` is quicker to build
    #[arg(long, value_parser = ["dist", "release"], default_value = "dist")]
    profile: String,
    /// Put archive and checksum into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What came of a check.
pub enum Outcome {
    /// It was made and holds: what was seen.
    Holds(String),
    /// It was made and does not hold.
    Fails(String),
    /// This machine can't make it: why, and what it would take.
    NotPossible(String),
}

/// A check, by name.
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

impl Check {
    /// A check that failed where it could not be made to its end.
    pub fn new(name: &'static str, outcome: Result<Outcome>) -> Self {
        Self { name, outcome: outcome.unwrap_or_else(|error| Outcome::Fails(format!("{error:#}"))) }
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let (word, said) = told(&self.outcome);
        json!({ "check": self.name, "result": word, "said": said })
    }
}

/// What was packed.
pub struct Packed {
    /// The binary that was built.
    pub binary: PathBuf,
    /// `recount-VERSION-TARGET`.
    pub name: String,
    /// The archive.
    pub archive: PathBuf,
    /// What it holds.
    pub entries: Vec<archive::Entry>,
    /// The archive's SHA-256, in hex.
    pub sha256: String,
}

/// Builds, packs and checks; 1 where a check that could be made does not hold.
pub fn run(options: &Options, json: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    let binary = build(&options.profile)?;
    let build_seconds = begun.elapsed().as_secs_f64();
    let out = options.out.clone().unwrap_or_else(|| program::target().join("dist-archive"));
    let packed = pack(&binary, &out)?;
    let mut checks = checks::all(&packed)?;
    if options.profile == "dist" {
        checks.insert(0, Check::new("binary is stripped", checks::stripped(&binary)));
    }
    let (binary_bytes, archive_bytes) = (bytes(&packed.binary)?, bytes(&packed.archive)?);
    for check in &checks {
        println!("{}", say(check));
    }
    println!(
        "\n{} ({} bytes; the binary {} bytes), profile {}, built in {build_seconds:.0} s",
        packed.archive.display(),
        archive_bytes,
        binary_bytes,
        options.profile
    );
    let ok = !checks.iter().any(|check| matches!(check.outcome, Outcome::Fails(_)));
    if json {
        let checks = checks.iter().map(Check::json);
        println!(
            "{}",
            json!({
                "ok": ok,
                "profile": options.profile,
                "archive": packed.archive,
                "sha256": packed.sha256,
                "archive_bytes": archive_bytes,
                "binary_bytes": binary_bytes,
                "files": packed.entries.len(),
                "build_seconds": build_seconds,
                "checks": checks.collect::<Vec<_>>(),
            })
        );
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

/// A check in one line.
pub fn say(check: &Check) -> String {
    let (word, said) = told(&check.outcome);
    format!("{word:12}  {}: {said}", check.name)
}

fn told(outcome: &Outcome) -> (&'static str, &str) {
    match outcome {
        Outcome::Holds(said) => ("holds", said),
        Outcome::Fails(said) => ("FAILS", said),
        Outcome::NotPossible(said) => ("not possible", said),
    }
}

fn bytes(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("can't look at {}", path.display()))?.len())
}

fn build(profile: &str) -> Result<PathBuf> {
    if profile == "release" {
        return program::recount();
    }
    eprintln!("building recount with link-time optimisation: this takes minutes …");
    let arguments = ["build", "--quiet", "--profile", profile, "--package", "recount", "--bin", "recount"];
    if !program::cargo().args(arguments).status()?.success() {
        bail!("recount does not build with the profile {profile}");
    }
    Ok(program::target().join(profile).join("recount"))
}

fn pack(binary: &Path, out: &Path) -> Result<Packed> {
    let name = format!("recount-{}-{}", version(binary)?, host()?);
    let entries = stage::entries(binary)?;
    let modified_s = commit_time_s();
    let packed = archive::pack(&name, &entries, modified_s)?;
    if packed != archive::pack(&name, &entries, modified_s)? {
        bail!("the same files packed twice differ");
    }
    std::fs::create_dir_all(out)?;
    let archive = out.join(format!("{name}.tar.gz"));
    std::fs::write(&archive, &packed)?;
    let sha256 = archive::sha256(&packed);
    std::fs::write(out.join(format!("{name}.tar.gz.sha256")), format!("{sha256}  {name}.tar.gz\n"))?;
    Ok(Packed { binary: binary.to_path_buf(), name, archive, entries, sha256 })
}

fn version(binary: &Path) -> Result<String> {
    let said = said(Command::new(binary).arg("--version"))?;
    Ok(said.split_whitespace().nth(1).context("no version is told")?.to_owned())
}

fn host() -> Result<String> {
    let said = said(Command::new("rustc").arg("-vV"))?;
    Ok(said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc tells no host")?.to_owned())
}

/// When the commit was made that is packed; the beginning of time where there is none.
fn commit_time_s() -> u64 {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(program::root());
    said(&mut git).ok().and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0)
}

/// The standard output of a command that must end well.
pub fn said(command: &mut Command) -> Result<String> {
    Ok(program::run(command)?.expect_success(&format!("{command:?}"))?.stdout)
}
