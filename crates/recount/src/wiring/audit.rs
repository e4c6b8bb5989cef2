//! What an audit is given: the ledger, the witnesses, the flow's rules compiled for the audit alone.

use super::effect::find_database;
use super::source::log_path;
use super::{compile, now, read_ledger};
use crate::config::{
    Config, DatabasePlace, FlowConfig, HttpCount, ReconcileConfig, RightSide, SourceConfig, SumOf,
    WatchedEffects,
};
use crate::exit::Failure;
use recount_adapters::http_count::HttpCountWitness;
use recount_adapters::postgres::PostgresEffectWitness;
use recount_adapters::witness::{BesideWitness, FileSourceWitness, LogSourceWitness, SqliteEffectWitness};
use recount_audit::{
    AuditInputs, AuditReport, EffectWitness, EffectsDeclared, FlowAudit, GroupWitness, Identify,
    ReconcileAudit, ReconcileOf, SourceWitness, audit,
};
use recount_checks::{FlowChecks, RawEvent};
use recount_engine::{EffectRows, FlowCounts, FlowEnd};
use recount_ledger::{LedgerRead, LedgerReader};
use recount_model::{ConfigVersion, FlowName, PartitionId, Timestamp};
use std::collections::BTreeMap;

/// Where there is no cut, and the config gives no `within`, the sides may differ for so long.
const WITHIN_MS: u64 = 60_000;

/// How the sentence begins that says why a flow takes nothing.
pub const PAUSED: &str = "it is paused";

/// How an audit is made.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    /// Whether the auditor reads every event again to compare ids.
    pub identified: bool,
    /// At most so many names in a finding.
    pub names_max: usize,
}

/// Everything that one flow is asked about with; borrowed by its `FlowAudit`.
struct Witnesses {
    source: Box<dyn SourceWitness>,
    group: Option<Box<dyn GroupWitness>>,
    effect: Box<dyn EffectWitness>,
    others: BTreeMap<String, Box<dyn EffectWitness>>,
    identify: Identifier,
}

/// Finds ids by the rules of the version that decided, where it is still in the journal and can be read.
struct Identifier {
    now: FlowChecks,
    of_version: BTreeMap<ConfigVersion, FlowChecks>,
}

impl Identify for Identifier {
    fn event_id(&self, config: Option<ConfigVersion>, raw: &RawEvent) -> Option<Box<str>> {
        let checks = config.and_then(|version| self.of_version.get(&version)).unwrap_or(&self.now);
        checks.check(raw.clone()).meta().id.clone()
    }
}

/// Earlier versions of the config, as the journal keeps them; those of today's text are left out.
fn earlier_versions(config: &Config, ledger: &LedgerReader) -> Result<Earlier, Failure> {
    let today = config.hash();
    let versions = ledger.configs().map_err(super::ledger_failure)?.into_iter();
    let read = versions.filter(|stored| stored.hash != today).filter_map(|stored| {
        let config = Config::from_text(&stored.text, &config.path).ok()?;
        Some((stored.version, config))
    });
    Ok(read.collect())
}

type Earlier = BTreeMap<ConfigVersion, Config>;

/// Since when the flow is in the config, as the journal says.
fn began(
    config: &Config,
    ledger: &LedgerReader,
    earlier: &Earlier,
    flow: &FlowConfig,
) -> Result<Option<Timestamp>, Failure> {
    let (today, name) = (config.hash(), flow.spec.flow.as_str());
    let had_it = |version: &ConfigVersion| earlier.get(version).is_some_and(|then| then.flow(name).is_some());
    let stored = ledger.configs().map_err(super::ledger_failure)?;
    let first = stored.iter().find(|stored| stored.hash == today || had_it(&stored.version));
    Ok(first.map(|stored| stored.since))
}

/// Which measure a reconcile of this name had in earlier versions; `None` where it was not declared.
fn measure_of(earlier: &Earlier, reconcile: &ReconcileConfig) -> BTreeMap<ConfigVersion, Option<usize>> {
    let measure = |config: &Config| {
        let same =
            |other: &&ReconcileConfig| other.name == reconcile.name && other.left.flow == reconcile.left.flow;
        config.reconciles.iter().find(same).map(|other| other.left.measure)
    };
    earlier.iter().map(|(version, config)| (*version, measure(config))).collect()
}

/// Counts the flows of a config again.
pub fn count_again(
    config: &Config,
    wanted: &[String],
    options: AuditOptions,
) -> Result<AuditReport, Failure> {
    let ledger = read_ledger(&config.ledger)?;
    let is_wanted =
        |flow: &&FlowConfig| wanted.is_empty() || wanted.iter().any(|name| name == flow.spec.flow.as_str());
    let flows: Vec<&FlowConfig> = config.flows.iter().filter(is_wanted).collect();
    let known = ledger.partitions().map_err(super::ledger_failure)?;
    let earlier = earlier_versions(config, &ledger)?;
    let witnesses: Vec<Witnesses> =
        flows.iter().map(|flow| witnesses(config, flow, &known, &earlier)).collect::<Result<_, _>>()?;
    let mut audited = Vec::with_capacity(flows.len());
    for (flow, witnesses) in flows.iter().zip(&witnesses) {
        let mut one = flow_audit(config, flow, witnesses, &earlier, options)?;
        one.began = began(config, &ledger, &earlier, flow)?;
        audited.push(one);
    }
    Ok(audit(&AuditInputs {
        ledger: &ledger,
        flows: audited,
        now: now(),
        identity_key: *ledger.identity_key(),
        names_max: options.names_max,
    }))
}

/// Adds what the journal says last of a flow: one that is paused does not work, however its books stand.
pub fn tell_paused(config: &Config, report: &mut AuditReport) -> Result<(), Failure> {
    let journal = read_ledger(&config.ledger)?.journal(None).map_err(super::ledger_failure)?;
    for flow in &mut report.flows {
        let paused = super::paused_since(&journal, &flow.flow);
        flow.not_working.extend(paused.map(|why| format!("{PAUSED}: {why}")));
    }
    Ok(())
}

/// How a running flow stands, besides its books.
#[derive(Debug, Clone)]
pub struct Live {
    /// The flow.
    pub flow: FlowName,
    /// Its counters.
    pub counts: FlowCounts,
    /// How it ended, if it did.
    pub ended: Option<FlowEnd>,
}

/// Adds what only the running instance knows: a pause, an effect that is away, a flow that stopped.
pub fn tell_live(report: &mut AuditReport, live: &[Live]) {
    for flow in &mut report.flows {
        let Some(live) = live.iter().find(|live| live.flow == flow.flow) else { continue };
        let is_told = flow.not_working.iter().any(|sentence| sentence.starts_with(PAUSED));
        let paused = live.counts.paused.iter().filter(|_| !is_told);
        flow.not_working.extend(paused.map(|why| format!("{PAUSED}: {why}")));
        flow.not_working
            .extend(live.counts.away.iter().map(|why| format!("the effect does not work: {why}")));
        if let Some(FlowEnd::Stopped(stops)) = &live.ended {
            flow.not_working.extend(stops.iter().map(|stop| format!("it stopped: {stop}")));
        }
    }
}

fn witnesses(
    config: &Config,
    flow: &FlowConfig,
    known: &[PartitionId],
    earlier: &Earlier,
) -> Result<Witnesses, Failure> {
    let source = source_witness(config, flow, known);
    let arbiter = config.ledger.path.join("arbiter.db");
    let effect: Box<dyn EffectWitness> = match (flow.effect.in_database(), flow.effect.watched()) {
        (Some((database, _)), _) => witness(config, flow, database)?,
        (None, Some(watched)) => {
            let consumer = match watched.http {
                Some(http) => Box::new(http_count(http)?) as Box<dyn EffectWitness>,
                None => witness(config, flow, watched.database)?,
            };
            Box::new(BesideWitness::new(arbiter, consumer))
        }
        (None, None) => Box::new(SqliteEffectWitness::new(arbiter)),
    };
    let mut others = BTreeMap::new();
    for reconcile in reconciles(config, flow) {
        let RightSide::Query { database, .. } = &reconcile.right;
        others.insert(database.clone(), witness(config, flow, database)?);
    }
    let compiled = |(version, config): (&ConfigVersion, &Config)| {
        let flow = config.flow(flow.spec.flow.as_str())?;
        Some((*version, compile(flow).ok()?))
    };
    let of_version = earlier.iter().filter_map(compiled).collect();
    let group = group_witness(config, flow)?;
    Ok(Witnesses { source, group, effect, others, identify: Identifier { now: compile(flow)?, of_version } })
}

/// Who tells over HTTP how many effects there are; the token is looked up now.
pub fn http_count(http: &HttpCount) -> Result<HttpCountWitness, Failure> {
    let token = http.token.as_ref().map(|token| token.resolve().map_err(Failure::usage)).transpose()?;
    let token = token.map(|token| token.expose().to_owned());
    Ok(HttpCountWitness::new(&http.url, &http.pointer, token))
}

/// Who is asked about the group of an observed consumer, where the config names one.
#[cfg(feature = "kafka")]
fn group_witness(config: &Config, flow: &FlowConfig) -> Result<Option<Box<dyn GroupWitness>>, Failure> {
    super::group::witness(config, flow)
}

#[cfg(not(feature = "kafka"))]
fn group_witness(_: &Config, _: &FlowConfig) -> Result<Option<Box<dyn GroupWitness>>, Failure> {
    Ok(None)
}

/// Who is asked what a flow's source holds.
pub fn source_witness(config: &Config, flow: &FlowConfig, known: &[PartitionId]) -> Box<dyn SourceWitness> {
    let known: Vec<PartitionId> = known.iter().filter(|at| at.flow == flow.spec.flow).cloned().collect();
    match &flow.source {
        SourceConfig::File { path, follow } => Box::new(FileSourceWitness::new(
            flow.spec.flow.clone(),
            path,
            *follow,
            flow.spec.take.payload_bytes_max,
            known,
        )),
        SourceConfig::Stdin | SourceConfig::Http { .. } => {
            Box::new(LogSourceWitness::new(flow.spec.flow.clone(), &log_path(config, flow), known))
        }
        #[cfg(feature = "kafka")]
        SourceConfig::Kafka { .. } => super::kafka::witness(config, flow),
        // A config that names a topic is refused by a build without Kafka before anything asks.
        #[cfg(not(feature = "kafka"))]
        SourceConfig::Kafka { .. } => {
            Box::new(LogSourceWitness::new(flow.spec.flow.clone(), &log_path(config, flow), known))
        }
    }
}

fn witness(config: &Config, flow: &FlowConfig, database: &str) -> Result<Box<dyn EffectWitness>, Failure> {
    let declared = find_database(config, database)?;
    Ok(match declared.place().map_err(Failure::usage)? {
        DatabasePlace::Sqlite(path) => Box::new(SqliteEffectWitness::new(path)),
        DatabasePlace::Postgres(url) => Box::new(
            PostgresEffectWitness::new(url, flow.spec.flow.clone()).rehearsing(declared.rehearsal.clone()),
        ),
    })
}

fn reconciles<'c>(config: &'c Config, flow: &'c FlowConfig) -> impl Iterator<Item = &'c ReconcileConfig> {
    config.reconciles.iter().filter(|reconcile| reconcile.left.flow == flow.spec.flow)
}

fn flow_audit<'a>(
    config: &'a Config,
    flow: &'a FlowConfig,
    witnesses: &'a Witnesses,
    earlier: &Earlier,
    options: AuditOptions,
) -> Result<FlowAudit<'a>, Failure> {
    let mut audited = FlowAudit::new(flow.spec.flow.clone());
    audited.source = Some(witnesses.source.as_ref());
    audited.group = witnesses.group.as_deref();
    audited.identify = options.identified.then_some(&witnesses.identify as &dyn Identify);
    audited.naming = Some(&witnesses.identify);
    audited.origin = flow.spec.origin;
    audited.effects = effects_declared(flow, witnesses);
    audited.budgets = flow.spec.budgets.clone();
    audited.open_allowed_ms = flow.open_ms_max;
    audited.silence_allowed_ms = flow.expect.map(|expect| expect.per_ms);
    audited.id_is_secret = flow.spec.id_is_secret;
    audited.groups_are_secret = reconciles(config, flow).any(|reconcile| reconcile.left.by_is_secret);
    let within_ms = flow.effect.watched().map_or(WITHIN_MS, |watched| watched.within_ms);
    for reconcile in reconciles(config, flow) {
        let RightSide::Query { database, sql } = &reconcile.right;
        let same_database = flow.effect.in_database().is_some_and(|(effect, _)| effect == database);
        let other = witnesses.others.get(database).map(|witness| witness.as_ref());
        audited.reconciles.push(ReconcileAudit {
            name: reconcile.name.clone(),
            measure: reconcile.left.measure,
            measure_of: measure_of(earlier, reconcile),
            of: match reconcile.left.of {
                SumOf::Received => ReconcileOf::Received,
                SumOf::Applied => ReconcileOf::Applied,
            },
            less: reconcile.left.less.clone(),
            by_group: reconcile.left.by.is_some(),
            witness: if same_database { None } else { other },
            sql: sql.clone(),
            tolerance: reconcile.tolerance,
            within_ms: reconcile.within_ms.unwrap_or(within_ms),
        });
    }
    Ok(audited)
}

fn effects_declared<'a>(flow: &'a FlowConfig, witnesses: &'a Witnesses) -> EffectsDeclared<'a> {
    let witness = witnesses.effect.as_ref();
    if let Some(WatchedEffects { sql, id, within_ms, .. }) = flow.effect.watched() {
        return EffectsDeclared::Beside { witness, sql, id, within_ms };
    }
    match flow.effect.in_database() {
        Some((_, EffectRows::Table)) => EffectsDeclared::Table(witness),
        Some((_, EffectRows::Custom { sql, id })) => {
            EffectsDeclared::Custom { witness, sql, id: id.as_deref() }
        }
        Some((_, EffectRows::None)) | None => EffectsDeclared::Attested(witness),
    }
}
