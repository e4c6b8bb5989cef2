//! The consumer that one would write by hand for the inventory example: read a line, parse it, take the
//! units out of stock, note the effect, commit every 500. It keeps no ledger, and what it doesn't apply it
//! counts and forgets. `cargo xtask bench loop` compares `recount run` with it.
//!
//! `bare-loop ORDERS SHOP_DB plain|struct|checks [SCHEMA]`
//!
//! * `plain` parses each line to a `serde_json::Value`, as Recount does.
//! * `struct` parses it to the three fields that the statements need.
//! * `checks` parses to a `Value`, validates it with the `jsonschema` crate and evaluates three expressions
//!   with the `cel` crate: compiled once, the standard functions registered once, and only the two fields
//!   that the expressions name converted for each event.

mod checks;

use anyhow::{Context, Result, bail};
use checks::{Checks, Passed};
use rusqlite::{Connection, Transaction, TransactionBehavior, named_params};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader};

const BATCH_EVENTS: usize = 500;

const TAKE: &str = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku AND on_hand >= :quantity";
const UNKNOWN: &str = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)";
const EFFECT: &str = "INSERT INTO recount_effect (flow, source_id, partition, \"offset\", event_id) VALUES (?1, ?2, ?3, ?4, ?5)";
const POSITION: &str = "UPDATE recount_position SET seq = seq + 1, next_offset = ?1";

/// As long as the one that Recount writes, so that the rows are alike.
const SOURCE_ID: &str = "file:1024:00000000000000000000000000000000:g1";

/// How a line becomes an order.
enum Parse {
    Plain,
    Struct,
    Checked(Box<Checks>),
}

/// What the statements need of an order.
#[derive(Deserialize)]
struct Order {
    id: String,
    sku: String,
    quantity: i64,
}

/// What came of the lines.
#[derive(Default)]
struct Counts {
    applied: u64,
    zero_quantity: u64,
    schema_mismatch: u64,
    negative_amount: u64,
    unknown_sku: u64,
    insufficient_stock: u64,
    bulk_order: u64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (orders, shop, parse) = match arguments.as_slice() {
        [orders, shop, "plain"] => (orders, shop, Parse::Plain),
        [orders, shop, "struct"] => (orders, shop, Parse::Struct),
        [orders, shop, "checks", schema] => (orders, shop, Parse::Checked(Box::new(Checks::new(schema)?))),
        _ => bail!("bare-loop ORDERS SHOP_DB plain|struct|checks [SCHEMA]"),
    };
    let mut connection = open(shop)?;
    let mut lines = BufReader::with_capacity(1 << 16, File::open(orders).context("can't open the orders")?);
    let mut counts = Counts::default();
    let mut offset: i64 = 0;
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let more = batch(&transaction, &mut lines, &mut offset, &parse, &mut counts)?;
        transaction.prepare_cached(POSITION)?.execute([offset])?;
        transaction.commit()?;
        if !more {
            break;
        }
    }
    println!(
        "{}",
        serde_json::json!({
            "events": offset,
            "applied": counts.applied,
            "zero_quantity": counts.zero_quantity,
            "schema_mismatch": counts.schema_mismatch,
            "negative_amount": counts.negative_amount,
            "unknown_sku": counts.unknown_sku,
            "insufficient_stock": counts.insufficient_stock,
            "bulk_order": counts.bulk_order,
        })
    );
    Ok(())
}

fn open(shop: &str) -> Result<Connection> {
    let connection = Connection::open(shop)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE recount_effect (
            flow TEXT NOT NULL, source_id TEXT NOT NULL, partition TEXT NOT NULL,
            \"offset\" INTEGER NOT NULL, event_id TEXT) STRICT;
         CREATE TABLE recount_position (seq INTEGER, next_offset INTEGER);
         INSERT INTO recount_position VALUES (0, 0)",
    )?;
    Ok(connection)
}

/// One batch; false at the end of the file.
fn batch(
    transaction: &Transaction<'_>,
    lines: &mut impl BufRead,
    offset: &mut i64,
    parse: &Parse,
    counts: &mut Counts,
) -> Result<bool> {
    let mut take = transaction.prepare_cached(TAKE)?;
    let mut effect = transaction.prepare_cached(EFFECT)?;
    let mut line = Vec::with_capacity(512);
    for _ in 0..BATCH_EVENTS {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        let this = *offset;
        *offset += 1;
        let Some(order) = read(&line, parse, counts)? else { continue };
        let changed = take.execute(named_params! { ":quantity": order.quantity, ":sku": order.sku })?;
        if changed == 1 {
            effect.execute(("reserve-stock", SOURCE_ID, "orders.ndjson", this, &order.id))?;
            counts.applied += 1;
        } else if transaction
            .prepare_cached(UNKNOWN)?
            .query_row(named_params! { ":sku": order.sku }, |row| row.get::<_, bool>(0))?
        {
            counts.unknown_sku += 1;
        } else {
            counts.insufficient_stock += 1;
        }
    }
    Ok(true)
}

fn read(line: &[u8], parse: &Parse, counts: &mut Counts) -> Result<Option<Order>> {
    let checks = match parse {
        Parse::Struct => return Ok(Some(serde_json::from_slice(line)?)),
        Parse::Plain => None,
        Parse::Checked(checks) => Some(checks),
    };
    let event: serde_json::Value = serde_json::from_slice(line)?;
    match checks.map_or(Ok(Passed::Yes), |checks| checks.of(&event, &mut counts.bulk_order))? {
        Passed::Yes => {}
        Passed::ZeroQuantity => {
            counts.zero_quantity += 1;
            return Ok(None);
        }
        Passed::SchemaMismatch => {
            counts.schema_mismatch += 1;
            return Ok(None);
        }
        Passed::NegativeAmount => {
            counts.negative_amount += 1;
            return Ok(None);
        }
    }
    let text = |name: &str| event[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let quantity = event["quantity"].as_i64().context("no quantity")?;
    Ok(Some(Order { id: text("id")?, sku: text("sku")?, quantity }))
}
