//! The ledger as the loop sees it: appends of several partitions share one durable commit.

use crate::clock::Clock;
use recount_ledger::{EncodedBatch, LedgerError, LedgerStore};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use tokio::sync::oneshot;

/// At most so many batches share a commit.
const BATCHES_A_COMMIT_MAX: usize = 64;

type Job = Box<dyn FnOnce(&mut dyn LedgerStore) + Send>;

enum Request {
    Append(EncodedBatch, oneshot::Sender<Result<(), Arc<LedgerError>>>),
    Job(Job),
}

enum Inner {
    /// On the caller's own thread, when the future is polled: for the simulator.
    Inline(Mutex<Box<dyn LedgerStore>>),
    /// On a thread of the ledger's own.
    Threaded(LedgerThread),
}

/// The thread that owns the store. Dropping it waits until all that was asked is done and the ledger is
/// closed, so that whoever dropped the last [`Book`] may open the ledger again.
struct LedgerThread {
    requests: Option<Mutex<mpsc::Sender<Request>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl LedgerThread {
    /// A request that can't be sent is dropped with its answer's sender, which the caller sees as `gone`.
    fn send(&self, request: Request) {
        if let Some(Ok(requests)) = self.requests.as_ref().map(Mutex::lock) {
            drop(requests.send(request));
        }
    }
}

impl Drop for LedgerThread {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the store was seen by everyone who waited for its answer.
            drop(thread.join());
        }
    }
}

/// Writes the ledger for every partition of every flow. Clones share it.
#[derive(Clone)]
pub struct Book {
    inner: Arc<Inner>,
    clock: Arc<dyn Clock>,
    pace: Option<Pace>,
}

/// What each append on the caller's thread waits for first: a simulated disk is slow, or its process frozen.
#[doc(hidden)]
pub type Pace = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An append on its way; it is durable when this resolves to `Ok`.
pub type Pending = Pin<Box<dyn Future<Output = Result<(), Arc<LedgerError>>> + Send>>;

impl Book {
    /// Gives the store a thread of its own.
    pub fn threaded(store: Box<dyn LedgerStore>, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let thread_clock = Arc::clone(&clock);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || serve(store, &inbox, thread_clock.as_ref()))?;
        let thread = LedgerThread { requests: Some(Mutex::new(requests)), thread: Some(thread) };
        Ok(Self { inner: Arc::new(Inner::Threaded(thread)), clock, pace: None })
    }

    /// Runs the store on the thread that polls.
    pub fn inline(store: Box<dyn LedgerStore>, clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(Inner::Inline(Mutex::new(store))), clock, pace: None }
    }

    /// [`inline`](Self::inline), each append after `pace`.
    #[doc(hidden)]
    pub fn inline_paced(store: Box<dyn LedgerStore>, clock: Arc<dyn Clock>, pace: Pace) -> Self {
        Self { pace: Some(pace), ..Self::inline(store, clock) }
    }

    /// Puts a batch in line. Batches of a partition must be given in the order of their seq.
    pub fn append(&self, batch: EncodedBatch) -> Pending {
        match self.inner.as_ref() {
            Inner::Inline(_) => {
                let book = self.clone();
                Box::pin(async move {
                    if let Some(pace) = &book.pace {
                        pace().await;
                    }
                    book.append_inline(batch)
                })
            }
            Inner::Threaded(thread) => {
                let (done, answer) = oneshot::channel();
                thread.send(Request::Append(batch, done));
                Box::pin(async move { answer.await.unwrap_or_else(|_| Err(Arc::new(gone()))) })
            }
        }
    }

    fn append_inline(&self, batch: EncodedBatch) -> Result<(), Arc<LedgerError>> {
        match self.inner.as_ref() {
            Inner::Inline(store) => {
                let mut store = store.lock().map_err(|_| Arc::new(gone()))?;
                store.append(&[batch], self.clock.now()).map_err(Arc::new)
            }
            Inner::Threaded(_) => Err(Arc::new(gone())),
        }
    }

    /// Asks or tells the store something else, in line with the appends.
    pub async fn with<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut dyn LedgerStore) -> Result<R, LedgerError> + Send + 'static,
    ) -> Result<R, Arc<LedgerError>> {
        match self.inner.as_ref() {
            Inner::Inline(store) => {
                let mut store = store.lock().map_err(|_| Arc::new(gone()))?;
                ask(store.as_mut()).map_err(Arc::new)
            }
            Inner::Threaded(thread) => {
                let (done, answer) = oneshot::channel();
                let job: Job = Box::new(move |store| {
                    // A caller that was cancelled no longer wants the answer.
                    drop(done.send(ask(store).map_err(Arc::new)));
                });
                thread.send(Request::Job(job));
                answer.await.unwrap_or_else(|_| Err(Arc::new(gone())))
            }
        }
    }
}

fn gone() -> LedgerError {
    LedgerError::Poisoned("its thread ended".into())
}

fn serve(mut store: Box<dyn LedgerStore>, inbox: &mpsc::Receiver<Request>, clock: &dyn Clock) {
    let mut next = inbox.recv().ok();
    while let Some(request) = next.take() {
        match request {
            Request::Job(job) => job(store.as_mut()),
            Request::Append(batch, done) => {
                let mut batches = vec![batch];
                let mut waiting = vec![done];
                while batches.len() < BATCHES_A_COMMIT_MAX {
                    match inbox.try_recv() {
                        Ok(Request::Append(batch, done)) => {
                            batches.push(batch);
                            waiting.push(done);
                        }
                        Ok(job) => {
                            next = Some(job);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                let result = store.append(&batches, clock.now()).map_err(Arc::new);
                for done in waiting {
                    drop(done.send(result.clone()));
                }
            }
        }
        if next.is_none() {
            next = inbox.recv().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use recount_ledger::{LedgerSettings, SqliteLedger};
    use std::time::Duration;

    #[tokio::test]
    async fn whoever_drops_the_last_book_may_open_the_ledger_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || SqliteLedger::open(folder.path(), LedgerSettings::default());
        let book = Book::threaded(Box::new(open().unwrap()), Arc::new(SystemClock)).unwrap();
        let clone = book.clone();
        let slow = book.with(|_| {
            std::thread::sleep(Duration::from_millis(200));
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(10), slow).await.is_err(), "it is under way");
        drop(book);
        assert!(open().is_err(), "another still has it");
        drop(clone);
        open().unwrap();
    }
}
