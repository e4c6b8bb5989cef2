//! What every effect in SQL shares, whatever the database: how outcomes are worded, which keys wait, and what
//! the arbiter's row says. The statements that read and write are each database's own.

use recount_engine::{EffectEvent, EffectFault, OtherwiseRule, OtherwiseVerdict, Outcome, RowRange, Taken};
use recount_ledger::LedgerId;
use recount_model::{OffsetSet, PartitionId, Reason, Value, Verdict, reason};
use serde_json::json;
use std::collections::HashSet;

/// Keys held by a `Retry` earlier in the batch.
#[derive(Default)]
pub(crate) struct Held(HashSet<Box<str>>);

impl Held {
    /// Whether the event must wait behind its key.
    pub(crate) fn holds(&self, event: &EffectEvent) -> bool {
        !self.0.is_empty() && event.event.meta.key.as_ref().is_some_and(|key| self.0.contains(key))
    }

    /// Holds the event's key, if it has one and is to be retried. A replay is decided at once and holds
    /// nothing.
    pub(crate) fn note(&mut self, event: &EffectEvent, outcome: &Outcome) {
        if event.replay.is_some() {
            return;
        }
        if let (Outcome::Said { verdict: Verdict::Retry(_), .. }, Some(key)) =
            (outcome, &event.event.meta.key)
        {
            self.0.insert(key.clone());
        }
    }
}

/// The statements did what was declared.
pub(crate) fn applied() -> Outcome {
    Outcome::Said { verdict: Verdict::Applied, evidence: None }
}

/// A verdict with its evidence.
pub(crate) fn said(verdict: Verdict, evidence: &serde_json::Value) -> Outcome {
    Outcome::Said { verdict, evidence: Some(evidence.to_string().into()) }
}

/// A statement (by its index) changed another number of rows than declared, and this `otherwise` held.
pub(crate) fn otherwise_held(statement: usize, rows: u64, index: usize, rule: &OtherwiseRule) -> Outcome {
    said(verdict_of(rule), &json!({ "statement": statement + 1, "rows": rows, "otherwise": index + 1 }))
}

/// The verdict that an `otherwise` declares.
pub(crate) fn verdict_of(rule: &OtherwiseRule) -> Verdict {
    let because = Reason::new(rule.reason.clone(), rule.because.clone());
    match rule.verdict {
        OtherwiseVerdict::Skip => Verdict::Skip(because),
        OtherwiseVerdict::DeadLetter => Verdict::DeadLetter(because),
        OtherwiseVerdict::Retry => Verdict::Retry(because),
    }
}

/// A statement (by its index) changed another number of rows than declared, and no `otherwise` held.
pub(crate) fn rows_unexpected(statement: usize, rows: u64, declared: RowRange) -> Outcome {
    let expected = rows_text(declared);
    let sentence = format!("statement {} changed {rows} rows instead of {expected}", statement + 1);
    let evidence = json!({ "statement": statement + 1, "rows": rows, "expected": expected });
    said(Verdict::dead_letter(reason::ROWS_UNEXPECTED, sentence), &evidence)
}

fn rows_text(rows: RowRange) -> String {
    match rows {
        RowRange { min, max } if min == max => min.to_string(),
        RowRange { min, max: u64::MAX } => format!("{min} or more"),
        RowRange { min, max } => format!("{min} to {max}"),
    }
}

/// A database's message with values of parameters replaced by their names.
pub(crate) fn without_values(message: &str, names: &[String], values: &[Value]) -> String {
    let mut text = message.to_owned();
    for (name, value) in names.iter().zip(values) {
        let value = match value {
            Value::Text(value) => value.to_string(),
            Value::Integer(number) if number.unsigned_abs() >= 100 => number.to_string(),
            Value::Real(number) => number.to_string(),
            _ => continue,
        };
        if value.len() > 1 && text.contains(&value) {
            text = text.replace(&value, &format!(":{name}"));
        }
    }
    text
}

/// What a replay came to, for `recount_replay`; none where the event is to be tried again.
pub(crate) fn replayed_as(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Said { verdict: Verdict::Applied, .. } => Some("applied".to_owned()),
        Outcome::Said { verdict: Verdict::Skip(reason), .. } => Some(format!("skipped {}", reason.code)),
        Outcome::Said { verdict: Verdict::DeadLetter(reason), .. } => {
            Some(format!("dead-lettered {}", reason.code))
        }
        Outcome::Said { verdict: Verdict::Retry(_), .. } | Outcome::Behind | Outcome::AlreadyReplayed => None,
    }
}

/// At most `bytes_max` bytes of a text, on a character's boundary.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// One `recount_position` row.
pub(crate) struct PositionRow {
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    pub(crate) next_offset: i64,
    pub(crate) decided_above: String,
    pub(crate) ledger_id: String,
    pub(crate) clean: bool,
    /// Offset; the epoch that marked it and has not ended the attempt; stops before.
    pub(crate) alone: Option<(i64, Option<i64>, i64)>,
}

impl PositionRow {
    /// What is known of an event that was alone under way when the owner of `epoch` stopped: it counts only
    /// if that owner had marked it, so that a kill at another time condemns nobody.
    pub(crate) fn alone_after_stop(&self) -> Option<(i64, i64)> {
        let (offset, epoch, stops) = self.alone?;
        (!self.clean && epoch == Some(self.epoch)).then_some((offset, stops + 1))
    }

    /// At how many unclean stops in a row this offset was alone before.
    pub(crate) fn stops_of(&self, offset: i64) -> i64 {
        match self.alone {
            Some((marked, _, stops)) if marked == offset => stops,
            _ => 0,
        }
    }

    /// As the engine takes it, under `epoch`.
    pub(crate) fn taken(&self, at: &PartitionId, epoch: i64) -> Result<Taken, EffectFault> {
        let damaged = |what: &str| EffectFault::Foreign(format!("{at}: recount_position has a {what}"));
        let number = |n: i64, what: &str| u64::try_from(n).map_err(|_| damaged(&format!("{what} of {n}")));
        let alone = match self.alone_after_stop() {
            None => None,
            Some((offset, stops)) => {
                Some((number(offset, "alone_offset")?, u32::try_from(stops).unwrap_or(u32::MAX)))
            }
        };
        Ok(Taken {
            epoch: number(epoch, "epoch")?,
            seq: number(self.seq, "seq")?,
            next_offset: number(self.next_offset, "next_offset")?,
            decided_above: OffsetSet::parse(&self.decided_above)
                .ok_or_else(|| damaged("decided_above that is no set of offsets"))?,
            existed: true,
            clean: self.clean,
            alone,
        })
    }

    /// Refuses a row of another ledger.
    pub(crate) fn refuse_foreign(&self, at: &PartitionId, ledger: &LedgerId) -> Result<(), EffectFault> {
        if self.ledger_id == ledger.0 {
            return Ok(());
        }
        Err(EffectFault::Foreign(format!(
            "{at} is recorded in ledger {}, this is ledger {}: open that ledger, or, where it is lost, \
             go on without it: `recount run --adopt` records what it held as unrecorded, for ever",
            self.ledger_id, ledger.0
        )))
    }
}

/// What a partition is that nobody took before.
pub(crate) fn first_taken() -> Taken {
    Taken {
        epoch: 1,
        seq: 0,
        next_offset: 0,
        decided_above: OffsetSet::new(),
        existed: false,
        clean: true,
        alone: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_does_not_carry_the_events_values() {
        let names = ["mail".to_owned(), "n".to_owned()];
        let values = [Value::Text("anna@example.org".into()), Value::Integer(7)];
        let told = without_values("invalid input: \"anna@example.org\" 7", &names, &values);
        assert_eq!(told, "invalid input: \":mail\" 7");
    }
}
