//! The reader of a reporting flow, over lines in memory.

use super::super::post::Post;
use super::super::said::{Said, Word};
use super::super::{DeclaredReasons, ReportSettings, ReportStore};
use super::*;
use recount_checks::{FlowChecks, FlowRules};
use recount_engine::{Book, SystemClock};
use recount_ledger::{LedgerSettings, SqliteLedger};
use recount_model::{FlowName, Partition, SourceId, Verdict};

const LIMITS: TakeLimits =
    TakeLimits { events_max: 100, bytes_max: 1 << 20, wait_ms: 200, payload_bytes_max: 1000 };

/// Lines of a file: offset 3 is blank.
struct Lines(u64);

#[async_trait]
impl Source for Lines {
    fn capabilities(&self) -> Capabilities {
        crate::embedded_log::LogSource::CAPABILITIES
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        Ok(vec![place()])
    }

    async fn open(&self, _: &SourcePartition, next: u64) -> Result<Box<dyn SourceReader>, SourceError> {
        Ok(Box::new(LinesReader { next, end: self.0 }))
    }
}

struct LinesReader {
    next: u64,
    end: u64,
}

#[async_trait]
impl SourceReader for LinesReader {
    async fn take(&mut self, _: TakeLimits) -> Result<Polled, SourceError> {
        let event = |offset| Delivery {
            offset,
            payload: format!("{{\"id\":\"o{offset}\"}}").into_bytes().into(),
            payload_bytes: 10,
            headers: Vec::new(),
            broker_key: None,
            reported: None,
        };
        let blank = Gap { from: 3, to: 4, kind: GapKind::NotAnEvent, cause: "blank line".to_owned() };
        let deliveries = (self.next..self.end).filter(|offset| *offset != 3).map(event).collect();
        let gaps = if self.next <= 3 { vec![blank] } else { Vec::new() };
        self.next = self.end;
        Ok(Polled { deliveries, gaps, next_offset: self.end, drained: true })
    }

    async fn settle(&mut self, _: Vec<Settled>) -> Result<(), SourceError> {
        Ok(())
    }

    async fn backlog(&mut self) -> Option<u64> {
        Some(0)
    }
}

fn place() -> SourcePartition {
    SourcePartition { source: SourceId::new("lines"), partition: Partition::new("0"), place: "lines".into() }
}

fn flow(folder: &std::path::Path) -> Arc<FlowReports> {
    let ledger = SqliteLedger::open(folder.join("ledger"), LedgerSettings::default()).unwrap();
    let name = FlowName::new("stock").unwrap();
    let rules = FlowRules { id: Some("event.id".to_owned()), ..FlowRules::default() };
    FlowReports::new(ReportSettings {
        checks: Arc::new(FlowChecks::compile(&rules, &name).unwrap()),
        flow: name,
        reasons: DeclaredReasons::new(),
        within: Duration::from_millis(300),
        id_is_secret: false,
        store: ReportStore::open(folder).unwrap(),
        book: Book::threaded(Box::new(ledger), Arc::new(SystemClock)).unwrap(),
        clock: Arc::new(SystemClock),
    })
}

async fn post(flow: &Arc<FlowReports>, offsets: &[u64], committed: Option<u64>) -> (usize, usize, usize) {
    let applied = || Said { word: Word::Applied, reason: "".into(), because: None };
    let said = offsets.iter().map(|offset| (*offset, applied())).collect();
    let post = Post { partition: Partition::new("0"), committed, said, refused: Vec::new() };
    let answer = flow.take(post).await.unwrap();
    (answer.accepted, answer.already, answer.refused.len())
}

/// Offsets of deliveries, then ranges of gaps.
fn told(polled: &Polled) -> String {
    let all_applied = |d: &Delivery| {
        assert!(d.reported.as_ref().is_some_and(|reported| reported.verdict == Verdict::Applied));
        d.offset.to_string()
    };
    let gap = |gap: &Gap| format!("{}-{} {}", gap.from, gap.to, gap.kind.word());
    let deliveries: Vec<_> = polled.deliveries.iter().map(all_applied).collect();
    let gaps: Vec<_> = polled.gaps.iter().map(gap).collect();
    format!("{}; {}", deliveries.join(" "), gaps.join(" "))
}

#[tokio::test]
async fn events_go_on_once_reported_or_passed_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let flow_before = flow(folder.path());
    let source = ReportedSource::new(Arc::new(Lines(8)), Arc::clone(&flow_before));
    let mut reader = source.open(&place(), 0).await.unwrap();
    assert_eq!(told(&reader.take(LIMITS).await.unwrap()), "; 3-4 not-an-event");
    assert_eq!(told(&reader.take(LIMITS).await.unwrap()), "; ", "nothing was reported yet");
    assert_eq!(post(&flow_before, &[1, 3, 4, 99], None).await, (2, 0, 2), "a blank line, and beyond the end");
    assert_eq!(told(&reader.take(LIMITS).await.unwrap()), "1 4; ");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(told(&reader.take(LIMITS).await.unwrap()), "; 0-1 unrecorded 2-3 unrecorded");
    assert_eq!(post(&flow_before, &[2], None).await, (0, 0, 1), "too late");
    assert_eq!(post(&flow_before, &[5], None).await, (1, 0, 0));
    drop((reader, source, flow_before));

    // The process was killed before the ledger had any of it.
    let flow_after = flow(folder.path());
    let source = ReportedSource::new(Arc::new(Lines(8)), Arc::clone(&flow_after));
    let mut reader = source.open(&place(), 0).await.unwrap();
    assert_eq!(told(&reader.take(LIMITS).await.unwrap()), "1 4 5; 3-4 not-an-event");
    assert_eq!(post(&flow_after, &[1, 4, 5], None).await, (0, 3, 0), "nothing is forgotten");
    assert_eq!(post(&flow_after, &[7], Some(7)).await, (1, 0, 0));
    let polled = reader.take(LIMITS).await.unwrap();
    assert_eq!(told(&polled), "7; 0-1 unrecorded 2-3 unrecorded 6-7 unrecorded");
    assert!(polled.drained);
}

#[tokio::test]
async fn a_reader_that_was_replaced_takes_nothing_from_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let flow = flow(folder.path());
    let source = ReportedSource::new(Arc::new(Lines(3)), Arc::clone(&flow));
    let mut before = source.open(&place(), 0).await.unwrap();
    assert_eq!(told(&before.take(LIMITS).await.unwrap()), "; 3-4 not-an-event");
    // The loop begins again from the arbiter's row, while the task that takes still looks.
    let mut reader = source.open(&place(), 0).await.unwrap();
    assert_eq!(told(&reader.take(LIMITS).await.unwrap()), "; 3-4 not-an-event");
    assert_eq!(post(&flow, &[], Some(2)).await, (0, 0, 0));
    assert!(before.take(LIMITS).await.is_err());
    assert_eq!(
        told(&reader.take(LIMITS).await.unwrap()),
        "; 0-2 unrecorded",
        "and nothing that nobody reported"
    );
}
