//! The consumer from Kafka to PostgreSQL that one would write by hand in Rust, with the same batch inside the
//! server and the same parallelism as Recount, offsets committed afterwards (at least once) and no ledger;
//! and what measuring it needs. `cargo xtask bench loop --source kafka` compares `recount run` with it.
//!
//! * `kafka-loop run SERVERS TOPIC GROUP URL EVENTS [SCHEMA]` consumes so many events; with a schema it checks
//!   them as `bare-loop` does.
//! * `kafka-loop driver SERVERS TOPIC URL EVENTS` reads them all into memory first, and times only the database.
//! * `kafka-loop fill SERVERS TOPIC ORDERS EVENTS [RATE WARM PUBLISHED]` makes the topic, with six partitions,
//!   and publishes the first so many lines; with a rate as many in a second, after the first WARM and a pause,
//!   and writes into a file when each was published.
//! * `kafka-loop watch URL EVENTS` ends when Recount's position rows have come so far.

#[path = "../../bare-loop/src/checks.rs"]
mod checks;
mod consume;
mod database;
mod publish;

use anyhow::{Context, Result, bail};
use checks::Checks;
use std::time::Duration;

/// Partitions of a topic that is made.
const PARTITIONS: i32 = 6;
/// Events of one transaction, at most.
const BATCH_EVENTS: usize = 500;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().with_context(|| format!("{text} is no number"));
    match arguments.as_slice() {
        ["run", servers, topic, group, url, events] => {
            consume::run(servers, topic, group, url, number(events)?, None).await
        }
        ["run", servers, topic, group, url, events, schema] => {
            let checks = Some(Checks::new(schema)?);
            consume::run(servers, topic, group, url, number(events)?, checks).await
        }
        ["driver", servers, topic, url, events] => {
            consume::driver(servers, topic, url, number(events)?).await
        }
        ["fill", servers, topic, orders, events] => {
            publish::fill(servers, topic, orders, number(events)?, None).await
        }
        ["fill", servers, topic, orders, events, rate, warm, published] => {
            let pace = publish::Pace { rate: number(rate)?, warm: number(warm)?, published };
            publish::fill(servers, topic, orders, number(events)?, Some(pace)).await
        }
        ["watch", url, events] => watch(url, number(events)?).await,
        _ => bail!("kafka-loop run|driver|fill|watch …: see the head of its source"),
    }
}

async fn watch(url: &str, events: usize) -> Result<()> {
    let client = database::connect(url).await?;
    loop {
        // Before Recount's first start there is no such table.
        let taken =
            client.query_one("SELECT coalesce(sum(next_offset), 0)::int8 FROM recount_position", &[]).await;
        if taken.is_ok_and(|row| row.get::<_, i64>(0) >= events as i64) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
