//! Checking a whole ledger: what stands in rows and sums is computed anew from the decisions.

use crate::identity::IdentityHasher;
use crate::opener::failed;
use crate::query::Query;
use crate::rows::{self, BatchRow, DECISION_COLUMNS};
use crate::scan::{batch_row, describe, runs_of, scan};
use crate::segment::{has_row, runs};
use crate::shelf::{Segment, Shelf};
use crate::store::{DecisionFilter, LedgerError};
use crate::{IdentityKey, LedgerReader};
use recount_model::Decision;
use rusqlite::{Connection, params};
use std::ops::ControlFlow;

/// What [`LedgerReader::verify`] went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Batches.
    pub batches: u64,
    /// Decisions, carried dead letters left out.
    pub decisions: u64,
    /// Decisions whose identity can't be computed anew, since their key was forgotten.
    pub forgotten: u64,
}

impl LedgerReader {
    /// Unpacks every decision and computes runs, rows and identity sums anew. Fails with `Corrupt`, which names
    /// segment and position, at the first that differ. Reads everything: some microseconds an event.
    pub fn verify(&self) -> Result<Verified, LedgerError> {
        let mut verified = Verified::default();
        // Seqs and sums of runs first, which also finds whole batches missing.
        crate::LedgerRead::batches(self, None, &mut |_| ControlFlow::Continue(()))?;
        self.with_shelf(|shelf| {
            for segment in &shelf.segments {
                verify_segment((shelf, self.catalog()), segment, self.identity_key(), &mut verified)?;
            }
            Ok(())
        })?;
        Ok(verified)
    }
}

fn verify_segment(
    (shelf, catalog): (&Shelf, &Connection),
    segment: &Segment,
    key: &IdentityKey,
    verified: &mut Verified,
) -> Result<(), LedgerError> {
    let (file, connection) = (segment.info.file.as_str(), segment.connection(&shelf.opener)?);
    let all = DecisionFilter { superseded: true, ..DecisionFilter::default() };
    let mut last: Option<(u64, Vec<Decision>)> = None;
    let mut failure = None;
    let check = |ordinal: u64, decisions: Vec<Decision>| {
        let row = batch_row(file, connection, &shelf.partitions, ordinal)?;
        verify_batch((file, connection), &row, &decisions, key)
    };
    let _ = Query::new(shelf, catalog, &all)?.visit_segment(segment, &mut |stored| {
        match &mut last {
            Some((ordinal, decisions)) if *ordinal == stored.header.ordinal => {
                decisions.push(stored.decision.clone());
            }
            _ => {
                let next = (stored.header.ordinal, vec![stored.decision.clone()]);
                if let Some((ordinal, decisions)) = last.replace(next)
                    && let Err(error) = check(ordinal, decisions)
                {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    if let Some((ordinal, decisions)) = last {
        check(ordinal, decisions)?;
    }
    let count = scan(file, connection, &shelf.partitions, &|_| true, &mut |scanned| {
        verified.batches += 1;
        verified.decisions += scanned.row.decisions;
        verified.forgotten += scanned.row.forgotten;
        Ok(ControlFlow::Continue(()))
    });
    count.map(|_| ())
}

fn verify_batch(
    (file, connection): (&str, &Connection),
    row: &BatchRow,
    decisions: &[Decision],
    key: &IdentityKey,
) -> Result<(), LedgerError> {
    let wrong = |what: String| Err(LedgerError::Corrupt(format!("{file}: {}: {what}", describe(row))));
    let computed = runs(decisions, &mut IdentityHasher::new(key, &row.header.at));
    let stored = runs_of(file, connection, row.header.ordinal)?;
    if let Some(((run, _), _)) =
        computed.iter().zip(&stored).find(|((computed, _), stored)| computed != *stored)
    {
        return wrong(format!("what its runs say of {}..{} is not what was decided", run.from, run.to));
    }
    if computed.len() != stored.len() {
        return wrong(format!("it has {} runs and not {}", stored.len(), computed.len()));
    }
    let identity = computed.iter().fold(0_u128, |sum, (_, part)| sum.wrapping_add(*part));
    if row.forgotten == 0 && identity != row.identity {
        return wrong("its identity sum is not that of its decisions".to_owned());
    }
    let sql = format!("SELECT {DECISION_COLUMNS} FROM decision WHERE ordinal = ?1 ORDER BY place");
    let mut statement = connection.prepare_cached(&sql).map_err(failed(file))?;
    let mut found = statement.query(params![row.header.ordinal as i64]).map_err(failed(file))?;
    for (nth, decision) in decisions.iter().enumerate().filter(|(_, d)| has_row(d)) {
        let same = match found.next().map_err(failed(file))? {
            Some(row) => {
                let (_, place, stored) = rows::decision(file, row)?;
                place == nth as u64 && stored == *decision
            }
            None => false,
        };
        if !same {
            let offset = decision.offset;
            return wrong(format!(
                "the row of the decision at {}/{offset} is missing or another",
                row.header.at
            ));
        }
    }
    if found.next().map_err(failed(file))?.is_some() {
        return wrong("it has a row in decision that was not decided".to_owned());
    }
    Ok(())
}
