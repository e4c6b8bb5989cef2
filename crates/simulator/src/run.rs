//! One seed from beginning to end: lives, what lies between them, and the final reckoning.

use crate::life::{Life, LifeEnd, Scene, somebody_else};
use crate::mend::{Mend, Recovery, recover};
use crate::observe::{Standing, read_books, read_rows, standing};
use crate::options::Options;
use crate::plan::{Act, Before, LifePlan};
use crate::report::Report;
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::scene;
use crate::verify::{check_end, check_history};
use crate::vfs::{DiskImage, FileSystem, Loss};
use crate::world::{DISKS, Process, World};
use recount_checks::FlowChecks;
use recount_engine::FlowEnd;
use recount_model::ConfigVersion;
use std::sync::Arc;

/// Quiet lives that the end may take: one that finishes what recovery began, one that drains.
const QUIET_LIVES_MAX: usize = 8;

/// The images of one moment.
struct Images {
    effects: DiskImage,
    ledger: DiskImage,
    log: DiskImage,
}

/// A seed under way.
struct Run {
    scene: Scene,
    rng: Rng,
    process: Process,
    images: Option<Images>,
    /// What the ledger's journal would say: a recovery was begun and not finished.
    recovery: Option<Recovery>,
    needs_adoption: bool,
}

/// Simulates one seed.
pub fn simulate(files: &'static FileSystem, checks: Arc<FlowChecks>, seed: u64, options: &Options) -> Report {
    let mut run = match Run::begin(files, checks, seed, options) {
        Ok(run) => run,
        Err(error) => return Report::broken(seed, format!("the world could not be made: {error}")),
    };
    run.live_and_die();
    let world = Arc::clone(&run.scene.world);
    if !world.is_broken() {
        run.come_to_an_end();
    }
    let segments = files.lock().disk("ledger").map_or(Vec::new(), |disk| disk.list("book"));
    let sealed = segments.iter().filter(|name| name.ends_with("-sealed.db")).count();
    world.count_many("ledger segments sealed", sealed as u64);
    drop(run);
    Report::of(seed, &world)
}

impl Run {
    fn begin(
        files: &'static FileSystem,
        checks: Arc<FlowChecks>,
        seed: u64,
        options: &Options,
    ) -> rusqlite::Result<Self> {
        let mut rng = Rng::new(seed);
        files.reset(&DISKS, rng.next());
        let has_log = rng.percent(50);
        let partitions = if has_log { 1 } else { rng.between(1, 2) as usize };
        let events = rng.between(options.events_min, options.events_max) / partitions as u64;
        let mut items_rng = rng.fork();
        let items = (0..partitions)
            .map(|partition| scene::publish(partition, events, !has_log, &mut items_rng))
            .collect();
        let world = World::new(files, items, rng.fork(), options.is_traced);
        make_database(&world, partitions, rng.percent(30))?;
        if options.sabotage == Some(Sabotage::Sync) {
            let disks = if has_log { 3 } else { 2 };
            files.make_syncs_lie(DISKS[rng.below(disks) as usize]);
        }
        let mut birth = [0; 48];
        birth.fill_with(|| rng.next() as u8);
        let scene = Scene {
            world,
            checks,
            spec: scene::spec(ConfigVersion(1), &mut rng),
            has_log,
            sabotage: options.sabotage,
            birth,
            segment_bytes_max: if rng.percent(40) { rng.between(60_000, 200_000) } else { 1 << 30 },
            seed,
        };
        Ok(Self { scene, rng, process: 1, images: None, recovery: None, needs_adoption: false })
    }

    fn world(&self) -> &Arc<World> {
        &self.scene.world
    }

    /// Lives with faults.
    fn live_and_die(&mut self) {
        let lives = self.rng.between(2, 6);
        for life in 1..=lives {
            self.world().limit_publishing(1000 * life / (lives + 1));
            if self.recovery.is_some() || self.needs_adoption {
                self.mend(true);
            } else {
                let plan = LifePlan::draw(&mut self.rng, self.process, self.scene.has_log);
                self.live(plan);
            }
            if self.world().is_broken() {
                return;
            }
            if self.images.is_none() || self.rng.percent(30) {
                self.keep_images();
            }
        }
    }

    /// Quiet lives until everything is decided, and then the reckoning.
    fn come_to_an_end(&mut self) {
        self.world().limit_publishing(1000);
        for _ in 0..QUIET_LIVES_MAX {
            if self.recovery.is_some() || self.needs_adoption {
                self.mend(false);
            } else if self.live(LifePlan::quiet()) {
                let declared = self.scene.spec.budgets.keys().cloned().collect();
                if let Err(broken) = check_end(self.world(), &declared, &self.scene.spec.flow) {
                    self.world().violated(broken);
                }
                return;
            }
            if self.world().is_broken() {
                return;
            }
        }
        self.world().violated("nothing more goes wrong, and yet the flow doesn't come to its end");
    }

    /// One life; true if it ended with everything decided.
    fn live(&mut self, mut plan: LifePlan) -> bool {
        let later = self.prepare(&mut plan);
        let expected = self.standing_if_restored(&plan);
        self.world().count(&format!("life: {}", plan.name));
        let process = self.process;
        self.world().tell(u64::from(process), || format!("life of process {process}: {}", plan.name));
        self.unhide_tables();
        self.arm(&plan);
        let end = self.run_life(&plan, process);
        self.process += 2;
        self.after_life(process, &plan);
        if let Some(later) = later {
            self.world().files.restore("log", &later);
        }
        if self.world().is_broken() {
            return false;
        }
        self.judge_end(&plan, end, expected)
    }

    fn arm(&self, plan: &LifePlan) {
        self.world().lock().step_crash = plan.step_crash;
        for fault in &plan.faults {
            self.world().files.plan(fault.clone());
        }
    }

    fn run_life(&self, plan: &LifePlan, process: Process) -> LifeEnd {
        in_virtual_time(self.world(), async {
            match Life::begin(&self.scene, plan, process, true).await {
                Ok(mut life) => life.run().await,
                Err(why) => LifeEnd::NotOpened(why),
            }
        })
    }

    /// What is done to the disks before; gives the log's image that is to come back afterwards.
    fn prepare(&mut self, plan: &mut LifePlan) -> Option<DiskImage> {
        let world = Arc::clone(self.world());
        let is_known = !world.lock().history.is_empty();
        let images = self.images.as_ref().filter(|_| is_known);
        let Some(images) = images.filter(|_| plan.before != Before::Nothing) else {
            plan.before = Before::Nothing;
            return None;
        };
        if let Ok(Some(books)) = read_books(&world)
            && let Err(broken) = check_history(&world, &books)
        {
            world.violated(broken);
        }
        match plan.before {
            Before::Nothing => None,
            Before::RestoreEffects => {
                world.files.restore("effects", &images.effects);
                world.count("database restored from earlier");
                None
            }
            Before::RestoreLedger => {
                world.files.restore("ledger", &images.ledger);
                world.count("ledger restored from earlier");
                self.relearn_ledger();
                None
            }
            Before::RestoreBoth => {
                world.files.restore("effects", &images.effects);
                world.files.restore("ledger", &images.ledger);
                world.count("database and ledger restored from earlier");
                self.relearn_ledger();
                None
            }
            Before::RestoreLog => {
                let later = world.files.image("log");
                world.files.restore("log", &images.log);
                world.count("log restored from earlier");
                later
            }
            Before::NewLog => {
                let later = world.files.image("log");
                world.files.restore("log", &DiskImage::default());
                world.count("source made anew");
                later
            }
        }
    }

    /// What the ledger says now is all that it can be held to.
    fn relearn_ledger(&self) {
        let world = self.world();
        match read_books(world) {
            Ok(books) => world.relearn(books.as_ref()),
            Err(error) => world.violated(format!("the restored ledger can't be read: {error}")),
        }
    }

    fn standing_if_restored(&self, plan: &LifePlan) -> Option<Standing> {
        let restored =
            matches!(plan.before, Before::RestoreEffects | Before::RestoreLedger | Before::RestoreBoth);
        restored.then(|| self.standing())
    }

    fn standing(&self) -> Standing {
        let world = self.world();
        let marks = match read_books(world) {
            Ok(books) => books.map(|books| books.marks).unwrap_or_default(),
            Err(error) => {
                world.violated(format!("the ledger can't be read: {error}"));
                return Standing::default();
            }
        };
        match read_rows(world) {
            Ok(rows) => standing(&rows, &marks),
            Err(error) => {
                world.violated(format!("the database can't be read: {error}"));
                Standing::default()
            }
        }
    }

    /// A table that was hidden when the process died is brought back by whoever hid it.
    fn unhide_tables(&self) {
        if let Ok(connection) = somebody_else(self.world()) {
            // Usually it is there under its name, and this errs.
            let _ = connection.execute_batch("ALTER TABLE stock_away RENAME TO stock");
            let _ = connection.execute_batch("UPDATE stock SET open = 1 WHERE open = 0");
        }
    }

    /// Everything of the life is dead; the power may go too, of each disk by itself.
    fn after_life(&mut self, process: Process, plan: &LifePlan) {
        let world = Arc::clone(self.world());
        for dead in [process, process + 1] {
            world.files.kill(dead);
        }
        world.lock().step_crash = None;
        world.files.clear_faults();
        for ((failure, operation), times) in world.files.take_struck() {
            world.count_many(&format!("disk: {failure:?} at {operation:?}"), times);
        }
        for disk in DISKS {
            if !self.rng.percent(if plan.crashes() { 60 } else { 25 }) {
                continue;
            }
            let loss = *self.rng.pick(&[Loss::Everything, Loss::Some, Loss::Nothing]);
            let told = world.files.lose_power(disk, loss);
            world.tell(told.vanished, || format!("power of {disk} lost: {loss:?}, {told:?}"));
            if told.vanished > 0 {
                world.count(&format!("unsynced writes vanished: {disk}"));
            }
            if told.torn > 0 {
                world.count(&format!("writes torn: {disk}"));
            }
        }
        let open = world.files.open_handles();
        if open > 0 {
            world.violated(format!("{open} files are still open after the death of their process"));
        }
    }

    fn keep_images(&mut self) {
        // A ledger that was killed while it was made is nothing that anyone would keep a copy of.
        if read_books(self.world()).is_err() {
            return;
        }
        let image = |disk| self.scene.world.files.image(disk).unwrap_or_default();
        self.images = Some(Images { effects: image("effects"), ledger: image("ledger"), log: image("log") });
    }

    /// Whether the life ended as it had to.
    fn judge_end(&mut self, plan: &LifePlan, end: LifeEnd, expected: Option<Standing>) -> bool {
        let world = Arc::clone(self.world());
        let has_faults = !plan.faults.is_empty() || plan.crashes();
        let stops = match end {
            LifeEnd::Crashed if plan.crashes() => return false,
            LifeEnd::Crashed => {
                world.violated("a process died of nothing");
                return false;
            }
            LifeEnd::GaveUp => return false,
            LifeEnd::NotOpened(_) if has_faults => return false,
            LifeEnd::NotOpened(why) => {
                world.violated(format!("could not be opened: {why}"));
                return false;
            }
            LifeEnd::Flow(FlowEnd::Stopped(stops)) => stops,
            LifeEnd::Flow(FlowEnd::Drained | FlowEnd::ShutDown) => Vec::new(),
        };
        for stop in &stops {
            world.count(&format!("stopped: {}", stop.reason));
            world.tell(stops.len() as u64, || format!("stopped: {stop}"));
        }
        let reasons: Vec<&str> = stops.iter().map(|stop| stop.reason.as_str()).collect();
        if let Some(standing) = &expected
            && !self.accept_standing(standing, &reasons)
        {
            return false;
        }
        let may_stop = |reason: &str| match reason {
            "effects_rolled_back" => expected.as_ref().is_some_and(|s| !s.rolled_back.is_empty()),
            "positions_unrecorded" => expected.as_ref().is_some_and(|s| !s.unrecorded.is_empty()),
            "source_changed" => matches!(plan.before, Before::NewLog | Before::RestoreLog),
            "position_reused" => plan.reuses_positions,
            // One that was frozen before it took a partition takes it when it wakes.
            "partition_taken" => plan.acts.iter().any(|(_, act)| *act == Act::Freeze),
            "ledger_full" => !plan.faults.is_empty(),
            _ => false,
        };
        if let Some(stop) = stops.iter().find(|stop| !may_stop(stop.reason.as_str())) {
            world.violated(format!("the flow stopped, {}, for no cause: {stop}", stop.reason));
        }
        stops.is_empty() && plan.name == "quiet"
    }

    /// After a restore the flow must refuse, as the protocol's table says; then a decision is taken.
    fn accept_standing(&mut self, standing: &Standing, reasons: &[&str]) -> bool {
        let world = Arc::clone(self.world());
        if !standing.rolled_back.is_empty() {
            if !reasons.contains(&"effects_rolled_back") {
                world.violated(format!("effects were rolled back and the flow went on: {standing:?}"));
                return false;
            }
            let mend = if self.rng.percent(60) { Mend::Reapply } else { Mend::Accept };
            self.recovery = Some(Recovery::new(u64::from(self.process), standing, mend));
        }
        if !standing.unrecorded.is_empty() {
            if !reasons.iter().any(|r| matches!(*r, "positions_unrecorded" | "effects_rolled_back")) {
                world.violated(format!("the ledger lost decisions and the flow went on: {standing:?}"));
                return false;
            }
            self.needs_adoption = true;
        }
        true
    }

    /// What an operator does after a restore; it may be interrupted like everything else.
    fn mend(&mut self, may_crash: bool) {
        let process = self.process;
        self.process += 2;
        let mut plan = LifePlan::quiet();
        if may_crash && self.rng.percent(40) {
            plan = LifePlan::crash_somewhere(&mut self.rng, process);
        }
        plan.adopt = self.needs_adoption;
        self.unhide_tables();
        self.arm(&plan);
        let world = Arc::clone(self.world());
        if let Some(recovery) = self.recovery.clone() {
            let done = in_virtual_time(&world, recover(&self.scene, &plan, process, &recovery));
            self.after_life(process, &plan);
            match done {
                Ok(()) => {
                    world.count(&format!("recovered: {:?}", recovery.mend));
                    self.recovery = None;
                }
                Err(why) if plan.crashes() => world.tell(3, || format!("recovery interrupted: {why}")),
                Err(why) => world.violated(format!("the recovery failed: {why}")),
            }
            return;
        }
        world.lock().has_adopted = true;
        let end = self.run_life(&plan, process);
        self.after_life(process, &plan);
        match end {
            LifeEnd::Flow(FlowEnd::Stopped(stops)) => {
                world.violated(format!("adopting did not work: {}", stops[0]));
            }
            LifeEnd::Flow(_) => {
                world.count("adopted");
                self.needs_adoption = false;
            }
            LifeEnd::NotOpened(why) if !plan.crashes() => {
                world.violated(format!("could not be opened: {why}"))
            }
            // Whether it was adopted before the crash, the next standing tells.
            _ => self.needs_adoption = !self.standing().unrecorded.is_empty(),
        }
    }
}

fn make_database(world: &World, partitions: usize, has_journal: bool) -> rusqlite::Result<()> {
    let connection = somebody_else(world)?;
    let mode = if has_journal { "DELETE" } else { "WAL" };
    connection.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(()))?;
    connection.execute_batch(&scene::tables_sql(partitions))
}

/// Runs something on a runtime of its own in which time passes only when everybody waits.
fn in_virtual_time<R>(world: &World, what: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing from the system");
    let result = runtime.block_on(async {
        world.begin_life();
        let result = what.await;
        world.end_life();
        result
    });
    // Tasks of the dead go with it, before anybody else opens their files.
    drop(runtime);
    result
}
