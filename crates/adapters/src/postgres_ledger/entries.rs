//! Entries of the log as rows, and the two statements that every process lives by: what follows, and append if
//! nothing does.

use super::link::Trouble;
use recount_ledger::{
    EncodedBatch, JournalEntry, JournalKind, LedgerError, LogContent, LogEntry, StoredConfig,
};
use recount_model::{ConfigVersion, FlowName, Timestamp};
use serde_json::{Value, json};
use tokio_postgres::{Client, Row, Statement};

/// So many entries are asked for at once.
pub(crate) const ENTRIES_A_PAGE: i64 = 64;

const BATCH: i16 = 1;
const JOURNAL: i16 = 2;
const CONFIG: i16 = 3;

/// What follows an ordinal in this ledger.
const FOLLOWING: &str = "SELECT e.ordinal, e.kind, e.persisted_at, e.written_by, e.body FROM recount_ledger_entry e, \
     recount_ledger l WHERE e.ordinal > $1 AND l.ledger_id = $2 ORDER BY e.ordinal LIMIT $3";

/// Appends if the log is exactly as long as the writer believes. It is one statement and its own transaction, so a
/// writer that is frozen holds nothing; two writers wait for each other on the ledger's row, and of two that want
/// the same ordinal one finds that it was taken.
const APPEND: &str = "WITH taken AS ( \
       UPDATE recount_ledger SET next_ordinal = $1::bigint + cardinality($3::smallint[]) \
       WHERE ledger_id = $2 AND next_ordinal = $1 RETURNING 1) \
     INSERT INTO recount_ledger_entry \
       (ordinal, kind, flow, source_id, partition, seq, persisted_at, written_by, body) \
     SELECT $1::bigint + e.place - 1, e.kind, e.flow, e.source_id, e.partition, e.seq, $9::bigint, $10::text, e.body \
     FROM taken, unnest($3::smallint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[]) \
       WITH ORDINALITY AS e (kind, flow, source_id, partition, seq, body, place)";

/// A session's prepared statements.
pub(crate) struct Statements {
    following: Statement,
    append: Statement,
}

/// A row's entry, and who wrote it.
pub(crate) struct Found {
    pub(crate) entry: LogEntry,
    pub(crate) written_by: String,
}

/// What is to be appended.
#[derive(Debug, Clone)]
pub(crate) struct New {
    contents: Vec<LogContent>,
    pub(crate) persisted_at: Timestamp,
}

impl New {
    pub(crate) fn batches(batches: Vec<EncodedBatch>, persisted_at: Timestamp) -> Self {
        Self { contents: batches.into_iter().map(LogContent::Batch).collect(), persisted_at }
    }

    pub(crate) fn one(content: LogContent, persisted_at: Timestamp) -> Self {
        Self { contents: vec![content], persisted_at }
    }

    /// As the log has them, from this ordinal on.
    pub(crate) fn entries(&self, from: u64) -> Vec<LogEntry> {
        let entry = |(content, ordinal): (&LogContent, u64)| LogEntry {
            ordinal,
            persisted_at: self.persisted_at,
            content: content.clone(),
        };
        self.contents.iter().zip(from..).map(entry).collect()
    }
}

impl Statements {
    pub(crate) async fn prepare(client: &Client) -> Result<Self, Trouble> {
        Ok(Self {
            following: client.prepare(FOLLOWING).await.map_err(Trouble::of)?,
            append: client.prepare(APPEND).await.map_err(Trouble::of)?,
        })
    }

    /// The next entries after one.
    pub(crate) async fn following(
        &self,
        client: &Client,
        ledger: &str,
        after: u64,
    ) -> Result<Vec<Found>, Trouble> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = client.query(&self.following, &[&after, &ledger, &ENTRIES_A_PAGE]).await;
        rows.map_err(Trouble::of)?.iter().map(|row| found(row).map_err(Trouble::Ledger)).collect()
    }

    /// Appends at this ordinal. `false`, and nothing was done, where the log's next one is another.
    pub(crate) async fn append(
        &self,
        client: &Client,
        ledger: &str,
        ordinal: u64,
        writer: &str,
        new: &New,
    ) -> Result<bool, Trouble> {
        let mut kinds: Vec<i16> = Vec::new();
        let (mut flows, mut sources, mut partitions, mut seqs) = (vec![], vec![], vec![], vec![]);
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        for content in &new.contents {
            let batch = match content {
                LogContent::Batch(batch) => Some(&*batch.record),
                LogContent::Journal(_) | LogContent::Config(_) => None,
            };
            flows.push(batch.map(|batch| batch.at.flow.as_str()));
            sources.push(batch.map(|batch| batch.at.source.as_str()));
            partitions.push(batch.map(|batch| batch.at.partition.as_str()));
            seqs.push(batch.map(|batch| batch.seq as i64));
            let (kind, body) = body(content);
            kinds.push(kind);
            bodies.push(body);
        }
        let (ordinal, at) = (ordinal as i64, new.persisted_at.0);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 10] =
            [&ordinal, &ledger, &kinds, &flows, &sources, &partitions, &seqs, &bodies, &at, &writer];
        let written = client.execute(&self.append, &values).await.map_err(Trouble::of)?;
        Ok(written > 0)
    }
}

fn body(content: &LogContent) -> (i16, Vec<u8>) {
    match content {
        LogContent::Batch(batch) => (BATCH, batch.bytes.to_vec()),
        LogContent::Journal(entry) => (JOURNAL, journal_json(entry).to_string().into_bytes()),
        LogContent::Config(config) => (CONFIG, config_json(config).to_string().into_bytes()),
    }
}

fn found(row: &Row) -> Result<Found, LedgerError> {
    let ordinal = row.get::<_, i64>(0) as u64;
    let corrupt = |why: &str| LedgerError::Corrupt(format!("recount_ledger_entry {ordinal}: {why}"));
    let persisted_at = Timestamp(row.get(2));
    let bytes: Vec<u8> = row.get(4);
    let json = || serde_json::from_slice::<Value>(&bytes).map_err(|error| corrupt(&error.to_string()));
    let content = match row.get::<_, i16>(1) {
        BATCH => LogContent::batch(bytes).map_err(|error| corrupt(&error.to_string()))?,
        JOURNAL => LogContent::Journal(
            read_journal(&json()?, persisted_at).ok_or_else(|| corrupt("it is no entry of a journal"))?,
        ),
        CONFIG => LogContent::Config(read_config(&json()?).ok_or_else(|| corrupt("it is no config"))?),
        kind => return Err(corrupt(&format!("it is of kind {kind}, which this program does not know"))),
    };
    Ok(Found { entry: LogEntry { ordinal, persisted_at, content }, written_by: row.get(3) })
}

const KINDS: [(JournalKind, &str); 5] = [
    (JournalKind::Config, "config"),
    (JournalKind::Operator, "operator"),
    (JournalKind::Flow, "flow"),
    (JournalKind::Audit, "audit"),
    (JournalKind::Alert, "alert"),
];

fn journal_json(entry: &JournalEntry) -> Value {
    let kind = KINDS.iter().find(|(kind, _)| *kind == entry.kind).map(|(_, word)| *word);
    json!({
        "kind": kind, "flow": entry.flow.as_ref().map(FlowName::as_str), "what": entry.what, "at": entry.at.0,
        "detail": entry.detail,
    })
}

fn read_journal(json: &Value, persisted_at: Timestamp) -> Option<JournalEntry> {
    let word = json["kind"].as_str()?;
    let flow = match &json["flow"] {
        Value::Null => None,
        name => Some(FlowName::new(name.as_str()?).ok()?),
    };
    Some(JournalEntry {
        kind: KINDS.iter().find(|(_, known)| *known == word)?.0,
        flow,
        what: json["what"].as_str()?.to_owned(),
        at: Timestamp(json["at"].as_i64()?),
        persisted_at,
        detail: json["detail"].clone(),
    })
}

fn config_json(config: &StoredConfig) -> Value {
    json!({
        "version": config.version.0, "hash": config.hash, "text": config.text, "files": config.files,
        "author": config.author, "revision": config.revision, "since": config.since.0,
    })
}

fn read_config(json: &Value) -> Option<StoredConfig> {
    let text = |field: &str| Some(json[field].as_str()?.to_owned());
    Some(StoredConfig {
        version: ConfigVersion(u32::try_from(json["version"].as_u64()?).ok()?),
        hash: text("hash")?,
        text: text("text")?,
        files: serde_json::from_value(json["files"].clone()).ok()?,
        author: text("author")?,
        revision: text("revision")?,
        since: Timestamp(json["since"].as_i64()?),
    })
}
