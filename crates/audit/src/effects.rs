//! E2: what the ledger calls applied is committed in the database.

use crate::beside::{self, Comparing, Seen};
use crate::beside_group::GroupLooks;
use crate::books::PartitionFold;
use crate::fingerprint::{ChunkSums, Sum, id_hash, position_hash};
use crate::history::{History, ID_BUCKETS, id_bucket};
use crate::inputs::{AuditInputs, EffectsDeclared, FlowAudit};
use crate::names::{Names, first_of_range, shorten};
use crate::report::{Equation, Finding, Side, Statement, Strength};
use crate::witness::{EffectSnapshot, PositionRow, WitnessError};
use recount_ledger::{DecisionFilter, LedgerError, LedgerRead};
use recount_model::{BookStatus, Fate, Origin, reason};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

const NAME: &str = "ledger = effects";

/// What no strength can see after retention.
const LEFT: &str = "decisions that left the ledger with retention are not counted on either side";

/// At most so many ids are held at once where custom effects differ; beyond, they are only counted.
const IDS_MAX: usize = 100_000;

/// What the position rows say against the ledger.
#[derive(Default)]
pub(crate) struct Attested {
    pub findings: Vec<Finding>,
    pub unprovable: Vec<Finding>,
    pub open: Vec<String>,
    committed: u64,
    recorded: u64,
    /// Whether it is our own arbiter that attests: no database of the consumer's was asked.
    is_beside: bool,
}

/// Everything that E2 looks at.
pub(crate) struct EffectsSide<'a> {
    pub snapshot: &'a dyn EffectSnapshot,
    pub rows: &'a [PositionRow],
    pub position_key: u64,
    /// Whether the source may hold events that are not decided yet.
    pub undecided: bool,
    /// The group of an observed consumer, where one is declared.
    pub group: Option<&'a GroupLooks>,
}

/// E2 where nobody can be asked.
pub(crate) fn away(error: &WitnessError) -> Statement {
    Statement {
        equation: Equation::E2,
        name: NAME.into(),
        status: BookStatus::Unprovable,
        strength: Strength::None,
        sides: None,
        sentence: format!("the effects can't be counted: {error}"),
        findings: Vec::new(),
        look: vec!["see that the database can be reached, and audit again".into()],
    }
}

/// E2, at the strength that the flow declares.
pub(crate) fn statement(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    side: &EffectsSide<'_>,
    folds: &[PartitionFold],
    history: Option<&History>,
) -> Result<Statement, LedgerError> {
    if let EffectsDeclared::Beside { sql, id, within_ms, .. } = flow.effects {
        let seen = Seen { sql, id, within_ms };
        let expected = folds.iter().map(|fold| fold.applied.count()).sum();
        let comparing = Comparing { inputs, flow, side, seen, folds, expected };
        return beside::statement(&comparing, history);
    }
    let counts_positions = matches!(flow.effects, EffectsDeclared::Attested(_) | EffectsDeclared::Table(_));
    if !counts_positions && folds.iter().any(|fold| !fold.dropped.is_empty()) {
        return Ok(away(&WitnessError::Gone(LEFT.into())));
    }
    let attested = match attest(inputs, side, folds) {
        Ok(attested) => Attested { is_beside: flow.origin != Origin::Ran, ..attested },
        Err(error) => return Ok(away(&error)),
    };
    let applied: i64 = folds.iter().map(|fold| fold.applied.count()).sum();
    let counted = match flow.effects {
        EffectsDeclared::Table(_) => count_rows(inputs, side, folds)?,
        EffectsDeclared::Custom { sql, id: Some(id), .. } => {
            let Some(history) = history else { return Ok(attested.statement(None, applied)) };
            count_ids(inputs, flow, side.snapshot, (sql, id), folds, history)?
        }
        EffectsDeclared::Custom { sql, id: None, .. } => count_total(side.snapshot, sql, applied),
        EffectsDeclared::None | EffectsDeclared::Attested(_) | EffectsDeclared::Beside { .. } => {
            return Ok(attested.statement(None, applied));
        }
    };
    Ok(match counted {
        Ok(counted) => attested.statement(Some(counted), applied),
        Err(error) => away(&error),
    })
}

/// What counting found.
struct Counted {
    strength: Strength,
    effects: u64,
    findings: Vec<Finding>,
    /// What this strength can't see.
    blind: Option<&'static str>,
}

impl Attested {
    fn statement(self, counted: Option<Counted>, applied: i64) -> Statement {
        let strength = counted.as_ref().map_or(Strength::CommitAttested, |c| c.strength);
        let blind = counted.as_ref().and_then(|c| c.blind);
        let effects = counted.as_ref().map(|c| c.effects);
        let mut findings = self.findings;
        findings.extend(counted.into_iter().flat_map(|c| c.findings));
        let status = if !findings.is_empty() {
            BookStatus::Imbalanced
        } else if !self.unprovable.is_empty() {
            BookStatus::Unprovable
        } else if !self.open.is_empty() {
            BookStatus::Open
        } else {
            BookStatus::Balanced
        };
        let mut sentence = match effects {
            Some(effects) => format!("{applied} applied decisions, {effects} effects in the database"),
            None => format!(
                "{} attests {} of {} committed batches, with {applied} applied decisions; no effect was counted",
                if self.is_beside { "recount's own record" } else { "the database" },
                self.committed,
                self.recorded
            ),
        };
        if let Some(blind) = blind {
            sentence.push_str(&format!("; {blind}"));
        }
        if !self.open.is_empty() {
            sentence.push_str(&format!("; {}", shorten(&self.open, 3)));
        }
        let sides = match effects {
            Some(effects) => (Side::new("applied decisions", applied), Side::new("effects", effects)),
            None => {
                (Side::new("batches recorded", self.recorded), Side::new("batches attested", self.committed))
            }
        };
        findings.extend(self.unprovable);
        // The numbers alone may be even: 0 = 0 beside a database that was made anew.
        if let Some(older) = findings.iter().find(|finding| finding.code == reason::EFFECTS_ROLLED_BACK) {
            sentence.push_str(&format!("; {}: {}", older.sentence, shorten(&older.names, 1)));
        }
        let look = look(&findings);
        Statement {
            equation: Equation::E2,
            name: NAME.into(),
            status,
            strength,
            sides: Some(sides),
            sentence,
            findings,
            look,
        }
    }
}

fn look(findings: &[Finding]) -> Vec<String> {
    let mut look = Vec::new();
    for finding in findings {
        if finding.code == reason::EFFECTS_ROLLED_BACK {
            look.push("recount ledger recover --reapply --because …, or --accept --because …".to_owned());
        } else if finding.code == reason::POSITIONS_UNRECORDED {
            look.push("recount explain positions_unrecorded".to_owned());
        } else if finding.code == reason::LEDGER_FOREIGN {
            look.push("recount explain ledger_foreign".to_owned());
        } else if let Some(name) = finding.names.first() {
            look.push(format!("recount story {}", first_of_range(name)));
        }
    }
    look.dedup();
    look
}

/// Position rows against the ledger: restored databases, foreign ones, batches that wait to be entered.
pub(crate) fn attest(
    inputs: &AuditInputs<'_>,
    side: &EffectsSide<'_>,
    folds: &[PartitionFold],
) -> Result<Attested, WitnessError> {
    let mut attested = Attested::default();
    let fresh = || Names::new(inputs.names_max);
    let (mut rolled_back, mut foreign, mut prefix, mut missing) = (fresh(), fresh(), fresh(), fresh());
    let mut since = None;
    let our_id = inputs.ledger.id().0;
    for fold in folds {
        let at = &fold.at;
        let row = side.rows.iter().find(|row| row.at == *at);
        let seq = row.map_or(0, |row| row.seq);
        if let Some(row) = row.filter(|row| row.ledger_id != our_id) {
            foreign
                .add(|| format!("{at}: the database names ledger {}, this one is {our_id}", row.ledger_id));
        }
        if !fold.rolled_back.is_empty() {
            rolled_back.add_positions(at, &fold.rolled_back);
            since = since.min(fold.rolled_back_since).or(fold.rolled_back_since);
        } else if seq < fold.cut.ledger_seq_before {
            rolled_back.add(|| format!("{at} batches {} to {}", seq + 1, fold.cut.ledger_seq_before));
        }
        if let (Some(row), Some((next_offset, above))) = (row, &fold.at_effect_seq)
            && (row.next_offset, &row.decided_above) != (*next_offset, above)
        {
            prefix.add(|| {
                format!(
                    "{at}: at batch {seq} the database is at {}, the ledger at {next_offset}",
                    row.next_offset
                )
            });
        }
        if seq > fold.cut.ledger_seq {
            let (waiting, absent) = batches_ahead(side, fold, seq)?;
            let last = fold.cut.ledger_seq;
            missing.add_many(absent, || format!("{at}: batches after batch {last}, {absent} in all"));
            if waiting > 0 {
                let sentence =
                    format!("{at}: {waiting} committed batches wait to be entered into the ledger");
                attested.open.push(sentence);
            }
        }
        attested.recorded += fold.cut.ledger_seq;
        attested.committed += seq.min(fold.cut.ledger_seq);
    }
    let rolled_back = rolled_back
        .finding(reason::EFFECTS_ROLLED_BACK, "recorded as decided, but the database is from before")
        .map(|finding| Finding { since, ..finding });
    attested.findings.extend(rolled_back);
    attested.findings.extend(
        prefix.finding(
            reason::EFFECTS_ROLLED_BACK,
            "the database and the ledger disagree about the same batch",
        ),
    );
    attested.unprovable.extend(
        foreign.finding(
            reason::LEDGER_FOREIGN,
            "the database belongs to another ledger and can't attest this one",
        ),
    );
    attested.unprovable.extend(missing.finding(
        reason::POSITIONS_UNRECORDED,
        "committed in the database, and neither in the ledger nor kept in recount_batch",
    ));
    Ok(attested)
}

/// Batches that the database committed and the ledger lacks: how many are kept for it, and how many aren't.
fn batches_ahead(side: &EffectsSide<'_>, fold: &PartitionFold, seq: u64) -> Result<(u64, u64), WitnessError> {
    let stored = side.snapshot.stored_batches(&fold.at, fold.cut.ledger_seq)?;
    let waiting: BTreeSet<u64> = stored.into_iter().filter(|stored| *stored <= seq).collect();
    let waiting = waiting.len() as u64;
    Ok((waiting, (seq - fold.cut.ledger_seq).saturating_sub(waiting)))
}

type CountedOutcome = Result<Result<Counted, WitnessError>, LedgerError>;

/// Rows of `recount_effect`, position by position.
fn count_rows(inputs: &AuditInputs<'_>, side: &EffectsSide<'_>, folds: &[PartitionFold]) -> CountedOutcome {
    let fresh = || Names::new(inputs.names_max);
    let (mut missing, mut extra, mut twice) = (fresh(), fresh(), fresh());
    let mut effects = 0;
    for fold in folds {
        let ahead = fold.cut.effect_seq.is_some_and(|seq| seq > fold.cut.ledger_seq);
        let mut sums = ChunkSums::default();
        let outcome = side.snapshot.effects(&fold.at, 0, u64::MAX, &mut |offset, _| {
            if fold.dropped.contains(offset) {
                return ControlFlow::Continue(());
            }
            sums.add(offset, position_hash(side.position_key, offset));
            ControlFlow::Continue(())
        });
        if let Err(error) = outcome {
            return Ok(Err(error));
        }
        effects += u64::try_from(sums.count()).unwrap_or(0);
        for range in sums.differing(&fold.applied) {
            let applied = applied_in(inputs.ledger, fold, range)?;
            let mut rows: BTreeMap<u64, u64> = BTreeMap::new();
            let outcome = side.snapshot.effects(&fold.at, range.0, range.1, &mut |offset, _| {
                if !fold.dropped.contains(offset) {
                    *rows.entry(offset).or_default() += 1;
                }
                ControlFlow::Continue(())
            });
            if let Err(error) = outcome {
                return Ok(Err(error));
            }
            let name = |offset: &u64| format!("{}/{offset}", fold.at);
            for offset in applied.iter().filter(|offset| !rows.contains_key(*offset)) {
                missing.add(|| name(offset));
            }
            for (offset, count) in &rows {
                if *count > 1 {
                    twice.add(|| format!("{} ({count} times)", name(offset)));
                }
                // Batches that are not in the ledger yet have effects; they are open, not without decision.
                if !applied.contains(offset) && !ahead {
                    extra.add(|| name(offset));
                }
            }
        }
    }
    let findings = [
        missing
            .finding(reason::EFFECTS_MISSING, "applied by the ledger, and without an effect in the database"),
        extra.finding(
            reason::EFFECTS_WITHOUT_DECISION,
            "an effect stands in the database that the ledger does not call applied",
        ),
        twice.finding(reason::EFFECTS_TWICE, "the effect stands more than once in the database"),
    ];
    let findings = findings.into_iter().flatten().collect();
    let dropped = folds.iter().any(|fold| !fold.dropped.is_empty());
    let blind = dropped.then_some(LEFT);
    Ok(Ok(Counted { strength: Strength::Counted, effects, findings, blind }))
}

/// Offsets of a range that are applied at the common cut.
fn applied_in(
    ledger: &dyn LedgerRead,
    fold: &PartitionFold,
    (from, to): (u64, u64),
) -> Result<BTreeSet<u64>, LedgerError> {
    let filter = DecisionFilter {
        flow: Some(fold.at.flow.clone()),
        partition: Some(fold.at.partition.as_str().to_owned()),
        offset_from: Some(from),
        offset_to: Some(to),
        superseded: true,
        ..Default::default()
    };
    let mut latest: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    ledger.decisions(&filter, &mut |stored| {
        let seq = stored.header.seq;
        let is_looked_at = stored.header.at == fold.at && !fold.dropped.contains(stored.decision.offset);
        if is_looked_at && seq <= fold.cut.common_seq() {
            let known = latest.entry(stored.decision.offset).or_insert((0, false));
            if seq >= known.0 {
                *known = (seq, matches!(stored.decision.fate, Fate::Applied));
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(latest.into_iter().filter(|(_, (_, applied))| *applied).map(|(offset, _)| offset).collect())
}

/// The user's own effects, id by id.
fn count_ids(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    snapshot: &dyn EffectSnapshot,
    (sql, id): (&str, &str),
    folds: &[PartitionFold],
    history: &History,
) -> CountedOutcome {
    let key = &inputs.identity_key;
    let mut buckets = vec![Sum::default(); ID_BUCKETS];
    let mut effects = 0;
    let outcome = snapshot.custom_ids(sql, id, &mut |id| {
        let hash = id_hash(key, id);
        buckets[id_bucket(hash)].add(hash);
        effects += 1;
        ControlFlow::Continue(())
    });
    if let Err(error) = outcome {
        return Ok(Err(error));
    }
    let differing: BTreeSet<usize> =
        (0..ID_BUCKETS).filter(|b| buckets[*b] != history.applied_ids[*b]).collect();
    let blind = (history.applied_without_id > 0)
        .then_some("applied decisions without an id can't be told apart by this query");
    let mut counted = Counted { strength: Strength::CountedById, effects, findings: Vec::new(), blind };
    if differing.is_empty() {
        return Ok(Ok(counted));
    }
    let ids = applied_ids_in(inputs, flow, folds, &differing)?;
    let mut balance: BTreeMap<Box<str>, (i64, String)> =
        ids.into_iter().map(|(id, position)| (id, (0, position))).collect();
    let outcome = snapshot.custom_ids(sql, id, &mut |id| {
        if differing.contains(&id_bucket(id_hash(key, id)))
            && (balance.contains_key(id) || balance.len() < 2 * IDS_MAX)
        {
            balance.entry(id.into()).or_default().0 += 1;
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = outcome {
        return Ok(Err(error));
    }
    counted.findings = tell_ids(inputs, flow, balance, history.applied_without_id);
    Ok(Ok(counted))
}

fn tell_ids(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    balance: BTreeMap<Box<str>, (i64, String)>,
    applied_without_id: u64,
) -> Vec<Finding> {
    let fresh = || Names::new(inputs.names_max);
    let (mut missing, mut extra, mut twice) = (fresh(), fresh(), fresh());
    for (id, (count, position)) in balance {
        let id = if flow.id_is_secret { "(id is secret)".to_owned() } else { format!("id {id}") };
        match (count, position.is_empty()) {
            (0, _) => missing.add(|| format!("{position} ({id})")),
            (1, false) => {}
            (_, true) => extra.add(|| id),
            (_, false) => twice.add(|| format!("{position} ({id}, {count} times)")),
        }
    }
    // Decisions whose ids were forgotten have effects all the same.
    if extra.count <= applied_without_id {
        extra = fresh();
    }
    [
        missing.finding(reason::EFFECTS_MISSING, "applied by the ledger, and not among the effects"),
        extra.finding(reason::EFFECTS_WITHOUT_DECISION, "among the effects, and not applied by the ledger"),
        twice.finding(reason::EFFECTS_TWICE, "the effect stands more than once"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Ids (and a position of each) that are applied at the common cut, of the buckets that differ.
fn applied_ids_in(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &[PartitionFold],
    differing: &BTreeSet<usize>,
) -> Result<BTreeMap<Box<str>, String>, LedgerError> {
    let filter = DecisionFilter {
        flow: Some(flow.flow.clone()),
        verdict: Some("applied".into()),
        ..Default::default()
    };
    let mut ids = BTreeMap::new();
    inputs.ledger.decisions(&filter, &mut |stored| {
        let Some(fold) = folds.iter().find(|fold| fold.at == stored.header.at) else {
            return ControlFlow::Continue(());
        };
        if let Some(id) = &stored.decision.event_id
            && stored.header.seq <= fold.cut.common_seq()
            && differing.contains(&id_bucket(id_hash(&inputs.identity_key, id)))
        {
            ids.insert(id.clone(), format!("{}/{}", fold.at, stored.decision.offset));
        }
        if ids.len() < IDS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(ids)
}

/// One total against another.
fn count_total(snapshot: &dyn EffectSnapshot, sql: &str, applied: i64) -> Result<Counted, WitnessError> {
    let effects = snapshot.custom_count(sql)?;
    let difference = i128::from(effects) - i128::from(applied);
    let count = u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX);
    let (code, word) = match difference {
        ..0 => (reason::EFFECTS_MISSING, "fewer effects than applied decisions"),
        _ => (reason::EFFECTS_WITHOUT_DECISION, "more effects than applied decisions"),
    };
    let finding = Finding {
        code,
        sentence: format!("{word}; the query names no id, so which ones can't be told"),
        names: Vec::new(),
        count,
        since: None,
    };
    Ok(Counted {
        strength: Strength::TotalOnly,
        effects,
        findings: if difference == 0 { Vec::new() } else { vec![finding] },
        blind: Some("the query names no id: one lost and one there twice would cancel unseen"),
    })
}
