//! Several flows in one consumer group, over one ledger and one database: partitions move, and nothing is lost or
//! done twice.

use super::topic::Topic;
use super::{BROKER, settings};
use crate::flow::{flow, make, route, rule, settings as effect_settings, statement};
use recount_adapters::kafka::{KafkaSettings, KafkaSource, Membership};
use recount_adapters::sqlite::SqliteEffect;
use recount_checks::{FlowChecks, FlowRules, RouteRule};
use recount_engine::{
    Book, BreakerAction, BreakerSpec, FlowEnd, FlowHandle, FlowParts, FlowSpec, Guards, HoldSpec, NoProbe,
    OtherwiseVerdict, RetrySpec, Source, StartOptions, SystemClock, TakeLimits, start_flow,
};
use recount_ledger::{LedgerSettings, SqliteLedger};
use recount_model::decide::AfterLast;
use recount_model::reason::{BUILTINS, BuiltinKind};
use recount_model::{Budget, ConfigVersion, Origin, ReasonCode, reason};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 4;
/// An order is a row, so that one that comes before an earlier one of its article shows.
const SHOP: &str = "CREATE TABLE article (sku TEXT PRIMARY KEY) STRICT;
    CREATE TABLE taken (number INTEGER PRIMARY KEY AUTOINCREMENT, sku TEXT NOT NULL, id TEXT NOT NULL) STRICT;
    INSERT INTO article VALUES ('a');";
const TAKE: &str = "INSERT INTO taken (sku, id) SELECT sku, :id FROM article WHERE sku = :sku";

/// One topic, one database, one ledger.
struct Shared {
    topic: Topic,
    book: Book,
    folder: tempfile::TempDir,
    user: rusqlite::Connection,
}

impl Shared {
    async fn open() -> Option<(Self, tokio::sync::RwLockReadGuard<'static, ()>)> {
        let kafka = recount_services::kafka()?;
        let guard = BROKER.read().await;
        let topic = Topic::make(&kafka.servers(), "shared", PARTITIONS);
        let folder = tempfile::tempdir().unwrap();
        let user = make(&folder.path().join("shop.db"), &format!("PRAGMA journal_mode = WAL; {SHOP}"));
        let ledger = SqliteLedger::open(folder.path().join("ledger"), LedgerSettings::default()).unwrap();
        let book = Book::threaded(Box::new(ledger), Arc::new(SystemClock)).unwrap();
        Some((Self { topic, book, folder, user }, guard))
    }

    fn publish(&self, ids: std::ops::Range<u32>, sku: &str) {
        let producer = self.topic.producer(None);
        for id in ids {
            let partition = i32::try_from(id).unwrap() % PARTITIONS;
            let payload = format!("{{\"id\":\"{sku}{id}\",\"key\":\"{sku}{partition}\",\"sku\":\"{sku}\"}}");
            self.topic.send(&producer, partition, &payload);
        }
        rdkafka::producer::Producer::flush(&producer, Duration::from_secs(30)).unwrap();
    }

    fn source(&self, member: &str) -> KafkaSource {
        let mut settings = KafkaSettings {
            membership: Some(Membership { member: member.to_owned() }),
            ..settings(&self.topic)
        };
        settings.broker.properties = vec![("session.timeout.ms".to_owned(), "3000".to_owned())];
        KafkaSource::new(settings).unwrap()
    }

    /// Another process, as far as Kafka, the database and the ledger can tell.
    fn join(&self, member: &str) -> FlowHandle {
        let not_yet = rule(None, OtherwiseVerdict::Retry, "unknown_sku");
        let take = route(vec![statement(TAKE, 1, 1)], &["id", "sku"], vec![not_yet]);
        let mut effect = effect_settings(&self.folder.path().join("shop.db"), vec![take]);
        effect.busy_timeout_ms = 5_000;
        start_flow(FlowParts {
            spec: spec(),
            checks: Arc::new(checks()),
            source: Arc::new(self.source(member)),
            effect: Arc::new(SqliteEffect::open(effect).unwrap()),
            book: self.book.clone(),
            clock: Arc::new(SystemClock),
            probe: Arc::new(NoProbe),
            guards: Guards::default(),
            seed: 1,
            start_options: StartOptions::default(),
            paused: None,
        })
    }

    fn number(&self, sql: &str) -> i64 {
        self.user.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn taken(&self) -> i64 {
        self.number("SELECT count(*) FROM taken")
    }

    fn assert_exact(&self, published: i64) {
        assert_eq!(self.taken(), published);
        assert_eq!(self.number("SELECT count(DISTINCT id) FROM taken"), published);
        assert_eq!(self.number("SELECT count(*) FROM recount_effect"), published);
        let late = "SELECT count(*) FROM taken a JOIN taken b ON a.sku = b.sku AND a.number < b.number
            AND CAST(substr(a.id, 2) AS INTEGER) % 4 = CAST(substr(b.id, 2) AS INTEGER) % 4
            AND CAST(substr(a.id, 2) AS INTEGER) > CAST(substr(b.id, 2) AS INTEGER)";
        assert_eq!(self.number(late), 0, "in the order of each key");
    }
}

fn checks() -> FlowChecks {
    let with = ["id", "sku"].map(|name| (name.to_owned(), format!("event.{name}"))).into();
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

fn spec() -> FlowSpec {
    let builtins = BUILTINS.iter().filter(|builtin| builtin.kind != BuiltinKind::Finding);
    let codes = builtins.map(|builtin| builtin.code.to_owned()).chain(["unknown_sku".to_owned()]);
    FlowSpec {
        flow: flow(),
        owner: "tests".into(),
        purpose: "takes orders".into(),
        config: ConfigVersion(1),
        origin: Origin::Ran,
        take: TakeLimits { events_max: 50, bytes_max: 1 << 20, wait_ms: 50, payload_bytes_max: 1 << 16 },
        retry: RetrySpec {
            attempts_max: 1000,
            backoff_first_ms: 50,
            backoff_max_ms: 200,
            jitter: 0.2,
            after_last: AfterLast::GoOn,
        },
        hold: HoldSpec { events_max: 10_000, bytes_max: 1 << 24 },
        dedupe_events: 1000,
        breaker: BreakerSpec { share_ppm: 500_000, of_last: 1000, action: BreakerAction::Alert },
        budgets: codes.map(|code| (ReasonCode::new(&code).unwrap(), Budget::ANY)).collect(),
        id_is_secret: false,
        key_is_secret: false,
        keep_skipped_bytes_max: 0,
        ledger_batches_waiting_max: 4,
        away_backoff_first_ms: 20,
        away_backoff_max_ms: 400,
    }
}

/// Waits; gives how long it took.
async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(40), "not so after 40 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// How many partitions a member has, as its own counters say.
fn has(member: &FlowHandle) -> usize {
    member.stats().held.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_as_members_join_and_leave_and_what_waits_for_a_retry_moves_with_them() {
    let Some((shared, _guard)) = Shared::open().await else { return };
    let first = shared.join("first");
    shared.publish(0..200, "a");
    until("one has it all", || has(&first) == 4 && shared.taken() == 200).await;
    // These wait until somebody puts the article on the list, each key in order.
    shared.publish(200..280, "b");
    until("they wait", || first.stats().held.values().sum::<u64>() == 80).await;
    let second = shared.join("second");
    let joined = until("partitions are shared", || has(&first) == 2 && has(&second) == 2).await;
    let held = |member: &FlowHandle| member.stats().held.values().sum::<u64>();
    until("what waited waits with its new owner", || (held(&first), held(&second)) == (40, 40)).await;
    assert_eq!(shared.taken(), 200);
    shared.user.execute("INSERT INTO article VALUES ('b')", ()).unwrap();
    shared.publish(280..400, "a");
    until("all is taken", || shared.taken() == 400).await;
    let left = Instant::now();
    first.shut_down();
    assert_eq!(first.wait().await, FlowEnd::ShutDown);
    drop(first);
    until("the other has it all", || has(&second) == 4).await;
    let left = left.elapsed();
    shared.publish(400..500, "a");
    until("all is taken", || shared.taken() == 500).await;
    let again = shared.join("first");
    until("partitions are shared again", || has(&again) == 2 && has(&second) == 2).await;
    shared.publish(500..600, "a");
    until("all is taken", || shared.taken() == 600).await;
    for member in [again, second] {
        member.shut_down();
        assert_eq!(member.wait().await, FlowEnd::ShutDown);
    }
    shared.assert_exact(600);
    println!("shared {joined:?} after the join, taken over {left:?} after the leave");
    assert!(left < Duration::from_secs(3), "the session timeout was not waited for: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_under_one_member_id_are_told_and_the_later_goes_on() {
    let Some((shared, _guard)) = Shared::open().await else { return };
    let first = shared.join("same");
    until("it has them", || has(&first) == 4).await;
    let second = shared.join("same");
    let FlowEnd::Stopped(stops) = first.wait().await else { panic!("it went on") };
    assert_eq!(stops[0].reason, reason::PARTITION_TAKEN);
    let sentence = &stops[0].sentence;
    assert!(sentence.contains("as the member same") && sentence.contains("`member`"), "{sentence}");
    shared.publish(0..40, "a");
    until("the later goes on", || shared.taken() == 40).await;
    second.shut_down();
    second.wait().await;
    shared.assert_exact(40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_another_took_is_taken_back_only_where_the_group_confirms_it() {
    let Some((shared, _guard)) = Shared::open().await else { return };
    let member = shared.join("only");
    shared.publish(0..40, "a");
    until("all is taken", || shared.taken() == 40).await;
    // Whoever takes it without being dealt it, as an operator's replay does, has it for a moment.
    let rob = "UPDATE recount_position SET epoch = epoch + 1 WHERE partition = '1'";
    assert_eq!(shared.user.execute(rob, ()).unwrap(), 1);
    shared.publish(40..80, "a");
    until("the owner goes on", || shared.taken() == 80).await;
    // One that the group does not deal to is told no.
    let source = shared.source("standby");
    let places = super::all(&source).await;
    assert!(places.is_empty(), "{places:?}");
    let place = recount_engine::SourcePartition {
        source: recount_model::SourceId::new("kafka:any:any"),
        partition: recount_model::Partition::new("0"),
        place: String::new(),
    };
    assert!(!Source::confirm(&source, &place).await.unwrap());
    member.shut_down();
    member.wait().await;
    shared.assert_exact(80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_still_believes_what_it_was_dealt_is_not_confirmed() {
    let Some((shared, _guard)) = Shared::open().await else { return };
    let dealt = async |source: &KafkaSource| {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let places = super::all(source).await;
            if places.len() == 4 {
                return places;
            }
            assert!(Instant::now() < until, "{places:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let confirmed = async |source: &KafkaSource, place| Source::confirm(source, place).await.unwrap();
    let old = shared.source("same");
    let places = dealt(&old).await;
    assert!(confirmed(&old, &places[0]).await);
    // The coordinator takes the newcomer for the member that comes back; the old one hears of it with a heartbeat.
    let new = shared.source("same");
    assert_eq!(dealt(&new).await, places);
    assert!(!confirmed(&old, &places[0]).await);
    assert!(confirmed(&new, &places[0]).await);
}
