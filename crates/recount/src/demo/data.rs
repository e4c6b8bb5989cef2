//! The orders: a slice of real ones that is built in, or a folder's; and the producer that renames a field.

use super::account::{Account, Fate};
use super::{DemoArgs, file_failure};
use crate::exit::Failure;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The example's 10,000 order lines, compressed.
const ORDERS: &[u8] = include_bytes!("builtin/orders.ndjson.zst");
/// The example's stock list, compressed.
const STOCK: &[u8] = include_bytes!("builtin/stock.csv.zst");

/// No order is longer.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// No stock list is longer.
const STOCK_BYTES_MAX: u64 = 64 << 20;
/// So many orders must come after the rename: the windows of the budgets are 1,000 events long.
const AFTER_RENAME_MIN: usize = 1000;
/// So many orders may be read: they are held in memory.
const ORDERS_MAX: usize = 1_000_000;
/// One order in so many comes from the producer's new version, where that is being rolled out.
const CANARY_ONE_IN: u64 = 20;

/// One order line.
pub struct Order {
    /// As it was published.
    pub line: String,
    /// Its id.
    pub id: String,
    /// The article.
    pub sku: String,
    /// Units.
    pub quantity: i64,
}

/// The orders of one demo, and the stock that they are taken from.
pub struct Orders {
    /// Where they are from, in words.
    pub from: String,
    /// In the order of their publication.
    pub all: Vec<Order>,
    /// Units on hand by article, in the order of the list.
    pub stock: Vec<(String, i64)>,
    /// The first that is renamed, from 0.
    pub rename_at: usize,
    /// What must become of each, worked out without Recount.
    pub account: Account,
}

impl Orders {
    /// Reads them, and refuses those with which the demo could show nothing.
    pub fn read(args: &DemoArgs) -> Result<Self, Failure> {
        let wanted = args.orders.min(ORDERS_MAX);
        let (from, lines, stock) = match &args.data {
            Some(folder) => (folder.display().to_string(), lines_of(folder, wanted)?, stock_of(folder)?),
            None => {
                let lines = lines(unpacked(ORDERS)?, wanted).map_err(Failure::unreachable)?;
                ("built in".to_owned(), lines, stock(unpacked(STOCK)?).map_err(Failure::unreachable)?)
            }
        };
        let mut all: Vec<Order> = Vec::with_capacity(lines.len());
        let mut seen = HashMap::new();
        for (n, line) in lines.into_iter().enumerate() {
            let number = n + 1;
            let order =
                order(line).map_err(|why| Failure::usage(format!("order {number} of {from}: {why}")))?;
            if let Some(first) = seen.insert(order.id.clone(), number) {
                let id = &order.id;
                let message = format!(
                    "orders {first} and {number} of {from} have the same id {id}: the demo takes each once"
                );
                return Err(Failure::usage(message));
            }
            all.push(order);
        }
        let rename_at = rename_at(&args.rename_at, all.len())?;
        let account = Account::of(&all, &stock);
        Ok(Self { from, all, stock, rename_at, account })
    }

    /// Whether the producer's new version sends this order, where one in twenty comes from it. A property of
    /// the order alone, so that it is about as many of any orders.
    pub fn is_canary(&self, n: usize) -> bool {
        let hash = blake3::hash(self.all[n].id.as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        n >= self.rename_at && u64::from(u32::from_le_bytes([a, b, c, d])) % CANARY_ONE_IN == 0
    }

    /// What the producer sends: from the rename on, the field's other name for those that `renames` picks.
    pub fn published(&self, renames: &dyn Fn(usize) -> bool) -> String {
        let mut out = String::new();
        for (n, order) in self.all.iter().enumerate() {
            match renames(n) {
                true => out.push_str(&renamed(&order.line)),
                false => out.push_str(&order.line),
            }
            out.push('\n');
        }
        out
    }

    /// Units that must leave the stock for the orders from the rename on.
    pub fn units_after_rename(&self) -> i64 {
        self.account.fates[self.rename_at..].iter().map(Fate::units).sum()
    }
}

/// The order with `qty` instead of `quantity`, everything else as it was and where it was.
fn renamed(line: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else { return line.to_owned() };
    let name = |name: String| if name == "quantity" { "qty".to_owned() } else { name };
    let fields: Map<String, Value> = fields.into_iter().map(|(key, value)| (name(key), value)).collect();
    Value::Object(fields).to_string()
}

fn order(line: String) -> Result<Order, String> {
    let json: Value = serde_json::from_str(&line).map_err(|error| format!("it is no JSON: {error}"))?;
    let text = |name: &str| match json[name].as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("it has no text {name:?}")),
    };
    let quantity = json["quantity"].as_i64().ok_or("it has no whole number \"quantity\"")?;
    if quantity < 0 || json.get("qty").is_some() {
        return Err("its quantity must not be negative, and it must not have a qty yet".to_owned());
    }
    Ok(Order { id: text("id")?, sku: text("sku")?, quantity, line })
}

fn rename_at(text: &str, orders: usize) -> Result<usize, Failure> {
    let at = match text.strip_suffix('%') {
        Some(share) => {
            share.parse::<usize>().ok().filter(|share| *share < 100).map(|share| orders * share / 100)
        }
        None => text.parse::<usize>().ok(),
    };
    let at =
        at.ok_or_else(|| Failure::usage(format!("--rename-at {text}: write a number of orders, or 40%")))?;
    if at == 0 || at + AFTER_RENAME_MIN > orders {
        let message = format!(
            "--rename-at {text}: of {orders} orders, {at} would come before the rename and {} after; at least 1 and \
             {AFTER_RENAME_MIN} are needed, since a budget looks at the last 1000 events",
            orders.saturating_sub(at)
        );
        return Err(Failure::usage(message));
    }
    Ok(at)
}

fn unpacked<'b>(bytes: &'b [u8]) -> Result<Box<dyn BufRead + 'b>, Failure> {
    let reader = zstd::stream::read::Decoder::new(bytes).map_err(Failure::unreachable)?;
    Ok(Box::new(BufReader::new(reader)))
}

fn opened(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    let file = File::open(path).map_err(|error| file_failure(path, error))?;
    if path.extension().is_some_and(|end| end == "zst") {
        let reader = zstd::stream::read::Decoder::new(file).map_err(|error| file_failure(path, error))?;
        return Ok(Box::new(BufReader::new(reader)));
    }
    Ok(Box::new(BufReader::new(file)))
}

fn lines_of(folder: &Path, wanted: usize) -> Result<Vec<String>, Failure> {
    let listed = folder.read_dir().map_err(|error| file_failure(folder, error))?;
    let is_orders = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("orders-") && (name.ends_with(".ndjson") || name.ends_with(".ndjson.zst"))
    };
    let mut files: Vec<PathBuf> =
        listed.filter_map(|entry| Some(entry.ok()?.path())).filter(is_orders).collect();
    files.sort();
    if files.is_empty() {
        let message = format!("{} has no orders-*.ndjson or orders-*.ndjson.zst", folder.display());
        return Err(Failure::usage(message));
    }
    let mut all = Vec::new();
    for file in files {
        let more = lines(opened(&file)?, wanted - all.len()).map_err(|error| file_failure(&file, error))?;
        all.extend(more);
    }
    Ok(all)
}

fn lines(mut reader: impl BufRead, wanted: usize) -> std::io::Result<Vec<String>> {
    let mut all = Vec::new();
    while all.len() < wanted {
        let mut line = String::new();
        if reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            break;
        }
        if line.len() as u64 == LINE_BYTES_MAX {
            return Err(std::io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
        }
        if !line.trim().is_empty() {
            all.push(line.trim_end().to_owned());
        }
    }
    Ok(all)
}

fn stock_of(folder: &Path) -> Result<Vec<(String, i64)>, Failure> {
    let path =
        ["stock.csv", "stock.csv.zst"].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
    let message = || Failure::usage(format!("{} has no stock.csv or stock.csv.zst", folder.display()));
    let path = path.ok_or_else(message)?;
    stock(opened(&path)?).map_err(|error| file_failure(&path, error))
}

/// Reads a list with a header; of its columns `sku` and `on_hand` are needed.
fn stock(reader: impl BufRead) -> std::io::Result<Vec<(String, i64)>> {
    let wrong = |line: usize, what: &str| std::io::Error::other(format!("line {line}: {what}"));
    let mut lines = reader.take(STOCK_BYTES_MAX).lines().enumerate();
    let header = lines.next().ok_or_else(|| wrong(1, "it is empty"))?.1?;
    let header = cells(&header);
    let column = |name: &str| {
        header
            .iter()
            .position(|cell| cell == name)
            .ok_or_else(|| wrong(1, &format!("it has no column {name}")))
    };
    let (sku, on_hand) = (column("sku")?, column("on_hand")?);
    let mut stock = Vec::new();
    for (n, line) in lines {
        let cells = cells(&line?);
        let units = cells.get(on_hand).and_then(|cell| cell.parse().ok());
        match (cells.get(sku), units) {
            (Some(sku), Some(units)) => stock.push((sku.clone(), units)),
            _ => return Err(wrong(n + 1, "it has no sku, or no whole number on_hand")),
        }
    }
    Ok(stock)
}

/// The cells of a line; those in quotes may hold commas.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut in_quotes = false;
    for c in line.trim_end().chars() {
        match c {
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => cells.push(String::new()),
            c => cells.last_mut().into_iter().for_each(|cell| cell.push(c)),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orders_that_are_built_in_are_those_of_the_example() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/inventory");
        for (packed, name) in [(ORDERS, "orders.ndjson"), (STOCK, "stock.csv")] {
            let plain = std::fs::read(example.join(name)).unwrap();
            assert!(zstd::decode_all(packed).unwrap() == plain, "{name} of the example is another");
        }
    }

    #[test]
    fn renaming_changes_the_name_and_nothing_else() {
        let line = r#"{"id":"1","quantity":3,"amount":0.10000000000000001,"note":"quantity"}"#;
        assert_eq!(renamed(line), r#"{"id":"1","qty":3,"amount":0.1,"note":"quantity"}"#);
    }

    #[test]
    fn a_rename_too_late_for_a_budget_is_refused() {
        assert_eq!(rename_at("40%", 10_000).unwrap(), 4000);
        assert_eq!(rename_at("9000", 10_000).unwrap(), 9000);
        for wrong in ["9001", "0", "x", "100%", "-1"] {
            assert!(rename_at(wrong, 10_000).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cells_in_quotes_may_hold_commas() {
        assert_eq!(cells("1,\"a, b\",c"), ["1", "a, b", "c"]);
    }
}
