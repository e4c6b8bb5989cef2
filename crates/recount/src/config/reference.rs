//! `docs/config-reference.md`, made from the description of the config. A test holds that the file is what
//! this makes; `RECOUNT_WRITE_DOCS=1 cargo test -p recount config_reference` writes it anew.

use super::spec::{KeySpec, Kind, Need, TableSpec};
use super::tables::ROOT;
use std::fmt::Write as _;

/// The whole reference, as Markdown.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Config reference\n\n\
         <!-- Generated from crates/recount/src/config: change the description there, then run\n     \
         RECOUNT_WRITE_DOCS=1 cargo test -p recount config_reference -->\n\n\
         One file in TOML, `recount.toml` unless another is named. `recount validate recount.toml` shows every\n\
         fault at once, with file, line and what to write instead.\n\n",
    );
    let _ = writeln!(out, "{}\n", ROOT.doc);
    out.push_str(
        "Durations are written `250ms`, `30s`, `15m`, `1h`, `7d`; sizes `512B`, `64KiB`, `1MiB`, `1GiB`;\n\
         budgets `2% of 1000` (exceeded by more than 20 among the flow's last 1,000), `5% per 1h`, or `any`.\n\
         Secrets are never written into the file: `\"${NAME}\"` takes them from the environment and\n\
         `{ file = \"path\" }` from a file, when they are needed.\n",
    );
    for key in ROOT.keys {
        table(&mut out, spec_of(key));
    }
    out
}

fn spec_of(key: &KeySpec) -> Option<&'static TableSpec> {
    match key.kind {
        Kind::Table(spec)
        | Kind::WordOrTable(_, spec)
        | Kind::Named(spec)
        | Kind::Tables(spec)
        | Kind::OneOrMore(spec) => Some(spec),
        _ => None,
    }
}

fn table(out: &mut String, spec: Option<&'static TableSpec>) {
    let Some(spec) = spec else { return };
    let _ = writeln!(out, "\n## `{}`\n\n{}\n", spec.header, spec.doc);
    out.push_str("| key | takes | without it | |\n|---|---|---|---|\n");
    for key in spec.keys {
        let default = match key.need {
            Need::Required => "**required**".to_owned(),
            Need::Optional => String::new(),
            Need::Default(value) => format!("`{value}`"),
        };
        let takes = key.kind.described().replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | {takes} | {default} | {} |", key.name, key.doc);
    }
    out.push_str("\n```toml\n");
    let is_inline = spec.header.contains(".left") || spec.header.contains(".right");
    let _ = writeln!(out, "{}{}", if is_inline { "# within [[reconcile]]\n" } else { "" }, spec.header);
    for key in spec.keys.iter().filter(|key| !key.example.is_empty()) {
        if !matches!(key.kind, Kind::Later(_)) {
            let _ = writeln!(out, "{} = {}", key.name, key.example);
        }
    }
    out.push_str("```\n");
    for key in spec.keys {
        table(out, spec_of(key));
    }
}
