//! `reported.db` in the ledger's folder: verdicts that were accepted and do not stand in the ledger yet.
//!
//! A post is answered only after its rows are committed here, durably; a row goes when the ledger has its
//! decision. So after a crash each accepted report is in one of the two, and the ledger's has precedence.

use super::said::{Said, Word};
use recount_model::{PartitionId, Timestamp};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FORMAT: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Ranges of positions recorded as unreported that are remembered with their time, in a partition.
const UNREPORTED_RANGES_MAX: i64 = 100_000;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS place (
  place_no INTEGER PRIMARY KEY,
  flow TEXT NOT NULL,
  source TEXT NOT NULL,
  partition TEXT NOT NULL,
  committed INTEGER NOT NULL DEFAULT 0,
  reported_to INTEGER NOT NULL DEFAULT 0,
  UNIQUE (flow, source, partition));
CREATE TABLE IF NOT EXISTS reported (
  place_no INTEGER NOT NULL,
  \"offset\" INTEGER NOT NULL,
  verdict TEXT NOT NULL,
  reason TEXT NOT NULL,
  because TEXT,
  PRIMARY KEY (place_no, \"offset\")) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unreported (
  place_no INTEGER NOT NULL,
  offset_from INTEGER NOT NULL,
  offset_to INTEGER NOT NULL,
  recorded_at INTEGER NOT NULL,
  PRIMARY KEY (place_no, offset_from)) WITHOUT ROWID;
";

/// Why a report could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct StoreError {
    path: String,
    cause: String,
}

impl StoreError {
    pub(super) fn new(path: &Path, cause: String) -> Self {
        Self { path: path.display().to_string(), cause }
    }
}

/// What is kept of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Kept {
    /// Names the partition in this file.
    pub(super) place_no: i64,
    /// Every position below is dealt with, says the consumer.
    pub(super) committed: u64,
    /// One past the highest position that was ever reported.
    pub(super) reported_to: u64,
    /// Reported, and not in the ledger.
    pub(super) waiting: BTreeMap<u64, Said>,
}

/// One connection to the file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("reported.db");
        let failed = |error: rusqlite::Error| failed(&path, &error);
        let connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > FORMAT {
            let cause =
                format!("it has format {found}, and this program knows up to {FORMAT}: use the newer one");
            return Err(StoreError { path: path.display().to_string(), cause });
        }
        let set_up = format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {SCHEMA} PRAGMA user_version = {FORMAT}"
        );
        connection.execute_batch(&set_up).map_err(failed)?;
        Ok(Self { path, connection })
    }

    /// Takes up a partition: what was kept of it, without the positions that the ledger has; what was kept of
    /// other incarnations of it is forgotten.
    pub(super) fn take_up(
        &mut self,
        at: &PartitionId,
        is_decided: impl Fn(u64) -> bool,
    ) -> Result<Kept, StoreError> {
        let path = self.path.clone();
        take_up(&mut self.connection, at, is_decided).map_err(|error| failed(&path, &error))
    }

    /// Keeps verdicts and watermarks in one durable commit.
    pub(super) fn keep(
        &mut self,
        place_no: i64,
        said: &[(u64, Said)],
        committed: u64,
        reported_to: u64,
    ) -> Result<(), StoreError> {
        let path = self.path.clone();
        let keep = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO reported (place_no, \"offset\", verdict, reason, because) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?;
                for (offset, said) in said {
                    let offset = signed(*offset);
                    insert.execute(params![
                        place_no,
                        offset,
                        said.word.as_str(),
                        said.reason,
                        said.because
                    ])?;
                }
            }
            transaction.execute(
                "UPDATE place SET committed = max(committed, ?2), reported_to = max(reported_to, ?3) WHERE place_no = ?1",
                params![place_no, signed(committed), signed(reported_to)],
            )?;
            transaction.commit()
        };
        keep(&mut self.connection).map_err(|error| failed(&path, &error))
    }

    /// The ledger has these now.
    pub(super) fn forget(&mut self, place_no: i64, offsets: &[u64]) -> Result<(), StoreError> {
        let path = self.path.clone();
        let forget = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut delete = transaction
                    .prepare_cached("DELETE FROM reported WHERE place_no = ?1 AND \"offset\" = ?2")?;
                for offset in offsets {
                    delete.execute(params![place_no, signed(*offset)])?;
                }
            }
            transaction.commit()
        };
        forget(&mut self.connection).map_err(|error| failed(&path, &error))
    }

    /// Remembers when ranges were recorded as unreported, for whoever reports them later.
    pub(super) fn note_unreported(
        &mut self,
        place_no: i64,
        ranges: &[(u64, u64)],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let path = self.path.clone();
        let note = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (from, to) in ranges {
                transaction.execute(
                    "INSERT OR REPLACE INTO unreported VALUES (?1, ?2, ?3, ?4)",
                    params![place_no, signed(*from), signed(*to), at.0],
                )?;
            }
            transaction.execute(
                "DELETE FROM unreported WHERE place_no = ?1 AND offset_from <= (SELECT offset_from FROM unreported
                 WHERE place_no = ?1 ORDER BY offset_from DESC LIMIT 1 OFFSET ?2)",
                params![place_no, UNREPORTED_RANGES_MAX],
            )?;
            transaction.commit()
        };
        note(&mut self.connection).map_err(|error| failed(&path, &error))
    }

    /// When a position was recorded as unreported; none where that is not remembered.
    pub(super) fn unreported_at(
        &mut self,
        place_no: i64,
        offset: u64,
    ) -> Result<Option<Timestamp>, StoreError> {
        let found = self.connection.query_row(
            "SELECT recorded_at, offset_to FROM unreported WHERE place_no = ?1 AND offset_from <= ?2
             ORDER BY offset_from DESC LIMIT 1",
            params![place_no, signed(offset)],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        );
        let found = found.optional().map_err(|error| failed(&self.path, &error))?;
        Ok(found.filter(|(_, to)| signed(offset) < *to).map(|(at, _)| Timestamp(at)))
    }
}

fn take_up(
    connection: &mut Connection,
    at: &PartitionId,
    is_decided: impl Fn(u64) -> bool,
) -> rusqlite::Result<Kept> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (flow, source, partition) = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let others = "SELECT place_no FROM place WHERE flow = ?1 AND partition = ?3 AND source <> ?2";
    for table in ["reported", "unreported", "place"] {
        let delete = format!("DELETE FROM {table} WHERE place_no IN ({others})");
        transaction.execute(&delete, params![flow, source, partition])?;
    }
    transaction.execute(
        "INSERT OR IGNORE INTO place (flow, source, partition) VALUES (?1, ?2, ?3)",
        params![flow, source, partition],
    )?;
    let mut kept = transaction.query_row(
        "SELECT place_no, committed, reported_to FROM place WHERE flow = ?1 AND source = ?2 AND partition = ?3",
        params![flow, source, partition],
        |row| {
            let (committed, reported_to) = (unsigned(row.get(1)?), unsigned(row.get(2)?));
            Ok(Kept { place_no: row.get(0)?, committed, reported_to, waiting: BTreeMap::new() })
        },
    )?;
    let mut decided = Vec::new();
    {
        let mut rows = transaction
            .prepare("SELECT \"offset\", verdict, reason, because FROM reported WHERE place_no = ?1")?;
        let mut rows = rows.query([kept.place_no])?;
        while let Some(row) = rows.next()? {
            let offset = unsigned(row.get(0)?);
            let word = Word::parse(row.get_ref(1)?.as_str()?);
            if is_decided(offset) || word.is_none() {
                decided.push(offset);
            } else if let Some(word) = word {
                kept.waiting.insert(offset, Said { word, reason: row.get(2)?, because: row.get(3)? });
            }
        }
    }
    for offset in decided {
        transaction.execute(
            "DELETE FROM reported WHERE place_no = ?1 AND \"offset\" = ?2",
            params![kept.place_no, signed(offset)],
        )?;
    }
    transaction.commit()?;
    Ok(kept)
}

/// Offsets on the wire are at most `i64::MAX`; the reader of the wire refuses larger ones.
fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

fn failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    StoreError { path: path.display().to_string(), cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_model::{FlowName, Partition, SourceId};

    fn at(source: &str) -> PartitionId {
        let flow = FlowName::new("stock").unwrap();
        PartitionId { flow, source: SourceId::new(source), partition: Partition::new("0") }
    }

    fn applied() -> Said {
        Said { word: Word::Applied, reason: "".into(), because: None }
    }

    fn skipped() -> Said {
        Said { word: Word::Skipped, reason: "viewed".into(), because: Some("only looked at".into()) }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_until_the_ledger_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        let place_no = store.take_up(&at("a"), |_| false).unwrap().place_no;
        store.keep(place_no, &[(3, applied()), (4, skipped()), (9, applied())], 5, 10).unwrap();
        store.keep(place_no, &[], 2, 0).unwrap();
        drop(store);
        let mut store = Store::open(folder.path()).unwrap();
        let kept = store.take_up(&at("a"), |offset| offset == 3).unwrap();
        assert_eq!((kept.committed, kept.reported_to), (5, 10), "watermarks only grow");
        assert_eq!(kept.waiting, [(4, skipped()), (9, applied())].into());
        store.forget(place_no, &[4]).unwrap();
        assert_eq!(store.take_up(&at("a"), |_| false).unwrap().waiting, [(9, applied())].into());
    }

    #[test]
    fn another_incarnation_begins_with_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        let place_no = store.take_up(&at("a"), |_| false).unwrap().place_no;
        store.keep(place_no, &[(3, applied())], 5, 4).unwrap();
        let kept = store.take_up(&at("b"), |_| false).unwrap();
        assert_eq!((kept.committed, kept.waiting.len()), (0, 0));
        assert_eq!(store.take_up(&at("a"), |_| false).unwrap().committed, 0);
    }

    #[test]
    fn when_a_position_was_recorded_as_unreported_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        let place_no = store.take_up(&at("a"), |_| false).unwrap().place_no;
        store.note_unreported(place_no, &[(3, 5), (9, 10)], Timestamp(7)).unwrap();
        let at = |store: &mut Store, offset| store.unreported_at(place_no, offset).unwrap();
        assert_eq!((at(&mut store, 4), at(&mut store, 9)), (Some(Timestamp(7)), Some(Timestamp(7))));
        assert_eq!((at(&mut store, 2), at(&mut store, 5), at(&mut store, 10)), (None, None, None));
    }
}
