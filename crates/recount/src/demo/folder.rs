//! The folder that is left for looking at.

use super::account::Account;
use super::data::Orders;
use super::file_failure;
use crate::exit::Failure;
use rusqlite::Connection;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The flow of every config here.
pub const FLOW: &str = "reserve-stock";
/// Why its events are replayed, and why it goes on.
pub const BECAUSE: &str = "the config takes qty too";
/// Orders that are all renamed from some order on.
pub const RENAMED: &str = "orders.ndjson";
/// Orders of which one in twenty is renamed.
pub const ONE_IN_20: &str = "orders-one-in-20.ndjson";
/// The rule as everybody would write it first.
pub const RULE: &str = "event.quantity > 0";
/// The rule that says what the silent line does: a field that is missing counts as nothing.
pub const SILENT_RULE: &str = "has(event.quantity) && event.quantity > 0";
/// The quantity by either name.
pub const EITHER_NAME: &str = "has(event.quantity) ? event.quantity : event.qty";

const READ_ME: &str = "\
Left behind by `recount demo`. Enter a folder and ask: recount status

orders.ndjson             order lines as the producer published them: at some point `quantity` becomes `qty`
orders-one-in-20.ndjson   the same, but only one in twenty of them is renamed
stock.csv                 the stock before the first order
ordinary/                 the ordinary consumer: its source and its database
dead-letter/              Recount, the rule as a dead letter: config, database, ledger, log
skip/                     Recount, the rule as a skip
one-in-20/                Recount, the rule as a skip, one in twenty renamed; not corrected: do it
recount.toml.before       a config as it was before its correction
";

/// A flow's config, before or after the correction.
pub struct Flow {
    /// The folder's name.
    pub name: &'static str,
    /// The orders it reads.
    pub orders: &'static str,
    /// The rule.
    pub that: &'static str,
    /// What happens to an order that breaks it.
    pub otherwise: &'static str,
    /// A line more, about the breaker.
    pub breaker: &'static str,
}

/// The rule as a dead letter.
pub const DEAD_LETTER: Flow =
    Flow { name: "dead-letter", orders: RENAMED, that: RULE, otherwise: "dead-letter", breaker: "" };
/// The rule as a skip. The breaker only tells, so that one sees what becomes of all orders.
pub const SKIP: Flow = Flow {
    name: "skip",
    orders: RENAMED,
    that: SILENT_RULE,
    otherwise: "skip",
    breaker: "breaker = \"alert\"                           # tells, and goes on\n",
};
/// The rule as a skip, where one order in twenty is renamed.
pub const SKIP_ONE_IN_20: Flow =
    Flow { name: "one-in-20", orders: ONE_IN_20, that: SILENT_RULE, otherwise: "skip", breaker: "" };

/// Makes the folder; one that holds something is refused.
pub fn make(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(folder) = wanted else {
        let made = tempfile::Builder::new().prefix("recount-demo-").tempdir();
        return Ok(made.map_err(|error| file_failure(&std::env::temp_dir(), error))?.keep());
    };
    fs::create_dir_all(folder).map_err(|error| file_failure(folder, error))?;
    let mut listed = folder.read_dir().map_err(|error| file_failure(folder, error))?;
    if listed.next().is_some() {
        let message = format!("{} is not empty: name a folder that is new or empty", folder.display());
        return Err(Failure::usage(message));
    }
    folder.canonicalize().map_err(|error| file_failure(folder, error))
}

/// Puts everything there that does not depend on a run.
pub fn fill(root: &Path, orders: &Orders) -> Result<(), Failure> {
    write(&root.join("README.txt"), READ_ME)?;
    write(&root.join(RENAMED), &orders.published(&|n| n >= orders.rename_at))?;
    write(&root.join(ONE_IN_20), &orders.published(&|n| orders.is_canary(n)))?;
    let lines: String = orders.stock.iter().map(|(sku, on_hand)| format!("{sku},{on_hand}\n")).collect();
    write(&root.join("stock.csv"), &format!("sku,on_hand\n{lines}"))?;
    let ordinary = shop(&root.join("ordinary"));
    make_folder(&root.join("ordinary"))?;
    make_shop(&ordinary, &orders.stock).map_err(|error| file_failure(&ordinary, error))?;
    write(&root.join("ordinary/consumer.rs"), include_str!("ordinary.rs"))?;
    for flow in [DEAD_LETTER, SKIP, SKIP_ONE_IN_20] {
        let folder = root.join(flow.name);
        make_folder(&folder)?;
        fs::copy(&ordinary, shop(&folder)).map_err(|error| file_failure(&folder, error))?;
        write(&folder.join("recount.toml"), &config(&flow, flow.that, "event.quantity", &orders.account))?;
    }
    Ok(())
}

/// Writes the config that takes the quantity by either name; the one before stays beside it.
pub fn correct(root: &Path, flow: &Flow, account: &Account) -> Result<(), Failure> {
    let path = root.join(flow.name).join("recount.toml");
    fs::copy(&path, path.with_extension("toml.before")).map_err(|error| file_failure(&path, error))?;
    write(&path, &config(flow, &corrected_rule(), EITHER_NAME, account))
}

/// The rule, corrected.
pub fn corrected_rule() -> String {
    format!("({EITHER_NAME}) > 0")
}

/// What the rule allows: as declared by somebody who has looked at such orders, with room to spare.
pub fn budget_of_the_rule(account: &Account) -> String {
    format!("{}% of 1000", account.percent_for("zero_quantity", 2))
}

/// The database of a folder.
pub fn shop(folder: &Path) -> PathBuf {
    folder.join("shop.db")
}

/// Units on hand by article, as a database has them.
pub fn on_hand(shop: &Path) -> Result<HashMap<String, i64>, Failure> {
    let read = || {
        let shop = Connection::open(shop)?;
        let mut rows = shop.prepare("SELECT sku, on_hand FROM stock")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| file_failure(shop, error))
}

fn config(flow: &Flow, that: &str, quantity: &str, account: &Account) -> String {
    let Flow { orders, otherwise, breaker, .. } = flow;
    let percent = |reason, least| account.percent_for(reason, least);
    let (zero, unknown) = (budget_of_the_rule(account), percent("unknown_sku", 1));
    let insufficient = percent("insufficient_stock", 3);
    format!(
        r#"# Takes ordered units out of stock. Made by `recount demo`.

[server]
listen = "127.0.0.1:0"                        # a free port

[database.shop]
url = "sqlite:shop.db"

[flow.reserve-stock]
owner   = "inventory team"
purpose = "takes ordered units out of stock"
source  = {{ file = "../{orders}" }}
id      = "event.id"
key     = "event.sku"
{breaker}
[[flow.reserve-stock.check]]
reason    = "zero_quantity"
that      = "{that}"
otherwise = "{otherwise}"
at_most   = "{zero}"
because   = "an order line for nothing takes nothing out of stock"

[flow.reserve-stock.apply]
database  = "shop"
sql       = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku AND on_hand >= :quantity"
with      = {{ quantity = "{quantity}", sku = "event.sku" }}
rows      = 1
effects   = "recount_effect"                  # one row an effect, so that the audit can count them

[[flow.reserve-stock.apply.otherwise]]
when      = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)"
verdict   = "dead-letter"
reason    = "unknown_sku"
at_most   = "{unknown}% of 1000"
because   = "no such article"

[[flow.reserve-stock.apply.otherwise]]
verdict   = "dead-letter"
reason    = "insufficient_stock"
at_most   = "{insufficient}% of 1000"
because   = "less on hand than asked for"
"#
    )
}

fn make_shop(path: &Path, stock: &[(String, i64)]) -> rusqlite::Result<()> {
    let mut shop = Connection::open(path)?;
    let table =
        "CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL CHECK (on_hand >= 0)) STRICT";
    shop.execute_batch(table)?;
    let all = shop.transaction()?;
    {
        let mut insert = all.prepare("INSERT OR REPLACE INTO stock VALUES (?1, ?2)")?;
        for (sku, on_hand) in stock {
            insert.execute((sku, on_hand))?;
        }
    }
    all.commit()
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    fs::create_dir(path).map_err(|error| file_failure(path, error))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| file_failure(path, error))
}
