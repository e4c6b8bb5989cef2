//! A certificate authority of the servers' own, known to nobody else.

use crate::install::{debian, is_root, on_path, run};
use crate::{ServiceError, at};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The server's certificate, for `localhost` and nothing else.
    pub server: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// Key and certificate in one file.
    pub both: PathBuf,
}

/// Makes them in a folder where they aren't there yet.
pub(crate) fn certificates(folder: &Path, service: &'static str) -> Result<Certificates, ServiceError> {
    if on_path("openssl").is_none() {
        debian(&["openssl"], service)?;
    }
    let folder = folder.join(format!("{service}-tls"));
    let file = |name: &str| folder.join(name);
    let made = Certificates {
        authority: file("authority.pem"),
        server: file("server.pem"),
        key: file("server.key"),
        both: file("both.pem"),
    };
    if made.both.exists() {
        return Ok(made);
    }
    std::fs::create_dir_all(&folder).map_err(at(folder.display().to_string()))?;
    let openssl = |arguments: &[&str], files: &[(&str, &Path)]| {
        let mut command = Command::new("openssl");
        command.args(arguments);
        for (option, path) in files {
            command.arg(option).arg(path);
        }
        match run(&mut command)? {
            true => Ok(()),
            false => Err(ServiceError::Silent { service, why: "openssl makes no certificate".to_owned() }),
        }
    };
    let authority_key = file("authority.key");
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"];
    let authority = ["-subj", "/CN=tests", "-addext", "keyUsage=critical,keyCertSign"];
    openssl(&[&request[..], &authority].concat(), &[("-keyout", &authority_key), ("-out", &made.authority)])?;
    let server = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    let files = [("-CA", made.authority.as_path()), ("-CAkey", &authority_key)];
    openssl(
        &[&request[..], &server, &leaf].concat(),
        &[&files[..], &[("-keyout", &made.key), ("-out", &made.server)]].concat(),
    )?;
    let text = |path: &Path| std::fs::read_to_string(path).map_err(at(path.display().to_string()));
    let both = text(&made.key)? + &text(&made.server)?;
    if service == "postgres" && is_root() {
        run(Command::new("chown").arg("postgres").arg(&made.key))?;
    }
    run(Command::new("chmod").arg("600").arg(&made.key))?;
    std::fs::write(&made.both, both).map_err(at(made.both.display().to_string()))?;
    Ok(made)
}
