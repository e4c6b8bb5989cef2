//! What the tests of sources share.

use recount_engine::{Polled, Source, SourceError, SourcePartition, SourceReader, TakeLimits};
use recount_model::GapKind;
use std::time::{Duration, Instant};

pub const LIMITS: TakeLimits =
    TakeLimits { events_max: 500, bytes_max: 1 << 20, wait_ms: 0, payload_bytes_max: 1 << 16 };

/// What one position brought, short: `3 text`, `4-5 not-an-event`.
pub fn shown(polled: &Polled) -> Vec<String> {
    let deliveries = polled
        .deliveries
        .iter()
        .map(|d| (d.offset, format!("{} {}", d.offset, String::from_utf8_lossy(&d.payload))));
    let gaps = polled.gaps.iter().map(|g| {
        assert!(g.kind != GapKind::Lost || !g.cause.is_empty(), "a loss without a cause");
        (g.from, format!("{}-{} {}", g.from, g.to - 1, g.kind.word()))
    });
    let mut all: Vec<_> = deliveries.chain(gaps).collect();
    all.sort();
    all.into_iter().map(|(_, text)| text).collect()
}

/// Takes until drained and settles everything.
pub async fn drain(reader: &mut dyn SourceReader, limits: TakeLimits) -> Result<Vec<String>, SourceError> {
    let mut all = Vec::new();
    let mut next_offset = None;
    loop {
        let polled = reader.take(limits).await?;
        assert!(polled.deliveries.len() <= limits.events_max);
        assert!(next_offset.is_none_or(|next| polled.next_offset >= next), "offsets never go back");
        next_offset = Some(polled.next_offset);
        all.extend(shown(&polled));
        let drained = polled.drained;
        settle(reader, polled).await;
        if drained {
            return Ok(all);
        }
    }
}

pub async fn settle(reader: &mut dyn SourceReader, polled: Polled) {
    let settled = polled.deliveries.into_iter().map(|d| d.settle()).collect();
    reader.settle(settled).await.unwrap();
}

/// Takes and settles until `count` positions came, for at most some seconds.
pub async fn take_positions(reader: &mut dyn SourceReader, count: usize) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < until, "only {all:?} came");
        let polled = reader.take(TakeLimits { wait_ms: 50, ..LIMITS }).await.unwrap();
        all.extend(shown(&polled));
        settle(reader, polled).await;
    }
    all
}

/// Takes until an error comes, and returns it.
pub async fn take_error(reader: &mut dyn SourceReader) -> SourceError {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < until, "no error came");
        match reader.take(TakeLimits { wait_ms: 20, ..LIMITS }).await {
            Ok(polled) => settle(reader, polled).await,
            Err(e) => return e,
        }
    }
}

/// The only partition.
pub async fn only(source: &dyn Source) -> SourcePartition {
    let mut partitions = source.partitions().await.unwrap();
    assert_eq!(partitions.len(), 1, "{partitions:?}");
    partitions.remove(0)
}

pub fn changed(result: Result<impl Sized, SourceError>) -> String {
    match result {
        Err(SourceError::Changed(why)) => why,
        Err(other) => panic!("not Changed: {other:?}"),
        Ok(_) => panic!("not Changed but fine"),
    }
}
