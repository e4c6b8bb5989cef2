//! One connection of one partition, and a batch on it: two round trips where the batch runs inside the server.

use super::connect::connect;
use super::faults::{Blame, blame, fault, message, state, without_values_of};
use super::function::{self, code};
use super::one_by_one::{OneByOne, route_of};
use super::outcome::{End, Place};
use super::plan::{self, Plan};
use super::position::{self, integer};
use super::settings::{PostgresEffectSettings, PostgresOpenError};
use super::values::TextParam;
use futures_util::future::{join, join3, join5};
use recount_engine::{
    Claim, Committed, Conclude, EffectBatch, EffectEvent, EffectFault, EffectRows, OtherwiseVerdict, Outcome,
};
use recount_model::{PartitionId, Verdict};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

/// What the server says where a statement took longer than it may, or somebody cancelled it.
const QUERY_CANCELED: &str = "57014";
/// BEGIN, claim and function.
const CALL_STATEMENTS: usize = 3;
/// Effects, batch, what the ledger has, prefix and COMMIT.
const CONCLUDE_STATEMENTS: usize = 5;

/// How a batch begins and ends: a transaction of its own, or a part of the one that a dry run never commits.
pub(crate) struct Frame {
    /// Constraints are checked at once, so that whose fault it is shows at the statement.
    pub(crate) begin: &'static str,
    pub(crate) commit: &'static str,
    pub(crate) rollback: &'static str,
}

const OF_ITS_OWN: Frame =
    Frame { begin: "BEGIN; SET CONSTRAINTS ALL IMMEDIATE", commit: "COMMIT", rollback: "ROLLBACK" };
const REHEARSED: Frame = Frame {
    begin: "SAVEPOINT recount_batch; SET CONSTRAINTS ALL IMMEDIATE",
    commit: "RELEASE recount_batch",
    rollback: "ROLLBACK TO recount_batch; RELEASE recount_batch",
};

/// A connection with everything that a batch needs prepared on it.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) plan: Plan,
    pub(crate) frame: &'static Frame,
    claim: Statement,
    effects: Statement,
    batch: Statement,
    entered: Statement,
    prefix: Statement,
    calls: Option<Calls>,
    /// A batch took longer inside the server than one statement may.
    is_slow: AtomicBool,
}

struct Calls {
    /// None where the flow's statements aren't plain.
    plain: Option<Statement>,
    guarded: Statement,
}

impl Session {
    /// Connects and prepares; the tables must be there.
    pub(crate) async fn open(settings: &PostgresEffectSettings) -> Result<Self, PostgresOpenError> {
        let client = connect(settings).await?;
        Self::on(client, settings).await
    }

    /// Prepares everything on a connection.
    pub(crate) async fn on(
        mut client: Client,
        settings: &PostgresEffectSettings,
    ) -> Result<Self, PostgresOpenError> {
        let unusable = |error: Error| PostgresOpenError::Unusable(message(&error));
        client.batch_execute("SET synchronous_commit = on").await.map_err(unusable)?;
        let mut plan = plan::make(&mut client, &settings.routes).await?;
        let prepare = |sql: &'static str| client.prepare(sql);
        let (claim, effects, batch, entered, prefix) = join5(
            prepare(position::CLAIM),
            prepare(position::EFFECTS),
            prepare(position::BATCH),
            prepare(position::ENTERED),
            prepare(position::PREFIX),
        )
        .await;
        let calls = calls(&client, &mut plan, settings).await;
        Ok(Self {
            claim: claim.map_err(unusable)?,
            effects: effects.map_err(unusable)?,
            batch: batch.map_err(unusable)?,
            entered: entered.map_err(unusable)?,
            prefix: prefix.map_err(unusable)?,
            client,
            plan,
            frame: if settings.rehearsal.is_some() { &REHEARSED } else { &OF_ITS_OWN },
            calls,
            is_slow: AtomicBool::new(false),
        })
    }

    /// One batch, one transaction.
    pub(crate) async fn apply(
        &self,
        settings: &PostgresEffectSettings,
        batch: &mut EffectBatch,
    ) -> Result<Committed, EffectFault> {
        let outcomes = self.outcomes(settings, &batch.at, batch.claim, &batch.events).await;
        let names =
            |event: &EffectEvent| self.plan.routes.get(event.event.route).map(|route| route.params.clone());
        let outcomes = outcomes.map_err(|fault| without_values_of(fault, &names, &batch.events))?;
        assert_eq!(outcomes.len(), batch.events.len(), "each event has one outcome");
        self.conclude(settings, batch, outcomes).await
    }

    async fn outcomes(
        &self,
        settings: &PostgresEffectSettings,
        at: &PartitionId,
        claim: Claim,
        events: &[EffectEvent],
    ) -> Result<Vec<Outcome>, EffectFault> {
        let runs_statements = !events.is_empty() && !self.plan.routes.is_empty();
        let in_server = self.calls.as_ref().filter(|_| events.iter().all(|event| event.replay.is_none()));
        if let Some(calls) = in_server.filter(|_| runs_statements && !self.is_slow.load(Ordering::Relaxed))
            && let Some(outcomes) = self.inside(settings, at, claim, calls, events).await?
        {
            return Ok(outcomes);
        }
        let begun = join(self.client.batch_execute(self.frame.begin), self.claim(at, claim));
        let (begun, claimed) = settings.hear(CALL_STATEMENTS, begun).await.map_err(EffectFault::Away)?;
        begun.map_err(|error| fault("BEGIN", &error))?;
        claimed?;
        let one_by_one = OneByOne { client: &self.client, at, plan: &self.plan, settings };
        if self.plan.routes.is_empty() {
            one_by_one.nothing(events).await
        } else {
            one_by_one.run(events).await
        }
    }

    /// The batch inside the server; none, and nothing done, where only one statement after the other can tell
    /// whose fault an error is: a value that the server does not even take as a text (a zero byte) fails
    /// before the function begins, and what one statement may take is too little time for all of them.
    async fn inside(
        &self,
        settings: &PostgresEffectSettings,
        at: &PartitionId,
        claim: Claim,
        calls: &Calls,
        events: &[EffectEvent],
    ) -> Result<Option<Vec<Outcome>>, EffectFault> {
        for function in calls.plain.iter().chain([&calls.guarded]) {
            let called = settings.hear(CALL_STATEMENTS, self.call(at, claim, function, events)).await;
            let error = match called.map_err(EffectFault::Away)?? {
                Ok(rows) => return self.read(at, events, &rows).map(Some),
                Err(error) => error,
            };
            let is_slow = state(&error) == Some(QUERY_CANCELED);
            let is_redone = state(&error).is_some_and(|state| {
                state == function::REDO || blame(state, &self.plan.states) == Blame::Event
            });
            if !is_slow && !is_redone {
                return Err(fault("the batch", &error));
            }
            self.tiny(self.frame.rollback).await?;
            if is_slow {
                tracing::info!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                    "a batch took longer inside the server than a statement may: batches go statement by statement now");
                self.is_slow.store(true, Ordering::Relaxed);
                break;
            }
        }
        Ok(None)
    }

    /// BEGIN, claim and the function in one round trip. Where the claim does not hold, what the function did
    /// is rolled back with it.
    async fn call(
        &self,
        at: &PartitionId,
        claim: Claim,
        function: &Statement,
        events: &[EffectEvent],
    ) -> Result<Result<Vec<Row>, Error>, EffectFault> {
        let arguments = Arguments::of(&self.plan, at, events)?;
        let refs = arguments.refs();
        let (begun, claimed, called) = join3(
            self.client.batch_execute(self.frame.begin),
            self.claim(at, claim),
            self.client.query(function, &refs),
        )
        .await;
        begun.map_err(|error| fault("BEGIN", &error))?;
        claimed?;
        Ok(called)
    }

    async fn claim(&self, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
        let (epoch, seq) = (integer(claim.epoch)?, integer(claim.expected_seq)?);
        let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
        let done = self.client.execute(&self.claim, &[&of.0, &of.1, &of.2, &epoch, &seq]).await;
        match done.map_err(|error| fault("claiming the batch", &error))? {
            1 => Ok(()),
            _ => Err(EffectFault::NotMine),
        }
    }

    fn read(
        &self,
        at: &PartitionId,
        events: &[EffectEvent],
        rows: &[Row],
    ) -> Result<Vec<Outcome>, EffectFault> {
        let mut outcomes = vec![crate::sql::applied(); events.len()];
        for row in rows {
            let place = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
            let (Some(event), Some(outcome)) = (events.get(place), outcomes.get_mut(place)) else {
                return Err(EffectFault::Away(format!(
                    "{at}: the batch function told of an event that it was not given"
                )));
            };
            let said: i32 = row.get(1);
            if said == code::BEHIND {
                *outcome = Outcome::Behind;
                continue;
            }
            *outcome = end(row, said).outcome(route_of(&self.plan, at, event)?, event);
        }
        Ok(outcomes)
    }

    async fn conclude(
        &self,
        settings: &PostgresEffectSettings,
        batch: &mut EffectBatch,
        outcomes: Vec<Outcome>,
    ) -> Result<Committed, EffectFault> {
        let EffectBatch { at, claim, events, ledger_has_seq, conclude } = batch;
        let conclusion = concluded(at, *claim, conclude, &outcomes);
        let record = &conclusion.record;
        let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
        let (offsets, ids) = applied(events, &outcomes)?;
        let writes_effects = settings.effects == EffectRows::Table && !offsets.is_empty();
        let (seq, has) = (integer(record.seq)?, integer(*ledger_has_seq)?);
        let (next, above) = (integer(record.next_offset)?, record.decided_above.to_string());
        let bytes: &[u8] = &conclusion.bytes;
        let effects = async {
            if writes_effects {
                self.client.execute(&self.effects, &[&of.0, &of.1, &of.2, &offsets, &ids]).await.map(drop)
            } else {
                Ok(())
            }
        };
        let params: [&(dyn ToSql + Sync); 5] = [&of.0, &of.1, &of.2, &seq, &bytes];
        let entered: [&(dyn ToSql + Sync); 4] = [&of.0, &of.1, &of.2, &has];
        let prefix: [&(dyn ToSql + Sync); 5] = [&of.0, &of.1, &of.2, &next, &above];
        let sent = join5(
            effects,
            self.client.execute(&self.batch, &params),
            self.client.execute(&self.entered, &entered),
            self.client.execute(&self.prefix, &prefix),
            self.client.batch_execute(self.frame.commit),
        );
        let heard = settings.hear(CONCLUDE_STATEMENTS, sent).await;
        let (effects, batch, entered, prefix, committed) = heard.map_err(EffectFault::CommitUnknown)?;
        // All of it was sent: where the connection broke, COMMIT may have been heard.
        for (doing, done) in [
            ("writing recount_effect", effects),
            ("writing recount_batch", batch.map(drop)),
            ("deleting from recount_batch", entered.map(drop)),
            ("writing recount_position", prefix.map(drop)),
            ("COMMIT", committed),
        ] {
            done.map_err(|error| not_committed(doing, &error))?;
        }
        Ok(Committed { conclusion, outcomes })
    }

    async fn tiny(&self, sql: &str) -> Result<(), EffectFault> {
        self.client.batch_execute(sql).await.map_err(|error| fault(sql, &error))
    }
}

/// Makes the two functions, where that is possible; why not is told with the plan.
async fn calls(client: &Client, plan: &mut Plan, settings: &PostgresEffectSettings) -> Option<Calls> {
    if plan.routes.is_empty() || plan.not_in_server.is_some() {
        return None;
    }
    if !settings.in_server {
        plan.not_in_server = Some("it was asked not to".to_owned());
        return None;
    }
    let guarded = match make(client, plan, true).await {
        Ok(guarded) => guarded,
        Err(why) => {
            plan.not_in_server = Some(why);
            return None;
        }
    };
    let plain = if plan.plain { make(client, plan, false).await.ok() } else { None };
    Some(Calls { plain, guarded })
}

async fn make(client: &Client, plan: &Plan, guarded: bool) -> Result<Statement, String> {
    let text = function::make(plan, guarded)
        .ok_or_else(|| "a statement holds what can't stand in a function".to_owned())?;
    client.batch_execute(&text).await.map_err(|error| message(&error))?;
    client.prepare(&function::call(plan, guarded)).await.map_err(|error| message(&error))
}

/// The function's arguments.
struct Arguments<'e> {
    routes: Vec<i32>,
    keys: Vec<Option<&'e str>>,
    values: Vec<Vec<Option<String>>>,
}

impl<'e> Arguments<'e> {
    fn of(plan: &Plan, at: &PartitionId, events: &'e [EffectEvent]) -> Result<Self, EffectFault> {
        let holds = plan.routes.iter().flat_map(|route| &route.otherwise);
        let holds = holds.map(|o| o.rule.verdict).any(|verdict| verdict == OtherwiseVerdict::Retry);
        let mut arguments = Self {
            routes: Vec::with_capacity(events.len()),
            keys: Vec::with_capacity(events.len()),
            values: vec![Vec::with_capacity(events.len()); function::params_max(plan)],
        };
        for event in events {
            route_of(plan, at, event)?;
            arguments.routes.push(i32::try_from(event.event.route).unwrap_or(i32::MAX));
            arguments.keys.push(event.event.meta.key.as_deref().filter(|_| holds));
            for (place, values) in arguments.values.iter_mut().enumerate() {
                values.push(event.event.params.get(place).and_then(|value| TextParam::of(value).0));
            }
        }
        Ok(arguments)
    }

    fn refs(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut refs: Vec<&(dyn ToSql + Sync)> = vec![&self.routes, &self.keys];
        refs.extend(self.values.iter().map(|values| values as &(dyn ToSql + Sync)));
        refs
    }
}

fn end(row: &Row, said: i32) -> End {
    let statement = row.get::<_, Option<i32>>(2).and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
    let rows = row.get::<_, Option<i64>>(3).map_or(0, i64::unsigned_abs);
    let text = |column: usize| row.get::<_, Option<String>>(column).unwrap_or_default();
    match said {
        code::STATEMENT_FAILED => {
            End::Failed { place: Place::Statement(statement), state: text(4), message: text(5) }
        }
        code::WHEN_FAILED => End::Failed { place: Place::When(statement), state: text(4), message: text(5) },
        other => End::Rows { statement, rows, otherwise: usize::try_from(other).ok() },
    }
}

fn concluded(
    at: &PartitionId,
    claim: Claim,
    conclude: &mut Conclude,
    outcomes: &[Outcome],
) -> recount_engine::Conclusion {
    let conclusion = conclude(outcomes);
    let record = &conclusion.record;
    assert_eq!(&record.at, at, "a batch's record is of the partition that was claimed");
    assert_eq!(record.epoch, claim.epoch, "a batch's record is of the epoch that was claimed");
    assert_eq!(record.seq, claim.expected_seq + 1, "a batch's record has the seq that was claimed");
    conclusion
}

type Applied<'e> = (Vec<i64>, Vec<Option<&'e str>>);

fn applied<'e>(events: &'e [EffectEvent], outcomes: &[Outcome]) -> Result<Applied<'e>, EffectFault> {
    let (mut offsets, mut ids) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
    for (event, outcome) in events.iter().zip(outcomes) {
        if matches!(outcome, Outcome::Said { verdict: Verdict::Applied, .. }) {
            offsets.push(integer(event.event.meta.offset)?);
            ids.push(event.event.meta.id.as_deref());
        }
    }
    Ok((offsets, ids))
}

/// An answer of the server says that the transaction is over without a commit; no answer, or one that
/// closes the connection (class 57), says nothing.
fn not_committed(doing: &str, error: &Error) -> EffectFault {
    match state(error) {
        Some(told) if !told.starts_with("57P") && !told.starts_with("08") => fault(doing, error),
        _ => EffectFault::CommitUnknown(format!("{doing}: {}", message(error))),
    }
}
