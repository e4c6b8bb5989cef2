//! A small flow for the effects' tests: checked events, batches, and what came of them in words.

use recount_adapters::sqlite::{SqliteEffect, SqliteEffectSettings};
use recount_checks::{CheckResult, FlowChecks, FlowRules, RawEvent, RouteRule};
use recount_engine::effect::Replay;
use recount_engine::{
    Claim, Committed, Conclusion, Effect, EffectBatch, EffectEvent, EffectFault, EffectRows, OtherwiseRule,
    OtherwiseVerdict, Outcome, RowRange, SqlRoute, SqlStatement, Taken,
};
use recount_ledger::LedgerId;
use recount_model::{
    BatchRecord, ConfigVersion, FlowName, Header, OffsetSet, Partition, PartitionId, ReasonCode, SourceId,
    Timestamp, Verdict,
};
use std::path::Path;
use std::sync::Arc;

pub fn flow() -> FlowName {
    FlowName::new("reserve-stock").unwrap()
}

pub fn ledger() -> LedgerId {
    LedgerId("ledger-1".to_owned())
}

pub fn at() -> PartitionId {
    at_partition("0")
}

pub fn at_partition(partition: &str) -> PartitionId {
    PartitionId { flow: flow(), source: SourceId::new("orders-1"), partition: Partition::new(partition) }
}

/// Checks that take `id`, `key` and the named fields as parameters.
pub fn checks(params: &[&str]) -> FlowChecks {
    let with = params.iter().map(|p| ((*p).to_owned(), format!("event.{p}"))).collect();
    let rules = FlowRules {
        payload_bytes_max: 1 << 20,
        depth_max: 64,
        id: Some("event.id".to_owned()),
        key: Some("event.key".to_owned()),
        routes: vec![RouteRule { when: None, with }],
        ..FlowRules::default()
    };
    FlowChecks::compile(&rules, &flow()).unwrap()
}

pub fn checked(checks: &FlowChecks, offset: u64, json: &serde_json::Value) -> EffectEvent {
    let payload: Arc<[u8]> = json.to_string().into_bytes().into();
    let traceparent = json.get("traceparent").and_then(|t| t.as_str());
    let headers = traceparent
        .map(|value| Header { name: "traceparent".into(), value: value.into() })
        .into_iter()
        .collect();
    let raw = RawEvent {
        payload_bytes: payload.len() as u64,
        payload,
        headers,
        broker_key: None,
        partition: "0".into(),
        offset,
        taken_at: Timestamp(0),
    };
    match checks.check(raw) {
        CheckResult::Passed(event) => EffectEvent { event: Arc::new(event), attempt: 1, replay: None },
        CheckResult::Refused(refused) => panic!("{refused:?}"),
    }
}

pub fn replayed(mut event: EffectEvent, replay_id: u64, corrects_seq: u64) -> EffectEvent {
    event.replay = Some(Replay { replay_id, corrects_seq });
    event
}

pub fn statement(sql: &str, min: u64, max: u64) -> SqlStatement {
    SqlStatement { sql: sql.to_owned(), rows: RowRange { min, max } }
}

pub fn rule(when: Option<&str>, verdict: OtherwiseVerdict, reason: &str) -> OtherwiseRule {
    OtherwiseRule {
        when: when.map(str::to_owned),
        sqlstates: Vec::new(),
        verdict,
        reason: ReasonCode::new(reason).unwrap(),
        because: format!("because of {reason}"),
    }
}

/// An `otherwise` for errors.
pub fn state_rule(sqlstates: &[&str], verdict: OtherwiseVerdict, reason: &str) -> OtherwiseRule {
    let sqlstates = sqlstates.iter().map(|state| (*state).to_owned()).collect();
    OtherwiseRule { sqlstates, ..rule(None, verdict, reason) }
}

pub fn route(statements: Vec<SqlStatement>, params: &[&str], otherwise: Vec<OtherwiseRule>) -> SqlRoute {
    let params = params.iter().map(|p| (*p).to_owned()).collect();
    SqlRoute { statements, params, otherwise, sqlstates: Vec::new() }
}

pub const TAKE_STOCK: &str =
    "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku AND on_hand >= :quantity";

pub const SHOP: &str = "CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL) STRICT;
                        INSERT INTO stock VALUES ('a', 10), ('b', 10), ('c', 10);";

/// The design's own example.
pub fn stock_route() -> SqlRoute {
    use OtherwiseVerdict::DeadLetter;
    let unknown = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)";
    route(
        vec![statement(TAKE_STOCK, 1, 1)],
        &["quantity", "sku"],
        vec![rule(Some(unknown), DeadLetter, "unknown_sku"), rule(None, DeadLetter, "insufficient_stock")],
    )
}

pub fn order(checks: &FlowChecks, offset: u64, sku: &str, quantity: i64) -> EffectEvent {
    let json =
        serde_json::json!({ "id": format!("e{offset}"), "key": sku, "sku": sku, "quantity": quantity });
    checked(checks, offset, &json)
}

pub fn settings(path: &Path, routes: Vec<SqlRoute>) -> SqliteEffectSettings {
    let mut settings = SqliteEffectSettings::new(path, flow());
    settings.routes = routes;
    settings.effects = EffectRows::Table;
    settings.busy_timeout_ms = 100;
    settings
}

pub fn make(path: &Path, sql: &str) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}

/// What came of a batch in the ledger's terms, as short as can be compared.
pub fn told(outcomes: &[Outcome]) -> Vec<String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Behind => "behind".to_owned(),
        Outcome::AlreadyReplayed => "already replayed".to_owned(),
        Outcome::Said { verdict, .. } => match verdict {
            Verdict::Applied => "applied".to_owned(),
            Verdict::Skip(reason) => format!("skip {}", reason.code),
            Verdict::DeadLetter(reason) => format!("dead-letter {}", reason.code),
            Verdict::Retry(reason) => format!("retry {}", reason.code),
        },
    };
    outcomes.iter().map(word).collect()
}

pub fn evidence(outcome: &Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Said { evidence: Some(evidence), .. } => serde_json::from_str(evidence).unwrap(),
        other => panic!("no evidence: {other:?}"),
    }
}

/// A partition as its owner sees it: claims follow each other.
pub struct Owner<'e, E: Effect> {
    pub effect: &'e E,
    pub at: PartitionId,
    pub claim: Claim,
    pub ledger_has_seq: u64,
}

impl<'e, E: Effect> Owner<'e, E> {
    pub async fn take(effect: &'e E, at: PartitionId) -> Self {
        let taken: Taken = effect.take(&at, &ledger()).await.unwrap();
        let claim = Claim { epoch: taken.epoch, expected_seq: taken.seq };
        Self { effect, at, claim, ledger_has_seq: 0 }
    }

    pub fn batch(&self, events: &[EffectEvent]) -> EffectBatch {
        let (at, claim) = (self.at.clone(), self.claim);
        let next_offset = events.iter().map(|e| e.event.meta.offset + 1).max().unwrap_or(0);
        let conclude = move |outcomes: &[Outcome]| Conclusion {
            record: Arc::new(BatchRecord {
                at: at.clone(),
                epoch: claim.epoch,
                seq: claim.expected_seq + 1,
                config: ConfigVersion(1),
                taken_at: Timestamp(0),
                decided_at: Timestamp(0),
                decisions: Vec::new(),
                gaps: Vec::new(),
                bodies: Vec::new(),
                next_offset,
                decided_above: OffsetSet::parse("90-95").unwrap(),
            }),
            bytes: told(outcomes).join("\n").into_bytes().into(),
        };
        EffectBatch {
            at: self.at.clone(),
            claim: self.claim,
            events: events.to_vec(),
            ledger_has_seq: self.ledger_has_seq,
            conclude: Box::new(conclude),
        }
    }

    pub async fn try_apply(&mut self, events: &[EffectEvent]) -> Result<Committed, EffectFault> {
        let committed = self.effect.apply(self.batch(events)).await?;
        self.claim.expected_seq += 1;
        Ok(committed)
    }

    pub async fn apply(&mut self, events: &[EffectEvent]) -> Vec<Outcome> {
        self.try_apply(events).await.unwrap().outcomes
    }
}

/// A shop's database with the stock flow on it.
pub struct Shop {
    pub folder: tempfile::TempDir,
    pub checks: FlowChecks,
    pub effect: SqliteEffect,
    /// A user's own connection.
    pub user: rusqlite::Connection,
}

impl Shop {
    pub fn open() -> Self {
        Self::with(SHOP, vec![stock_route()], &["quantity", "sku"])
    }

    pub fn with(sql: &str, routes: Vec<SqlRoute>, params: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let user = make(&path, sql);
        let effect = SqliteEffect::open(settings(&path, routes)).unwrap();
        Self { folder, checks: checks(params), effect, user }
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("shop.db")
    }

    pub fn order(&self, offset: u64, sku: &str, quantity: i64) -> EffectEvent {
        order(&self.checks, offset, sku, quantity)
    }

    /// A query's rows as text.
    pub fn rows(&self, sql: &str) -> String {
        rows(&self.user, sql)
    }
}

pub fn rows(conn: &rusqlite::Connection, sql: &str) -> String {
    let mut query = conn.prepare(sql).unwrap();
    let columns = query.column_count();
    let mut rows = query.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let cell = |i| match row.get::<_, rusqlite::types::Value>(i).unwrap() {
            rusqlite::types::Value::Null => "null".to_owned(),
            rusqlite::types::Value::Integer(n) => n.to_string(),
            rusqlite::types::Value::Real(n) => n.to_string(),
            rusqlite::types::Value::Text(t) => t,
            rusqlite::types::Value::Blob(b) => String::from_utf8_lossy(&b).into_owned(),
        };
        lines.push((0..columns).map(cell).collect::<Vec<_>>().join(" "));
    }
    lines.join(", ")
}
