//! The audit itself: who is asked, in which order.

use crate::beside_group::GroupLooks;
use crate::beside_report::GroupReport;
use crate::books::{Books, Cut, PartitionFold};
use crate::budgets::{BudgetsFold, acceptances};
use crate::effects::{self, EffectsSide};
use crate::history::{self, History};
use crate::identified;
use crate::inputs::{AuditInputs, EffectsDeclared, FlowAudit};
use crate::published::{self, Counting, Sources};
use crate::reconcile;
use crate::report::{AuditReport, Equation, FlowReport, Statement};
use crate::witness::{EffectSnapshot, PositionRow, WitnessError};
use crate::working::{InputFold, Judged, judge};
use recount_ledger::{DecisionFilter, JournalEntry, LedgerError, Mark, Run, StoredBatch};
use recount_model::{BookStatus, Decision, PartitionId, Timestamp};
use std::collections::btree_map::Entry;
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
    let group = flow.group.map(|group| group.looks());
    let marks_before = marks(inputs, flow)?;
    let asked = ask_effects(flow);
    // Whatever was recorded before the effects' snapshot must be seen now, or it would count as missing.
    inputs.ledger.refresh()?;
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
    let accepted = acceptances(&journal);
    folds.iter_mut().for_each(|fold| fold.accepted_at = accepted.iter().max().copied());
    let Reread { mut folds, budgets, input, history, mut corrupt } =
        reread(inputs, flow, folds, &marks, &accepted, position_key)?;
    let partitions: Vec<_> = folds
        .iter_mut()
        .map(|fold| {
            let source = sources.get(&fold.at);
            published::partition_report(fold, source)
        })
        .collect();

    let mut statements = Vec::new();
    let histories = history.as_ref().map_or(&[][..], |h| &h.partitions);
    if flow.source.is_some() || !corrupt.is_empty() {
        let counting = Counting {
            flow,
            folds: &folds,
            reports: &partitions,
            histories,
            sources: &sources,
            corrupt: &corrupt,
            names_max: inputs.names_max,
        };
        statements.push(counting.statement());
    }
    if history.is_some() {
        let identified = identified::identified(inputs, flow, &folds, histories, &sources);
        statements.extend(tolerate(identified, &mut corrupt)?.flatten());
    }
    let undecided = partitions.is_empty()
        || partitions.iter().any(|partition| partition.published.is_none() || partition.counts.open > 0);
    let beside = Beside { position_key, undecided, group: group.as_ref().map(Result::as_ref) };
    let effects = effect_statements(inputs, flow, &asked, &folds, history.as_ref(), beside);
    statements.extend(match tolerate(effects, &mut corrupt)? {
        Some(statements) => statements,
        None => vec![effects::away(&WitnessError::Unreachable(corrupt.join("; ")))],
    });

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
    let (mut not_working, mut not_known) = judge(&judged);
    let group = group.map(|looked| looked.map(|looks| GroupReport::new(&looks, &folds, inputs.now)));
    not_working.extend(group.iter().flatten().filter_map(GroupReport::not_working));
    if let (Some(Err(error)), Some(asked)) = (&group, flow.group) {
        not_known.push(format!("the group {} can't be asked: {error}", asked.group()));
    }
    let mut books = Books::default();
    folds.iter().for_each(|fold| books.add(&fold.books));
    Ok(FlowReport {
        flow: flow.flow.clone(),
        origin: flow.origin,
        books,
        published_known: partitions.iter().all(|p| p.published.is_some()),
        partitions,
        statements,
        budgets,
        group: group.and_then(Result::ok),
        not_working,
        not_known,
        last_decided_at: folds.iter().filter_map(|fold| fold.last_decided_at).max(),
    })
}

/// What the ledger's records told, after the witnesses were asked.
struct Reread {
    folds: Vec<PartitionFold>,
    budgets: BudgetsFold,
    input: InputFold,
    history: Option<History>,
    corrupt: Vec<String>,
}

fn reread(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    mut folds: Vec<PartitionFold>,
    marks: &Marks,
    accepted: &[Timestamp],
    position_key: u64,
) -> Result<Reread, LedgerError> {
    for book in inputs.ledger.dropped()? {
        if let Some(fold) = folds.iter_mut().find(|fold| fold.at == book.at) {
            fold.add_dropped(&book);
        }
    }
    let mut corrupt = Vec::new();
    let Batches { mut folds, budgets, input, .. } =
        batches_or_decisions(inputs, flow, &folds, accepted, &mut corrupt)?;
    for fold in &mut folds {
        if let Some(mark) = marks.get(&fold.at) {
            fold.close(mark);
        }
    }
    tolerate(check_exceptions(inputs, flow, &folds), &mut corrupt)?;
    let history = tolerate(read_history(inputs, flow, &mut folds, position_key), &mut corrupt)?.flatten();
    corrupt.dedup();
    Ok(Reread { folds, budgets, input, history, corrupt })
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
        if let Entry::Vacant(place) = sources.sides.entry(at) {
            let answer = source.published(place.key());
            place.insert(answer);
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

/// A ledger that is damaged is counted as far as it can be read; what is wrong with it is kept.
fn tolerate<T>(result: Result<T, LedgerError>, corrupt: &mut Vec<String>) -> Result<Option<T>, LedgerError> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(LedgerError::Corrupt(sentence)) => {
            corrupt.push(sentence);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the pass over batches brings.
struct Batches {
    folds: Vec<PartitionFold>,
    places: HashMap<PartitionId, usize>,
    budgets: BudgetsFold,
    input: InputFold,
}

impl Batches {
    fn new(flow: &FlowAudit<'_>, folds: &[PartitionFold], accepted: &[Timestamp]) -> Self {
        Self {
            folds: folds.to_vec(),
            places: folds.iter().enumerate().map(|(place, fold)| (fold.at.clone(), place)).collect(),
            budgets: BudgetsFold::new(&flow.budgets, accepted.to_vec()),
            input: InputFold::new(&flow.budgets),
        }
    }

    fn add(&mut self, batch: &StoredBatch) {
        let Some(&place) = self.places.get(&batch.header.at) else { return };
        let fold = &mut self.folds[place];
        if batch.header.seq <= fold.cut.ledger_seq {
            fold.add(batch);
            self.budgets.add(batch);
            self.input.add(batch);
        }
    }
}

/// Runs and gaps; where they are damaged, everything anew from single decisions, which know no gaps.
fn batches_or_decisions(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &[PartitionFold],
    accepted: &[Timestamp],
    corrupt: &mut Vec<String>,
) -> Result<Batches, LedgerError> {
    let mut batches = Batches::new(flow, folds, accepted);
    let by_runs = inputs.ledger.batches(Some(&flow.flow), &mut |batch| {
        batches.add(batch);
        ControlFlow::Continue(())
    });
    if tolerate(by_runs, corrupt)?.is_some() {
        return Ok(batches);
    }
    let mut batches = Batches::new(flow, folds, accepted);
    let filter = DecisionFilter { flow: Some(flow.flow.clone()), superseded: true, ..Default::default() };
    let mut batch: Option<StoredBatch> = None;
    let by_decisions = inputs.ledger.decisions(&filter, &mut |stored| {
        let known = batch.as_ref().is_some_and(|batch| batch.header.ordinal == stored.header.ordinal);
        if !known {
            let next = StoredBatch { header: (*stored.header).clone(), runs: vec![], gaps: vec![] };
            batch.replace(next).iter().for_each(|batch| batches.add(batch));
        }
        if let Some(batch) = &mut batch {
            batch.runs.push(run_of(&stored.decision));
        }
        ControlFlow::Continue(())
    });
    batch.iter().for_each(|batch| batches.add(batch));
    tolerate(by_decisions, corrupt)?;
    Ok(batches)
}

fn run_of(decision: &Decision) -> Run {
    Run {
        from: decision.offset,
        to: decision.offset + 1,
        fate: decision.fate.clone(),
        flags: decision.flags.clone(),
        received: decision.received,
        correction: decision.corrects.is_some(),
    }
}

/// Decisions that aren't applied are kept a second time, as rows for people: they must be as many as the
/// runs tell. The ledger itself names a row that is gone.
fn check_exceptions(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &[PartitionFold],
) -> Result<(), LedgerError> {
    for (place, verdict) in [(1, "skipped"), (2, "dead-lettered")] {
        let filter = DecisionFilter {
            flow: Some(flow.flow.clone()),
            verdict: Some(verdict.into()),
            superseded: true,
            ..Default::default()
        };
        let mut counted: HashMap<PartitionId, u64> = HashMap::new();
        inputs.ledger.decisions(&filter, &mut |stored| {
            let fold = folds.iter().find(|fold| fold.at == stored.header.at);
            let seq = stored.header.seq;
            if fold.is_some_and(|fold| seq <= fold.cut.ledger_seq && !fold.is_dropped(seq)) {
                *counted.entry(stored.header.at.clone()).or_default() += 1;
            }
            ControlFlow::Continue(())
        })?;
        for fold in folds {
            let (rows, runs) = (counted.get(&fold.at).copied().unwrap_or(0), fold.told_by_runs[place]);
            if rows != runs {
                let at = &fold.at;
                return Err(LedgerError::Corrupt(format!(
                    "{at}: {rows} decisions are kept as {verdict}, its runs tell {runs}"
                )));
            }
        }
    }
    Ok(())
}

/// The pass over single decisions is made only where something needs it.
fn read_history(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &mut [PartitionFold],
    position_key: u64,
) -> Result<Option<History>, LedgerError> {
    let by_id = matches!(
        flow.effects,
        EffectsDeclared::Custom { id: Some(_), .. } | EffectsDeclared::Beside { id: Some(_), .. }
    );
    let identified = flow.source.is_some() && flow.identify.is_some();
    let corrected = folds.iter().any(|fold| !fold.corrected.is_empty());
    if !(by_id || identified || corrected || !flow.reconciles.is_empty()) {
        return Ok(None);
    }
    let key = &inputs.identity_key;
    history::read(inputs.ledger, &flow.flow, folds, &flow.reconciles, key, position_key).map(Some)
}

/// What effects are looked at with, besides their witness.
struct Beside<'a> {
    position_key: u64,
    /// Whether the source may hold events that are not decided yet.
    undecided: bool,
    /// The observed consumer's group, where one is declared.
    group: Option<Result<&'a GroupLooks, &'a WitnessError>>,
}

fn effect_statements(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    asked: &EffectsAsked<'_>,
    folds: &[PartitionFold],
    history: Option<&History>,
    beside: Beside<'_>,
) -> Result<Vec<Statement>, LedgerError> {
    let mut statements = Vec::new();
    let snapshot = match asked {
        EffectsAsked::NotDeclared => None,
        EffectsAsked::Away(error) => {
            statements.push(effects::away(error));
            None
        }
        EffectsAsked::Snapshot(snapshot, rows) => {
            let Beside { position_key, undecided, group } = beside;
            statements.push(match group.transpose() {
                Ok(group) => {
                    let side = EffectsSide { snapshot: &**snapshot, rows, position_key, undecided, group };
                    effects::statement(inputs, flow, &side, folds, history)?
                }
                Err(error) => effects::away(error),
            });
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
        let Some(left) = history.and_then(|h| h.left.get(place)) else {
            let sentence = "the ledger's decisions can't be read to the end".to_owned();
            statements.push(reconcile::unprovable(declared, sentence));
            continue;
        };
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
