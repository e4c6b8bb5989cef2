//! Rows of DESIGN §12 about bytes: what they look like is named, and nothing of them is quoted.

use crate::{ORDER, compile, inventory, judged, order_with, raw, told};
use recount_checks::{CheckResult, Decode, FlowRules};
use recount_model::Timestamp;

#[test]
fn bytes_that_are_not_json_are_named() {
    let utf16: Vec<u8> = ORDER.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin1 = [b"{\"id\":\"1\",\"city\":\"K".as_slice(), &[0xf6], b"ln\"}"].concat();
    let with_mark = |mark: &[u8], rest: &[u8]| [mark, rest].concat();
    for (bytes, expected) in [
        (b"".to_vec(), "it is empty"),
        (b"   ".to_vec(), "it is blank"),
        (vec![0x1f, 0x8b, 8, 0, 0, 0], "gzip"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0], "Zstandard"),
        (vec![0, 0, 0, 0, 42, 2, 6, 0x66, 0x6f, 0x6f], "schema-registry framing"),
        (with_mark(b"Obj\x01", &[4, 22]), "Avro container"),
        (with_mark(&[0xef, 0xbb, 0xbf], ORDER.as_bytes()), "UTF-8 byte order mark"),
        (with_mark(&[0xff, 0xfe], &utf16), "UTF-16 with a byte order mark"),
        (utf16, "UTF-16 without a byte order mark"),
        (vec![0x0a, 0x03, 0x37, 0x2d, 0x31, 0x10, 0x96, 0x01], "Protobuf"),
        (b"<!DOCTYPE html><html>502</html>".to_vec(), "HTML"),
        (latin1, "another encoding than UTF-8"),
        (vec![0xc3, 0x28, 0x80, 0x80], "not UTF-8"),
        (ORDER.as_bytes()[..60].to_vec(), "it looks cut off"),
        (b"id,sku,quantity\n1,2,3".to_vec(), "CSV or plain text"),
        (b"id=1&sku=2".to_vec(), "a form"),
        (b"{'id': '1'}".to_vec(), "single quotes"),
        (b"NaN".to_vec(), "a number that JSON does not have"),
        (b"{\"quantity\": NaN}".to_vec(), "it is not JSON from line 1, column 14"),
        (b"{\"quantity\": 1e999}".to_vec(), "it is not JSON from line 1"),
        (format!("{ORDER} {{}}").into_bytes(), "it is not JSON from line 1"),
        (format!("{ORDER},").into_bytes(), "it is not JSON from line 1"),
        (b"{\"id\":\"1\",\"id\":\"2\"}".to_vec(), "the same key twice"),
        (b"{\"id\":\"\\ud800\"}".to_vec(), "it is not JSON from line 1"),
        (b"[".repeat(17), "nested deeper than the 16 levels"),
        (b"[".repeat(1900), "nested deeper than the 16 levels"),
    ] {
        let told = judged(&inventory(), &bytes);
        assert!(told.starts_with("dead-letter decode_failed: the payload can't be decoded: "), "{told}");
        assert!(told.contains(expected), "{expected}: {told}");
        let CheckResult::Refused(refused) = compile(&inventory()).check(raw(&bytes, &[])) else { panic!() };
        assert!(!refused.decoded);
        assert_eq!(refused.meta.id, None);
    }
}

#[test]
fn a_large_payload_is_refused_by_its_length_before_it_was_cut() {
    let long = format!("{ORDER}{}", " ".repeat(3000));
    assert_eq!(
        judged(&inventory(), long.as_bytes()),
        format!(
            "dead-letter payload_too_large: the payload has {} bytes; this flow takes up to 2000",
            long.len()
        )
    );
    let mut cut = raw(ORDER.as_bytes(), &[]);
    cut.payload_bytes = 5000;
    let told = told(&compile(&inventory()).check(cut));
    assert!(told.starts_with("dead-letter payload_too_large: the payload has 5000 bytes"), "{told}");
}

#[test]
fn text_and_bytes_are_events_too() {
    let rules = FlowRules { decode: Decode::Text, ..FlowRules::default() };
    let CheckResult::Passed(event) = compile(&rules).check(raw("naïve".as_bytes(), &[])) else { panic!() };
    assert_eq!(event.data, serde_json::json!("naïve"));
    assert_eq!(event.meta.id.as_deref(), Some("reserve-stock/orders.ndjson/12"));
    assert!(
        judged(&rules, &[0xff, 0xfe, 0x41]).contains("it is not UTF-8 from byte 0 on; it looks like UTF-16")
    );
    let rules = FlowRules { decode: Decode::Bytes, ..FlowRules::default() };
    let CheckResult::Passed(event) = compile(&rules).check(raw(&[0xff, 0xfe], &[])) else { panic!() };
    assert_eq!(event.data, serde_json::json!({ "bytes": 2 }));
}

#[test]
fn a_structured_cloud_event_is_opened() {
    let rules = FlowRules { id: None, key: Some("meta.headers['ce-subject']".to_owned()), ..inventory() };
    let envelope = format!(
        r#"{{"specversion":"1.0","id":"ce-9","source":"/shop","type":"order.paid","time":"2020-01-01T00:00:00Z","subject":"s1","data":{ORDER}}}"#
    );
    let CheckResult::Passed(event) = compile(&rules).check(raw(envelope.as_bytes(), &[])) else { panic!() };
    assert_eq!(event.meta.id.as_deref(), Some("ce-9"));
    assert_eq!(event.meta.event_type.as_deref(), Some("order.paid"));
    assert_eq!(event.meta.time, Some(Timestamp(1_577_836_800_000)));
    assert_eq!(event.meta.key.as_deref(), Some("s1"));
    assert_eq!(event.data["sku"], "1");
    // An `id` of the config is asked first, of the data.
    let with_id = FlowRules { key: Some("event.sku".to_owned()), ..inventory() };
    let CheckResult::Passed(event) = compile(&with_id).check(raw(envelope.as_bytes(), &[])) else { panic!() };
    assert_eq!(event.meta.id.as_deref(), Some("7-1"));
}

#[test]
fn cloud_events_that_are_not_are_refused() {
    for (envelope, expected) in [
        (
            r#"{"specversion":"0.3","id":"1","data":{}}"#,
            "dead-letter decode_failed: the payload can't be decoded: it is a CloudEvent of another version",
        ),
        (
            r#"{"specversion":"1.0","id":"1","data":{},"data_base64":""}"#,
            "dead-letter decode_failed: the payload can't be decoded: the CloudEvent has both",
        ),
        (
            r#"{"specversion":"1.0","id":"1","data_base64":"*"}"#,
            "dead-letter decode_failed: the payload can't be decoded: data_base64 of the CloudEvent is not base64",
        ),
        (
            r#"{"specversion":"1.0","id":"1","data_base64":"H4sIAA=="}"#,
            "dead-letter decode_failed: the payload can't be decoded: it is not JSON from line 1",
        ),
        (
            r#"{"specversion":"1.0","type":"t","data":{}}"#,
            "dead-letter no_id: the event has no id: the CloudEvent has no id",
        ),
        (r#"{"specversion":"1.0","id":"","data":{}}"#, "dead-letter no_id: the event has no id: it is empty"),
        (r#"{"specversion":"1.0","id":"1"}"#, "passed"),
        (
            r#"{"specversion":1,"id":"1"}"#,
            "dead-letter no_id: the event has no id: it is not a CloudEvent, and the flow does not say where its id is",
        ),
        (r#"{"specversion":"1.0","id":"1","data_base64":"eyJhIjoxfQ=="}"#, "passed"),
    ] {
        let told = judged(&FlowRules::default(), envelope.as_bytes());
        assert!(told.starts_with(expected), "{envelope}: {told}");
    }
}

#[test]
fn a_binary_cloud_event_is_read_from_its_headers() {
    for prefix in ["ce-", "ce_", "Ce-"] {
        let names: Vec<String> = ["specversion", "id", "type", "time"].map(|n| format!("{prefix}{n}")).into();
        let values = ["1.0", "a%20b%C3%BC", "order.placed", "2020-01-01T00:00:00Z"];
        let headers: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
        let rules = FlowRules { id: None, ..inventory() };
        let CheckResult::Passed(event) = compile(&rules).check(raw(ORDER.as_bytes(), &headers)) else {
            panic!()
        };
        assert_eq!(event.meta.id.as_deref(), Some("a bü"));
        assert_eq!(event.meta.time, Some(Timestamp(1_577_836_800_000)));
        assert_eq!(event.data["sku"], "1");
    }
    let old = [("ce-specversion", "0.2"), ("ce-id", "1")];
    let told = told(&compile(&inventory()).check(raw(ORDER.as_bytes(), &old)));
    assert!(
        told.starts_with("dead-letter decode_failed: the payload can't be decoded: it is a CloudEvent of"),
        "{told}"
    );
}

#[test]
fn times_are_text_or_milliseconds_and_never_an_error() {
    for (time, expected) in [
        (Some(r#""2017-01-01T11:53:26Z""#), Some(1_483_271_606_000)),
        (Some(r#""2017-01-01T12:53:26.5+01:00""#), Some(1_483_271_606_500)),
        (Some("1483271606000"), Some(1_483_271_606_000)),
        (Some("1483271606000.0"), Some(1_483_271_606_000)),
        (Some(r#""yesterday""#), None),
        (Some(r#""2017-13-01T00:00:00Z""#), None),
        (Some("9223372036854775807"), None),
        (Some("1e300"), None),
        (Some("18446744073709551616"), None),
        (Some("null"), None),
        (Some("[]"), None),
        (None, None),
    ] {
        let payload = order_with("placed_at", time);
        let CheckResult::Passed(event) = compile(&inventory()).check(raw(payload.as_bytes(), &[])) else {
            panic!("{time:?}")
        };
        assert_eq!(event.meta.time, expected.map(Timestamp), "{time:?}");
    }
}

#[test]
fn the_hash_is_of_id_and_payload() {
    let result = compile(&inventory()).check(raw(ORDER.as_bytes(), &[]));
    let mut bytes = b"7-1\0".to_vec();
    bytes.extend_from_slice(ORDER.as_bytes());
    let expected = u64::from_be_bytes(blake3::hash(&bytes).as_bytes()[..8].try_into().unwrap());
    assert_eq!(result.payload_hash().0, expected);
    let broken = compile(&inventory()).check(raw(b"{", &[]));
    let expected = u64::from_be_bytes(blake3::hash(b"\0{").as_bytes()[..8].try_into().unwrap());
    assert_eq!(broken.payload_hash().0, expected);
}
