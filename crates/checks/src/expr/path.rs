//! The fields that an expression names: `event.lines[].price`, `meta.headers.traceparent`.

use std::fmt;

/// What a path starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// The decoded payload.
    Event,
    /// The delivery.
    Meta,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A field of an object.
    Name(Box<str>),
    /// One item of a list, by its place.
    Index(u64),
    /// Any item of a list.
    Each,
}

/// A path from `event` or `meta`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath {
    /// Where it starts.
    pub root: Root,
    /// What follows.
    pub segments: Vec<Segment>,
}

impl FieldPath {
    /// `event` or `meta` itself.
    pub fn root(root: Root) -> Self {
        Self { root, segments: Vec::new() }
    }

    /// One step further.
    pub fn then(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.segments.push(segment);
        path
    }

    /// Reads what [`Display`](fmt::Display) writes. `None` where it is not a path.
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let root = match &text[..end] {
            "event" => Root::Event,
            "meta" => Root::Meta,
            _ => return None,
        };
        let mut segments = Vec::new();
        let mut rest = &text[end..];
        while !rest.is_empty() {
            if let Some(named) = rest.strip_prefix('.') {
                let end = named.find(['.', '[']).unwrap_or(named.len());
                if end == 0 {
                    return None;
                }
                segments.push(Segment::Name(named[..end].into()));
                rest = &named[end..];
            } else {
                let (segment, after) = parse_brackets(rest.strip_prefix('[')?)?;
                segments.push(segment);
                rest = after;
            }
        }
        Some(Self { root, segments })
    }

    /// The names alone: places in lists are left out.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(&**name),
            _ => None,
        })
    }

    /// Whether one of the two lies within the other (or they are the same), places in lists apart: a
    /// value of one may then hold a value of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.root == other.root && self.names().zip(other.names()).all(|(a, b)| a == b)
    }
}

fn parse_brackets(inside: &str) -> Option<(Segment, &str)> {
    if inside.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let name = values.next()?.ok()?;
        let rest = inside[values.byte_offset()..].strip_prefix(']')?;
        return Some((Segment::Name(name.into()), rest));
    }
    let (place, rest) = inside.split_once(']')?;
    let segment = match place {
        "" | "*" => Segment::Each,
        digits => Segment::Index(digits.parse().ok()?),
    };
    Some((segment, rest))
}

fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.root {
            Root::Event => "event",
            Root::Meta => "meta",
        })?;
        for segment in &self.segments {
            match segment {
                Segment::Name(name) if is_plain(name) => write!(f, ".{name}")?,
                Segment::Name(name) => write!(f, "[{}]", serde_json::Value::from(&**name))?,
                Segment::Index(place) => write!(f, "[{place}]")?,
                Segment::Each => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_path_reads_back() {
        for text in ["event", "event.sku", "event.lines[].price", r#"event["a b"].c[3]"#, "meta.headers.x"] {
            assert_eq!(FieldPath::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "customer", "event.", "event..a", "event[x]", "event[\"a]", "eventful.a"] {
            assert_eq!(FieldPath::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_parent_and_its_child_overlap() {
        let overlap = |a: &str, b: &str| FieldPath::parse(a).unwrap().overlaps(&FieldPath::parse(b).unwrap());
        assert!(overlap("event", "event.customer_id"));
        assert!(overlap("event.lines[3].card", "event.lines[].card"));
        assert!(overlap("event.customer.name", "event.customer"));
        assert!(!overlap("event.customer_id", "event.customer"));
        assert!(!overlap("meta.key", "event.key"));
    }
}
