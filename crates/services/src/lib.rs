//! Real servers for tests: PostgreSQL and Apache Kafka, on private ports of the loopback interface, in a
//! temporary folder.
//!
//! The first process that asks for a server starts it; others of the same checkout find it. Each holds a
//! *lease* (a shared lock on a file) for as long as it lives, and a guardian outside of them stops the
//! servers once nobody holds one any more. So `cargo test` leaves nothing running, however it ends, and
//! `cargo xtask services up` keeps servers by holding a lease of its own.
//!
//! What is missing is installed where that is possible (Debian's packages as root, Kafka's jars from Maven
//! Central). A server that can't be had fails the test that asks for it, unless `RECOUNT_WITHOUT` names it.

mod certificates;
mod folder;
mod install;
mod kafka;
mod postgres;

pub use folder::{Lease, apart, keep, release, standing};
pub use install::debian;
pub use kafka::{Kafka, PASSWORD, USER};
pub use postgres::Postgres;

use std::sync::OnceLock;

/// Why a server can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A program that it needs is missing and can't be installed.
    #[error("{what} is missing: {next}; or leave it out: RECOUNT_WITHOUT={service}")]
    Missing {
        /// The program or package.
        what: String,
        /// What to do.
        next: String,
        /// The server.
        service: &'static str,
    },
    /// It was started and did not answer.
    #[error("{service} does not answer: {why}")]
    Silent {
        /// The server.
        service: &'static str,
        /// What its log says last.
        why: String,
    },
    /// A file, folder or process.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

/// Names what was attempted.
pub(crate) fn at(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServiceError {
    |error| ServiceError::Io(what.into(), error)
}

/// Whether `RECOUNT_WITHOUT` (names with commas between) leaves a server out.
pub fn is_left_out(service: &str) -> bool {
    let without = std::env::var("RECOUNT_WITHOUT").unwrap_or_default();
    without.split(',').any(|name| name.trim() == service)
}

/// PostgreSQL, started where it does not run; `None` where `RECOUNT_WITHOUT` leaves it out.
///
/// # Panics
/// Where it can't be had: a test that needs it fails, and says what to do.
pub fn postgres() -> Option<&'static Postgres> {
    static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
    asked("postgres", &SERVER, Postgres::start)
}

/// Apache Kafka, started where it does not run; `None` where `RECOUNT_WITHOUT` leaves it out.
///
/// # Panics
/// Where it can't be had: a test that needs it fails, and says what to do.
pub fn kafka() -> Option<&'static Kafka> {
    static SERVER: OnceLock<Option<Kafka>> = OnceLock::new();
    asked("kafka", &SERVER, Kafka::start)
}

fn asked<S>(
    name: &str,
    server: &'static OnceLock<Option<S>>,
    start: fn() -> Result<S, ServiceError>,
) -> Option<&'static S> {
    let server = server.get_or_init(|| {
        if is_left_out(name) {
            eprintln!("left out: {name}, as RECOUNT_WITHOUT says");
            return None;
        }
        Some(start().unwrap_or_else(|error| panic!("{error}")))
    });
    server.as_ref()
}
