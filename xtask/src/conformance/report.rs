//! What the suite came to, for people and as JSON.

use super::bench::Source;
use super::properties::Property;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// What a property of a source came to.
#[derive(Debug)]
pub enum Outcome {
    /// It was seen to.
    Holds,
    /// What was found, and where to look.
    DoesNotHold(Vec<String>),
    /// Why it can't be asked.
    DoesNotApply(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNotHold(_) => "does not hold",
            Self::DoesNotApply(_) => "does not apply",
        }
    }
}

/// One property of one source.
#[derive(Debug)]
pub struct Row {
    /// Which source.
    pub source: Source,
    /// Which property.
    pub property: Property,
    /// What it came to.
    pub outcome: Outcome,
    /// How long that took.
    pub seconds: f64,
}

impl Row {
    /// As it is printed when it is known.
    pub fn told(&self) -> String {
        let (source, property) = (self.source.name(), self.property.name());
        let told = format!("{source}: {property}: {}", self.outcome.word());
        match &self.outcome {
            Outcome::Holds => format!("{told}, {:.1} s", self.seconds),
            Outcome::DoesNotApply(why) => format!("{told}: {why}"),
            Outcome::DoesNotHold(faults) => faults
                .iter()
                .fold(format!("{told}, {:.1} s", self.seconds), |told, fault| told + "\n  " + fault),
        }
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "source": self.source.name(),
            "property": self.property.name(),
            "outcome": self.outcome.word(),
            "seconds": self.seconds,
        });
        match &self.outcome {
            Outcome::Holds => {}
            Outcome::DoesNotApply(why) => row["because"] = json!(why),
            Outcome::DoesNotHold(faults) => row["faults"] = json!(faults),
        }
        row
    }
}

/// The capabilities by name, of those that are there.
pub fn declared(declared: &Value) -> String {
    let all = declared.as_object().into_iter().flatten();
    let there: Vec<&str> = all.filter(|(_, is)| **is == true).map(|(name, _)| name.as_str()).collect();
    there.join(", ")
}

/// Every property, and what it says.
pub fn listed() -> String {
    let mut out = String::new();
    for property in Property::ALL {
        let value = property.to_possible_value();
        let (name, help) = value.as_ref().map_or(("", String::new()), |value| {
            (value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default())
        });
        let _ = writeln!(out, "{name:8} {:27} {help}; needs {}", property.name(), property.needs().0);
    }
    out
}

/// Property by source.
pub fn table(sources: &[Source], properties: &[Property], rows: &[Row]) -> String {
    let mut out = format!("{:27}", "");
    for source in sources {
        let _ = write!(out, "  {:20}", source.name());
    }
    for property in properties {
        let _ = write!(out, "\n{:27}", property.name());
        for source in sources {
            let row = rows.iter().find(|row| row.source == *source && row.property == *property);
            let cell = row.map_or_else(String::new, |row| match row.outcome {
                Outcome::DoesNotApply(_) => row.outcome.word().to_owned(),
                _ => format!("{} {:.1} s", row.outcome.word(), row.seconds),
            });
            let _ = write!(out, "  {cell:20}");
        }
    }
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// The same as JSON.
pub fn figures(rows: &[Row], ok: bool, took: Duration) -> Value {
    let count = |word: &str| rows.iter().filter(|row| row.outcome.word() == word).count();
    json!({
        "ok": ok,
        "holds": count("holds"),
        "does_not_hold": count("does not hold"),
        "does_not_apply": count("does not apply"),
        "properties": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "seconds": took.as_secs_f64(),
    })
}
