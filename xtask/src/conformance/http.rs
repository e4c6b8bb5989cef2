//! Requests to the running process, which answers 2xx once they are in its embedded log.

use super::bench::Bench;
use super::event::Event;
use super::scene::{PATIENCE, Scene};
use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATH: &str = "/orders";
/// So many events in one request.
const EVENTS_PER_REQUEST: usize = 100;

/// The path that events are posted to.
pub struct HttpBench;

impl Bench for HttpBench {
    fn config(&self, _: &Path) -> (String, String) {
        (format!("{{ http = \"{PATH}\" }}"), String::new())
    }

    fn publish(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()> {
        let Some(address) = scene.address()? else { return publish_offline(scene, events) };
        for events in events.chunks(EVENTS_PER_REQUEST) {
            let status = post(&address, "application/x-ndjson", &Event::lines(events))?;
            if !(200..300).contains(&status) {
                bail!("{address}{PATH} answered {status}");
            }
        }
        Ok(())
    }

    /// The process that takes the requests is killed under way.
    fn publish_through_restart(&self, scene: &mut Scene<'_>, events: &[Event]) -> Result<()> {
        let restart_at = events.len() / 2;
        for (nth, event) in events.iter().enumerate() {
            let begun = Instant::now();
            let mut to_be_killed = nth == restart_at;
            loop {
                let address = scene.address()?.context("nothing listens")?;
                let sent = std::thread::scope(|scope| {
                    let sent = scope.spawn(|| post(&address, "application/json", &event.line()));
                    // While the request is under way: its answer may be lost, and what it brought is there.
                    if to_be_killed {
                        scene.kill_and_start()?;
                    }
                    to_be_killed = false;
                    sent.join().map_err(|_| anyhow::anyhow!("the sender panicked"))
                })?;
                match sent {
                    Ok(200..300) => break,
                    _ if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
                    other => bail!("event {} was not acknowledged: {other:?}", event.0),
                }
            }
        }
        Ok(())
    }

    /// What the log's retention does, done to its file: events that nobody settled leave it only where it is
    /// told so, which the config can't.
    fn overtake(&self, scene: &Scene<'_>, events: u64) -> Result<()> {
        let log = Connection::open(log(scene))?;
        let settled: i64 = log.query_row("SELECT next_offset FROM log_state", [], |row| row.get(0))?;
        let taken = i64::try_from(scene.decided()?)?;
        let end = taken + i64::try_from(events)?;
        if settled < end {
            bail!("the log ends at {settled}, and {end} were to be overtaken");
        }
        log.execute("DELETE FROM log_event WHERE \"offset\" < ?1", [end])?;
        log.execute("UPDATE log_state SET first_offset = ?1", [end])?;
        Ok(())
    }

    fn make_anew(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()> {
        let log = log(scene);
        for ending in ["", "-wal", "-shm"] {
            let path = PathBuf::from(format!("{}{ending}", log.display()));
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        publish_offline(scene, events)
    }
}

fn log(scene: &Scene<'_>) -> PathBuf {
    scene.of_process().join("recount-data").join("log-ship.db")
}

/// With no process to ask, Recount's own command writes into the log.
fn publish_offline(scene: &Scene<'_>, events: &[Event]) -> Result<()> {
    fs::write(scene.of_process().join("more.ndjson"), Event::lines(events))?;
    scene.recount(&["publish", "ship", "--file", "more.ndjson"])?.expect_success("recount publish")?;
    Ok(())
}

/// Posts, and returns the status that was answered.
fn post(address: &str, content_type: &str, body: &str) -> Result<u16> {
    let host = address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    write!(
        stream,
        "POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no answer of HTTP: {answer}"))
}
