//! NDJSON and CSV of decisions.

use crate::data::{NOON, batch, encoded, open, partition};
use recount_ledger::{DecisionFilter, ExportFormat, LedgerReader, LedgerStore, export};
use recount_model::Timestamp;

fn exported(format: ExportFormat, filter: &DecisionFilter) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&partition("0"), 1, 0..10))], Timestamp(NOON)).unwrap();
    let reader = LedgerReader::open(folder.path()).unwrap();
    let mut out = Vec::new();
    let written = export(&reader, filter, format, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let names = usize::from(format == ExportFormat::Csv);
    assert_eq!(text.lines().count(), written as usize + names);
    text
}

#[test]
fn ndjson_has_one_object_a_decision_with_the_laws_words() {
    let text = exported(ExportFormat::Ndjson, &DecisionFilter::default());
    assert_eq!(text.lines().count(), 10);
    let fourth: serde_json::Value = serde_json::from_str(text.lines().nth(3).unwrap()).unwrap();
    for (key, expected) in [
        ("version", serde_json::json!(1)),
        ("position", serde_json::json!("reserve-stock/0/3")),
        ("event_id", serde_json::json!("31198570001-1000003")),
        ("key", serde_json::json!("1000003")),
        ("verdict", serde_json::json!("dead-lettered")),
        ("reason", serde_json::json!("unknown_sku")),
        ("evidence", serde_json::json!({ "rows": 0, "offset": 3 })),
        ("measures", serde_json::json!([{ "amount": "4" }])),
        ("event_time", serde_json::json!("2017-01-01T11:53:29Z")),
        ("current", serde_json::json!(true)),
    ] {
        assert_eq!(fourth[key], expected, "{key}");
    }
}

#[test]
fn csv_quotes_what_needs_it() {
    let filter = DecisionFilter { verdict: Some("dead-lettered".into()), ..DecisionFilter::default() };
    let text = exported(ExportFormat::Csv, &filter);
    let mut lines = text.split("\r\n");
    assert!(lines.next().unwrap().starts_with("version,position,flow,source,"));
    let line = lines.next().unwrap();
    assert!(
        line.contains(r#","{""offset"":3,""rows"":0}","#)
            || line.contains(r#","{""rows"":0,""offset"":3}","#),
        "{line}"
    );
    assert!(line.starts_with("1,reserve-stock/0/3,reserve-stock,file-"), "{line}");
}
