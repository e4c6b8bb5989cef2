//! `traceparent`, as W3C Trace Context (level 1, section 3.2) defines it.

use recount_model::Header;

/// The trace that an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace; not all zeros.
    pub trace_id: [u8; 16],
    /// The span that sent the event; not all zeros.
    pub span_id: [u8; 8],
    /// Bit 0: the sender recorded it.
    pub flags: u8,
}

/// Of version 00: `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits. A later version may have more behind a dash.
const LENGTH: usize = 55;

impl TraceContext {
    /// Reads a header's value; none where it is malformed, which the standard says is to be ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t']);
        let (fixed, more) = text.split_at_checked(LENGTH)?;
        let mut parts = fixed.split('-');
        let [version] = hex(parts.next()?)?;
        let context = Self {
            trace_id: hex(parts.next()?)?,
            span_id: hex(parts.next()?)?,
            flags: hex::<1>(parts.next()?)?[0],
        };
        let is_whole = match version {
            0 => more.is_empty(),
            255 => false,
            _ => more.is_empty() || more.starts_with('-'),
        };
        let is_known = context.trace_id != [0; 16] && context.span_id != [0; 8];
        (parts.next().is_none() && is_whole && is_known).then_some(context)
    }
}

/// What the headers of a delivery say of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something that is no trace context.
    Malformed,
    /// The trace.
    Context(TraceContext),
}

/// The header `traceparent`; without it, a CloudEvent's extension of that name, which tells where the trace began.
pub fn of_headers(headers: &[Header]) -> Found {
    let named = |name: &str| headers.iter().rev().find(|header| header.name.eq_ignore_ascii_case(name));
    let header = ["traceparent", "ce-traceparent", "ce_traceparent"].into_iter().find_map(named);
    match header.map(|header| TraceContext::parse(&header.value)) {
        None => Found::Nothing,
        Some(None) => Found::Malformed,
        Some(Some(context)) => Found::Context(context),
    }
}

/// Exactly so many bytes in lower-case hexadecimal digits; the standard takes no others.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let zeros = "0".repeat(32);
        for (text, is_read) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), true),
            (format!(" 00-{TRACE}-{SPAN}-01\t"), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes-later"), true),
            (format!("cc-{TRACE}-{SPAN}-01what"), false),
            (format!("00-{TRACE}-{SPAN}-01-more"), false),
            (format!("ff-{TRACE}-{SPAN}-01"), false),
            (format!("00-{zeros}-{SPAN}-01"), false),
            (format!("00-{TRACE}-{}-01", &zeros[..16]), false),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), false),
            (format!("00-{TRACE}-{SPAN}-0x"), false),
            (format!("00-{TRACE}-{SPAN}"), false),
            (format!("00_{TRACE}_{SPAN}_01"), false),
            (format!("00-{}-{SPAN}-01", "ä".repeat(16)), false),
            ("ä".repeat(40), false),
            (String::new(), false),
        ] {
            assert_eq!(TraceContext::parse(&text).is_some(), is_read, "{text}");
        }
        let context = TraceContext::parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((context.trace_id[0], context.span_id[7], context.flags), (0x4b, 0xb7, 1));
    }

    #[test]
    fn a_delivery_s_own_header_goes_before_a_cloud_event_s_extension() {
        let header = |name: &str, span: &str| Header {
            name: name.into(),
            value: format!("00-{TRACE}-{span}-01").into(),
        };
        let other = "1111111111111111";
        let both = [header("Traceparent", SPAN), header("ce-traceparent", other)];
        let context = |found| match found {
            Found::Context(context) => context.span_id[0],
            found => panic!("{found:?}"),
        };
        assert_eq!(context(of_headers(&both)), 0x00);
        assert_eq!(context(of_headers(&both[1..])), 0x11);
        assert_eq!(context(of_headers(&[header("ce_traceparent", other)])), 0x11);
        assert_eq!(of_headers(&[header("tracestate", SPAN)]), Found::Nothing);
        assert_eq!(of_headers(&[Header { name: "traceparent".into(), value: "?".into() }]), Found::Malformed);
    }
}
