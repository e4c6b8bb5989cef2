//! What the demo claims, held against what came of this run.

use super::figures::{Act, Figures};

/// How many events a budget of the demo looks at.
const WINDOW: u64 = 1000;

/// Everything that was not as the story tells it; nothing where all of it held.
pub fn not_held(figures: &Figures) -> Vec<String> {
    let mut claims = ordinary(figures);
    claims.extend(dead_letter(figures));
    claims.extend(skipped(&figures.skip, "skip", true));
    claims.extend(skipped(&figures.one_in_20, "one-in-20", false));
    claims.extend(corrected(figures, &figures.dead_letter, "dead-letter"));
    claims.extend(corrected(figures, &figures.skip, "skip"));
    claims.into_iter().filter(|(held, _)| !held).map(|(_, claim)| claim).collect()
}

type Claim = (bool, String);

fn claim(held: bool, who: &str, what: &str) -> Claim {
    (held, format!("{who}: {what}"))
}

fn ordinary(figures: &Figures) -> Vec<Claim> {
    let (ordinary, who) = (&figures.ordinary, "ordinary");
    let metrics = &ordinary.metrics;
    let green = metrics.errors + metrics.alerts + metrics.lag == 0;
    vec![
        claim(green && metrics.processed == figures.orders.published as u64, who, "stays green"),
        claim(
            figures.expected.units_after_rename > 0,
            who,
            "units should have left the stock since the rename",
        ),
        claim(ordinary.units_after_rename == 0, who, "no unit left its stock since the rename"),
    ]
}

/// What every Recount of the demo must have said, however its rule is written.
fn noticed(act: &Act, who: &str) -> Vec<Claim> {
    let in_window = act.exceeded.as_ref().is_some_and(|exceeded| (1..=WINDOW).contains(&exceeded.events));
    vec![
        claim(act.first_sign.is_some(), who, "the first order that the rename hit is on record"),
        claim(act.run.working == Some(false), who, "it is not working"),
        claim(act.status.starts_with("not working"), who, "`recount status` begins with: not working"),
        claim(act.exit_code != 0, who, "`recount run` does not end well"),
        claim(in_window, who, "a budget was exceeded within its window after the rename, and not before"),
        claim(act.run.unexplained == 0, who, "no order is unexplained"),
    ]
}

fn dead_letter(figures: &Figures) -> Vec<Claim> {
    let (act, who) = (&figures.dead_letter, "dead-letter");
    let mut claims = noticed(act, who);
    let at_once = act.first_sign.as_ref().is_some_and(|sign| sign.events == 1);
    let left_before = figures.expected.units - figures.expected.units_after_rename;
    claims.push(claim(at_once, who, "the very first renamed order is on record as such"));
    claims.push(claim(act.paused.is_some(), who, "the flow paused itself"));
    claims.push(claim(
        act.run.units == left_before,
        who,
        "the orders before the rename are out of the stock",
    ));
    claims
}

fn skipped(act: &Act, who: &str, all_renamed: bool) -> Vec<Claim> {
    let mut claims = noticed(act, who);
    claims.push(claim(act.run.status == "balanced", who, "the books balance"));
    claims.push(claim(act.run.decided == act.run.published, who, "every order has a fate"));
    let share = act.renamed * 100 / usize::try_from(act.run.published).unwrap_or(usize::MAX).max(1);
    claims.push(claim(all_renamed || share < 10, who, "few orders are renamed"));
    claims
}

fn corrected(figures: &Figures, act: &Act, who: &str) -> Vec<Claim> {
    let Some(corrected) = &act.corrected else {
        return vec![claim(false, who, "it was corrected")];
    };
    let end = &corrected.end;
    let applied = figures.expected.fates.get("applied").map(|applied| *applied as u64);
    vec![
        claim(corrected.stock_is_right, who, "after the correction each article has what it must have"),
        claim(end.decisions.get("applied").copied() == applied, who, "each order that must be applied is"),
        claim(
            end.status == "balanced" && end.unexplained == 0,
            who,
            "after the correction the books balance",
        ),
        claim(end.working == Some(true), who, "after the correction it is working"),
    ]
}
