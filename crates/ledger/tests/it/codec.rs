//! The packed block: round trips, and a decoder written from the documented layout.

use crate::data::{NOON, batch, partition};
use crate::independent;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use recount_ledger::codec::{self, CodecError};
use recount_model::batch::Attempt;
use recount_model::decision::Measure;
use recount_model::{
    Amount, BatchRecord, ConfigVersion, Corrects, Decision, Fate, FlowName, Gap, GapKind, Header, KeptBody,
    OffsetSet, Origin, Partition, PartitionId, PayloadHash, Reason, ReasonCode, SourceId, Timestamp,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[0-9]{3,12}-[0-9]{7}", ".{0,12}", "(é|ü|日){0,5}"]
}

fn code() -> impl Strategy<Value = ReasonCode> {
    "[a-z][a-z0-9_]{0,12}".prop_map(|text| ReasonCode::new(&text).unwrap())
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Applied),
        1 => (code(), text()).prop_map(|(code, text)| Fate::Skipped(Reason::new(code, text))),
        1 => (code(), text()).prop_map(|(code, text)| Fate::DeadLettered(Reason::new(code, text))),
    ]
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        any::<i32>().prop_map(|n| Amount::from_integer(i64::from(n))),
        any::<i64>().prop_map(|n| Amount::from_nanos(i128::from(n))),
        any::<i128>().prop_map(Amount::from_nanos),
    ]
}

fn measure() -> impl Strategy<Value = Measure> {
    (amount(), option::of(text()))
        .prop_map(|(amount, group)| Measure { amount, group: group.map(Into::into) })
}

fn decision() -> impl Strategy<Value = Decision> {
    let ids = (any::<u64>(), option::of(text()), option::of(text()), any::<bool>(), any::<u64>());
    let origin = prop_oneof![Just(Origin::Ran), Just(Origin::Reported), Just(Origin::Expected)];
    let corrects = option::of((any::<u64>(), any::<u64>()))
        .prop_map(|c| c.map(|(seq, replay_id)| Corrects { seq, replay_id }));
    let rest = (fate(), vec(code(), 0..3), any::<u32>(), option::of(any::<i64>()), origin, corrects);
    let more = (option::of(text()), any::<bool>(), vec(option::of(measure()), 0..3));
    (ids, rest, more).prop_map(|(ids, rest, more)| {
        let (offset, event_id, key, key_ends_id, hash) = ids;
        let (fate, flags, attempt, event_time, origin, corrects) = rest;
        let key = match (&event_id, key_ends_id) {
            (Some(id), true) => id.rsplit('-').next().map(str::to_owned),
            _ => key,
        };
        Decision {
            offset,
            event_id: event_id.map(Into::into),
            key: key.map(Into::into),
            payload_hash: PayloadHash(hash),
            fate,
            flags,
            attempt,
            event_time: event_time.map(Timestamp),
            origin,
            corrects,
            evidence: more.0.map(Into::into),
            received: more.1,
            measures: more.2,
        }
    })
}

fn kept() -> impl Strategy<Value = KeptBody> {
    let headers = vec((text(), text()), 0..3);
    let attempts = vec((any::<u32>(), any::<i64>(), text()), 0..3);
    (any::<u64>(), vec(any::<u8>(), 0..40), any::<u64>(), headers, attempts).prop_map(
        |(offset, payload, payload_bytes, headers, attempts)| KeptBody {
            offset,
            payload,
            payload_bytes,
            headers: headers.into_iter().map(|(n, v)| Header { name: n.into(), value: v.into() }).collect(),
            attempts: attempts
                .into_iter()
                .map(|(number, at, found)| Attempt { number, at: Timestamp(at), found })
                .collect(),
        },
    )
}

fn gap() -> impl Strategy<Value = Gap> {
    let kind = prop_oneof![Just(GapKind::Lost), Just(GapKind::NotAnEvent), Just(GapKind::Unrecorded)];
    (any::<u64>(), any::<u64>(), kind, text()).prop_map(|(from, to, kind, cause)| Gap {
        from,
        to,
        kind,
        cause,
    })
}

prop_compose! {
    fn record()(
        numbers in (any::<u64>(), any::<u64>(), any::<u32>(), any::<i64>(), any::<i64>(), any::<u64>()),
        source in text(),
        name in text(),
        decisions in vec(decision(), 0..40),
        consecutive in any::<bool>(),
        gaps in vec(gap(), 0..3),
        bodies in vec(kept(), 0..3),
        above in vec((0_u64..1000, 1_u64..10), 0..5),
    ) -> BatchRecord {
        let mut decided_above = OffsetSet::new();
        above.iter().for_each(|(from, length)| decided_above.insert_range(*from, from + length));
        let mut decisions = decisions;
        if consecutive {
            decisions.iter_mut().zip(17..).for_each(|(decision, offset)| decision.offset = offset);
        }
        BatchRecord {
            at: PartitionId {
                flow: FlowName::new("reserve-stock").unwrap(),
                source: SourceId::new(source),
                partition: Partition::new(name),
            },
            epoch: numbers.0,
            seq: numbers.1,
            config: ConfigVersion(numbers.2),
            taken_at: Timestamp(numbers.3),
            decided_at: Timestamp(numbers.4),
            decisions,
            gaps,
            bodies,
            next_offset: numbers.5,
            decided_above,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_encoded_decodes_to_the_same(record in record()) {
        prop_assert_eq!(&codec::decode(&codec::encode(&record)).unwrap(), &record);
    }

    #[test]
    fn a_decoder_written_from_the_documented_layout_agrees(record in record()) {
        prop_assert_eq!(&independent::decode(&codec::encode(&record)), &record);
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = codec::encode(&batch(&partition("0"), 3, 0..60));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(codec::decode(&bytes).is_err(), "byte {} bit {}", at, bit);
    }

    #[test]
    fn nothing_makes_decoding_panic(bytes in vec(any::<u8>(), 0..300)) {
        let mut framed = b"RCNT\x01\x00\x01\x00".to_vec();
        framed.extend_from_slice(&bytes);
        prop_assert!(codec::decode(&bytes).is_err() && codec::decode(&framed).is_err());
    }
}

#[test]
fn a_cut_end_and_a_newer_format_are_told_apart() {
    let bytes = codec::encode(&batch(&partition("0"), 1, 0..60));
    for length in [0, 10, 63, 64, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(codec::decode(&bytes[..length]), Err(CodecError::Damaged(_))), "{length}");
    }
    let mut newer = bytes;
    newer[4] = 9;
    assert_eq!(codec::decode(&newer), Err(CodecError::TooNew { found: 9 }));
}

#[test]
fn a_key_that_ends_its_id_takes_no_room_of_its_own() {
    let with = codec::encode(&batch(&partition("0"), 1, 0..500));
    let mut record = batch(&partition("0"), 1, 0..500);
    record.decisions.iter_mut().for_each(|d| d.key = None);
    let without = codec::encode(&record);
    assert!(with.len() - without.len() < 200, "{} and {}", with.len(), without.len());
    assert_eq!(record.taken_at.0, NOON + 1000);
}
