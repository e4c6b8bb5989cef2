//! A batch inside the server: the flow's `apply` as a temporary function over arrays.
//!
//! The function runs each event's statements in their order, with the event's values as variables, counts
//! rows, asks `otherwise`, and gives back a row for every event that was not simply applied. There are two:
//! the *plain* one lets an event that changed nothing pass on and gives up at anything else (an error, or
//! rows too many), and then the *guarded* one does the batch again with a subtransaction an event. Both mean
//! exactly what [`one_by_one`](super::one_by_one) does with a round trip a statement.

use super::plan::{OtherwisePlan, Plan, Prepared, RoutePlan, Truth, type_name};
use super::text::{Piece, pieces};
use recount_engine::OtherwiseVerdict;
use std::fmt::Write as _;

/// The plain function gives up by this SQLSTATE: what was changed must be undone for one event alone.
pub(crate) const REDO: &str = "RC001";
/// Inside the guarded function: an event's rows are not as declared.
const NOT_AS_DECLARED: &str = "RC002";

/// What the `code` of a row says; from 0 on it is the index of an `otherwise`.
pub(crate) mod code {
    pub(crate) const BEHIND: i32 = -1;
    pub(crate) const STATEMENT_FAILED: i32 = -2;
    pub(crate) const ROWS_UNEXPECTED: i32 = -3;
    pub(crate) const WHEN_FAILED: i32 = -4;
}

/// The name of one of the two, in the session's own schema.
pub(crate) fn name(guarded: bool) -> &'static str {
    if guarded { "pg_temp.recount_guarded" } else { "pg_temp.recount_plain" }
}

/// How many values the event with the most has.
pub(crate) fn params_max(plan: &Plan) -> usize {
    plan.routes.iter().map(|route| route.params.len()).max().unwrap_or(0)
}

/// The call of one of the two: routes, keys that may be held, and one array a place of the params.
pub(crate) fn call(plan: &Plan, guarded: bool) -> String {
    let arrays = (0..params_max(plan)).map(|n| format!(", ${}::text[]", n + 3));
    format!(
        "SELECT place, code, statement, changed, state, said FROM {}($1::int4[], $2::text[]{})",
        name(guarded),
        arrays.collect::<String>()
    )
}

/// The SQL that makes one of the two; none where a type or text of the flow does not allow it.
pub(crate) fn make(plan: &Plan, guarded: bool) -> Option<String> {
    // They stand in the text as they are.
    if !plan.states.iter().all(|state| state.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        return None;
    }
    let mut writer = Writer { declare: String::new(), body: String::new(), guarded };
    for (index, route) in plan.routes.iter().enumerate() {
        writer.route(index, route)?;
    }
    let arrays: Vec<String> = (0..params_max(plan)).map(|n| format!("recount_p{n}")).collect();
    let list = |form: &dyn Fn(&String) -> String| arrays.iter().map(form).collect::<String>();
    let text = format!(
        "CREATE OR REPLACE FUNCTION {name}(recount_routes int4[], recount_keys text[]{args}) \
         RETURNS TABLE (place int8, code int4, statement int4, changed int8, state text, said text) \
         LANGUAGE plpgsql AS $recount_function$\n#variable_conflict use_column\nDECLARE\n\
         recount_row record; recount_rows int8; recount_sum int8; recount_at int4; recount_code int4;\n\
         recount_hit boolean; recount_state text; recount_said text; recount_held text[] := '{{}}';\n{declare}BEGIN\n\
         FOR recount_row IN SELECT * FROM unnest(recount_routes, recount_keys{names}) \
         WITH ORDINALITY AS recount_u(recount_route, recount_key{columns}, recount_place) LOOP\n\
         place := recount_row.recount_place; statement := NULL; changed := NULL; state := NULL; said := NULL;\n\
         recount_code := NULL; recount_rows := NULL;\n\
         IF recount_row.recount_key = ANY (recount_held) THEN code := {behind}; RETURN NEXT; CONTINUE; END IF;\n\
         {body}END LOOP;\nEND $recount_function$",
        name = name(guarded),
        args = list(&|name| format!(", {name} text[]")),
        names = list(&|name| format!(", {name}")),
        columns = list(&|name| format!(", {name}_value")),
        declare = writer.declare,
        body = writer.body,
        behind = code::BEHIND,
    );
    // The dollar quote around it all must not end early.
    (text.matches("$recount_function$").count() == 2).then_some(text)
}

struct Writer {
    declare: String,
    body: String,
    guarded: bool,
}

impl Writer {
    fn route(&mut self, index: usize, route: &RoutePlan) -> Option<()> {
        self.line(&format!("IF recount_row.recount_route = {index} THEN"));
        self.line("recount_sum := 0; recount_at := NULL;");
        self.line("<<recount_event>> BEGIN");
        for (at, statement) in route.statements.iter().enumerate() {
            let prefix = format!("recount_v_{index}_{at}");
            self.line(&format!("recount_at := {at};"));
            let text = self.bound(&statement.text, &statement.prepared, &prefix)?;
            self.line(&format!("{text}\n;"));
            self.line("GET DIAGNOSTICS recount_rows = ROW_COUNT;");
            self.line("recount_sum := recount_sum + recount_rows;");
            let (min, max) = (statement.rows.min, i64::try_from(statement.rows.max).unwrap_or(i64::MAX));
            let give_up = if self.guarded {
                format!("RAISE SQLSTATE '{NOT_AS_DECLARED}';")
            } else {
                format!("IF recount_sum <> 0 THEN RAISE SQLSTATE '{REDO}'; END IF; EXIT recount_event;")
            };
            self.line(&format!("IF recount_rows < {min} OR recount_rows > {max} THEN {give_up} END IF;"));
        }
        self.line("CONTINUE;");
        self.caught(route, &format!("code := {}; statement := recount_at;", code::STATEMENT_FAILED), true);
        self.line("END recount_event;");
        self.otherwise(index, route)?;
        self.line("END IF;");
        Some(())
    }

    /// Which `otherwise` holds: asked in order, once the event has left nothing.
    fn otherwise(&mut self, index: usize, route: &RoutePlan) -> Option<()> {
        self.line("statement := recount_at; changed := recount_rows;");
        self.line("<<recount_otherwise>> BEGIN");
        let of_rows = route.otherwise.iter().enumerate().filter(|(_, otherwise)| otherwise.rule.is_of_rows());
        for (at, otherwise) in of_rows {
            self.line(&format!("recount_at := {at};"));
            self.when(&format!("recount_w_{index}_{at}"), otherwise)?;
            self.line(&format!("IF recount_hit THEN recount_code := {at}; EXIT recount_otherwise; END IF;"));
        }
        self.caught(route, &format!("code := {}; statement := recount_at;", code::WHEN_FAILED), false);
        self.line("END recount_otherwise;");
        self.line(&format!("code := coalesce(recount_code, {});", code::ROWS_UNEXPECTED));
        let retries = route.otherwise.iter().enumerate();
        let retries = retries.filter(|(_, o)| o.rule.verdict == OtherwiseVerdict::Retry);
        let retries: Vec<String> = retries.map(|(at, _)| at.to_string()).collect();
        if !retries.is_empty() {
            self.line(&format!(
                "IF recount_code IN ({}) AND recount_row.recount_key IS NOT NULL THEN \
                 recount_held := array_append(recount_held, recount_row.recount_key); END IF;",
                retries.join(", ")
            ));
        }
        self.line("RETURN NEXT; CONTINUE;");
        Some(())
    }

    fn when(&mut self, prefix: &str, otherwise: &OtherwisePlan) -> Option<()> {
        let Some(when) = &otherwise.when else {
            self.line("recount_hit := true;");
            return Some(());
        };
        let text = self.bound(&when.text, &when.prepared, prefix)?;
        let columns = when.prepared.statement.columns().len();
        let columns: Vec<String> = (0..columns).map(|n| format!("recount_c{n}")).collect();
        let truth = match when.truth {
            Truth::Boolean => "recount_c0",
            Truth::Number => "recount_c0 <> 0",
        };
        self.line(&format!(
            "recount_hit := (SELECT {truth} FROM ({text}\n) AS recount_q({}) LIMIT 1);",
            columns.join(", ")
        ));
        Some(())
    }

    /// In the guarded function: errors that are the event's fault; all others go on to whoever called.
    fn caught(&mut self, route: &RoutePlan, told: &str, in_statements: bool) {
        if !self.guarded {
            return;
        }
        // What asks for the batch again does so whatever was declared.
        let declared = route.states.iter().map(|state| {
            format!(
                " OR (recount_state LIKE '{state}%' AND recount_state NOT IN ('40001', '40P01', '55P03'))"
            )
        });
        let declared: String = declared.collect();
        let holds = if in_statements { held_by_state(route) } else { String::new() };
        self.line("EXCEPTION WHEN OTHERS THEN");
        self.line("GET STACKED DIAGNOSTICS recount_state = RETURNED_SQLSTATE, recount_said = MESSAGE_TEXT;");
        let as_declared =
            if in_statements { format!("recount_state <> '{NOT_AS_DECLARED}'") } else { "true".to_owned() };
        self.line(&format!(
            "IF {as_declared} THEN IF recount_state LIKE '22%' OR recount_state LIKE '23%' OR recount_state = \
             'P0001'{declared} THEN {told} {holds}changed := NULL; state := recount_state; said := recount_said; RETURN NEXT; \
             CONTINUE; ELSE RAISE; END IF; END IF;"
        ));
    }

    /// The statement with variables in place of parameters, each filled with the event's value as the type
    /// that the statement wants.
    fn bound(&mut self, sql: &str, prepared: &Prepared, prefix: &str) -> Option<String> {
        for (number, (&bind, kind)) in prepared.binds.iter().zip(prepared.statement.params()).enumerate() {
            let kind = type_name(kind)?;
            writeln!(self.declare, "{prefix}_{number} {kind};").ok()?;
            // An assignment, and no cast: a cast cuts a text that is too long for a domain's limit in silence.
            self.line(&format!("{prefix}_{number} := recount_row.recount_p{bind}_value;"));
        }
        let mut text = String::with_capacity(sql.len());
        let mut number = 0;
        for piece in pieces(sql).ok()? {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Param(_) => {
                    text.push_str(&format!("{prefix}_{number}"));
                    number += 1;
                }
            }
        }
        Some(text)
    }

    fn line(&mut self, line: &str) {
        self.body.push_str(line);
        self.body.push('\n');
    }
}

/// Holds the key where the first `otherwise` that names the state asks for another attempt.
fn held_by_state(route: &RoutePlan) -> String {
    let rules = route.otherwise.iter().map(|otherwise| &otherwise.rule);
    if !rules.clone().any(|rule| !rule.is_of_rows() && rule.verdict == OtherwiseVerdict::Retry) {
        return String::new();
    }
    let mut cases = String::new();
    for rule in rules {
        let retries = rule.verdict == OtherwiseVerdict::Retry;
        for state in &rule.sqlstates {
            cases.push_str(&format!("WHEN recount_state LIKE '{state}%' THEN {retries} "));
        }
    }
    format!(
        "IF (CASE {cases}ELSE false END) AND recount_row.recount_key IS NOT NULL THEN \
         recount_held := array_append(recount_held, recount_row.recount_key); END IF; "
    )
}
