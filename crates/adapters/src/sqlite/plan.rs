//! A flow's statements, compiled against the catalog as it is now.

use super::inspect::{NotUsable, Purpose, inspect};
use recount_checks::rules::RuleFault;
use recount_engine::{EffectRows, OtherwiseRule, RowRange, SqlRoute};
use rusqlite::Connection;

/// Where each of a statement's parameters comes from: places in the event's `params`.
pub(crate) type Binds = Vec<usize>;

/// A flow's statements.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) routes: Vec<RoutePlan>,
    /// Every statement leaves nothing where it changes no row.
    pub(crate) plain: bool,
    /// Parameters that are given and not used.
    pub(crate) warnings: Vec<RuleFault>,
    /// The catalog's version it was made from.
    pub(crate) schema_version: i64,
}

#[derive(Debug)]
pub(crate) struct RoutePlan {
    pub(crate) statements: Vec<StatementPlan>,
    pub(crate) otherwise: Vec<OtherwisePlan>,
    /// Names of the event's params, in their order.
    pub(crate) params: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct StatementPlan {
    pub(crate) sql: String,
    pub(crate) rows: RowRange,
    pub(crate) binds: Binds,
}

#[derive(Debug)]
pub(crate) struct OtherwisePlan {
    pub(crate) rule: OtherwiseRule,
    /// Of `rule.when`.
    pub(crate) binds: Binds,
}

/// Why there is no plan.
#[derive(Debug)]
pub(crate) enum NoPlan {
    Refused(Vec<RuleFault>),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for NoPlan {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

pub(crate) fn schema_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

/// Inspects every statement; all faults at once.
pub(crate) fn make(conn: &mut Connection, routes: &[SqlRoute], effects: &EffectRows) -> Result<Plan, NoPlan> {
    let schema_version = schema_version(conn)?;
    let mut making = Making { conn, faults: Vec::new(), warnings: Vec::new(), plain: true };
    let mut plans = Vec::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        plans.push(making.route(index, route)?);
    }
    if let EffectRows::Custom { sql, .. } = effects {
        making.statement("effects.sql", sql, &[], Purpose::Query)?;
    }
    let Making { faults, warnings, plain, .. } = making;
    if faults.is_empty() {
        Ok(Plan { routes: plans, plain, warnings, schema_version })
    } else {
        Err(NoPlan::Refused(faults))
    }
}

struct Making<'c> {
    conn: &'c mut Connection,
    faults: Vec<RuleFault>,
    warnings: Vec<RuleFault>,
    plain: bool,
}

impl Making<'_> {
    fn route(&mut self, index: usize, route: &SqlRoute) -> Result<RoutePlan, NoPlan> {
        let mut used = vec![false; route.params.len()];
        let mut statements = Vec::with_capacity(route.statements.len());
        for (place, statement) in route.statements.iter().enumerate() {
            let rule = format!("apply[{index}].sql[{place}]");
            let binds = self.statement(&rule, &statement.sql, &route.params, Purpose::Effect)?;
            binds.iter().for_each(|&b| used[b] = true);
            statements.push(StatementPlan { sql: statement.sql.clone(), rows: statement.rows, binds });
        }
        let mut otherwise = Vec::with_capacity(route.otherwise.len());
        for (place, rule) in route.otherwise.iter().enumerate() {
            let name = format!("apply[{index}].otherwise[{place}].when");
            let binds = match &rule.when {
                Some(when) => self.statement(&name, when, &route.params, Purpose::Query)?,
                None => Binds::new(),
            };
            binds.iter().for_each(|&b| used[b] = true);
            otherwise.push(OtherwisePlan { rule: rule.clone(), binds });
        }
        for (param, _) in route.params.iter().zip(&used).filter(|(_, used)| !**used) {
            self.warnings.push(RuleFault {
                rule: format!("apply[{index}].with.{param}"),
                message: format!("no statement uses :{param}: use it, or leave it out"),
            });
        }
        Ok(RoutePlan { statements, otherwise, params: route.params.clone() })
    }

    fn statement(
        &mut self,
        rule: &str,
        sql: &str,
        given: &[String],
        purpose: Purpose,
    ) -> Result<Binds, NoPlan> {
        let inspected = match inspect(self.conn, sql, purpose) {
            Ok(inspected) => inspected,
            Err(NotUsable::Database(error)) => return Err(NoPlan::Database(error)),
            Err(NotUsable::Refused(message)) => {
                self.fault(rule, message);
                return Ok(Binds::new());
            }
        };
        if purpose == Purpose::Effect {
            self.plain &= inspected.plain;
        }
        let mut binds = Binds::with_capacity(inspected.params.len());
        for name in inspected.params {
            match given.iter().position(|g| *g == name) {
                Some(place) => binds.push(place),
                None => {
                    let list = given.iter().map(|g| format!(":{g}")).collect::<Vec<_>>().join(", ");
                    let have = if list.is_empty() { "nothing".to_owned() } else { list };
                    self.fault(
                        rule,
                        format!(":{name} is not given: add it to `with` (which gives {have}), or correct it"),
                    );
                }
            }
        }
        Ok(binds)
    }

    fn fault(&mut self, rule: &str, message: String) {
        self.faults.push(RuleFault { rule: rule.to_owned(), message });
    }
}
