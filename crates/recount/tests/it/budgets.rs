//! Two budgets: one exactly at its limit, one exceeded by one event.

use crate::harness::{TAKE_FROM_STOCK, World, config, order};

fn world(zeros: usize, bulks: usize) -> World {
    let checks = r#"
[[flow.stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "10% of 40"
because = "an order line for nothing"

[[flow.stock.check]]
reason = "bulk_order"
that = "event.quantity <= 2"
otherwise = "flag"
at_most = "5% of 40"
because = "we assume that few order much of one thing"
"#;
    let world = World::new(&config("", &format!("{checks}{TAKE_FROM_STOCK}")));
    let quantity = |n: usize| {
        if n < zeros {
            0
        } else if n < zeros + bulks {
            3
        } else {
            1
        }
    };
    world.lines(&(0..40).map(|n| order(&format!("q{n}"), "a", quantity(n))).collect::<Vec<_>>());
    world
}

#[test]
fn a_budget_at_its_limit_is_well_and_one_more_is_not() {
    // 4 of 40 may be zero, 2 of 40 may be bulk.
    for (zeros, bulks, exit, exceeded) in [
        (4, 2, 0, &[][..]),
        (5, 2, 1, &["zero_quantity"]),
        (4, 3, 1, &["bulk_order"]),
        (5, 3, 1, &["zero_quantity", "bulk_order"]),
    ] {
        let world = world(zeros, bulks);
        for told in [world.run(), world.audit()] {
            assert_eq!(told.code, Some(exit), "{zeros} zeros, {bulks} bulks: {}", told.all());
            let report = told.json();
            let budgets = report["flows"][0]["budgets"].as_array().unwrap();
            let found: Vec<&str> = budgets
                .iter()
                .filter(|budget| budget["exceeded"] == true)
                .map(|budget| budget["reason"].as_str().unwrap())
                .collect();
            let mut expected = exceeded.to_vec();
            expected.sort_unstable();
            let mut found = found;
            found.sort_unstable();
            assert_eq!(found, expected);
            assert_eq!(report["flows"][0]["status"], "balanced", "the books balance all the same");
            assert_eq!(report["flows"][0]["working"], exit == 0);
        }
    }
}

#[test]
fn resuming_accepts_what_was_exceeded() {
    let world = world(5, 0);
    world.run().expect(1);
    world.recount(&["resume", "stock", "--because", "known: the till sent zeros on Monday"]).expect(0);
    world.audit().expect(0);
    let accepted = world.audit().json();
    let budgets = accepted["flows"][0]["budgets"].as_array().unwrap();
    let zero = budgets.iter().find(|budget| budget["reason"] == "zero_quantity").unwrap();
    assert!(zero["accepted_at"].is_string(), "{zero}");
}
