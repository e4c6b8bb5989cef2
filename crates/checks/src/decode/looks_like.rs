//! What bytes look like that are not what a flow decodes.

/// Names the likeliest form of bytes that are not JSON (or not UTF-8 text). Never quotes them.
pub(crate) fn looks_like(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "it is empty",
        [0x1f, 0x8b, ..] => "it looks like gzip; the producer compresses the payload itself",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it looks like Zstandard; the producer compresses the payload itself",
        [b'O', b'b', b'j', 1, ..] => "it looks like an Avro container file",
        [b'P', b'A', b'R', b'1', ..] => "it looks like a Parquet file",
        [b'P', b'K', 3, 4, ..] => "it looks like a zip archive",
        [0xef, 0xbb, 0xbf, ..] => "it starts with a UTF-8 byte order mark; the producer must leave that out",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it looks like UTF-16 with a byte order mark; JSON is UTF-8",
        [0, _, _, _, _, rest @ ..] if is_registry_framed(bytes, rest) => {
            "it looks like Confluent schema-registry framing (a zero byte and a schema id of 4 bytes): Avro, Protobuf \
             or JSON Schema; this version does not decode it"
        }
        _ if is_utf16(bytes) => "it looks like UTF-16 without a byte order mark; JSON is UTF-8",
        _ => looks_like_text(bytes),
    }
}

/// Schema ids are small in practice; a payload follows.
fn is_registry_framed(bytes: &[u8], rest: &[u8]) -> bool {
    !rest.is_empty() && bytes[1] == 0 && !is_utf16(bytes)
}

/// ASCII in two-byte units: every other byte is zero.
fn is_utf16(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(64)];
    let zeros = |first: usize| sample.iter().skip(first).step_by(2).filter(|b| **b == 0).count();
    let half = sample.len() / 2;
    half >= 2 && ((zeros(0) == half && zeros(1) == 0) || (zeros(1) == half && zeros(0) == 0))
}

fn looks_like_text(bytes: &[u8]) -> &'static str {
    let trimmed = bytes.trim_ascii();
    let is_utf8 = std::str::from_utf8(bytes).is_ok();
    if trimmed.is_empty() {
        return "it is blank";
    }
    if trimmed[0] == b'<' {
        return "it looks like HTML or XML, perhaps an error page";
    }
    if !is_utf8 && is_protobuf(bytes) {
        return "it looks like a binary message such as Protobuf or Avro without a registry";
    }
    if !is_utf8 {
        return match trimmed[0] {
            b'{' | b'[' | b'"' => "it looks like JSON in another encoding than UTF-8, such as Latin-1",
            _ => "it is not UTF-8; it looks binary, or like text in another encoding",
        };
    }
    if is_protobuf(bytes) && bytes.iter().any(|b| *b < 0x20 && !b.is_ascii_whitespace()) {
        return "it looks like a binary message such as Protobuf or Avro without a registry";
    }
    if trimmed.starts_with(b"{'") {
        return "it looks like a Python or JavaScript literal with single quotes, not JSON";
    }
    match trimmed {
        b"NaN" | b"Infinity" | b"-Infinity" => "it is a number that JSON does not have",
        _ if trimmed[0] == b'{' || trimmed[0] == b'[' => "it starts like JSON",
        _ if trimmed.contains(&b'=') && trimmed.contains(&b'&') => "it looks like a form, not JSON",
        _ if trimmed.contains(&b',') => "it looks like CSV or plain text, not JSON",
        _ => "it looks like plain text, not JSON",
    }
}

/// Whether the bytes parse to their end as Protobuf fields (protobuf.dev, "Encoding").
fn is_protobuf(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((tag, after)) = varint(rest) else { return false };
        if tag >> 3 == 0 {
            return false;
        }
        let skipped = match tag & 7 {
            0 => varint(after).map(|(_, after)| after),
            1 => after.get(8..),
            2 => varint(after).and_then(|(length, after)| {
                usize::try_from(length).ok().and_then(|length| after.get(length..))
            }),
            5 => after.get(4..),
            _ => None,
        };
        let Some(after) = skipped else { return false };
        rest = after;
    }
    !bytes.is_empty()
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * place as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}
