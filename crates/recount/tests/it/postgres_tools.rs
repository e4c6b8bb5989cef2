//! What tries things out and prepares them, for flows whose effects are in PostgreSQL.

use crate::harness::{order, orders, statement};
use crate::postgres::{Shop, UNITS};

/// Everything that somebody could see: rows, relations, and what holds locks.
fn seen(shop: &Shop) -> String {
    let relations = "SELECT string_agg(n.nspname || '.' || relname, ' ' ORDER BY relname) FROM pg_class c \
                     JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> \
                     'information_schema'";
    let functions = "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname = \
                     'public'";
    let stock = "SELECT string_agg(sku || '=' || on_hand, ' ' ORDER BY sku) FROM stock";
    [relations, functions, stock].map(|sql| shop.sql(sql)).join("\n")
}

#[test]
fn a_dry_run_decides_as_a_run_would_and_leaves_nothing() {
    let Some(shop) = Shop::open("", UNITS) else { return };
    // 60 and 60 of the same article: the second is short only where the first is seen.
    shop.world.lines(&[
        order("o0", "a", 60),
        order("o1", "a", 60),
        order("o2", "none", 1),
        order("o3", "b", 4),
    ]);
    let before = seen(&shop);
    let dry = shop.world.recount(&["run", "recount.toml", "--dry-run", "--json"]).expect(0);
    assert!(dry.err.contains("in a transaction that is rolled back"), "{}", dry.err);
    let report = dry.json();
    for equation in ["E1", "E2", "E3"] {
        assert_eq!(statement(&report, equation)["status"], "balanced", "{report}");
    }
    assert_eq!(statement(&report, "E2")["strength"], "counted");
    let books = &report["flows"][0]["books"];
    assert_eq!((books["applied"].as_u64(), books["dead-lettered"].as_u64()), (Some(2), Some(2)), "{report}");
    assert_eq!(seen(&shop), before);
    assert!(!shop.world.path("recount-data").exists(), "the ledger is thrown away");

    shop.world.recount(&["run", "recount.toml"]).expect(0);
    let after = seen(&shop);
    let again = shop.world.recount(&["run", "recount.toml", "--dry-run", "--json"]).json();
    // It decides from the first event on, with what the database holds now: 40 of a, which takes neither.
    assert_eq!(again["flows"][0]["decided_now"], 4, "{again}");
    assert_eq!(seen(&shop), after);
    assert_eq!(shop.sql("SELECT seq || ' ' || next_offset FROM recount_position"), "1 4");
}

#[test]
fn a_dry_run_of_a_replay_says_what_it_would_be_and_leaves_nothing() {
    let Some(shop) = Shop::open("", "") else { return };
    shop.world.lines(&[order("o0", "none", 3), order("o1", "a", 1), order("o2", "none", 4)]);
    shop.world.recount(&["run", "recount.toml"]).expect(0);
    shop.sql("INSERT INTO stock VALUES ('none', 5)");
    let before = seen(&shop);
    let replay = ["replay", "stock", "--reason", "unknown_sku", "--dry-run"];
    let told = shop.world.recount(&replay).expect(0).all();
    // Five on hand: three are taken, and then four are too many.
    assert!(told.contains("tried in a transaction that was rolled back"), "{told}");
    assert!(told.contains("1  would be applied"), "{told}");
    assert!(told.contains("1  would be dead-lettered insufficient_stock"), "{told}");
    assert_eq!(seen(&shop), before);
    assert_eq!(shop.sql("SELECT count(*) FROM recount_replay"), "0");
    assert_eq!(shop.sql("SELECT count(*) FROM recount_effect"), "1");
}

#[test]
fn a_dry_run_whose_connection_is_cut_stops_and_leaves_nothing() {
    let Some(shop) = Shop::open("", "") else { return };
    shop.sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN new; \
              END $$; CREATE TRIGGER slow BEFORE UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION slow()");
    shop.world.lines(&orders(0..60, "a"));
    let before = seen(&shop);
    let mut running = shop.world.start(&["run", "recount.toml", "--dry-run"]);
    crate::harness::eventually("it is at work", || {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE \
                   'recount %' AND datname = current_database() AND query LIKE '%recount_guarded(%' AND xact_start < \
                   clock_timestamp() - interval '0.2 s'";
        shop.sql(cut) != "0"
    });
    let ended = running.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.all());
    assert!(ended.all().contains("the dry run's connection is gone"), "{}", ended.all());
    assert_eq!(seen(&shop), before);
}

#[test]
fn two_flows_that_change_one_postgresql_database_are_tried_one_by_one() {
    let Some(shop) = Shop::open("", "") else { return };
    let text = std::fs::read_to_string(shop.world.path("recount.toml")).unwrap();
    let at = text.find("[flow.stock]").expect("the harness writes one flow");
    let flow = text[at..].replace("flow.stock", "flow.second");
    std::fs::write(shop.world.path("recount.toml"), format!("{text}\n{flow}")).unwrap();
    shop.world.lines(&[order("o0", "a", 1)]);
    let refused = shop.world.recount(&["run", "recount.toml", "--dry-run"]).expect(2);
    assert!(refused.err.contains("name one, with --flow stock"), "{}", refused.err);
    shop.world.recount(&["run", "recount.toml", "--dry-run", "--flow", "second"]).expect(0);
    assert_eq!(shop.on_hand("a"), "100");
}

#[test]
fn a_database_is_prepared_on_consent_and_validate_says_what_it_asked() {
    let Some(shop) = Shop::open("", "") else { return };
    let validate = || shop.world.recount(&["validate", "recount.toml"]).expect(0).all();
    assert!(
        validate().contains("recount_effect are made in schema public at the first start"),
        "{}",
        validate()
    );
    let printed = shop.world.recount(&["validate", "recount.toml", "--prepare"]).expect(0);
    for part in [
        "CREATE TABLE IF NOT EXISTS recount_position",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON",
        "GRANT TEMP",
    ] {
        assert!(printed.out.contains(part), "{}", printed.out);
    }
    assert!(printed.err.contains("nothing was changed"), "{}", printed.err);
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'recount_%'";
    assert_eq!(shop.sql(tables), "0");
    // What is printed runs as it stands, and after it nothing is missing.
    shop.server.sql(&shop.database, &printed.out).unwrap();
    assert_eq!(shop.sql(tables), "5");
    shop.world.recount(&["validate", "recount.toml", "--prepare", "--yes"]).expect(0);
    let told = validate();
    for part in ["the recount_* tables are there", "synchronous_commit on", "as role ", "inside the server"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_role_that_may_make_nothing_is_told_what_to_have_run() {
    let Some(shop) = Shop::open("", "") else { return };
    let role = format!("clerk_{}", shop.database);
    let place = format!("/{}", shop.database);
    shop.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM PUBLIC; REVOKE TEMP ON DATABASE {} \
         FROM PUBLIC; GRANT SELECT, UPDATE ON stock TO {role}",
        shop.database
    ));
    let path = shop.world.path("recount.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("url = \"").unwrap();
    let (url, rest) = rest.split_once('"').unwrap();
    let (scheme, address) = url.split_once("://").unwrap();
    let host = address.rsplit('@').next().unwrap();
    assert!(host.ends_with(&place), "{host}");
    std::fs::write(&path, format!("{head}url = \"{scheme}://{role}@{host}\"{rest}")).unwrap();
    shop.world.lines(&[order("o0", "a", 3)]);
    let validated = shop.world.recount(&["validate", "recount.toml"]).all();
    assert!(validated.contains("have the owner run what `recount validate --prepare` prints"), "{validated}");
    assert!(
        validated.contains("statement by statement: the role may not make temporary objects"),
        "{validated}"
    );
    let refused = shop.world.recount(&["validate", "recount.toml", "--prepare", "--yes"]).expect(4);
    assert!(refused.err.contains("permission denied"), "{}", refused.err);
    let printed = shop.world.recount(&["validate", "recount.toml", "--prepare"]).expect(0).out;
    shop.server.sql(&shop.database, &printed).unwrap();
    let validated = shop.world.recount(&["validate", "recount.toml"]).expect(0).all();
    assert!(validated.contains("a batch runs inside the server"), "{validated}");
    shop.world.recount(&["run", "recount.toml"]).expect(0);
    assert_eq!(shop.on_hand("a"), "97");
}

#[test]
fn declared_sqlstates_are_read_checked_and_told() {
    let declared = "sqlstates = [\"P0002\"]\n[[flow.stock.apply.otherwise]]\nsqlstates = [\"23514\"]\nverdict = \
                    \"dead-letter\"\nreason = \"shelf_is_full\"\nbecause = \"the shelf holds no more\"\n";
    let Some(shop) = Shop::open("", "") else { return };
    let path = shop.world.path("recount.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let with = |declared: &str| {
        text.replace("effects = \"recount_effect\"\n", &format!("effects = \"recount_effect\"\n{declared}"))
    };
    std::fs::write(&path, with(declared)).unwrap();
    // The harness's statement adds what is negative.
    shop.world.lines(&[order("o0", "a", -99_999), order("o1", "a", 1)]);
    shop.world.recount(&["run", "recount.toml"]).expect(0);
    assert_eq!(shop.world.fates(), ["dead-lettered shelf_is_full", "applied"]);
    let told = shop.world.recount(&["explain", "shelf_is_full"]).expect(0).all();
    assert!(told.contains("SQLSTATE 23514"), "{told}");

    for (wrong, says) in [
        ("sqlstates = [\"40001\"]\n", "40001 is never an event's fault"),
        ("sqlstates = [\"42\"]\n", "42 is never an event's fault"),
        ("sqlstates = [\"unique\"]\n", "\"unique\" is no SQLSTATE"),
    ] {
        std::fs::write(&path, with(wrong)).unwrap();
        let refused = shop.world.recount(&["validate", "recount.toml"]).expect(2).all();
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn one_event_is_decided_again_against_the_rows_of_now_and_nothing_is_changed() {
    let Some(shop) = Shop::open("", "") else { return };
    shop.world.lines(&[order("o0", "a", 3), order("o1", "b", 200), order("o2", "b", 4)]);
    shop.world.recount(&["run", "recount.toml"]).expect(0);
    let reproduced = shop.world.recount(&["reproduce", "stock/0/1", "--to", "again"]).expect(0).all();
    assert!(reproduced.contains("recount run again/recount.toml --dry-run"), "{reproduced}");
    let before = seen(&shop);
    let dry = ["run", "again/recount.toml", "--dry-run", "--json"];
    let reason = || shop.world.recount(&dry).json()["flows"][0]["books"]["reasons"].to_string();
    assert!(reason().contains("insufficient_stock"), "{}", reason());
    assert_eq!(seen(&shop), before);
    shop.sql("UPDATE stock SET on_hand = 500 WHERE sku = 'b'");
    assert_eq!(reason(), "[]", "now there is enough of it");
    assert_eq!(shop.on_hand("b"), "500");
    assert!(!shop.world.path("again/ledger").exists());
}
