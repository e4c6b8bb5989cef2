//! What happens, in order: both consumers read the same orders, then the configs are corrected.

use super::data::Orders;
use super::figures::{
    Act, Corrected, Exceeded, Expected, Figures, OrdersFigures, Ordinary, Paused, Sign, Stand,
};
use super::file_failure;
use super::folder::{self, BECAUSE, DEAD_LETTER, FLOW, Flow, SKIP, SKIP_ONE_IN_20};
use super::ordinary::{self, Metrics};
use super::program::{self, Program};
use crate::exit::Failure;
use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// What the first run of a flow says.
const FIRST_LOG: &str = "run.log";

/// Runs all of it in the folder.
pub fn perform(orders: &Orders, root: &Path) -> Result<Figures, Failure> {
    folder::fill(root, orders)?;
    let stage = Stage { orders, root };
    let (ordinary, mut dead_letter) = stage.beside_the_ordinary_one()?;
    let mut skip = stage.drained(&SKIP)?;
    let one_in_20 = stage.drained(&SKIP_ONE_IN_20)?;
    dead_letter.corrected = stage.corrected(&DEAD_LETTER, &dead_letter)?;
    skip.corrected = stage.corrected(&SKIP, &skip)?;
    Ok(Figures {
        recount: 1,
        command: "demo",
        exit_code: 0,
        held: false,
        not_held: Vec::new(),
        took_ms: 0,
        folder: root.display().to_string(),
        program: program::unless_on_path(),
        orders: OrdersFigures {
            from: orders.from.clone(),
            published: orders.all.len(),
            articles: orders.account.on_hand.len(),
            rename_offset: orders.rename_at,
        },
        expected: expected(orders),
        budget: folder::budget_of_the_rule(&orders.account),
        ordinary,
        dead_letter,
        skip,
        one_in_20,
    })
}

fn expected(orders: &Orders) -> Expected {
    let reasons = [None, Some("zero_quantity"), Some("unknown_sku"), Some("insufficient_stock")];
    let count = |reason: Option<&'static str>| (reason.unwrap_or("applied"), orders.account.count(reason));
    Expected {
        fates: reasons.into_iter().map(count).collect(),
        units: orders.account.units(),
        units_after_rename: orders.units_after_rename(),
    }
}

struct Stage<'a> {
    orders: &'a Orders,
    root: &'a Path,
}

impl Stage<'_> {
    fn program(&self, flow: &Flow) -> Program {
        Program::new(self.root.join(flow.name))
    }

    /// The ordinary consumer and Recount with a dead letter, at the same time.
    fn beside_the_ordinary_one(&self) -> Result<(Ordinary, Act), Failure> {
        let program = self.program(&DEAD_LETTER);
        let began = Timestamp::now();
        let mut running = program.start(FIRST_LOG)?;
        let ordinary = std::thread::scope(|scope| {
            let ordinary = scope.spawn(|| self.ordinary());
            (running.paused(), ordinary.join())
        });
        let (paused, ordinary) = ordinary;
        let ordinary = ordinary.map_err(|_| Failure::not_well("the ordinary consumer panicked"))??;
        let paused = paused?;
        let status = status(&program)?;
        let exit_code = running.stop()?;
        let mut act = self.act(&DEAD_LETTER, began, exit_code, status)?;
        act.paused = paused.map(|at| Paused {
            events: act.run.decided.saturating_sub(act.first_renamed_offset as u64),
            left: act.run.published.saturating_sub(act.run.decided),
            after_ms: millis(began, at),
        });
        Ok((ordinary, act))
    }

    fn ordinary(&self) -> Result<Ordinary, Failure> {
        let path = folder::shop(&self.root.join("ordinary"));
        let file = self.root.join(folder::RENAMED);
        let orders = fs::read_to_string(&file).map_err(|error| file_failure(&file, error))?;
        let at_first: i64 = self.units_at_first();
        let rename_at = self.orders.rename_at;
        let began = Instant::now();
        let consume = || {
            let shop = Connection::open(&path)?;
            shop.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")?;
            let sum = || shop.query_row("SELECT total(on_hand) FROM stock", [], |row| row.get::<_, f64>(0));
            let mut at_rename = 0.0;
            let metrics = ordinary::consume(&shop, &orders, &mut |n| {
                if n == rename_at {
                    at_rename = sum()?;
                }
                Ok(())
            })?;
            Ok((metrics, at_rename as i64, sum()? as i64))
        };
        let consumed: rusqlite::Result<(Metrics, i64, i64)> = consume();
        let (metrics, at_rename, in_the_end) = consumed.map_err(|error| file_failure(&path, error))?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (units, units_after_rename) = (at_first - in_the_end, at_rename - in_the_end);
        Ok(Ordinary { metrics, took_ms, units, units_after_rename })
    }

    fn units_at_first(&self) -> i64 {
        // By article, since a list that names one twice counts once.
        self.orders.stock.iter().cloned().collect::<HashMap<String, i64>>().values().sum()
    }

    /// Recount on a file to its end.
    fn drained(&self, flow: &Flow) -> Result<Act, Failure> {
        let program = self.program(flow);
        let began = Timestamp::now();
        let exit_code = program.run_flow(FIRST_LOG)?;
        let status = status(&program)?;
        self.act(flow, began, exit_code, status)
    }

    fn act(&self, flow: &Flow, began: Timestamp, exit_code: i32, status: String) -> Result<Act, Failure> {
        let program = self.program(flow);
        let report = audit(&program)?;
        let renames = |n: &usize| match flow.orders {
            folder::ONE_IN_20 => self.orders.is_canary(*n),
            _ => *n >= self.orders.rename_at,
        };
        let renamed: Vec<usize> = (0..self.orders.all.len()).filter(renames).collect();
        let first = renamed.first().copied().unwrap_or(self.orders.all.len());
        let wrong = self.wrong(&program)?;
        let sign = |decision: &Value| {
            Some(Sign {
                position: text(&decision["position"]),
                event_id: text(&decision["event_id"]),
                verdict: text(&decision["verdict"]),
                reason: text(&decision["reason"]),
                sentence: text(&decision["sentence"]),
                events: offset(&decision["position"])?.saturating_sub(first as u64) + 1,
                after_ms: millis(began, instant(&decision["decided_at"])?),
            })
        };
        Ok(Act {
            renamed: renamed.len(),
            first_renamed_offset: first,
            run: self.stand(flow, &report)?,
            exit_code,
            status,
            first_sign: wrong.first().and_then(sign),
            wrong: wrong.len(),
            exceeded: exceeded(&report, began, first as u64),
            paused: None,
            corrected: None,
        })
    }

    /// Decisions with another reason than the account has for the order, in the orders' order.
    fn wrong(&self, program: &Program) -> Result<Vec<Value>, Failure> {
        let mut wrong = Vec::new();
        for verdict in ["skipped", "dead-lettered"] {
            wrong.extend(program.run(&["ledger", "export", "--verdict", verdict])?.json_lines()?);
        }
        let expected = |decision: &Value| {
            let n = usize::try_from(decision["offset"].as_u64()?).ok()?;
            self.orders.account.fates.get(n)?.reason()
        };
        wrong.retain(|decision| decision["reason"].as_str() != expected(decision));
        wrong.sort_by_key(|decision| decision["offset"].as_u64());
        Ok(wrong)
    }

    fn stand(&self, flow: &Flow, report: &Value) -> Result<Stand, Failure> {
        let of_flow = &report["flows"][0];
        let books = &of_flow["books"];
        let count = |word: &str| books[word].as_u64().unwrap_or(0);
        let mut decisions = BTreeMap::from([("applied".to_owned(), count("applied"))]);
        for reason in books["reasons"].as_array().into_iter().flatten().filter(|r| r["verdict"] != "flagged")
        {
            let fate = format!("{} {}", text(&reason["verdict"]), text(&reason["reason"]));
            decisions.insert(fate, reason["events"].as_u64().unwrap_or(0));
        }
        let shop = folder::shop(&self.root.join(flow.name));
        let left: i64 = folder::on_hand(&shop)?.values().sum();
        Ok(Stand {
            published: count("published"),
            decided: count("applied") + count("skipped") + count("dead-lettered"),
            unexplained: books["unexplained"].as_i64().unwrap_or(i64::MAX),
            status: text(&of_flow["status"]),
            working: of_flow["working"].as_bool(),
            not_working: texts(&of_flow["not_working"]),
            decisions,
            units: self.units_at_first() - left,
        })
    }

    /// The config takes both names; what was refused for the old one is replayed; the flow goes on.
    fn corrected(&self, flow: &Flow, act: &Act) -> Result<Option<Corrected>, Failure> {
        // Without a sign there is nothing to replay, and the claims say so.
        let Some(sign) = &act.first_sign else { return Ok(None) };
        let program = self.program(flow);
        folder::correct(self.root, flow, &self.orders.account)?;
        let replay = ["replay", FLOW, "--reason", &sign.reason, "--because", BECAUSE, "--json"];
        let receipt = program.run(&replay)?.json()?;
        let replayed = receipt["receipt"]["decided"].as_object().into_iter().flatten();
        let replayed = replayed.map(|(fate, count)| (fate.clone(), count.as_u64().unwrap_or(0))).collect();
        let before = texts(&audit(&program)?["flows"][0]["not_working"]);
        program.run(&["resume", FLOW, "--because", BECAUSE])?;
        program.run_flow("run-corrected.log")?;
        let end = self.stand(flow, &audit(&program)?)?;
        let on_hand = folder::on_hand(&folder::shop(&program.folder))?;
        let must = &self.orders.account.on_hand;
        let articles_wrong = must.iter().filter(|(sku, units)| on_hand.get(*sku) != Some(units)).count();
        let stock_is_right = articles_wrong == 0 && end.units == self.orders.account.units();
        let reason = sign.reason.clone();
        Ok(Some(Corrected {
            reason,
            replayed,
            not_working_before_resume: before,
            end,
            articles_wrong,
            stock_is_right,
        }))
    }
}

fn status(program: &Program) -> Result<String, Failure> {
    Ok(text(&program.run(&["status", "--json"])?.json()?["answer"]))
}

fn audit(program: &Program) -> Result<Value, Failure> {
    program.run(&["audit", "--json"])?.json()
}

/// The first budget that was exceeded.
fn exceeded(report: &Value, began: Timestamp, first_renamed: u64) -> Option<Exceeded> {
    let budgets = report["flows"][0]["budgets"].as_array()?;
    let over = budgets.iter().filter(|budget| budget["exceeded"] == true);
    let budget = over.min_by_key(|budget| offset(&budget["exceeded_at_position"]))?;
    Some(Exceeded {
        reason: text(&budget["reason"]),
        budget: text(&budget["budget"]),
        position: text(&budget["exceeded_at_position"]),
        // 0 where it was exceeded before anything was renamed.
        events: (offset(&budget["exceeded_at_position"])? + 1).saturating_sub(first_renamed),
        after_ms: millis(began, instant(&budget["exceeded_at"])?),
    })
}

fn offset(position: &Value) -> Option<u64> {
    position.as_str()?.rsplit('/').next()?.parse().ok()
}

fn instant(at: &Value) -> Option<Timestamp> {
    at.as_str()?.parse().ok()
}

fn millis(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond() - from.as_millisecond()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().map(text).collect()
}
