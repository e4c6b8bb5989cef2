//! Where an event stands: source, partition, offset.

use std::fmt;
use std::sync::Arc;

/// What is wrong with a name or a written position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionError(pub String);

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PositionError {}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype! {
    /// The name of a flow: lower-case letters, digits, `-` and `_`, at most 64 bytes.
    FlowName
}
text_newtype! {
    /// Names one incarnation of a source: a topic made anew, or a file cut short, has another.
    SourceId
}
text_newtype! {
    /// A partition of a source: `0`, `1` … of a topic, the file name in a folder of files.
    Partition
}

impl FlowName {
    /// Checks and keeps a flow's name.
    pub fn new(name: &str) -> Result<Self, PositionError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(PositionError(format!(
                "flow name {name:?}: use 1 to 64 lower-case letters, digits, - or _"
            )));
        }
        Ok(Self(name.into()))
    }
}

impl SourceId {
    /// Keeps a source's id as its adapter made it.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }
}

impl Partition {
    /// Keeps a partition's name as its adapter made it. A slash would break written positions, so it
    /// becomes `_`.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(name.as_ref().replace('/', "_").into())
    }
}

/// One partition of one incarnation of a flow's source: what is claimed, counted and settled as a unit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The flow that reads it.
    pub flow: FlowName,
    /// The incarnation.
    pub source: SourceId,
    /// The partition within the source.
    pub partition: Partition,
}

impl PartitionId {
    /// The position of an offset in this partition.
    pub fn position(&self, offset: u64) -> Position {
        Position { at: self.clone(), offset }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.flow, self.partition)
    }
}

/// Where one delivery stands. Written `flow/partition/offset`; the incarnation is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub at: PartitionId,
    /// Counted from 0 within the incarnation; a file's offset is the line's ordinal.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.at, self.offset)
    }
}

/// A position as a person writes it: the incarnation is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The flow.
    pub flow: FlowName,
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: u64,
}

impl std::str::FromStr for Address {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let wrong = || PositionError(format!("{text:?} is not a position: write flow/partition/offset"));
        let mut parts = text.splitn(3, '/');
        let (Some(flow), Some(partition), Some(offset)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        Ok(Self {
            flow: FlowName::new(flow)?,
            partition: Partition::new(partition),
            offset: offset.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_position_reads_back() {
        let address: Address = "reserve-stock/orders.ndjson/4711".parse().unwrap();
        assert_eq!(address.flow.as_str(), "reserve-stock");
        assert_eq!(address.partition.as_str(), "orders.ndjson");
        assert_eq!(address.offset, 4711);
        for wrong in ["", "a/b", "a/b/c", "A/0/1", "a/0/-1"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
