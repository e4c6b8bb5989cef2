//! Effects written in Rust: a savepoint an event, a transaction in the handler's hand.

use super::connect::StatementWatch;
use super::events::{
    Param, release_savepoint, savepoint, statement_failed, still_in_transaction, undo_to_savepoint,
};
use super::faults::{self, Blame};
use super::inspect::{NotUsable, Purpose, inspect};
use super::replays;
use crate::actor::panic_text;
use crate::sql::{Held, applied, cut, said};
use async_trait::async_trait;
use recount_checks::{Checked, Event};
use recount_engine::{
    EffectEvent, EffectFault, Handler, HandlerError, OtherwiseVerdict, Outcome, Transaction,
};
use recount_model::{PartitionId, Reason, ReasonCode, Value, Verdict, reason};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Different statements of a handler that are remembered as inspected.
const INSPECTED_MAX: usize = 1024;
/// A handler's sentence is kept up to this many bytes.
const SENTENCE_BYTES_MAX: usize = 1024;

/// A handler and what it needs beside the connection.
pub(crate) struct Handling {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) reasons: BTreeMap<ReasonCode, OtherwiseVerdict>,
    pub(crate) time_ms_max: u64,
    /// Where the handler's futures find timers and sockets; none in the simulator.
    pub(crate) runtime: Option<HandlerRuntime>,
    /// Statements that were inspected with the catalog of this version.
    pub(crate) inspected: (i64, HashSet<String>),
    pub(crate) watch: StatementWatch,
}

/// A runtime of the handler's own. In the caller's, a handler that waits while the caller drops that
/// runtime would see its timers fail, and its event would be blamed for it.
pub(crate) struct HandlerRuntime(Option<tokio::runtime::Runtime>);

impl HandlerRuntime {
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("recount-handler").enable_all();
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    fn get(&self) -> &tokio::runtime::Runtime {
        self.0.as_ref().expect("it is only taken out when it is dropped")
    }
}

impl Drop for HandlerRuntime {
    fn drop(&mut self) {
        // It may be dropped inside another runtime, where waiting for its threads is not allowed.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// How one call ended.
enum Called {
    Answered(Result<Verdict, HandlerError>),
    Panicked(String),
    TooSlow,
}

impl Handling {
    /// All events, in the transaction that is open.
    pub(crate) fn run(
        &mut self,
        conn: &mut Connection,
        at: &PartitionId,
        schema_version: i64,
        events: &[EffectEvent],
    ) -> Result<Vec<Outcome>, EffectFault> {
        if self.inspected.0 != schema_version || self.inspected.1.len() > INSPECTED_MAX {
            self.inspected = (schema_version, HashSet::new());
        }
        let mut held = Held::default();
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            let outcome = self.one(conn, at, event, &held)?;
            held.note(event, &outcome);
            if let Some(replay) = event.replay {
                replays::note(conn, at, event, replay, &outcome)?;
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn one(
        &mut self,
        conn: &mut Connection,
        at: &PartitionId,
        event: &EffectEvent,
        held: &Held,
    ) -> Result<Outcome, EffectFault> {
        if held.holds(event) {
            return Ok(Outcome::Behind);
        }
        if let Some(replay) = event.replay
            && replays::done_before(conn, at, event, replay)?
        {
            return Ok(Outcome::AlreadyReplayed);
        }
        savepoint(conn)?;
        let mut state = None;
        let called = self.call(conn, &event.event, &mut state);
        still_in_transaction(conn, at, event)?;
        // A fault of the database stands, even where the handler made a verdict of it.
        if let Some(fault) = state {
            return Err(fault);
        }
        let outcome = match called {
            Called::Answered(Ok(verdict)) => self.declared(verdict),
            Called::Answered(Err(error)) if error.data_fault => {
                statement_failed("the handler", 0, cut(&error.message, SENTENCE_BYTES_MAX))
            }
            Called::Answered(Err(error)) => {
                return Err(EffectFault::Away(format!("the handler failed: {}", error.message)));
            }
            Called::TooSlow => {
                return Err(EffectFault::Away(format!(
                    "{}: the handler took longer than {} ms",
                    at.position(event.event.meta.offset),
                    self.time_ms_max
                )));
            }
            Called::Panicked(text) => said(
                Verdict::dead_letter(reason::HANDLER_PANICKED, format!("the handler panicked: {text}")),
                &json!({ "panic": text }),
            ),
        };
        match outcome {
            Outcome::Said { verdict: Verdict::Applied, .. } => release_savepoint(conn)?,
            _ => undo_to_savepoint(conn)?,
        }
        Ok(outcome)
    }

    fn call(
        &mut self,
        conn: &mut Connection,
        event: &Checked<Event>,
        fault: &mut Option<EffectFault>,
    ) -> Called {
        let Self { handler, inspected, runtime, time_ms_max, watch, .. } = self;
        let mut transaction = SqliteTransaction { conn, inspected: &mut inspected.1, watch, fault };
        let run = AssertUnwindSafe(|| {
            let handling = handler.handle(event, &mut transaction);
            match runtime {
                Some(runtime) if *time_ms_max > 0 => runtime.get().block_on(async {
                    tokio::time::timeout(Duration::from_millis(*time_ms_max), handling).await.ok()
                }),
                Some(runtime) => Some(runtime.get().block_on(handling)),
                None => Some(block_on(handling)),
            }
        });
        match catch_unwind(run) {
            Ok(Some(answer)) => Called::Answered(answer),
            Ok(None) => Called::TooSlow,
            Err(panic) => Called::Panicked(panic_text(panic.as_ref())),
        }
    }

    /// A verdict whose reason the flow declares; the sentence within its bound.
    fn declared(&self, verdict: Verdict) -> Outcome {
        let Some(given) = verdict.reason() else { return applied() };
        if !self.reasons.get(&given.code).is_some_and(|declared| declared.is_of(&verdict)) {
            let sentence = match self.reasons.contains_key(&given.code) {
                true => {
                    format!("the handler gave the reason {} with another verdict than declared", given.code)
                }
                false => {
                    format!("the handler gave the reason {}, which the flow does not declare", given.code)
                }
            };
            let evidence = json!({ "reason": given.code.as_str() });
            return said(Verdict::dead_letter(reason::UNDECLARED_REASON, sentence), &evidence);
        }
        let bounded = |r: Reason| Reason::new(r.code, cut(&r.sentence, SENTENCE_BYTES_MAX));
        let verdict = match verdict {
            Verdict::Applied => Verdict::Applied,
            Verdict::Skip(reason) => Verdict::Skip(bounded(reason)),
            Verdict::DeadLetter(reason) => Verdict::DeadLetter(bounded(reason)),
            Verdict::Retry(reason) => Verdict::Retry(bounded(reason)),
        };
        Outcome::Said { verdict, evidence: None }
    }
}

/// The connection inside an event's savepoint.
struct SqliteTransaction<'c> {
    conn: &'c mut Connection,
    inspected: &'c mut HashSet<String>,
    watch: &'c StatementWatch,
    /// The first error that was the database's.
    fault: &'c mut Option<EffectFault>,
}

impl SqliteTransaction<'_> {
    fn run<R>(
        &mut self,
        sql: &str,
        params: &[(&str, Value)],
        run: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<R>,
    ) -> Result<R, HandlerError> {
        self.inspect_once(sql)?;
        self.watch.next();
        let statement = || {
            let mut statement = self.conn.prepare_cached(sql)?;
            for index in 1..=statement.parameter_count() {
                let name = statement.parameter_name(index).unwrap_or(":").to_owned();
                let given = params.iter().find(|(n, _)| n.trim_start_matches(':') == &name[1..]);
                let (_, value) = given.ok_or(rusqlite::Error::InvalidParameterName(name))?;
                statement.raw_bind_parameter(index, Param(value))?;
            }
            run(&mut statement)
        };
        statement().map_err(|error| self.failed(&error, params))
    }

    /// Handlers name their statements at run time, so they are looked at then: once each.
    fn inspect_once(&mut self, sql: &str) -> Result<(), HandlerError> {
        if self.inspected.contains(sql) {
            return Ok(());
        }
        match inspect(self.conn, sql, Purpose::Handler) {
            Ok(_) => {
                self.inspected.insert(sql.to_owned());
                Ok(())
            }
            Err(NotUsable::Refused(text)) => {
                let message = format!("the handler's statement {}: {text}", cut(sql, 200));
                self.fault.get_or_insert(EffectFault::Away(message.clone()));
                Err(HandlerError { message, data_fault: false })
            }
            Err(NotUsable::Database(error)) => Err(self.failed(&error, &[])),
        }
    }

    fn failed(&mut self, error: &rusqlite::Error, params: &[(&str, Value)]) -> HandlerError {
        let (names, values): (Vec<String>, Vec<Value>) =
            params.iter().map(|(n, v)| (n.trim_start_matches(':').to_owned(), v.clone())).unzip();
        let message = faults::message_without_values(error, &names, &values);
        let data_fault = faults::blame(error) == Blame::Event;
        if !data_fault {
            self.fault.get_or_insert(faults::fault("a statement of the handler", error));
        }
        HandlerError { message, data_fault }
    }
}

#[async_trait]
impl Transaction for SqliteTransaction<'_> {
    async fn execute(&mut self, sql: &str, params: &[(&str, Value)]) -> Result<u64, HandlerError> {
        self.run(sql, params, |statement| statement.raw_execute().map(|rows| rows as u64))
    }

    async fn query_row(
        &mut self,
        sql: &str,
        params: &[(&str, Value)],
    ) -> Result<Option<Vec<Value>>, HandlerError> {
        self.run(sql, params, |statement| {
            let columns = statement.column_count();
            let mut rows = statement.raw_query();
            let Some(row) = rows.next()? else { return Ok(None) };
            (0..columns).map(|column| row.get_ref(column).map(value)).collect::<Result<_, _>>().map(Some)
        })
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread; one that only uses its transaction is ready at once.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A flow without statements and without a handler: what passes the checks is applied by its record alone.
pub(crate) fn nothing_to_do(
    conn: &Connection,
    at: &PartitionId,
    events: &[EffectEvent],
) -> Result<Vec<Outcome>, EffectFault> {
    let mut outcomes = Vec::with_capacity(events.len());
    for event in events {
        if let Some(replay) = event.replay {
            if replays::done_before(conn, at, event, replay)? {
                outcomes.push(Outcome::AlreadyReplayed);
                continue;
            }
            replays::note(conn, at, event, replay, &applied())?;
        }
        outcomes.push(applied());
    }
    Ok(outcomes)
}
