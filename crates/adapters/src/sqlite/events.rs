//! Applying a batch's events by the flow's statements.
//!
//! Plain: every statement in the batch's one transaction. An event that changed nothing left nothing, so
//! its `when` queries run in place and the batch goes on. Guarded: a savepoint an event. Both give the same
//! outcomes and leave the same database.

use super::connect::StatementWatch;
use super::faults::{self, Blame};
use super::plan::{Plan, RoutePlan};
use super::replays;
use crate::sql::{Held, applied, cut, otherwise_held, rows_unexpected, said};
use recount_engine::{EffectEvent, EffectFault, Outcome};
use recount_model::{PartitionId, Value, Verdict, reason};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql};
use serde_json::json;

/// Everything that applying needs beside the events.
pub(crate) struct Applying<'c> {
    pub(crate) conn: &'c Connection,
    pub(crate) at: &'c PartitionId,
    pub(crate) plan: &'c Plan,
    pub(crate) watch: &'c StatementWatch,
    pub(crate) statement_time_ms_max: u64,
}

/// What the plain form came to.
pub(crate) enum Plain {
    /// One outcome an event.
    Done(Vec<Outcome>),
    /// Something was left that only a savepoint can undo: roll back and do it guarded.
    Redo,
}

/// One parameter as SQLite takes it.
pub(crate) struct Param<'a>(pub(crate) &'a Value);

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Bool(truth) => ValueRef::Integer(i64::from(*truth)),
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// How an event's statements ended.
enum End {
    Applied,
    /// A statement changed another number of rows than declared.
    Rows {
        statement: usize,
        rows: u64,
    },
    /// A statement erred for the event's sake.
    Failed {
        statement: usize,
        error: rusqlite::Error,
    },
}

/// A route's statements, prepared once a batch.
type Prepared<'c> = Vec<Option<Vec<CachedStatement<'c>>>>;

impl<'c> Applying<'c> {
    /// All events in the transaction that is open.
    pub(crate) fn plain(&self, events: &[EffectEvent]) -> Result<Plain, EffectFault> {
        let mut prepared = self.nothing_prepared();
        let mut held = Held::default();
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            if let Some(outcome) = self.before_trying(event, &held)? {
                outcomes.push(outcome);
                continue;
            }
            let (end, changed) = self.attempt(&mut prepared, event)?;
            let outcome = match end {
                End::Applied => applied(),
                End::Rows { .. } if changed == 0 => self.not_applied(event, end)?,
                End::Rows { .. } | End::Failed { .. } => return Ok(Plain::Redo),
            };
            self.after_trying(event, &outcome, &mut held)?;
            outcomes.push(outcome);
        }
        Ok(Plain::Done(outcomes))
    }

    /// A savepoint an event, in the transaction that is open.
    pub(crate) fn guarded(&self, events: &[EffectEvent]) -> Result<Vec<Outcome>, EffectFault> {
        let mut prepared = self.nothing_prepared();
        let mut held = Held::default();
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            if let Some(outcome) = self.before_trying(event, &held)? {
                outcomes.push(outcome);
                continue;
            }
            savepoint(self.conn)?;
            let (end, _) = self.attempt(&mut prepared, event)?;
            still_in_transaction(self.conn, self.at, event)?;
            let outcome = if matches!(end, End::Applied) {
                release_savepoint(self.conn)?;
                applied()
            } else {
                undo_to_savepoint(self.conn)?;
                self.not_applied(event, end)?
            };
            self.after_trying(event, &outcome, &mut held)?;
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn nothing_prepared(&self) -> Prepared<'c> {
        self.plan.routes.iter().map(|_| None).collect()
    }

    fn before_trying(&self, event: &EffectEvent, held: &Held) -> Result<Option<Outcome>, EffectFault> {
        if held.holds(event) {
            return Ok(Some(Outcome::Behind));
        }
        match event.replay {
            Some(replay) if replays::done_before(self.conn, self.at, event, replay)? => {
                Ok(Some(Outcome::AlreadyReplayed))
            }
            _ => Ok(None),
        }
    }

    fn after_trying(
        &self,
        event: &EffectEvent,
        outcome: &Outcome,
        held: &mut Held,
    ) -> Result<(), EffectFault> {
        held.note(event, outcome);
        match event.replay {
            Some(replay) => replays::note(self.conn, self.at, event, replay, outcome),
            None => Ok(()),
        }
    }

    fn route(&self, event: &EffectEvent) -> Result<Option<&'c RoutePlan>, EffectFault> {
        if self.plan.routes.is_empty() {
            return Ok(None);
        }
        let route = self.plan.routes.get(event.event.route);
        let fits = route.filter(|r| r.params.len() == event.event.params.len());
        fits.map(Some).ok_or_else(|| {
            EffectFault::Away(format!(
                "{}: the checks and the effect were not made from the same config (apply {})",
                self.at.position(event.event.meta.offset),
                event.event.route
            ))
        })
    }

    /// Runs the event's statements up to the first that isn't as declared; how many rows it changed in all.
    fn attempt(&self, prepared: &mut Prepared<'c>, event: &EffectEvent) -> Result<(End, u64), EffectFault> {
        let Some(route) = self.route(event)? else { return Ok((End::Applied, 0)) };
        let slot = &mut prepared[event.event.route];
        let statements = match slot {
            Some(statements) => statements,
            None => slot.insert(self.prepare(route)?),
        };
        let mut changed = 0;
        for (index, (statement, plan)) in statements.iter_mut().zip(&route.statements).enumerate() {
            self.watch.next();
            let rows = match execute(statement, &plan.binds, &event.event.params) {
                Ok(rows) => rows,
                Err(error) => {
                    return match faults::blame(&error) {
                        Blame::Event => Ok((End::Failed { statement: index, error }, changed)),
                        Blame::Again | Blame::Away => Err(self.fault(&plan.sql, &error)),
                    };
                }
            };
            changed += rows;
            if rows < plan.rows.min || rows > plan.rows.max {
                return Ok((End::Rows { statement: index, rows }, changed));
            }
        }
        Ok((End::Applied, changed))
    }

    fn prepare(&self, route: &RoutePlan) -> Result<Vec<CachedStatement<'c>>, EffectFault> {
        let mut statements = Vec::with_capacity(route.statements.len());
        for plan in &route.statements {
            let prepared = self.conn.prepare_cached(&plan.sql);
            statements.push(prepared.map_err(|e| self.fault(&plan.sql, &e))?);
        }
        Ok(statements)
    }

    fn fault(&self, sql: &str, error: &rusqlite::Error) -> EffectFault {
        if faults::code(error) & 0xff == rusqlite::ffi::SQLITE_INTERRUPT {
            return EffectFault::Away(format!(
                "a statement took longer than {} ms and was interrupted ({}): give it an index, or raise the \
                 limit",
                self.statement_time_ms_max,
                cut(sql, 200)
            ));
        }
        faults::fault(&format!("the statement {}", cut(sql, 200)), error)
    }

    /// Asks `otherwise` what became of an event that has left nothing.
    fn not_applied(&self, event: &EffectEvent, end: End) -> Result<Outcome, EffectFault> {
        let Some(route) = self.route(event)? else { return Ok(applied()) };
        let (statement, rows) = match end {
            End::Applied => return Ok(applied()),
            End::Failed { statement, error } => {
                return Ok(self.failed(route, event, &format!("statement {}", statement + 1), &error));
            }
            End::Rows { statement, rows } => (statement, rows),
        };
        for (index, otherwise) in route.otherwise.iter().enumerate() {
            let holds = match &otherwise.rule.when {
                None => true,
                Some(when) => {
                    self.watch.next();
                    match holds(self.conn, when, &otherwise.binds, &event.event.params) {
                        Ok(holds) => holds,
                        Err(error) if faults::blame(&error) == Blame::Event => {
                            let place = format!("the `when` of otherwise {}", index + 1);
                            return Ok(self.failed(route, event, &place, &error));
                        }
                        Err(error) => return Err(self.fault(when, &error)),
                    }
                }
            };
            if holds {
                return Ok(otherwise_held(statement, rows, index, &otherwise.rule));
            }
        }
        Ok(rows_unexpected(statement, rows, route.statements[statement].rows))
    }

    fn failed(
        &self,
        route: &RoutePlan,
        event: &EffectEvent,
        place: &str,
        error: &rusqlite::Error,
    ) -> Outcome {
        let message = faults::message_without_values(error, &route.params, &event.event.params);
        statement_failed(place, faults::code(error), &message)
    }
}

/// A dead letter for a statement that erred for the event's sake.
pub(crate) fn statement_failed(place: &str, code: i32, message: &str) -> Outcome {
    let evidence = json!({ "sqlite": code, "message": message, "at": place });
    said(Verdict::dead_letter(reason::STATEMENT_FAILED, format!("{place} failed: {message}")), &evidence)
}

fn execute(statement: &mut CachedStatement<'_>, binds: &[usize], params: &[Value]) -> rusqlite::Result<u64> {
    bind(statement, binds, params)?;
    statement.raw_execute().map(|rows| rows as u64)
}

fn bind(statement: &mut CachedStatement<'_>, binds: &[usize], params: &[Value]) -> rusqlite::Result<()> {
    for (place, &param) in binds.iter().enumerate() {
        statement.raw_bind_parameter(place + 1, Param(&params[param]))?;
    }
    Ok(())
}

/// Whether the first column of the query's first row is true as SQLite's `WHERE` takes it.
fn holds(conn: &Connection, sql: &str, binds: &[usize], params: &[Value]) -> rusqlite::Result<bool> {
    let mut query = conn.prepare_cached(sql)?;
    bind(&mut query, binds, params)?;
    let mut rows = query.raw_query();
    Ok(match rows.next()? {
        None => false,
        Some(row) => match row.get_ref(0)? {
            ValueRef::Null => false,
            ValueRef::Integer(number) => number != 0,
            ValueRef::Real(number) => number != 0.0,
            ValueRef::Text(text) | ValueRef::Blob(text) => text_is_true(text),
        },
    })
}

/// Text is true if the number that it begins with isn't 0.
fn text_is_true(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let text = text.trim_start();
    let number = text.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(text.len());
    (1..=number).rev().find_map(|end| text[..end].parse::<f64>().ok()).is_some_and(|number| number != 0.0)
}

fn tiny(conn: &Connection, sql: &str) -> Result<(), EffectFault> {
    let run = || conn.prepare_cached(sql)?.execute([]);
    run().map(drop).map_err(|e| faults::fault(sql, &e))
}

pub(crate) fn savepoint(conn: &Connection) -> Result<(), EffectFault> {
    tiny(conn, "SAVEPOINT recount_event")
}

pub(crate) fn release_savepoint(conn: &Connection) -> Result<(), EffectFault> {
    tiny(conn, "RELEASE recount_event")
}

pub(crate) fn undo_to_savepoint(conn: &Connection) -> Result<(), EffectFault> {
    tiny(conn, "ROLLBACK TO recount_event")?;
    release_savepoint(conn)
}

/// Nothing that an event does may end the batch's transaction.
pub(crate) fn still_in_transaction(
    conn: &Connection,
    at: &PartitionId,
    event: &EffectEvent,
) -> Result<(), EffectFault> {
    if conn.is_autocommit() {
        return Err(EffectFault::Away(format!(
            "{}: a statement ended the batch's transaction from inside; write ABORT in place of ROLLBACK in \
             its conflict clauses and triggers",
            at.position(event.event.meta.offset)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_true_as_sqlite_takes_it() {
        let conn = Connection::open_in_memory().unwrap();
        for text in
            ["", "0", "1", " 2x", "-0.0", "-1", "0x1", "true", "1e1", "e1", ".5", "0.0abc", "+3", "1e"]
        {
            let sqlite: bool =
                conn.query_row("SELECT CASE WHEN ?1 THEN 1 ELSE 0 END", [text], |r| r.get(0)).unwrap();
            assert_eq!(text_is_true(text.as_bytes()), sqlite, "{text:?}");
        }
    }
}
