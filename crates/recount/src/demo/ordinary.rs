//! An ordinary consumer, as one is written every day: it knows of the orders that fail, and nothing of those
//! that it lets go.

use rusqlite::Connection;
use serde_json::Value;

/// What it tells its dashboard.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Metrics {
    /// Orders handled without an error.
    pub processed: u64,
    /// Orders that failed.
    pub errors: u64,
    /// How often somebody was called: once as soon as an order fails.
    pub alerts: u64,
    /// Orders that wait.
    pub lag: u64,
}

type Handled = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Takes an order's units out of the stock.
fn handle(shop: &Connection, order: &str) -> Handled {
    let order: Value = serde_json::from_str(order)?;
    let quantity = order["quantity"].as_i64().unwrap_or(0); // a field that is missing reads as 0
    if quantity <= 0 {
        return Ok(()); // nothing to take out of stock
    }
    let sku = order["sku"].as_str().ok_or("an order without sku")?;
    shop.prepare_cached("UPDATE stock SET on_hand = on_hand - ?1 WHERE sku = ?2 AND on_hand >= ?1")?
        .execute((quantity, sku))?;
    Ok(())
}

/// Handles one order after the other, as they were published. `before` is shown each order's number
/// beforehand, from 0, for whoever watches.
pub fn consume(
    shop: &Connection,
    orders: &str,
    before: &mut dyn FnMut(usize) -> rusqlite::Result<()>,
) -> rusqlite::Result<Metrics> {
    let mut metrics = Metrics { lag: orders.lines().count() as u64, ..Metrics::default() };
    for (n, order) in orders.lines().enumerate() {
        before(n)?;
        match handle(shop, order) {
            Ok(()) => metrics.processed += 1,
            Err(_) => metrics.errors += 1,
        }
        metrics.alerts = u64::from(metrics.errors > 0);
        metrics.lag -= 1;
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_errors_and_not_of_what_it_lets_go() {
        let shop = Connection::open_in_memory().unwrap();
        shop.execute_batch(
            "CREATE TABLE stock (sku TEXT, on_hand INTEGER); INSERT INTO stock VALUES ('a', 9)",
        )
        .unwrap();
        let orders = "{\"sku\":\"a\",\"quantity\":2}\n{\"sku\":\"a\",\"qty\":2}\nno json\n";
        let metrics = consume(&shop, orders, &mut |_| Ok(())).unwrap();
        assert_eq!((metrics.processed, metrics.errors, metrics.alerts, metrics.lag), (2, 1, 1, 0));
        let left: i64 = shop.query_row("SELECT on_hand FROM stock", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 7);
    }
}
