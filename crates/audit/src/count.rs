//! The audit itself: who is asked, in which order.

use crate::books::{Books, Cut, PartitionFold};
use crate::budgets::{BudgetsFold, acceptances};
use crate::effects::{self, EffectsSide};
use crate::history::{self, History};
use crate::inputs::{AuditInputs, EffectsDeclared, FlowAudit};
use crate::published::{self, Sources};
use crate::reconcile;
use crate::report::{AuditReport, Equation, FlowReport, Statement};
use crate::witness::{EffectSnapshot, PositionRow, WitnessError};
use crate::working::{InputFold, Judged, judge};
use recount_ledger::{JournalEntry, LedgerError, Mark};
use recount_model::{BookStatus, PartitionId};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

/// Counts every flow again. A ledger that can't be read is told in the report; flows counted before stay.
pub fn audit(inputs: &AuditInputs<'_>) -> AuditReport {
    let mut report =
        AuditReport { at: inputs.now, flows: Vec::new(), ledger_error: None, ledger_away: false };
    for flow in &inputs.flows {
        match audit_flow(inputs, flow) {
            Ok(counted) => report.flows.push(counted),
            Err(error) => {
                report.ledger_away = matches!(
                    error,
                    LedgerError::Missing(_) | LedgerError::TooNew { .. } | LedgerError::Locked { .. }
                );
                report.ledger_error = Some(error.to_string());
                break;
            }
        }
    }
    report
}

/// What the effects' witness said before anything was counted.
enum EffectsAsked<'a> {
    NotDeclared,
    Away(WitnessError),
    Snapshot(Box<dyn EffectSnapshot + 'a>, Vec<PositionRow>),
}

fn audit_flow(inputs: &AuditInputs<'_>, flow: &FlowAudit<'_>) -> Result<FlowReport, LedgerError> {
    let marks_before = marks(inputs, flow)?;
    let asked = ask_effects(flow);
    let marks = marks(inputs, flow)?;
    let sources = ask_source(flow, &marks);
    let position_key = u64::from_le_bytes(inputs.identity_key[..8].try_into().unwrap_or([0; 8]));
    let journal: Vec<(u64, JournalEntry)> = inputs
        .ledger
        .journal(Some(&flow.flow))?
        .into_iter()
        .filter(|(_, entry)| entry.flow.as_ref().is_none_or(|name| *name == flow.flow))
        .collect();

    let mut folds = empty_folds(&marks_before, &marks, &sources, &asked, position_key);
    let mut budgets = BudgetsFold::new(&flow.budgets, acceptances(&journal));
    let mut input = InputFold::new(&flow.budgets);
    read_batches(inputs, flow, &mut folds, &mut budgets, &mut input)?;
    for fold in &mut folds {
        if let Some(mark) = marks.get(&fold.at) {
            fold.close(mark);
        }
    }
    let history = read_history(inputs, flow, &mut folds, position_key)?;
    let partitions: Vec<_> = folds
        .iter_mut()
        .map(|fold| {
            let source = sources.get(&fold.at);
            published::partition_report(fold, source)
        })
        .collect();

    let mut statements = Vec::new();
    let histories = history.as_ref().map_or(&[][..], |h| &h.partitions);
    if flow.source.is_some() {
        let names_max = inputs.names_max;
        statements.push(published::counted(flow, &folds, &sources, &partitions, histories, names_max));
        statements.extend(published::identified(inputs, flow, &folds, histories, &sources)?);
    }
    statements.extend(effect_statements(inputs, flow, &asked, &folds, history.as_ref(), position_key)?);

    let budgets = budgets.finish();
    let judged = Judged {
        flow,
        folds: &folds,
        statements: &statements,
        budgets: &budgets,
        input: &input,
        journal: &journal,
        now: inputs.now,
    };
    let (not_working, not_known) = judge(&judged);
    let mut books = Books::default();
    folds.iter().for_each(|fold| books.add(&fold.books));
    Ok(FlowReport {
        flow: flow.flow.clone(),
        books,
        published_known: partitions.iter().all(|p| p.published.is_some()),
        partitions,
        statements,
        budgets,
        not_working,
        not_known,
        last_decided_at: folds.iter().filter_map(|fold| fold.last_decided_at).max(),
    })
}

/// The ledger's marks, in the order of its partitions.
type Marks = BTreeMap<PartitionId, Mark>;

fn marks(inputs: &AuditInputs<'_>, flow: &FlowAudit<'_>) -> Result<Marks, LedgerError> {
    let mut marks = Marks::new();
    for at in inputs.ledger.partitions()?.into_iter().filter(|at| at.flow == flow.flow) {
        if let Some(mark) = inputs.ledger.mark(&at)? {
            marks.insert(at, mark);
        }
    }
    Ok(marks)
}

fn ask_effects<'a>(flow: &FlowAudit<'a>) -> EffectsAsked<'a> {
    let Some(witness) = flow.effects.witness() else { return EffectsAsked::NotDeclared };
    let asked = witness.snapshot().and_then(|snapshot| {
        let rows = snapshot.positions(&flow.flow)?;
        Ok(EffectsAsked::Snapshot(snapshot, rows))
    });
    asked.unwrap_or_else(EffectsAsked::Away)
}

/// What the source says of each partition that it or the ledger knows.
fn ask_source(flow: &FlowAudit<'_>, marks: &Marks) -> Sources {
    let mut sources = Sources::default();
    let Some(source) = flow.source else { return sources };
    let listed = source.partitions().unwrap_or_else(|error| {
        sources.unlisted = Some(error);
        Vec::new()
    });
    for at in listed.into_iter().chain(marks.keys().cloned()) {
        if !sources.sides.contains_key(&at) {
            let answer = source.published(&at);
            sources.sides.insert(at, answer);
        }
    }
    sources
}

fn empty_folds(
    marks_before: &Marks,
    marks: &Marks,
    sources: &Sources,
    asked: &EffectsAsked<'_>,
    position_key: u64,
) -> Vec<PartitionFold> {
    let mut known: Vec<&PartitionId> = marks.keys().chain(sources.sides.keys()).collect();
    known.sort();
    known.dedup();
    let seq_of = |marks: &Marks, at: &PartitionId| marks.get(at).map_or(0, |mark| mark.seq);
    known
        .into_iter()
        .map(|at| {
            let effect_seq = match asked {
                EffectsAsked::Snapshot(_, rows) => {
                    Some(rows.iter().find(|row| row.at == *at).map_or(0, |row| row.seq))
                }
                EffectsAsked::NotDeclared | EffectsAsked::Away(_) => None,
            };
            let ledger_seq_before = seq_of(marks_before, at);
            let cut = Cut { ledger_seq: seq_of(marks, at), effect_seq, ledger_seq_before };
            PartitionFold::new(at.clone(), cut, position_key)
        })
        .collect()
}

fn read_batches(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &mut [PartitionFold],
    budgets: &mut BudgetsFold,
    input: &mut InputFold,
) -> Result<(), LedgerError> {
    let places: HashMap<PartitionId, usize> =
        folds.iter().enumerate().map(|(place, fold)| (fold.at.clone(), place)).collect();
    inputs.ledger.batches(Some(&flow.flow), &mut |batch| {
        if let Some(fold) = places.get(&batch.header.at).map(|place| &mut folds[*place])
            && batch.header.seq <= fold.cut.ledger_seq
        {
            fold.add(batch);
            budgets.add(batch);
            input.add(batch);
        }
        ControlFlow::Continue(())
    })
}

/// The pass over single decisions is made only where something needs it.
fn read_history(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &mut [PartitionFold],
    position_key: u64,
) -> Result<Option<History>, LedgerError> {
    let by_id = matches!(flow.effects, EffectsDeclared::Custom { id: Some(_), .. });
    let identified = flow.source.is_some() && flow.identify.is_some();
    let corrected = folds.iter().any(|fold| !fold.corrected.is_empty());
    if !(by_id || identified || corrected || !flow.reconciles.is_empty()) {
        return Ok(None);
    }
    let key = &inputs.identity_key;
    history::read(inputs.ledger, &flow.flow, folds, &flow.reconciles, key, position_key).map(Some)
}

fn effect_statements(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    asked: &EffectsAsked<'_>,
    folds: &[PartitionFold],
    history: Option<&History>,
    position_key: u64,
) -> Result<Vec<Statement>, LedgerError> {
    let mut statements = Vec::new();
    let snapshot = match asked {
        EffectsAsked::NotDeclared => None,
        EffectsAsked::Away(error) => {
            statements.push(effects::away(error));
            None
        }
        EffectsAsked::Snapshot(snapshot, rows) => {
            let side = EffectsSide { snapshot: &**snapshot, rows, position_key };
            statements.push(effects::statement(inputs, flow, &side, folds, history)?);
            Some(&**snapshot)
        }
    };
    let behind =
        folds.iter().any(|f| f.cut.effect_seq.is_some_and(|seq| seq > f.cut.ledger_seq)).then(|| {
            match statements.last() {
                Some(statement) if statement.status == BookStatus::Open => BookStatus::Open,
                _ => BookStatus::Unprovable,
            }
        });
    for (place, declared) in flow.reconciles.iter().enumerate() {
        let Some(left) = history.and_then(|h| h.left.get(place)) else { continue };
        let statement = match asked {
            EffectsAsked::Away(error) if declared.witness.is_none() => {
                reconcile::unprovable(declared, format!("the right side can't be had: {error}"))
            }
            _ => reconcile::statement(inputs, flow, declared, left, snapshot, folds, behind),
        };
        statements.push(statement);
    }
    say_what_counting_effects_cannot_see(&mut statements);
    Ok(statements)
}

/// Where a reconcile differs and E2 balances, E2 says that it could not have seen it.
fn say_what_counting_effects_cannot_see(statements: &mut [Statement]) {
    let differs = statements
        .iter()
        .find(|s| s.equation == Equation::E3 && s.status == BookStatus::Imbalanced)
        .map(|s| s.name.clone());
    let Some(name) = differs else { return };
    for statement in statements.iter_mut() {
        if statement.equation == Equation::E2 && statement.status == BookStatus::Balanced {
            statement.sentence.push_str(&format!(
                "; this can't see a change that no event made, and \"{name}\" does not come out even"
            ));
        }
    }
}
