//! The thread that takes one flow's dead letters from the ledger to their topic.

use super::letters::{LetterNotes, LetterTrouble, filter, name, path};
use super::{Running, RunningFlow, now, read_ledger};
use crate::config::{Config, LetterHeadersConfig, LettersConfig, SourceConfig};
use crate::exit::Failure;
use recount_adapters::kafka::{Letter, LetterHeaders, LetterSent, LetterSettings, LetterTopic};
use recount_engine::{Book, FlowHandle};
use recount_ledger::{JournalEntry, JournalKind, LedgerRead, LedgerReader, StoredDecision};
use recount_model::{PartitionId, Timestamp};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often somebody looks whether there are new ones.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After the flow counted a dead letter, the ledger is looked at for so long: it is written a moment later.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// The ledger is looked at so often even where the flow counted nothing.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);
/// Between tries of a topic that can't be written, at most.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// So many are under way together, at most; what is left waits in the ledger.
const TOGETHER_MAX: usize = 50;
/// How long the end of a run waits for what is on the way.
const FINISH_WAIT: Duration = Duration::from_secs(5);

/// One flow's sender. Dropped, it ends with what it is at.
pub struct LetterSender {
    stop: mpsc::Sender<()>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl LetterSender {
    /// Sends what the ledger has by now, as far as that is soon done; the rest is sent at the next start.
    pub async fn finish(self) {
        if self.stop.send(()).is_ok() {
            drop(tokio::time::timeout(FINISH_WAIT, self.ended).await);
        }
    }
}

/// Starts a sender for each flow that has a topic for dead letters.
pub(super) fn start(config: &Config, running: &Running) -> Result<Vec<LetterSender>, Failure> {
    let mut senders = Vec::new();
    for RunningFlow { config: flow, handle } in &running.flows {
        let (Some(letters), SourceConfig::Kafka { broker, topic, group, .. }) = (&flow.letters, &flow.source)
        else {
            continue;
        };
        let settings = LetterSettings {
            source: super::kafka::broker(config, broker)?,
            source_topic: topic.clone(),
            group: group.clone(),
            target: super::kafka::broker(config, &letters.broker)?,
            topic: letters.topic.clone(),
            headers: whose(letters),
        };
        let ledger = read_ledger(&config.ledger)?;
        let (path, name) = (path(config, &flow.spec.flow), name(flow));
        let read = LetterNotes::read(&path, &ledger.id().0, &name).map_err(Failure::not_well)?;
        let notes = read.unwrap_or_else(|| LetterNotes::new(&ledger.id().0, name));
        let thread = Thread {
            settings,
            handle: handle.clone(),
            book: running.book.clone(),
            runtime: tokio::runtime::Handle::current(),
            flow: flow.spec.clone(),
            ledger,
            path,
            notes,
            topic: None,
            settled: BTreeSet::new(),
            counted: (0, None),
        };
        senders.push(thread.spawn().map_err(Failure::unreachable)?);
    }
    Ok(senders)
}

fn whose(letters: &LettersConfig) -> LetterHeaders {
    match letters.headers {
        LetterHeadersConfig::Spring => LetterHeaders::Spring,
        LetterHeadersConfig::Connect => LetterHeaders::Connect,
        LetterHeadersConfig::Both => LetterHeaders::Both,
    }
}

struct Thread {
    settings: LetterSettings,
    handle: FlowHandle,
    book: Book,
    runtime: tokio::runtime::Handle,
    flow: recount_engine::FlowSpec,
    ledger: LedgerReader,
    path: std::path::PathBuf,
    notes: LetterNotes,
    topic: Option<LetterTopic>,
    /// Of the first batch that isn't settled as a whole: those of its dead letters that are.
    settled: BTreeSet<(PartitionId, u64)>,
    /// What the flow had counted at the last look, and until when the ledger may still come to show it.
    counted: (u64, Option<Instant>),
}

impl Thread {
    fn spawn(self) -> std::io::Result<LetterSender> {
        let (stop, stopped) = mpsc::channel();
        let (ended_in, ended) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("recount-letters".to_owned()).spawn(move || {
            self.run(&stopped);
            // Nobody may wait for it any more.
            ended_in.send(()).ok();
        })?;
        Ok(LetterSender { stop, ended })
    }

    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        let (mut pause, mut looked) = (Duration::ZERO, None::<Instant>);
        loop {
            let is_last = match stopped.recv_timeout(pause) {
                Ok(()) => true,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => false,
            };
            let is_due = looked.is_none_or(|at| at.elapsed() > LOOK_ANYWAY) || self.has_counted();
            if is_due || is_last || self.notes.trouble.is_some() {
                looked = Some(Instant::now());
                pause = match self.send_all() {
                    Ok(()) => LOOK_EVERY,
                    Err(why) => {
                        self.tell(why);
                        (pause * 2).clamp(LOOK_EVERY, AGAIN_MAX)
                    }
                };
            }
            if is_last {
                return;
            }
        }
    }

    /// Whether the flow counted a dead letter just now.
    fn has_counted(&mut self) -> bool {
        let decisions = self.handle.stats().decisions;
        let letters = decisions.iter().filter(|((verdict, _), _)| *verdict == "dead-lettered");
        let count = letters.map(|(_, count)| count).sum();
        if count != self.counted.0 {
            self.counted = (count, Some(Instant::now() + LOOK_AFTER));
        }
        self.counted.1.is_some_and(|until| Instant::now() < until)
    }

    fn send_all(&mut self) -> Result<(), String> {
        loop {
            let found = self.waiting()?;
            if found.is_empty() {
                return match self.notes.trouble.take() {
                    Some(_) => self.notes.write(&self.path),
                    None => Ok(()),
                };
            }
            self.send_some(&found)?;
            if self.notes.trouble.take().is_some() {
                let flow = &self.flow.flow;
                tracing::info!(target: "recount::letters", flow = %flow, "dead letters go to the topic again");
            }
            self.notes.write(&self.path)?;
        }
    }

    /// The next of them, in the order decided.
    fn waiting(&self) -> Result<Vec<StoredDecision>, String> {
        let mut found: Vec<StoredDecision> = Vec::new();
        let filter = filter(&self.flow.flow, self.notes.next_ordinal);
        self.ledger
            .decisions(&filter, &mut |stored| {
                if self.settled.contains(&place(stored)) {
                    return ControlFlow::Continue(());
                }
                found.push(stored.clone());
                if found.len() < TOGETHER_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .map_err(|error| error.to_string())?;
        Ok(found)
    }

    fn send_some(&mut self, found: &[StoredDecision]) -> Result<(), String> {
        let mut letters = Vec::with_capacity(found.len());
        for stored in found {
            match self.letter(stored)? {
                Some(letter) => letters.push(letter),
                // Somebody wanted it forgotten, so it goes nowhere.
                None => self.notes.forgotten += 1,
            }
        }
        let sent = self.topic()?.send(&letters)?;
        let mut unknown = None;
        let mut places: BTreeSet<_> = found.iter().map(place).collect();
        for (letter, sent) in letters.iter().zip(sent) {
            match sent {
                LetterSent::Acknowledged => self.notes.sent += 1,
                LetterSent::Refused(why) => {
                    self.note_refused(letter, &why)?;
                    self.notes.refused += 1;
                }
                LetterSent::Unknown(why) => {
                    places.remove(&(letter.at.clone(), letter.body.offset));
                    unknown = Some(why);
                }
            }
        }
        self.settled.extend(places);
        self.pass_settled(found);
        match unknown {
            None => Ok(()),
            Some(why) => {
                self.notes.write(&self.path)?;
                Err(why)
            }
        }
    }

    /// Goes to the first batch that has one which isn't settled. The last that was looked at may have more.
    fn pass_settled(&mut self, found: &[StoredDecision]) {
        let open = found.iter().find(|stored| !self.settled.contains(&place(stored)));
        let Some(first) = open.or(found.last()).map(|stored| stored.header.ordinal) else { return };
        if open.is_none() && found.len() < TOGETHER_MAX {
            self.notes.next_ordinal = first + 1;
            self.settled.clear();
        } else if first > self.notes.next_ordinal {
            self.notes.next_ordinal = first;
            let later: Vec<_> =
                found.iter().filter(|stored| stored.header.ordinal >= first).map(place).collect();
            self.settled.retain(|place| later.contains(place));
        }
    }

    fn letter(&self, stored: &StoredDecision) -> Result<Option<Letter>, String> {
        let at = &stored.header.at;
        let body = self.ledger.body(at, stored.decision.offset).map_err(|error| error.to_string())?;
        Ok(body.map(|body| Letter {
            at: at.clone(),
            fate: stored.decision.fate.clone(),
            decided_at: stored.header.decided_at,
            event_id: stored.decision.event_id.clone().filter(|_| !self.flow.id_is_secret),
            body,
        }))
    }

    fn topic(&mut self) -> Result<&mut LetterTopic, String> {
        let opened = match self.topic.take() {
            Some(topic) => topic,
            None => LetterTopic::open(self.settings.clone()).map_err(|error| error.to_string())?,
        };
        Ok(self.topic.insert(opened))
    }

    /// One that the cluster won't ever take is told for good before it is passed over.
    fn note_refused(&self, letter: &Letter, why: &str) -> Result<(), String> {
        let position = letter.at.position(letter.body.offset).to_string();
        let sentence = format!(
            "the topic {} refuses the dead letter {position}: {why}; the ledger keeps it: recount dead-letters show {position}",
            self.settings.topic
        );
        tracing::error!(target: "recount::letters", flow = %self.flow.flow, "{sentence}");
        let entry = JournalEntry {
            kind: JournalKind::Flow,
            flow: Some(self.flow.flow.clone()),
            what: "dead_letter_refused".to_owned(),
            at: now(),
            persisted_at: Timestamp::default(),
            detail: serde_json::json!({ "sentence": sentence, "position": position, "why": why }),
        };
        let noted = self.runtime.block_on(self.book.with(move |store| store.journal(&entry)));
        noted.map(drop).map_err(|error| error.to_string())
    }

    /// Said once, until it works again; the status says it each time it is asked.
    fn tell(&mut self, why: String) {
        // A producer that has failed may not come back by itself.
        self.topic = None;
        let since_ms = match &self.notes.trouble {
            Some(trouble) => trouble.since_ms,
            None => {
                tracing::warn!(target: "recount::letters", flow = %self.flow.flow,
                    "dead letters wait in the ledger for the topic {}: {why}", self.settings.topic);
                now().0
            }
        };
        let trouble = Some(LetterTrouble { why, since_ms });
        if trouble != self.notes.trouble {
            self.notes.trouble = trouble;
            if let Err(error) = self.notes.write(&self.path) {
                tracing::warn!(target: "recount::letters", flow = %self.flow.flow, "{error}");
            }
        }
    }
}

fn place(stored: &StoredDecision) -> (PartitionId, u64) {
    (stored.header.at.clone(), stored.decision.offset)
}
