//! Keeps the replica of a shared ledger up to what other processes write, while this one runs: every half second, and
//! whenever somebody in this process wants to read it.

use recount_engine::Book;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks by itself.
const EVERY: Duration = Duration::from_millis(500);
/// So long somebody who reads waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whoever waits, to be told when a round is done that began after they asked.
type Asked = Sender<()>;

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

/// Has this process's keeper of a folder take in what is in the log now; `false` where it has none.
pub(super) fn ask(folder: &Path) -> bool {
    let keeper = keepers().iter().find(|(kept, _)| kept == folder).map(|(_, keeper)| keeper.clone());
    let Some(keeper) = keeper else { return false };
    let (done, told) = channel();
    // One that is about to end, or a server that is away: what the replica has is read, as the log says.
    if keeper.send(done).is_ok() {
        let _ = told.recv_timeout(ANSWER_MAX);
    }
    true
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
        match runtime.block_on(book.with(|store| store.catch_up())) {
            Ok(()) => is_told = false,
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                tracing::warn!(target: "recount::ledger", "what other processes decide is not seen for now: {error}");
            }
            Err(_) => {}
        }
        // Who no longer waits has gone on without.
        for done in waiting {
            let _ = done.send(());
        }
    }
}
