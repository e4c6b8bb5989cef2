//! What leaves a log, and when.

use super::LogError;
use super::store::{Store, settled_offset};
use recount_model::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};

/// One transaction drops at most so many events, so that appends wait little.
const DROP_EVENTS_MAX: i64 = 10_000;
/// One call drops at most so many times that.
const DROP_ROUNDS_MAX: usize = 100;

/// What a log keeps. Events leave from the oldest on; one that stays keeps all after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// A settled event stays at least so long, for audits and replays.
    pub settled_age_max_ms: u64,
    /// Settled events leave earlier while the log holds more than so many bytes.
    pub settled_bytes_max: u64,
    /// An event leaves at this age whether it was settled or not; who reads from below is told that a range
    /// was lost. None never drops what wasn't settled.
    pub unsettled_age_max_ms: Option<u64>,
    /// An append that would bring the log above so many bytes is refused.
    pub log_bytes_max: u64,
}

impl Default for RetentionSettings {
    /// Settled events for seven days or a gibibyte; others until they are settled; at most 8 GiB.
    fn default() -> Self {
        Self {
            settled_age_max_ms: 7 * 24 * 3_600_000,
            settled_bytes_max: 1 << 30,
            unsettled_age_max_ms: None,
            log_bytes_max: 8 << 30,
        }
    }
}

/// What one retention did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// Settled events dropped.
    pub dropped_settled: u64,
    /// Events dropped that were not settled: their reader will meet a lost range.
    pub dropped_unsettled: u64,
}

pub(super) fn retain(
    store: &mut Store,
    settings: &RetentionSettings,
    settled_next_offset: u64,
    now: Timestamp,
) -> Result<Retained, LogError> {
    let mut retained = Retained::default();
    for _ in 0..DROP_ROUNDS_MAX {
        let dropped = drop_some(store.connection(), settings, settled_next_offset.cast_signed(), now);
        let (settled, unsettled) = dropped.map_err(|e| LogError::Unwritable {
            path: store.path().display().to_string(),
            cause: e.to_string(),
        })?;
        retained.dropped_settled += settled;
        retained.dropped_unsettled += unsettled;
        if settled + unsettled == 0 {
            break;
        }
    }
    Ok(retained)
}

/// Drops a prefix in one transaction; how many of it were settled, and how many not.
fn drop_some(
    connection: &mut Connection,
    settings: &RetentionSettings,
    settled_next_offset: i64,
    now: Timestamp,
) -> Result<(u64, u64), rusqlite::Error> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let settled = settled_offset(&tx)?.max(settled_next_offset);
    let (first, kept_bytes): (i64, i64) =
        tx.query_row("SELECT first_offset, kept_bytes FROM log_state", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let older_than = |age_ms: u64| now.0.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
    let settled_before = older_than(settings.settled_age_max_ms);
    let unsettled_before = settings.unsettled_age_max_ms.map_or(i64::MIN, older_than);
    let (mut end, mut bytes, mut dropped_unsettled) = (first, kept_bytes, 0);
    {
        let mut query = tx.prepare_cached(
            "SELECT \"offset\", received_at, length(payload) + ifnull(octet_length(headers), 0) FROM log_event \
             ORDER BY \"offset\" LIMIT ?1",
        )?;
        let mut rows = query.query([DROP_EVENTS_MAX])?;
        while let Some(row) = rows.next()? {
            let (offset, received_at, size): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let too_large = u64::try_from(bytes).is_ok_and(|b| b > settings.settled_bytes_max);
            if offset < settled && (too_large || received_at < settled_before) {
            } else if received_at < unsettled_before {
                dropped_unsettled += u64::from(offset >= settled);
            } else {
                break;
            }
            end = offset + 1;
            bytes -= size;
        }
    }
    tx.execute("DELETE FROM log_event WHERE \"offset\" < ?1", [end])?;
    tx.execute(
        "UPDATE log_state SET first_offset = ?1, kept_bytes = ?2, settled_offset = ?3",
        params![end, bytes.max(0), settled],
    )?;
    tx.commit()?;
    Ok(((end - first).unsigned_abs() - dropped_unsettled, dropped_unsettled))
}
