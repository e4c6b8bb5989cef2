//! An HTTP handler as somebody would write it, with what a property makes it do: ask for another attempt, or
//! kill whoever asks. What it applies goes into the table, once for each `Idempotency-Key`.

use super::event::Event;
use anyhow::{Context, Result};
use recount_services::Postgres;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What it does with an event, by how often it was asked about it, from 1.
pub type Answers = fn(u64, u32) -> Answer;

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The effect is there.
    Applied,
    /// Later, perhaps.
    Retry,
    /// It has its effect, and the process that asked is killed before it hears of it.
    KilledAfterwards,
    /// The process that asked is killed.
    Killed,
}

/// Answers on a port of its own until the suite ends.
pub struct Handler {
    /// Where it listens.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Answers,
    /// Whom to kill; 0 where nobody runs.
    process: AtomicU32,
    asked: Mutex<HashMap<u64, u32>>,
    postgres: Arc<Postgres>,
    database: String,
}

impl Handler {
    /// Starts it.
    pub fn start(postgres: Arc<Postgres>, database: String, answers: Answers) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/ship", listener.local_addr()?);
        let (process, asked) = (AtomicU32::new(0), Mutex::default());
        let shared = Arc::new(Shared { answers, process, asked, postgres, database });
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || {
                        if let Err(error) = shared.serve(&stream) {
                            eprintln!("the handler could not answer: {error:#}");
                        }
                    });
                }
            }
        });
        Ok(Self { url, shared })
    }

    /// From now on this process is the one that asks.
    pub fn asked_by(&self, process: u32) {
        self.shared.process.store(process, Ordering::SeqCst);
    }

    /// How often it was asked about an event.
    pub fn times_asked(&self, number: u64) -> u32 {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&number).copied().unwrap_or(0)
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> Result<()> {
        // A connection that is closed without a request is none.
        let Some(body) = read_body(stream)? else { return Ok(()) };
        let (mut verdicts, mut inserts, mut kills) = (Vec::new(), String::new(), false);
        for event in body["events"].as_array().context("no events were sent")? {
            let number = event["id"].as_str().and_then(Event::number_of).context("no id of ours")?;
            let answer = (self.answers)(number, self.count(number));
            let mut verdict = match answer {
                Answer::Retry => json!({ "verdict": "retry", "reason": "not_yet" }),
                _ => json!({ "verdict": "applied" }),
            };
            verdict["position"] = event["position"].clone();
            verdicts.push(verdict);
            if matches!(answer, Answer::Applied | Answer::KilledAfterwards) {
                let idempotency_key = event["idempotency_key"].as_str().context("no idempotency key")?;
                inserts += &format!(
                    "INSERT INTO shipped (number, key, idempotency_key) VALUES ({number}, '{}', '{}') \
                     ON CONFLICT (idempotency_key) DO NOTHING;",
                    Event(number).key(),
                    idempotency_key.replace('\'', "''")
                );
            }
            if matches!(answer, Answer::Killed | Answer::KilledAfterwards) {
                // What was sent after it is not looked at.
                kills = true;
                break;
            }
        }
        if !inserts.is_empty() {
            self.postgres.sql(&self.database, &inserts)?;
        }
        if kills {
            let process = i32::try_from(self.process.load(Ordering::SeqCst))?;
            let process = rustix::process::Pid::from_raw(process).context("nobody runs")?;
            return Ok(rustix::process::kill_process(process, rustix::process::Signal::KILL)?);
        }
        let text = json!({ "verdicts": verdicts }).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            text.len()
        );
        Ok(stream.write_all(&[head.as_bytes(), text.as_bytes()].concat())?)
    }

    fn count(&self, number: u64) -> u32 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let times = asked.entry(number).or_default();
        *times += 1;
        *times
    }
}

fn read_body(stream: &TcpStream) -> Result<Option<Value>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}
