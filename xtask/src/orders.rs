//! The order lines and stock list of the inventory example, and an independent account of what must
//! become of each line: the four rules, applied one by one, with nothing of Recount in it.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// One order line.
#[derive(Debug, Clone)]
pub struct Order {
    /// The line's ordinal in its file, from 0.
    pub offset: i64,
    /// `id`.
    pub id: String,
    /// `sku`.
    pub sku: String,
    /// `quantity`.
    pub quantity: i64,
}

/// One line of the stock list.
#[derive(Debug, Clone)]
pub struct Article {
    /// The columns before `on_hand`: sku, department, brand, product_category.
    pub text: [String; 4],
    /// Units on hand before the first order.
    pub on_hand: i64,
}

/// What must become of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expected {
    /// Taken out of stock.
    Applied,
    /// Asks for nothing.
    ZeroQuantity,
    /// Asks for an article that the list doesn't have.
    UnknownSku,
    /// Asks for more than there is.
    InsufficientStock,
}

impl Expected {
    /// Every one, in the order of the rules.
    pub const ALL: [Self; 4] = [Self::Applied, Self::ZeroQuantity, Self::UnknownSku, Self::InsufficientStock];

    /// The law's word.
    pub fn verdict(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::ZeroQuantity => "skipped",
            Self::UnknownSku | Self::InsufficientStock => "dead-lettered",
        }
    }

    /// The reason's code; empty for an applied line.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Applied => "",
            Self::ZeroQuantity => "zero_quantity",
            Self::UnknownSku => "unknown_sku",
            Self::InsufficientStock => "insufficient_stock",
        }
    }
}

/// What must come of a whole file.
#[derive(Debug)]
pub struct Account {
    /// One a line, in the order of the file.
    pub fates: Vec<Expected>,
    /// How many of each.
    pub counts: BTreeMap<Expected, u64>,
    /// Units that leave the stock.
    pub units: i64,
    /// Lines that ask for more than 100 units, whatever becomes of them.
    pub bulk: u64,
    /// What is left of each article.
    pub on_hand: HashMap<String, i64>,
}

impl Account {
    /// Applies the rules to the lines, one by one, in the order of the file.
    pub fn of(orders: &[Order], stock: &[Article]) -> Self {
        let mut on_hand: HashMap<String, i64> =
            stock.iter().map(|article| (article.text[0].clone(), article.on_hand)).collect();
        let (mut units, mut bulk) = (0, 0);
        let fates: Vec<Expected> = orders
            .iter()
            .map(|order| {
                bulk += u64::from(order.quantity > 100);
                if order.quantity == 0 {
                    return Expected::ZeroQuantity;
                }
                match on_hand.get_mut(&order.sku) {
                    None => Expected::UnknownSku,
                    Some(left) if *left < order.quantity => Expected::InsufficientStock,
                    Some(left) => {
                        *left -= order.quantity;
                        units += order.quantity;
                        Expected::Applied
                    }
                }
            })
            .collect();
        let mut counts: BTreeMap<Expected, u64> = Expected::ALL.into_iter().map(|fate| (fate, 0)).collect();
        for fate in &fates {
            *counts.entry(*fate).or_default() += 1;
        }
        Self { fates, counts, units, bulk, on_hand }
    }

    /// How many lines come to this.
    pub fn count(&self, fate: Expected) -> u64 {
        self.counts.get(&fate).copied().unwrap_or(0)
    }
}

/// Opens a file, unpacking it where its name ends in `.zst`.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    Ok(if path.extension().is_some_and(|extension| extension == "zst") {
        Box::new(BufReader::new(zstd::Decoder::new(file)?))
    } else {
        Box::new(BufReader::new(file))
    })
}

/// Reads order lines.
///
/// # Errors
/// Where the file can't be read, or a line is not an order: these commands compare with the four rules,
/// which say nothing about such a line.
pub fn read_orders(path: &Path) -> Result<Vec<Order>> {
    let mut orders = Vec::new();
    for (offset, line) in open(path)?.lines().enumerate() {
        let line = line?;
        let order = parse_order(offset as i64, &line)
            .with_context(|| format!("{}:{}: not an order line", path.display(), offset + 1))?;
        orders.push(order);
    }
    Ok(orders)
}

fn parse_order(offset: i64, line: &str) -> Result<Order> {
    let event: serde_json::Value = serde_json::from_str(line)?;
    let text = |name: &str| event[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let quantity = event["quantity"].as_i64().context("quantity is not an integer")?;
    Ok(Order { offset, id: text("id")?, sku: text("sku")?, quantity })
}

/// Reads a stock list: CSV with the header `sku,department,brand,product_category,on_hand`.
///
/// # Errors
/// Where the file can't be read or has another shape.
pub fn read_stock(path: &Path) -> Result<Vec<Article>> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    if header != "sku,department,brand,product_category,on_hand" {
        bail!("{}:1: unknown header {header:?}", path.display());
    }
    lines
        .enumerate()
        .map(|(index, line)| {
            parse_article(line).with_context(|| format!("{}:{}: {line:?}", path.display(), index + 2))
        })
        .collect()
}

fn parse_article(line: &str) -> Result<Article> {
    let fields = split_csv(line);
    let [sku, department, brand, category, on_hand] = <[String; 5]>::try_from(fields)
        .map_err(|fields| anyhow::anyhow!("{} fields, not 5", fields.len()))?;
    Ok(Article { text: [sku, department, brand, category], on_hand: on_hand.parse()? })
}

/// Splits one CSV line; quoted fields may hold commas and doubled quotes, but no line break.
fn split_csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(offset: i64, sku: &str, quantity: i64) -> Order {
        Order { offset, id: format!("id-{offset}"), sku: sku.into(), quantity }
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let article = |sku: &str, on_hand| Article {
            text: [sku.into(), String::new(), String::new(), String::new()],
            on_hand,
        };
        let orders = [
            order(0, "a", 0),
            order(1, "none", 0),
            order(2, "none", 200),
            order(3, "a", 7),
            order(4, "a", 4),
            order(5, "a", 3),
            order(6, "a", 1),
        ];
        let account = Account::of(&orders, &[article("a", 10), article("b", 5)]);
        use Expected::*;
        assert_eq!(
            account.fates,
            [ZeroQuantity, ZeroQuantity, UnknownSku, Applied, InsufficientStock, Applied, InsufficientStock]
        );
        assert_eq!((account.units, account.bulk), (10, 1));
        assert_eq!((account.on_hand["a"], account.on_hand["b"]), (0, 5));
    }

    #[test]
    fn the_slice_of_the_example_comes_to_what_its_readme_says() {
        let folder = crate::program::root().join("examples/inventory");
        let orders = read_orders(&folder.join("orders.ndjson")).unwrap();
        let account = Account::of(&orders, &read_stock(&folder.join("stock.csv")).unwrap());
        assert_eq!(orders.len(), 10_000);
        let counts: Vec<u64> = Expected::ALL.into_iter().map(|fate| account.count(fate)).collect();
        assert_eq!(counts, [9_887, 59, 1, 53]);
        assert_eq!((account.units, account.bulk), (21_602, 54));
    }

    #[test]
    fn a_csv_field_may_be_quoted() {
        assert_eq!(split_csv(r#"1,"a, ""b""",,x"#), ["1", r#"a, "b""#, "", "x"]);
    }
}
