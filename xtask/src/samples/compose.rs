//! What no schema sees in the Compose sample: files, volumes, services and variables that are named and must be there.

use super::{COMPOSE, at, each, variables};
use crate::program;
use serde_json::Value;
use std::path::Path;

/// Everything that does not fit.
pub fn faults(compose: &Value, config: &str) -> Vec<String> {
    let folder = program::root().join(COMPOSE).parent().map(Path::to_path_buf).unwrap_or_default();
    faults_in(compose, config, &|path| folder.join(path).exists())
}

fn faults_in(compose: &Value, config: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut unless = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    for (name, service) in compose["services"].as_object().into_iter().flatten() {
        for volume in each(&service["volumes"]).into_iter().filter_map(Value::as_str) {
            let source = volume.split(':').next().unwrap_or_default();
            if source.starts_with('.') {
                unless(exists(source), format!("{name}: {source} is mounted and not there"));
            } else {
                unless(
                    compose["volumes"].get(source).is_some(),
                    format!("{name}: no volume is called {source}"),
                );
            }
        }
        for (on, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other = &compose["services"][on];
            unless(other.is_object(), format!("{name}: there is no service {on}"));
            let needs_check = how["condition"] == "service_healthy";
            unless(
                !needs_check || other["healthcheck"].is_object(),
                format!("{name}: {on} has no health check"),
            );
        }
        for port in each(&service["ports"]).into_iter().filter_map(Value::as_str) {
            unless(port.starts_with("127.0.0.1:"), format!("{name}: {port} is open to other machines"));
        }
        if let (Some(context), Some(recipe)) =
            (at(service, "build.context").as_str(), at(service, "build.dockerfile").as_str())
        {
            unless(exists(&format!("{context}/{recipe}")), format!("{name}: {recipe} is not there"));
        }
    }
    let recount = &compose["services"]["recount"];
    for name in variables(config) {
        let given = recount["environment"].get(name).is_some();
        unless(given, format!("the config takes ${{{name}}}, which recount doesn't have"));
    }
    unless(recount["read_only"] == true, "recount may write to its root".to_owned());
    unless(at(recount, "cap_drop.0") == "ALL", "recount keeps capabilities".to_owned());
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_is_told() {
        let right = json!({
            "services": {
                "recount": {
                    "build": { "context": "..", "dockerfile": "packaging/Dockerfile" },
                    "environment": { "URL": "x" },
                    "volumes": ["data:/data", "./recount.toml:/etc/recount.toml:ro"],
                    "depends_on": { "db": { "condition": "service_healthy" } },
                    "ports": ["127.0.0.1:7601:7601"],
                    "read_only": true,
                    "cap_drop": ["ALL"],
                },
                "db": { "image": "db", "healthcheck": {} },
            },
            "volumes": { "data": null },
        });
        let exists = |path: &str| ["./recount.toml", "../packaging/Dockerfile"].contains(&path);
        assert_eq!(faults_in(&right, "url = \"${URL}\"", &exists), Vec::<String>::new());
        for (pointer, value, told) in [
            ("/services/recount/volumes/0", json!("other:/data"), "no volume is called other"),
            ("/services/recount/volumes/1", json!("./other:/x"), "./other is mounted and not there"),
            ("/services/recount/depends_on", json!({ "zz": {} }), "there is no service zz"),
            ("/services/db", json!({ "image": "db" }), "db has no health check"),
            ("/services/recount/ports/0", json!("7601:7601"), "is open to other machines"),
            ("/services/recount/build/dockerfile", json!("Dockerfile"), "Dockerfile is not there"),
            ("/services/recount/environment", json!({}), "the config takes ${URL}"),
            ("/services/recount/read_only", json!(false), "may write to its root"),
            ("/services/recount/cap_drop", json!([]), "keeps capabilities"),
        ] {
            let mut compose = right.clone();
            *compose.pointer_mut(pointer).unwrap() = value;
            let faults = faults_in(&compose, "url = \"${URL}\"", &exists);
            assert!(faults.iter().any(|fault| fault.contains(told)), "{pointer}: {faults:?}");
        }
    }
}
