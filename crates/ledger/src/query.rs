//! Decisions by a filter, in the order decided.
//!
//! Three ways, the cheapest that suffices: rows of `decision` where only decisions with a row can match;
//! blocks chosen by their filters where an id or key is given; else all blocks of the batches whose header
//! fits.

use crate::filter;
use crate::opener::failed;
use crate::rows::{self, BatchRow, DECISION_COLUMNS};
use crate::scan::{batch_block, batch_row, block_failed, read_batch_rows};
use crate::shelf::{CATALOG, Corrections, Partitions, Segment, Shelf};
use crate::store::{BatchHeader, DecisionFilter, LedgerError, StoredDecision};
use crate::stripe::{Placed, StripeBatches, Texts, read_stripe, stripes};
use recount_model::{Decision, Fate, ReasonCode};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

type Visit<'v> = &'v mut dyn FnMut(&StoredDecision) -> ControlFlow<()>;
type Answer = Result<ControlFlow<()>, LedgerError>;

/// One question to a ledger.
pub(crate) struct Query<'a> {
    pub(crate) shelf: &'a Shelf,
    pub(crate) catalog: &'a Connection,
    pub(crate) filter: &'a DecisionFilter,
    corrections: Corrections,
    /// Numbers of the partitions that the filter's flow and partition name.
    wanted: HashSet<i64>,
}

/// A file that is being read.
#[derive(Clone, Copy)]
struct Place<'s> {
    file: &'s str,
    connection: &'s Connection,
}

impl<'a> Query<'a> {
    pub(crate) fn new(
        shelf: &'a Shelf,
        catalog: &'a Connection,
        filter: &'a DecisionFilter,
    ) -> Result<Self, LedgerError> {
        let of_flow = |flow: &str| filter.flow.as_ref().is_none_or(|wanted| wanted.as_str() == flow);
        let of_partition = |name: &str| filter.partition.as_ref().is_none_or(|wanted| wanted == name);
        let wanted = (shelf.partitions.iter())
            .filter(|(_, at)| of_flow(at.flow.as_str()) && of_partition(at.partition.as_str()))
            .map(|(number, _)| number)
            .collect();
        Ok(Self { shelf, catalog, filter, corrections: shelf.corrections(catalog)?, wanted })
    }

    /// Visits what the filter takes, until the visitor breaks.
    pub(crate) fn run(&self, visit: Visit<'_>) -> Result<(), LedgerError> {
        let carried = Place { file: CATALOG, connection: self.catalog };
        if self.wanted.is_empty() || self.visit_rows(carried, false, visit)?.is_break() {
            return Ok(());
        }
        for (nth, segment) in self.shelf.segments.iter().enumerate() {
            let from = self.filter.ordinal_from.unwrap_or(0);
            let ends_before =
                self.shelf.segments.get(nth + 1).is_some_and(|next| next.info.ordinal_from <= from);
            if ends_before {
                continue;
            }
            if self.can_hold(segment)? && self.visit_segment(segment, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn texts(&self) -> Texts<'_> {
        Texts { id: self.filter.event_id.as_deref(), key: self.filter.key.as_deref() }
    }

    /// What the catalog knows of a sealed segment may already say that nothing in it fits.
    fn can_hold(&self, segment: &Segment) -> Result<bool, LedgerError> {
        let Some((decided_from, decided_to)) = segment.info.decided else { return Ok(true) };
        if self.filter.from.is_some_and(|from| decided_to < from.0)
            || self.filter.to.is_some_and(|to| decided_from >= to.0)
        {
            return Ok(false);
        }
        if !self.texts().any() {
            return Ok(true);
        }
        let sql = "SELECT keys, ids FROM segment_filter WHERE segment_no = ?1";
        let mut statement = self.catalog.prepare_cached(sql).map_err(failed(CATALOG))?;
        let filters = statement
            .query_row(params![segment.info.no], |row| {
                Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
            })
            .optional()
            .map_err(failed(CATALOG))?;
        let Some((keys, ids)) = filters else { return Ok(true) };
        let may = |bits: Option<Vec<u8>>, text: Option<&str>| match (bits, text) {
            (Some(bits), Some(text)) => filter::may_hold(&bits, filter::text_hash(text)),
            _ => true,
        };
        Ok(may(keys, self.texts().key) && may(ids, self.texts().id))
    }

    /// The same within one segment.
    pub(crate) fn visit_segment(&self, segment: &Segment, visit: Visit<'_>) -> Answer {
        let connection = segment.connection(&self.shelf.opener)?;
        let place = Place { file: &segment.info.file, connection };
        let reason_ordinals = match &self.filter.reason {
            None => None,
            Some(_) => Some(self.ordinals_with_reason(place)?),
        };
        if self.rows_suffice(place)? {
            return self.visit_rows(place, true, visit);
        }
        let wanted = |row: &BatchRow| {
            self.batch_fits(row)
                && reason_ordinals.as_ref().is_none_or(|ordinals| ordinals.contains(&row.header.ordinal))
        };
        if segment.is_sealed() {
            self.visit_stripes(place, &wanted, visit)
        } else {
            self.visit_batches(place, &wanted, visit)
        }
    }

    /// Ordinals of batches that have a run with the reason, or with it as a flag.
    fn ordinals_with_reason(&self, place: Place<'_>) -> Result<HashSet<u64>, LedgerError> {
        let reason = self.filter.reason.as_ref().map_or("", |r| r.as_str());
        let sql = "SELECT DISTINCT ordinal FROM run WHERE reason = ?1 OR instr(',' || flags || ',', ?2) > 0";
        let mut statement = place.connection.prepare_cached(sql).map_err(failed(place.file))?;
        let rows = statement
            .query_map(params![reason, format!(",{reason},")], |row| row.get::<_, i64>(0).map(|n| n as u64));
        rows.and_then(|rows| rows.collect()).map_err(failed(place.file))
    }

    /// Whether only decisions that have a row can match: a verdict other than applied, or a reason that no
    /// applied decision of the segment raised as a flag.
    fn rows_suffice(&self, place: Place<'_>) -> Result<bool, LedgerError> {
        match (self.filter.verdict.as_deref(), &self.filter.reason) {
            (Some("applied"), _) | (None, None) => Ok(false),
            (Some(_), _) => Ok(true),
            (None, Some(reason)) => {
                let sql = "SELECT NOT EXISTS (SELECT 1 FROM run WHERE verdict = 0 AND correction = 0 \
                           AND instr(',' || flags || ',', ?1) > 0)";
                let mut statement = place.connection.prepare_cached(sql).map_err(failed(place.file))?;
                statement
                    .query_row(params![format!(",{reason},")], |row| row.get(0))
                    .map_err(failed(place.file))
            }
        }
    }

    fn batch_fits(&self, row: &BatchRow) -> bool {
        let filter = self.filter;
        self.wanted.contains(&row.partition_no)
            && filter.offset_from.is_none_or(|from| row.offset_to > from)
            && filter.offset_to.is_none_or(|to| row.offset_from < to)
            && filter.from.is_none_or(|from| row.header.decided_at >= from)
            && filter.to.is_none_or(|to| row.header.decided_at < to)
            && filter.ordinal_from.is_none_or(|from| row.header.ordinal >= from)
    }

    fn decision_fits(&self, decision: &Decision) -> bool {
        let filter = self.filter;
        let has_reason = |code: &ReasonCode| {
            decision.fate.reason().is_some_and(|reason| reason.code == *code) || decision.flags.contains(code)
        };
        filter.offset_from.is_none_or(|from| decision.offset >= from)
            && filter.offset_to.is_none_or(|to| decision.offset < to)
            && filter.verdict.as_deref().is_none_or(|word| word == decision.fate.word())
            && filter.reason.as_ref().is_none_or(has_reason)
            && filter.event_id.as_deref().is_none_or(|id| decision.event_id.as_deref() == Some(id))
            && filter.key.as_deref().is_none_or(|key| decision.key.as_deref() == Some(key))
    }

    fn hand_out(
        &self,
        partition_no: i64,
        header: &Arc<BatchHeader>,
        decision: Decision,
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        if !self.decision_fits(&decision) {
            return ControlFlow::Continue(());
        }
        let current = self.corrections.is_current(partition_no, decision.offset, header.seq);
        if !current && !self.filter.superseded {
            return ControlFlow::Continue(());
        }
        visit(&StoredDecision { header: header.clone(), decision, current })
    }

    /// Reads rows of `decision`. `whole`: that none is missing is checked.
    fn visit_rows(&self, place: Place<'_>, whole: bool, visit: Visit<'_>) -> Answer {
        let Place { file, connection } = place;
        if whole {
            check_rows(place, &self.shelf.partitions)?;
        }
        let sql =
            format!("SELECT {DECISION_COLUMNS} FROM decision WHERE ordinal >= ?1 ORDER BY ordinal, place");
        let mut statement = connection.prepare_cached(&sql).map_err(failed(file))?;
        let from = self.filter.ordinal_from.map_or(0, |from| i64::try_from(from).unwrap_or(i64::MAX));
        let mut rows = statement.query([from]).map_err(failed(file))?;
        let mut batch: Option<(BatchRow, Arc<BatchHeader>)> = None;
        while let Some(row) = rows.next().map_err(failed(file))? {
            let (ordinal, _, decision) = rows::decision(file, row)?;
            if batch.as_ref().is_none_or(|(_, header)| header.ordinal != ordinal) {
                let row = batch_row(file, connection, &self.shelf.partitions, ordinal)?;
                let header = Arc::new(row.header.clone());
                batch = Some((row, header));
            }
            if let Some((row, header)) = &batch
                && self.batch_fits(row)
                && self.hand_out(row.partition_no, header, decision, visit).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_batches(
        &self,
        place: Place<'_>,
        wanted: &dyn Fn(&BatchRow) -> bool,
        visit: Visit<'_>,
    ) -> Answer {
        let Place { file, connection } = place;
        if self.texts().any() {
            for ordinal in self.ordinals_by_filter(place)? {
                let row = batch_row(file, connection, &self.shelf.partitions, ordinal)?;
                if wanted(&row) && self.visit_batch(place, &row, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            return Ok(ControlFlow::Continue(()));
        }
        let mut answer = Ok(ControlFlow::Continue(()));
        let from = self.filter.ordinal_from.unwrap_or(0);
        read_batch_rows(file, connection, &self.shelf.partitions, from, &mut |row| {
            if wanted(&row) {
                answer = self.visit_batch(place, &row, visit);
            }
            if matches!(answer, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        answer
    }

    /// Ordinals of the batches whose filters let the id and key be in them. Reads only the narrow tables.
    fn ordinals_by_filter(&self, place: Place<'_>) -> Result<Vec<u64>, LedgerError> {
        let Place { file, connection } = place;
        let texts = self.texts();
        let (sql, text) = match (texts.key, texts.id) {
            (Some(key), _) => ("SELECT block_no, bits FROM block_keys ORDER BY block_no", key),
            (None, Some(id)) => ("SELECT block_no, bits FROM block_ids ORDER BY block_no", id),
            (None, None) => return Ok(Vec::new()),
        };
        let hash = filter::text_hash(text);
        let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
        let mut rows = statement.query([]).map_err(failed(file))?;
        let mut ordinals = Vec::new();
        while let Some(row) = rows.next().map_err(failed(file))? {
            let bits = row.get_ref(1).map_err(failed(file))?;
            let bits =
                bits.as_blob().map_err(|_| LedgerError::Corrupt(format!("{file}: a filter is no blob")))?;
            if filter::may_hold(bits, hash) {
                ordinals.push(row.get::<_, i64>(0).map_err(failed(file))?);
            }
        }
        let mut kept = Vec::with_capacity(ordinals.len());
        for ordinal in ordinals {
            if texts.key.is_none() || texts.id.is_none() || texts.may_be_in(file, connection, ordinal)? {
                kept.push(ordinal as u64);
            }
        }
        Ok(kept)
    }

    fn visit_batch(&self, place: Place<'_>, row: &BatchRow, visit: Visit<'_>) -> Answer {
        let block = batch_block(place.file, place.connection, row)?;
        let texts = self.texts();
        let hits: Vec<usize> = (0..block.len()).filter(|index| texts.fit(&block, *index)).collect();
        if hits.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let rows = block.rows().map_err(block_failed(place.file, row))?;
        let header = Arc::new(row.header.clone());
        for index in hits {
            if self.may_fit(rows.offset(index))
                && self.hand_out(row.partition_no, &header, rows.decision(index), visit).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn may_fit(&self, offset: u64) -> bool {
        self.filter.offset_from.is_none_or(|from| offset >= from)
            && self.filter.offset_to.is_none_or(|to| offset < to)
    }

    fn visit_stripes(
        &self,
        place: Place<'_>,
        wanted: &dyn Fn(&BatchRow) -> bool,
        visit: Visit<'_>,
    ) -> Answer {
        let Place { file, connection } = place;
        for stripe in stripes(file, connection)? {
            let batches = StripeBatches::read(file, connection, &self.shelf.partitions, &stripe)?;
            if !batches.all().any(wanted) {
                continue;
            }
            let mut placed: Vec<(i64, Placed)> = Vec::new();
            for partition_no in batches.partitions().filter(|number| self.wanted.contains(number)) {
                let in_file = (file, connection);
                let found = read_stripe(in_file, (&stripe, &batches), partition_no, self.texts(), wanted)?;
                placed.extend(found.into_iter().map(|one| (partition_no, one)));
            }
            placed.sort_unstable_by_key(|(_, one)| (one.ordinal, one.place));
            let mut header: Option<Arc<BatchHeader>> = None;
            for (partition_no, one) in placed {
                if header.as_ref().is_none_or(|header| header.ordinal != one.ordinal) {
                    let row = batch_row(file, connection, &self.shelf.partitions, one.ordinal)?;
                    header = Some(Arc::new(row.header));
                }
                if let Some(header) = &header
                    && self.hand_out(partition_no, header, one.decision, visit).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Each batch must have as many rows in `decision` as it says; names the position of one that is missing.
fn check_rows(place: Place<'_>, partitions: &Partitions) -> Result<(), LedgerError> {
    let Place { file, connection } = place;
    let sql = "SELECT ordinal FROM batch LEFT JOIN \
               (SELECT ordinal, count(*) AS held FROM decision GROUP BY ordinal) USING (ordinal) \
               WHERE coalesce(held, 0) <> decision_rows LIMIT 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let short = statement.query_row([], |row| row.get::<_, i64>(0)).optional().map_err(failed(file))?;
    let Some(ordinal) = short else { return Ok(()) };
    let row = batch_row(file, connection, partitions, ordinal as u64)?;
    Err(missing_row(place, &row)?)
}

fn missing_row(place: Place<'_>, row: &BatchRow) -> Result<LedgerError, LedgerError> {
    let Place { file, connection } = place;
    let sql = "SELECT run.offset_from, run.offset_to FROM run WHERE ordinal = ?1 AND (verdict > 0 OR correction) \
               AND (SELECT count(*) FROM decision WHERE decision.ordinal = run.ordinal AND decision.offset >= \
               run.offset_from AND decision.offset < run.offset_to) <> run.offset_to - run.offset_from LIMIT 1";
    let range = connection
        .query_row(sql, params![row.header.ordinal as i64], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()
        .map_err(failed(file))?;
    let at = &row.header.at;
    Ok(LedgerError::Corrupt(match range {
        Some((from, to)) if to == from + 1 => {
            format!("{file}: the row of the decision at {at}/{from} is missing")
        }
        Some((from, to)) => format!("{file}: rows of the decisions at {at}/{from} to {} are missing", to - 1),
        None => format!("{file}: rows of decisions are missing in {}", crate::scan::describe(row)),
    }))
}

/// Whether a fate is a dead letter.
pub(crate) fn is_dead_letter(fate: &Fate) -> bool {
    matches!(fate, Fate::DeadLettered(_))
}
