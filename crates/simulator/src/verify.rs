//! What must hold at the end, looked up from outside: the law of the books, the effects, the order.

use crate::life::somebody_else;
use crate::observe::{Books, read_books, read_rows};
use crate::scene::{self, CHAIN_FACTOR, CHAIN_MODULUS, Item, Kind, ON_HAND_FIRST};
use crate::watched::payload_hash;
use crate::world::World;
use recount_ledger::{LedgerRead, StoredDecision};
use recount_model::{Fate, FlowName, GapKind, PartitionId, ReasonCode};
use std::collections::{BTreeMap, BTreeSet};

/// One `recount_effect` row.
struct EffectRow {
    partition: usize,
    offset: u64,
    event_id: Option<String>,
}

struct Verifying<'w> {
    world: &'w World,
    books: Books,
    /// The current decision of each position.
    current: BTreeMap<(usize, u64), StoredDecision>,
    /// Positions that have none, and why.
    gaps: BTreeMap<(usize, u64), GapKind>,
    effects: Vec<EffectRow>,
}

/// Checks that the ledger still says what it said before; called before it is replaced, and at the end.
pub fn check_history(world: &World, books: &Books) -> Result<(), String> {
    let mut found: BTreeMap<(&PartitionId, u64), Vec<&StoredDecision>> = BTreeMap::new();
    for stored in &books.decisions {
        found.entry((&stored.header.at, stored.header.seq)).or_default().push(stored);
    }
    let inner = world.lock();
    for ((at, seq), record) in &inner.history {
        let Some((epoch, decided_at)) = books.batches.get(&(at.clone(), *seq)) else {
            return Err(format!("I2: the ledger had batch {seq} of {at}, and has it no more"));
        };
        let now = found.get(&(at, *seq)).map_or(&[][..], Vec::as_slice);
        let same = (*epoch, *decided_at) == (record.epoch, record.decided_at.0)
            && now.iter().map(|stored| &stored.decision).eq(record.decisions.iter());
        if !same {
            return Err(format!(
                "I2: batch {seq} of {at} was epoch {} with {} decisions, and is epoch {epoch} with {} now",
                record.epoch,
                record.decisions.len(),
                now.len()
            ));
        }
    }
    Ok(())
}

/// Everything that must hold once every event is decided. `source` is the incarnation that was read.
pub fn check_end(world: &World, declared: &BTreeSet<ReasonCode>, flow: &FlowName) -> Result<(), String> {
    let books = read_books(world).map_err(|error| format!("the ledger can't be read: {error}"))?;
    let books = books.ok_or("there is no ledger")?;
    check_history(world, &books)?;
    let mut verifying = Verifying {
        world,
        current: BTreeMap::new(),
        gaps: BTreeMap::new(),
        effects: read_effects(world).map_err(|error| format!("recount_effect can't be read: {error}"))?,
        books,
    };
    verifying.check_fates(declared, flow)?;
    verifying.check_bodies()?;
    verifying.check_positions()?;
    verifying.check_effects()?;
    verifying.check_order()?;
    verifying.check_stock()
}

fn index_of(at: &PartitionId) -> usize {
    at.partition.as_str().parse().unwrap_or(usize::MAX)
}

fn read_effects(world: &World) -> rusqlite::Result<Vec<EffectRow>> {
    let connection = somebody_else(world)?;
    let sql = "SELECT partition, \"offset\", event_id FROM recount_effect ORDER BY rowid";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(EffectRow {
            partition: row.get::<_, String>(0)?.parse().unwrap_or(usize::MAX),
            offset: row.get::<_, i64>(1)? as u64,
            event_id: row.get(2)?,
        })
    })?;
    rows.collect()
}

impl Verifying<'_> {
    fn item(&self, partition: usize, offset: u64) -> Result<&Item, String> {
        let items = self.world.items.get(partition);
        items.and_then(|items| items.get(offset as usize)).ok_or_else(|| {
            format!("partition {partition}, offset {offset} was never published, and is in the ledger")
        })
    }

    /// I2 and I3: one current fate for each position, for a declared reason, that its event may come to.
    fn check_fates(&mut self, declared: &BTreeSet<ReasonCode>, flow: &FlowName) -> Result<(), String> {
        for (at, gap) in &self.books.gaps {
            for offset in gap.from..gap.to {
                if self.gaps.insert((index_of(at), offset), gap.kind).is_some() {
                    return Err(format!("I2: {at}/{offset} is in two gaps"));
                }
            }
        }
        for stored in &self.books.decisions {
            let (at, decision) = (&stored.header.at, &stored.decision);
            if at.flow != *flow {
                return Err(format!("{at} is of another flow"));
            }
            let place = (index_of(at), decision.offset);
            if stored.current && self.current.insert(place, stored.clone()).is_some() {
                return Err(format!("I2: {at}/{} has two current decisions", decision.offset));
            }
            if let Some(reason) = decision.fate.reason()
                && !declared.contains(&reason.code)
            {
                return Err(format!("I3: {at}/{}: {} is not declared", decision.offset, reason.code));
            }
        }
        for (partition, items) in self.world.items.iter().enumerate() {
            for (offset, item) in items.iter().enumerate() {
                self.check_fate(partition, offset as u64, item)?;
            }
        }
        let all: usize = self.world.items.iter().map(Vec::len).sum();
        match self.current.len() + self.gaps.len() {
            found if found == all => Ok(()),
            found => Err(format!("I2: {all} positions were published, {found} have a fate or a gap")),
        }
    }

    fn check_fate(&self, partition: usize, offset: u64, item: &Item) -> Result<(), String> {
        let place = (partition, offset);
        match (self.current.get(&place), self.gaps.get(&place)) {
            (None, None) => Err(format!("I2: partition {partition}, offset {offset} has no fate: vanished")),
            (Some(_), Some(kind)) => {
                Err(format!("I2: partition {partition}, offset {offset} has a fate and is {}", kind.word()))
            }
            (None, Some(GapKind::NotAnEvent)) if item.kind == Kind::Blank => Ok(()),
            (None, Some(GapKind::Unrecorded)) if self.world.lock().has_adopted => Ok(()),
            (None, Some(kind)) => {
                Err(format!("partition {partition}, offset {offset} is {} for no cause", kind.word()))
            }
            (Some(stored), None) => self.check_decision(partition, item, stored),
        }
    }

    fn check_decision(&self, partition: usize, item: &Item, stored: &StoredDecision) -> Result<(), String> {
        let decision = &stored.decision;
        let told = || format!("partition {partition}, offset {} ({:?})", decision.offset, item.kind);
        let first = |offset: u64| {
            let kind = self.world.items[partition][offset as usize].kind;
            (kind, self.current.get(&(partition, offset)).map(|stored| stored.decision.fate.clone()))
        };
        if !scene::may_become(item.kind, &decision.fate, &first) {
            let id = decision.event_id.as_deref();
            let others = self.books.decisions.iter().filter(|other| other.decision.event_id.as_deref() == id);
            let others = others.map(|other| {
                let (seq, offset) = (other.header.seq, other.decision.offset);
                format!("batch {seq}: {offset} {}", other.decision.fate)
            });
            return Err(format!(
                "{} became {}, which it can't; decisions of its id: {}",
                told(),
                decision.fate,
                others.collect::<Vec<_>>().join(", ")
            ));
        }
        let was_killed = decision.fate.reason().is_some_and(|r| r.code.as_str() == "killed_the_process");
        let id = if was_killed { decision.event_id.as_deref() } else { item.id.as_deref() };
        if decision.event_id.as_deref() != id {
            return Err(format!("{}: its id is {id:?}, the ledger has {:?}", told(), decision.event_id));
        }
        if decision.payload_hash != payload_hash(id, &item.payload) {
            return Err(format!("{}: the ledger has another payload's hash", told()));
        }
        Ok(())
    }

    /// Dead letters are kept whole.
    fn check_bodies(&self) -> Result<(), String> {
        for ((partition, offset), stored) in &self.current {
            if !matches!(stored.decision.fate, Fate::DeadLettered(_)) {
                continue;
            }
            let body = self.books.reader.body(&stored.header.at, *offset).map_err(|e| e.to_string())?;
            let item = self.item(*partition, *offset)?;
            match body {
                Some(body) if body.payload == *item.payload && !body.attempts.is_empty() => {}
                Some(_) => return Err(format!("dead letter {partition}/{offset} is kept with other bytes")),
                None => return Err(format!("dead letter {partition}/{offset} is not kept")),
            }
        }
        Ok(())
    }

    /// The arbiter and the ledger stand at the end of what was published.
    fn check_positions(&self) -> Result<(), String> {
        let rows = read_rows(self.world).map_err(|error| error.to_string())?;
        for (at, mark) in &self.books.marks {
            let published = self.world.items.get(index_of(at)).map_or(0, Vec::len) as u64;
            let row = rows.get(at).ok_or_else(|| format!("{at} has no row in recount_position"))?;
            if (row.seq, row.next_offset) != (mark.seq, mark.next_offset) {
                return Err(format!("{at}: the row stands at {row:?}, the ledger at {mark:?}"));
            }
            if mark.next_offset != published {
                return Err(format!("{at}: {published} published, the prefix ends at {}", mark.next_offset));
            }
        }
        Ok(())
    }

    /// Each applied decision has exactly one effect, and each effect an applied decision.
    fn check_effects(&self) -> Result<(), String> {
        let mut effects: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        for row in &self.effects {
            *effects.entry((row.partition, row.offset)).or_default() += 1;
            let item = self.item(row.partition, row.offset)?;
            if item.id != row.event_id {
                return Err(format!("an effect at offset {} names {:?}", row.offset, row.event_id));
            }
        }
        for ((partition, offset), times) in &effects {
            let fate = self.current.get(&(*partition, *offset)).map(|stored| &stored.decision.fate);
            if *times > 1 {
                return Err(format!("partition {partition}, offset {offset} was applied {times} times"));
            }
            match (fate, self.gaps.get(&(*partition, *offset))) {
                (Some(Fate::Applied), _) | (None, Some(GapKind::Unrecorded)) => {}
                (Some(fate), _) => {
                    return Err(format!(
                        "I3: partition {partition}, offset {offset} is {fate}, and left an effect"
                    ));
                }
                (None, _) => {
                    return Err(format!(
                        "partition {partition}, offset {offset} has an effect and no decision"
                    ));
                }
            }
        }
        let applied = |s: &&StoredDecision| s.decision.fate == Fate::Applied;
        for stored in self.current.values().filter(applied) {
            if !effects.contains_key(&(index_of(&stored.header.at), stored.decision.offset)) {
                let at = &stored.header.at;
                return Err(format!("{at}/{} is applied, and its effect is gone", stored.decision.offset));
            }
        }
        Ok(())
    }

    /// Events of a key are applied in the order of their offsets, but for those that were decided anew.
    fn check_order(&self) -> Result<(), String> {
        let mut last: BTreeMap<(usize, &str), u64> = BTreeMap::new();
        for row in &self.effects {
            let item = self.item(row.partition, row.offset)?;
            let stored = self.current.get(&(row.partition, row.offset));
            if stored.is_some_and(|stored| stored.decision.corrects.is_some()) {
                continue;
            }
            let Some(article) = item.article.as_deref() else { continue };
            if let Some(before) = last.insert((row.partition, article), row.offset)
                && before > row.offset
            {
                return Err(format!("order of key {article}: {before} was applied before {}", row.offset));
            }
        }
        Ok(())
    }

    /// The stock is what the effects make of it, in their order; movements are those of applied returns.
    fn check_stock(&self) -> Result<(), String> {
        let mut stock: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let mut movements: Vec<(String, i64, i64)> = Vec::new();
        for row in &self.effects {
            let item = self.item(row.partition, row.offset)?;
            let Some(article) = item.article.clone() else { continue };
            let (on_hand, chain) = stock.entry(article.clone()).or_insert((ON_HAND_FIRST as i64, 0));
            *chain = (*chain * CHAIN_FACTOR + item.mark as i64) % CHAIN_MODULUS;
            if is_return(item) {
                *on_hand += item.quantity as i64;
                movements.push((article, item.quantity as i64, item.mark as i64));
            } else {
                *on_hand -= item.quantity as i64;
            }
        }
        let (found, mut found_movements) = read_stock(self.world).map_err(|error| error.to_string())?;
        for (article, (on_hand, chain)) in found {
            let expected = stock.get(&article).copied().unwrap_or((ON_HAND_FIRST as i64, 0));
            if expected != (on_hand, chain) {
                return Err(format!(
                    "stock of {article} is {on_hand} with chain {chain}; its effects make {expected:?}"
                ));
            }
        }
        movements.sort();
        found_movements.sort();
        if movements != found_movements {
            return Err(format!(
                "I3: {} movements by applied returns, {} in the database",
                movements.len(),
                found_movements.len()
            ));
        }
        Ok(())
    }
}

fn is_return(item: &Item) -> bool {
    String::from_utf8_lossy(&item.payload).contains("\"type\":\"return\"")
}

type Stock = Vec<(String, (i64, i64))>;
type Movements = Vec<(String, i64, i64)>;

fn read_stock(world: &World) -> rusqlite::Result<(Stock, Movements)> {
    let connection = somebody_else(world)?;
    let mut statement = connection.prepare("SELECT article, on_hand, chain FROM stock")?;
    let stock = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    let stock: Stock = stock.collect::<rusqlite::Result<_>>()?;
    let mut statement = connection.prepare("SELECT article, quantity, mark FROM movement")?;
    let movements = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let movements = movements.collect::<rusqlite::Result<_>>()?;
    Ok((stock, movements))
}
