//! `cargo xtask samples`: what stands in `packaging` for Kubernetes and Compose: held against their schemas and against
//! itself, and its flow tried on a real broker and a real database.

mod compose;
mod kubernetes;
mod schemas;
mod tried;

use crate::dist::{Check, Outcome, say};
use crate::program;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

/// Where the samples lie.
const MANIFESTS: &str = "packaging/kubernetes/recount.yaml";
const COMPOSE: &str = "packaging/compose.yaml";
const CONFIG: &str = "packaging/compose/recount.toml";
const SQL: &str = "packaging/compose/shop.sql";

/// The service that `RECOUNT_WITHOUT` leaves out where Python's packages can't be had.
pub const SCHEMAS: &str = "schemas";

/// Checks everything; 1 where something does not hold.
pub fn run(json: bool) -> Result<ExitCode> {
    let read = |path: &str| fs::read_to_string(program::root().join(path)).with_context(|| path.to_owned());
    let (config, sql) = (read(CONFIG)?, read(SQL)?);
    let mut checks = Vec::new();
    match schemas::read()? {
        None => {
            let why = format!("left out, as RECOUNT_WITHOUT={SCHEMAS} says");
            checks.push(Check { name: "schemas", outcome: Outcome::NotPossible(why) });
        }
        Some(read) => {
            checks.push(Check { name: "schemas of Kubernetes", outcome: read.of_kubernetes() });
            checks.push(Check { name: "schema of Compose", outcome: read.of_compose() });
            let faults = kubernetes::faults(&read.manifests, &config);
            checks.push(Check { name: "Kubernetes: one thing fits another", outcome: outcome(&faults) });
            let faults = compose::faults(&read.compose, &config);
            checks.push(Check { name: "Compose: one thing fits another", outcome: outcome(&faults) });
        }
    }
    checks.push(Check::new("its flow on Kafka and PostgreSQL", tried::on_real_servers(&config, &sql)));
    for check in &checks {
        println!("{}", say(check));
    }
    let ok = !checks.iter().any(|check| matches!(check.outcome, Outcome::Fails(_)));
    if json {
        let checks: Vec<Value> = checks.iter().map(Check::json).collect();
        println!("{}", json!({ "chore": "samples", "ok": ok, "checks": checks }));
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

fn outcome(faults: &[String]) -> Outcome {
    match faults {
        [] => Outcome::Holds("names, ports, volumes, variables, rights".to_owned()),
        faults => Outcome::Fails(faults.join("; ")),
    }
}

/// The variables that a config takes from the environment, comments left out.
fn variables(config: &str) -> BTreeSet<&str> {
    let lines = config.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| line.split("${").skip(1)).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
}

/// A value within others, by its keys; null where there is none.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| match key.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[key],
    })
}

/// The values of a list or a table; none where it is neither.
fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::variables;

    #[test]
    fn variables_are_found_where_they_are_used() {
        let found = variables("a = \"${A}\"\nb = \"x ${B_2}:${C}\"\n  # c = \"${D}\"\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["A", "B_2", "C"]);
    }
}
