//! Flows run from a program of one's own, with a handler in Rust.

use crate::harness::{WAIT_MAX, World, eventually, fate, statement};
use recount::{
    Checked, Event, Flow, FlowEnd, FlowError, FlowRun, Handler, HandlerError, ReasonCode, RunReport,
    Transaction, Value, Verdict, async_trait,
};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOLD_OUT: ReasonCode = ReasonCode::literal("sold_out");
const UNKNOWN_SKU: ReasonCode = ReasonCode::literal("unknown_sku");
const NOT_YET: ReasonCode = ReasonCode::literal("not_yet");

const MOVEMENT: &str = "CREATE TABLE movement (n INTEGER PRIMARY KEY, id TEXT NOT NULL, sku TEXT NOT NULL, \
     quantity INTEGER NOT NULL CHECK (quantity < 1000))";
const MOVE: &str = "INSERT INTO movement (id, sku, quantity) VALUES (:id, :sku, :quantity)";

fn config(flow_keys: &str) -> String {
    let reason = |code: &str, verdict: &str| {
        format!(
            "[[flow.stock.apply.reason]]\nreason = \"{code}\"\nverdict = \"{verdict}\"\nat_most = \"any\"\nbecause = \"so\"\n"
        )
    };
    let at_most =
        "at_most = { handler_panicked = \"any\", undeclared_reason = \"any\", statement_failed = \"any\" }\n";
    let apply = "[flow.stock.apply]\nhandler = \"book\"\ndatabase = \"shop\"\n\
         with = { id = \"event.id\", sku = \"event.sku\", quantity = \"event.quantity\" }\n";
    let reasons =
        [reason("sold_out", "skip"), reason("unknown_sku", "dead-letter"), reason("not_yet", "retry")]
            .concat();
    crate::harness::config(&format!("{at_most}{flow_keys}"), &format!("{apply}{reasons}"))
}

/// A world whose orders say, each, what the handler is to do with them.
fn world(flow_keys: &str) -> World {
    let world = World::new(&config(flow_keys));
    world.shop().execute_batch(MOVEMENT).unwrap();
    world
}

fn line(id: &str, sku: &str, what: &str) -> String {
    format!("{{\"id\":\"{id}\",\"sku\":\"{sku}\",\"quantity\":1,\"what\":\"{what}\"}}")
}

/// Writes a movement, and then does what the event says.
#[derive(Default)]
struct Scripted {
    calls: Arc<AtomicU64>,
    tries: Mutex<BTreeMap<String, u32>>,
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(
        &self,
        event: &Checked<Event>,
        tx: &mut dyn Transaction,
    ) -> Result<Verdict, HandlerError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let [id, sku, quantity] = event.params.as_slice() else { panic!("three are bound") };
        let movement = |quantity| [("id", id.clone()), ("sku", sku.clone()), ("quantity", quantity)];
        assert_eq!(tx.execute(MOVE, &movement(quantity.clone())).await?, 1);
        let what = event.data["what"].as_str().unwrap_or_default();
        match what.split_once(' ').unwrap_or((what, "0")) {
            ("skip", _) => Ok(Verdict::skip(SOLD_OUT, "none left")),
            ("dead-letter", _) => Ok(Verdict::dead_letter(UNKNOWN_SKU, "no such article")),
            ("undeclared", _) => Ok(Verdict::skip(ReasonCode::literal("never_heard_of"), "it seemed right")),
            ("other-verdict", _) => Ok(Verdict::dead_letter(SOLD_OUT, "declared as a skip")),
            ("panic", _) => panic!("the handler has a bug"),
            ("data-fault", _) => {
                tx.execute(MOVE, &movement(Value::Integer(1000))).await.map(|_| Verdict::applied())
            }
            ("retry", times) => {
                let mut tries = self.tries.lock().unwrap();
                let tries = tries.entry(event.meta.id.as_deref().unwrap().to_owned()).or_default();
                *tries += 1;
                let is_enough = *tries > times.parse().unwrap();
                Ok(if is_enough { Verdict::applied() } else { Verdict::retry(NOT_YET, "later") })
            }
            ("wait", ms) => {
                tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await;
                Ok(Verdict::applied())
            }
            _ => {
                let moved = "SELECT count(*), max(sku) FROM movement WHERE id = :id";
                let row = tx.query_row(moved, &movement(Value::Null)[..1]).await?.unwrap();
                assert_eq!(row, [Value::Integer(1), sku.clone()], "it sees what it wrote");
                Ok(Verdict::applied())
            }
        }
    }
}

fn flow(world: &World) -> Flow {
    Flow::from_config(world.path("recount.toml"), "stock").unwrap()
}

fn run(world: &World) -> RunReport {
    flow(world).handler("book", Scripted::default()).run().unwrap()
}

/// Ids of the movements that were left, in the order in which they were made.
fn moved(world: &World) -> Vec<String> {
    let shop = world.shop();
    let mut rows = shop.prepare("SELECT id FROM movement ORDER BY n").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn each_answer_of_a_handler_becomes_its_fate_and_what_is_not_applied_leaves_nothing_behind() {
    let world = world("");
    let cases = [
        ("apply", "applied"),
        ("skip", "skipped sold_out"),
        ("dead-letter", "dead-lettered unknown_sku"),
        ("undeclared", "dead-lettered undeclared_reason"),
        ("panic", "dead-lettered handler_panicked"),
        ("other-verdict", "dead-lettered undeclared_reason"),
        ("data-fault", "dead-lettered statement_failed"),
        ("wait 1", "applied"),
        ("apply", "applied"),
    ];
    let lines = cases.iter().enumerate().map(|(number, (what, _))| line(&format!("o{number}"), "a", what));
    world.lines(&lines.collect::<Vec<_>>());
    let report = run(&world);
    assert_eq!(world.fates(), cases.map(|(_, fate)| fate));
    assert_eq!(moved(&world), ["o0", "o7", "o8"]);
    let counts = (report.applied(), report.skipped("sold_out"), report.dead_lettered("unknown_sku"));
    assert_eq!((report.end.clone(), counts), (FlowEnd::Drained, (3, 1, 1)));
    assert_eq!(report.dead_lettered("handler_panicked"), 1);
    assert!(report.is_well(), "{report}");
    assert_eq!(report.books.flows[0].books.counts.decided(), 9);
    for (offset, expected) in
        [(3, "never_heard_of"), (4, "the handler has a bug"), (5, "another verdict"), (6, "CHECK")]
    {
        let decision = &world.decisions()[offset];
        assert!(decision.to_string().contains(expected), "{decision}");
    }
    // The command counts the same effects again, though it has no such handler.
    let audit = world.audit().expect(0).json();
    assert_eq!(statement(&audit, "E2")["strength"], "counted");
}

#[test]
fn a_budget_of_the_handlers_reasons_is_held_against_it() {
    let world = world("");
    world.configure(&config("").replacen(
        "at_most = \"any\"\nbecause",
        "at_most = \"0% of 1000\"\nbecause",
        1,
    ));
    world.lines(&[line("o0", "a", "skip")]);
    let report = run(&world);
    assert!(!report.is_well(), "{report}");
    assert_eq!((report.end, report.books.exit_code()), (FlowEnd::Drained, 1));
}

#[test]
fn a_retry_holds_its_key_and_nothing_else() {
    let world = world("retry = { attempts = 5, backoff = \"20ms\", backoff_max = \"20ms\" }\n");
    world.lines(&[
        line("a1", "a", "apply"),
        line("a2", "a", "retry 2"),
        line("b1", "b", "apply"),
        line("a3", "a", "apply"),
        line("c1", "c", "retry 9"),
        line("c2", "c", "apply"),
    ]);
    let report = run(&world);
    assert_eq!(report.dead_lettered("retries_exhausted"), 1);
    let moved = moved(&world);
    let of = |key: char| moved.iter().filter(|id| id.starts_with(key)).cloned().collect::<Vec<_>>();
    assert_eq!(
        (of('a'), of('b'), of('c')),
        (
            vec!["a1".to_owned(), "a2".to_owned(), "a3".to_owned()],
            vec!["b1".to_owned()],
            vec!["c2".to_owned()],
        )
    );
    let at = |id: &str| moved.iter().position(|moved| moved == id).unwrap();
    assert!(at("b1") < at("a2"), "another key did not wait: {moved:?}");
    assert_eq!(world.decisions()[1]["attempt"], 3);
}

#[test]
fn a_fault_that_is_not_the_events_blames_nobody_and_is_tried_again() {
    struct Broken(Arc<AtomicU64>);
    #[async_trait]
    impl Handler for Broken {
        async fn handle(
            &self,
            _: &Checked<Event>,
            tx: &mut dyn Transaction,
        ) -> Result<Verdict, HandlerError> {
            tx.execute("UPDATE stock SET on_hand = on_hand - 1 WHERE sku = 'a'", &[]).await?;
            if self.0.fetch_add(1, Ordering::Relaxed) < 2 {
                return Err(HandlerError {
                    message: "the price service is away".to_owned(),
                    data_fault: false,
                });
            }
            Ok(Verdict::applied())
        }
    }
    let world = world("away = { backoff = \"1ms\", backoff_max = \"2ms\" }\n");
    world.lines(&[line("o0", "a", "")]);
    let calls = Arc::new(AtomicU64::new(0));
    let report = flow(&world).handler("book", Broken(Arc::clone(&calls))).run().unwrap();
    assert!(report.is_well(), "{report}");
    assert_eq!((world.fates(), world.on_hand("a")), (vec!["applied".to_owned()], 99));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    let journal = world.journal();
    assert!(
        journal.iter().any(|(what, detail)| what == "effects_away"
            && detail.to_string().contains("the price service is away"))
    );
}

/// Starts it as soon as the batch that was under way has ended, and with it the life before.
async fn started(world: &World, handler: &impl Fn() -> Scripted) -> FlowRun {
    let began = std::time::Instant::now();
    loop {
        match flow(world).handler("book", handler()).start().await {
            Err(FlowError::Unreachable(why)) if began.elapsed() < WAIT_MAX => {
                assert!(why.contains("is in use by process"), "{why}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            started => return started.unwrap(),
        }
    }
}

#[test]
fn each_effect_is_there_once_though_its_runtime_was_dropped_in_the_middle() {
    let world = world("batch = { events = 10 }\n");
    let lines: Vec<String> =
        (0..200).map(|id| line(&format!("o{id}"), ["a", "b", "c"][id % 3], "wait 1")).collect();
    world.lines(&lines);
    let calls = Arc::new(AtomicU64::new(0));
    let scripted = || Scripted { calls: Arc::clone(&calls), ..Scripted::default() };
    for drops in 1..=4 {
        let runtime = runtime();
        let run = runtime.block_on(started(&world, &scripted));
        // In the middle of a batch, and not at its end.
        eventually("it is under way", || calls.load(Ordering::Relaxed) >= 25 * drops);
        drop(run);
        drop(runtime);
    }
    assert!(calls.load(Ordering::Relaxed) < 200);
    let runtime = runtime();
    let report = runtime.block_on(async { started(&world, &scripted).await.wait().await }).unwrap();
    assert!(report.is_well() && report.decided_before > 0, "{report}");
    let mut moved = moved(&world);
    moved.sort();
    let mut expected: Vec<String> = (0..200).map(|id| format!("o{id}")).collect();
    expected.sort();
    assert_eq!(moved, expected);
    assert!(world.fates().iter().all(|fate| fate == "applied"));
}

#[test]
fn what_was_decided_is_not_decided_again_and_the_ledger_is_free_at_once() {
    let world = world("");
    for round in 0..3 {
        world.append(&[line(&format!("o{round}"), "a", "wait 1")]);
        let report = run(&world);
        assert_eq!((report.applied(), report.decided_before), (1, round));
    }
    let again = flow(&world).again().handler("book", Scripted::default()).run().unwrap();
    assert_eq!((again.applied(), again.decided_before, moved(&world).len()), (3, 3, 6));
}

#[test]
fn a_started_flow_is_paused_resumed_and_shut_down_by_its_program_and_by_commands() {
    let world = world("source = { file = \"orders.ndjson\", follow = true }\n");
    world.lines(&[line("o0", "a", "apply")]);
    let runtime = runtime();
    let started = runtime.block_on(flow(&world).handler("book", Scripted::default()).start()).unwrap();
    let applied = || started.stats().decisions.get(&("applied", String::new())).copied();
    eventually("the first is applied", || applied() == Some(1));
    runtime.block_on(started.pause("stock is being counted")).unwrap();
    assert!(started.stats().paused.unwrap().ends_with("stock is being counted"));
    world.append(&[line("o1", "a", "apply")]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(applied(), Some(1));
    runtime.block_on(started.resume("counted")).unwrap();
    eventually("the second is applied", || applied() == Some(2));
    world.recount(&["pause", "stock", "--because", "lunch"]).expect(0);
    assert_eq!(started.stats().paused.as_deref(), Some("ada: lunch"));
    world.recount(&["resume", "stock", "--because", "eaten"]).expect(0);
    started.shut_down();
    let report = runtime.block_on(started.wait()).unwrap();
    assert_eq!((report.end.clone(), report.applied()), (FlowEnd::ShutDown, 2));
    assert!(report.is_well(), "{report}");
    let said: Vec<String> = world.journal().into_iter().map(|(what, _)| what).collect();
    assert_eq!(said.iter().filter(|what| *what == "paused" || *what == "resumed").count(), 4, "{said:?}");
}

#[test]
fn the_command_refuses_a_flow_whose_handler_it_does_not_have_and_leaves_no_trace() {
    let world = world("");
    world.lines(&[line("o0", "a", "apply")]);
    for args in [&["run"][..], &["run", "--dry-run"]] {
        let told = world.recount(args).expect(2);
        assert!(
            told.err.contains("flow stock: this program has no handler book; run the flow from your own"),
            "{}",
            told.err
        );
        assert!(!world.path("recount-data").join("catalog.db").exists());
        assert!(moved(&world).is_empty());
    }
    let validated = world.recount(&["validate", "--json"]).expect(0).json();
    assert_eq!(validated["flows"][0]["promise"]["delivery"], "exactly once");
    assert!(world.recount(&["validate"]).out.contains("the Rust handler book in shop"));
}

#[test]
fn an_operator_accepts_lost_effects_of_a_handler_without_having_it() {
    let world = world("");
    world.lines(&[line("o0", "a", "apply"), line("o1", "a", "apply")]);
    crate::harness::back_up(&world, "before.db");
    assert!(run(&world).is_well());
    crate::harness::restore(&world, "before.db");
    let stopped = run(&world);
    assert!(matches!(stopped.end, FlowEnd::Stopped(_)) && !stopped.is_well(), "{stopped}");
    world.recount(&["ledger", "recover", "--accept", "--because", "tested"]).expect(0);
    assert_eq!(world.fates(), ["skipped accepted", "skipped accepted"]);
    world.append(&[line("o2", "a", "apply")]);
    assert_eq!((run(&world).applied(), moved(&world)), (1, vec!["o2".to_owned()]));
}

#[test]
fn what_keeps_a_flow_from_running_is_told_before_anything_is_done() {
    let world = world("");
    let told = |flow: Result<Flow, FlowError>| match flow.and_then(Flow::run) {
        Ok(report) => panic!("it ran: {report}"),
        Err(error) => error,
    };
    let given = |name: &str| Ok(flow(&world).handler(name, Scripted::default()));
    let none = told(Ok(flow(&world)));
    assert!(matches!(&none, FlowError::Config(message) if message.contains("no handler book")), "{none}");
    let other =
        told(Ok(flow(&world).handler("book", Scripted::default()).handler("bok", Scripted::default())));
    assert_eq!(other.to_string(), "flow stock: a handler bok was given, and the config calls book");
    let unknown = told(Flow::from_config(world.path("recount.toml"), "stok"));
    assert!(matches!(&unknown, FlowError::Config(message) if message.contains("no flow stok")), "{unknown}");
    let inside = runtime().block_on(async { told(given("book")) });
    assert!(matches!(inside, FlowError::InsideRuntime), "{inside}");
    assert!(!world.path("recount-data").join("catalog.db").exists());

    world.configure(&config("ownr = 1\n").replace("handler = \"book\"\n", ""));
    let faults = told(Flow::from_config(world.path("recount.toml"), "stock")).to_string();
    assert!(faults.contains("ownr") && faults.contains("nor `handler`"), "{faults}");

    world.configure(&crate::harness::config("", crate::harness::TAKE_FROM_STOCK));
    let unused = told(given("book")).to_string();
    assert!(unused.contains("the config calls none; write: handler = \"book\""), "{unused}");
    assert_eq!(
        fs::read_dir(world.path(""))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name() == "recount-data" })
            .count(),
        0
    );
}

#[test]
fn a_flow_of_sql_runs_from_a_program_too() {
    let world = World::stock("");
    world.lines(&[crate::harness::order("o0", "a", 3), crate::harness::order("o1", "z", 1)]);
    let report = flow(&world).run().unwrap();
    assert_eq!((report.applied(), report.dead_lettered("unknown_sku"), world.on_hand("a")), (1, 1, 97));
    assert!(world.decisions().iter().map(fate).eq(["applied", "dead-lettered unknown_sku"]));
}
