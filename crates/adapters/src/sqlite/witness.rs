//! Counting again: what the database holds, read in one snapshot, by nothing that the engine counted.

use super::connect::{self, Opening, StatementWatch};
use super::faults;
use super::inspect::{NotUsable, Purpose, inspect};
use super::schema::TABLES_FORMAT;
use super::settings::SqliteOpenError;
use crate::sql::cut;
use recount_model::{Amount, FlowName, OffsetSet, Partition, PartitionId, SourceId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Groups that one reconcile may give.
const GROUPS_MAX: usize = 1_000_000;

/// Why the witness can't say.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The database can't be opened or read now: what was asked is unprovable, not wrong.
    #[error("{0}")]
    Away(String),
    /// The question can't be answered: a query that doesn't fit, a value that is no number.
    #[error("{0}")]
    Question(String),
}

/// A database, asked for reading only.
#[derive(Debug, Clone)]
pub struct SqliteWitness {
    path: PathBuf,
    vfs: Option<String>,
    busy_timeout_ms: u64,
    statement_time_ms_max: u64,
}

/// One moment of the database: everything asked of it is of the same commit.
pub struct WitnessSnapshot {
    conn: Connection,
    path: PathBuf,
    watch: StatementWatch,
}

/// What the position row of a partition says was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    /// The partition.
    pub at: PartitionId,
    /// Owners so far.
    pub epoch: u64,
    /// The last committed batch.
    pub seq: u64,
    /// The first offset that isn't decided.
    pub next_offset: u64,
    /// Offsets decided beyond it.
    pub decided_above: OffsetSet,
    /// The ledger that holds the decisions.
    pub ledger_id: String,
}

/// What `recount_effect` holds of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectSummary {
    /// The partition.
    pub at: PartitionId,
    /// Rows.
    pub effects: u64,
    /// Different offsets; fewer than rows where an effect stands more than once.
    pub offsets: u64,
    /// The lowest offset.
    pub first_offset: u64,
    /// The highest.
    pub last_offset: u64,
}

/// The right side of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconcileSide {
    /// The query gave one number.
    Total(Amount),
    /// The query gave a number for each group, in the query's order.
    Groups(Vec<ReconcileRow>),
}

/// One group of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconcileRow {
    /// The group, as text; none for NULL.
    pub group: Option<String>,
    /// Its number.
    pub amount: Amount,
}

impl SqliteWitness {
    /// Opened only when it is asked. A query that takes longer than `statement_time_ms_max` is interrupted;
    /// 0: no limit.
    pub fn new(
        path: impl Into<PathBuf>,
        vfs: Option<String>,
        busy_timeout_ms: u64,
        statement_time_ms_max: u64,
    ) -> Self {
        Self { path: path.into(), vfs, busy_timeout_ms, statement_time_ms_max }
    }

    /// Begins to read one moment of the database, on a connection of its own, also beside a writer.
    ///
    /// # Errors
    /// `Away` where there is no such file or it can't be read.
    pub fn snapshot(&self) -> Result<WitnessSnapshot, WitnessError> {
        let opening = Opening {
            path: &self.path,
            vfs: self.vfs.as_deref(),
            create_file: false,
            busy_timeout_ms: self.busy_timeout_ms,
        };
        let mut conn = connect::open_to_read(&opening)
            .map_err(|error: SqliteOpenError| WitnessError::Away(error.to_string()))?;
        let watch = StatementWatch::default();
        watch.watch(&mut conn, self.statement_time_ms_max).map_err(|e| away(&self.path, &e))?;
        let snapshot = WitnessSnapshot { conn, path: self.path.clone(), watch };
        snapshot.ask(|conn| {
            // A deferred transaction sees the moment of its first read. It ends with the connection.
            conn.execute_batch("BEGIN")?;
            conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        })?;
        Ok(snapshot)
    }
}

impl WitnessSnapshot {
    /// Whether the database has Recount's tables, in the format that this program reads.
    ///
    /// # Errors
    /// `Away` for another format.
    pub fn has_tables(&self) -> Result<bool, WitnessError> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'recount_format'";
        if !self.ask(|conn| conn.prepare(sql)?.exists([]))? {
            return Ok(false);
        }
        let sql = "SELECT max(version) FROM recount_format";
        let version: Option<i64> = self.ask(|conn| conn.query_row(sql, [], |row| row.get(0)))?;
        match version {
            Some(TABLES_FORMAT) => Ok(true),
            other => Err(WitnessError::Away(format!(
                "the recount_* tables of {} have format {}, this program reads {TABLES_FORMAT}",
                self.path.display(),
                other.map_or("none".to_owned(), |v| v.to_string())
            ))),
        }
    }

    /// The position rows of a flow, in the order of their names.
    ///
    /// # Errors
    /// `Away` where the database can't be read; a damaged row counts as that.
    pub fn positions(&self, flow: &FlowName) -> Result<Vec<PositionRow>, WitnessError> {
        let sql = "SELECT source_id, partition, epoch, seq, next_offset, decided_above, ledger_id \
                   FROM recount_position WHERE flow = ?1 ORDER BY source_id, partition";
        let read = |row: &Row<'_>| {
            let above: String = row.get(5)?;
            Ok(PositionRow {
                at: partition_id(flow, row)?,
                epoch: unsigned(row, 2)?,
                seq: unsigned(row, 3)?,
                next_offset: unsigned(row, 4)?,
                decided_above: OffsetSet::parse(&above).ok_or(rusqlite::Error::InvalidQuery)?,
                ledger_id: row.get(6)?,
            })
        };
        self.ask(|conn| conn.prepare(sql)?.query_map([flow.as_str()], read)?.collect())
    }

    /// Seqs above `above_seq` whose batches `recount_batch` still holds, ascending.
    ///
    /// # Errors
    /// `Away` where the database can't be read.
    pub fn stored_batches(&self, at: &PartitionId, above_seq: u64) -> Result<Vec<u64>, WitnessError> {
        let sql = "SELECT seq FROM recount_batch \
                   WHERE flow = ?1 AND source_id = ?2 AND partition = ?3 AND seq > ?4 ORDER BY seq";
        let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str(), signed(above_seq));
        self.ask(|conn| conn.prepare(sql)?.query_map(of, |row| unsigned(row, 0))?.collect())
    }

    /// What `recount_effect` holds of a flow, by partition, in one pass.
    ///
    /// # Errors
    /// `Away` where the database can't be read.
    pub fn effect_summary(&self, flow: &FlowName) -> Result<Vec<EffectSummary>, WitnessError> {
        let sql = "SELECT source_id, partition, count(*), count(DISTINCT \"offset\"), min(\"offset\"), \
                   max(\"offset\") FROM recount_effect WHERE flow = ?1 GROUP BY source_id, partition \
                   ORDER BY source_id, partition";
        let read = |row: &Row<'_>| {
            Ok(EffectSummary {
                at: partition_id(flow, row)?,
                effects: unsigned(row, 2)?,
                offsets: unsigned(row, 3)?,
                first_offset: unsigned(row, 4)?,
                last_offset: unsigned(row, 5)?,
            })
        };
        self.ask(|conn| conn.prepare(sql)?.query_map([flow.as_str()], read)?.collect())
    }

    /// How many effects of a partition lie in `from..to`.
    ///
    /// # Errors
    /// `Away` where the database can't be read.
    pub fn count_effects(&self, at: &PartitionId, from: u64, to: u64) -> Result<u64, WitnessError> {
        let sql = format!("SELECT count(*) FROM recount_effect {IN_RANGE}");
        self.ask(|conn| conn.prepare_cached(&sql)?.query_row(range(at, from, to), |row| unsigned(row, 0)))
    }

    /// Effects of a partition in `from..to`, offset and event id, in the order of their offsets.
    ///
    /// # Errors
    /// `Away` where the database can't be read.
    pub fn effects(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        let sql =
            format!("SELECT \"offset\", event_id FROM recount_effect {IN_RANGE} ORDER BY \"offset\", rowid");
        self.ask(|conn| {
            let mut query = conn.prepare_cached(&sql)?;
            let mut rows = query.query(range(at, from, to))?;
            while let Some(row) = rows.next()? {
                let id = row.get_ref(1)?.as_str_or_null()?;
                if visit(unsigned(row, 0)?, id).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Offsets of a partition in `from..to` whose effect stands more than once, with how often, ascending;
    /// at most `limit`.
    ///
    /// # Errors
    /// `Away` where the database can't be read.
    pub fn effects_twice(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, WitnessError> {
        let sql = format!(
            "SELECT \"offset\", count(*) FROM recount_effect {IN_RANGE} GROUP BY \"offset\" \
             HAVING count(*) > 1 ORDER BY \"offset\" LIMIT ?6"
        );
        let (from, to) = (signed(from), signed(to));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let names = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
        self.ask(|conn| {
            conn.prepare_cached(&sql)?
                .query_map(params![names.0, names.1, names.2, from, to, limit], |row| {
                    Ok((unsigned(row, 0)?, unsigned(row, 1)?))
                })?
                .collect()
        })
    }

    /// How many effects the user's own query tells: the whole number in its only row and column, else how
    /// many rows it lists.
    ///
    /// # Errors
    /// `Question` for a query that can't be used, `Away` where the database can't be read.
    pub fn custom_count(&mut self, sql: &str) -> Result<u64, WitnessError> {
        self.check(sql)?;
        self.ask(|conn| {
            let mut query = conn.prepare(sql)?;
            let one_column = query.column_count() == 1;
            let mut rows = query.query([])?;
            let (mut count, mut first) = (0, None);
            while let Some(row) = rows.next()? {
                if count == 0
                    && one_column
                    && let ValueRef::Integer(number) = row.get_ref(0)?
                {
                    first = u64::try_from(number).ok();
                }
                count += 1;
            }
            Ok(if count == 1 { first.unwrap_or(1) } else { count })
        })
    }

    /// The event ids that the user's own effects query lists in column `id`, in the query's order.
    ///
    /// # Errors
    /// `Question` for a query that can't be used or has no such column, `Away` where the database can't be
    /// read.
    pub fn custom_ids(
        &mut self,
        sql: &str,
        id: &str,
        visit: &mut dyn FnMut(Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.check(sql)?;
        let column = self.ask(|conn| {
            let query = conn.prepare(sql)?;
            Ok(query.column_names().position(|name| name.eq_ignore_ascii_case(id)))
        })?;
        let Some(column) = column else {
            return Err(WitnessError::Question(format!(
                "the effects query has no column {id:?}: name it in the SELECT, or correct `id`"
            )));
        };
        self.ask(|conn| {
            let mut query = conn.prepare(sql)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let text = group_text(row.get_ref(column)?);
                if visit(text.as_deref()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The right side of a `[[reconcile]]`: a query with one column gives one number, one with two gives a
    /// group and its number a row. Whole numbers and decimals in text are exact; a real is the shortest
    /// decimal that reads back; NULL is 0.
    ///
    /// # Errors
    /// `Question` for a query that can't be used or a value that is no number, `Away` where the database
    /// can't be read.
    pub fn reconcile(&mut self, sql: &str) -> Result<ReconcileSide, WitnessError> {
        self.check(sql)?;
        let mut refused = None;
        let side = self.ask(|conn| {
            let mut query = conn.prepare(sql)?;
            let columns = query.column_count();
            let mut found = Vec::new();
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                if found.len() == GROUPS_MAX || (columns == 1 && found.len() == 1) || columns > 2 {
                    refused = Some(format!(
                        "the reconcile's query gives {columns} columns and more than {} rows: write one \
                         number, or a group and a number a row",
                        found.len()
                    ));
                    break;
                }
                let value = row.get_ref(columns - 1)?;
                let Some(amount) = amount(value) else {
                    refused =
                        Some(format!("the reconcile's query gives {}, which is no number", shown(value)));
                    break;
                };
                let group = if columns == 2 { group_text(row.get_ref(0)?) } else { None };
                found.push(ReconcileRow { group, amount });
            }
            Ok(match columns {
                2 => ReconcileSide::Groups(found),
                _ => ReconcileSide::Total(found.first().map_or(Amount::ZERO, |row| row.amount)),
            })
        })?;
        match refused {
            Some(text) => Err(WitnessError::Question(text)),
            None => Ok(side),
        }
    }

    fn check(&mut self, sql: &str) -> Result<(), WitnessError> {
        let refuse = |text: String| Err(WitnessError::Question(format!("{}: {text}", cut(sql, 200))));
        match inspect(&mut self.conn, sql, Purpose::Query) {
            Ok(inspected) => match inspected.params.first() {
                None => Ok(()),
                Some(name) => refuse(format!("there is no event here to take :{name} from: leave it out")),
            },
            Err(NotUsable::Refused(text)) => refuse(text),
            Err(NotUsable::Database(error)) => Err(away(&self.path, &error)),
        }
    }

    fn ask<R>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R, WitnessError> {
        self.watch.next();
        ask(&self.conn).map_err(|error| away(&self.path, &error))
    }
}

const IN_RANGE: &str =
    "WHERE flow = ?1 AND source_id = ?2 AND partition = ?3 AND \"offset\" >= ?4 AND \"offset\" < ?5";

fn range(at: &PartitionId, from: u64, to: u64) -> impl rusqlite::Params + use<> {
    let name = |text: &str| text.to_owned();
    (name(at.flow.as_str()), name(at.source.as_str()), name(at.partition.as_str()), signed(from), signed(to))
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Of a row whose first two columns are source id and partition.
fn partition_id(flow: &FlowName, row: &Row<'_>) -> rusqlite::Result<PartitionId> {
    Ok(PartitionId {
        flow: flow.clone(),
        source: SourceId::new(row.get_ref(0)?.as_str()?),
        partition: Partition::new(row.get_ref(1)?.as_str()?),
    })
}

fn amount(value: ValueRef<'_>) -> Option<Amount> {
    match value {
        ValueRef::Null => Some(Amount::ZERO),
        ValueRef::Integer(number) => Some(Amount::from_integer(number)),
        ValueRef::Real(number) => Amount::from_float(number),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(Amount::parse),
        ValueRef::Blob(_) => None,
    }
}

fn group_text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn shown(value: ValueRef<'_>) -> String {
    match group_text(value) {
        Some(text) => format!("{:?}", cut(&text, 64)),
        None => "NULL".to_owned(),
    }
}

fn away(path: &Path, error: &rusqlite::Error) -> WitnessError {
    WitnessError::Away(format!("{}: {}", path.display(), faults::message(error)))
}
