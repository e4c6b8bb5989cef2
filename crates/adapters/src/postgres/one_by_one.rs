//! A batch statement by statement: a round trip for each, for flows and servers where a function can't do it,
//! and for replays.

use super::faults::{Blame, blame, fault, state};
use super::outcome::{End, Place};
use super::plan::{Plan, Prepared, RoutePlan, Truth};
use super::replays;
use super::settings::PostgresEffectSettings;
use super::values::TextParam;
use crate::sql::{Held, applied, cut};
use recount_engine::{EffectEvent, EffectFault, Outcome};
use recount_model::{PartitionId, Value};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

/// Savepoints and what is asked of a replay, for one event.
const OWN_STATEMENTS: usize = 5;

/// What is needed beside the events.
pub(crate) struct OneByOne<'c> {
    pub(crate) client: &'c Client,
    pub(crate) at: &'c PartitionId,
    pub(crate) plan: &'c Plan,
    pub(crate) settings: &'c PostgresEffectSettings,
}

impl OneByOne<'_> {
    /// All events in the transaction that is open, a savepoint each.
    pub(crate) async fn run(&self, events: &[EffectEvent]) -> Result<Vec<Outcome>, EffectFault> {
        let mut held = Held::default();
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            let route = route_of(self.plan, self.at, event)?;
            let statements = OWN_STATEMENTS + route.statements.len() + route.otherwise.len();
            let heard = self.settings.hear(statements, self.one(event, &held)).await;
            let outcome = heard.map_err(EffectFault::Away)??;
            held.note(event, &outcome);
            if let Some(replay) = event.replay {
                replays::note(self.client, self.at, event, replay, &outcome).await?;
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// A flow without statements: an event that passed its checks is applied by nothing more than its record.
    pub(crate) async fn nothing(&self, events: &[EffectEvent]) -> Result<Vec<Outcome>, EffectFault> {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            let mut outcome = applied();
            if let Some(replay) = event.replay {
                if replays::done_before(self.client, self.at, event, replay).await? {
                    outcome = Outcome::AlreadyReplayed;
                }
                replays::note(self.client, self.at, event, replay, &outcome).await?;
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn one(&self, event: &EffectEvent, held: &Held) -> Result<Outcome, EffectFault> {
        if held.holds(event) {
            return Ok(Outcome::Behind);
        }
        if let Some(replay) = event.replay
            && replays::done_before(self.client, self.at, event, replay).await?
        {
            return Ok(Outcome::AlreadyReplayed);
        }
        let route = route_of(self.plan, self.at, event)?;
        self.tiny("SAVEPOINT recount_event").await?;
        let mut end = self.statements(route, event).await?;
        if end == End::Applied {
            self.tiny("RELEASE recount_event").await?;
        } else {
            self.tiny("ROLLBACK TO recount_event; RELEASE recount_event").await?;
        }
        if let End::Rows { statement, rows, .. } = end {
            self.tiny("SAVEPOINT recount_event").await?;
            end = self.otherwise(route, event, statement, rows).await?;
            self.tiny("ROLLBACK TO recount_event; RELEASE recount_event").await?;
        }
        Ok(end.outcome(route, event))
    }

    async fn statements(&self, route: &RoutePlan, event: &EffectEvent) -> Result<End, EffectFault> {
        for (index, statement) in route.statements.iter().enumerate() {
            let rows = match self.execute(&statement.prepared, &event.event.params).await {
                Ok(rows) => rows,
                Err(error) => return failed(route, Place::Statement(index), &statement.text, &error),
            };
            if rows < statement.rows.min || rows > statement.rows.max {
                return Ok(End::Rows { statement: index, rows, otherwise: None });
            }
        }
        Ok(End::Applied)
    }

    async fn otherwise(
        &self,
        route: &RoutePlan,
        event: &EffectEvent,
        statement: usize,
        rows: u64,
    ) -> Result<End, EffectFault> {
        let of_rows = route.otherwise.iter().enumerate().filter(|(_, otherwise)| otherwise.rule.is_of_rows());
        for (index, otherwise) in of_rows {
            let holds = match &otherwise.when {
                None => true,
                Some(when) => match self.holds(&when.prepared, when.truth, &event.event.params).await {
                    Ok(holds) => holds,
                    Err(error) => return failed(route, Place::When(index), &when.text, &error),
                },
            };
            if holds {
                return Ok(End::Rows { statement, rows, otherwise: Some(index) });
            }
        }
        Ok(End::Rows { statement, rows, otherwise: None })
    }

    async fn execute(&self, prepared: &Prepared, params: &[Value]) -> Result<u64, Error> {
        let bound = bound(prepared, params);
        let refs: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|param| param as _).collect();
        self.client.execute(&prepared.statement, &refs).await
    }

    async fn holds(&self, prepared: &Prepared, truth: Truth, params: &[Value]) -> Result<bool, Error> {
        let bound = bound(prepared, params);
        let refs: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|param| param as _).collect();
        let rows = self.client.query(&prepared.statement, &refs).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        Ok(match truth {
            Truth::Boolean => row.try_get::<_, Option<bool>>(0)?.unwrap_or(false),
            Truth::Number => row.try_get::<_, Option<NotZero>>(0)?.is_some_and(|NotZero(truth)| truth),
        })
    }

    async fn tiny(&self, sql: &str) -> Result<(), EffectFault> {
        self.client.batch_execute(sql).await.map_err(|error| fault(sql, &error))
    }
}

/// An error that is the event's fault is its end; another is the batch's.
fn failed(route: &RoutePlan, place: Place, sql: &str, error: &Error) -> Result<End, EffectFault> {
    let told = error.as_db_error();
    match (state(error).map(|state| blame(state, &route.states)), told) {
        (Some(Blame::Event), Some(told)) => {
            let state = told.code().code().to_owned();
            Ok(End::Failed { place, state, message: told.message().to_owned() })
        }
        // What could not even be sent as this type is the value's fault as well.
        _ => Err(fault(&format!("the statement {}", cut(sql, 200)), error)),
    }
}

/// The route that the checks chose.
pub(crate) fn route_of<'p>(
    plan: &'p Plan,
    at: &PartitionId,
    event: &EffectEvent,
) -> Result<&'p RoutePlan, EffectFault> {
    let route = plan.routes.get(event.event.route);
    route.filter(|route| route.params.len() == event.event.params.len()).ok_or_else(|| {
        EffectFault::Away(format!(
            "{}: the checks and the effect were not made from the same config (apply {})",
            at.position(event.event.meta.offset),
            event.event.route
        ))
    })
}

fn bound(prepared: &Prepared, params: &[Value]) -> Vec<TextParam> {
    prepared.binds.iter().map(|&bind| TextParam::of(&params[bind])).collect()
}

/// Whether a number of any type is not 0, read from its binary form.
struct NotZero(bool);

impl<'r> tokio_postgres::types::FromSql<'r> for NotZero {
    fn from_sql(
        kind: &tokio_postgres::types::Type,
        raw: &'r [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        use tokio_postgres::types::Type;
        Ok(Self(match *kind {
            Type::FLOAT4 => f32::from_sql(kind, raw)? != 0.0,
            Type::FLOAT8 => f64::from_sql(kind, raw)? != 0.0,
            // The first field counts the digits that are not leading zeros: 0 and NaN have none, and the
            // sign tells NaN (0xC000) and the infinities (0xD000, 0xF000) from 0.
            Type::NUMERIC => {
                let field = |n: usize| raw.get(n..n + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
                field(0) != 0 || field(4) >= 0xC000
            }
            _ => raw.iter().any(|byte| *byte != 0),
        }))
    }

    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }
}
