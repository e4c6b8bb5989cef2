//! Faults of a config, one line a case; and what a right one comes to.

use super::*;
use expect_test::expect;
use recount_engine::RowRange;
use recount_model::decide::AfterLast;
use std::fmt::Write as _;

/// A config without a fault. Each case changes one thing in it.
const RIGHT: &str = r#"[ledger]
path = "book"
[database.shop]
url = "sqlite:shop.db"
[flow.reserve-stock]
owner = "inventory team"
purpose = "takes ordered units out of stock"
source = { file = "orders.ndjson" }
id = "event.id"
key = "event.sku"
schema = "order.schema.json"
secret = ["event.customer_id"]
[[flow.reserve-stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "2% of 1000"
because = "an order line for nothing takes nothing out of stock"
[[flow.reserve-stock.check]]
reason = "bulk_order"
that = "event.quantity <= 100"
otherwise = "flag"
at_most = "3% of 1000"
review_by = 2027-06-01
because = "we assume that few order more than 100 units of one thing"
[flow.reserve-stock.apply]
database = "shop"
sql = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku"
with = { quantity = "event.quantity", sku = "event.sku" }
rows = 1
[[flow.reserve-stock.apply.otherwise]]
when = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)"
verdict = "dead-letter"
reason = "unknown_sku"
because = "no such article"
[[flow.reserve-stock.apply.otherwise]]
verdict = "retry"
reason = "insufficient_stock"
because = "less on hand than asked for"
[[reconcile]]
name = "units"
left = { flow = "reserve-stock", sum = "event.quantity", less = ["unknown_sku"] }
right = { database = "shop", sql = "SELECT sum(10000 - on_hand) FROM stock" }
within = "60s"
"#;

const SCHEMA: &str = r#"{"type": "object", "required": ["id"], "properties": {
    "id": {"type": "string"}, "sku": {"type": "string"}, "quantity": {"type": "integer"},
    "customer_id": {"type": "string"}, "type": {"type": "string"}}}"#;

fn load(text: &str) -> Result<Config, Faults> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("order.schema.json"), SCHEMA).unwrap();
    std::fs::write(folder.path().join("broken.json"), "{").unwrap();
    std::fs::write(folder.path().join("wrong.json"), r#"{"type": "no such type"}"#).unwrap();
    Config::from_text(text, &folder.path().join("recount.toml"))
}

/// Every fault as `line key: message`.
fn told(faults: &[Fault]) -> String {
    let mut out = String::new();
    for fault in faults {
        let _ = writeln!(out, "{} {}: {}", fault.line, fault.key, fault.message);
    }
    out
}

/// Replaces `old` by `new` in the right config and expects faults that hold each of `expected`, in order,
/// and no others.
fn check(old: &str, new: &str, expected: &[&str]) {
    assert!(RIGHT.contains(old), "the right config doesn't hold {old}");
    let text = RIGHT.replacen(old, new, 1);
    let faults = match load(&text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.faults,
    };
    let found = told(&faults);
    let matches = faults.len() == expected.len()
        && faults
            .iter()
            .zip(expected)
            .all(|(fault, part)| format!("{} {}: {}", fault.line, fault.key, fault.message).contains(part));
    assert!(matches, "{new:?} gave\n{found}but must give\n{}", expected.join("\n"));
    for fault in &faults {
        assert!(!fault.message.ends_with('.'), "{}", fault.message);
    }
}

#[test]
fn the_right_config_has_no_fault() {
    let config = load(RIGHT).unwrap();
    assert_eq!(told(&config.warnings), "");
    let flow = config.flow("reserve-stock").unwrap();
    assert_eq!(flow.spec.retry.attempts_max, 5);
    assert_eq!(flow.spec.retry.after_last, AfterLast::GoOn);
    assert!((flow.spec.retry.jitter - 0.2).abs() < f64::EPSILON);
    assert_eq!((flow.spec.take.events_max, flow.spec.take.wait_ms), (500, 50));
    assert_eq!((flow.spec.dedupe_events, flow.spec.keep_skipped_bytes_max), (100_000, 65_536));
    assert_eq!((flow.spec.breaker.share_ppm, flow.spec.breaker.of_last), (500_000, 1000));
    assert_eq!(flow.rules.payload_bytes_max, 1 << 20);
    assert_eq!(config.server.listen, "127.0.0.1:7601");
    assert_eq!((config.ledger.segment_ms, config.ledger.segment_bytes), (3_600_000, 1 << 30));
    assert_eq!((config.ledger.retention_ms, config.ledger.retention_bytes), (None, None));
    assert!(config.ledger.path.ends_with("book"));
    assert!(config.databases["shop"].sqlite_path().unwrap().ends_with("shop.db"));
    let EffectConfig::Sql { routes, effects, .. } = &flow.effect else { panic!("{:?}", flow.effect) };
    assert_eq!(routes[0].params, ["quantity", "sku"]);
    assert_eq!(routes[0].statements[0].rows, RowRange { min: 1, max: 1 });
    assert_eq!((routes[0].otherwise.len(), effects), (2, &EffectRows::Table));
    assert_eq!(config.reconciles[0].left.measure, 0);
    assert_eq!(flow.rules.measures[0].sum, "event.quantity");
}

#[test]
fn every_reason_that_a_flow_may_give_has_a_budget() {
    let text =
        RIGHT.replace("secret = [", "ignore = [\"a.b\"]\nat_most = { duplicate = \"any\" }\nsecret = [");
    let config = load(&text).unwrap();
    let budgets = &config.flows[0].spec.budgets;
    let found: String = budgets.iter().map(|(code, budget)| format!("{code} {budget}\n")).collect();
    expect![[r#"
        accepted any
        bulk_order 3% of 1000
        check_unevaluable 1% of 1000
        decode_failed 1% of 1000
        duplicate any
        id_reused 1% of 1000
        insufficient_stock 1% of 1000
        killed_the_process 1% of 1000
        no_id 1% of 1000
        no_key 1% of 1000
        not_for_this_flow any
        parameter_missing 1% of 1000
        payload_too_large 1% of 1000
        retries_exhausted 1% of 1000
        rows_unexpected 1% of 1000
        schema_mismatch 1% of 1000
        statement_failed 1% of 1000
        unknown_sku 1% of 1000
        zero_quantity 2% of 1000
    "#]]
    .assert_eq(&found);
}

#[test]
fn keys_and_kinds() {
    check("id = ", "idd = ", &["9 flow.reserve-stock.idd: unknown key `idd` in `[flow.NAME]`"]);
    check("[ledger]", "[ledgr]", &["1 ledgr: unknown key `ledgr` in the file"]);
    check("owner = \"inventory team\"\n", "", &["5 flow.reserve-stock.owner: `[flow.NAME]` has no `owner`"]);
    check("purpose = ", "# ", &["5 flow.reserve-stock.purpose: `[flow.NAME]` has no `purpose`"]);
    check("\"inventory team\"", "\"\"", &["6 flow.reserve-stock.owner: `owner` is empty"]);
    check(
        "\"inventory team\"",
        "7",
        &["6 flow.reserve-stock.owner: `owner` takes a text, not a whole number"],
    );
    check("\"60s\"", "\"60 seconds\"", &["44 reconcile[0].within: `within` takes a duration"]);
    check(
        "id = ",
        "payload_max = \"1MB\"\nid = ",
        &["9 flow.reserve-stock.payload_max: `payload_max` takes a size"],
    );
    check(
        "id = ",
        "depth_max = 0\nid = ",
        &["9 flow.reserve-stock.depth_max: `depth_max` must lie between 1 and 512"],
    );
    check(
        "id = ",
        "retry.jitter = 1.5\nid = ",
        &["9 flow.reserve-stock.retry.jitter: `jitter` must lie between 0 and 1"],
    );
    check("id = ", "mode = \"walk\"\nid = ", &["9 flow.reserve-stock.mode: `mode` can't be \"walk\""]);
    check(
        "id = ",
        "expect = \"one an hour\"\nid = ",
        &["9 flow.reserve-stock.expect: `expect` takes a rate"],
    );
    check(
        "2027-06-01",
        "\"2027-06-01\"",
        &["24 flow.reserve-stock.check[1].review_by: `review_by` takes a date without"],
    );
    check(
        "2027-06-01",
        "2027-06-01T00:00:00Z",
        &["24 flow.reserve-stock.check[1].review_by: `review_by` takes a date alone"],
    );
    check(
        "rows = 1",
        "rows = \"3..1\"",
        &["30 flow.reserve-stock.apply.rows: `rows` takes a number of rows"],
    );
    check("rows = 1", "rows = -1", &["30 flow.reserve-stock.apply.rows: `rows` takes a number of rows"]);
    check("url = \"sqlite:shop.db\"", "url = 7", &["4 database.shop.url: `url` takes a text"]);
    check(
        "[database.shop]\n",
        "[database]\n",
        &[
            "4 database.url: `database.url` must be a table",
            "27 flow.reserve-stock.apply.database: there is no database",
            "43 reconcile[0].right.database: there is no database",
        ],
    );
    check(
        "[flow.reserve-stock]",
        "[flow.Reserve]\n[flow.reserve-stock]",
        &[
            "5 flow.Reserve.owner",
            "5 flow.Reserve.purpose",
            "5 flow.Reserve.source",
            "5 flow.Reserve: flow name \"Reserve\"",
        ],
    );
}

#[test]
fn checks_and_reasons() {
    check(
        "otherwise = \"skip\"\n",
        "",
        &["13 flow.reserve-stock.check[0].otherwise: `[[flow.NAME.check]]` has no `otherwise`"],
    );
    check(
        "because = \"an order",
        "#",
        &["13 flow.reserve-stock.check[0].because: `[[flow.NAME.check]]` has no `because`"],
    );
    check(
        "that = \"event.quantity > 0\"\n",
        "",
        &["13 flow.reserve-stock.check[0].that: `[[flow.NAME.check]]` has no `that`"],
    );
    check(
        "at_most = \"2% of 1000\"\n",
        "",
        &["13 flow.reserve-stock.check[0].at_most: zero_quantity has no `at_most`"],
    );
    check(
        "at_most = \"3% of 1000\"\n",
        "",
        &["19 flow.reserve-stock.check[1].at_most: bulk_order has no `at_most`"],
    );
    check("otherwise = \"skip\"\nat_most = \"2% of 1000\"\n", "otherwise = \"dead-letter\"\n", &[]);
    check(
        "otherwise = \"skip\"",
        "otherwise = \"retry\"",
        &["16 flow.reserve-stock.check[0].otherwise: `otherwise` can't be \"retry\""],
    );
    check(
        "\"2% of 1000\"",
        "\"2 percent\"",
        &["17 flow.reserve-stock.check[0].at_most: \"2 percent\" is not a budget"],
    );
    check(
        "\"zero_quantity\"",
        "\"Zero-Quantity\"",
        &["14 flow.reserve-stock.check[0].reason: \"Zero-Quantity\" is not a reason code"],
    );
    check(
        "\"zero_quantity\"",
        "\"no_id\"",
        &["14 flow.reserve-stock.check[0].reason: no_id is a built-in reason"],
    );
    check(
        "\"bulk_order\"",
        "\"zero_quantity\"",
        &[
            "20 flow.reserve-stock.check[1].reason: the reason zero_quantity is declared twice in this flow; first in line 14",
        ],
    );
    check(
        "\"insufficient_stock\"",
        "\"unknown_sku\"",
        &[
            "38 flow.reserve-stock.apply.otherwise[1].reason: the reason unknown_sku is declared twice in this flow; first in line 34",
        ],
    );
    check(
        "id = ",
        "at_most = { duplicat = \"any\" }\nid = ",
        &["9 flow.reserve-stock.at_most.duplicat: duplicat is not a built-in reason"],
    );
    check(
        "id = ",
        "at_most = { duplicate = \"x\" }\nid = ",
        &["9 flow.reserve-stock.at_most.duplicate: \"x\" is not a budget"],
    );
    check(
        "id = ",
        "breaker = { share = \"5% per 1h\" }\nid = ",
        &["9 flow.reserve-stock.breaker.share: the breaker looks at the last so many events"],
    );
}

#[test]
fn sources_and_what_comes_later() {
    let file = "source = { file = \"orders.ndjson\" }";
    check(file, "source = {}", &["8 flow.reserve-stock.source: the source names neither `file` nor `http`"]);
    check(
        file,
        "source = { file = \"a\", http = \"/a\" }",
        &["8 flow.reserve-stock.source.http: a flow has one source"],
    );
    check(
        file,
        "source = { broker = \"main\" }",
        &["8 flow.reserve-stock.source.broker: there is no broker named \"main\""],
    );
    check(
        file,
        "source = { broker = \"main\" }\n[broker.main]\n[flow.reserve-stock.x]",
        &[
            "8 flow.reserve-stock.source.broker: sources on a broker come later: this build has the sources `file` and `http`",
            "10 flow.reserve-stock.x: unknown key",
        ],
    );
    check(
        "[ledger]",
        "[broker.main]\nkafka = { servers = \"a:1\" }\n[ledger]",
        &["2 broker.main.kafka: `kafka` comes later: this build has the sources `file` and `http`"],
    );
    check(
        "sqlite:shop.db",
        "postgres://localhost/shop",
        &[
            "4 database.shop.url: PostgreSQL comes later: this build has effects in SQLite and through HTTP handlers",
        ],
    );
    check(
        "sqlite:shop.db",
        "mysql://localhost/shop",
        &["4 database.shop.url: this is not a database that Recount knows"],
    );
    check("sqlite:shop.db", "sqlite::memory:", &["4 database.shop.url: a database in memory would forget"]);
    check(
        "path = \"book\"",
        "database = \"ops\"",
        &["2 ledger.database: `database` comes later: this build has the embedded ledger"],
    );
    check(
        "id = ",
        "decode = \"avro\"\nid = ",
        &["9 flow.reserve-stock.decode: avro comes later, with a schema registry"],
    );
    check("id = ", "mode = \"observe\"\nid = ", &["9 flow.reserve-stock.mode: `observe` comes later"]);
    check(
        "id = ",
        "dedupe = \"exact\"\nid = ",
        &["9 flow.reserve-stock.dedupe: `dedupe = \"exact\"` comes later"],
    );
    check(
        "rows = 1",
        "rows = 1\nsqlstates = [\"P0001\"]",
        &["31 flow.reserve-stock.apply.sqlstates: `sqlstates` comes later: SQLite has no SQLSTATEs"],
    );
    check(
        file,
        "source = { file = \"-\", follow = true }",
        &["8 flow.reserve-stock.source.follow: standard input can't be followed"],
    );
    check(
        file,
        "source = { file = \"a.gz\", follow = true }",
        &["8 flow.reserve-stock.source.follow: a packed file can't be followed"],
    );
    check(
        file,
        "source = { http = \"orders\" }",
        &["8 flow.reserve-stock.source.http: \"orders\" is not a path"],
    );
    check(
        file,
        "source = { http = \"/v1/orders\" }",
        &["8 flow.reserve-stock.source.http: /v1 is Recount's own"],
    );
    check(
        file,
        "source = { http = \"/a\" }\n[flow.b]\nowner = \"o\"\npurpose = \"p\"\nsource = { http = \"/a\" }",
        &["12 flow.b.source.http: flow reserve-stock takes events under /a already"],
    );
}

#[test]
fn who_may_reach_it_and_secrets() {
    let server = |keys: &str| format!("[server]\n{keys}\n[ledger]");
    check(
        "[ledger]",
        &server("listen = \"0.0.0.0:7601\""),
        &["2 server.listen: 0.0.0.0:7601 can be reached from other machines"],
    );
    check("[ledger]", &server("listen = \"0.0.0.0:7601\"\ntoken = \"${RECOUNT_TOKEN}\""), &[]);
    check("[ledger]", &server("listen = \"[::1]:7601\""), &[]);
    check("[ledger]", &server("listen = \"localhost:7601\""), &[]);
    check(
        "[ledger]",
        &server("listen = \"7601\""),
        &["2 server.listen: `listen` takes an address and a port"],
    );
    check("[ledger]", &server("token = \"hunter2\""), &["2 server.token: `token` holds a secret"]);
    check("[ledger]", &server("token = { file = \"token\" }"), &[]);
    check(
        "[ledger]",
        &server("token = { path = \"token\" }"),
        &["2 server.token: `token` takes \"${NAME}\" or { file"],
    );
    check(
        "sqlite:shop.db",
        "postgres://me:hunter2@db/shop",
        &["4 database.shop.url: the url holds a password", "4 database.shop.url: PostgreSQL comes later"],
    );
    for text in [
        RIGHT.replace("[ledger]", &server("token = \"hunter2\"")),
        RIGHT.replace("[ledger]", &server("password = \"hunter2\"")),
        RIGHT.replace("[ledger]", &server("token = \"hunter2")),
        RIGHT.replace("sqlite:shop.db", "postgres://me:hunter2@db/shop"),
        RIGHT.replace("url = \"sqlite:shop.db\"", "url = \"sqlite:shop.db\"\npassword = \"hunter2\""),
    ] {
        let faults = load(&text).unwrap_err();
        let shown = format!("{faults} {}", serde_json::to_string(&faults).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn effects() {
    check(
        "database = \"shop\"\nsql",
        "sql",
        &["26 flow.reserve-stock.apply.database: this `apply` doesn't say in which `database`"],
    );
    check(
        "database = \"shop\"\nsql",
        "database = \"shup\"\nsql",
        &["27 flow.reserve-stock.apply.database: there is no database named \"shup\""],
    );
    check("rows = 1\n", "", &["26 flow.reserve-stock.apply: this `apply` doesn't say how many `rows`"]);
    check(
        "rows = 1",
        "rows = [1, 2]",
        &["30 flow.reserve-stock.apply.rows: `rows` lists 2 numbers for 1 statements"],
    );
    check(
        "quantity = \"event.quantity\", ",
        "",
        &["28 flow.reserve-stock.apply.sql: the statement names :quantity, and `with` doesn't"],
    );
    check(
        ", sku = \"event.sku\"",
        "",
        &[
            "28 flow.reserve-stock.apply.sql: the statement names :sku",
            "32 flow.reserve-stock.apply.otherwise[0].when: the statement names :sku",
        ],
    );
    check(
        "\"UPDATE stock",
        "\"COMMIT; UPDATE stock",
        &["28 flow.reserve-stock.apply.sql: this text holds 2 statements"],
    );
    check(
        "\"UPDATE stock",
        "\"UPDATE OR ROLLBACK stock",
        &["28 flow.reserve-stock.apply.sql: OR ROLLBACK would end"],
    );
    check(
        "\"SELECT NOT EXISTS",
        "\"DELETE FROM a WHERE EXISTS",
        &["32 flow.reserve-stock.apply.otherwise[0].when: a query begins with SELECT"],
    );
    check(
        "when = \"SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)\"\n",
        "",
        &["31 flow.reserve-stock.apply.otherwise[0]: this `otherwise` always holds"],
    );
    check(
        "rows = 1",
        "rows = 1\nhttp = \"http://a/b\"",
        &["31 flow.reserve-stock.apply.http: an `apply` is either SQL or a handler"],
    );
    check(
        "rows = 1",
        "rows = 1\ndeadline = \"1s\"",
        &["31 flow.reserve-stock.apply.deadline: `deadline` stands only with `http`"],
    );
    check(
        "rows = 1",
        "rows = 1\neffects = { id = \"x\" }",
        &["31 flow.reserve-stock.apply.effects.sql: `[flow.NAME.apply.effects]` has no `sql`"],
    );
    check(
        "rows = 1",
        "rows = 1\neffects = \"some\"",
        &["31 flow.reserve-stock.apply.effects: `effects` can't be \"some\""],
    );
    check(
        "verdict = \"retry\"",
        "verdict = \"skip\"",
        &["36 flow.reserve-stock.apply.otherwise[1].at_most: insufficient_stock has no `at_most`"],
    );
    let sql = "[[flow.b.apply]]\ndatabase = \"shop\"\nsql = \"DELETE FROM stock\"\nrows = \"any\"\n";
    let flow = |applies: &str| {
        format!(
            "[flow.b]\nowner = \"o\"\npurpose = \"p\"\nsource = {{ file = \"b\" }}\n{applies}[[reconcile]]"
        )
    };
    check("[[reconcile]]", &flow(sql), &[]);
    check(
        "[[reconcile]]",
        &flow(&format!("{sql}{sql}")),
        &["44 flow.b.apply[0]: this `apply` takes every event"],
    );
    check("[[reconcile]]", &flow(&format!("{sql}when = \"meta.type == 'a'\"\n{sql}")), &[]);
    check(
        "[[reconcile]]",
        &flow(&format!("{sql}when = \"true\"\n[[flow.b.apply]]\nhttp = \"http://a/b\"\n")),
        &["50 flow.b.apply[1].http: all `apply` of a flow are of one kind"],
    );
    check(
        "[[reconcile]]",
        &flow(&format!("{sql}when = \"true\"\n{sql}effects = \"none\"\n")),
        &["53 flow.b.apply[1].effects: all `apply` of a flow count their effects in the same way"],
    );
    check(
        "[[reconcile]]",
        &flow(
            "[flow.b.apply]\nhttp = \"http://a/b\"\n[[flow.b.apply.reason]]\nreason = \"declined\"\nverdict = \"dead-letter\"\nbecause = \"the bank said no\"\n",
        ),
        &[],
    );
    check(
        "[[reconcile]]",
        &flow("[flow.b.apply]\nhttp = \"http://a:b@c/d\"\n"),
        &["45 flow.b.apply.http: the address holds a name or password"],
    );
    check(
        "[[reconcile]]",
        &flow("[flow.b.apply]\nhttp = \"localhost\"\nrows = 1\n"),
        &[
            "45 flow.b.apply.http: \"localhost\" is not the address of a handler",
            "46 flow.b.apply.rows: `rows` stands only with `sql`",
        ],
    );
    check(
        "[[reconcile]]",
        &flow("[flow.b.apply]\n"),
        &["44 flow.b.apply: this `apply` names neither `sql` nor `http`"],
    );
}

#[test]
fn reconciles() {
    check(
        "flow = \"reserve-stock\"",
        "flow = \"reserve-stok\"",
        &["42 reconcile[0].left.flow: there is no flow named \"reserve-stok\""],
    );
    check(
        "[\"unknown_sku\"]",
        "[\"unknown_sky\"]",
        &["42 reconcile[0].left.less[0]: flow reserve-stock never gives the reason \"unknown_sky\""],
    );
    check("[\"unknown_sku\"]", "[\"bulk_order\"]", &["42 reconcile[0].left.less[0]: bulk_order only flags"]);
    check("less = [", "of = \"applied\", less = [", &["42 reconcile[0].left.less: `less` stands only with"]);
    check(
        "{ database = \"shop\", sql = \"SELECT sum",
        "{ database = \"shup\", sql = \"SELECT sum",
        &["43 reconcile[0].right.database: there is no database named \"shup\""],
    );
    check(
        "\"SELECT sum(10000",
        "\"SELECT sum(:x",
        &["43 reconcile[0].right.sql: this query has no parameters, and names :x"],
    );
    check(
        "right = { database",
        "right = { flow = \"a\", database",
        &["43 reconcile[0].right.flow: `flow` comes later"],
    );
    check(
        "name = \"units\"",
        "tolerance = -1",
        &[
            "40 reconcile[0].name: `[[reconcile]]` has no `name`",
            "41 reconcile[0].tolerance: `tolerance` must be a decimal",
        ],
    );
}

#[test]
fn schemas_and_the_fields_that_expressions_name() {
    check(
        "order.schema.json",
        "none.json",
        &["11 flow.reserve-stock.schema: the schema none.json can't be read"],
    );
    check(
        "order.schema.json",
        "broken.json",
        &["11 flow.reserve-stock.schema: the schema broken.json is not JSON"],
    );
    check("order.schema.json", "wrong.json", &["11 flow.reserve-stock.schema: "]);
    check("event.quantity > 0", "event.quantity >", &["15 flow.reserve-stock.check[0].that: "]);
    check("id = \"event.id\"", "id = \"evnt.id\"", &["9 flow.reserve-stock.id: "]);
    check("sku = \"event.sku\" }", "sku = \"event.sku +\" }", &["29 flow.reserve-stock.apply.with.sku: "]);
    check("sum = \"event.quantity\"", "sum = \"sum(event.quantity)\"", &["42 reconcile[0].left.sum: "]);
    check(
        "event.quantity > 0",
        "event.quantitiy > 0",
        &["15 flow.reserve-stock.check[0].that: the schema has no event.quantitiy"],
    );
    check(
        "event.customer_id",
        "event.customer",
        &["12 flow.reserve-stock.secret[0]: the schema has no event.customer"],
    );
    check(
        "\"event.quantity\", sku",
        "\"event.quant\", sku",
        &["29 flow.reserve-stock.apply.with.quantity: the schema has no event.quant"],
    );
    check(
        "sum = \"event.quantity\"",
        "sum = \"event.amount\"",
        &["42 reconcile[0].left.sum: the schema has no event.amount"],
    );
}

#[test]
fn syntax_errors_are_told_together_with_what_could_be_read() {
    check("owner = \"inventory team\"", "owner = ", &["6 : not TOML: "]);
    check("id = \"event.id\"", "id = \"event.id\"\nid = \"again\"", &["10 : not TOML: duplicate key"]);
    check(
        "id = \"event.id\"",
        "id = \nidd = 1",
        &["9 : not TOML: ", "10 flow.reserve-stock.idd: unknown key"],
    );
}

#[test]
fn faults_are_shown_as_rustc_shows_them() {
    let text = RIGHT
        .replace("otherwise = \"skip\"", "otherwize = \"skip\"")
        .replace("because = \"no such", "becuase = \"no such");
    let mut faults = load(&text).unwrap_err();
    for fault in &mut faults.faults {
        fault.file = "recount.toml".into();
    }
    expect![[r#"
        error: `[[flow.NAME.check]]` has no `otherwise`
          --> recount.toml:13:1
           |
        13 | [[flow.reserve-stock.check]]
           | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           = help: write: otherwise = "skip"
                   (What then. `flag`: it passes and is counted, an assumption)

        error: unknown key `otherwize` in `[[flow.NAME.check]]`
          --> recount.toml:16:1
           |
        16 | otherwize = ******
           | ^^^^^^^^^
           = help: did you mean `otherwise`?

        error: `[[flow.NAME.apply.otherwise]]` has no `because`
          --> recount.toml:31:1
           |
        31 | [[flow.reserve-stock.apply.otherwise]]
           | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           = help: write: because = "no such article"
                   (Why, in one sentence)

        error: unknown key `becuase` in `[[flow.NAME.apply.otherwise]]`
          --> recount.toml:35:1
           |
        35 | becuase = *****************
           | ^^^^^^^
           = help: did you mean `because`?

        4 faults in recount.toml; nothing was started"#]]
    .assert_eq(&faults.to_string());
}

#[test]
fn all_defaults_and_examples_can_be_read() {
    fn visit(spec: &'static spec::TableSpec) {
        for key in spec.keys {
            if let spec::Need::Default(text) = key.need {
                assert!(raw::read_default(key, text).is_some(), "{} {} = {text}", spec.header, key.name);
            } else if !key.example.is_empty()
                && !matches!(key.kind, spec::Kind::Later(_) | spec::Kind::Table(_))
            {
                assert!(raw::read_default(key, key.example).is_some(), "{} {}", spec.header, key.name);
            }
            match key.kind {
                spec::Kind::Table(within)
                | spec::Kind::WordOrTable(_, within)
                | spec::Kind::Named(within)
                | spec::Kind::Tables(within)
                | spec::Kind::OneOrMore(within) => visit(within),
                _ => {}
            }
        }
    }
    visit(&ROOT);
}

#[test]
fn the_config_reference_is_what_the_description_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config-reference.md");
    if std::env::var_os("RECOUNT_WRITE_DOCS").is_some() {
        std::fs::write(path, reference::markdown()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == reference::markdown(),
        "docs/config-reference.md is not up to date: RECOUNT_WRITE_DOCS=1 cargo test -p recount config_reference"
    );
}

#[test]
fn a_config_version_is_its_text_and_schemas() {
    let one = load(RIGHT).unwrap();
    let other = load(&RIGHT.replace("60s", "61s")).unwrap();
    assert_ne!(one.hash(), other.hash());
    assert_eq!(one.hash(), load(RIGHT).unwrap().hash());
    let stored = one.stored(recount_model::Timestamp(0));
    assert_eq!((stored.text.as_str(), stored.files[0].0.as_str()), (RIGHT, "order.schema.json"));
    assert!(!stored.author.is_empty() && !stored.revision.is_empty());
}
