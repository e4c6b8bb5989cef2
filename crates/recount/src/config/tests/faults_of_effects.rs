//! Faults of effects, reconciles and schemas, one line a case.

use super::check;

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
        &["31 flow.reserve-stock.apply.effects: `effects` has no `sql`: a query with one row an effect"],
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
        &flow(
            "[[flow.b.apply]]\nhttp = \"http://a/b\"\nwhen = \"true\"\n[[flow.b.apply]]\nhttp = \"http://a/c\"\n",
        ),
        &["48 flow.b.apply[1].http: one handler a flow for now"],
    );
    check(
        "[[reconcile]]",
        &flow("[flow.b.apply]\n"),
        &["44 flow.b.apply: this `apply` names neither `sql` nor `http`"],
    );
}

#[test]
fn handlers_in_rust() {
    let flow = |apply: &str| {
        format!("[flow.b]\nowner = \"o\"\npurpose = \"p\"\nsource = {{ file = \"b\" }}\n{apply}[[reconcile]]")
    };
    let (begin, many) = ("[flow.b.apply]\n", "[[flow.b.apply]]\n");
    let right = "handler = \"reserve\"\ndatabase = \"shop\"\nwith = { sku = \"event.sku\" }\n";
    let reason =
        "[[flow.b.apply.reason]]\nreason = \"sold_out\"\nverdict = \"skip\"\nbecause = \"none left\"\n";
    let budget = "at_most = \"any\"\n";
    let own = "effects = { sql = \"SELECT id FROM movement\", id = \"id\" }\n";
    for (apply, expected) in [
        (format!("{begin}{right}{reason}{budget}"), vec![]),
        (format!("{begin}{right}{own}"), vec![]),
        (
            format!("{begin}handler = \"reserve\"\n"),
            vec!["44 flow.b.apply.database: this `apply` doesn't say in which"],
        ),
        (
            format!("{begin}handler = \"reserve\"\ndatabase = \"shup\"\n"),
            vec!["46 flow.b.apply.database: there is no database named \"shup\""],
        ),
        (
            format!("{begin}handler = \"\"\ndatabase = \"shop\"\n"),
            vec!["45 flow.b.apply.handler: `handler` is empty"],
        ),
        (
            format!("{begin}{right}sql = \"DELETE FROM stock\"\nrows = 1\n"),
            vec!["45 flow.b.apply.handler: an `apply` is either SQL or a handler"],
        ),
        (
            format!("{begin}{right}http = \"http://a/b\"\n"),
            vec!["45 flow.b.apply.handler: an `apply` is either SQL or a handler"],
        ),
        (format!("{begin}{right}rows = 1\n"), vec!["48 flow.b.apply.rows: `rows` stands only with `sql`"]),
        (
            format!("{begin}{right}deadline = \"1s\"\n"),
            vec!["48 flow.b.apply.deadline: `deadline` stands only with `http`"],
        ),
        (
            format!(
                "{begin}{right}[[flow.b.apply.otherwise]]\nverdict = \"retry\"\nreason = \"later\"\nbecause = \"no\"\n"
            ),
            vec!["48 flow.b.apply.otherwise: `otherwise` stands only with `sql`"],
        ),
        (
            format!("{begin}{right}{reason}"),
            vec!["48 flow.b.apply.reason[0].at_most: sold_out has no `at_most`"],
        ),
        (
            format!("{begin}{right}{reason}{budget}{reason}{budget}"),
            vec!["54 flow.b.apply.reason[1].reason: the reason sold_out is declared twice"],
        ),
        (
            format!("{begin}{right}{}", reason.replace("sold_out", "handler_panicked")),
            vec![
                "48 flow.b.apply.reason[0].at_most: handler_panicked has no `at_most`",
                "49 flow.b.apply.reason[0].reason: handler_panicked is a built-in reason",
            ],
        ),
        (
            format!("{many}{right}when = \"true\"\n{many}{right}"),
            vec!["50 flow.b.apply[1].handler: one handler a flow for now"],
        ),
        (
            format!("{many}{right}when = \"true\"\n{many}http = \"http://a/b\"\n"),
            vec!["50 flow.b.apply[1].http: all `apply` of a flow are of one kind"],
        ),
        (
            format!("{begin}database = \"shop\"\nsql = \"DELETE FROM stock\"\nrows = 1\n{reason}{budget}"),
            vec!["48 flow.b.apply.reason: `reason` stands only with `http` or `handler`"],
        ),
    ] {
        check("[[reconcile]]", &flow(&apply), &expected);
    }
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
