//! Each way in which a world can be wrong is found and named.

use crate::world::{Effects, SHORT, World, ZERO, decision};
use expect_test::{Expect, expect};
use recount_audit::{AuditReport, WitnessError, books, render};
use recount_ledger::{JournalEntry, JournalKind};
use recount_model::{
    Budget, Corrects, Decision, Fate, Gap, GapKind, Partition, Reason, ReasonCode, SourceId, Timestamp,
};

/// The exit code, and one line a statement with its findings' names.
fn told(world: &World) -> String {
    told_of(&world.audit())
}

pub fn told_of(report: &AuditReport) -> String {
    let mut text = format!("exit {}", report.exit_code());
    for statement in &report.flows[0].statements {
        let (equation, status) = (statement.equation.word(), statement.status.word());
        text.push_str(&format!("\n{equation} {} {status}", statement.strength.word()));
        for finding in &statement.findings {
            let names = finding.names.join(", ");
            text.push_str(&format!("\n   {} {}: {names}", finding.code, finding.count));
        }
    }
    text
}

fn check(damage: impl FnOnce(&mut World), expected: Expect) {
    let mut world = World::new(100);
    damage(&mut world);
    expected.assert_eq(&told(&world));
}

#[test]
fn a_right_world_balances_in_every_equation() {
    check(
        |_| {},
        expect![[r#"
        exit 0
        E1 counted balanced
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
    check(
        |w| w.effects = Effects::Attested,
        expect![[r#"
        exit 0
        E1 counted balanced
        E1 identified balanced
        E2 commit-attested balanced
        E3 summed to one cut balanced"#]],
    );
    check(
        |w| w.effects = Effects::CustomIds,
        expect![[r#"
        exit 0
        E1 counted balanced
        E1 identified balanced
        E2 counted by id balanced
        E3 summed to one cut balanced"#]],
    );
    check(
        |w| w.effects = Effects::CustomTotal,
        expect![[r#"
        exit 0
        E1 counted balanced
        E1 identified balanced
        E2 counted in total only balanced
        E3 summed to one cut balanced"#]],
    );
}

#[test]
fn a_decision_deleted_from_the_ledger_is_named() {
    check(
        |w| w.forget_decision(17),
        expect![[r#"
        exit 1
        E1 counted imbalanced
           positions_missing 1: reserve-stock/orders/17
        E1 identified imbalanced
           positions_missing 1: reserve-stock/orders/17 (id o-17)
        E2 counted imbalanced
           effects_without_decision 1: reserve-stock/orders/17
        E3 summed to one cut imbalanced
           reconcile_differs 1: sku-2: +3 (database 80, events 77)"#]],
    );
}

#[test]
fn one_lost_and_one_twice_do_not_cancel() {
    let damage = |w: &mut World| {
        w.forget_decision(31);
        let twice = w.ledger.batches[3].decisions[2].clone();
        w.ledger.batches[3].decisions.push(twice);
    };
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted imbalanced
           positions_missing 1: reserve-stock/orders/31
           position_reused 1: reserve-stock/orders/33
        E1 identified imbalanced
           positions_missing 1: reserve-stock/orders/31 (id o-31)
           position_reused 1: reserve-stock/orders/33
        E2 counted imbalanced
           effects_without_decision 1: reserve-stock/orders/31
        E3 summed to one cut imbalanced
           reconcile_differs 2: sku-0: -4 (database 77, events 81), sku-1: +2 (database 80, events 78)"#]],
    );
    let damage = |w: &mut World| {
        w.forget_effect(31);
        w.database.effects.push(32);
    };
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted imbalanced
           effects_missing 1: reserve-stock/orders/31
           effects_without_decision 1: reserve-stock/orders/32
        E3 summed to one cut balanced"#]],
    );
}

#[test]
fn another_id_at_a_position_is_named_and_a_secret_one_is_not_shown() {
    let damage = |w: &mut World| w.ledger.batches[2].decisions[5].event_id = Some("o-999".into());
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified imbalanced
           position_reused 1: reserve-stock/orders/25 (source (id o-25), ledger (id o-999))
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
    let damage = |w: &mut World| {
        w.id_is_secret = true;
        w.ledger.batches[2].decisions[5].event_id = Some("o-999".into());
    };
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified imbalanced
           position_reused 1: reserve-stock/orders/25
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
}

#[test]
fn what_is_not_decided_yet_is_open() {
    let damage = |w: &mut World| (100..103).for_each(|offset| w.publish(offset));
    check(
        damage,
        expect![[r#"
        exit 0
        E1 counted open
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
}

#[test]
fn open_for_longer_than_allowed_is_not_working() {
    let mut world = World::new(100);
    world.publish(100);
    world.now = Timestamp(10_000 + 3_600_001);
    let report = world.audit();
    expect!["1 position open and nothing decided there since 1970-01-01T00:00:10Z; 1h is allowed"]
        .assert_eq(&report.flows[0].not_working.join("\n"));
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn without_its_source_nothing_is_called_balanced() {
    let gone = |w: &mut World| w.source.away = Some(WitnessError::Gone("orders.ndjson is not there".into()));
    check(
        gone,
        expect![[r#"
        exit 3
        E1 not counted unprovable
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
    let anew = |w: &mut World| w.source.at.source = SourceId::new("file-2");
    check(
        anew,
        expect![[r#"
            exit 3
            E1 counted unprovable
            E1 identified unprovable
            E2 counted balanced
            E3 summed to one cut balanced"#]],
    );
    let cut_short = |w: &mut World| w.source.records.truncate(97);
    check(
        cut_short,
        expect![[r#"
        exit 1
        E1 counted imbalanced
           position_reused 3: reserve-stock/orders/97-99
        E1 identified imbalanced
           position_reused 3: reserve-stock/orders/97 (id o-97), reserve-stock/orders/98 (id o-98), reserve-stock/orders/99 (id o-99)
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
}

#[test]
fn without_its_database_effects_are_unprovable() {
    let away = |w: &mut World| w.database.away = Some(WitnessError::Unreachable("shop.db is locked".into()));
    check(
        away,
        expect![[r#"
        exit 3
        E1 counted balanced
        E1 identified balanced
        E2 not counted unprovable
        E3 not counted unprovable"#]],
    );
}

#[test]
fn a_database_from_before_is_named_by_the_positions_that_it_lacks() {
    let restored = |w: &mut World| {
        w.database.rows[0].seq = 8;
        w.database.rows[0].next_offset = 80;
        w.database.effects.retain(|offset| *offset < 80);
        for offset in (80..100).filter(|o| crate::world::fate(*o) == Fate::Applied) {
            *w.database.taken.get_mut(&crate::world::sku(offset)).unwrap() -= crate::world::quantity(offset);
        }
    };
    check(
        restored,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted imbalanced
           effects_rolled_back 20: reserve-stock/orders/80-99
        E3 summed to one cut balanced"#]],
    );
    let empty = |w: &mut World| w.database = Default::default();
    check(
        empty,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted imbalanced
           effects_rolled_back 100: reserve-stock/orders/0-99
        E3 summed to one cut balanced"#]],
    );
    let foreign = |w: &mut World| w.database.rows[0].ledger_id = "ledger-2".into();
    check(
        foreign,
        expect![[r#"
        exit 3
        E1 counted balanced
        E1 identified balanced
        E2 counted unprovable
           ledger_foreign 1: reserve-stock/orders: the database names ledger ledger-2, this one is ledger-1
        E3 summed to one cut balanced"#]],
    );
}

#[test]
fn a_ledger_behind_the_database_is_open_only_where_the_batches_are_kept() {
    let behind = |w: &mut World| drop(w.ledger.batches.pop());
    check(
        behind,
        expect![[r#"
            exit 3
            E1 counted open
            E1 identified balanced
            E2 counted unprovable
               positions_unrecorded 1: reserve-stock/orders: batches after batch 9, 1 in all
            E3 not counted unprovable"#]],
    );
    let kept = |w: &mut World| {
        w.ledger.batches.pop();
        w.database.stored = vec![10];
    };
    check(
        kept,
        expect![[r#"
            exit 0
            E1 counted open
            E1 identified balanced
            E2 counted open
            E3 not counted open"#]],
    );
}

#[test]
fn effects_are_counted_position_by_position() {
    let damage = |w: &mut World| {
        w.forget_effect(0);
        w.database.effects.extend([6, 1]);
    };
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted imbalanced
           effects_missing 1: reserve-stock/orders/0
           effects_without_decision 1: reserve-stock/orders/6
           effects_twice 1: reserve-stock/orders/1 (2 times)
        E3 summed to one cut balanced"#]],
    );
    let damage = |w: &mut World| {
        w.effects = Effects::CustomIds;
        w.forget_effect(0);
        w.database.custom.extend(["o-6".into(), "o-1".into()]);
    };
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted by id imbalanced
           effects_missing 1: reserve-stock/orders/0 (id o-0)
           effects_without_decision 1: id o-6
           effects_twice 1: reserve-stock/orders/1 (id o-1, 2 times)
        E3 summed to one cut balanced"#]],
    );
    let damage = |w: &mut World| {
        w.effects = Effects::CustomTotal;
        w.forget_effect(0);
    };
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted in total only imbalanced
           effects_missing 1: 
        E3 summed to one cut balanced"#]],
    );
}

#[test]
fn a_stock_movement_that_no_event_made_is_found_by_the_reconcile_only() {
    let mut world = World::new(100);
    *world.database.taken.get_mut("sku-1").unwrap() += 12;
    expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut imbalanced
           reconcile_differs 1: sku-1: +12 (database 92, events 80)"#]]
    .assert_eq(&told(&world));
    let report = world.audit();
    let sentences: Vec<_> = report.flows[0].statements[2..].iter().map(|s| s.sentence.as_str()).collect();
    expect![[r#"
        78 applied decisions, 78 effects in the database; this can't see a change that no event made, and "units ordered leave the stock" does not come out even
        300 received in 100 events = 249 in the database + 23 insufficient_stock + 40 zero_quantity - 12 unexplained"#]].assert_eq(&sentences.join("\n"));
}

#[test]
fn a_replay_moves_the_books_and_is_not_counted_twice() {
    let mut world = World::new(100);
    world.replay(10, Fate::Applied);
    world.replay(21, Fate::DeadLettered(Reason::new(SHORT, "still")));
    world.replay(21, Fate::Applied);
    world.replay(32, Fate::DeadLettered(Reason::new(SHORT, "still")));
    expect![[r#"
        exit 0
        E1 counted balanced
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]]
    .assert_eq(&told(&world));
    let counted = &world.audit().flows[0].books;
    let by_ledger = books(&world.ledger, &world.at.flow).unwrap();
    assert_eq!(counted, &by_ledger);
    expect!["BookCounts { published: 100, applied: 80, skipped: 14, dead_lettered: 6, lost: 0, not_an_event: 0, unrecorded: 0, open: 0 }"].assert_eq(&format!("{:?}", counted.counts));
}

#[test]
fn two_corrections_of_one_decision_are_named() {
    let damage = |w: &mut World| {
        w.replay(10, Fate::Applied);
        let corrects = Some(Corrects { seq: 2, replay_id: 2 });
        w.batch(vec![Decision { corrects, ..decision(10, Fate::Applied) }], 100);
    };
    check(
        damage,
        expect![[r#"
        exit 1
        E1 counted imbalanced
           position_reused 1: reserve-stock/orders/10
        E1 identified balanced
        E2 counted imbalanced
           effects_twice 1: reserve-stock/orders/10 (2 times)
        E3 summed to one cut imbalanced
           reconcile_differs 1: sku-1: +1 (database 82, events 81)"#]],
    );
}

#[test]
fn gaps_are_fates_and_lost_ones_want_to_be_accepted() {
    let mut world = World::new(100);
    for (offset, kind) in [(100, GapKind::NotAnEvent), (101, GapKind::Lost)] {
        world.source.records.push(None);
        world.batch(vec![], offset + 1);
        let gap = Gap { from: offset, to: offset + 1, kind, cause: "blank line".into() };
        world.ledger.batches.last_mut().unwrap().gaps.push(gap);
    }
    expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced
        1 position lost, and nobody has accepted it"#]]
    .assert_eq(&(told(&world) + "\n" + &world.audit().flows[0].not_working.join("\n")));
    world.ledger.journal.push(operator(&world, "accepted", 50_000));
    assert_eq!(world.audit().exit_code(), 0);
    world.ledger.batches.last_mut().unwrap().gaps[0].kind = GapKind::Unrecorded;
    expect![[r#"
        exit 3
        E1 counted unprovable
           positions_unrecorded 1: reserve-stock/orders: 1 position
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]]
    .assert_eq(&told(&world));
}

fn operator(world: &World, what: &str, at: i64) -> JournalEntry {
    JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(world.at.flow.clone()),
        what: what.into(),
        at: Timestamp(at),
        persisted_at: Timestamp(at),
        detail: serde_json::json!({ "because": "seen" }),
    }
}

#[test]
fn a_budget_exceeded_by_one_event_is_not_well_until_it_is_accepted() {
    let mut world = World::new(100);
    world.budgets.insert(ZERO, Budget::parse("14% of 100").unwrap());
    world.budgets.insert(SHORT, Budget::parse("7% of 100").unwrap());
    expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced
        insufficient_stock exceeded its budget of 7% of 100: 8 at most in a window, first at reserve-stock/orders/98 (1970-01-01T00:00:10Z)"#]].assert_eq(&format!("{}\n{}", told(&world), world.audit().flows[0].not_working.join("\n")));
    world.ledger.journal.push(operator(&world, "resumed", 5_000));
    assert_eq!(world.audit().exit_code(), 1);
    world.ledger.journal.push(operator(&world, "resumed", 50_000));
    assert_eq!(world.audit().exit_code(), 0);
}

#[test]
fn balanced_books_without_any_effect_are_not_working() {
    let mut world = World::new(0);
    for offset in 0..50 {
        world.publish(offset);
    }
    let skipped = |o| decision(o, Fate::Skipped(Reason::new(ReasonCode::literal("wrong_world"), "no")));
    world.budgets.insert(ReasonCode::literal("wrong_world"), Budget::parse("100% of 100").unwrap());
    world.batch((0..50).map(skipped).collect(), 50);
    let report = world.audit();
    expect![[r#"
        E3 units ordered leave the stock is imbalanced: 150 received in 50 events = 0 in the database + 0 insufficient_stock + 0 zero_quantity + 150 unexplained
        none of the last 50 events had an effect"#]].assert_eq(&report.flows[0].not_working.join("\n"));
}

#[test]
fn a_partition_that_the_ledger_never_saw_is_open() {
    let mut world = World::new(0);
    (0..4).for_each(|offset| world.publish(offset));
    expect![[r#"
        exit 0
        E1 counted open
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]]
    .assert_eq(&told(&world));
    world.source.at.partition = Partition::new("other");
    expect![[r#"
        exit 0
        E1 counted open
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]]
    .assert_eq(&told(&world));
}

#[test]
fn differences_are_found_in_whatever_chunk_they_lie() {
    let mut world = World::new(70_000);
    world.forget_decision(65_536);
    world.forget_effect(65_540);
    expect![[r#"
        exit 1
        E1 counted imbalanced
           positions_missing 1: reserve-stock/orders/65536
        E1 identified imbalanced
           positions_missing 1: reserve-stock/orders/65536 (id o-65536)
        E2 counted imbalanced
           effects_without_decision 1: reserve-stock/orders/65536
        E3 summed to one cut imbalanced
           reconcile_differs 1: sku-1: +2 (database 54548, events 54546)"#]]
    .assert_eq(&told(&world));
}

#[test]
fn the_text_says_both_numbers_the_strength_and_the_shares() {
    let mut world = World::new(100);
    world.forget_decision(17);
    expect![[r#"
        flow reserve-stock: imbalanced, 14.14% skipped, 8.08% dead-lettered; not working
          not working: E1 source = ledger is imbalanced: 100 positions were published, 99 have a fate, 0 are open
          not working: E1 source = ledger is imbalanced: 100 events were read from the source again, 99 are decided; they are not the same
          not working: E2 ledger = effects is imbalanced: 77 applied decisions, 78 effects in the database
          not working: E3 units ordered leave the stock is imbalanced: 297 received in 99 events = 237 in the database + 23 insufficient_stock + 40 zero_quantity - 3 unexplained

          published               100
          applied                  77
          skipped                  14
            zero_quantity                          14  14.14%
          dead-lettered             8
            insufficient_stock                      8  8.08%
          unexplained               1

          E1 imbalanced  source = ledger [counted]; 14.14% skipped, 8.08% dead-lettered
             100 positions were published, 99 have a fate, 0 are open
             100 published | 99 with a fate or open
             positions_missing (1): published or passed over, and without a fate
               reserve-stock/orders/17
             look: recount story reserve-stock/orders/17
          E1 imbalanced  source = ledger [identified]; 14.14% skipped, 8.08% dead-lettered
             100 events were read from the source again, 99 are decided; they are not the same
             100 events in the source | 99 decided events
             positions_missing (1): an event stands in the source, and the ledger has no decision for it
               reserve-stock/orders/17 (id o-17)
             look: recount story reserve-stock/orders/17
          E2 imbalanced  ledger = effects [counted]; 14.14% skipped, 8.08% dead-lettered
             77 applied decisions, 78 effects in the database
             77 applied decisions | 78 effects
             effects_without_decision (1): an effect stands in the database that the ledger does not call applied
               reserve-stock/orders/17
             look: recount story reserve-stock/orders/17
          E3 imbalanced  units ordered leave the stock [summed to one cut]; 14.14% skipped, 8.08% dead-lettered
             297 received in 99 events = 237 in the database + 23 insufficient_stock + 40 zero_quantity - 3 unexplained
             234 by the events | 237 by the database
             reconcile_differs (1): 1 group off, +3 in all
               sku-2: +3 (database 80, events 77)
             look: recount story sku-2
          budget insufficient_stock         any          any: 8 of 99, 8 at worst
          budget zero_quantity              any          any: 14 of 99, 14 at worst

    "#]].assert_eq(&render::text(&world.audit()));
}

#[test]
fn the_json_form_has_the_laws_terms_as_keys() {
    let json = World::new(100).audit().json();
    assert_eq!(json["recount"], 1);
    let books = &json["flows"][0]["books"];
    for (term, count) in [
        ("published", 100),
        ("applied", 78),
        ("skipped", 14),
        ("dead-lettered", 8),
        ("lost", 0),
        ("not-an-event", 0),
        ("unrecorded", 0),
        ("open", 0),
        ("unexplained", 0),
    ] {
        assert_eq!(books[term], count, "{term}");
    }
    assert_eq!(json["flows"][0]["statements"][1]["strength"], "identified");
}
