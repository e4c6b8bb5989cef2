//! A batch inside the server: one function over arrays that takes each order out of stock, in order.

use crate::consume::Order;
use anyhow::{Context, Result};
use futures_util::future::try_join;
use tokio_postgres::{Client, NoTls, Statement};

/// What the statements are in Recount's config, in a loop.
const TAKE: &str = "\
CREATE FUNCTION pg_temp.take(quantities int4[], skus text[]) RETURNS TABLE (place int8, is_unknown boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE taken record; changed int8;
BEGIN
  FOR taken IN SELECT * FROM unnest(quantities, skus) WITH ORDINALITY AS u(quantity, article, nth) LOOP
    UPDATE stock SET on_hand = on_hand - taken.quantity WHERE sku = taken.article AND on_hand >= taken.quantity;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> 1 THEN
      place := taken.nth;
      is_unknown := NOT EXISTS (SELECT 1 FROM stock WHERE sku = taken.article);
      RETURN NEXT;
    END IF;
  END LOOP;
END $$";
const EFFECTS: &str = "INSERT INTO recount_effect (flow, source_id, partition, \"offset\", event_id) \
     SELECT $1, $2, $3, * FROM unnest($4::int8[], $5::text[])";
/// As long as the one that Recount writes, so that the rows are alike.
const SOURCE_ID: &str = "kafka:0000000000000000000000:0000000000000000000000";

/// Connects; the connection is served in the background.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("can't connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

/// What came of a batch.
#[derive(Default)]
pub struct Came {
    /// Taken out of stock.
    pub applied: usize,
    /// No such article.
    pub unknown_sku: usize,
    /// Less on hand than asked for.
    pub insufficient_stock: usize,
}

/// One partition's connection.
pub struct Database {
    client: Client,
    take: Statement,
    effects: Statement,
}

impl Database {
    pub async fn open(url: &str) -> Result<Self> {
        let client = connect(url).await?;
        client.batch_execute(TAKE).await?;
        let take = client.prepare("SELECT place, is_unknown FROM pg_temp.take($1, $2)").await?;
        let effects = client.prepare(EFFECTS).await?;
        Ok(Self { client, take, effects })
    }

    /// One transaction, two round trips.
    pub async fn apply(&self, partition: &str, orders: &[Order]) -> Result<Came> {
        let quantities: Vec<i32> = orders.iter().map(|order| order.quantity).collect();
        let skus: Vec<&str> = orders.iter().map(|order| order.sku.as_str()).collect();
        let refs: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&quantities, &skus];
        let ((), refused) =
            try_join(self.client.batch_execute("BEGIN"), self.client.query(&self.take, &refs)).await?;
        let mut is_refused = vec![false; orders.len()];
        let mut came = Came::default();
        for row in refused {
            let place = usize::try_from(row.get::<_, i64>(0) - 1)?;
            is_refused[place] = true;
            *(if row.get(1) { &mut came.unknown_sku } else { &mut came.insufficient_stock }) += 1;
        }
        let applied =
            || orders.iter().zip(&is_refused).filter(|(_, refused)| !**refused).map(|(order, _)| order);
        let offsets: Vec<i64> = applied().map(|order| order.offset).collect();
        let ids: Vec<&str> = applied().map(|order| order.id.as_str()).collect();
        came.applied = offsets.len();
        let refs: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&"reserve-stock", &SOURCE_ID, &partition, &offsets, &ids];
        try_join(self.client.execute(&self.effects, &refs), self.client.batch_execute("COMMIT")).await?;
        Ok(came)
    }
}
