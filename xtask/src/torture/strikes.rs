//! Does what the plan says to the processes and servers while the events go through.

use super::Options;
use super::plan::{Happened, Strike, shuffled};
use super::processes::Process;
use super::publisher::Publisher;
use super::scene::Scene;
use crate::random::Random;
use anyhow::{Result, bail};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A process that nobody struck may end by itself and is started again, as by a supervisor; not for ever.
const RESTARTS_MAX: u64 = 100;
/// So long after it was woken a process may take to see that it was replaced.
const FENCED_WITHIN: Duration = Duration::from_secs(60);
/// Without progress for so long the rest is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// A frozen process that was woken after another one had taken over.
pub struct Woken {
    /// Which.
    pub number: u64,
    /// When, by the database's clock.
    pub at: String,
    process: Process,
}

/// Everything went through.
pub struct Through {
    /// The process whose ledger has it all.
    pub last: u64,
    /// How long publishing took.
    pub published_in: Duration,
    /// The woken ones.
    pub woken: Vec<Woken>,
}

/// The torture under way.
pub struct Torture<'a> {
    scene: &'a Scene<'a>,
    random: Random,
    working: Process,
    /// Each with the epochs of the partitions at that moment.
    frozen: VecDeque<(Process, Vec<u64>)>,
    frozen_max: usize,
    woken: Vec<Woken>,
    publisher: Option<Publisher>,
    happened: Happened,
}

impl<'a> Torture<'a> {
    /// Starts the first process and the publisher.
    pub fn begin(scene: &'a Scene<'a>, options: &Options) -> Result<Self> {
        let publisher =
            Publisher::start(&scene.kafka, scene.topic(), scene.folder, options.events, options.rate)?;
        Ok(Self {
            scene,
            random: Random::new(options.seed),
            working: scene.place.start(1)?,
            frozen: VecDeque::new(),
            frozen_max: usize::try_from(options.processes.saturating_sub(1)).unwrap_or(1),
            woken: Vec::new(),
            publisher: Some(publisher),
            happened: Happened::default(),
        })
    }

    /// What happened; no process is left.
    pub fn end(self) -> Happened {
        if let Some(publisher) = self.publisher {
            publisher.abandon();
        }
        self.happened
    }

    /// All strikes, spread over the events; then the rest undisturbed.
    pub fn all(&mut self, options: &Options) -> Result<Through> {
        let Options { kills, freezes, broker_restarts, database_restarts, .. } = *options;
        let plan = shuffled(&mut self.random, kills, freezes, broker_restarts, database_restarts);
        let share = |part: usize| options.events * part as u64 / (plan.len() as u64 + 2);
        for (nth, strike) in plan.iter().enumerate() {
            self.open(share(nth + 3));
            self.sent(share(nth + 1))?;
            self.strike(*strike)?;
        }
        self.open(options.events);
        while let Some((process, epochs)) = self.frozen.pop_front() {
            self.wake(process, &epochs)?;
        }
        self.sent(options.events)?;
        let published_in = match self.publisher.take() {
            Some(publisher) => publisher.finish()?,
            None => Duration::ZERO,
        };
        self.drain(options.events)?;
        self.fenced()?;
        self.working.signal(Signal::TERM)?;
        let ended = self.working.ends_within(PATIENCE)?;
        if !ended.is_some_and(|status| matches!(status.code(), Some(0 | 1))) {
            bail!("the last process, asked to end, came to {ended:?}: {}", self.working.tail());
        }
        Ok(Through { last: self.working.number, published_in, woken: std::mem::take(&mut self.woken) })
    }

    fn open(&self, number: u64) {
        if let Some(publisher) = &self.publisher {
            publisher.open_up_to(number);
        }
    }

    /// Waits until so many events were handed to the producer.
    fn sent(&mut self, number: u64) -> Result<()> {
        let mut last = (Instant::now(), 0);
        loop {
            let sent = self.publisher.as_ref().map_or(number, Publisher::sent);
            if sent >= number {
                return Ok(());
            }
            if sent > last.1 {
                last = (Instant::now(), sent);
            }
            if last.0.elapsed() > PATIENCE {
                bail!("only {sent} events were published, {number} awaited");
            }
            self.supervise()?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the process again where it has ended by itself.
    fn supervise(&mut self) -> Result<bool> {
        let Some(status) = self.working.ended()? else { return Ok(true) };
        let tail = self.working.tail();
        let why = tail.lines().last().unwrap_or_default().chars().take(200).collect::<String>();
        *self.happened.ended.entry(format!("{status}: {why}")).or_default() += 1;
        if self.happened.ended.values().sum::<u64>() > RESTARTS_MAX {
            bail!("the process ended by itself more than {RESTARTS_MAX} times: {tail}");
        }
        std::thread::sleep(Duration::from_millis(200));
        self.working = self.scene.place.start(self.working.number)?;
        Ok(false)
    }

    /// Waits until the working process has settled so many batches more.
    fn settles(&mut self, more: u64) -> Result<()> {
        let mut goal = self.working.step().settled + more;
        while !self.working.settles(goal)? {
            self.supervise()?;
            goal = more;
        }
        Ok(())
    }

    fn strike(&mut self, strike: Strike) -> Result<()> {
        *self.happened.times.entry(strike.word()).or_default() += 1;
        match strike {
            Strike::Kill => self.kill(),
            Strike::Freeze => self.freeze(),
            Strike::BrokerStop => self.server(strike, |scene| Ok(scene.kafka.restart(false)?)),
            Strike::BrokerCrash => self.server(strike, |scene| Ok(scene.kafka.restart(true)?)),
            Strike::DatabaseCrash => self.server(strike, |scene| Ok(scene.postgres.crash_and_restart()?)),
        }
    }

    /// Some batches, and then somewhere within the next ones.
    fn some_moment(&mut self) -> Result<()> {
        let batches = 1 + self.random.below(8);
        let begun = Instant::now();
        self.settles(batches)?;
        let batch_us = begun.elapsed().as_micros() as u64 / batches;
        std::thread::sleep(Duration::from_micros(self.random.below(2 * batch_us.clamp(200, 50_000))));
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.some_moment()?;
        let begun = Instant::now();
        let Some(step) = self.working.kill()? else {
            bail!("the process had ended by itself: {}", self.working.tail())
        };
        *self.happened.kills_at.entry(step).or_default() += 1;
        self.working = self.scene.place.start(self.working.number)?;
        self.settles(1)?;
        self.happened.after_kill.push(begun.elapsed());
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        self.some_moment()?;
        let begun = Instant::now();
        self.working.signal(Signal::STOP)?;
        // A stop is carried out thread by thread; the last of them may be in a system call.
        std::thread::sleep(Duration::from_millis(50));
        *self.happened.freezes_at.entry(self.working.step().word).or_default() += 1;
        let epochs = self.scene.epochs()?;
        let successor = self.scene.place.take_over(&self.working)?;
        let frozen = std::mem::replace(&mut self.working, successor);
        self.frozen.push_back((frozen, epochs));
        self.settles(1)?;
        self.happened.after_freeze.push(begun.elapsed());
        if self.frozen.len() >= self.frozen_max
            && let Some((process, epochs)) = self.frozen.pop_front()
        {
            self.wake(process, &epochs)?;
        }
        Ok(())
    }

    /// Wakes it once each of its partitions has another owner: until then it is the owner, and may go on.
    fn wake(&mut self, process: Process, epochs: &[u64]) -> Result<()> {
        let begun = Instant::now();
        while self.scene.epochs()?.iter().zip(epochs).any(|(now, then)| now <= then) {
            if begun.elapsed() > PATIENCE {
                bail!(
                    "nobody took over all partitions of process {}: {}",
                    process.number,
                    self.working.tail()
                );
            }
            self.supervise()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        let at = self.scene.sql("SELECT clock_timestamp()")?;
        process.signal(Signal::CONT)?;
        self.woken.push(Woken { number: process.number, at, process });
        Ok(())
    }

    fn server(&mut self, strike: Strike, restart: impl Fn(&Scene<'_>) -> Result<()>) -> Result<()> {
        self.settles(1)?;
        restart(self.scene)?;
        let begun = Instant::now();
        self.settles(1)?;
        self.happened.after_server.entry(strike.word()).or_default().push(begun.elapsed());
        Ok(())
    }

    /// Waits until every position is decided.
    fn drain(&mut self, events: u64) -> Result<()> {
        let mut last = (Instant::now(), 0);
        loop {
            let decided = self.scene.decided()?;
            if decided >= events {
                return Ok(());
            }
            if decided > last.1 {
                last = (Instant::now(), decided);
            }
            if last.0.elapsed() > PATIENCE {
                bail!("stuck: {decided} of {events} positions are decided: {}", self.working.tail());
            }
            self.supervise()?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Each woken process must have seen that it was replaced, and ended.
    fn fenced(&mut self) -> Result<()> {
        for woken in &mut self.woken {
            let ended = woken.process.ends_within(FENCED_WITHIN)?;
            let fault = match ended {
                None => "did not end",
                Some(_) if !woken.process.says("another process took") => {
                    "ended without saying that it was replaced"
                }
                Some(_) => continue,
            };
            let (number, tail) = (woken.number, woken.process.tail());
            self.happened
                .faults
                .push(format!("process {number}, frozen, replaced and woken, {fault}: {tail}"));
        }
        Ok(())
    }
}
