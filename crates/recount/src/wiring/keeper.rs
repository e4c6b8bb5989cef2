//! Keeps the replica of a shared ledger up to what other processes write, while this one runs: every half second, and
//! whenever somebody in this process wants to read it.

use recount_engine::Book;
use recount_ledger::LedgerError;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks by itself.
const EVERY: Duration = Duration::from_millis(500);
/// So long somebody who reads waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whoever waits, to be told how a round went that began after they asked: why it failed, where it did.
type Asked = Sender<Result<(), String>>;

/// The keepers of this process, by folder.
static KEEPERS: Mutex<Vec<(PathBuf, Sender<Asked>)>> = Mutex::new(Vec::new());

fn keepers() -> MutexGuard<'static, Vec<(PathBuf, Sender<Asked>)>> {
    // A list of senders is whole at any time.
    KEEPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a replica up to date as long as it lives.
pub struct Keeper {
    folder: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        keepers().retain(|(folder, _)| *folder != self.folder);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            drop(thread.join());
        }
    }
}

impl Keeper {
    /// Begins, inside a runtime.
    pub(super) fn start(folder: &Path, book: Book) -> std::io::Result<Self> {
        let (asks, asked) = channel();
        let runtime = tokio::runtime::Handle::current();
        let keep = move || keep(&runtime, &book, &asked);
        let thread = std::thread::Builder::new().name("ledger-keeper".to_owned()).spawn(keep)?;
        keepers().push((folder.to_owned(), asks));
        Ok(Self { folder: folder.to_owned(), thread: Some(thread) })
    }
}

/// Has this process's keeper of a folder take in what is in the log now; none where it has none, or one that ends.
///
/// # Errors
/// `Away` where it could not, so that what the replica has may be old.
pub(super) fn ask(folder: &Path) -> Option<Result<(), LedgerError>> {
    let keeper = keepers().iter().find(|(kept, _)| kept == folder).map(|(_, keeper)| keeper.clone())?;
    let (done, told) = channel();
    keeper.send(done).ok()?;
    match told.recv_timeout(ANSWER_MAX) {
        Ok(answer) => Some(answer.map_err(LedgerError::Away)),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            Some(Err(LedgerError::Away(format!("no answer in {} s", ANSWER_MAX.as_secs()))))
        }
    }
}

fn keep(runtime: &tokio::runtime::Handle, book: &Book, asked: &Receiver<Asked>) {
    let mut is_told = false;
    loop {
        let mut waiting = match asked.recv_timeout(EVERY) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        waiting.extend(asked.try_iter());
        let caught_up =
            runtime.block_on(book.with(|store| store.catch_up())).map_err(|error| error.to_string());
        match &caught_up {
            Ok(()) => is_told = false,
            Err(why) if !std::mem::replace(&mut is_told, true) => {
                tracing::warn!(target: "recount::ledger", "what other processes decide is not seen for now: {why}");
            }
            Err(_) => {}
        }
        for done in waiting {
            // Who no longer waits has gone on without.
            drop(done.send(caught_up.clone()));
        }
    }
}
