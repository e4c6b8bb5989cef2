//! Effects behind HTTP: a handler in any language, asked by POST, that must give a verdict for each event.
//!
//! The request is `{"flow": …, "events": [{"position", "id", "key", "type", "time", "idempotency_key",
//! "attempt", "traceparent", "data"}]}`, the answer `{"verdicts": [{"position" or "id", "verdict": "applied" |
//! "skip" | "dead-letter" | "retry", "reason", "because"}]}`. A request for one event carries its
//! `Idempotency-Key` and `traceparent` as headers too.
//!
//! At least once: the batch is committed in the arbiter after the handler answered, so a crash between the
//! two sends events again, with the same idempotency keys. What the handler said of part of a batch is
//! remembered in memory, so that a failure later in the batch does not send that part again.

mod answer;
mod client;
mod request;

use crate::actor::Actor;
use crate::sql::Held;
use crate::sqlite::{Known, SqliteEffect, SqliteOpenError, open_arbiter};
use async_trait::async_trait;
pub(crate) use client::agent;
use client::{Client, Post};
use recount_engine::{
    Claim, Committed, Effect, EffectBatch, EffectEvent, EffectFault, OtherwiseVerdict, Outcome, Taken,
};
use recount_ledger::LedgerId;
use recount_model::{FlowName, OffsetSet, PartitionId, ReasonCode};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Settings of one flow's effect behind HTTP.
#[derive(Clone)]
pub struct HttpEffectSettings {
    /// Where events are posted; `http://` or `https://`, without credentials.
    pub url: String,
    /// The flow.
    pub flow: FlowName,
    /// The ledger's folder, where the arbiter's rows are kept.
    pub ledger_folder: PathBuf,
    /// Headers of every request, such as `Authorization`. Their values are never shown.
    pub headers: Vec<(String, String)>,
    /// A request must be answered within this time.
    pub deadline_ms: u64,
    /// A longer answer is not read.
    pub answer_bytes_max: u64,
    /// Events of one request.
    pub events_a_request_max: usize,
    /// Reasons that the handler may give; another one is a dead letter, `undeclared_reason`.
    pub reasons: BTreeMap<ReasonCode, HandlerReason>,
    /// Threads of its own, or (in the simulator) none.
    pub threaded: bool,
}

/// A reason that the handler may give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerReason {
    /// The verdict that it comes with; another is a dead letter, `undeclared_reason`.
    pub verdict: OtherwiseVerdict,
    /// The sentence that stands where the handler gives none.
    pub because: String,
}

impl HttpEffectSettings {
    /// The usual settings: thirty seconds, an answer of at most a mebibyte, 100 events a request.
    pub fn new(url: impl Into<String>, flow: FlowName, ledger_folder: impl Into<PathBuf>) -> Self {
        Self {
            url: url.into(),
            flow,
            ledger_folder: ledger_folder.into(),
            headers: Vec::new(),
            deadline_ms: 30_000,
            answer_bytes_max: 1024 * 1024,
            events_a_request_max: 100,
            reasons: BTreeMap::new(),
            threaded: true,
        }
    }
}

impl fmt::Debug for HttpEffectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEffectSettings")
            .field("url", &self.url)
            .field("flow", &self.flow)
            .finish_non_exhaustive()
    }
}

/// Why an effect behind HTTP can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum HttpOpenError {
    /// The address can't be used, and what to write instead.
    #[error("{0}")]
    Url(String),
    /// The arbiter in the ledger's folder can't be opened.
    #[error(transparent)]
    Arbiter(#[from] SqliteOpenError),
}

/// Which attempt at which event a handler spoke of.
type Said = HashMap<SaidKey, Outcome>;

/// Offset, attempt, and what a replay corrects.
type SaidKey = (u64, u32, Option<(u64, u64)>);

/// Applies a flow's events by asking an HTTP handler; the arbiter lies in the ledger's folder.
pub struct HttpEffect {
    arbiter: SqliteEffect,
    client: Client,
    events_a_request_max: usize,
    reasons: BTreeMap<ReasonCode, HandlerReason>,
    threaded: bool,
    /// One a partition, so that partitions don't wait for each other's requests.
    posting: Mutex<HashMap<PartitionId, Arc<Actor<Client>>>>,
    /// What was said in batches that did not commit yet; at most a batch a partition.
    said: Mutex<HashMap<PartitionId, Said>>,
}

impl HttpEffect {
    /// Opens the arbiter; the handler itself is not asked.
    ///
    /// # Errors
    /// `Url` for an address that can't be used, `Arbiter` where `arbiter.db` can't be opened.
    pub fn open(settings: HttpEffectSettings) -> Result<Self, HttpOpenError> {
        check_url(&settings.url)?;
        let arbiter = open_arbiter(&settings.ledger_folder, settings.flow.clone(), settings.threaded)?;
        let client = Client {
            agent: client::agent(settings.deadline_ms),
            url: settings.url,
            headers: settings.headers,
            answer_bytes_max: settings.answer_bytes_max,
            deadline_ms: settings.deadline_ms,
        };
        Ok(Self {
            arbiter,
            client,
            events_a_request_max: settings.events_a_request_max,
            reasons: settings.reasons,
            threaded: settings.threaded,
            posting: Mutex::default(),
            said: Mutex::default(),
        })
    }

    /// Outcomes of all events, in order; the handler is asked in rounds.
    async fn ask(
        &self,
        at: &PartitionId,
        events: &[EffectEvent],
        replayed: &[bool],
    ) -> Result<Vec<Outcome>, EffectFault> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; events.len()];
        let mut replays = HashSet::new();
        for (place, event) in events.iter().enumerate() {
            let again =
                event.replay.is_some_and(|r| !replays.insert((event.event.meta.offset, r.corrects_seq)));
            if replayed[place] || again {
                outcomes[place] = Some(Outcome::AlreadyReplayed);
            }
        }
        let to_ask = events.iter().enumerate().filter(|(place, _)| outcomes[*place].is_none());
        let rounds = request::rounds(to_ask, self.events_a_request_max);
        let mut held = Held::default();
        for round in rounds {
            let mut asked = Vec::with_capacity(round.len());
            for place in round {
                let event = &events[place];
                let known =
                    if held.holds(event) { Some(Outcome::Behind) } else { self.remembered(at, event) };
                match known {
                    Some(outcome) => {
                        held.note(event, &outcome);
                        outcomes[place] = Some(outcome);
                    }
                    None => asked.push(place),
                }
            }
            let sent: Vec<&EffectEvent> = asked.iter().map(|&place| &events[place]).collect();
            for (place, outcome) in asked.iter().zip(self.post(at, &sent).await?) {
                held.note(&events[*place], &outcome);
                outcomes[*place] = Some(outcome);
            }
        }
        // Every place was in one round or had its outcome before.
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Behind)).collect())
    }

    async fn post(&self, at: &PartitionId, sent: &[&EffectEvent]) -> Result<Vec<Outcome>, EffectFault> {
        let Some(first) = sent.first() else { return Ok(Vec::new()) };
        let body = request::body(at, sent)
            .map_err(|error| EffectFault::Away(format!("{at}: a request can't be written: {error}")))?;
        let one = (sent.len() == 1).then_some(first);
        let post = Post {
            body,
            idempotency_key: one.map(|event| request::idempotency_key(at, event)),
            traceparent: one.and_then(|event| request::traceparent(event)).map(str::to_owned),
        };
        let posting = self.posting(at)?;
        let answer = posting.call(move |client| client.post(&post)).await;
        let answer = answer.map_err(|stopped| EffectFault::Away(stopped.to_string()))??;
        let outcomes = answer::read(answer.status, &answer.body, at, sent, &self.reasons);
        let mut said = lock(&self.said);
        let said = said.entry(at.clone()).or_default();
        said.extend(sent.iter().zip(&outcomes).map(|(event, outcome)| (said_key(event), outcome.clone())));
        Ok(outcomes)
    }

    fn posting(&self, at: &PartitionId) -> Result<Arc<Actor<Client>>, EffectFault> {
        let mut posting = lock(&self.posting);
        if let Some(actor) = posting.get(at) {
            return Ok(Arc::clone(actor));
        }
        let actor = Actor::new("recount-http", self.client.clone(), self.threaded).map_err(|error| {
            EffectFault::Away(format!("{at}: no thread to ask the handler from: {error}"))
        })?;
        let actor = Arc::new(actor);
        posting.insert(at.clone(), Arc::clone(&actor));
        Ok(actor)
    }

    fn remembered(&self, at: &PartitionId, event: &EffectEvent) -> Option<Outcome> {
        lock(&self.said).get(at)?.get(&said_key(event)).cloned()
    }

    fn forget(&self, at: &PartitionId) {
        lock(&self.said).remove(at);
    }
}

fn said_key(event: &EffectEvent) -> SaidKey {
    let replay = event.replay.map(|replay| (replay.replay_id, replay.corrects_seq));
    (event.event.meta.offset, event.attempt, replay)
}

fn check_url(url: &str) -> Result<(), HttpOpenError> {
    let wrong = |what: &str| Err(HttpOpenError::Url(format!("apply.http: {what}")));
    let Ok(parsed) = url.parse::<ureq::http::Uri>() else {
        return wrong("this is no address: write it as \"http://localhost:8000/reserve\"");
    };
    if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none_or(str::is_empty) {
        return wrong("write the whole address, as in \"http://localhost:8000/reserve\"");
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return wrong("the address holds credentials: give them as a header, from the environment or a file");
    }
    Ok(())
}

/// What is guarded is only ever inserted into and removed from.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Effect for HttpEffect {
    async fn peek(&self, at: &PartitionId) -> Result<Option<Taken>, EffectFault> {
        self.arbiter.peek(at).await
    }

    async fn take(&self, at: &PartitionId, ledger: &LedgerId) -> Result<Taken, EffectFault> {
        self.forget(at);
        self.arbiter.take(at, ledger).await
    }

    async fn apply(&self, batch: EffectBatch) -> Result<Committed, EffectFault> {
        let EffectBatch { at, claim, events, ledger_has_seq, conclude } = batch;
        // Another owner's events are not sent; the claim itself is made with the commit.
        let replayed = self.arbiter.before_known(at.clone(), claim, events.clone()).await?;
        let outcomes = self.ask(&at, &events, &replayed).await?;
        let known = Known { at: at.clone(), claim, events, outcomes, ledger_has_seq, conclude };
        let committed = self.arbiter.commit_known(known).await;
        if matches!(committed, Ok(_) | Err(EffectFault::NotMine)) {
            self.forget(&at);
        }
        committed
    }

    async fn mark_alone(&self, at: &PartitionId, claim: Claim, offset: u64) -> Result<u32, EffectFault> {
        self.arbiter.mark_alone(at, claim, offset).await
    }

    async fn stored_batches(
        &self,
        at: &PartitionId,
        above_seq: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, EffectFault> {
        self.arbiter.stored_batches(at, above_seq).await
    }

    async fn reset(
        &self,
        at: &PartitionId,
        ledger: &LedgerId,
        seq: u64,
        next_offset: u64,
        decided_above: &OffsetSet,
    ) -> Result<(), EffectFault> {
        self.arbiter.reset(at, ledger, seq, next_offset, decided_above).await
    }

    async fn release(&self, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
        self.forget(at);
        lock(&self.posting).remove(at);
        self.arbiter.release(at, claim).await
    }
}
