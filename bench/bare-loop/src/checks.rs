//! A JSON Schema and three CEL expressions, as one would use the two crates by hand.

use anyhow::{Context as _, Result, bail};
use cel::objects::{Map, Value};
use cel::{Context, Program};
use std::collections::HashMap;
use std::sync::Arc;

/// What is compiled once.
pub struct Checks {
    schema: jsonschema::Validator,
    root: Context<'static, 'static>,
    positive: Program,
    usual: Program,
    paid: Program,
}

/// What the checks say of an event.
pub enum Passed {
    /// It may be applied.
    Yes,
    /// It asks for nothing.
    ZeroQuantity,
    /// It is no order.
    SchemaMismatch,
    /// Its amount is below zero.
    NegativeAmount,
}

impl Checks {
    /// Reads and compiles them.
    pub fn new(schema: &str) -> Result<Self> {
        let text = std::fs::read_to_string(schema).with_context(|| format!("can't read {schema}"))?;
        Ok(Self {
            schema: jsonschema::validator_for(&serde_json::from_str(&text)?)?,
            root: Context::default(),
            positive: Program::compile("event.quantity > 0")?,
            usual: Program::compile("event.quantity <= 100")?,
            paid: Program::compile("event.amount >= 0.0")?,
        })
    }

    /// Checks one event; `bulk` counts those that break the assumption.
    pub fn of(&self, event: &serde_json::Value, bulk: &mut u64) -> Result<Passed> {
        if !self.schema.is_valid(event) {
            return Ok(Passed::SchemaMismatch);
        }
        let quantity = event["quantity"].as_i64().context("no quantity")?;
        let amount = event["amount"].as_f64().context("no amount")?;
        let fields = HashMap::from([
            ("quantity".into(), Value::Int(quantity)),
            ("amount".into(), Value::Float(amount)),
        ]);
        let mut scope = self.root.new_inner_scope();
        scope.add_variable_from_value("event", Value::Map(Map { map: Arc::new(fields) }));
        let holds = |program: &Program| match program.execute(&scope) {
            Ok(Value::Bool(holds)) => Ok(holds),
            other => bail!("not a truth value: {other:?}"),
        };
        if !holds(&self.positive)? {
            return Ok(Passed::ZeroQuantity);
        }
        if !holds(&self.paid)? {
            return Ok(Passed::NegativeAmount);
        }
        *bulk += u64::from(!holds(&self.usual)?);
        Ok(Passed::Yes)
    }
}
