//! The small world of a seed: what is published, what the flow's rules are, and which fates each event may
//! come to.

use crate::rng::Rng;
use recount_checks::{CheckRule, FlowChecks, FlowRules, Otherwise, RouteRule};
use recount_engine::{
    BreakerAction, BreakerSpec, FlowSpec, HoldSpec, OtherwiseRule, OtherwiseVerdict, RetrySpec, RowRange,
    SqlRoute, SqlStatement, TakeLimits,
};
use recount_model::decide::AfterLast;
use recount_model::reason::{BUILTINS, BuiltinKind};
use recount_model::{Budget, ConfigVersion, Fate, FlowName, ReasonCode};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Articles of a partition; one more than that isn't on the list.
pub const ARTICLES: u64 = 5;
/// A movement of this quantity breaks a constraint of the database.
pub const REFUSED_QUANTITY: u64 = 13;
/// What is on hand of each article at first.
pub const ON_HAND_FIRST: u64 = 120;
/// The chain of effects of a key is folded with this factor …
pub const CHAIN_FACTOR: i64 = 31;
/// … modulo this prime, so that it tells in which order effects came.
pub const CHAIN_MODULUS: i64 = 1_000_003;

/// What an event is, as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Takes something out of stock.
    Order,
    /// Brings something back, in two statements.
    Return,
    /// A return that the second statement refuses.
    RefusedReturn,
    /// Asks for nothing.
    Zero,
    /// Of an article that isn't there.
    UnknownArticle,
    /// Not JSON.
    BadBytes,
    /// Without an id.
    NoId,
    /// The same bytes as the event at this offset.
    Duplicate(u64),
    /// The id of the event at this offset, and other bytes.
    IdReused(u64),
    /// No event at all: a position that is passed over.
    Blank,
}

/// One published event.
#[derive(Debug, Clone)]
pub struct Item {
    /// The bytes.
    pub payload: Arc<[u8]>,
    /// The id that the flow finds.
    pub id: Option<String>,
    /// The article, where it can be read.
    pub article: Option<String>,
    /// How much, and the mark that is folded into the article's chain.
    pub quantity: u64,
    /// See [`CHAIN_FACTOR`].
    pub mark: u64,
    /// What it is.
    pub kind: Kind,
}

impl Item {
    fn new(partition: usize, offset: u64, kind: Kind, rng: &mut Rng) -> Self {
        let article = match kind {
            Kind::UnknownArticle => ARTICLES,
            _ => rng.below(ARTICLES),
        };
        let quantity = match kind {
            Kind::Zero => 0,
            Kind::RefusedReturn => REFUSED_QUANTITY,
            Kind::Order if rng.percent(5) => rng.between(20, 90),
            _ => rng.between(1, 9),
        };
        let event_type = match kind {
            Kind::Return | Kind::RefusedReturn => "return",
            _ => "order",
        };
        let (id, article) = (format!("e{partition}-{offset}"), format!("p{partition}-a{article}"));
        let mark = offset % 1000 + 1;
        let mut item =
            Self { payload: Arc::new([]), id: Some(id), article: Some(article), quantity, mark, kind };
        item.write(event_type);
        item
    }

    fn write(&mut self, event_type: &str) {
        let article = self.article.as_deref().unwrap_or("");
        let rest = format!(
            "\"type\":\"{event_type}\",\"article\":\"{article}\",\"quantity\":{},\"mark\":{}}}",
            self.quantity, self.mark
        );
        let text = match (&self.kind, &self.id) {
            (Kind::BadBytes, _) => format!("{{\"id\":\"torn {}", self.mark),
            (Kind::NoId, _) | (_, None) => format!("{{{rest}"),
            (_, Some(id)) => format!("{{\"id\":\"{id}\",{rest}"),
        };
        if matches!(self.kind, Kind::BadBytes | Kind::NoId) {
            self.id = None;
        }
        if self.kind == Kind::BadBytes {
            self.article = None;
        }
        self.payload = text.into_bytes().into();
    }

    /// The same event with other bytes: what stands at a position that was used again.
    pub fn another_at_the_same_place(&self) -> Arc<[u8]> {
        let mut text = String::from_utf8_lossy(&self.payload).into_owned();
        text.push(' ');
        text.into_bytes().into()
    }
}

/// Everything that one partition publishes.
///
/// `has_blanks`: some positions carry no event.
pub fn publish(partition: usize, events: u64, has_blanks: bool, rng: &mut Rng) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::with_capacity(events as usize);
    for offset in 0..events {
        let kind = match rng.below(100) {
            0..=59 => Kind::Order,
            60..=71 => Kind::Return,
            72..=73 => Kind::RefusedReturn,
            74..=79 => Kind::Zero,
            80..=82 => Kind::UnknownArticle,
            83..=85 => Kind::BadBytes,
            86..=87 => Kind::NoId,
            88..=94 if offset > 0 => Kind::Duplicate(rng.below(offset)),
            95..=96 if offset > 0 => Kind::IdReused(rng.below(offset)),
            97..=98 if has_blanks => Kind::Blank,
            _ => Kind::Order,
        };
        let item = match kind {
            Kind::Duplicate(of) => duplicate_of(&items, of),
            Kind::IdReused(of) => match items[of as usize].id.clone() {
                _ if items[of as usize].kind == Kind::Blank => Item::new(partition, offset, Kind::Order, rng),
                None => Item::new(partition, offset, Kind::Order, rng),
                Some(id) => {
                    let mut item = Item::new(partition, offset, kind, rng);
                    item.id = Some(id);
                    item.write("order");
                    item
                }
            },
            kind => Item::new(partition, offset, kind, rng),
        };
        items.push(item);
    }
    items
}

fn duplicate_of(items: &[Item], of: u64) -> Item {
    let first = &items[of as usize];
    match first.kind {
        Kind::Duplicate(_) | Kind::Blank => first.clone(),
        _ => Item { kind: Kind::Duplicate(of), ..first.clone() },
    }
}

/// What became of an earlier event: its kind, and its fate unless its record was lost.
pub type First<'f> = &'f dyn Fn(u64) -> (Kind, Option<Fate>);

/// Whether an event of this kind may come to this fate. `first` tells of an earlier event.
pub fn may_become(kind: Kind, fate: &Fate, first: First<'_>) -> bool {
    let code = code_of(fate);
    if matches!((fate.word(), code), ("dead-lettered", "killed_the_process") | ("skipped", "accepted")) {
        return true;
    }
    match kind {
        Kind::Order => matches!(code, "" | "insufficient_stock" | "retries_exhausted"),
        Kind::Return => code.is_empty(),
        Kind::RefusedReturn => code == "statement_failed",
        Kind::Zero => code == "zero_quantity",
        Kind::UnknownArticle => code == "unknown_article",
        Kind::BadBytes => code == "decode_failed",
        Kind::NoId => code == "no_id",
        Kind::IdReused(of) => {
            let (_, first_fate) = first(of);
            code == "id_reused" || (is_unknown(first_fate.as_ref()) && may_become(Kind::Order, fate, first))
        }
        Kind::Duplicate(of) => {
            let (first_kind, first_fate) = first(of);
            let is_processed = matches!(first_kind, Kind::BadBytes | Kind::NoId | Kind::IdReused(_))
                || is_unknown(first_fate.as_ref())
                || matches!(first_fate, Some(Fate::DeadLettered(_)));
            // Where nothing is known of the first, one that reused its id may stand in its place.
            let is_displaced = is_unknown(first_fate.as_ref()) && code == "id_reused";
            code == "duplicate" || is_displaced || (is_processed && may_become(first_kind, fate, first))
        }
        Kind::Blank => false,
    }
}

fn code_of(fate: &Fate) -> &str {
    fate.reason().map_or("", |reason| reason.code.as_str())
}

/// Nothing is known of the id of an event that killed the process, or whose record was lost.
fn is_unknown(fate: Option<&Fate>) -> bool {
    fate.is_none_or(|fate| code_of(fate) == "killed_the_process")
}

/// The name of the flow of every simulation.
pub fn flow_name() -> FlowName {
    FlowName::new("reserve").expect("it is a short lower-case word")
}

fn own_reason(code: &'static str) -> ReasonCode {
    ReasonCode::new(code).expect("it is a lower-case word")
}

/// The flow's rules, compiled.
pub fn checks() -> FlowChecks {
    let with = |names: &[&str]| {
        let pair = |name: &&str| ((*name).to_owned(), format!("event.{name}"));
        names.iter().map(pair).collect::<Vec<_>>()
    };
    let zero = CheckRule {
        reason: own_reason("zero_quantity"),
        that: "event.quantity > 0".into(),
        otherwise: Otherwise::Skip,
        because: "nothing is asked for".into(),
    };
    let bulk = CheckRule {
        reason: own_reason("bulk_order"),
        that: "event.quantity <= 20".into(),
        otherwise: Otherwise::Flag,
        because: "we assume that few ask for much".into(),
    };
    let rules = FlowRules {
        payload_bytes_max: 1000,
        depth_max: 16,
        id: Some("event.id".into()),
        event_type: Some("event.type".into()),
        key: Some("event.article".into()),
        checks: vec![zero, bulk],
        routes: vec![
            RouteRule {
                when: Some("meta.type == 'order'".into()),
                with: with(&["quantity", "article", "mark"]),
            },
            RouteRule {
                when: Some("meta.type == 'return'".into()),
                with: with(&["quantity", "article", "mark"]),
            },
        ],
        ..FlowRules::default()
    };
    FlowChecks::compile(&rules, &flow_name()).expect("the rules above are well formed")
}

/// The database before the first event.
pub fn tables_sql(partitions: usize) -> String {
    let mut sql = String::from(
        "CREATE TABLE stock (article TEXT PRIMARY KEY, on_hand INTEGER NOT NULL, chain INTEGER NOT NULL, \
         open INTEGER NOT NULL) STRICT;
         CREATE TABLE movement (article TEXT NOT NULL, quantity INTEGER NOT NULL CHECK (quantity <> 13), \
         mark INTEGER NOT NULL) STRICT;",
    );
    for partition in 0..partitions {
        for article in 0..ARTICLES {
            sql.push_str(&format!(
                "INSERT INTO stock VALUES ('p{partition}-a{article}', {ON_HAND_FIRST}, 0, 1);"
            ));
        }
    }
    sql
}

fn one_row(sql: &str) -> SqlStatement {
    SqlStatement { sql: sql.into(), rows: RowRange { min: 1, max: 1 } }
}

fn otherwise(when: Option<&str>, verdict: OtherwiseVerdict, reason: &'static str) -> OtherwiseRule {
    OtherwiseRule {
        when: when.map(str::to_owned),
        sqlstates: Vec::new(),
        verdict,
        reason: own_reason(reason),
        because: format!("the rules of the simulation say {reason}"),
    }
}

/// What is done with an order, and with a return.
pub fn routes() -> Vec<SqlRoute> {
    let params = || ["quantity", "article", "mark"].map(str::to_owned).to_vec();
    let unknown = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE article = :article)";
    let closed = "SELECT open = 0 FROM stock WHERE article = :article";
    let order = SqlRoute {
        statements: vec![one_row(
            "UPDATE stock SET on_hand = on_hand - :quantity, chain = (chain * 31 + :mark) % 1000003 \
             WHERE article = :article AND on_hand >= :quantity AND open = 1",
        )],
        params: params(),
        otherwise: vec![
            otherwise(Some(unknown), OtherwiseVerdict::DeadLetter, "unknown_article"),
            otherwise(Some(closed), OtherwiseVerdict::Retry, "shelf_closed"),
            otherwise(None, OtherwiseVerdict::DeadLetter, "insufficient_stock"),
        ],
        sqlstates: Vec::new(),
    };
    let back = SqlRoute {
        statements: vec![
            one_row(
                "UPDATE stock SET on_hand = on_hand + :quantity, chain = (chain * 31 + :mark) % 1000003 \
                 WHERE article = :article",
            ),
            one_row("INSERT INTO movement (article, quantity, mark) VALUES (:article, :quantity, :mark)"),
        ],
        params: params(),
        otherwise: vec![otherwise(Some(unknown), OtherwiseVerdict::DeadLetter, "unknown_article")],
        sqlstates: Vec::new(),
    };
    vec![order, back]
}

/// The flow's settings, some of them from the seed.
pub fn spec(config: ConfigVersion, rng: &mut Rng) -> FlowSpec {
    let mut budgets: BTreeMap<ReasonCode, Budget> = BUILTINS
        .iter()
        .filter(|builtin| builtin.kind != BuiltinKind::Finding)
        .map(|builtin| (own_reason(builtin.code), Budget::ANY))
        .collect();
    for own in ["zero_quantity", "bulk_order", "unknown_article", "shelf_closed", "insufficient_stock"] {
        budgets.insert(own_reason(own), Budget::ANY);
    }
    FlowSpec {
        flow: flow_name(),
        owner: "the simulator".into(),
        purpose: "takes ordered units out of stock".into(),
        config,
        origin: recount_model::Origin::Ran,
        take: TakeLimits {
            events_max: rng.between(1, 12) as usize,
            bytes_max: 100_000,
            wait_ms: 50,
            payload_bytes_max: 1000,
        },
        retry: RetrySpec {
            attempts_max: rng.between(1, 4) as u32,
            backoff_first_ms: rng.between(1, 60),
            backoff_max_ms: 500,
            jitter: 0.2,
            after_last: if rng.percent(30) { AfterLast::StayHeld } else { AfterLast::GoOn },
        },
        hold: HoldSpec { events_max: rng.between(4, 60) as usize, bytes_max: 100_000 },
        dedupe_events: 10_000,
        breaker: BreakerSpec { share_ppm: 500_000, of_last: 1000, action: BreakerAction::Alert },
        budgets,
        id_is_secret: false,
        key_is_secret: false,
        keep_skipped_bytes_max: if rng.percent(50) { 200 } else { 0 },
        ledger_batches_waiting_max: rng.between(1, 4) as usize,
        away_backoff_first_ms: 20,
        away_backoff_max_ms: 400,
    }
}
