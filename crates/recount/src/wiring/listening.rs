//! Where this instance listens, decided before the ledger is opened, so that its folder can say it.

use crate::config::{Config, FlowConfig, FlowMode, SourceConfig};
use crate::exit::Failure;
use crate::server::CONTROL_TOKEN_FILE;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A bound port and the token of the commands that write.
pub struct Listening {
    /// The listener, not blocking.
    pub listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
    /// Must be shown with commands that write.
    pub control_token: String,
}

/// Where an instance listens that was told nothing else.
const USUAL_ADDRESS: &str = "127.0.0.1:7601";

/// Binds the config's address. Where another process has the usual port, and no flow takes events or reports by
/// HTTP, any port of the same address does.
pub fn listen(config: &Config) -> Result<Listening, Failure> {
    let wanted = &config.server.listen;
    let cant = |error: std::io::Error| {
        Failure::unreachable(format!("can't listen at {wanted}: {error}; set [server] listen to a free port"))
    };
    let takes_posts =
        |flow: &FlowConfig| flow.mode == FlowMode::Report || matches!(flow.source, SourceConfig::Http { .. });
    let takes_events = config.flows.iter().any(takes_posts);
    // An address that somebody chose is one that others were told.
    let is_usual = wanted == USUAL_ADDRESS;
    let listener = match TcpListener::bind(wanted) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && is_usual && !takes_events => {
            let mut address = wanted.to_socket_addrs().map_err(cant)?.next().ok_or_else(|| cant(error))?;
            address.set_port(0);
            let listener = TcpListener::bind(address).map_err(cant)?;
            let address = listener.local_addr().map_err(cant)?;
            tracing::warn!(
                "another process has {wanted}, so this one answers at {address}; commands find it by the ledger's folder"
            );
            listener
        }
        other => other.map_err(cant)?,
    };
    listener.set_nonblocking(true).map_err(cant)?;
    let address = listener.local_addr().map_err(cant)?;
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| cant(error.into()))?;
    let control_token = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Listening { listener, address, control_token })
}

/// Writes the control token where only this user can read it.
pub fn write_control_token(config: &Config, token: &str) -> Result<(), Failure> {
    let path = control_token_path(config);
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(token.as_bytes())
    };
    write().map_err(|error| Failure::unreachable(format!("{} can't be written: {error}", path.display())))
}

/// Where the control token lies.
pub fn control_token_path(config: &Config) -> PathBuf {
    config.ledger.path.join(CONTROL_TOKEN_FILE)
}
