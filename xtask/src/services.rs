//! Real servers for tests and for trying things: `cargo xtask services up`, `down`.

use anyhow::Result;
use clap::{Args, Subcommand};
use recount_services::{Kafka, Postgres};
use serde_json::json;
use std::process::ExitCode;

/// What is to be done with the servers.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Start PostgreSQL and Kafka on private ports, and leave them running.
    Up {
        /// Start only these.
        #[arg(long, value_delimiter = ',', value_parser = ["postgres", "kafka"])]
        only: Vec<String>,
    },
    /// Let go of what `up` started: it stops once no test uses it.
    Down,
    /// Say what runs, and where.
    Status,
}

/// Runs the chore.
pub fn run(options: Options, as_json: bool) -> Result<ExitCode> {
    match options.what {
        What::Up { only } => {
            let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
            // Held until the keeper has its own lease.
            let postgres = wanted("postgres").then(Postgres::start).transpose()?;
            let kafka = wanted("kafka").then(Kafka::start).transpose()?;
            recount_services::keep()?;
            std::thread::sleep(std::time::Duration::from_millis(200));
            drop((postgres, kafka));
        }
        What::Down => {
            let message = if recount_services::release()? {
                "let go; what no test uses stops now"
            } else {
                "nothing was kept by `services up`"
            };
            println!("{message}");
            return Ok(ExitCode::SUCCESS);
        }
        What::Status => {}
    }
    let standing = recount_services::standing()?;
    for (service, port) in &standing {
        println!("{service}: 127.0.0.1:{port}");
    }
    if standing.is_empty() {
        println!("no server runs; start them: cargo xtask services up");
    }
    if as_json {
        let ports: serde_json::Map<_, _> =
            standing.iter().map(|(service, port)| ((*service).to_owned(), json!(port))).collect();
        println!("{}", json!({ "chore": "services", "ports": ports }));
    }
    Ok(ExitCode::SUCCESS)
}
