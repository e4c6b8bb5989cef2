//! Whatever the events are: the sample fits the schema that is written, the config can be used as it is, and
//! so it can with everything in it that is off switched on.

use super::input::{self, Input};
use super::{learn, write};
use crate::config::{Config, EffectConfig};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Numbers from a seed (SplitMix64, Steele, Lea and Flood 2014).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len() as u64) as usize]
    }

    fn name(&mut self) -> String {
        let names = [
            "id",
            "order_id",
            "type",
            "ts",
            "placed_at",
            "email",
            "quantity",
            "amount",
            "in",
            "true",
            "null",
            "a b",
            "a.b",
            "a-b",
            "größe",
            "订单",
            "quote\"d",
            "it's",
            "back\\slash",
            "new\nline",
            "",
            "9",
            "event",
            "meta",
            "$ref",
            "x[0]",
            "\u{0}",
            "\u{7f}",
            "\u{85}",
            "customer",
            "🦀",
            "group",
            "specversion",
            "a~1/b",
            "[]",
            "#",
            "'''",
            "\"\"\"",
        ];
        self.one(&names).to_owned()
    }

    fn text(&mut self) -> String {
        let texts = [
            "",
            "x",
            "order.placed",
            "2017-01-01T11:53:26Z",
            "2017-01-01 11:53:26",
            "12.50",
            "ada@example.com",
            "a\nb",
            "'",
            "\"",
            "\\",
            "\u{0}",
            "\u{7f}",
            "ü 🦀",
            "4111111111111111",
            "#",
            "]]>",
            "${HOME}",
            "open",
            "shut",
            "\u{2028}",
        ];
        let text = self.one(&texts).to_owned();
        if self.below(3) == 0 { format!("{text}{}", self.below(1000)) } else { text }
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.below(if depth > 3 { 6 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(300) as i64 - 3),
            3 => json!(self.below(1_000_000) as f64 / 7.0),
            4 => json!(1_700_000_000_000 + self.below(1_000_000)),
            5 => json!(self.text()),
            6 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => Value::Object(self.object(depth + 1)),
        }
    }

    fn object(&mut self, depth: u64) -> Map<String, Value> {
        (0..self.below(6)).map(|_| (self.name(), self.value(depth))).collect()
    }

    /// Events that mostly have the same fields, as events do, and are not quite alike.
    fn events(&mut self) -> Vec<Value> {
        let shape: Vec<(String, u64)> = (0..self.below(8)).map(|_| (self.name(), self.below(7))).collect();
        let count = 1 + self.below(60);
        let event = |n: u64, seeded: &mut Self| {
            if seeded.below(50) == 0 {
                return seeded.value(0);
            }
            let mut fields: Map<String, Value> = Map::new();
            for (name, kind) in &shape {
                let value = match kind {
                    0 => json!(n),
                    1 => json!(format!("e{}", n / 2)),
                    2 => json!(seeded.text()),
                    3 => json!(1_700_000_000 + n),
                    4 => json!(if n.is_multiple_of(31) { 0 } else { seeded.below(40) + 1 }),
                    5 => json!(seeded.one(&["it's", "open", "a\\b", "shut"])),
                    _ => seeded.value(1),
                };
                fields.insert(name.clone(), value);
            }
            if seeded.below(10) == 0 {
                fields.extend(seeded.object(1));
            }
            Value::Object(fields)
        };
        (0..count).map(|n| event(n, self)).collect()
    }
}

/// Every line that is config and off, on.
fn switched_on(config: &str) -> String {
    let on = |line: &str| {
        let off = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
        format!("{}\n", off.unwrap_or(line))
    };
    config.lines().map(on).collect()
}

#[track_caller]
fn valid(seed: u64, text: &str, path: &Path) -> Config {
    Config::from_text(text, path).unwrap_or_else(|faults| panic!("seed {seed}: {faults:?}\n{text}"))
}

#[test]
fn whatever_is_sampled_fits_the_schema_and_the_config_is_valid_as_it_is_and_switched_on() {
    for seed in 0..400 {
        let events = Seeded(seed).events();
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("events.ndjson");
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        std::fs::write(&source, lines.join("\n")).unwrap();
        let input = match Input::of(input::read(&source, 100).unwrap(), &source) {
            Ok(input) => input,
            // One array by itself stands in place of lines; a CloudEvent may be of another version than 1.0.
            Err(unusable) => {
                let is_array = events.len() == 1 && events[0].is_array();
                let no_version = lines.iter().filter(|line| !line.contains("specversion")).count();
                assert!(is_array || no_version == 0, "seed {seed}: {unusable:?} {lines:?}");
                continue;
            }
        };
        let undecoded: u64 = input.undecoded.values().map(|(n, _)| n).sum();
        let learned =
            learn::learn(input, "events.ndjson", None).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        let refused = |reason: &str| learned.trial.refused.get(reason).map_or(0, |(n, ..)| *n);
        assert_eq!(
            refused("schema_mismatch"),
            0,
            "seed {seed}: {:?}\n{:#}",
            learned.trial.refused,
            learned.schema.unwrap()
        );
        assert_eq!(refused("decode_failed"), undecoded, "seed {seed}");
        let name = format!("{}.schema.json", learned.flow);
        std::fs::write(folder.path().join(&name), learned.schema.as_ref().unwrap().to_string()).unwrap();
        let text = write::config(&learned, Some(&name));
        let path = folder.path().join("recount.toml");
        let config = valid(seed, &text, &path);
        assert_eq!(config.flows[0].rules.id, learned.rules().id);
        let on = valid(seed, &switched_on(&text), &path);
        assert_eq!(on.flows[0].rules.checks.len(), learned.suggestions.len(), "seed {seed}");
        assert!(matches!(on.flows[0].effect, EffectConfig::Sql { .. }));
    }
}
