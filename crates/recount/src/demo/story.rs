//! The figures as a story that one can read without having read anything else.

use super::figures::{Act, Corrected, Exceeded, Figures, Stand};
use super::folder::{self, DEAD_LETTER, Flow, SKIP, SKIP_ONE_IN_20};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The ordinary consumer's source, of which the silent lines are shown.
const CONSUMER: &str = include_str!("ordinary.rs");
/// No line is longer, unless one word is.
const COLUMNS: usize = 100;
/// Where what belongs to a `first sign  ` begins.
const INDENT: usize = 14;

/// The story.
pub fn text(figures: &Figures) -> String {
    let mut out = String::new();
    first(&mut out, figures);
    second(&mut out, figures);
    third(&mut out, figures);
    last(&mut out, figures);
    out
}

fn line(out: &mut String, text: impl AsRef<str>) {
    out.push_str(text.as_ref().trim_end());
    out.push('\n');
}

/// `  paused        so and so`, broken between words where it is too wide.
fn told(out: &mut String, word: &str, sentence: &str) {
    let mut now = format!("  {word:<width$}", width = INDENT - 2);
    let mut is_first = true;
    for word in sentence.split(' ') {
        if !is_first && now.chars().count() + 1 + word.chars().count() > COLUMNS {
            line(out, &now);
            now = " ".repeat(INDENT);
            is_first = true;
        }
        if !is_first {
            now.push(' ');
        }
        now.push_str(word);
        is_first = false;
    }
    line(out, now);
}

fn command(out: &mut String, command: &str) {
    line(out, format!("  $ {command}"));
}

fn first(out: &mut String, figures: &Figures) {
    let orders = &figures.orders;
    let (published, before) = (number(orders.published), number(orders.rename_offset));
    told(
        out,
        "",
        &format!(
            "A shop takes ordered units out of stock. {published} order lines come in (real ones, {}); after \
             {before} of them the producer renames the field `quantity` to `qty`, and tells nobody.",
            orders.from
        ),
    );
    line(
        out,
        "\n1. An ordinary consumer and Recount read the same orders, each with a database of its own\n",
    );
    told(out, "ordinary", "It has these lines:");
    let mut lines = CONSUMER.lines().skip_while(|line| !line.contains("unwrap_or(0)"));
    for code in lines.by_ref().take(3) {
        line(out, format!("      {code}"));
    }
    let metrics = &figures.ordinary.metrics;
    told(
        out,
        "dashboard",
        &format!(
            "processed {}   errors {}   alerts {}   lag {}",
            metrics.processed, metrics.errors, metrics.alerts, metrics.lag
        ),
    );
    told(
        out,
        "database",
        &format!(
            "since the rename {} units have left its stock; {} should have",
            number(figures.ordinary.units_after_rename),
            number(figures.expected.units_after_rename)
        ),
    );
    line(out, "");
    told(out, "Recount", "It has the same rule, in dead-letter/recount.toml:");
    rule(out, &DEAD_LETTER);
    command(out, &format!("cd {}", crate::commands::quoted(&format!("{}/dead-letter", figures.folder))));
    command(out, "recount run");
    let act = &figures.dead_letter;
    sign(out, act);
    if let Some(exceeded) = &act.exceeded {
        told(out, "not working", &format!("{}, {}", over(exceeded), into(exceeded.after_ms)));
    }
    if let Some(paused) = &act.paused {
        let sentence = format!(
            "after {} events, {}: more than half of the last 1000 were not applied. {} orders wait where they \
             are, instead of being drained into dead letters",
            number(paused.events),
            into(paused.after_ms),
            number(paused.left)
        );
        told(out, "paused", &sentence);
    }
    command(out, "recount status");
    told(out, "", &act.status);
}

fn rule(out: &mut String, flow: &Flow) {
    line(out, format!("      that      = \"{}\"", flow.that));
    line(out, format!("      otherwise = \"{}\"", flow.otherwise));
}

fn sign(out: &mut String, act: &Act) {
    if let Some(sign) = &act.first_sign {
        let sentence = format!(
            "event {} after the rename, {}: order {}, {}, {} {}: {}",
            sign.events,
            into(sign.after_ms),
            sign.event_id,
            sign.position,
            sign.verdict,
            sign.reason,
            sign.sentence
        );
        told(out, "first sign", &sentence);
    }
}

fn over(exceeded: &Exceeded) -> String {
    let Exceeded { events, reason, budget, position, .. } = exceeded;
    format!("from event {events} on: {reason} is over its budget of {budget}, first at {position}")
}

fn second(out: &mut String, figures: &Figures) {
    line(out, "\n2. The same, with the silent line written down as a declared skip\n");
    rule(out, &SKIP);
    command(out, "cd ../skip && recount run");
    let act = &figures.skip;
    books(out, &act.run);
    shortcoming(out, act);
    told(out, "", &format!("(`recount run` ended with {}; an alert or a script sees it)", act.exit_code));
    line(out, "");
    let act = &figures.one_in_20;
    told(
        out,
        "",
        &format!(
            "And if the new version of the producer sends only one order in twenty, {} of {}?",
            number(act.renamed),
            number(figures.orders.published - figures.orders.rename_offset)
        ),
    );
    command(out, &format!("cd ../{} && recount run", SKIP_ONE_IN_20.name));
    books(out, &act.run);
    shortcoming(out, act);
}

fn shortcoming(out: &mut String, act: &Act) {
    match (&act.exceeded, act.run.working) {
        (Some(exceeded), Some(false)) => told(out, "and yet", &format!("not working {}", over(exceeded))),
        (_, working) => told(out, "working", working.map_or("can't be said", word)),
    }
}

fn word(working: bool) -> &'static str {
    if working { "working" } else { "not working" }
}

fn books(out: &mut String, stand: &Stand) {
    let of = |verdict: &str| -> u64 {
        let fates = stand.decisions.iter().filter(|(fate, _)| fate.starts_with(verdict));
        fates.map(|(_, count)| count).sum()
    };
    let sentence = format!(
        "{}: {} published = {} applied + {} skipped + {} dead-lettered, {} unexplained",
        stand.status,
        number(stand.published),
        number(of("applied")),
        number(of("skipped")),
        number(of("dead-lettered")),
        number(stand.unexplained)
    );
    told(out, "the books", &sentence);
}

fn third(out: &mut String, figures: &Figures) {
    line(
        out,
        "\n3. Both configs are corrected: the rule, and what is bound to :quantity, take either name\n",
    );
    line(out, format!("      that      = \"{}\"", folder::corrected_rule()));
    for (flow, act) in [(&DEAD_LETTER, &figures.dead_letter), (&SKIP, &figures.skip)] {
        if let Some(corrected) = &act.corrected {
            correction(out, flow, corrected);
        }
    }
    line(out, "\n  units out of stock                           articles with a wrong stock");
    let row = |who: &str, units: i64, rest: &str| format!("    {who:<26} {:>10}     {rest}", number(units));
    line(out, row("must be", figures.expected.units, "(counted by hand, without Recount)"));
    line(out, row("ordinary", figures.ordinary.units, ""));
    for (flow, act) in [(&DEAD_LETTER, &figures.dead_letter), (&SKIP, &figures.skip)] {
        if let Some(corrected) = &act.corrected {
            let end = &corrected.end;
            let rest = format!(
                "{:<6} books {}, {}",
                number(corrected.articles_wrong),
                end.status,
                end.working.map_or("can't be said to work", word)
            );
            line(out, row(&format!("Recount, {}", flow.name), end.units, &rest));
        }
    }
}

fn correction(out: &mut String, flow: &Flow, corrected: &Corrected) {
    let because = "--because 'the config takes qty too'";
    command(out, &format!("cd ../{}", flow.name));
    command(out, &format!("recount replay reserve-stock --reason {} {because}", corrected.reason));
    told(out, "replayed", &counts(&corrected.replayed));
    if !corrected.not_working_before_resume.is_empty() {
        let sentence = "not working: what was exceeded stays on record until somebody accepts it";
        told(out, "still", sentence);
    }
    command(out, &format!("recount resume reserve-stock {because}"));
    command(out, "recount run");
    books(out, &corrected.end);
}

fn counts(decided: &BTreeMap<String, u64>) -> String {
    let count = |(fate, count): (&String, &u64)| format!("{} now {fate}", number(*count));
    decided.iter().map(count).collect::<Vec<_>>().join(", ")
}

fn last(out: &mut String, figures: &Figures) {
    line(out, "");
    if figures.held {
        told(out, "", &format!("All of it held in this run, which took {}.", seconds(figures.took_ms)));
    } else {
        told(out, "", "This did not hold in this run:");
        figures.not_held.iter().for_each(|claim| told(out, "", claim));
    }
    told(
        out,
        "",
        &format!(
            "Everything is left in {} (README.txt says what is what). Try, in one of its folders:",
            figures.folder
        ),
    );
    command(out, "recount status");
    if let Some(sign) = &figures.dead_letter.first_sign {
        command(out, &format!("recount story {}", crate::commands::quoted(&sign.event_id)));
        command(out, &format!("recount explain {}", sign.reason));
    }
    command(out, "diff recount.toml.before recount.toml");
    told(out, "", "Then with your own events: recount init --from EVENTS.ndjson");
}

fn into(after_ms: i64) -> String {
    format!("{} into the run", seconds(after_ms.unsigned_abs()))
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// `21602` as `21,602`.
fn number(number: impl TryInto<i64>) -> String {
    let number: i64 = number.try_into().unwrap_or(i64::MAX);
    let digits = number.unsigned_abs().to_string();
    let mut out = if number < 0 { "-".to_owned() } else { String::new() };
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            let _ = write!(out, ",");
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(
            [7, 999, 1000, 21_602, -1_234_567].map(number),
            ["7", "999", "1,000", "21,602", "-1,234,567"]
        );
        assert_eq!([0, 450, 12_345].map(seconds), ["0.0 s", "0.4 s", "12.3 s"]);
    }

    #[test]
    fn sentences_break_between_words() {
        let mut out = String::new();
        told(&mut out, "paused", &"word ".repeat(60));
        assert!(out.lines().all(|line| line.chars().count() <= COLUMNS), "{out}");
        assert_eq!(out.matches("word").count(), 60);
    }
}
