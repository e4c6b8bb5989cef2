//! `recount explain`: what a reason means, why it comes up, what to do next.

mod wrapped;

use crate::cli::ExplainArgs;
use crate::config::{Config, FlowConfig, ReasonInfo, ReasonOrigin, ReasonVerdict, distance};
use crate::exit::{Exit, Failure, Outcome};
use recount_model::reason::{BUILTINS, BuiltinKind};
use serde_json::{Value, json};
use std::fmt::Write as _;
use wrapped::wrapped;

macro_rules! pages {
    ($($code:literal,)*) => {
        /// Each built-in reason's page, as it stands under `docs/reasons/`.
        const PAGES: &[(&str, &str)] =
            &[$(($code, include_str!(concat!("../../../docs/reasons/", $code, ".md"))),)*];
    };
}

pages! {
    "decode_failed",
    "payload_too_large",
    "no_id",
    "no_key",
    "parameter_missing",
    "schema_mismatch",
    "check_unevaluable",
    "no_route",
    "id_reused",
    "statement_failed",
    "rows_unexpected",
    "retries_exhausted",
    "no_verdict",
    "undeclared_reason",
    "handler_panicked",
    "killed_the_process",
    "not_for_this_flow",
    "duplicate",
    "accepted",
    "contradicts_check",
    "position_reused",
    "source_changed",
    "offset_moved_outside",
    "positions_lost",
    "positions_unrecorded",
    "unreported",
    "positions_missing",
    "effects_missing",
    "expected_effect_missing",
    "unexpected_effect",
    "effects_without_decision",
    "effects_twice",
    "reconcile_differs",
    "budget_exceeded",
    "breaker_open",
    "hold_full",
    "effects_away",
    "effects_rolled_back",
    "ledger_full",
    "ledger_corrupt",
    "ledger_foreign",
    "partition_taken",
    "program_defect",
}

/// The page of a built-in reason, as Markdown.
pub fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, page)| *page)
}

/// A reason that a config declares, with the flow that gives it.
type Declared<'c> = (&'c FlowConfig, &'c ReasonInfo);

/// What is known of a reason. It may be declared by several flows.
#[derive(Debug)]
pub struct Explanation<'c> {
    code: String,
    page: Option<&'static str>,
    file: String,
    declared: Vec<Declared<'c>>,
}

/// Looks a reason up among the built-in ones and those that the config declares.
///
/// # Errors
/// A sentence that names the nearest ones.
pub fn explain<'c>(code: &str, config: Option<&'c Config>) -> Result<Explanation<'c>, String> {
    let declared: Vec<Declared<'c>> =
        all_declared(config).into_iter().filter(|(_, reason)| reason.code.as_str() == code).collect();
    let page = page(code);
    if page.is_none() && declared.is_empty() {
        return Err(unknown(code, config));
    }
    let file = config.map(|config| config.path.display().to_string()).unwrap_or_default();
    Ok(Explanation { code: code.to_owned(), page, file, declared })
}

fn all_declared(config: Option<&Config>) -> Vec<Declared<'_>> {
    let flows = config.map(|config| config.flows.as_slice()).unwrap_or_default();
    flows
        .iter()
        .flat_map(|flow| flow.reasons.iter().map(move |reason| (flow, reason)))
        .filter(|(_, reason)| reason.origin != ReasonOrigin::BuiltIn)
        .collect()
}

/// Only what could be a slip of the finger is offered.
fn unknown(code: &str, config: Option<&Config>) -> String {
    let mut known: Vec<&str> = BUILTINS.iter().map(|builtin| builtin.code).collect();
    known.extend(all_declared(config).iter().map(|(_, reason)| reason.code.as_str()));
    known.sort_by_key(|candidate| (distance(code, candidate), *candidate));
    known.dedup();
    let slips_max = (code.len() / 3).max(2);
    known.retain(|candidate| distance(code, candidate) <= slips_max || candidate.contains(code));
    known.truncate(3);
    let nearest = match known.as_slice() {
        [] => String::new(),
        known => format!("; did you mean {}?", known.join(" or ")),
    };
    let where_looked = match config {
        Some(config) => format!("built in or declared in {}", config.path.display()),
        None => "built in; --config recount.toml looks among those that a config declares, too".to_owned(),
    };
    format!(
        "there is no reason {code:?}{nearest}\nlooked at: what is {where_looked}\nall of them: recount explain"
    )
}

impl Explanation<'_> {
    /// For people.
    pub fn render(&self) -> String {
        let mut out = self.page.map(wrapped).unwrap_or_default();
        for (flow, reason) in &self.declared {
            if !out.is_empty() {
                out.push('\n');
            }
            declared_text(&mut out, &self.file, flow, reason);
        }
        out
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let builtin = BUILTINS.iter().find(|builtin| builtin.code == self.code);
        let declared = |(flow, reason): &Declared<'_>| {
            json!({
                "flow": flow.spec.flow.as_str(),
                "owner": flow.spec.owner,
                "verdict": verdict_word(reason.verdict),
                "budget": reason.budget.to_string(),
                "because": reason.because,
                "given_by": given_by(&reason.origin).0,
                "rule": given_by(&reason.origin).1,
                "review_by": reason.review_by.map(|date| date.to_string()),
                "file": self.file,
                "line": reason.line,
            })
        };
        json!({
            "recount": 1,
            "command": "explain",
            "reason": self.code,
            "built_in": builtin.is_some(),
            "used_for": builtin.map(|builtin| kind_word(builtin.kind)),
            "meaning": builtin.map(|builtin| builtin.meaning),
            "page": self.page,
            "declared": self.declared.iter().map(declared).collect::<Vec<_>>(),
        })
    }
}

fn declared_text(out: &mut String, file: &str, flow: &FlowConfig, reason: &ReasonInfo) {
    let name = &flow.spec.flow;
    let _ = writeln!(out, "# {}\n\n{}.\n", reason.code, sentence(&reason.because));
    let (by, rule) = given_by(&reason.origin);
    let _ = writeln!(out, "  flow       {name}: {}", flow.spec.purpose);
    let _ = writeln!(out, "  owner      {}", flow.spec.owner);
    let _ = writeln!(out, "  given by   {by}{}", rule.map(|rule| format!(": {rule}")).unwrap_or_default());
    let _ = writeln!(out, "  then       {}", verdict_word(reason.verdict));
    let _ = writeln!(out, "  budget     {}", reason.budget);
    if let Some(date) = reason.review_by {
        let _ = writeln!(out, "  review by  {date}");
    }
    let _ = writeln!(out, "  declared   {file}:{}\n\n## What to do next\n", reason.line);
    let code = &reason.code;
    match reason.verdict {
        ReasonVerdict::DeadLetter => {
            let _ = writeln!(out, "    recount dead-letters list --reason {code}");
            let _ = writeln!(out, "    recount replay {name} --reason {code} --dry-run");
        }
        ReasonVerdict::Skip => {
            let _ = writeln!(out, "    recount ledger export --reason {code}");
            let _ = writeln!(out, "    recount replay {name} --reason {code} --dry-run");
        }
        ReasonVerdict::Flag | ReasonVerdict::Retry => {
            let _ = writeln!(out, "    recount ledger export --reason {code}");
        }
    }
    let _ = writeln!(
        out,
        "\nIf it comes up more often than its budget allows, ask its owner: {}.",
        flow.spec.owner
    );
}

fn sentence(because: &str) -> String {
    let mut chars = because.trim_end_matches('.').chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn given_by(origin: &ReasonOrigin) -> (&'static str, Option<&str>) {
    match origin {
        ReasonOrigin::BuiltIn => ("Recount", None),
        ReasonOrigin::Check(that) => ("a check that does not hold", Some(that)),
        ReasonOrigin::Otherwise(when) => ("an `otherwise` of the effect", when.as_deref()),
        ReasonOrigin::Handler => ("the handler", None),
    }
}

/// The imperative, as the config writes it.
pub(crate) fn verdict_word(verdict: ReasonVerdict) -> &'static str {
    match verdict {
        ReasonVerdict::Skip => "skip",
        ReasonVerdict::DeadLetter => "dead-letter",
        ReasonVerdict::Flag => "flag",
        ReasonVerdict::Retry => "retry",
    }
}

fn kind_word(kind: BuiltinKind) -> &'static str {
    match kind {
        BuiltinKind::DeadLetter => "dead-letter",
        BuiltinKind::Skip => "skip",
        BuiltinKind::Flag => "flag",
        BuiltinKind::Finding => "finding",
    }
}

/// All reasons, a line each.
pub fn list(config: Option<&Config>) -> String {
    let mut out = String::new();
    for flow in config.map(|config| config.flows.as_slice()).unwrap_or_default() {
        let declared: Vec<&ReasonInfo> =
            flow.reasons.iter().filter(|reason| reason.origin != ReasonOrigin::BuiltIn).collect();
        if declared.is_empty() {
            continue;
        }
        let _ = writeln!(out, "Declared by flow {} ({}):", flow.spec.flow, flow.spec.owner);
        for reason in declared {
            let (verdict, budget) = (verdict_word(reason.verdict), reason.budget);
            let code = reason.code.as_str();
            let _ = writeln!(out, "  {code:26} {verdict}, {budget}: {}", reason.because);
        }
        out.push('\n');
    }
    for (kind, title) in [
        (BuiltinKind::DeadLetter, "Built in: an event is dead-lettered because"),
        (BuiltinKind::Skip, "Built in: an event is skipped because"),
        (BuiltinKind::Flag, "Built in: an event is flagged because"),
        (BuiltinKind::Finding, "Built in: the flow or the audit found that"),
    ] {
        let _ = writeln!(out, "{title}");
        for builtin in BUILTINS.iter().filter(|builtin| builtin.kind == kind) {
            let _ = writeln!(out, "  {:26} {}", builtin.code, builtin.meaning);
        }
        out.push('\n');
    }
    let _ = writeln!(out, "recount explain REASON says what happened, likely causes and what to do next");
    if config.is_none() {
        let _ =
            writeln!(out, "recount explain --config recount.toml lists those that a config declares, too");
    }
    out
}

fn list_json(config: Option<&Config>) -> Value {
    let builtins = BUILTINS.iter().map(|builtin| {
        json!({"reason": builtin.code, "used_for": kind_word(builtin.kind), "meaning": builtin.meaning})
    });
    let declared = all_declared(config).into_iter().map(|(flow, reason)| {
        json!({
            "reason": reason.code.as_str(), "flow": flow.spec.flow.as_str(),
            "verdict": verdict_word(reason.verdict), "because": reason.because,
        })
    });
    json!({
        "recount": 1,
        "command": "explain",
        "built_in": builtins.collect::<Vec<_>>(),
        "declared": declared.collect::<Vec<_>>(),
    })
}

/// The command.
///
/// # Errors
/// An unknown reason, or a config with faults, is a usage error.
pub fn command(args: &ExplainArgs) -> Outcome {
    let config = match &args.config {
        Some(named) => Some(crate::wiring::load(named)?),
        None => usual_config(),
    };
    print(args.reason.as_deref(), config.as_ref(), args.json)
}

/// The config of this folder, which nobody asked for: its faults are told elsewhere.
fn usual_config() -> Option<Config> {
    let usual = std::path::Path::new("recount.toml");
    if !usual.exists() {
        return None;
    }
    let config = Config::load(usual).ok();
    if config.is_none() {
        eprintln!(
            "recount.toml has faults, so the reasons that it declares are left out: recount validate\n"
        );
    }
    config
}

/// Prints what the command was asked for.
///
/// # Errors
/// An unknown reason is a usage error.
pub fn print(reason: Option<&str>, config: Option<&Config>, as_json: bool) -> Outcome {
    match reason {
        None if as_json => println!("{}", list_json(config)),
        None => print!("{}", list(config)),
        Some(code) => {
            let explanation = explain(code, config).map_err(Failure::usage)?;
            if as_json {
                println!("{}", explanation.json());
            } else {
                print!("{}", explanation.render());
            }
        }
    }
    Ok(Exit::Well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn each_builtin_reason_has_a_page_and_each_page_a_reason() {
        let codes: BTreeSet<String> = BUILTINS.iter().map(|builtin| builtin.code.to_owned()).collect();
        let pages: BTreeSet<String> = PAGES.iter().map(|(code, _)| (*code).to_owned()).collect();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reasons");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(codes, pages);
        assert_eq!(codes, files);
    }

    #[test]
    fn each_page_says_what_happened_why_and_what_next() {
        for (code, page) in PAGES {
            let meaning = BUILTINS.iter().find(|builtin| builtin.code == *code).unwrap().meaning;
            let mut lines = page.lines();
            assert_eq!(lines.next(), Some(format!("# {code}").as_str()));
            assert!(
                page.to_lowercase().contains(&format!("\n{}.\n", meaning.to_lowercase())),
                "{code}: {meaning}"
            );
            let headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
            assert_eq!(headings, ["## What happened", "## Likely causes", "## What to do next"], "{code}");
            assert!(page.contains("recount "), "{code} names no command");
        }
    }

    #[test]
    fn each_command_that_a_page_names_exists() {
        use clap::Parser as _;
        let mut commands = 0;
        for (code, page) in PAGES {
            for line in page.lines().filter_map(|line| line.strip_prefix("    recount ")) {
                let line = line.split(" > ").next().unwrap();
                let words = line.split('\'').enumerate().flat_map(|(index, part)| match index % 2 {
                    0 => part.split_whitespace().collect::<Vec<_>>(),
                    _ => vec![part],
                });
                let parsed = crate::cli::Cli::try_parse_from(["recount"].into_iter().chain(words));
                assert!(parsed.is_ok(), "{code}: recount {line}: {}", parsed.err().unwrap());
                commands += 1;
            }
        }
        assert!(commands > 60, "{commands}");
    }

    fn config() -> Config {
        let text = r#"
            [database.shop]
            url = "sqlite:shop.db"
            [flow.reserve-stock]
            owner = "inventory team"
            purpose = "takes ordered units out of stock"
            source = { file = "orders.ndjson" }
            [[flow.reserve-stock.check]]
            reason = "zero_quantity"
            that = "event.quantity > 0"
            otherwise = "skip"
            at_most = "2% of 1000"
            review_by = 2027-06-01
            because = "an order line for nothing takes nothing out of stock"
            [flow.reserve-stock.apply]
            database = "shop"
            sql = "DELETE FROM stock"
            rows = "any"
        "#;
        Config::from_text(text, Path::new("recount.toml")).unwrap()
    }

    #[test]
    fn a_declared_reason_is_explained_from_the_config() {
        let config = config();
        expect![[r#"
            # zero_quantity

            An order line for nothing takes nothing out of stock.

              flow       reserve-stock: takes ordered units out of stock
              owner      inventory team
              given by   a check that does not hold: event.quantity > 0
              then       skip
              budget     2% of 1000
              review by  2027-06-01
              declared   recount.toml:9

            ## What to do next

                recount ledger export --reason zero_quantity
                recount replay reserve-stock --reason zero_quantity --dry-run

            If it comes up more often than its budget allows, ask its owner: inventory team.
        "#]]
        .assert_eq(&explain("zero_quantity", Some(&config)).unwrap().render());
    }

    #[test]
    fn an_unknown_reason_is_answered_with_the_nearest() {
        let config = config();
        for (code, config, expected) in [
            ("schema_mismach", None, "did you mean schema_mismatch?"),
            ("zero_quantiti", Some(&config), "did you mean zero_quantity?"),
            ("id", None, "id_reused"),
            ("heartbeat", None, "all of them: recount explain"),
        ] {
            let message = explain(code, config).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        assert!(explain("zero_quantity", None).is_err());
        assert!(!explain("heartbeat", None).unwrap_err().contains("did you mean"));
        assert!(list(Some(&config)).contains("zero_quantity              skip, 2% of 1000: an order line"));
    }
}
