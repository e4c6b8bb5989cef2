//! One life of the program: what is opened, the production loop, and what happens to it meanwhile.

use crate::plan::{Act, LifePlan};
use crate::sabotage::Sabotage;
use crate::scene;
use crate::supply::{MemorySource, NoSource, WatchedSource};
use crate::vfs::folder::SimulatedFiles;
use crate::watched::{Fate, WatchedEffect, WatchedLedger};
use crate::world::{Process, World, WorldClock, WorldProbe};
use recount_adapters::embedded_log::{EmbeddedLog, LogSettings, LogSource, LogSourceSettings, NewEvent};
use recount_adapters::sqlite::{SqliteEffect, SqliteEffectSettings};
use recount_checks::FlowChecks;
use recount_engine::book::Pace;
use recount_engine::{
    Book, Clock, EffectRows, FlowEnd, FlowHandle, FlowParts, FlowSpec, Guards, Source, StartOptions,
    start_flow,
};
use recount_ledger::{JournalEntry, JournalKind, LedgerError, LedgerSettings, LedgerStore, SqliteLedger};
use recount_model::{PartitionId, SourceId, Timestamp};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the driver looks, in virtual time.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Nobody is asked to stop before this: what a start finds must show.
const START_MAX: Duration = Duration::from_millis(300);
/// A life that takes longer, in virtual time, hangs.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// How often somebody looks after keys that stay held.
const OPERATOR_LOOKS_EVERY: Duration = Duration::from_secs(2);
/// Events that are published together.
const PUBLISHED_TOGETHER: u64 = 40;

/// What stays the same over all lives of a seed.
pub struct Scene {
    /// The world.
    pub world: Arc<World>,
    /// The flow's compiled rules; the same for every seed.
    pub checks: Arc<FlowChecks>,
    /// The flow's settings.
    pub spec: FlowSpec,
    /// Whether events come through an embedded log; else from memory.
    pub has_log: bool,
    /// A guard that is taken away.
    pub sabotage: Option<Sabotage>,
    /// Where the ledger's id and key come from.
    pub birth: [u8; 48],
    /// A segment of the ledger is closed at this size.
    pub segment_bytes_max: u64,
    /// For jitter.
    pub seed: u64,
}

/// How a life ended.
#[derive(Debug)]
pub enum LifeEnd {
    /// A process died.
    Crashed,
    /// Something could not be opened.
    NotOpened(String),
    /// The flow ended.
    Flow(FlowEnd),
    /// An invariant was broken, or nothing moved any more.
    GaveUp,
}

/// One process of a life.
struct Instance {
    process: Process,
    handle: FlowHandle,
    freeze: watch::Sender<bool>,
    log: Option<EmbeddedLog>,
}

/// A life under way.
pub struct Life<'s> {
    scene: &'s Scene,
    plan: &'s LifePlan,
    ledger: Arc<Mutex<dyn LedgerStore>>,
    first: Process,
    reads_source: bool,
    instances: Vec<Instance>,
    is_asked_to_stop: bool,
    is_append_doubtful: Cell<bool>,
}

/// A place in a process' view of a disk.
pub fn path(process: Process, disk: &str, name: &str) -> PathBuf {
    PathBuf::from(format!("/{process}/{disk}/{name}"))
}

/// The ledger's settings on the simulated disks.
pub fn ledger_settings(scene: &Scene) -> LedgerSettings {
    let clock = WorldClock(Arc::clone(&scene.world));
    LedgerSettings {
        segment_bytes_max: scene.segment_bytes_max,
        segment_age_ms_max: 3_600_000,
        stripe_decisions: 64,
        vfs: Some(scene.world.files.name().to_owned()),
        files: Arc::new(SimulatedFiles(scene.world.files)),
        clock: Arc::new(move || clock.now()),
        birth: Some(scene.birth),
        ..LedgerSettings::default()
    }
}

impl<'s> Life<'s> {
    /// Opens everything as `recount run` would, and starts the flow; without its source where events are
    /// only decided anew.
    pub async fn begin(
        scene: &'s Scene,
        plan: &'s LifePlan,
        process: Process,
        reads_source: bool,
    ) -> Result<Self, String> {
        let folder = path(process, "ledger", "book");
        let opened = SqliteLedger::open(&folder, ledger_settings(scene));
        let mut ledger = opened.map_err(|error| format!("ledger: {error}"))?;
        let known = LedgerStore::partitions(&mut ledger, &scene.spec.flow);
        let known = known.map_err(|error| format!("ledger: {error}"))?;
        let recorded = known.last().map(|at| at.source.clone());
        if plan.name == LifePlan::quiet().name {
            // Keys that stayed held over the restart would wait for ever where nothing else happens.
            resume_held_keys(scene, &mut ledger).map_err(|error| format!("ledger: {error}"))?;
        }
        let ledger: Arc<Mutex<dyn LedgerStore>> = Arc::new(Mutex::new(ledger));
        let mut life = Self {
            scene,
            plan,
            ledger,
            first: process,
            reads_source,
            instances: Vec::new(),
            is_asked_to_stop: false,
            is_append_doubtful: Cell::new(false),
        };
        life.start_instance(process, recorded).await?;
        Ok(life)
    }

    async fn start_instance(&mut self, process: Process, recorded: Option<SourceId>) -> Result<(), String> {
        let scene = self.scene;
        let (freeze, frozen) = watch::channel(false);
        let fate = Fate { world: Arc::clone(&scene.world), process, frozen };
        let doubt = self.plan.doubt.filter(|_| process == self.first);
        let effect = Arc::new(WatchedEffect {
            inner: open_effect(scene, process)?,
            fate: fate.clone(),
            doubt,
            batches: AtomicU32::new(0),
        });
        let (source, log) = self.open_source(process, recorded).await?;
        let reuses_positions = self.plan.reuses_positions;
        let source = Arc::new(WatchedSource { inner: source, fate: fate.clone(), reuses_positions });
        let clock: Arc<dyn Clock> = Arc::new(WorldClock(Arc::clone(&scene.world)));
        let store = WatchedLedger { inner: Arc::clone(&self.ledger), fate: fate.clone() };
        let handle = start_flow(FlowParts {
            spec: scene.spec.clone(),
            checks: Arc::clone(&scene.checks),
            source,
            effect,
            book: Book::inline_paced(Box::new(store), Arc::clone(&clock), pace(fate)),
            clock,
            probe: Arc::new(WorldProbe { world: Arc::clone(&scene.world), process }),
            guards: guards(scene.sabotage),
            seed: scene.seed,
            start_options: StartOptions { adopt: self.plan.adopt },
            paused: None,
        });
        self.instances.push(Instance { process, handle, freeze, log });
        Ok(())
    }

    async fn open_source(
        &self,
        process: Process,
        recorded: Option<SourceId>,
    ) -> Result<(Arc<dyn Source>, Option<EmbeddedLog>), String> {
        let world = &self.scene.world;
        if !self.reads_source {
            return Ok((Arc::new(NoSource), None));
        }
        if !self.scene.has_log {
            return Ok((Arc::new(MemorySource { world: Arc::clone(world) }), None));
        }
        let log = open_log(self.scene, process)?;
        let bounds = log.bounds().map_err(|error| format!("log: {error}"))?;
        let receipts = world.published_of(0);
        let is_the_old_one = recorded.as_ref().is_none_or(|recorded| *recorded == log.source_id());
        if bounds.next_offset < receipts && is_the_old_one && !self.plan_replaces_log() {
            world.violated(format!(
                "log: {receipts} events have receipts, and it holds {} after a crash",
                bounds.next_offset
            ));
        }
        if is_the_old_one && !self.plan_replaces_log() {
            world.set_published(0, bounds.next_offset);
        }
        let settings = LogSourceSettings { recorded, ..LogSourceSettings::default() };
        Ok((Arc::new(LogSource::new(log.clone(), settings)), Some(log)))
    }

    fn plan_replaces_log(&self) -> bool {
        use crate::plan::Before;
        matches!(self.plan.before, Before::RestoreLog | Before::NewLog)
    }

    /// Lets the life run until it ends by itself, by a fault, or because everything is done.
    pub async fn run(&mut self) -> LifeEnd {
        let began = Instant::now();
        let mut acts = self.plan.acts.iter().copied().peekable();
        let mut next_look_of_operator = OPERATOR_LOOKS_EVERY;
        loop {
            if self.world().is_broken() {
                return LifeEnd::GaveUp;
            }
            if self.instances.iter().any(|i| self.world().files.is_dead(i.process)) {
                return LifeEnd::Crashed;
            }
            if self.has_ended() {
                // What was to happen later would leave the world unmended.
                for (_, act) in acts.by_ref() {
                    self.mend(act).await;
                }
                return self.ended().await;
            }
            if began.elapsed() > LIFE_MAX {
                let stats = self.main().handle.stats();
                let marks = self.world().lock().next_offset.clone();
                self.world().violated(format!(
                    "not at an end after ten minutes: decided up to {:?}, open {:?}, held {:?}, paused {:?}, away {:?}",
                    marks.values().collect::<Vec<_>>(),
                    stats.open,
                    stats.held,
                    stats.paused,
                    stats.away
                ));
                return LifeEnd::GaveUp;
            }
            while let Some((_, act)) = acts.next_if(|(at, _)| Duration::from_millis(*at) <= began.elapsed()) {
                if let Err(why) = self.act(act).await {
                    return LifeEnd::NotOpened(why);
                }
            }
            if began.elapsed() >= next_look_of_operator {
                next_look_of_operator += OPERATOR_LOOKS_EVERY;
                self.let_held_keys_go_on().await;
            }
            self.publish().await;
            let has_started = began.elapsed() >= START_MAX;
            if has_started && acts.peek().is_none() && self.is_everything_decided() && !self.is_asked_to_stop
            {
                self.act_shut_down();
            }
            let until = acts.peek().map_or(LOOK_EVERY, |(at, _)| {
                Duration::from_millis(*at)
                    .saturating_sub(began.elapsed())
                    .clamp(Duration::from_millis(1), LOOK_EVERY)
            });
            tokio::time::sleep(until).await;
        }
    }

    fn world(&self) -> &World {
        &self.scene.world
    }

    fn main(&self) -> &Instance {
        self.instances.last().expect("a life begins with an instance")
    }

    fn has_ended(&self) -> bool {
        self.main().handle.ended().is_some()
    }

    /// The end of the main instance, after the one that was frozen had time to notice that it owns nothing.
    async fn ended(&mut self) -> LifeEnd {
        let end = self.main().handle.ended().expect("it was just seen to have ended");
        for frozen in &self.instances[..self.instances.len() - 1] {
            frozen.freeze.send_replace(false);
            tokio::time::sleep(Duration::from_secs(2)).await;
            frozen.handle.shut_down();
            let end = tokio::time::timeout(LIFE_MAX, frozen.handle.wait()).await;
            match end {
                Ok(FlowEnd::Stopped(stops)) => {
                    if let Some(other) = stops.iter().find(|s| s.reason.as_str() != "partition_taken") {
                        self.world().violated(format!("a frozen owner woke and stopped for {other}"));
                    }
                    self.world().count("frozen owner woke and was fenced");
                }
                Ok(_) => self.world().count("frozen owner woke with nothing to do"),
                Err(_) => self.world().violated("a frozen owner woke and never ended"),
            }
        }
        LifeEnd::Flow(end)
    }

    fn is_everything_decided(&self) -> bool {
        let world = self.world();
        let inner = world.lock();
        let done: u64 =
            inner.next_offset.iter().filter(|(at, _)| self.is_of_this_source(at)).map(|(_, n)| *n).sum();
        let total: u64 = (0..world.items.len()).map(|partition| world.publishable_of(partition)).sum();
        done >= total
    }

    fn is_of_this_source(&self, at: &PartitionId) -> bool {
        self.main().log.as_ref().is_none_or(|log| log.source_id() == at.source)
    }

    async fn publish(&self) {
        let world = self.world();
        for partition in 0..world.items.len() {
            let published = world.published_of(partition);
            let total = world.publishable_of(partition);
            let more = (published + 1 + world.below(PUBLISHED_TOGETHER)).min(total);
            if published == total || self.plan_replaces_log() {
                continue;
            }
            match &self.main().log {
                None => world.set_published(partition, more),
                Some(log) => self.append(log, published..more).await,
            }
        }
    }

    async fn append(&self, log: &EmbeddedLog, offsets: std::ops::Range<u64>) {
        let world = self.world();
        let mut from = offsets.start;
        if self.is_append_doubtful.get() {
            // What was refused may be there all the same; the log knows what it has.
            let Ok(bounds) = log.bounds() else { return };
            from = bounds.next_offset.max(offsets.start);
            world.set_published(0, from);
            self.is_append_doubtful.set(false);
        }
        let items = &world.items[0][from as usize..offsets.end.max(from) as usize];
        let events: Vec<_> = items.iter().map(|i| NewEvent::new(i.payload.to_vec(), Timestamp(0))).collect();
        if events.is_empty() {
            return;
        }
        match log.append(events).await {
            Ok(given) if given.start == from => world.set_published(0, given.end),
            Ok(given) => world.violated(format!("log: offsets {given:?} were given, {from} was next")),
            Err(error) => {
                self.is_append_doubtful.set(true);
                world.tell(44, || format!("log refused an append: {error}"));
            }
        }
    }

    async fn act(&mut self, act: Act) -> Result<(), String> {
        self.world().tell(act_number(act), || format!("{act:?}"));
        match act {
            Act::Crash => {
                self.world().count("crash at a moment");
                self.world().files.kill(self.first);
            }
            Act::ShutDown => self.act_shut_down(),
            Act::Freeze => {
                self.world().count("owner frozen, another takes over");
                self.main().freeze.send_replace(true);
                let recorded = self.recorded();
                self.start_instance(self.first + 1, recorded).await?;
            }
            Act::Thaw => {
                self.instances[0].freeze.send_replace(false);
            }
            other => self.mend(other).await,
        }
        Ok(())
    }

    fn recorded(&self) -> Option<SourceId> {
        self.main().log.as_ref().map(EmbeddedLog::source_id)
    }

    async fn let_held_keys_go_on(&self) {
        let handle = &self.main().handle;
        if handle.stats().held.values().any(|held| *held > 0) {
            // Where the ledger can't record it, the flow stops by itself and is started anew.
            drop(handle.resume("the simulator", "somebody looked at what stays held").await);
        }
    }

    fn act_shut_down(&mut self) {
        self.is_asked_to_stop = true;
        self.main().handle.shut_down();
    }

    /// Acts on the database by somebody else; what they can't do now they try again at the next start.
    async fn mend(&self, act: Act) {
        let sql = match act {
            Act::CloseShelf(article) => {
                format!("UPDATE stock SET open = 0 WHERE article LIKE '%-a{article}'")
            }
            Act::OpenShelves => "UPDATE stock SET open = 1".into(),
            Act::HideTable => "ALTER TABLE stock RENAME TO stock_away".into(),
            Act::ShowTable => "ALTER TABLE stock_away RENAME TO stock".into(),
            _ => return,
        };
        let done = somebody_else(self.world()).and_then(|connection| connection.execute_batch(&sql));
        if done.is_ok() && act == Act::HideTable {
            self.world().count("table missing for a while");
        }
        if act == Act::OpenShelves {
            // Keys that stay held after their last attempt go on once somebody looked.
            drop(self.main().handle.resume("the simulator", "the shelves are open").await);
        }
    }

    /// The running flow of this life.
    pub fn handle(&self) -> &FlowHandle {
        &self.main().handle
    }
}

/// What `recount resume` does where no instance runs.
fn resume_held_keys(scene: &Scene, ledger: &mut SqliteLedger) -> Result<(), LedgerError> {
    let entry = JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(scene.spec.flow.clone()),
        what: "resumed".to_owned(),
        at: WorldClock(Arc::clone(&scene.world)).now(),
        persisted_at: Timestamp(0),
        detail: serde_json::json!({ "by": "the simulator", "because": "somebody looked at what stays held" }),
    };
    LedgerStore::journal(ledger, &entry).map(drop)
}

fn act_number(act: Act) -> u64 {
    match act {
        Act::CloseShelf(article) => 1000 + article,
        Act::Crash => 1,
        Act::ShutDown => 2,
        Act::OpenShelves => 3,
        Act::HideTable => 4,
        Act::ShowTable => 5,
        Act::Freeze => 6,
        Act::Thaw => 8,
    }
}

fn pace(fate: Fate) -> Pace {
    Arc::new(move || {
        let fate = fate.clone();
        Box::pin(async move { fate.pass_time(6).await })
    })
}

fn guards(sabotage: Option<Sabotage>) -> Guards {
    Guards {
        ledger_before_settle: sabotage != Some(Sabotage::LedgerBeforeSettle),
        redo_from_batch_rows: sabotage != Some(Sabotage::RedoFromBatchRows),
        payload_compare: sabotage != Some(Sabotage::PayloadCompare),
    }
}

/// A connection of somebody who is never killed.
pub fn somebody_else(world: &World) -> rusqlite::Result<rusqlite::Connection> {
    let flags = rusqlite::OpenFlags::default();
    let connection = rusqlite::Connection::open_with_flags_and_vfs(
        path(0, "effects", "shop.db"),
        flags,
        world.files.name(),
    )?;
    connection.execute_batch("PRAGMA synchronous = EXTRA")?;
    Ok(connection)
}

/// The effect of a process, as the flow opens it.
pub fn open_effect(scene: &Scene, process: Process) -> Result<SqliteEffect, String> {
    let mut settings =
        SqliteEffectSettings::new(path(process, "effects", "shop.db"), scene.spec.flow.clone());
    settings.vfs = Some(scene.world.files.name().to_owned());
    settings.routes = scene::routes();
    settings.effects = EffectRows::Table;
    settings.busy_timeout_ms = 50;
    settings.threaded = false;
    settings.guards.claim = scene.sabotage != Some(Sabotage::Claim);
    SqliteEffect::open(settings).map_err(|error| format!("effects: {error}"))
}

fn open_log(scene: &Scene, process: Process) -> Result<EmbeddedLog, String> {
    let settings = LogSettings { vfs: Some(scene.world.files.name().to_owned()), ..LogSettings::default() };
    let id = u128::from(scene.seed) << 64 | u128::from(process);
    let path = EmbeddedLog::path_in(Path::new(&format!("/{process}/log")), "orders");
    EmbeddedLog::open_inline(&path, settings, id).map_err(|error| format!("log: {error}"))
}
