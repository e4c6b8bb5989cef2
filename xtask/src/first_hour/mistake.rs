//! A wrong rule: what it skips, when that must be noticed, and how the events come back.

use super::steps::Hour;
use crate::inventory::{self, Orders, Recount};
use crate::orders::{self, Account, Expected, Order};
use crate::{shop, verify};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

/// The reason of the wrong rule.
const REASON: &str = "more_than_anybody_needs";
/// Its budget, 2 %: so many of [`WINDOW`].
const ALLOWED: usize = 20;
/// The window of the budgets.
const WINDOW: usize = 1000;
/// The share that it should skip.
const SHARE: f64 = 0.05;

/// A rule that skips orders of so many units or more.
struct Mistake {
    units: i64,
    /// By line: whether it is skipped.
    skips: Vec<bool>,
    first: usize,
    /// The line at which the budget is exceeded.
    exceeded_at: usize,
}

impl Mistake {
    /// The number of units whose rule comes nearest to a share of 5 %.
    fn of(lines: &[Order]) -> Result<Self> {
        let share = |units: i64| {
            lines.iter().filter(|order| order.quantity >= units).count() as f64 / lines.len() as f64
        };
        let off = |units: &i64| (share(*units) - SHARE).abs();
        let units = (2..=100).min_by(|a, b| off(a).total_cmp(&off(b))).context("no orders")?;
        let skips: Vec<bool> = lines.iter().map(|order| order.quantity >= units).collect();
        let first = skips.iter().position(|skip| *skip).context("no order is skipped by any such rule")?;
        let Some(exceeded_at) = exceeded_at(skips.iter().copied(), ALLOWED) else {
            bail!(
                "a rule for {units} units or more skips {:.1} % and exceeds no budget",
                share(units) * 100.0
            );
        };
        Ok(Self { units, skips, first, exceeded_at })
    }

    fn count(&self) -> u64 {
        self.skips.iter().filter(|skip| **skip).count() as u64
    }

    /// The orders of the lines that are skipped, or of the others.
    fn orders(&self, lines: &[Order], skipped: bool) -> Vec<Order> {
        let with = lines.iter().zip(&self.skips).filter(|(_, skip)| **skip == skipped);
        with.map(|(order, _)| order.clone()).collect()
    }

    /// The example's config with this rule as a declared skip, so that the books still balance.
    fn config(&self, right: &str) -> Result<String> {
        let (check, less) = ("[[flow.reserve-stock.check]]", "less = [");
        if !right.contains(check) || !right.contains(less) {
            bail!("the example's config has no {check} or no {less}");
        }
        let (units, most) = (self.units, self.units - 1);
        let rule = format!(
            "{check}\nreason = \"{REASON}\"\nthat = \"event.quantity < {units}\"\notherwise = \"skip\"\n\
             at_most = \"2% of {WINDOW}\"\nbecause = \"nobody needs more than {most} of one thing\"\n\n{check}"
        );
        Ok(right.replacen(check, &rule, 1).replacen(less, &format!("{less}\"{REASON}\", "), 1))
    }
}

/// The line with which more than `allowed` of the last [`WINDOW`] are so.
fn exceeded_at(are_so: impl Iterator<Item = bool>, allowed: usize) -> Option<usize> {
    let mut last: VecDeque<usize> = VecDeque::new();
    for (line, is_so) in are_so.enumerate() {
        if is_so {
            last.push_back(line);
            while last.front().is_some_and(|first| first + WINDOW <= line) {
                last.pop_front();
            }
            if last.len() > allowed {
                return Some(line);
            }
        }
    }
    None
}

/// Whether the right rules stay within the budgets that the example declares, on these orders.
pub fn within_budgets(orders: &Orders) -> Result<bool> {
    let config: toml::Table = inventory::example_config()?.parse()?;
    let flow = &config["flow"]["reserve-stock"];
    let rules = [flow.get("check"), flow["apply"].get("otherwise")].into_iter().flatten();
    let mut within = true;
    for rule in rules.filter_map(toml::Value::as_array).flatten() {
        let text = rule.get("at_most").and_then(toml::Value::as_str).unwrap_or("1% of 1000");
        let percent =
            text.strip_suffix("% of 1000").with_context(|| format!("{text:?} is no share of 1000"))?;
        let allowed = percent.parse::<usize>()? * WINDOW / 100;
        let reason = rule["reason"].as_str().unwrap_or_default();
        let lines = orders.lines.iter().zip(&orders.account.fates);
        let are_so = lines.map(|(order, fate)| match reason {
            "bulk_order" => order.quantity > 100,
            reason => fate.reason() == reason,
        });
        within &= exceeded_at(are_so, allowed).is_none();
    }
    Ok(within)
}

/// The shop with the wrong rule.
struct Shop<'o> {
    binary: &'o Path,
    folder: PathBuf,
    lines: Vec<String>,
    written: usize,
}

impl Shop<'_> {
    /// Lets the producer write its lines up to this one.
    fn produce(&mut self, end: usize) -> Result<()> {
        let path = self.folder.with_extension("source").join("orders.ndjson");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        let text = self.lines[self.written..end].join("\n") + "\n";
        file.write_all(text.as_bytes())?;
        self.written = end;
        Ok(())
    }

    fn recount(&self) -> Recount {
        Recount { binary: self.binary.to_path_buf(), folder: self.folder.clone() }
    }
}

/// From the wrong rule to the right stock.
pub fn make_and_mend(hour: &mut Hour, binary: &Path, orders: &Orders, folder: &Path) -> Result<()> {
    let mistake = Mistake::of(&orders.lines)?;
    let right = inventory::example_config()?;
    let lines = orders::open(&orders.path)?.lines().collect::<std::io::Result<Vec<String>>>()?;
    let source = folder.with_extension("source");
    fs::create_dir_all(&source)?;
    inventory::furnish(folder, &mistake.config(&right)?, &source.join("orders.ndjson"), &orders.stock)?;
    let mut shop = Shop { binary, folder: folder.to_path_buf(), lines, written: 0 };
    hour.wrong_rule = json!({
        "skips_from_units": mistake.units,
        "skipped": mistake.count(),
        "share": mistake.count() as f64 / orders.lines.len() as f64,
        "first_skipped_offset": mistake.first,
        "not_working_from_offset": mistake.exceeded_at,
        "events_until_noticed": mistake.exceeded_at - mistake.first,
    });
    notice(hour, &mistake, &mut shop)?;
    skip_the_rest(hour, &mistake, &mut shop, orders)?;
    mend(hour, &mistake, &shop, orders, &right)
}

/// Working up to one event before the budget is exceeded, not working with that event.
fn notice(hour: &mut Hour, mistake: &Mistake, shop: &mut Shop<'_>) -> Result<()> {
    let end = mistake.exceeded_at;
    hour.step(
        format!("a wrong rule (skip from {} units): recount run on its first {end} events", mistake.units),
        |step| {
            shop.produce(end)?;
            let finished = step.run(shop.binary, &["run"], &shop.folder)?;
            step.check_exit(&finished, 0);
            step.check_says(&finished, &["; working"]);
            Ok(())
        },
    )?;
    hour.step("one event more: recount run, recount status", |step| {
        shop.produce(end + 1)?;
        let run = step.run(shop.binary, &["run"], &shop.folder)?;
        step.check_exit(&run, 1);
        step.check_says(&run, &["flow reserve-stock: balanced", "; not working"]);
        let status = step.run(shop.binary, &["status"], &shop.folder)?;
        step.check_exit(&status, 1);
        step.check(
            status.stdout.starts_with("not working"),
            "the first line of status begins with \"not working\"",
        );
        let where_first = format!("first at reserve-stock/0/{end}");
        step.check_says(&status, &[&format!("{REASON} exceeded its budget"), &where_first]);
        let until = end - mistake.first;
        step.check(
            until < WINDOW,
            format!("that is {until} events after the first wrong skip, within the window of {WINDOW}"),
        );
        Ok(())
    })
}

fn skip_the_rest(hour: &mut Hour, mistake: &Mistake, shop: &mut Shop<'_>, orders: &Orders) -> Result<()> {
    let kept = mistake.orders(&orders.lines, false);
    hour.step("the rest with the wrong rule: recount run, recount status", |step| {
        shop.produce(shop.lines.len())?;
        let run = step.run(shop.binary, &["run"], &shop.folder)?;
        step.check_exit(&run, 1);
        let status = step.run(shop.binary, &["status", "--json"], &shop.folder)?;
        step.check_exit(&status, 1);
        let flow = &status.json()?["flows"][0];
        step.check(flow["working"] == false && flow["status"] == "balanced", "balanced, and yet not working");
        let reason = reason_of(flow);
        step.check_count("events skipped by it", &reason["events"], mistake.count());
        step.check(reason["budget_status"] == "exceeded", "its budget is exceeded");
        let account = Account::of(&kept, &orders.stock);
        let differences = shop::differences(&shop.folder.join("shop.db"), &kept, &account, &orders.stock)?;
        step.check_none(&differences, "what was skipped left nothing behind, the others are the account's");
        Ok(())
    })
}

fn reason_of(flow: &Value) -> Value {
    let reasons = flow["reasons"].as_array().cloned().unwrap_or_default();
    reasons.into_iter().find(|reason| reason["reason"] == REASON).unwrap_or_default()
}

/// The rule is taken out, the events come back, and the stock is what it must be.
fn mend(hour: &mut Hour, mistake: &Mistake, shop: &Shop<'_>, orders: &Orders, right: &str) -> Result<()> {
    let replayed = after_replay(mistake, orders);
    let came_back = &replayed.account.fates[replayed.lines.len() - usize::try_from(mistake.count())?..];
    let applied = came_back.iter().filter(|fate| **fate == Expected::Applied).count() as u64;
    fs::write(shop.folder.join("recount.toml"), right)?;
    let skipped = format!("skipped {REASON}");
    hour.step("the rule corrected: recount validate, recount replay --dry-run", |step| {
        let validated = step.run(shop.binary, &["validate"], &shop.folder)?;
        step.check_exit(&validated, 0);
        let arguments = ["replay", "reserve-stock", "--reason", REASON, "--dry-run", "--json"];
        let dry = step.run(shop.binary, &arguments, &shop.folder)?;
        step.check_exit(&dry, 0);
        let selected = &dry.json()?["selected"][&skipped];
        step.check_count("events to be decided anew", &selected["events"], mistake.count());
        step.check_count("of them can be had", &selected["can_be_had"], mistake.count());
        Ok(())
    })?;
    hour.step("recount replay", |step| {
        let because = "--because=people do need more than that";
        let arguments = ["replay", "reserve-stock", "--reason", REASON, because, "--json"];
        let finished = step.run(shop.binary, &arguments, &shop.folder)?;
        step.check_exit(&finished, 0);
        step.check_count("now applied", &finished.json()?["receipt"]["decided"]["applied"], applied);
        let differences = verify::all(&shop.recount(), &replayed)?;
        step.check_none(
            &differences,
            "every decision, effect, article and count is the account's: nothing twice",
        );
        Ok(())
    })?;
    hour.step("recount resume, recount status, recount audit", |step| {
        let because = "--because=the rule is corrected and its events are replayed";
        let resumed = step.run(shop.binary, &["resume", "reserve-stock", because], &shop.folder)?;
        step.check_exit(&resumed, 0);
        let status = step.run(shop.binary, &["status"], &shop.folder)?;
        step.check_exit(&status, 0);
        step.check(status.stdout.starts_with("working"), "the first line of status begins with \"working\"");
        let audit = step.run(shop.binary, &["audit"], &shop.folder)?;
        step.check_exit(&audit, 0);
        Ok(())
    })?;
    hour.step("recount story of an event that came back", |step| {
        let order = &orders.lines[mistake.first];
        let finished = step.run(shop.binary, &["story", &order.id], &shop.folder)?;
        step.check_exit(&finished, 0);
        step.check_says(&finished, &[REASON, "decided it anew"]);
        Ok(())
    })
}

/// The orders in the order in which they were decided: the skipped ones last.
fn after_replay(mistake: &Mistake, orders: &Orders) -> Orders {
    let mut lines = mistake.orders(&orders.lines, false);
    lines.extend(mistake.orders(&orders.lines, true));
    let mut account = Account::of(&lines, &orders.stock);
    // The books count the flags of first decisions; those that a replay raises stand in its own decisions.
    let kept = lines.len() - mistake.skips.iter().filter(|skip| **skip).count();
    account.bulk = lines[..kept].iter().filter(|order| order.quantity > 100).count() as u64;
    Orders { path: orders.path.clone(), lines, stock: orders.stock.clone(), account }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_exceeded_by_the_event_that_is_one_too_many_in_its_window() {
        let every = |nth: usize| (0..5000).map(move |line| line % nth == 0);
        assert_eq!(exceeded_at(every(50), 20), None);
        assert_eq!(exceeded_at(every(49), 20), Some(49 * 20));
        assert_eq!(exceeded_at(every(1), 20), Some(20));
    }

    #[test]
    fn the_rule_is_found_from_the_orders() {
        let order = |offset: i64| Order {
            offset,
            id: offset.to_string(),
            sku: "a".into(),
            quantity: if offset % 18 == 17 { 5 } else { 1 },
        };
        let lines: Vec<Order> = (0..2000).map(order).collect();
        let mistake = Mistake::of(&lines).unwrap();
        assert!((2..=5).contains(&mistake.units));
        assert_eq!((mistake.first, mistake.exceeded_at), (17, 17 + 18 * 20));
        let config = mistake.config("less = [\"x\"]\n[[flow.reserve-stock.check]]\n").unwrap();
        assert!(config.contains("less = [\"more_than_anybody_needs\", \"x\"]"), "{config}");
    }
}
