//! The journal and the config versions, in the catalog.

use crate::opener::failed;
use crate::replica::VersionOf;
use crate::shelf::CATALOG;
use crate::store::{JournalEntry, JournalKind, LedgerError, StoredConfig};
use crate::writer::{SqliteLedger, in_transaction};
use recount_model::{ConfigVersion, FlowName, Timestamp};
use rusqlite::{Connection, params};

fn kind_word(kind: JournalKind) -> &'static str {
    match kind {
        JournalKind::Config => "config",
        JournalKind::Operator => "operator",
        JournalKind::Flow => "flow",
        JournalKind::Audit => "audit",
        JournalKind::Alert => "alert",
    }
}

fn kind(word: &str) -> Result<JournalKind, LedgerError> {
    match word {
        "config" => Ok(JournalKind::Config),
        "operator" => Ok(JournalKind::Operator),
        "flow" => Ok(JournalKind::Flow),
        "audit" => Ok(JournalKind::Audit),
        "alert" => Ok(JournalKind::Alert),
        _ => Err(LedgerError::Corrupt(format!(
            "{CATALOG}: a journal entry is of kind {word:?}, which is none"
        ))),
    }
}

pub(crate) fn put(
    catalog: &Connection,
    entry: &JournalEntry,
    persisted_at: Timestamp,
) -> rusqlite::Result<u64> {
    let sql = "INSERT INTO journal (kind, flow, what, at, persisted_at, detail) VALUES (?1,?2,?3,?4,?5,?6)";
    catalog.prepare_cached(sql)?.execute(params![
        kind_word(entry.kind),
        entry.flow.as_ref().map(FlowName::as_str),
        entry.what,
        entry.at.0,
        persisted_at.0,
        entry.detail.to_string()
    ])?;
    Ok(catalog.last_insert_rowid() as u64)
}

impl SqliteLedger {
    pub(crate) fn put_entry(&mut self, entry: &JournalEntry) -> Result<u64, LedgerError> {
        let now = (self.settings.clock)();
        in_transaction(CATALOG, &self.catalog, || Ok(put(&self.catalog, entry, now)?))
    }

    pub(crate) fn put_config(&mut self, config: &StoredConfig) -> Result<ConfigVersion, LedgerError> {
        let version = match self.version_of(config)? {
            VersionOf::Known(version) => return Ok(version),
            VersionOf::New(version) => version,
        };
        let now = (self.settings.clock)();
        let config = StoredConfig { version, ..config.clone() };
        in_transaction(CATALOG, &self.catalog, || {
            put_config_row(&self.catalog, &config, now)?;
            Ok(version)
        })
    }
}

/// A new config version, and its entry in the journal.
pub(crate) fn put_config_row(
    catalog: &Connection,
    config: &StoredConfig,
    persisted_at: Timestamp,
) -> rusqlite::Result<()> {
    let files = serde_json::json!(config.files).to_string();
    let (version, hash, since) = (config.version.0, &config.hash, config.since);
    catalog.execute(
        "INSERT INTO config VALUES (?1,?2,?3,?4,?5,?6,?7)",
        params![version, hash, config.text, files, config.author, config.revision, since.0],
    )?;
    let entry = JournalEntry {
        kind: JournalKind::Config,
        flow: None,
        what: "began".to_owned(),
        at: since,
        persisted_at,
        detail: serde_json::json!({
            "version": version, "hash": hash, "author": config.author, "revision": config.revision,
        }),
    };
    put(catalog, &entry, persisted_at).map(drop)
}

/// All config versions, oldest first.
pub(crate) fn read_configs(catalog: &Connection) -> Result<Vec<StoredConfig>, LedgerError> {
    let sql = "SELECT version, hash, text, files, author, revision, since FROM config ORDER BY version";
    let mut statement = catalog.prepare_cached(sql).map_err(failed(CATALOG))?;
    let mut rows = statement.query([]).map_err(failed(CATALOG))?;
    let mut configs = Vec::new();
    while let Some(row) = rows.next().map_err(failed(CATALOG))? {
        let text = |column: usize| row.get::<_, String>(column).map_err(failed(CATALOG));
        let files = serde_json::from_str(&text(3)?)
            .map_err(|error| LedgerError::Corrupt(format!("{CATALOG}: the files of a config: {error}")))?;
        configs.push(StoredConfig {
            version: ConfigVersion(row.get(0).map_err(failed(CATALOG))?),
            hash: text(1)?,
            text: text(2)?,
            files,
            author: text(4)?,
            revision: text(5)?,
            since: Timestamp(row.get(6).map_err(failed(CATALOG))?),
        });
    }
    Ok(configs)
}

/// Journal entries about a flow or about none; all where no flow is given. Oldest first.
pub(crate) fn read_journal(
    catalog: &Connection,
    flow: Option<&FlowName>,
) -> Result<Vec<(u64, JournalEntry)>, LedgerError> {
    let sql = "SELECT entry, kind, flow, what, at, persisted_at, detail FROM journal \
               WHERE ?1 IS NULL OR flow IS NULL OR flow = ?1 ORDER BY entry";
    let mut statement = catalog.prepare_cached(sql).map_err(failed(CATALOG))?;
    let mut rows = statement.query(params![flow.map(FlowName::as_str)]).map_err(failed(CATALOG))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(failed(CATALOG))? {
        let text = |column: usize| row.get::<_, String>(column).map_err(failed(CATALOG));
        let number = |column: usize| row.get::<_, i64>(column).map_err(failed(CATALOG));
        let wrong = |what: String| LedgerError::Corrupt(format!("{CATALOG}: journal: {what}"));
        let flow = match row.get::<_, Option<String>>(2).map_err(failed(CATALOG))? {
            Some(name) => Some(FlowName::new(&name).map_err(|error| wrong(error.to_string()))?),
            None => None,
        };
        let entry = JournalEntry {
            kind: kind(&text(1)?)?,
            flow,
            what: text(3)?,
            at: Timestamp(number(4)?),
            persisted_at: Timestamp(number(5)?),
            detail: serde_json::from_str(&text(6)?).map_err(|error| wrong(error.to_string()))?,
        };
        entries.push((number(0)? as u64, entry));
    }
    Ok(entries)
}
