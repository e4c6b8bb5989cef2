//! Publishes the events at a held rate, with the broker's own producer: idempotent, waiting for every
//! acknowledgement, and with patience for a broker that restarts.

use super::checker::Fate;
use anyhow::{Context, Result, bail};
use recount_services::Kafka;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many keys, each with its own order of events.
const KEYS: u64 = 600;
/// How often the rate is looked after.
const TICK: Duration = Duration::from_millis(10);

/// A producer at work.
pub struct Publisher {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Duration>>,
    log: PathBuf,
}

struct Shared {
    sent: AtomicU64,
    /// Beyond this number nothing is sent yet.
    gate: AtomicU64,
    stop: AtomicBool,
}

impl Publisher {
    /// Starts to send the events from 0 to below `events`.
    pub fn start(kafka: &Kafka, topic: &str, folder: &Path, events: u64, rate: u64) -> Result<Self> {
        let log = folder.join("producer.log");
        let mut command = kafka.tool_command("org.apache.kafka.tools.ConsoleProducer");
        command.args(["--topic", topic, "--timeout", "20", "--reader-property", "parse.key=true"]);
        command.args(["--max-block-ms", "300000", "--message-send-max-retries", "2147483647"]);
        command.args(["--request-required-acks", "all"]);
        command.stdin(Stdio::piped()).stdout(std::fs::File::create(&log)?);
        command.stderr(std::fs::File::options().append(true).open(&log)?);
        let mut child = command.spawn().context("java can't be started")?;
        let Some(input) = child.stdin.take() else { bail!("the producer has no standard input") };
        let shared =
            Arc::new(Shared { sent: 0.into(), gate: AtomicU64::new(events), stop: AtomicBool::new(false) });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || send(&shared, child, input, events, rate)
        });
        Ok(Self { shared, thread, log })
    }

    /// How many were handed to the producer.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Nothing beyond this number is sent before the next call.
    pub fn open_up_to(&self, number: u64) {
        self.shared.gate.store(number, Ordering::Relaxed);
    }

    /// Waits until all are acknowledged; how long that took from the first.
    pub fn finish(self) -> Result<Duration> {
        let Ok(took) = self.thread.join() else { bail!("the publisher panicked") };
        took.with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Gives up, so that no process is left behind.
    pub fn abandon(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(self.thread.join());
    }
}

fn send(shared: &Shared, mut child: Child, input: ChildStdin, events: u64, rate: u64) -> Result<Duration> {
    let begun = Instant::now();
    let mut input = BufWriter::new(input);
    let mut sent = 0;
    // What the rate would have allowed while the gate was closed is not caught up with.
    let mut allowed = 0.0;
    while sent < events {
        if shared.stop.load(Ordering::Relaxed) {
            child.kill()?;
            child.wait()?;
            bail!("abandoned after {sent} of {events}");
        }
        std::thread::sleep(TICK);
        allowed += rate as f64 * TICK.as_secs_f64();
        let until = (allowed as u64).min(events).min(shared.gate.load(Ordering::Relaxed).max(sent));
        allowed = allowed.min(until as f64 + 1.0);
        while sent < until {
            let quantity = Fate::of(sent).quantity();
            let key = sent % KEYS;
            writeln!(
                input,
                "k{key}\t{{\"id\":\"e-{sent}\",\"key\":\"k{key}\",\"number\":{sent},\"quantity\":{quantity}}}"
            )?;
            sent += 1;
        }
        input.flush()?;
        shared.sent.store(sent, Ordering::Relaxed);
    }
    drop(input);
    let status = child.wait()?;
    if !status.success() {
        bail!("the producer ended with {status}");
    }
    Ok(begun.elapsed())
}
