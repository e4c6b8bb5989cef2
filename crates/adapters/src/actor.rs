//! One owner for a thing that blocks: a database connection, a file, an HTTP client.
//!
//! In production the thing lives on a thread of its own and is asked by closures over a channel. In the
//! deterministic simulator there are no threads: the closure runs at once, when its future is polled.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait; whoever asks beyond that waits to ask. Callers are partitions, so it is never
/// reached in practice.
const REQUESTS_WAITING_MAX: usize = 1024;

type Request<T> = Box<dyn FnOnce(&mut T) + Send>;
/// Why it stopped; empty while it works.
type Stopped = Arc<Mutex<Option<String>>>;

/// The thing is gone, since something it was asked to do panicked. Nothing more is done by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} stopped after a panic ({panic}): this is a fault of the program, restart it and report this")]
pub struct ActorStopped {
    /// Which actor.
    pub name: String,
    /// What the panic said.
    pub panic: String,
}

/// Owns a `T` and does with it what it is asked, one request after the other.
///
/// A request whose future is dropped before it ran to its end is done all the same; only its answer is
/// lost. Dropping the actor waits for what was asked and then drops the `T`.
pub struct Actor<T> {
    name: String,
    stopped: Stopped,
    place: Place<T>,
}

enum Place<T> {
    Thread { requests: Option<mpsc::Sender<Request<T>>>, thread: Option<std::thread::JoinHandle<()>> },
    Inline(Mutex<Option<T>>),
}

impl<T: Send + 'static> Actor<T> {
    /// A thread of its own, named `name`.
    pub fn threaded(name: &str, mut thing: T) -> std::io::Result<Self> {
        let (requests, mut inbox) = mpsc::channel::<Request<T>>(REQUESTS_WAITING_MAX);
        let stopped = Stopped::default();
        let seen = Arc::clone(&stopped);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(request) = inbox.blocking_recv() {
                if lock(&seen).is_some() {
                    break;
                }
                request(&mut thing);
            }
        })?;
        let place = Place::Thread { requests: Some(requests), thread: Some(thread) };
        Ok(Self { name: name.to_owned(), stopped, place })
    }

    /// No thread: requests run when their future is polled.
    pub fn inline(name: &str, thing: T) -> Self {
        Self {
            name: name.to_owned(),
            stopped: Stopped::default(),
            place: Place::Inline(Mutex::new(Some(thing))),
        }
    }

    /// [`threaded`](Self::threaded) or [`inline`](Self::inline).
    pub fn new(name: &str, thing: T, threaded: bool) -> std::io::Result<Self> {
        if threaded { Self::threaded(name, thing) } else { Ok(Self::inline(name, thing)) }
    }

    /// Asks for something to be done with the thing. Fails if that, or anything before it, panicked.
    pub async fn call<R, F>(&self, request: F) -> Result<R, ActorStopped>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> R + Send + 'static,
    {
        match &self.place {
            Place::Inline(thing) => self.call_inline(thing, request),
            Place::Thread { requests, .. } => self.call_thread(requests.as_ref(), request).await,
        }
    }

    fn call_inline<R>(
        &self,
        place: &Mutex<Option<T>>,
        request: impl FnOnce(&mut T) -> R,
    ) -> Result<R, ActorStopped> {
        let mut held = lock(place);
        let Some(thing) = held.as_mut() else { return Err(self.stopped()) };
        catch_unwind(AssertUnwindSafe(|| request(thing))).map_err(|panic| {
            *held = None;
            *lock(&self.stopped) = Some(panic_text(panic.as_ref()));
            self.stopped()
        })
    }

    async fn call_thread<R, F>(
        &self,
        requests: Option<&mpsc::Sender<Request<T>>>,
        request: F,
    ) -> Result<R, ActorStopped>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> R + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let stopped = Arc::clone(&self.stopped);
        let boxed: Request<T> = Box::new(move |thing| {
            match catch_unwind(AssertUnwindSafe(|| request(thing))) {
                // Nobody waits for the answer if the caller's future was dropped.
                Ok(result) => drop(answer.send(result)),
                Err(panic) => *lock(&stopped) = Some(panic_text(panic.as_ref())),
            }
        });
        let Some(requests) = requests else { return Err(self.stopped()) };
        requests.send(boxed).await.map_err(|_| self.stopped())?;
        answered.await.map_err(|_| self.stopped())
    }

    fn stopped(&self) -> ActorStopped {
        let panic = lock(&self.stopped).clone().unwrap_or_else(|| "its thread ended".to_owned());
        ActorStopped { name: self.name.clone(), panic }
    }
}

impl<T> Drop for Actor<T> {
    fn drop(&mut self) {
        if let Place::Thread { requests, thread } = &mut self.place {
            drop(requests.take());
            if let Some(thread) = thread.take()
                && thread.thread().id() != std::thread::current().id()
            {
                // A panic outside of a request can't be reported from here; the next call would have.
                drop(thread.join());
            }
        }
    }
}

/// A panic's message where the program wrote it as such; formatted ones may hold values of the event.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    match panic.downcast_ref::<&'static str>() {
        Some(text) => (*text).to_owned(),
        None => "its message was formatted and may hold values: see standard error".to_owned(),
    }
}

/// A mutex here never guards anything that a panic could leave half done.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn counts_and_stops(threaded: bool) {
        let actor = Actor::new("counter", 1_u32, threaded).unwrap();
        let add = |n: u32| {
            move |count: &mut u32| {
                *count += n;
                *count
            }
        };
        assert_eq!(actor.call(add(2)).await, Ok(3));
        assert_eq!(actor.call(add(4)).await, Ok(7));
        let stopped = actor.call(|_| -> u32 { panic!("out of fingers") }).await.unwrap_err();
        assert!(stopped.to_string().contains("out of fingers"), "{stopped}");
        assert_eq!(actor.call(add(1)).await, Err(stopped));
    }

    #[tokio::test]
    async fn a_panic_is_reported_to_everybody_and_hangs_nobody() {
        counts_and_stops(true).await;
        counts_and_stops(false).await;
    }

    #[tokio::test]
    async fn a_request_whose_future_is_dropped_is_done_all_the_same() {
        let done = Arc::new(Mutex::new(false));
        let actor = Actor::threaded("slow", ()).unwrap();
        let told = Arc::clone(&done);
        let request = actor.call(move |()| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            *told.lock().unwrap() = true;
        });
        let waited = tokio::time::timeout(std::time::Duration::from_millis(5), request).await;
        assert!(waited.is_err());
        drop(actor);
        assert!(*done.lock().unwrap());
    }

    #[tokio::test]
    async fn a_thing_without_a_thread_runs_where_it_is_asked() {
        let actor = Actor::inline("here", ());
        let there = actor.call(|()| std::thread::current().id()).await.unwrap();
        assert_eq!(there, std::thread::current().id());
    }
}
