//! Effects on PostgreSQL, on a real server with a database a test.

mod equivalence;
mod outcomes;
mod poison;
mod trouble;
mod types;
mod witness;

use crate::flow::{at, checks, flow, order, stock_route};
use recount_adapters::postgres::{PostgresEffect, PostgresEffectSettings};
use recount_checks::FlowChecks;
use recount_engine::{Effect, EffectEvent, EffectRows, SqlRoute};
use recount_services::Postgres;

pub const SHOP: &str = "CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL);
                        INSERT INTO stock VALUES ('a', 10), ('b', 10), ('c', 10);";

/// A shop's database with the stock flow on it.
pub struct Shop {
    pub server: &'static Postgres,
    pub database: String,
    pub settings: PostgresEffectSettings,
    pub checks: FlowChecks,
    pub effect: PostgresEffect,
}

impl Shop {
    /// None where PostgreSQL was left out on purpose.
    pub async fn open() -> Option<Self> {
        Self::with(SHOP, vec![stock_route()], &["quantity", "sku"]).await
    }

    pub async fn with(sql: &str, routes: Vec<SqlRoute>, params: &[&str]) -> Option<Self> {
        Self::told(sql, routes, params, |_| {}).await
    }

    pub async fn told(
        sql: &str,
        routes: Vec<SqlRoute>,
        params: &[&str],
        set: impl FnOnce(&mut PostgresEffectSettings),
    ) -> Option<Self> {
        let server = recount_services::postgres()?;
        let url = server.fresh_database().unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        server.sql(&database, sql).unwrap();
        let mut settings = PostgresEffectSettings::new(url, flow());
        settings.routes = routes;
        settings.effects = EffectRows::Table;
        settings.lock_time_ms_max = 300;
        set(&mut settings);
        let effect = PostgresEffect::open(settings.clone()).await.unwrap();
        Some(Self { server, database, settings, checks: checks(params), effect })
    }

    pub fn order(&self, offset: u64, sku: &str, quantity: i64) -> EffectEvent {
        order(&self.checks, offset, sku, quantity)
    }

    /// A query's rows as text.
    pub fn rows(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql).unwrap().trim_end().replace('|', " ").replace('\n', ", ")
    }
}

#[tokio::test]
async fn the_examples_batch_runs_inside_the_server_and_is_plain() {
    let Some(shop) = Shop::open().await else { return };
    let examined = shop.effect.examined();
    assert_eq!((examined.plain, examined.not_in_server.as_deref()), (true, None));
    assert_eq!(examined.weaknesses, Vec::<String>::new());
    assert_eq!(shop.effect.peek(&at()).await.unwrap(), None);
}
