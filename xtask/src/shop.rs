//! The shop's database: made before a run, and read with plain SQL after it.

use crate::orders::{Account, Article, Expected, Order};
use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::path::Path;

/// Makes a database with the table `stock`.
///
/// # Errors
/// Where the file exists already with such a table, or can't be written.
pub fn create(path: &Path, stock: &[Article]) -> Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE stock (
            sku TEXT PRIMARY KEY, department TEXT NOT NULL, brand TEXT NOT NULL,
            product_category TEXT NOT NULL, on_hand INTEGER NOT NULL)",
    )?;
    let mut insert = transaction.prepare("INSERT INTO stock VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for Article { text: [sku, department, brand, category], on_hand } in stock {
        insert.execute((sku, department, brand, category, on_hand))?;
    }
    drop(insert);
    transaction.commit()?;
    Ok(())
}

/// Opens it for reading only, beside whoever writes.
pub fn open(path: &Path) -> Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("can't open {}", path.display()))
}

/// The seq of the last committed batch and the first offset that isn't decided; zeros before the first.
pub fn committed_position(connection: &Connection) -> (u64, u64) {
    let row = connection.query_row("SELECT max(seq), max(next_offset) FROM recount_position", [], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
    });
    // Before the first take there is no table.
    let (seq, next_offset) = row.unwrap_or_default();
    (seq.unwrap_or(0).cast_unsigned(), next_offset.unwrap_or(0).cast_unsigned())
}

/// Compares stock and counted effects with what the orders must have come to. Returns what differs.
///
/// # Errors
/// Where the database can't be read.
pub fn differences(
    path: &Path,
    orders: &[Order],
    account: &Account,
    stock: &[Article],
) -> Result<Vec<String>> {
    let connection = open(path)?;
    let mut faults = stock_differences(&connection, account, stock)?;
    faults.extend(effect_differences(&connection, orders, account)?);
    Ok(faults)
}

fn stock_differences(connection: &Connection, account: &Account, stock: &[Article]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut rows = connection.prepare("SELECT sku, on_hand FROM stock")?;
    let found: HashMap<String, i64> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for article in stock {
        let sku = &article.text[0];
        let (found, expected) = (found.get(sku), account.on_hand.get(sku));
        if found != expected {
            faults.push(format!("article {sku}: {found:?} on hand, must be {expected:?}"));
        }
    }
    let before: i64 = stock.iter().map(|article| article.on_hand).sum();
    let taken = before - found.values().sum::<i64>();
    if taken != account.units {
        faults.push(format!("{taken} units left the stock, must be {}", account.units));
    }
    Ok(faults)
}

fn effect_differences(connection: &Connection, orders: &[Order], account: &Account) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut effects: HashMap<i64, Vec<String>> = HashMap::new();
    let mut rows = connection.prepare("SELECT \"offset\", event_id FROM recount_effect")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        effects.entry(row.get(0)?).or_default().push(row.get::<_, Option<String>>(1)?.unwrap_or_default());
    }
    for (order, fate) in orders.iter().zip(&account.fates) {
        let found = effects.remove(&order.offset).unwrap_or_default();
        let right = match fate {
            Expected::Applied => found.len() == 1 && found[0] == order.id,
            _ => found.is_empty(),
        };
        if !right {
            faults.push(format!("line {}: {fate:?}, but its effects are {found:?}", order.offset));
        }
    }
    if !effects.is_empty() {
        faults.push(format!("{} effects at positions that the file doesn't have", effects.len()));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_doubled_and_a_foreign_effect_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let stock = [Article { text: ["a".into(), "".into(), "".into(), "".into()], on_hand: 10 }];
        let orders: Vec<Order> = (0..4)
            .map(|offset| Order {
                offset,
                id: format!("id-{offset}"),
                sku: "a".into(),
                quantity: i64::from(offset != 3),
            })
            .collect();
        let account = Account::of(&orders, &stock);
        create(&path, &stock).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE recount_effect (\"offset\" INTEGER, event_id TEXT);
                 INSERT INTO recount_effect VALUES (0, 'id-0'), (1, 'id-1'), (2, 'id-2');
                 UPDATE stock SET on_hand = on_hand - 3",
            )
            .unwrap();
        let told = || differences(&path, &orders, &account, &stock).unwrap();
        assert_eq!(told(), Vec::<String>::new());
        let check = |change: &str, undo: &str, expected: usize| {
            connection.execute_batch(change).unwrap();
            assert_eq!(told().len(), expected, "{change}");
            connection.execute_batch(undo).unwrap();
        };
        check(
            "DELETE FROM recount_effect WHERE \"offset\" = 1",
            "INSERT INTO recount_effect VALUES (1, 'id-1')",
            1,
        );
        check(
            "INSERT INTO recount_effect VALUES (2, 'id-2')",
            "DELETE FROM recount_effect WHERE rowid = 5",
            1,
        );
        check(
            "INSERT INTO recount_effect VALUES (3, 'id-3')",
            "DELETE FROM recount_effect WHERE \"offset\" = 3",
            1,
        );
        check(
            "INSERT INTO recount_effect VALUES (9, 'id-9')",
            "DELETE FROM recount_effect WHERE \"offset\" = 9",
            1,
        );
        check("UPDATE stock SET on_hand = 6", "UPDATE stock SET on_hand = 7", 2);
    }
}
