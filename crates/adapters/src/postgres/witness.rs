//! Counting again: what the database holds, read in one snapshot, by nothing that the engine counted.

use super::connect::{connect, place, read_url};
use super::faults::message;
use super::rehearsal::PostgresRehearsal;
use super::schema::TABLES_FORMAT;
use super::session::Session;
use super::settings::PostgresEffectSettings;
use super::text::{Piece, pieces};
use crate::sql::cut;
use futures_util::{StreamExt, pin_mut};
use recount_audit::{EffectSnapshot, EffectWitness, PositionRow, WitnessError};
use recount_model::{Amount, FlowName, OffsetSet, Partition, PartitionId, SourceId};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::OwnedMutexGuard;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Groups that one reconcile may give.
const GROUPS_MAX: usize = 1_000_000;
/// How long one query of the audit may take.
const QUERY_TIME_MS_MAX: u64 = 300_000;
/// How long the auditor may think inside its snapshot.
const IDLE_TIME_MS_MAX: u64 = 300_000;

/// How long a count waits for the batch that a dry run is at.
const TURN_TIME_MAX: Duration = Duration::from_secs(60);

/// A PostgreSQL database, as the audit asks it. Each snapshot is a connection of its own, in one read-only
/// transaction (`REPEATABLE READ`).
pub struct PostgresEffectWitness {
    settings: PostgresEffectSettings,
}

/// The connection of a snapshot.
enum Asked {
    Own(Client),
    /// A dry run's, which alone sees what was tried. Nobody else works in it meanwhile.
    Rehearsed(OwnedMutexGuard<Option<Session>>),
}

impl PostgresEffectWitness {
    /// Connects only when it is asked.
    pub fn new(url: impl Into<String>, flow: FlowName) -> Self {
        let mut settings = PostgresEffectSettings::new(url, flow);
        settings.statement_time_ms_max = QUERY_TIME_MS_MAX;
        settings.idle_in_transaction_ms_max = IDLE_TIME_MS_MAX;
        Self { settings }
    }

    /// Counts inside a dry run's transaction, once a flow works in it.
    #[must_use]
    pub fn rehearsing(mut self, rehearsal: Option<PostgresRehearsal>) -> Self {
        self.settings.rehearsal = rehearsal;
        self
    }
}

impl EffectWitness for PostgresEffectWitness {
    fn snapshot(&self) -> Result<Box<dyn EffectSnapshot + '_>, WitnessError> {
        let unreachable = |why: &dyn std::fmt::Display| WitnessError::Unreachable(why.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(&error))?;
        let place = place(&read_url(&self.settings.url).map_err(|error| unreachable(&error))?.0);
        let rehearsal = self.settings.rehearsal.as_ref().filter(|rehearsal| rehearsal.has_begun());
        let client = match rehearsal {
            Some(rehearsal) => {
                let free = async { tokio::time::timeout(TURN_TIME_MAX, rehearsal.slot().lock_owned()).await };
                let held =
                    runtime.block_on(free).map_err(|_| unreachable(&"the dry run is busy with a batch"))?;
                if held.is_none() {
                    return Err(unreachable(&"the dry run's transaction is gone"));
                }
                Asked::Rehearsed(held)
            }
            None => {
                Asked::Own(runtime.block_on(connect(&self.settings)).map_err(|error| unreachable(&error))?)
            }
        };
        let mut snapshot = Snapshot { runtime, client, place, has_tables: false };
        snapshot.begin()?;
        Ok(Box::new(snapshot))
    }
}

struct Snapshot {
    runtime: Runtime,
    client: Asked,
    place: String,
    /// Without them the flow never committed here, which is an answer and not an error.
    has_tables: bool,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Asked::Rehearsed(held) = &mut self.client
            && let Some(session) = held.take()
        {
            let back = "ROLLBACK TO recount_audit; RELEASE recount_audit";
            // Where it can't go back, the transaction is of no use to anybody.
            if self.runtime.block_on(session.client.batch_execute(back)).is_ok() {
                **held = Some(session);
            }
        }
    }
}

impl Snapshot {
    fn client(&self) -> &Client {
        match &self.client {
            Asked::Own(client) => client,
            Asked::Rehearsed(held) => {
                &held.as_ref().expect("a snapshot is made only of a session that is there").client
            }
        }
    }

    fn begin(&mut self) -> Result<(), WitnessError> {
        let begin = match self.client {
            Asked::Own(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            Asked::Rehearsed(_) => "SAVEPOINT recount_audit; SET TRANSACTION READ ONLY",
        };
        self.ask(self.client().batch_execute(begin))?;
        // The first query fixes the moment.
        let there = "SELECT to_regclass('recount_format') IS NOT NULL";
        self.has_tables = self.ask(self.client().query_one(there, &[]))?.get(0);
        if !self.has_tables {
            return Ok(());
        }
        let version = self.ask(self.client().query_one("SELECT max(version) FROM recount_format", &[]))?;
        match version.get::<_, Option<i64>>(0) {
            Some(TABLES_FORMAT) => Ok(()),
            other => Err(WitnessError::Unreachable(format!(
                "the recount_* tables of {} have format {}, this program reads {TABLES_FORMAT}",
                self.place,
                other.map_or("none".to_owned(), |version| version.to_string())
            ))),
        }
    }

    fn ask<R>(&self, asked: impl Future<Output = Result<R, Error>>) -> Result<R, WitnessError> {
        self.runtime.block_on(asked).map_err(|error| self.away(&error))
    }

    fn away(&self, error: &Error) -> WitnessError {
        WitnessError::Unreachable(format!("{}: {}", self.place, message(error)))
    }

    fn damaged(&self, what: &str) -> WitnessError {
        WitnessError::Unreachable(format!("{}: recount_position has a damaged {what}", self.place))
    }

    /// A user's own query, row by row, as text. The transaction is read-only, so it can't change anything.
    fn own(
        &self,
        sql: &str,
        visit: &mut dyn FnMut(&tokio_postgres::SimpleQueryRow) -> Result<ControlFlow<()>, WitnessError>,
    ) -> Result<(), WitnessError> {
        let question = |text: String| WitnessError::Unreachable(format!("{}: {text}", cut(sql, 200)));
        for piece in pieces(sql).map_err(question)? {
            if let Piece::Param(name) = piece {
                let text = format!("there is no event here to take :{name} from: leave it out");
                return Err(question(text));
            }
        }
        let read = async {
            let stream = self.client().simple_query_raw(sql).await.map_err(|error| self.away(&error))?;
            pin_mut!(stream);
            while let Some(answer) = stream.next().await {
                if let SimpleQueryMessage::Row(row) = answer.map_err(|error| self.away(&error))?
                    && visit(&row)?.is_break()
                {
                    break;
                }
            }
            Ok(())
        };
        self.runtime.block_on(read)
    }
}

impl EffectSnapshot for Snapshot {
    fn positions(&self, flow: &FlowName) -> Result<Vec<PositionRow>, WitnessError> {
        if !self.has_tables {
            return Ok(Vec::new());
        }
        let sql = "SELECT source_id, partition, seq, next_offset, decided_above, ledger_id FROM recount_position \
                   WHERE flow = $1 ORDER BY source_id, partition";
        let rows = self.ask(self.client().query(sql, &[&flow.as_str()]))?;
        let number = |n: i64, what: &str| u64::try_from(n).map_err(|_| self.damaged(what));
        rows.iter()
            .map(|row| {
                let (source, partition): (&str, &str) = (row.get(0), row.get(1));
                Ok(PositionRow {
                    at: PartitionId {
                        flow: flow.clone(),
                        source: SourceId::new(source),
                        partition: Partition::new(partition),
                    },
                    seq: number(row.get(2), "seq")?,
                    next_offset: number(row.get(3), "next_offset")?,
                    decided_above: OffsetSet::parse(row.get(4))
                        .ok_or_else(|| self.damaged("decided_above"))?,
                    ledger_id: row.get(5),
                })
            })
            .collect()
    }

    fn stored_batches(&self, at: &PartitionId, above_seq: u64) -> Result<Vec<u64>, WitnessError> {
        if !self.has_tables {
            return Ok(Vec::new());
        }
        let sql = "SELECT seq FROM recount_batch WHERE flow = $1 AND source_id = $2 AND partition = $3 AND seq > $4 \
                   ORDER BY seq";
        let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
        let rows = self.ask(self.client().query(sql, &[&of.0, &of.1, &of.2, &signed(above_seq)]))?;
        Ok(rows.iter().map(|row| row.get::<_, i64>(0).unsigned_abs()).collect())
    }

    fn effects(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        if !self.has_tables {
            return Ok(());
        }
        let sql = "SELECT \"offset\", event_id FROM recount_effect WHERE flow = $1 AND source_id = $2 AND partition = \
                   $3 AND \"offset\" >= $4 AND \"offset\" < $5";
        let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
        let (from, to) = (signed(from), signed(to));
        let params: [&(dyn ToSql + Sync); 5] = [&of.0, &of.1, &of.2, &from, &to];
        let read = async {
            let stream = self.client().query_raw(sql, params).await.map_err(|error| self.away(&error))?;
            pin_mut!(stream);
            while let Some(row) = stream.next().await {
                let row = row.map_err(|error| self.away(&error))?;
                if visit(row.get::<_, i64>(0).unsigned_abs(), row.get(1)).is_break() {
                    break;
                }
            }
            Ok(())
        };
        self.runtime.block_on(read)
    }

    fn custom_ids(
        &self,
        sql: &str,
        id: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.own(sql, &mut |row| {
            let column = row.columns().iter().position(|column| column.name().eq_ignore_ascii_case(id));
            let column = column.ok_or_else(|| {
                WitnessError::Unreachable(format!(
                    "the effects query has no column {id:?}: name it in the SELECT, or correct `id`"
                ))
            })?;
            Ok(visit(row.get(column).unwrap_or_default()))
        })
    }

    fn custom_count(&self, sql: &str) -> Result<u64, WitnessError> {
        let (mut count, mut first) = (0, None);
        self.own(sql, &mut |row| {
            if count == 0 && row.columns().len() == 1 {
                first = row.get(0).and_then(|text| text.parse().ok());
            }
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(if count == 1 { first.unwrap_or(1) } else { count })
    }

    fn reconcile(
        &self,
        sql: &str,
        by_group: bool,
        visit: &mut dyn FnMut(Option<&str>, Amount) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        let mut found = 0;
        self.own(sql, &mut |row| {
            let columns = row.columns().len();
            let wrong = |text: String| Err(WitnessError::Unreachable(text));
            match (by_group, columns) {
                (true, 2) if found < GROUPS_MAX => {}
                (false, 1) if found < 1 => {}
                (true, _) => {
                    return wrong(
                        "the reconcile has by, so its query must give a group and a number a row".into(),
                    );
                }
                (false, _) => {
                    return wrong("the reconcile has no by, so its query must give one number".into());
                }
            }
            found += 1;
            let value = row.get(columns - 1);
            let Some(amount) = value.map_or(Some(Amount::ZERO), Amount::parse) else {
                let shown = cut(value.unwrap_or_default(), 200);
                return wrong(format!("the reconcile's query gives {shown:?}, which is no number"));
            };
            Ok(visit(if by_group { row.get(0) } else { None }, amount))
        })
    }
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
