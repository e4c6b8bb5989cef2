//! Which room may depend on which.

use super::{Fault, File, Findings};

/// Each room and the rooms that it may name in its manifest. A package that stands outside `crates/`, and
/// the simulator, may use anything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("services", &[]),
    ("checks", &["model"]),
    ("ledger", &["model"]),
    ("signals", &["model"]),
    ("engine", &["model", "checks", "ledger"]),
    ("audit", &["model", "checks", "ledger"]),
    ("story", &["model", "ledger", "signals"]),
    ("adapters", &["model", "checks", "ledger", "engine", "audit", "services"]),
    (
        "recount",
        &["model", "checks", "ledger", "signals", "engine", "audit", "story", "adapters", "services"],
    ),
    (
        "simulator",
        &["model", "checks", "ledger", "signals", "engine", "audit", "story", "adapters", "recount"],
    ),
];

/// Reads the manifest of every room.
pub fn check(files: &[File], findings: &mut Findings) {
    for file in files {
        let Some(room) = file.path.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml"))
        else {
            continue;
        };
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == room) else {
            findings.faults.push(Fault::new(
                &file.path,
                0,
                format!("room {room} has no place in the list of edges"),
            ));
            continue;
        };
        findings.faults.extend(edges_of(file, room, allowed));
    }
}

fn edges_of(file: &File, room: &str, allowed: &[&str]) -> Vec<Fault> {
    let manifest: toml::Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![Fault::new(&file.path, 0, format!("not TOML: {error}"))],
    };
    let mut faults = Vec::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let names =
            manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
        for name in names {
            let other = match name.strip_prefix("recount-") {
                Some(other) => other,
                None if name == "recount" => "recount",
                None => continue,
            };
            if other != room && !allowed.contains(&other) {
                let line =
                    file.text.lines().position(|line| line.starts_with(name.as_str())).map_or(0, |n| n + 1);
                faults.push(Fault::new(&file.path, line, format!("{room} may not depend on {other}")));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_the_design_does_not_have_is_told_with_its_line() {
        let check = |room: &str, dependency: &str, section: &str| -> Vec<String> {
            let text =
                format!("[package]\nname = \"recount-{room}\"\n[{section}]\n{dependency}.workspace = true\n");
            let file = File { path: format!("crates/{room}/Cargo.toml"), text };
            let mut findings = Findings::default();
            super::check(&[file], &mut findings);
            findings.faults.iter().map(ToString::to_string).collect()
        };
        assert_eq!(check("audit", "recount-ledger", "dependencies"), [""; 0]);
        assert_eq!(check("model", "serde", "dependencies"), [""; 0]);
        assert_eq!(
            check("audit", "recount-engine", "dependencies"),
            ["crates/audit/Cargo.toml:4: audit may not depend on engine"]
        );
        assert_eq!(
            check("audit", "recount-engine", "dev-dependencies"),
            ["crates/audit/Cargo.toml:4: audit may not depend on engine"]
        );
        assert_eq!(
            check("checks", "recount", "dependencies"),
            ["crates/checks/Cargo.toml:4: checks may not depend on recount"]
        );
        assert_eq!(check("attic", "serde", "dependencies").len(), 1);
    }
}
