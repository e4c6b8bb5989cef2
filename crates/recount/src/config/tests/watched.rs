//! Flows whose consumer is somebody else's: what a right config comes to, and its faults.

use super::*;
use recount_engine::BreakerAction;
use recount_model::Origin;

/// The right config up to its `apply`, with a mode.
fn head(mode: &str) -> String {
    let (head, _) = RIGHT.split_once("[flow.reserve-stock.apply]").unwrap();
    head.replace("id = \"event.id\"", &format!("mode = \"{mode}\"\nid = \"event.id\""))
}

const SEEN: &str = "[flow.reserve-stock.apply]
database = \"shop\"
effects = { sql = \"SELECT order_id FROM movement\", id = \"order_id\" }
";

/// Expects faults that hold each of `expected`, in order, and no others.
fn refused(text: &str, expected: &[&str]) {
    let faults = load(text).err().map(|faults| faults.faults).unwrap_or_default();
    let found = told(&faults);
    let lines: Vec<&str> = found.lines().collect();
    let matches =
        lines.len() == expected.len() && lines.iter().zip(expected).all(|(line, part)| line.contains(part));
    assert!(matches, "{text}\ngave\n{found}but must give\n{}", expected.join("\n"));
}

#[test]
fn an_observed_flow_says_where_its_effects_are_seen() {
    let config = load(&format!("{}{SEEN}", head("observe"))).unwrap();
    assert_eq!(told(&config.warnings), "");
    let flow = &config.flows[0];
    assert_eq!((flow.mode, flow.spec.origin), (FlowMode::Observe, Origin::Expected));
    assert_eq!(flow.effect.in_database(), None);
    let seen = flow.effect.watched().unwrap();
    assert_eq!((seen.database, seen.id, seen.within_ms), ("shop", Some("order_id"), 30_000));
    assert_eq!(flow.spec.breaker.action, BreakerAction::Alert);
    assert!(!flow.reasons.iter().any(|reason| reason.code.as_str() == "retries_exhausted"));
}

#[test]
fn within_can_be_set_and_the_id_left_out() {
    let text = SEEN.replace(", id = \"order_id\"", "") + "within = \"5m\"\n";
    let config = load(&format!("{}{text}", head("observe"))).unwrap();
    let seen = config.flows[0].effect.watched().unwrap();
    assert_eq!((seen.id, seen.within_ms), (None, 300_000));
}

#[test]
fn a_flow_that_reports_needs_no_apply_and_may_declare_its_reasons() {
    let config = load(&head("report")).unwrap();
    assert_eq!(told(&config.warnings), "");
    let flow = &config.flows[0];
    assert_eq!((flow.mode, flow.spec.origin), (FlowMode::Report, Origin::Reported));
    assert_eq!(flow.effect.watched(), None);
    let reasons = "[[flow.reserve-stock.apply.reason]]\nreason = \"sold_out\"\nverdict = \"skip\"\n\
         at_most = \"4% of 1000\"\nbecause = \"none left\"\n";
    for apply in [SEEN.to_owned(), "[flow.reserve-stock.apply]\nwithin = \"1m\"\n".to_owned()] {
        let config = load(&format!("{}{apply}{reasons}", head("report"))).unwrap();
        assert!(config.flows[0].reasons.iter().any(|reason| reason.code.as_str() == "sold_out"));
    }
}

#[test]
fn what_only_a_loop_of_recount_has_is_refused_beside_a_consumer() {
    let observe = head("observe");
    refused(
        &observe,
        &["5 flow.reserve-stock: nothing says where the effects of the observed consumer are seen"],
    );
    let apply = "[flow.reserve-stock.apply]\n";
    refused(
        &format!("{observe}{apply}database = \"shop\"\n"),
        &["apply.effects: this `apply` doesn't say where the consumer's `effects` are seen"],
    );
    refused(
        &format!("{observe}{apply}database = \"shop\"\neffects = \"recount_effect\"\n"),
        &["apply.effects: Recount writes no effect here, so it can't count rows of its own"],
    );
    refused(
        &format!(
            "{observe}{}",
            SEEN.replace("effects = {", "sql = \"DELETE FROM stock\"\nrows = 1\neffects = {")
        ),
        &[
            "apply.sql: `sql` stands only with mode = \"run\": here Recount applies nothing itself",
            "apply.rows: `rows` stands only",
        ],
    );
    refused(
        &format!("{observe}{}", SEEN.replace("\"shop\"", "\"shp\"")),
        &["apply.database: there is no database named \"shp\""],
    );
    refused(
        &format!("{observe}{SEEN}[flow.reserve-stock.retry]\nattempts = 3\n"),
        &["retry: `retry` stands only with mode = \"run\": there is nothing to try again"],
    );
    let breaker = observe.replace("mode =", "breaker = \"pause\"\nmode =");
    refused(&format!("{breaker}{SEEN}"), &["breaker: `breaker` stands only with mode = \"run\""]);
    let twice = SEEN.replace("[flow.reserve-stock.apply]", "[[flow.reserve-stock.apply]]");
    refused(&format!("{observe}{twice}{twice}"), &["has one `apply`: its effects are counted together"]);
    let reason = "[[flow.reserve-stock.apply.reason]]\nreason = \"sold_out\"\nverdict = \"dead-letter\"\n\
         because = \"none left\"\n";
    refused(&format!("{observe}{SEEN}{reason}"), &["apply.reason: an observed consumer gives no reasons"]);
}

#[test]
fn within_is_refused_where_the_effect_is_recounts_own() {
    check(
        "rows = 1",
        "rows = 1\nwithin = \"1m\"",
        &["apply.within: `within` stands only with mode = \"observe\""],
    );
}

#[test]
fn effects_may_be_counted_over_http_instead_of_in_a_database() {
    let http = "http://localhost:8000/movements";
    let apply =
        format!("[flow.reserve-stock.apply]\neffects = {{ http = \"{http}\", count = \"/total\" }}\n");
    let token = format!("{apply}token = \"${{COUNT_TOKEN}}\"\n");
    let config = load(&format!("{}{token}", head("observe"))).unwrap();
    assert_eq!(told(&config.warnings), "");
    let seen = config.flows[0].effect.watched().unwrap();
    let count = seen.http.unwrap();
    assert_eq!((seen.id, count.url.as_str(), count.pointer.as_str()), (None, http, "/total"));
    assert!(count.token.is_some());
    let with = |from: &str, to: &str| format!("{}{}", head("observe"), apply.replace(from, to));
    refused(&with("count = \"/total\"", "count = \"total\""), &["\"total\" is not a JSON Pointer"]);
    refused(&with("http://", "ftp://"), &["is not the address of a count of effects"]);
    refused(&with("http://", "http://me:pass@"), &["the address holds a name or password"]);
    refused(
        &with("count = \"/total\"", "sql = \"SELECT 1\", id = \"order_id\""),
        &["`sql` is asked of a database", "`id` is asked of a database"],
    );
    refused(
        &with("effects", "database = \"shop\"\neffects"),
        &["apply.database: no `database` is asked where effects are counted over `http`"],
    );
    let seen = format!("{}{SEEN}token = \"${{COUNT_TOKEN}}\"\n", head("observe"));
    refused(&seen, &["apply.token: `token` is for `effects` that are counted over `http`"]);
    let empty =
        SEEN.replace("{ sql = \"SELECT order_id FROM movement\", id = \"order_id\" }", "{ id = \"x\" }");
    refused(&format!("{}{empty}", head("observe")), &["`effects` has no `sql`"]);
    check(
        "rows = 1",
        "rows = 1\neffects = { http = \"http://localhost/count\" }",
        &["`effects` has no `sql`", "`http` counts the effects of a consumer that Recount doesn't run"],
    );
}

#[cfg(feature = "kafka")]
#[test]
fn an_observed_flow_may_name_its_consumers_group_and_writes_to_none() {
    let topic = |mode: &str, keys: &str| {
        let source = format!("source = {{ broker = \"main\", topic = \"orders\"{keys} }}");
        let head = head(mode).replace("source = { file = \"orders.ndjson\" }", &source);
        assert!(head.contains(&source), "{head}");
        format!("[broker.main]\nkafka = {{ servers = \"localhost:9092\" }}\n\n{head}{SEEN}")
    };
    let kafka = |text: &str| match &load(text).unwrap().flows[0].source {
        SourceConfig::Kafka { group, observed, .. } => (group.clone(), observed.clone()),
        other => panic!("{other:?}"),
    };
    let observed = |window_ms| Some(ObservedGroup { group: "inventory".to_owned(), window_ms });
    assert_eq!(kafka(&topic("observe", ", group = \"inventory\"")), (None, observed(600_000)));
    let window = topic("observe", ", group = \"inventory\", group_window = \"90s\"");
    assert_eq!(kafka(&window), (None, observed(90_000)));
    assert_eq!(kafka(&topic("observe", "")), (None, None));
    refused(
        &topic("report", ", group = \"inventory\""),
        &[
            "group: `group` is for \"run\" and \"observe\": a consumer that reports says in its posts how far it is",
        ],
    );
    refused(
        &topic("observe", ", group_window = \"90s\""),
        &["group_window: `group_window` says how far back the status of an observed group looks"],
    );
}
