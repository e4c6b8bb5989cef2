//! Values of every kind mean inside the server what they mean statement by statement.

use super::Shop;
use crate::flow::{Owner, at, checked, route, statement};
use serde_json::json;

const TABLES: &str = "
    CREATE TYPE \"Mood; \"\"odd\"\"\" AS ENUM ('fine', 'bad');
    CREATE DOMAIN positive AS integer NOT NULL CHECK (VALUE > 0);
    CREATE DOMAIN short AS varchar(3);
    CREATE TABLE kinds (n bigint,
        mood \"Mood; \"\"odd\"\"\", positive positive, short short, three varchar(3), fixed char(4), one \"char\",
        list integer[], money numeric(6, 2), doc jsonb, raw bytea, id uuid, at timestamptz, took interval, bits bit(3),
        yes boolean, name name, small smallint, real real, net inet, state text, place_2 text, code text);
    INSERT INTO kinds (n, positive, state, code) VALUES (-1, 1, 'state', 'code');";

#[tokio::test]
async fn values_of_every_type_are_the_same_inside_the_server() {
    let columns = [
        "mood", "positive", "short", "three", "fixed", "one", "list", "money", "doc", "raw", "id", "at",
        "took", "bits", "yes", "name", "small", "real", "net",
    ];
    let values = [
        json!("fine"),
        json!("worse"),
        json!(null),
        json!(0),
        json!(7),
        json!(3.0),
        json!(2.5),
        json!("abc"),
        json!("abcd"),
        json!("abcdefgh "),
        json!("{1,2}"),
        json!(12345.678),
        json!(99999),
        json!("{\"a\": [1, \"x\"]}"),
        json!("\\x00ff"),
        json!("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        json!("2026-01-31T09:30:00Z"),
        json!("1 day 02:00"),
        json!("101"),
        json!("10"),
        json!(true),
        json!("(1,2)"),
        json!("10.0.0.1"),
        json!(""),
        json!("'; DROP TABLE kinds; --"),
        json!(9_007_199_254_740_993_i64),
        json!(1e300),
        json!("größe"),
    ];
    for column in columns {
        let mut told = Vec::new();
        for in_server in [true, false] {
            let insert = match column {
                "positive" => "INSERT INTO kinds (n, positive) VALUES (:n, :value)".to_owned(),
                _ => format!("INSERT INTO kinds (n, positive, {column}) VALUES (:n, 1, :value)"),
            };
            let update = format!(
                "UPDATE kinds SET {column} = :value WHERE kinds.n = :n AND ({column} = :value OR {column} IS NULL OR true) \
                 AND state = 'state' AND code IS NOT NULL"
            );
            let routes = vec![route(
                vec![statement(&insert, 1, 1), statement(&update, 0, 1)],
                &["n", "value"],
                vec![],
            )];
            let shop =
                Shop::told(TABLES, routes, &["n", "value"], |settings| settings.in_server = in_server).await;
            let Some(shop) = shop else { return };
            if in_server {
                assert_eq!(shop.effect.examined().not_in_server, None, "{column}");
            }
            let mut owner = Owner::take(&shop.effect, at()).await;
            let events: Vec<_> = values
                .iter()
                .zip(1_u64..)
                .map(|(value, n)| {
                    checked(
                        &shop.checks,
                        n,
                        &json!({ "id": format!("e{n}"), "key": "k", "n": n, "value": value }),
                    )
                })
                .collect();
            let outcomes = format!("{:#?}", owner.apply(&events).await);
            let rows = shop.rows("SELECT * FROM kinds ORDER BY n");
            shop.server.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", shop.database)).unwrap();
            told.push(format!("{outcomes}\n{rows}"));
        }
        if told[0] != told[1] {
            let differ: Vec<_> = told[0].lines().zip(told[1].lines()).filter(|(a, b)| a != b).collect();
            panic!("{column}: {:#?}", differ.first());
        }
    }
}
