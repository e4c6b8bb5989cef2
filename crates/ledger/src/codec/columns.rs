//! Packing the columns of decisions. The layout stands in the [module above](super).

use super::wire::{Packer, zigzag};
use recount_model::decision::Measure;
use recount_model::{Decision, Fate, Origin, ReasonCode};
use std::collections::HashMap;

const NANOS_A_CENT: i128 = 10_000_000;
const NANOS_A_WHOLE: i128 = 1_000_000_000;

/// Writes all columns. `ranks`: one a decision, or the index where there are none.
pub(super) fn put(out: &mut Packer, decisions: &[&Decision], ranks: Option<&[u64]>) {
    put_ids(out, decisions);
    put_keys(out, decisions);
    put_offsets(out, decisions, ranks);
    put_fates(out, decisions);
    put_flags(out, decisions);
    out.runs(decisions.iter().map(|d| u64::from(d.attempt)));
    out.runs(decisions.iter().map(|d| match d.origin {
        Origin::Ran => 0,
        Origin::Reported => 1,
        Origin::Expected => 2,
    }));
    out.runs(decisions.iter().map(|d| u64::from(d.received)));
    put_sparse(
        out,
        decisions,
        |d| d.corrects.as_ref(),
        |out, corrects| {
            out.varint(corrects.seq);
            out.varint(corrects.replay_id);
        },
    );
    put_sparse(out, decisions, |d| d.evidence.as_ref(), |out, evidence| out.text(evidence));
    put_event_times(out, decisions);
    put_measures(out, decisions);
}

fn put_ids(out: &mut Packer, decisions: &[&Decision]) {
    out.runs(decisions.iter().map(|d| u64::from(d.event_id.is_some())));
    let ids: Vec<&str> = decisions.iter().filter_map(|d| d.event_id.as_deref()).collect();
    put_texts(out, &ids);
}

fn key_form(decision: &Decision) -> u64 {
    match (&decision.key, &decision.event_id) {
        (None, _) => 0,
        (Some(key), Some(id)) if id.ends_with(&**key) => 2,
        (Some(_), _) => 1,
    }
}

fn put_keys(out: &mut Packer, decisions: &[&Decision]) {
    let forms: Vec<u64> = decisions.iter().map(|d| key_form(d)).collect();
    out.runs(forms.iter().copied());
    let of_form = |form: u64| {
        decisions.iter().zip(&forms).filter(move |(_, f)| **f == form).filter_map(|(d, _)| d.key.as_deref())
    };
    put_texts(out, &of_form(1).collect::<Vec<_>>());
    for key in of_form(2) {
        out.varint(key.len() as u64);
    }
}

fn put_texts(out: &mut Packer, texts: &[&str]) {
    let mut shared = Vec::with_capacity(texts.len());
    let mut before: &[u8] = b"";
    for text in texts {
        let bytes = text.as_bytes();
        let mut same = before.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        while !text.is_char_boundary(same) {
            same -= 1;
        }
        shared.push(same);
        before = bytes;
    }
    shared.iter().for_each(|same| out.varint(*same as u64));
    texts.iter().zip(&shared).for_each(|(text, same)| out.varint((text.len() - same) as u64));
    texts.iter().zip(&shared).for_each(|(text, same)| out.0.extend_from_slice(&text.as_bytes()[*same..]));
}

fn put_offsets(out: &mut Packer, decisions: &[&Decision], ranks: Option<&[u64]>) {
    let mut before = 0_u64;
    out.runs(decisions.iter().enumerate().map(|(i, decision)| {
        let rank = ranks.map_or(i as u64, |ranks| ranks[i]);
        let distance = decision.offset.wrapping_sub(rank);
        let step = zigzag(distance.wrapping_sub(before) as i64);
        before = distance;
        step
    }));
}

fn put_fates(out: &mut Packer, decisions: &[&Decision]) {
    let mut ordinals: HashMap<(u8, &str, &str), u64> = HashMap::new();
    let mut entries = Vec::new();
    let mut of_each = Vec::with_capacity(decisions.len());
    for decision in decisions {
        let (verdict, reason) = match &decision.fate {
            Fate::Applied => {
                of_each.push(0);
                continue;
            }
            Fate::Skipped(reason) => (1, reason),
            Fate::DeadLettered(reason) => (2, reason),
        };
        let entry = (verdict, reason.code.as_str(), reason.sentence.as_str());
        of_each.push(*ordinals.entry(entry).or_insert_with(|| {
            entries.push(entry);
            entries.len() as u64
        }));
    }
    out.varint(entries.len() as u64);
    for (verdict, code, sentence) in entries {
        out.byte(verdict);
        out.text(code);
        out.text(sentence);
    }
    out.runs(of_each.into_iter());
}

fn put_flags(out: &mut Packer, decisions: &[&Decision]) {
    let mut ordinals: HashMap<&[ReasonCode], u64> = HashMap::new();
    let mut entries: Vec<&[ReasonCode]> = Vec::new();
    let mut of_each = Vec::with_capacity(decisions.len());
    for decision in decisions {
        let flags = decision.flags.as_slice();
        if flags.is_empty() {
            of_each.push(0);
            continue;
        }
        of_each.push(*ordinals.entry(flags).or_insert_with(|| {
            entries.push(flags);
            entries.len() as u64
        }));
    }
    out.varint(entries.len() as u64);
    for flags in entries {
        out.varint(flags.len() as u64);
        flags.iter().for_each(|code| out.text(code.as_str()));
    }
    out.runs(of_each.into_iter());
}

fn put_sparse<'d, T>(
    out: &mut Packer,
    decisions: &[&'d Decision],
    get: impl Fn(&'d Decision) -> Option<T>,
    put_one: impl Fn(&mut Packer, T),
) {
    let present: Vec<(usize, T)> =
        decisions.iter().enumerate().filter_map(|(i, d)| get(d).map(|value| (i, value))).collect();
    out.varint(present.len() as u64);
    let mut before = 0;
    for (index, value) in present {
        out.varint((index - before) as u64);
        put_one(out, value);
        before = index;
    }
}

fn put_event_times(out: &mut Packer, decisions: &[&Decision]) {
    out.runs(decisions.iter().map(|d| u64::from(d.event_time.is_some())));
    let times = || decisions.iter().filter_map(|d| d.event_time.map(|t| t.0));
    let unit = if times().all(|t| t % 1000 == 0) { 1000 } else { 1 };
    out.varint(unit as u64);
    let mut before = 0_i64;
    for time in times() {
        out.signed((time / unit).wrapping_sub(before));
        before = time / unit;
    }
}

fn put_measures(out: &mut Packer, decisions: &[&Decision]) {
    out.runs(decisions.iter().map(|d| d.measures.len() as u64));
    let most = decisions.iter().map(|d| d.measures.len()).max().unwrap_or(0);
    for j in 0..most {
        let column: Vec<Option<&Measure>> =
            decisions.iter().filter_map(|d| d.measures.get(j)).map(Option::as_ref).collect();
        out.runs(column.iter().map(|measure| match measure {
            None => 0,
            Some(Measure { group: None, .. }) => 1,
            Some(Measure { group: Some(_), .. }) => 2,
        }));
        let nanos: Vec<i128> = column.iter().flatten().map(|m| m.amount.nanos()).collect();
        let unit = [NANOS_A_WHOLE, NANOS_A_CENT]
            .into_iter()
            .find(|unit| nanos.iter().all(|n| is_multiple(*n, *unit)))
            .unwrap_or(1);
        out.varint(unit as u64);
        for amount in &nanos {
            let units = divide(*amount, unit);
            out.wide_varint(((units << 1) ^ (units >> 127)) as u128);
        }
        column.iter().flatten().filter_map(|m| m.group.as_deref()).for_each(|group| out.text(group));
    }
}

/// 128-bit division is slow, and nearly every amount fits into 64 bits.
fn divide(amount: i128, unit: i128) -> i128 {
    match (i64::try_from(amount), i64::try_from(unit)) {
        (Ok(amount), Ok(unit)) => i128::from(amount / unit),
        _ => amount / unit,
    }
}

fn is_multiple(amount: i128, unit: i128) -> bool {
    divide(amount, unit) * unit == amount
}
