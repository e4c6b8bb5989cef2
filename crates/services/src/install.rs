//! Finding programs, and installing them where they are missing.

use crate::{ServiceError, at};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Installs Debian packages; nothing starts by itself.
///
/// # Errors
/// Where that is not possible here: what to install, or to leave out.
pub fn debian(packages: &[&str], service: &'static str) -> Result<(), ServiceError> {
    let missing = || ServiceError::Missing {
        what: packages.join(", "),
        next: format!("install it: apt-get install {}", packages.join(" ")),
        service,
    };
    if !is_root() || on_path("apt-get").is_none() {
        return Err(missing());
    }
    eprintln!("installs {} for the tests", packages.join(", "));
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let is_ours = !policy.exists();
    if is_ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n").map_err(at("policy-rc.d"))?;
        run(Command::new("chmod").arg("755").arg(policy))?;
    }
    let mut done = Ok(true);
    for arguments in [&["update", "-q"][..], &["install", "-q", "-y", "--no-install-recommends"][..]] {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        if arguments[0] == "install" {
            command.args(packages);
        }
        done = run(&mut command);
    }
    if is_ours {
        std::fs::remove_file(policy).map_err(at("policy-rc.d"))?;
    }
    if done? { Ok(()) } else { Err(missing()) }
}

/// Runs a command to its end, quietly; whether it went well.
pub(crate) fn run(command: &mut Command) -> Result<bool, ServiceError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(at(program))?;
    if !output.status.success() {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.status.success())
}
