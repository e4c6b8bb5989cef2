//! The program runs as its page says: what `cargo run` in this folder starts is run here in a copy of it.

use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn it_runs_as_written_prints_its_books_and_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(here.join("orders.ndjson"), folder.path().join("orders.ndjson")).unwrap();
    let config = fs::read_to_string(here.join("recount.toml")).unwrap();
    // Other tests may run at the same time.
    let config = config.replace("127.0.0.1:7624", "127.0.0.1:0");
    fs::write(folder.path().join("recount.toml"), config).unwrap();
    for drained in ["drained: 10 decided", "10 already decided, nothing new"] {
        let run =
            Command::new(env!("CARGO_BIN_EXE_handler-example")).current_dir(folder.path()).output().unwrap();
        let printed = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{printed}\n{}", String::from_utf8_lossy(&run.stderr));
        for expected in ["balanced", drained] {
            assert!(printed.contains(expected), "no {expected:?} in\n{printed}");
        }
    }
    let shop = Connection::open(folder.path().join("shop.db")).unwrap();
    let on_hand = |sku: &str| -> i64 {
        shop.query_row("SELECT on_hand FROM stock WHERE sku = ?1", [sku], |row| row.get(0)).unwrap()
    };
    assert_eq!([on_hand("mug"), on_hand("tray"), on_hand("lamp")], [0, 7, 0]);
}
