//! A flow's statements, prepared on one connection and looked up in the catalog as it is now.

use super::faults::{message, state};
use super::settings::PostgresOpenError;
use super::text::numbered;
use recount_checks::rules::RuleFault;
use recount_engine::{OtherwiseRule, RowRange, SqlRoute};
use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Error, Statement};

/// A flow's statements.
pub(crate) struct Plan {
    pub(crate) routes: Vec<RoutePlan>,
    /// Every statement leaves nothing where it changes no row.
    pub(crate) plain: bool,
    /// Why batches can't run inside the server; none where they can.
    pub(crate) not_in_server: Option<String>,
    /// Every SQLSTATE or class that some route holds the event's fault.
    pub(crate) states: Vec<String>,
}

pub(crate) struct RoutePlan {
    pub(crate) statements: Vec<StatementPlan>,
    pub(crate) otherwise: Vec<OtherwisePlan>,
    /// Names of the event's params, in their order.
    pub(crate) params: Vec<String>,
    /// SQLSTATEs or classes that are the event's fault beside those that always are.
    pub(crate) states: Vec<String>,
}

impl RoutePlan {
    /// The `otherwise` that was declared for a statement's SQLSTATE: the first that names it.
    pub(crate) fn for_state(&self, state: &str) -> Option<usize> {
        self.otherwise.iter().position(|otherwise| {
            otherwise.rule.sqlstates.iter().any(|declared| state.starts_with(declared.as_str()))
        })
    }
}

pub(crate) struct StatementPlan {
    pub(crate) text: String,
    pub(crate) rows: RowRange,
    pub(crate) prepared: Prepared,
}

pub(crate) struct OtherwisePlan {
    pub(crate) rule: OtherwiseRule,
    /// Of `rule.when`.
    pub(crate) when: Option<When>,
}

pub(crate) struct When {
    pub(crate) text: String,
    pub(crate) truth: Truth,
    pub(crate) prepared: Prepared,
}

/// How the first column of a `when` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    Boolean,
    /// Anything but 0.
    Number,
}

/// A statement as the server took it.
pub(crate) struct Prepared {
    pub(crate) statement: Statement,
    /// Places in the event's params, one a `$n`.
    pub(crate) binds: Vec<usize>,
}

/// Why there is no plan.
pub(crate) enum NoPlan {
    Refused(Vec<RuleFault>),
    Database(Error),
}

impl From<NoPlan> for PostgresOpenError {
    fn from(no_plan: NoPlan) -> Self {
        match no_plan {
            NoPlan::Refused(faults) => Self::Refused(faults),
            NoPlan::Database(error) => Self::Unusable(message(&error)),
        }
    }
}

/// Prepares every statement; all faults at once.
pub(crate) async fn make(client: &mut Client, routes: &[SqlRoute]) -> Result<Plan, NoPlan> {
    let mut making = Making { client, faults: Vec::new(), plain: true, not_in_server: None };
    let mut plans = Vec::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        plans.push(making.route(index, route).await?);
    }
    let Making { faults, plain, not_in_server, .. } = making;
    if faults.is_empty() {
        let states = plans.iter().flat_map(|plan| plan.states.iter().cloned()).collect();
        Ok(Plan { routes: plans, plain, not_in_server, states })
    } else {
        Err(NoPlan::Refused(faults))
    }
}

struct Making<'c> {
    client: &'c mut Client,
    faults: Vec<RuleFault>,
    plain: bool,
    not_in_server: Option<String>,
}

impl Making<'_> {
    async fn route(&mut self, index: usize, route: &SqlRoute) -> Result<RoutePlan, NoPlan> {
        let mut statements = Vec::with_capacity(route.statements.len());
        for (place, statement) in route.statements.iter().enumerate() {
            let rule = format!("apply[{index}].sql[{place}]");
            let Some(prepared) = self.prepare(&rule, &statement.sql, &route.params).await? else { continue };
            if let Some(fault) = effect_fault(&statement.sql) {
                self.fault(&rule, fault);
                continue;
            }
            if !prepared.statement.columns().is_empty() {
                self.not_in_server(format!("{rule} gives rows back"));
            }
            if first_word(&statement.sql) == "with" {
                self.plain = false;
            } else if prepared.statement.columns().is_empty() {
                let types = prepared.statement.params().to_vec();
                let numbered =
                    numbered(&statement.sql, &route.params).map_err(|_| NoPlan::Refused(Vec::new()))?;
                let looked = looked_at(self.client, &numbered.sql, &types, LEAVES_NOTHING).await?;
                self.plain &= looked.unwrap_or(false);
            } else {
                self.plain = false;
            }
            let (text, rows) = (statement.sql.clone(), statement.rows);
            statements.push(StatementPlan { text, rows, prepared });
        }
        let mut otherwise = Vec::with_capacity(route.otherwise.len());
        for (place, rule) in route.otherwise.iter().enumerate() {
            let name = format!("apply[{index}].otherwise[{place}].when");
            let when = match &rule.when {
                None => None,
                Some(when) => self.when(&name, when, &route.params).await?,
            };
            otherwise.push(OtherwisePlan { rule: rule.clone(), when });
        }
        let declared = route.otherwise.iter().flat_map(|rule| &rule.sqlstates);
        let states = declared.chain(&route.sqlstates).cloned().collect();
        Ok(RoutePlan { statements, otherwise, params: route.params.clone(), states })
    }

    async fn when(&mut self, rule: &str, sql: &str, given: &[String]) -> Result<Option<When>, NoPlan> {
        let Some(prepared) = self.prepare(rule, sql, given).await? else { return Ok(None) };
        if !matches!(first_word(sql).as_str(), "select" | "values") {
            self.fault(rule, "a `when` is a query: begin it with SELECT".to_owned());
            return Ok(None);
        }
        let truth = match prepared.statement.columns().first().map(|column| column.type_().clone()) {
            Some(Type::BOOL) => Truth::Boolean,
            Some(Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC) => {
                Truth::Number
            }
            other => {
                let other = other.map_or("nothing".to_owned(), |kind| kind.to_string());
                let help = format!("its first column must be a boolean or a number, and is {other}");
                self.fault(rule, help);
                return Ok(None);
            }
        };
        let types = prepared.statement.params().to_vec();
        let asked = numbered(sql, given).map_err(|_| NoPlan::Refused(Vec::new()))?;
        // Inside the server nothing undoes what a `when` may leave.
        match looked_at(self.client, &asked.sql, &types, CALLS_NOTHING).await? {
            Ok(true) => {}
            Ok(false) => {
                self.not_in_server(format!(
                    "{rule} calls a function that may write (declare it STABLE if not)"
                ));
            }
            Err(why) => self.not_in_server(format!("{rule} can't be looked at: {why}")),
        }
        Ok(Some(When { text: sql.to_owned(), truth, prepared }))
    }

    async fn prepare(&mut self, rule: &str, sql: &str, given: &[String]) -> Result<Option<Prepared>, NoPlan> {
        let numbered = match numbered(sql, given) {
            Ok(numbered) => numbered,
            Err(message) => {
                self.fault(rule, message);
                return Ok(None);
            }
        };
        match self.client.prepare(&numbered.sql).await {
            Ok(statement) => {
                if let Some(odd) = statement.params().iter().find(|kind| type_name(kind).is_none()) {
                    self.not_in_server(format!("{rule} has a parameter of type {odd}"));
                }
                Ok(Some(Prepared { statement, binds: numbered.binds }))
            }
            // Class 42: syntax error or access rule violation.
            Err(error)
                if state(&error).is_some_and(|state| state.starts_with("42") || state.starts_with("0A")) =>
            {
                self.fault(rule, message(&error));
                Ok(None)
            }
            Err(error) => Err(NoPlan::Database(error)),
        }
    }

    fn fault(&mut self, rule: &str, message: String) {
        self.faults.push(RuleFault { rule: rule.to_owned(), message });
    }

    fn not_in_server(&mut self, why: String) {
        self.not_in_server.get_or_insert(why);
    }
}

/// The first word, in lower case, behind comments and parentheses.
fn first_word(sql: &str) -> String {
    let mut rest = sql.trim_start();
    loop {
        rest = rest.trim_start_matches('(').trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest).trim_start();
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return rest[..end].to_ascii_lowercase();
        }
    }
}

/// Why a statement can't be an effect: nothing may end the transaction from inside.
fn effect_fault(sql: &str) -> Option<String> {
    match first_word(sql).as_str() {
        "insert" | "update" | "delete" | "with" | "select" | "merge" => None,
        word => Some(format!(
            "{} is not an effect: write INSERT, UPDATE, DELETE, MERGE, or a SELECT of a function",
            word.to_uppercase()
        )),
    }
}

/// No function of the user's own that may write.
const CALLS_NOTHING: &str = "NOT EXISTS (SELECT 1 FROM pg_proc p JOIN named ON refclassid = 'pg_proc'::regclass \
     AND refobjid = p.oid WHERE p.provolatile = 'v')";

/// A statement that changes no row leaves nothing: no trigger and no rule on the tables that it names or on
/// parts of them, no function of the user's own that may write.
const LEAVES_NOTHING: &str = "NOT EXISTS (SELECT 1 FROM pg_trigger JOIN named ON refclassid = 'pg_class'::regclass \
       AND refobjid = tgrelid WHERE NOT tgisinternal AND tgenabled <> 'D') \
     AND NOT EXISTS (SELECT 1 FROM pg_rewrite JOIN named ON refclassid = 'pg_class'::regclass \
       AND refobjid = ev_class) \
     AND NOT EXISTS (SELECT 1 FROM pg_proc p JOIN named ON refclassid = 'pg_proc'::regclass \
       AND refobjid = p.oid WHERE p.provolatile = 'v')";

/// Whether that holds of a statement; a sentence where it can't be asked. Asked of the catalog through a
/// function with the statement as its body, whose dependencies the server writes down; it is never kept.
async fn looked_at(
    client: &mut Client,
    sql: &str,
    params: &[Type],
    whether: &str,
) -> Result<Result<bool, String>, NoPlan> {
    let types: Option<Vec<String>> = params.iter().map(type_name).collect();
    let Some(types) = types else { return Ok(Err("a parameter's type has no name".to_owned())) };
    let transaction = client.transaction().await.map_err(NoPlan::Database)?;
    let make = format!(
        "CREATE FUNCTION pg_temp.recount_looks_at({}) RETURNS void LANGUAGE sql BEGIN ATOMIC {sql}\n; END",
        types.join(", ")
    );
    if let Err(error) = transaction.batch_execute(&make).await {
        return Ok(Err(message(&error)));
    }
    let ask = format!(
        "WITH RECURSIVE named AS (SELECT refclassid, refobjid FROM pg_depend \
             WHERE classid = 'pg_proc'::regclass AND objid = 'pg_temp.recount_looks_at'::regproc \
           UNION SELECT refclassid, inhrelid FROM pg_inherits JOIN named ON refclassid = 'pg_class'::regclass \
             AND refobjid = inhparent) \
         SELECT {whether}"
    );
    let answer = transaction.query_one(&ask, &[]).await.map_err(NoPlan::Database)?;
    let plain = answer.get(0);
    transaction.rollback().await.map_err(NoPlan::Database)?;
    Ok(Ok(plain))
}

/// A type as SQL writes it; none for those that only the server makes up.
pub(crate) fn type_name(kind: &Type) -> Option<String> {
    if matches!(kind.kind(), Kind::Pseudo) {
        return None;
    }
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    Some(format!("{}.{}", quoted(kind.schema()), quoted(kind.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_transaction_is_no_effect() {
        for (sql, is_effect) in [
            ("UPDATE t SET n = 1", true),
            (" -- why\n/* how */ insert INTO t VALUES (1)", true),
            ("(SELECT f(1))", true),
            ("WITH a AS (SELECT 1) DELETE FROM t", true),
            ("COMMIT", false),
            ("ROLLBACK", false),
            ("CALL f()", false),
            ("DO $$ BEGIN COMMIT; END $$", false),
            ("TRUNCATE t", false),
            ("", false),
        ] {
            assert_eq!(effect_fault(sql).is_none(), is_effect, "{sql}");
        }
    }
}
