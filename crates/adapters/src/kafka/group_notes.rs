//! `groups.db` in the ledger's folder: what was seen of observed groups, look by look.
//!
//! It holds nothing that can't be seen again; where it is lost, the time of what is due begins anew.

use super::group::Seen;
use recount_audit::{GroupLook, GroupMove, MoveKind};
use recount_model::{FlowName, Partition, PartitionId, SourceId, Timestamp};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FORMAT: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// At most about so many looks of a partition are kept: those between are left out.
const LOOKS_MAX: u64 = 1000;
/// So many moves of a flow are remembered.
const MOVES_MAX: i64 = 100;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS look (
  flow TEXT NOT NULL,
  group_name TEXT NOT NULL,
  source TEXT NOT NULL,
  partition TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  committed INTEGER,
  first INTEGER NOT NULL,
  \"end\" INTEGER NOT NULL,
  members INTEGER,
  PRIMARY KEY (flow, group_name, source, partition, at_ms)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moved (
  move_no INTEGER PRIMARY KEY,
  flow TEXT NOT NULL,
  group_name TEXT NOT NULL,
  source TEXT NOT NULL,
  partition TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  offset_from INTEGER NOT NULL,
  offset_to INTEGER);
";

/// Why what was seen could not be kept, or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct NotesError {
    path: String,
    cause: String,
}

/// What was seen of a group before.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Oldest first.
    pub looks: BTreeMap<PartitionId, Vec<GroupLook>>,
    /// Oldest first.
    pub moves: Vec<GroupMove>,
}

/// The file, open for writing.
pub(super) struct GroupNotes {
    path: PathBuf,
    connection: Connection,
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("groups.db")
}

fn failed(path: &Path, cause: &dyn std::fmt::Display) -> NotesError {
    NotesError { path: path.display().to_string(), cause: cause.to_string() }
}

fn refuse_newer(path: &Path, connection: &Connection) -> Result<(), NotesError> {
    let format: rusqlite::Result<i64> = connection.query_row("PRAGMA user_version", [], |row| row.get(0));
    match format.map_err(|error| failed(path, &error))? {
        newer if newer > FORMAT => {
            let cause =
                format!("it has format {newer}, and this program knows up to {FORMAT}: use the newer one");
            Err(failed(path, &cause))
        }
        _ => Ok(()),
    }
}

impl GroupNotes {
    pub fn open(folder: &Path) -> Result<Self, NotesError> {
        let path = path_in(folder);
        let sqlite = |error: rusqlite::Error| failed(&path, &error);
        let connection = Connection::open(&path).map_err(sqlite)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
        refuse_newer(&path, &connection)?;
        let set_up = format!("PRAGMA journal_mode = WAL; {SCHEMA} PRAGMA user_version = {FORMAT}");
        connection.execute_batch(&set_up).map_err(sqlite)?;
        Ok(Self { path, connection })
    }

    /// What was kept of a group; nothing where there is no file yet.
    pub fn read(folder: &Path, flow: &FlowName, group: &str) -> Result<Notes, NotesError> {
        let path = path_in(folder);
        if !path.exists() {
            return Ok(Notes::default());
        }
        let sqlite = |error: rusqlite::Error| failed(&path, &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(sqlite)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
        refuse_newer(&path, &connection)?;
        let looks = read_looks(&connection, flow, group).map_err(sqlite)?;
        let moves = read_moves(&connection, flow, group).map_err(sqlite)?;
        Ok(Notes { looks, moves })
    }

    /// Keeps one look at every partition; gives back the moves that it shows. What is older than `keep_ms` goes,
    /// but for the last look before, which says how things stood then.
    pub fn note(
        &mut self,
        flow: &FlowName,
        group: &str,
        seen: &Seen,
        keep_ms: u64,
        near_ms: u64,
    ) -> Result<Vec<GroupMove>, NotesError> {
        let keeping = Keeping { flow, group, keep_ms, near_ms };
        let noted = keeping.note(&mut self.connection, seen);
        noted.map_err(|error| failed(&self.path, &error))
    }
}

struct Keeping<'a> {
    flow: &'a FlowName,
    group: &'a str,
    keep_ms: u64,
    near_ms: u64,
}

impl Keeping<'_> {
    fn note(&self, connection: &mut Connection, seen: &Seen) -> rusqlite::Result<Vec<GroupMove>> {
        // The last look is read and the next one written in one piece: of two that look, one tells a move.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut moves = Vec::new();
        for (at, look) in &seen.partitions {
            let before = self.last(&transaction, at)?;
            if before.is_some_and(|before| before.at >= look.at) {
                continue;
            }
            let moved = before.and_then(|before| {
                let is_near = age_ms(before.at, look.at) <= self.near_ms;
                GroupMove::between(at, before, *look, seen.is_simple, is_near)
            });
            let gap_ms = self.keep_ms / LOOKS_MAX;
            let is_soon = before.is_some_and(|before| age_ms(before.at, look.at) < gap_ms);
            if moved.is_some() || !is_soon {
                self.keep(&transaction, at, look)?;
            }
            moves.extend(moved);
        }
        for moved in &moves {
            self.keep_move(&transaction, moved)?;
        }
        if let Some((at, look)) = seen.partitions.first_key_value() {
            self.forget_incarnations(&transaction, &at.source, look.at)?;
        }
        transaction.commit()?;
        Ok(moves)
    }

    fn last(&self, transaction: &Transaction<'_>, at: &PartitionId) -> rusqlite::Result<Option<GroupLook>> {
        let sql = "SELECT at_ms, committed, first, \"end\", members FROM look WHERE flow = ?1 AND group_name = ?2 \
                   AND source = ?3 AND partition = ?4 ORDER BY at_ms DESC LIMIT 1";
        let mut last = transaction.prepare_cached(sql)?;
        let names = params![self.flow.as_str(), self.group, at.source.as_str(), at.partition.as_str()];
        last.query_row(names, |row| look_of(row, 0)).optional()
    }

    fn keep(
        &self,
        transaction: &Transaction<'_>,
        at: &PartitionId,
        look: &GroupLook,
    ) -> rusqlite::Result<()> {
        let (flow, source, partition) = (self.flow.as_str(), at.source.as_str(), at.partition.as_str());
        let sql = "INSERT INTO look VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        transaction.prepare_cached(sql)?.execute(params![
            flow,
            self.group,
            source,
            partition,
            look.at.0,
            look.committed.map(signed),
            signed(look.first),
            signed(look.end),
            look.members
        ])?;
        let sql = "DELETE FROM look WHERE flow = ?1 AND group_name = ?2 AND source = ?3 AND partition = ?4 AND at_ms < \
                   (SELECT max(at_ms) FROM look WHERE flow = ?1 AND group_name = ?2 AND source = ?3 \
                   AND partition = ?4 AND at_ms <= ?5)";
        let before = look.at.0.saturating_sub_unsigned(self.keep_ms);
        transaction.prepare_cached(sql)?.execute(params![flow, self.group, source, partition, before])?;
        Ok(())
    }

    fn keep_move(&self, transaction: &Transaction<'_>, moved: &GroupMove) -> rusqlite::Result<()> {
        let GroupMove { at, partition, from, to, kind } = moved;
        transaction.execute(
            "INSERT INTO moved (flow, group_name, source, partition, at_ms, kind, offset_from, offset_to) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                self.flow.as_str(),
                self.group,
                partition.source.as_str(),
                partition.partition.as_str(),
                at.0,
                kind.word(),
                signed(*from),
                to.map(signed)
            ],
        )?;
        transaction.execute(
            "DELETE FROM moved WHERE flow = ?1 AND move_no NOT IN \
             (SELECT move_no FROM moved WHERE flow = ?1 ORDER BY move_no DESC LIMIT ?2)",
            params![self.flow.as_str(), MOVES_MAX],
        )?;
        Ok(())
    }

    /// Of topics that were made anew since, nothing is looked at any more; nor of groups that are observed no more.
    fn forget_incarnations(
        &self,
        transaction: &Transaction<'_>,
        source: &SourceId,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let before = now.0.saturating_sub_unsigned(self.keep_ms);
        let sql = "DELETE FROM look WHERE flow = ?1 AND NOT (group_name = ?2 AND source = ?3) AND at_ms < ?4";
        transaction.execute(sql, params![self.flow.as_str(), self.group, source.as_str(), before])?;
        Ok(())
    }
}

fn age_ms(before: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.0.saturating_sub(before.0)).unwrap_or(0)
}

/// SQLite has signed numbers; Kafka's offsets are signed too.
fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

fn look_of(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<GroupLook> {
    Ok(GroupLook {
        at: Timestamp(row.get(first)?),
        committed: row.get::<_, Option<i64>>(first + 1)?.map(unsigned),
        first: unsigned(row.get(first + 2)?),
        end: unsigned(row.get(first + 3)?),
        members: row.get(first + 4)?,
    })
}

fn partition_of(flow: &FlowName, row: &rusqlite::Row<'_>) -> rusqlite::Result<PartitionId> {
    Ok(PartitionId {
        flow: flow.clone(),
        source: SourceId::new(row.get::<_, String>(0)?),
        partition: Partition::new(row.get::<_, String>(1)?),
    })
}

fn read_looks(
    connection: &Connection,
    flow: &FlowName,
    group: &str,
) -> rusqlite::Result<BTreeMap<PartitionId, Vec<GroupLook>>> {
    let mut looks: BTreeMap<PartitionId, Vec<GroupLook>> = BTreeMap::new();
    let mut query = connection.prepare(
        "SELECT source, partition, at_ms, committed, first, \"end\", members FROM look \
         WHERE flow = ?1 AND group_name = ?2 ORDER BY at_ms",
    )?;
    let mut rows = query.query(params![flow.as_str(), group])?;
    while let Some(row) = rows.next()? {
        looks.entry(partition_of(flow, row)?).or_default().push(look_of(row, 2)?);
    }
    Ok(looks)
}

fn read_moves(connection: &Connection, flow: &FlowName, group: &str) -> rusqlite::Result<Vec<GroupMove>> {
    let mut moves = Vec::new();
    let mut query = connection.prepare(
        "SELECT source, partition, at_ms, kind, offset_from, offset_to FROM moved \
         WHERE flow = ?1 AND group_name = ?2 ORDER BY move_no",
    )?;
    let mut rows = query.query(params![flow.as_str(), group])?;
    while let Some(row) = rows.next()? {
        let Some(kind) = MoveKind::of(&row.get::<_, String>(3)?) else { continue };
        moves.push(GroupMove {
            at: Timestamp(row.get(2)?),
            partition: partition_of(flow, row)?,
            from: unsigned(row.get(4)?),
            to: row.get::<_, Option<i64>>(5)?.map(unsigned),
            kind,
        });
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> FlowName {
        FlowName::new("stock").unwrap()
    }

    fn seen(source: &str, at_ms: i64, committed: u64) -> Seen {
        let at = PartitionId { flow: flow(), source: SourceId::new(source), partition: Partition::new("0") };
        let look = GroupLook {
            at: Timestamp(at_ms),
            committed: Some(committed),
            first: 0,
            end: 1000,
            members: Some(0),
        };
        Seen { partitions: BTreeMap::from([(at, look)]), is_simple: false }
    }

    /// Notes one look, and tells the moves as `back 5 3`.
    fn note(folder: &Path, seen: &Seen) -> Vec<String> {
        let mut notes = GroupNotes::open(folder).unwrap();
        let moves = notes.note(&flow(), "g", seen, 10_000, 1000).unwrap();
        let told = |moved: &GroupMove| format!("{} {} {:?}", moved.kind.word(), moved.from, moved.to);
        moves.iter().map(told).collect()
    }

    fn kept(folder: &Path) -> Vec<i64> {
        let notes = GroupNotes::read(folder, &flow(), "g").unwrap();
        notes.looks.values().flatten().map(|look| look.at.0).collect()
    }

    #[test]
    fn looks_are_kept_as_long_as_they_are_of_use_with_the_last_one_before() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kept(folder.path()), Vec::<i64>::new());
        for at_ms in (0..40_000).step_by(500) {
            note(folder.path(), &seen("t", at_ms, 5));
        }
        let kept = kept(folder.path());
        assert_eq!((kept.first(), kept.last(), kept.len()), (Some(&29_500), Some(&39_500), 21));
    }

    #[test]
    fn many_looks_in_a_short_time_are_thinned_and_a_late_one_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        (0..9).for_each(|at_ms| drop(note(folder.path(), &seen("t", at_ms, 5))));
        assert_eq!(kept(folder.path()), [0]);
        assert_eq!(note(folder.path(), &seen("t", 100, 5)), Vec::<String>::new());
        assert_eq!(note(folder.path(), &seen("t", 50, 1)), Vec::<String>::new(), "somebody else was quicker");
        assert_eq!(kept(folder.path()), [0, 100]);
    }

    #[test]
    fn a_move_is_told_once_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        note(folder.path(), &seen("t", 0, 5));
        assert_eq!(note(folder.path(), &seen("t", 1, 3)), ["back 5 Some(3)"]);
        assert_eq!(note(folder.path(), &seen("t", 20, 3)), Vec::<String>::new());
        assert_eq!(note(folder.path(), &seen("t", 500, 9)), ["forward 3 Some(9)"]);
        assert_eq!(
            note(folder.path(), &seen("t", 9000, 20)),
            Vec::<String>::new(),
            "it was long not looked at"
        );
        let moves = GroupNotes::read(folder.path(), &flow(), "g").unwrap().moves;
        assert_eq!(moves.iter().map(|moved| moved.at.0).collect::<Vec<_>>(), [1, 500]);
    }

    #[test]
    fn another_incarnation_of_the_topic_says_nothing_of_this_one() {
        let folder = tempfile::tempdir().unwrap();
        note(folder.path(), &seen("before", 0, 500));
        assert_eq!(note(folder.path(), &seen("t", 1000, 3)), Vec::<String>::new());
        assert_eq!(kept(folder.path()), [0, 1000]);
        note(folder.path(), &seen("t", 20_000, 3));
        assert_eq!(kept(folder.path()), [1000, 20_000]);
    }
}
