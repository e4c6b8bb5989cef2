//! The decoder on an answer that a real broker gave, and on anything at all.

use super::*;
use proptest::prelude::*;

/// What Apache Kafka answered to a Fetch, version 4, from offset 2 of a partition: the marker of a committed
/// transaction, three records of an aborted one and its marker, and a record.
const ANSWER: &str = "\
    0000000000000001001a73746f636b2d383033382d312d31373935343533343434323733000000010000000000000000\
    00000000000800000000000000080000000100000000000000000000000000000003000001b900000000000000020000\
    00420000000002f87d4e9d003000000000000001a2095d64a4000001a2095d64a400000000000000000000ffffffff00\
    0000012000000008000000010c000000000000000000000000000003000000ac00000000027de0087d00100000000200\
    0001a2095d6497000001a2095d64970000000000000000000000000002000000035000000001447b226964223a226f32\
    222c22736b75223a2261222c227175616e74697479223a317d005000000201447b226964223a226f33222c22736b7522\
    3a2261222c227175616e74697479223a317d005000000401447b226964223a226f34222c22736b75223a2261222c2271\
    75616e74697479223a317d0000000000000000060000004200000000022c4c116d003000000000000001a2095d650300\
    0001a2095d650300000000000000000000ffffffff000000012000000008000000000c00000000000000000000000000\
    0007000000590000000002db14fd56000000000000000001a2095d6500000001a2095d65000000000000000002000000\
    000000000000014e00000001427b226964223a2235222c22736b75223a2261222c227175616e74697479223a317d00\
";

fn answer() -> Vec<u8> {
    let hex = ANSWER.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    hex.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn an_answer_of_a_real_broker_tells_markers_and_aborted_records() {
    let log = read_fetched(&answer()).unwrap();
    assert_eq!((log.end_offset(), log.aborted.len()), (Some(8), 1), "{log:#?}");
    let told = [
        (2, 3, Absence::Control),
        (3, 6, Absence::Aborted),
        (6, 7, Absence::Control),
        (7, 8, Absence::Unexplained),
    ];
    assert_eq!(log.absences(2), told, "{log:#?}");
}

#[test]
fn what_no_batch_has_or_a_batch_has_lost_is_compacted_away() {
    let batch = |base_offset, end_offset, records| RawBatch {
        base_offset,
        end_offset,
        producer_id: -1,
        is_transactional: false,
        is_control: false,
        is_abort: false,
        records,
    };
    let log = RawLog { batches: vec![batch(3, 8, 2), batch(10, 12, 2)], aborted: Vec::new() };
    let expected = [
        (1, 3, Absence::Compacted),
        (3, 8, Absence::Compacted),
        (8, 10, Absence::Compacted),
        (10, 12, Absence::Unexplained),
    ];
    assert_eq!(log.absences(1), expected);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), from in any::<u64>()) {
        drop(read_fetched(&bytes).map(|log| log.absences(from)));
        for batch in read_batches(&bytes) {
            prop_assert!(batch.base_offset < batch.end_offset);
        }
    }

    #[test]
    fn an_answer_with_bytes_changed_or_cut_never_makes_it_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        length in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = answer();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        if let Some(log) = read_fetched(&bytes) {
            let parts = log.absences(2);
            prop_assert!(parts.iter().all(|(from, to, _)| from < to));
            prop_assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0));
        }
    }
}
