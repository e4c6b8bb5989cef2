//! Reading the world from outside, with nothing but a ledger reader and SQL.

use crate::life::{path, somebody_else};
use crate::scene::flow_name;
use crate::world::World;
use recount_ledger::{DecisionFilter, LedgerError, LedgerRead, LedgerReader, Mark, StoredDecision};
use recount_model::{Gap, Partition, PartitionId, SourceId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// What a ledger holds.
pub struct Books {
    /// The reader, for bodies.
    pub reader: LedgerReader,
    /// Every decision, in the order decided.
    pub decisions: Vec<StoredDecision>,
    /// Positions without a decision.
    pub gaps: Vec<(PartitionId, Gap)>,
    /// Every batch, by partition and seq: epoch and when it was decided.
    pub batches: BTreeMap<(PartitionId, u64), (u64, i64)>,
    /// How far it is.
    pub marks: BTreeMap<PartitionId, Mark>,
}

/// Reads the whole ledger; `None` where there is none yet.
pub fn read_books(world: &World) -> Result<Option<Books>, LedgerError> {
    let vfs = Some(world.files.name().to_owned());
    let reader = match LedgerReader::open_with_vfs(path(0, "ledger", "book"), vfs) {
        Err(LedgerError::Missing(_)) => return Ok(None),
        // Without a file the VFS gives SQLite's error; a ledger that was made has a catalog.
        Err(_) if !is_there(world, "ledger", "book/catalog.db") => return Ok(None),
        reader => reader?,
    };
    let mut decisions = Vec::new();
    let filter = DecisionFilter { superseded: true, ..DecisionFilter::default() };
    reader.decisions(&filter, &mut |stored| {
        decisions.push(stored.clone());
        ControlFlow::Continue(())
    })?;
    let (mut gaps, mut batches) = (Vec::new(), BTreeMap::new());
    reader.batches(None, &mut |batch| {
        let header = &batch.header;
        batches.insert((header.at.clone(), header.seq), (header.epoch, header.decided_at.0));
        gaps.extend(batch.gaps.iter().map(|gap| (header.at.clone(), gap.clone())));
        ControlFlow::Continue(())
    })?;
    let mut marks = BTreeMap::new();
    for at in reader.partitions()? {
        if let Some(mark) = reader.mark(&at)? {
            marks.insert(at, mark);
        }
    }
    Ok(Some(Books { reader, decisions, gaps, batches, marks }))
}

fn is_there(world: &World, disk: &str, name: &str) -> bool {
    world.files.lock().disk(disk).is_some_and(|disk| disk.find(name).is_some())
}

/// The arbiter's row of a partition.
#[derive(Debug, Clone)]
pub struct Row {
    /// The last committed batch.
    pub seq: u64,
    /// The first offset that isn't decided.
    pub next_offset: u64,
    /// Batches that are kept for the ledger.
    pub kept_seqs: BTreeSet<u64>,
}

/// The arbiter's rows.
pub fn read_rows(world: &World) -> rusqlite::Result<BTreeMap<PartitionId, Row>> {
    let connection = somebody_else(world)?;
    let mut rows = BTreeMap::new();
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('recount_position', 'recount_batch')";
    if connection.query_row(tables, [], |row| row.get::<_, i64>(0))? < 2 {
        return Ok(rows);
    }
    let at = |source: String, partition: String| PartitionId {
        flow: flow_name(),
        source: SourceId::new(source),
        partition: Partition::new(partition),
    };
    let mut positions =
        connection.prepare("SELECT source_id, partition, seq, next_offset FROM recount_position")?;
    let mut found = positions.query([])?;
    while let Some(row) = found.next()? {
        let kept = Row {
            seq: row.get::<_, i64>(2)? as u64,
            next_offset: row.get::<_, i64>(3)? as u64,
            kept_seqs: BTreeSet::new(),
        };
        rows.insert(at(row.get(0)?, row.get(1)?), kept);
    }
    let mut batches = connection.prepare("SELECT source_id, partition, seq FROM recount_batch")?;
    let mut found = batches.query([])?;
    while let Some(row) = found.next()? {
        if let Some(position) = rows.get_mut(&at(row.get(0)?, row.get(1)?)) {
            position.kept_seqs.insert(row.get::<_, i64>(2)? as u64);
        }
    }
    Ok(rows)
}

/// What a start must find, by the table of the protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Partitions whose effects were rolled back: partition, the row's seq, the ledger's seq.
    pub rolled_back: Vec<(PartitionId, u64, u64)>,
    /// Partitions of which the ledger lost batches that nobody else has.
    pub unrecorded: Vec<PartitionId>,
}

/// Compares the arbiter's rows with the ledger.
pub fn standing(rows: &BTreeMap<PartitionId, Row>, marks: &BTreeMap<PartitionId, Mark>) -> Standing {
    let mut standing = Standing::default();
    for (at, mark) in marks {
        let row_seq = rows.get(at).map_or(0, |row| row.seq);
        if mark.seq > row_seq {
            standing.rolled_back.push((at.clone(), row_seq, mark.seq));
        }
    }
    for (at, row) in rows {
        let ledger_seq = marks.get(at).map_or(0, |mark| mark.seq);
        if (ledger_seq + 1..=row.seq).any(|seq| !row.kept_seqs.contains(&seq)) {
            standing.unrecorded.push(at.clone());
        }
    }
    standing
}
