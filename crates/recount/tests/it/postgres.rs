//! The same flow with its effects in PostgreSQL: run, audit, story, replay, kill and restored databases.

use crate::harness::{TAKE_FROM_STOCK, Told, World, config, eventually, order, orders, statement};
use recount_services::Postgres;
use std::process::Command;

pub struct Shop {
    pub world: World,
    pub server: &'static Postgres,
    pub database: String,
}

impl Shop {
    /// None where PostgreSQL was left out on purpose.
    pub fn open(flow_keys: &str, tables: &str) -> Option<Self> {
        let server = recount_services::postgres()?;
        let url = server.fresh_database().unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let sql = "CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL CHECK (on_hand < 100000)); \
                   INSERT INTO stock VALUES ('a', 100), ('b', 100), ('c', 100)";
        server.sql(&database, sql).unwrap();
        let text = config(flow_keys, &format!("{TAKE_FROM_STOCK}\n{tables}")).replace("sqlite:shop.db", &url);
        let text = text.replace("rows = 1\n", "rows = 1\neffects = \"recount_effect\"\n");
        Some(Self { world: World::new(&text), server, database })
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql).unwrap().trim().to_owned()
    }

    pub fn on_hand(&self, sku: &str) -> String {
        self.sql(&format!("SELECT on_hand FROM stock WHERE sku = '{sku}'"))
    }

    fn balanced(&self) -> Told {
        self.world.recount(&["audit", "recount.toml", "--json"]).expect(0)
    }
}

pub const UNITS: &str = "[[reconcile]]\nname = \"units\"\nleft = { flow = \"stock\", sum = \"event.quantity\", of = \
                     \"applied\" }\nright = { database = \"shop\", sql = \"SELECT sum(100 - on_hand) FROM stock\" }\n";

#[test]
fn a_run_is_applied_counted_again_told_and_replayed() {
    let Some(shop) = Shop::open("", UNITS) else { return };
    shop.world.lines(&[
        order("o0", "a", 3),
        order("o1", "none", 1),
        order("o2", "b", 200),
        order("o3", "b", 4),
    ]);
    let validated = shop.world.recount(&["validate", "recount.toml"]).expect(0).all();
    assert!(validated.contains("a batch runs inside the server"), "{validated}");
    shop.world.recount(&["run", "recount.toml"]).expect(0);
    assert_eq!(
        shop.world.fates(),
        ["applied", "dead-lettered unknown_sku", "dead-lettered insufficient_stock", "applied"]
    );
    assert_eq!((shop.on_hand("a"), shop.on_hand("b")), ("97".to_owned(), "96".to_owned()));
    let report = shop.balanced().json();
    for equation in ["E1", "E2", "E3"] {
        assert_eq!(statement(&report, equation)["status"], "balanced", "{report}");
    }
    assert_eq!(statement(&report, "E2")["strength"], "counted");

    shop.sql("INSERT INTO stock VALUES ('none', 10)");
    let replay = ["replay", "stock", "--reason", "unknown_sku", "--because", "the list was completed"];
    shop.world.recount(&replay).expect(0);
    shop.world.recount(&replay).expect(0);
    assert_eq!(shop.on_hand("none"), "9");
    assert_eq!(shop.sql("SELECT count(*) FROM recount_effect"), "3");
}

#[test]
fn what_somebody_changed_in_the_database_is_found() {
    let Some(shop) = Shop::open("", UNITS) else { return };
    shop.world.lines(&orders(0..50, "a"));
    shop.world.recount(&["run", "recount.toml"]).expect(0);
    shop.sql("DELETE FROM recount_effect WHERE \"offset\" = 7");
    let report = shop.world.recount(&["audit", "recount.toml", "--json"]).expect(1).json();
    assert_eq!(statement(&report, "E2")["status"], "imbalanced", "{report}");
    assert!(report.to_string().contains("stock/0/7"), "{report}");
}

#[test]
fn kills_and_cut_connections_leave_each_effect_once() {
    let Some(shop) = Shop::open("source = { file = \"orders.ndjson\", follow = true }\n", UNITS) else {
        return;
    };
    shop.sql("UPDATE stock SET on_hand = 90000");
    let total: u64 = 3000;
    shop.world.lines(&orders(0..total, "a"));
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name LIKE 'recount %' AND datname = current_database()";
    for round in 0..6_u64 {
        let running = shop.world.start(&["run", "recount.toml"]);
        eventually("it goes on", || {
            // Before the first start there is no such table.
            let seq = shop.server.sql(&shop.database, "SELECT max(seq) FROM recount_position");
            seq.is_ok_and(|seq| seq.trim().parse().is_ok_and(|seq: u64| seq > round))
        });
        if round % 2 == 0 {
            shop.sql(cut);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        running.kill();
    }
    let running = shop.world.start(&["run", "recount.toml"]);
    eventually("all are applied", || shop.on_hand("a") == (90000 - total).to_string());
    running.terminate();
    let counted = "SELECT count(*), count(DISTINCT \"offset\") FROM recount_effect";
    assert_eq!(shop.sql(counted), format!("{total}|{total}"));
    assert_eq!(shop.world.decided() as u64, total);
}

#[test]
fn a_process_that_was_frozen_does_not_take_back_what_another_took_meanwhile() {
    let Some(shop) = Shop::open("source = { file = \"orders.ndjson\", follow = true }\n", "") else { return };
    shop.world.lines(&orders(0..5, "a"));
    let first = shop.world.start(&["run", "recount.toml"]);
    eventually("the first are decided", || shop.world.decided() == 5);
    first.terminate();
    // What a batch writes after its statements takes long, so that its commit is under way for a while.
    shop.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(20); RETURN new; \
         END $$; CREATE TRIGGER slow BEFORE INSERT ON recount_batch FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    shop.world.append(&orders(5..6, "a"));
    let mut frozen = shop.world.start(&["run", "recount.toml"]);
    let process = frozen.child.id().to_string();
    let signal =
        |name: &str| assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    let at_commit = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    eventually("its commit is under way", || shop.sql(&format!("SELECT count(*) {at_commit}")) == "1");
    signal("-STOP");
    shop.sql(&format!("SELECT pg_terminate_backend(pid, 5000) {at_commit}"));
    // Another process takes the partition.
    shop.sql("DROP TRIGGER slow ON recount_batch; UPDATE recount_position SET epoch = epoch + 1");
    let owner = shop.sql("SELECT epoch FROM recount_position");
    signal("-CONT");
    eventually("it lets go", || frozen.log().contains("another process took the partition"));
    assert!(frozen.log().contains("begins again from the arbiter's row"), "{}", frozen.log());
    assert_eq!(shop.sql("SELECT epoch FROM recount_position"), owner);
    assert_eq!(shop.on_hand("a"), "95", "and it did nothing more");
    assert_ne!(frozen.wait().code, Some(0));
}

#[test]
fn a_table_that_is_gone_pauses_and_condemns_nobody() {
    let Some(shop) = Shop::open("[flow.stock.away]\nbackoff = \"50ms\"\nbackoff_max = \"200ms\"\n", "")
    else {
        return;
    };
    shop.world.lines(&orders(0..20, "a"));
    shop.sql("ALTER TABLE stock RENAME TO stock_away");
    let refused = shop.world.recount(&["run", "recount.toml"]);
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    assert!(refused.err.contains("stock"), "{}", refused.err);
    shop.sql("ALTER TABLE stock_away RENAME TO stock");
    shop.world.recount(&["run", "recount.toml"]).expect(0);
    assert_eq!(shop.on_hand("a"), "80");
}
