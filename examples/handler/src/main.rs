//! A consumer with a handler in Rust: it takes ordered units out of stock, and says why where it does not. An article
//! that nobody knows is a dead letter, what is sold out is skipped.

use recount::{
    Checked, Event, Flow, Handler, HandlerError, ReasonCode, Transaction, Value, Verdict, async_trait,
};
use std::error::Error;
use std::process::ExitCode;

const UNKNOWN_SKU: ReasonCode = ReasonCode::literal("unknown_sku");
const SOLD_OUT: ReasonCode = ReasonCode::literal("sold_out");

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
        let is_enough = transaction.query_row(look, &[sku.clone(), quantity.clone()]).await?;
        match is_enough.as_deref() {
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
    make_stock()?;
    let flow = Flow::from_config("recount.toml", "reserve-stock")?;
    let report = flow.handler("reserve", Reserve).run()?;
    print!("{report}");
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Three articles, ten of each, where there is no stock list yet.
fn make_stock() -> rusqlite::Result<()> {
    rusqlite::Connection::open("shop.db")?.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL);
         INSERT OR IGNORE INTO stock VALUES ('mug', 10), ('tray', 10), ('lamp', 10);",
    )
}
