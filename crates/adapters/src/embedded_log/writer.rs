//! The one thread of a process that writes to a log: appends that wait are committed together. In the
//! deterministic simulator there is no thread, and each append is committed by itself, at once.

use super::retention::{self, Retained, RetentionSettings};
use super::store::Store;
use super::{LogError, NewEvent, WriterShared};
use recount_model::Timestamp;
use std::ops::Range;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// At most so many appends wait; one more is refused.
const WAITING_MAX: usize = 4096;
/// One commit takes at most so many events together, and at least one append.
const COMMIT_EVENTS_MAX: usize = 10_000;
const COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
const RETENTION_EVERY: Duration = Duration::from_secs(60);

type Appended = Result<Range<u64>, LogError>;
type AppendReply = oneshot::Sender<Appended>;

enum Request {
    Append(Vec<NewEvent>, AppendReply),
    Retain(Timestamp, mpsc::SyncSender<Result<Retained, LogError>>),
}

/// The way to the thread; it ends when this is dropped, after what waits.
#[derive(Debug)]
pub(super) struct Writer {
    place: Place,
    path: String,
}

#[derive(Debug)]
enum Place {
    Thread(mpsc::SyncSender<Request>),
    Inline(Box<Mutex<Worker>>),
}

impl Writer {
    pub(super) fn start(
        store: Store,
        retention: RetentionSettings,
        shared: Arc<WriterShared>,
    ) -> Result<Self, LogError> {
        let path = store.path().display().to_string();
        let (requests, inbox) = mpsc::sync_channel(WAITING_MAX);
        let worker = Worker { store, retention, shared, retained_at: Instant::now() };
        std::thread::Builder::new()
            .name("recount-log".to_owned())
            .spawn(move || worker.run(&inbox))
            .map_err(|e| LogError::Unwritable { path: path.clone(), cause: format!("no thread: {e}") })?;
        Ok(Self { place: Place::Thread(requests), path })
    }

    /// No thread: a request is done before the call returns.
    pub(super) fn inline(store: Store, retention: RetentionSettings, shared: Arc<WriterShared>) -> Self {
        let path = store.path().display().to_string();
        let worker = Worker { store, retention, shared, retained_at: Instant::now() };
        Self { place: Place::Inline(Box::new(Mutex::new(worker))), path }
    }

    pub(super) fn append(&self, events: Vec<NewEvent>) -> Result<oneshot::Receiver<Appended>, LogError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append(events, reply))?;
        Ok(answer)
    }

    pub(super) fn retain(
        &self,
        now: Timestamp,
    ) -> Result<mpsc::Receiver<Result<Retained, LogError>>, LogError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Request::Retain(now, reply))?;
        Ok(answer)
    }

    fn send(&self, request: Request) -> Result<(), LogError> {
        let requests = match &self.place {
            Place::Thread(requests) => requests,
            Place::Inline(worker) => {
                worker.lock().unwrap_or_else(PoisonError::into_inner).run_alone(request);
                return Ok(());
            }
        };
        requests.try_send(request).map_err(|e| match e {
            mpsc::TrySendError::Full(_) => LogError::Busy { path: self.path.clone(), waiting: WAITING_MAX },
            mpsc::TrySendError::Disconnected(_) => {
                LogError::Unwritable { path: self.path.clone(), cause: "its writer has ended".to_owned() }
            }
        })
    }
}

#[derive(Debug)]
struct Worker {
    store: Store,
    retention: RetentionSettings,
    shared: Arc<WriterShared>,
    retained_at: Instant,
}

impl Worker {
    fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        while let Ok(first) = inbox.recv() {
            self.serve(first, inbox);
        }
    }

    fn run_alone(&mut self, request: Request) {
        let (_, nobody_waits) = mpsc::channel();
        self.serve(request, &nobody_waits);
    }

    fn serve(&mut self, first: Request, inbox: &mpsc::Receiver<Request>) {
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Append(events, reply) => next = self.append(events, reply, inbox),
                Request::Retain(now, reply) => {
                    // Who asked may be gone by now.
                    let _ = reply.send(self.retain(now));
                }
            }
        }
    }

    /// Commits this append and those that wait behind it, and returns the first request that is none.
    fn append(
        &mut self,
        events: Vec<NewEvent>,
        reply: AppendReply,
        inbox: &mpsc::Receiver<Request>,
    ) -> Option<Request> {
        let bytes_of = |events: &[NewEvent]| events.iter().map(|e| e.payload.len()).sum::<usize>();
        let (mut count, mut bytes) = (events.len(), bytes_of(&events));
        let newest = events.iter().map(|e| e.received_at).max();
        let (mut groups, mut replies) = (vec![events], vec![reply]);
        let mut other = None;
        while count < COMMIT_EVENTS_MAX && bytes < COMMIT_BYTES_MAX {
            match inbox.try_recv() {
                Ok(Request::Append(events, reply)) => {
                    count += events.len();
                    bytes += bytes_of(&events);
                    groups.push(events);
                    replies.push(reply);
                }
                Ok(request) => {
                    other = Some(request);
                    break;
                }
                Err(_) => break,
            }
        }
        let result = self.store.append(&groups, self.retention.log_bytes_max);
        if let Ok(offsets) = &result
            && let Some(last) = offsets.last()
        {
            self.shared.appended.send_replace(last.end);
        }
        for (i, reply) in replies.into_iter().enumerate() {
            // A sender that went away was told nothing; its events are there all the same.
            let _ = reply.send(result.as_ref().map(|offsets| offsets[i].clone()).map_err(Clone::clone));
        }
        if let Some(now) = newest.filter(|_| self.retained_at.elapsed() >= RETENTION_EVERY)
            && let Err(e) = self.retain(now)
        {
            tracing::warn!("retention: {e}");
        }
        other
    }

    fn retain(&mut self, now: Timestamp) -> Result<Retained, LogError> {
        self.retained_at = Instant::now();
        let settled = self.shared.settled_next_offset.load(std::sync::atomic::Ordering::Relaxed);
        retention::retain(&mut self.store, &self.retention, settled, now)
    }
}
