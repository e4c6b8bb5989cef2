//! A folder in which the inventory example can be run: config, schema, stock; and the commands run there.

use crate::orders::{Account, Article, Order, read_orders, read_stock};
use crate::program::{self, Finished};
use crate::shop;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCHEMA: &str = "order-placed.schema.json";
const ORDERS: &str = "orders.ndjson";

/// Order lines, the stock they are taken from, and what must come of them.
pub struct Orders {
    /// The file of order lines.
    pub path: PathBuf,
    /// What stands in it.
    pub lines: Vec<Order>,
    /// The stock list.
    pub stock: Vec<Article>,
    /// What must come of it.
    pub account: Account,
}

impl Orders {
    /// Reads both files; those of the example where none is named.
    pub fn read(orders: Option<PathBuf>, stock: Option<PathBuf>) -> Result<Self> {
        let example = example();
        let path = orders.unwrap_or_else(|| example.join("orders.ndjson"));
        let path = path.canonicalize().with_context(|| format!("can't open {}", path.display()))?;
        let lines = read_orders(&path)?;
        let stock = read_stock(&stock.unwrap_or_else(|| example.join("stock.csv")))?;
        let account = Account::of(&lines, &stock);
        Ok(Self { path, lines, stock, account })
    }
}

/// The example's own folder.
pub fn example() -> PathBuf {
    program::root().join("examples/inventory")
}

/// The example's config.
pub fn example_config() -> Result<String> {
    let path = example().join("recount.toml");
    fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
}

/// The config with a table more for its flow.
pub fn with_flow_table(config: &str, name: &str, body: &str) -> Result<String> {
    let check = "[[flow.reserve-stock.check]]";
    if !config.contains(check) {
        bail!("the example's config has no {check} before which a table could be put");
    }
    Ok(config.replacen(check, &format!("[flow.reserve-stock.{name}]\n{body}\n\n{check}"), 1))
}

/// Fills a folder with everything that `recount run recount.toml` needs there. A file `orders.ndjson` is
/// linked to, so that the config can stay as it is written; another is named where it lies.
pub fn furnish(folder: &Path, config: &str, orders: &Path, stock: &[Article]) -> Result<()> {
    fs::create_dir_all(folder)?;
    if orders.file_name().is_some_and(|name| name == ORDERS) {
        std::os::unix::fs::symlink(orders, folder.join(ORDERS))?;
        fs::write(folder.join("recount.toml"), config)?;
    } else {
        let elsewhere = toml::Value::String(orders.display().to_string()).to_string();
        fs::write(folder.join("recount.toml"), config.replacen(&format!("\"{ORDERS}\""), &elsewhere, 1))?;
    }
    fs::copy(example().join(SCHEMA), folder.join(SCHEMA))?;
    shop::create(&folder.join("shop.db"), stock)
}

/// The program under test, in a folder that was furnished.
pub struct Recount {
    /// The binary.
    pub binary: PathBuf,
    /// Where it runs.
    pub folder: PathBuf,
}

impl Recount {
    /// The binary with these arguments, in its folder, without the caller's own settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(&self.folder);
        command.env_remove("RECOUNT_CONFIG").env_remove("RECOUNT_STEP_FILE");
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        program::run(&mut self.command(arguments))
    }
}
