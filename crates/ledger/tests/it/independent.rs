//! A decoder of batches written from the layout in the documentation of `recount_ledger::codec`, without
//! any of its code. It trusts its input: a difference fails the test that uses it.

use recount_model::batch::Attempt;
use recount_model::decision::Measure;
use recount_model::{
    Amount, BatchRecord, ConfigVersion, Corrects, Decision, Fate, FlowName, Gap, GapKind, Header, KeptBody,
    OffsetSet, Origin, Partition, PartitionId, PayloadHash, Reason, ReasonCode, SourceId, Timestamp,
};

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn wide(&mut self) -> u128 {
        let mut value = 0;
        for nth in 0.. {
            let byte = self.take(1)[0];
            value |= u128::from(byte & 127) << (7 * nth);
            if byte < 128 {
                break;
            }
        }
        value
    }

    fn varint(&mut self) -> u64 {
        self.wide().try_into().unwrap()
    }

    fn signed(&mut self) -> i64 {
        let coded = self.varint();
        (coded / 2) as i64 ^ -((coded % 2) as i64)
    }

    fn text(&mut self) -> String {
        let length = self.varint() as usize;
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    fn runs(&mut self, total: usize) -> Vec<u64> {
        let mut values = Vec::new();
        while values.len() < total {
            let (value, length) = (self.varint(), self.varint());
            values.extend(std::iter::repeat_n(value, length as usize));
        }
        assert_eq!(values.len(), total);
        values
    }

    fn text_column(&mut self, total: usize) -> Vec<String> {
        let shared: Vec<u64> = (0..total).map(|_| self.varint()).collect();
        let more: Vec<u64> = (0..total).map(|_| self.varint()).collect();
        let mut before = Vec::new();
        let mut texts = Vec::new();
        for (shared, more) in shared.into_iter().zip(more) {
            before.truncate(shared as usize);
            before.extend_from_slice(self.take(more as usize));
            texts.push(String::from_utf8(before.clone()).unwrap());
        }
        texts
    }

    fn sparse<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<(usize, T)> {
        let mut index = 0;
        let mut entries = Vec::new();
        for _ in 0..self.varint() {
            index += self.varint() as usize;
            entries.push((index, one(self)));
        }
        entries
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn blake3_of(parts: &[&[u8]]) -> Vec<u8> {
    blake3::hash(&parts.concat()).as_bytes()[..8].to_vec()
}

pub fn decode(bytes: &[u8]) -> BatchRecord {
    assert_eq!(&bytes[..8], b"RCNT\x01\x00\x01\x00");
    let (core_packed, core_bytes) = (number(bytes, 8) as usize, number(bytes, 16) as usize);
    let (total, bodies_packed, bodies_bytes) =
        (number(bytes, 24) as usize, number(bytes, 32) as usize, number(bytes, 40) as usize);
    let (packed, rest) = bytes[64..].split_at(core_packed);
    let (hashes, bodies) = rest.split_at(8 * total);
    assert_eq!(bodies.len(), bodies_packed);
    assert_eq!(bytes[48..56], blake3_of(&[&bytes[..48], packed, hashes]));
    assert_eq!(bytes[56..64], blake3_of(&[bodies]));
    let core = zstd::decode_all(packed).unwrap();
    assert_eq!(core.len(), core_bytes);
    let mut input = Input(&core);
    let mut record = head(&mut input);
    record.decisions = decisions(&mut input, total, hashes);
    assert!(input.0.is_empty());
    if bodies_packed > 0 {
        let raw = zstd::decode_all(bodies).unwrap();
        assert_eq!(raw.len(), bodies_bytes);
        record.bodies = kept(&mut Input(&raw));
    }
    record
}

fn head(input: &mut Input<'_>) -> BatchRecord {
    let flow = FlowName::new(&input.text()).unwrap();
    let at =
        PartitionId { flow, source: SourceId::new(input.text()), partition: Partition::new(input.text()) };
    let (epoch, seq, config) = (input.varint(), input.varint(), input.varint() as u32);
    let taken_at = input.signed();
    let decided_at = taken_at.wrapping_add(input.signed());
    let next_offset = input.varint();
    let mut decided_above = OffsetSet::new();
    let mut end = 0;
    for _ in 0..input.varint() {
        let from = end + input.varint();
        end = from + input.varint();
        decided_above.insert_range(from, end);
    }
    let mut gaps = Vec::new();
    for _ in 0..input.varint() {
        let (from, to) = (input.varint(), input.varint());
        let kind = [GapKind::Lost, GapKind::NotAnEvent, GapKind::Unrecorded][input.take(1)[0] as usize];
        gaps.push(Gap { from, to, kind, cause: input.text() });
    }
    BatchRecord {
        at,
        epoch,
        seq,
        config: ConfigVersion(config),
        taken_at: Timestamp(taken_at),
        decided_at: Timestamp(decided_at),
        decisions: Vec::new(),
        gaps,
        bodies: Vec::new(),
        next_offset,
        decided_above,
    }
}

fn ids_and_keys(input: &mut Input<'_>, total: usize) -> (Vec<Option<String>>, Vec<Option<String>>) {
    let present = input.runs(total);
    let mut texts = input.text_column(present.iter().filter(|p| **p == 1).count()).into_iter();
    let ids: Vec<Option<String>> =
        present.iter().map(|p| if *p == 1 { texts.next() } else { None }).collect();
    let forms = input.runs(total);
    let mut texts = input.text_column(forms.iter().filter(|f| **f == 1).count()).into_iter();
    let mut keys = Vec::new();
    for (form, id) in forms.iter().zip(&ids) {
        keys.push(match form {
            0 => None,
            1 => texts.next(),
            _ => {
                let id = id.as_ref().unwrap();
                Some(id[id.len() - input.varint() as usize..].to_owned())
            }
        });
    }
    (ids, keys)
}

fn decisions(input: &mut Input<'_>, total: usize, hashes: &[u8]) -> Vec<Decision> {
    let (ids, keys) = ids_and_keys(input, total);
    let steps = input.runs(total);
    let mut fates = vec![Fate::Applied];
    for _ in 0..input.varint() {
        let verdict = input.take(1)[0];
        let reason = Reason::new(ReasonCode::new(&input.text()).unwrap(), input.text());
        fates.push(if verdict == 1 { Fate::Skipped(reason) } else { Fate::DeadLettered(reason) });
    }
    let fate_of = input.runs(total);
    let mut flags = vec![Vec::new()];
    for _ in 0..input.varint() {
        let count = input.varint();
        flags.push((0..count).map(|_| ReasonCode::new(&input.text()).unwrap()).collect());
    }
    let flags_of = input.runs(total);
    let (attempts, origins, received) = (input.runs(total), input.runs(total), input.runs(total));
    let corrects = input.sparse(|i| Corrects { seq: i.varint(), replay_id: i.varint() });
    let evidence = input.sparse(Input::text);
    let times = event_times(input, total);
    let measures = measures(input, total);
    let mut distance = 0_u64;
    (0..total)
        .map(|i| {
            distance = distance.wrapping_add((steps[i] / 2) ^ (steps[i] % 2).wrapping_neg());
            Decision {
                offset: distance.wrapping_add(i as u64),
                event_id: ids[i].clone().map(Into::into),
                key: keys[i].clone().map(Into::into),
                payload_hash: PayloadHash(number(hashes, 8 * i)),
                fate: fates[fate_of[i] as usize].clone(),
                flags: flags[flags_of[i] as usize].clone(),
                attempt: attempts[i] as u32,
                event_time: times[i],
                origin: [Origin::Ran, Origin::Reported, Origin::Expected][origins[i] as usize],
                corrects: corrects.iter().find(|c| c.0 == i).map(|c| c.1),
                evidence: evidence.iter().find(|e| e.0 == i).map(|e| e.1.as_str().into()),
                received: received[i] == 1,
                measures: measures[i].clone(),
            }
        })
        .collect()
}

fn event_times(input: &mut Input<'_>, total: usize) -> Vec<Option<Timestamp>> {
    let present = input.runs(total);
    let unit = input.varint() as i64;
    let mut before = 0_i64;
    let mut time = |present: &u64| {
        (*present == 1).then(|| {
            before = before.wrapping_add(input.signed());
            Timestamp(before * unit)
        })
    };
    present.iter().map(&mut time).collect()
}

fn measures(input: &mut Input<'_>, total: usize) -> Vec<Vec<Option<Measure>>> {
    let lengths = input.runs(total);
    let mut measures = vec![Vec::new(); total];
    for j in 0..lengths.iter().copied().max().unwrap_or(0) {
        let holders: Vec<usize> = (0..total).filter(|i| lengths[*i] > j).collect();
        let forms = input.runs(holders.len());
        let unit = i128::from(input.varint());
        let amounts: Vec<i128> = forms
            .iter()
            .filter(|f| **f > 0)
            .map(|_| {
                let coded = input.wide();
                ((coded / 2) as i128 ^ -((coded % 2) as i128)) * unit
            })
            .collect();
        let mut amounts = amounts.into_iter();
        for (holder, form) in holders.into_iter().zip(forms) {
            measures[holder].push((form > 0).then(|| Measure {
                amount: Amount::from_nanos(amounts.next().unwrap()),
                group: (form == 2).then(|| input.text().into()),
            }));
        }
    }
    measures
}

fn kept(input: &mut Input<'_>) -> Vec<KeptBody> {
    let mut bodies = Vec::new();
    for _ in 0..input.varint() {
        let offset = input.varint();
        let length = input.varint() as usize;
        let payload = input.take(length).to_vec();
        let payload_bytes = input.varint();
        let headers = (0..input.varint())
            .map(|_| Header { name: input.text().into(), value: input.text().into() })
            .collect();
        let attempts = (0..input.varint())
            .map(|_| Attempt {
                number: input.varint() as u32,
                at: Timestamp(input.signed()),
                found: input.text(),
            })
            .collect();
        bodies.push(KeptBody { offset, payload, payload_bytes, headers, attempts });
    }
    assert!(input.0.is_empty());
    bodies
}
