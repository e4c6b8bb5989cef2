//! Faults of keys, checks, sources and secrets, one line a case.

use super::{RIGHT, check, load};

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
        &["9 flow.reserve-stock.depth_max: `depth_max` must lie between 1 and 127"],
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
    check(
        file,
        "source = {}",
        &["8 flow.reserve-stock.source: the source names neither `file`, `http` nor `broker`"],
    );
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
            "8 flow.reserve-stock.source: the source names a broker, and no `topic`",
            "8 flow.reserve-stock.source: the source names a topic, and no `group`",
            "9 broker.main: the broker does not say what it is",
            "10 flow.reserve-stock.x: unknown key",
        ],
    );
    check(
        "[ledger]",
        "[broker.main]\nnats = { servers = \"a:1\" }\n[ledger]",
        &[
            "1 broker.main: the broker does not say what it is",
            "2 broker.main.nats: `nats` comes later: this build has the sources `file`, `http` and Kafka",
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
        &["2 ledger.database: there is no database named \"ops\""],
    );
    check(
        "path = \"book\"",
        "database = \"shop\"",
        &[
            "2 ledger.database: [database.shop] is a SQLite file, and a ledger for several processes is in PostgreSQL",
        ],
    );
    check(
        "id = ",
        "decode = \"avro\"\nid = ",
        &["9 flow.reserve-stock.decode: avro comes later, with a schema registry"],
    );
    check(
        "id = ",
        "dedupe = \"exact\"\nid = ",
        &["9 flow.reserve-stock.dedupe: `dedupe = \"exact\"` comes later"],
    );
    check(
        "rows = 1",
        "rows = 1\nsqlstates = [\"P0001\"]",
        &["31 flow.reserve-stock.apply.sqlstates: `sqlstates` stands only with a database in PostgreSQL"],
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
fn where_spans_go_and_where_a_trace_is_found() {
    let tracing = |keys: &str| format!("[tracing]\n{keys}\n[ledger]");
    check("[ledger]", &tracing("otlp = \"http://localhost:4318\""), &[]);
    check("[ledger]", &tracing("service = \"stock\""), &["1 tracing.otlp: `[tracing]` has no `otlp`"]);
    let not_http = &["2 tracing.otlp: `otlp` takes an address with http:// or https://"];
    check("[ledger]", &tracing("otlp = \"localhost:4317\""), not_http);
    check(
        "[ledger]",
        &tracing("otlp = \"http://o\"\ntoken = \"hunter2\""),
        &["3 tracing.token: `token` holds a secret"],
    );
    let traced = |expression: &str| format!("traceparent = '{expression}'\nid = ");
    check("id = ", &traced("event.type"), &[]);
    check("id = ", &traced("event.typ"), &["9 flow.reserve-stock.traceparent: the schema has no event.typ"]);
    let secret = &["9 flow.reserve-stock.traceparent: it is taken from a secret field"];
    check("id = ", &traced("event.customer_id"), secret);
    let hidden = traced("meta.headers[\"x-trace\"]").replace("id = ", "");
    let text = RIGHT.replacen("secret = [", &format!("{hidden}secret = ['meta.headers[\"x-trace\"]', "), 1);
    let faults = load(&text).unwrap_err();
    assert!(faults.to_string().contains("it is taken from a secret field"), "{faults}");
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
        &server("token = { file = \"token\" }\nhmac = \"${RECOUNT_HMAC}\""),
        &["3 server.hmac: senders show either a token or a signature, and this names both"],
    );
    check(
        "[ledger]",
        &server("token = { path = \"token\" }"),
        &["2 server.token: `token` takes \"${NAME}\" or { file"],
    );
    check(
        "sqlite:shop.db",
        "postgres://me:hunter2@db/shop",
        &["4 database.shop.url: the url holds a password"],
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
