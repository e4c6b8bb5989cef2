//! Flows whose consumer reports: their source holds events back, and one endpoint takes the reports of all.

use super::source::auth;
use crate::config::{Config, EffectConfig, FlowConfig, FlowMode, ReasonOrigin, ReasonVerdict};
use crate::exit::Failure;
use recount_adapters::reports::{
    DeclaredReason, DeclaredReasons, FlowReports, ReportRouter, ReportSettings, ReportStore, ReportedSource,
    router,
};
use recount_checks::FlowChecks;
use recount_engine::{Book, OtherwiseVerdict, Source, SystemClock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the flows of an instance share that take reports.
pub(super) struct Reporting {
    store: Option<ReportStore>,
    flows: BTreeMap<String, Option<Arc<FlowReports>>>,
}

impl Reporting {
    /// For the flows of this config; none reports yet.
    pub(super) fn new(config: &Config) -> Self {
        let names = config.flows.iter().map(|flow| (flow.spec.flow.as_str().to_owned(), None));
        Self { store: None, flows: names.collect() }
    }

    /// The source that the loop reads: the flow's own, or one that waits for the consumer.
    pub(super) fn source(
        &mut self,
        config: &Config,
        flow: &FlowConfig,
        source: Arc<dyn Source>,
        checks: &Arc<FlowChecks>,
        book: &Book,
    ) -> Result<Arc<dyn Source>, Failure> {
        let EffectConfig::Watched { within_ms, .. } = &flow.effect else { return Ok(source) };
        if flow.mode != FlowMode::Report {
            return Ok(source);
        }
        let store = match &self.store {
            Some(store) => store.clone(),
            None => ReportStore::open(&config.ledger.path).map_err(Failure::unreachable)?,
        };
        self.store = Some(store.clone());
        let reports = FlowReports::new(ReportSettings {
            flow: flow.spec.flow.clone(),
            reasons: reasons(flow),
            within: Duration::from_millis(*within_ms),
            checks: Arc::clone(checks),
            id_is_secret: flow.spec.id_is_secret,
            store,
            book: book.clone(),
            clock: Arc::new(SystemClock),
        });
        self.flows.insert(flow.spec.flow.as_str().to_owned(), Some(Arc::clone(&reports)));
        Ok(Arc::new(ReportedSource::new(source, reports)))
    }

    /// The endpoint. It stands also where no flow takes reports, to say so.
    pub(super) fn router(self, config: &Config) -> Result<axum::Router, Failure> {
        let reports = self.flows.values().any(Option::is_some);
        Ok(router(ReportRouter {
            // A secret that can't be had is only missed where it is needed.
            auth: if reports { auth(config)? } else { recount_adapters::http_source::Auth::None },
            flows: self.flows,
            body_bytes_max: config.server.body_bytes_max,
        }))
    }
}

/// Whatever the flow declares, its checks' reasons too: the consumer may well look at the same things.
fn reasons(flow: &FlowConfig) -> DeclaredReasons {
    let declared = flow.reasons.iter().filter_map(|reason| {
        let verdict = match reason.verdict {
            ReasonVerdict::Skip => OtherwiseVerdict::Skip,
            ReasonVerdict::DeadLetter => OtherwiseVerdict::DeadLetter,
            ReasonVerdict::Flag | ReasonVerdict::Retry => return None,
        };
        let is_of_check = matches!(reason.origin, ReasonOrigin::Check(_));
        Some((reason.code.clone(), DeclaredReason { verdict, because: reason.because.clone(), is_of_check }))
    });
    declared.collect()
}
