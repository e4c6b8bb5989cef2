//! A flow with a handler in Rust, from end to end, in a temporary folder: `cargo run --example handler`.
//!
//! Ten order lines, three articles. The handler takes ordered units out of stock, and says why where it
//! does not: an article that nobody knows is a dead letter, what is sold out is skipped.

use recount::{
    Checked, Event, Flow, Handler, HandlerError, ReasonCode, Transaction, Value, Verdict, async_trait,
};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

const UNKNOWN_SKU: ReasonCode = ReasonCode::literal("unknown_sku");
const SOLD_OUT: ReasonCode = ReasonCode::literal("sold_out");

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"                # any free port: /health/working and /metrics while it runs

[database.shop]
url = "sqlite:shop.db"

[flow.reserve-stock]
owner   = "inventory team"
purpose = "takes ordered units out of stock"
source  = { file = "orders.ndjson" }
id      = "event.id"
key     = "event.sku"

[[flow.reserve-stock.check]]
reason    = "zero_quantity"
that      = "event.quantity > 0"
otherwise = "skip"
at_most   = "any"
because   = "an order line for nothing takes nothing out of stock"

[flow.reserve-stock.apply]
handler  = "reserve"                  # what main() gives under this name
database = "shop"
with     = { sku = "event.sku", quantity = "event.quantity" }

[[flow.reserve-stock.apply.reason]]
reason  = "unknown_sku"
verdict = "dead-letter"
at_most = "any"
because = "no such article"

[[flow.reserve-stock.apply.reason]]
reason  = "sold_out"
verdict = "skip"
at_most = "any"
because = "less on hand than asked for"

[[reconcile]]
name  = "units ordered leave the stock"
left  = { flow = "reserve-stock", sum = "event.quantity", of = "received", less = ["sold_out", "unknown_sku"] }
right = { database = "shop", sql = "SELECT sum(10 - on_hand) FROM stock" }
"#;

/// Takes ordered units out of stock.
struct Reserve;

#[async_trait]
impl Handler for Reserve {
    async fn handle(
        &self,
        event: &Checked<Event>,
        transaction: &mut dyn Transaction,
    ) -> Result<Verdict, HandlerError> {
        let [sku, quantity] = event.params.as_slice() else { unreachable!("the config binds two") };
        let (sku, quantity) = (("sku", sku.clone()), ("quantity", quantity.clone()));
        let look = "SELECT on_hand >= :quantity FROM stock WHERE sku = :sku";
        let enough = transaction.query_row(look, &[sku.clone(), quantity.clone()]).await?;
        match enough.as_deref() {
            None => Ok(Verdict::dead_letter(UNKNOWN_SKU, "the stock list has no such article")),
            Some([Value::Integer(1)]) => {
                let take = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku";
                transaction.execute(take, &[sku, quantity]).await?;
                Ok(Verdict::applied())
            }
            Some(_) => Ok(Verdict::skip(SOLD_OUT, "less on hand than asked for")),
        }
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    make_world(folder.path())?;
    let report = Flow::from_config(folder.path().join("recount.toml"), "reserve-stock")?
        .handler("reserve", Reserve)
        .run()?;
    print!("{report}");
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make_world(folder: &Path) -> Result<(), Box<dyn Error>> {
    let shop = rusqlite::Connection::open(folder.join("shop.db"))?;
    shop.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL);
         INSERT INTO stock VALUES ('mug', 10), ('tray', 10), ('lamp', 10);",
    )?;
    let lines = [
        ("mug", 3),
        ("tray", 1),
        ("lamp", 10),
        ("mug", 0),
        ("lamp", 1),
        ("mug", 4),
        ("clock", 1),
        ("tray", 2),
        ("mug", 5),
        ("mug", 3),
    ];
    let mut orders = String::new();
    for (number, (sku, quantity)) in lines.into_iter().enumerate() {
        writeln!(orders, r#"{{"id": "order-{number}", "sku": "{sku}", "quantity": {quantity}}}"#)?;
    }
    std::fs::write(folder.join("orders.ndjson"), orders)?;
    std::fs::write(folder.join("recount.toml"), CONFIG)?;
    Ok(())
}
