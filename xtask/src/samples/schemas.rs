//! The validators, which are Python's, in a virtual environment in the target folder; and what they say.

use super::{COMPOSE, MANIFESTS, SCHEMAS};
use crate::dist::{Outcome, said};
use crate::program;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = include_str!("requirements.txt");
const SCRIPT: &str = include_str!("check.py");

/// The samples as the validators read them, and what they found.
pub struct Read {
    /// Each document of the manifests.
    pub manifests: Vec<Value>,
    /// The Compose file.
    pub compose: Value,
    found: Value,
}

/// Asks the validators; none where `RECOUNT_WITHOUT` leaves them out.
pub fn read() -> Result<Option<Read>> {
    if recount_services::is_left_out(SCHEMAS) {
        return Ok(None);
    }
    let python = python()?;
    let script = python.with_file_name("check.py");
    fs::write(&script, SCRIPT)?;
    let root = program::root();
    let mut command = Command::new(python);
    command.arg(&script).arg(root.join(MANIFESTS)).arg(root.join(COMPOSE));
    let found: Value = serde_json::from_str(&said(&mut command)?)?;
    let manifests = found["kubernetes"]["documents"].as_array().cloned().unwrap_or_default();
    Ok(Some(Read { manifests, compose: found["compose"]["document"].clone(), found }))
}

impl Read {
    /// What the schemas of Kubernetes say of the manifests.
    pub fn of_kubernetes(&self) -> Outcome {
        let found = &self.found["kubernetes"];
        let versions: Vec<&str> =
            super::each(&found["versions"]).into_iter().filter_map(Value::as_str).collect();
        let documents = self.manifests.len();
        judged(found, format!("{documents} documents, strictly, by {}", versions.join(" and ")))
    }

    /// What the schema of Compose says.
    pub fn of_compose(&self) -> Outcome {
        let services = super::each(&self.compose["services"]).len();
        judged(&self.found["compose"], format!("{services} services"))
    }
}

fn judged(found: &Value, holds: String) -> Outcome {
    let texts =
        |key: &str| -> Vec<&str> { super::each(&found[key]).into_iter().filter_map(Value::as_str).collect() };
    let (faults, unnoticed) = (texts("faults"), texts("unnoticed"));
    if !faults.is_empty() {
        Outcome::Fails(faults.join("; "))
    } else if !unnoticed.is_empty() {
        Outcome::Fails(format!("a made-up fault goes unnoticed: {}", unnoticed.join("; ")))
    } else {
        Outcome::Holds(format!("{holds}; a made-up fault in each is noticed"))
    }
}

/// Python with the validators, made where it is not there yet.
fn python() -> Result<PathBuf> {
    let folder = program::target().join("samples-python");
    let (python, made_of) = (folder.join("bin/python"), folder.join("made-of.txt"));
    if fs::read_to_string(&made_of).is_ok_and(|of| of == REQUIREMENTS) {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    if !makes(&folder) {
        recount_services::debian(&["python3-venv"], SCHEMAS)?;
        if !makes(&folder) {
            bail!(
                "python3 makes no virtual environment; or leave the schemas out: RECOUNT_WITHOUT={SCHEMAS}"
            );
        }
    }
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]);
    said(pip.arg("--requirement").arg(&requirements)).with_context(|| {
        format!("the validators can't be had; or leave them out: RECOUNT_WITHOUT={SCHEMAS}")
    })?;
    fs::write(&made_of, REQUIREMENTS)?;
    Ok(python)
}

fn makes(folder: &Path) -> bool {
    let mut command = Command::new("python3");
    command.args(["-m", "venv"]).arg(folder).output().is_ok_and(|output| output.status.success())
}
