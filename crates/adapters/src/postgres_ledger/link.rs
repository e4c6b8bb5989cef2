//! The connection to the log, on a thread of its own: the ledger is asked by code that blocks, which may itself run
//! inside a runtime.

use super::entries::{Found, New, Statements};
use super::schema::{self, LedgerRow};
use super::settings::PostgresLedgerSettings;
use crate::postgres::connect::{connect, place, read_url};
use crate::postgres::faults::{message, state};
use crate::postgres::{PostgresEffectSettings, PostgresOpenError};
use recount_ledger::{Birth, LedgerError, LedgerId};
use recount_model::FlowName;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Between two tries, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Durable when it is committed; and a statement that waited for another's commit sees what that wrote.
const SET_UP: &str = "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'";

/// Why something did not work.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may work when tried again: the server is away, restarts, or has no room.
    Away(String),
    /// It will not.
    Ledger(LedgerError),
}

impl Trouble {
    /// What an error of the client means.
    pub(crate) fn of(error: tokio_postgres::Error) -> Self {
        let text = message(&error);
        match state(&error) {
            // Connection, resources, an operator's doing, locks and time-outs, a server that is a standby for now.
            Some(state)
                if ["08", "53", "57", "40"].iter().any(|class| state.starts_with(class))
                    || matches!(state, "55P03" | "25006" | "25P03") =>
            {
                Self::Away(text)
            }
            Some("23505") => Self::Ledger(LedgerError::Corrupt(format!(
                "a batch stands in the ledger's log at another place than it should: {text}"
            ))),
            Some(_) => Self::Ledger(LedgerError::Unwritable(text)),
            None => Self::Away(text),
        }
    }
}

/// What lives on the thread.
struct Remote {
    runtime: tokio::runtime::Runtime,
    settings: PostgresLedgerSettings,
    /// The ledger that must be there, once it is known.
    ledger: Option<LedgerId>,
    session: Option<Session>,
    is_away_told: bool,
}

struct Session {
    client: Client,
    statements: Statements,
}

type Job = Box<dyn FnOnce(&mut Remote) + Send>;

/// Asks the log.
pub(crate) struct Link {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    place: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was seen by whoever waited for the answer.
            drop(thread.join());
        }
    }
}

impl Link {
    /// Starts the thread; nothing is connected yet.
    pub(crate) fn start(settings: PostgresLedgerSettings) -> Result<Self, LedgerError> {
        let cannot =
            |error: std::io::Error| LedgerError::Unwritable(format!("no thread can be started: {error}"));
        let place =
            place(&read_url(&settings.url).map_err(|error| LedgerError::Foreign(error.to_string()))?.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        let mut remote = Remote { runtime, settings, ledger: None, session: None, is_away_told: false };
        let thread = std::thread::Builder::new().name("ledger-log".to_owned()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                job(&mut remote);
            }
        });
        Ok(Self { jobs: Some(jobs), thread: Some(thread.map_err(cannot)?), place })
    }

    /// Host, port and database.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    fn ask<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Remote) -> R + Send + 'static,
    ) -> Result<R, LedgerError> {
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move |remote| drop(answer.send(ask(remote))));
        let gone = || LedgerError::Poisoned("the thread of its log ended".to_owned());
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }

    /// The ledger that is there; with `begin` a new one where there is none.
    pub(crate) fn row(&self, begin: bool, patience: Duration) -> Result<Option<LedgerRow>, LedgerError> {
        self.ask(move |remote| remote.patiently(patience, |remote| remote.row(begin)))?
    }

    /// What follows an ordinal: a page of it.
    pub(crate) fn following(&self, after: u64, patience: Duration) -> Result<Vec<Found>, LedgerError> {
        self.ask(move |remote| remote.patiently(patience, |remote| remote.following(after)))?
    }

    /// Tries to append once. `Away` leaves it unknown whether it was done.
    pub(crate) fn append(
        &self,
        ordinal: u64,
        writer: &str,
        new: &New,
    ) -> Result<Result<bool, Trouble>, LedgerError> {
        let (writer, new) = (writer.to_owned(), new.clone());
        self.ask(move |remote| remote.append(ordinal, &writer, &new))
    }

    /// Takes the ledger's row for us alone, so that nobody appends before we do; given up with the next append, or
    /// by the server when we are silent for long.
    pub(crate) fn lock(&self) -> Result<Result<(), Trouble>, LedgerError> {
        self.ask(|remote| remote.run("BEGIN; SELECT 1 FROM recount_ledger FOR UPDATE"))
    }

    /// Ends what [`lock`](Self::lock) began.
    pub(crate) fn unlock(&self) -> Result<Result<(), Trouble>, LedgerError> {
        self.ask(|remote| remote.run("COMMIT"))
    }
}

impl Remote {
    /// Tries until it works, or patience ends.
    fn patiently<R>(
        &mut self,
        patience: Duration,
        mut attempt: impl FnMut(&mut Self) -> Result<R, Trouble>,
    ) -> Result<R, LedgerError> {
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let why = match attempt(self) {
                Ok(done) => {
                    if std::mem::take(&mut self.is_away_told) {
                        tracing::info!(target: "recount::ledger", "the ledger in PostgreSQL is back");
                    }
                    return Ok(done);
                }
                Err(Trouble::Ledger(error)) => return Err(error),
                Err(Trouble::Away(why)) => why,
            };
            // Whatever was under way is undone with its connection, or done.
            self.session = None;
            if began.elapsed() >= patience {
                return Err(LedgerError::Away(why));
            }
            if !std::mem::replace(&mut self.is_away_told, true) {
                tracing::warn!(target: "recount::ledger",
                    "the ledger in PostgreSQL can't be reached, which is tried again for {} s: {why}", patience.as_secs());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Makes sure of a connection, and that it leads to the ledger that we know.
    fn connected(&mut self) -> Result<(), Trouble> {
        if self.session.as_ref().is_some_and(|session| !session.client.is_closed()) {
            return Ok(());
        }
        self.session = None;
        let client = self.connect()?;
        let ledger = self.ledger.clone();
        let wait = self.settings.answer_time_max();
        let place = self.place();
        let session = self.runtime.block_on(heard(wait, async {
            if let Some(expected) = ledger {
                let there = schema::read(&client).await.map_err(Trouble::Ledger)?;
                if there.as_ref().is_none_or(|row| row.birth.id != expected) {
                    let found = there.map_or("none".to_owned(), |row| row.birth.id.0);
                    return Err(Trouble::Ledger(LedgerError::Foreign(format!(
                        "the ledger at {place} was {}, and now there is {found}: was the database replaced?",
                        expected.0
                    ))));
                }
            }
            let statements = Statements::prepare(&client).await?;
            Ok(Session { client, statements })
        }))?;
        self.session = Some(session);
        Ok(())
    }

    fn place(&self) -> String {
        read_url(&self.settings.url).map(|(config, _)| place(&config)).unwrap_or_default()
    }

    fn connect(&self) -> Result<Client, Trouble> {
        let flow = FlowName::new("ledger").map_err(|error| Trouble::Away(error.to_string()))?;
        let settings = PostgresEffectSettings {
            connect_time_ms_max: self.settings.connect_time_ms_max,
            statement_time_ms_max: self.settings.statement_time_ms_max,
            ..PostgresEffectSettings::new(&self.settings.url, flow)
        };
        let wait = self.settings.answer_time_max();
        self.runtime.block_on(heard(wait, async {
            let client = connect(&settings).await.map_err(|error| match error {
                PostgresOpenError::Unreachable(why) | PostgresOpenError::Unusable(why) => Trouble::Away(why),
                error => Trouble::Ledger(LedgerError::Foreign(error.to_string())),
            })?;
            client.batch_execute(SET_UP).await.map_err(Trouble::of)?;
            Ok(client)
        }))
    }

    fn row(&mut self, begin: bool) -> Result<Option<LedgerRow>, Trouble> {
        let mut client = self.connect()?;
        let wait = self.settings.answer_time_max();
        let row = self.runtime.block_on(heard(wait, async {
            // Errors of these are told as they are; a connection that broke shows in the client.
            let found = schema::read(&client).await;
            let found = match found {
                Ok(None) if begin => {
                    let made = schema::make_tables(&mut client).await;
                    let made = match made {
                        Ok(()) => schema::begin(&client, &Birth::new().map_err(Trouble::Ledger)?).await,
                        Err(error) => Err(error),
                    };
                    match made {
                        Ok(()) => schema::read(&client).await,
                        Err(error) => Err(error),
                    }
                }
                found => found,
            };
            found.map_err(|error| match client.is_closed() {
                true => Trouble::Away(error.to_string()),
                false => Trouble::Ledger(error),
            })
        }))?;
        self.ledger = row.as_ref().map(|row| row.birth.id.clone());
        Ok(row)
    }

    /// Runs `ask` on the session; one that went wrong is not used again.
    fn with_session<R>(
        &mut self,
        ask: impl AsyncFnOnce(&Session, &str) -> Result<R, Trouble>,
    ) -> Result<R, Trouble> {
        self.connected()?;
        let wait = self.settings.answer_time_max();
        let ledger = self.ledger.clone().unwrap_or_else(|| LedgerId(String::new()));
        let Some(session) = self.session.take() else {
            return Err(Trouble::Away("the connection is gone".to_owned()));
        };
        let done = self.runtime.block_on(heard(wait, ask(&session, &ledger.0)));
        if done.is_ok() {
            self.session = Some(session);
        }
        done
    }

    fn following(&mut self, after: u64) -> Result<Vec<Found>, Trouble> {
        self.with_session(async |session, ledger| {
            session.statements.following(&session.client, ledger, after).await
        })
    }

    fn append(&mut self, ordinal: u64, writer: &str, new: &New) -> Result<bool, Trouble> {
        self.with_session(async |session, ledger| {
            session.statements.append(&session.client, ledger, ordinal, writer, new).await
        })
    }

    fn run(&mut self, sql: &'static str) -> Result<(), Trouble> {
        self.with_session(async |session, _| session.client.batch_execute(sql).await.map_err(Trouble::of))
    }
}

/// A server that stands still closes no connection and answers nothing.
async fn heard<R>(wait: Duration, answer: impl Future<Output = Result<R, Trouble>>) -> Result<R, Trouble> {
    match tokio::time::timeout(wait, answer).await {
        Ok(heard) => heard,
        Err(_) => Err(Trouble::Away(format!("the server has not answered for {} ms", wait.as_millis()))),
    }
}
