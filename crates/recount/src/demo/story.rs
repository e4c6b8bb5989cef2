//! The figures as a story that one can read without having read anything else.

use super::figures::{Act, Corrected, Exceeded, Figures, Stand};
use super::folder::{self, DEAD_LETTER, Flow, SKIP, SKIP_ONE_IN_20};
use crate::commands::quoted;
use std::collections::BTreeMap;

/// The ordinary consumer's source, of which the silent lines are shown.
const CONSUMER: &str = include_str!("ordinary.rs");
/// No line is longer, unless one word is.
const COLUMNS: usize = 100;
/// Where a sentence begins that has a word before it.
const INDENT: usize = 15;

/// The story.
pub fn text(figures: &Figures) -> String {
    let mut out = String::new();
    introduction(&mut out, figures);
    ordinary(&mut out, figures);
    dead_letter(&mut out, figures);
    skipped(&mut out, figures);
    corrected(&mut out, figures);
    last(&mut out, figures);
    out
}

fn line(out: &mut String, text: impl AsRef<str>) {
    out.push_str(text.as_ref().trim_end());
    out.push('\n');
}

/// A sentence, broken between words where it is too wide.
fn paragraph(out: &mut String, sentence: &str) {
    wrapped(out, "  ".to_owned(), 2, sentence);
}

/// `  paused       so and so`: who or what, and what is to be said of it.
fn told(out: &mut String, word: &str, sentence: &str) {
    wrapped(out, format!("  {word:<width$}", width = INDENT - 2), INDENT, sentence);
}

fn wrapped(out: &mut String, mut now: String, indent: usize, sentence: &str) {
    let mut is_first = true;
    for word in sentence.split(' ') {
        if !is_first && now.chars().count() + 1 + word.chars().count() > COLUMNS {
            line(out, &now);
            now = " ".repeat(indent);
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

fn introduction(out: &mut String, figures: &Figures) {
    let orders = &figures.orders;
    let from = match orders.from.as_str() {
        "built in" => "real ones, they are built in".to_owned(),
        folder => format!("from {folder}"),
    };
    let sentence = format!(
        "A shop takes ordered units out of stock. {} order lines come in ({from}); after {} of them the producer \
         renames the field `quantity` to `qty`, and tells nobody.",
        number(orders.published),
        number(orders.rename_offset)
    );
    paragraph(out, &sentence);
    line(
        out,
        "\n1. An ordinary consumer and Recount read the same orders, each with a database of its own\n",
    );
}

fn ordinary(out: &mut String, figures: &Figures) {
    let ordinary = &figures.ordinary;
    told(out, "ordinary", "its code has these lines:");
    let silent = CONSUMER.lines().skip_while(|line| !line.contains("unwrap_or(0)"));
    for code in silent.take(4) {
        line(out, format!("    {code}"));
    }
    let metrics = &ordinary.metrics;
    let dashboard = format!(
        "processed {}, errors {}, alerts {}, lag {}",
        number(metrics.processed),
        metrics.errors,
        metrics.alerts,
        metrics.lag
    );
    told(out, "dashboard", &dashboard);
    let database = format!(
        "since the rename {} units have left its stock; {} should have",
        number(ordinary.units_after_rename),
        number(figures.expected.units_after_rename)
    );
    told(out, "database", &database);
    line(out, "");
}

fn dead_letter(out: &mut String, figures: &Figures) {
    let act = &figures.dead_letter;
    told(out, "Recount", "has the same rule, declared in dead-letter/recount.toml:");
    rule(out, &DEAD_LETTER, &figures.budget);
    let folder = format!("{}/{}", figures.folder, DEAD_LETTER.name);
    command(out, &format!("cd {} && recount run", quoted(&folder)));
    if let Some(sign) = &act.first_sign {
        let sentence = format!(
            "event {} after the rename, {}: order {} at {}, {} {}: {}",
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
    if let Some(exceeded) = &act.exceeded {
        told(out, "not working", &over(exceeded));
    }
    if let Some(paused) = &act.paused {
        let sentence = format!(
            "after {} of them, {}: more than half of the last 1,000 were not applied. {} orders wait where they \
             are; they are not drained into dead letters",
            number(paused.events),
            into(paused.after_ms),
            number(paused.left)
        );
        told(out, "paused", &sentence);
    }
    command(out, "recount status          # its first line:");
    paragraph(out, &act.status);
}

fn rule(out: &mut String, flow: &Flow, budget: &str) {
    line(out, format!("        that      = \"{}\"", flow.that));
    line(out, format!("        otherwise = \"{}\"", flow.otherwise));
    line(out, format!("        at_most   = \"{budget}\""));
}

fn over(exceeded: &Exceeded) -> String {
    let Exceeded { events, reason, budget, position, .. } = exceeded;
    format!("since event {events}: {reason} is over its budget of {budget}, first at {position}")
}

fn skipped(out: &mut String, figures: &Figures) {
    line(out, "\n2. The same orders, with the silent line written down as a declared skip\n");
    rule(out, &SKIP, &figures.budget);
    let act = &figures.skip;
    command(out, &format!("cd ../{} && recount run", SKIP.name));
    books(out, &act.run);
    verdict(out, act);
    let act = &figures.one_in_20;
    let sentence = format!(
        "And if only one order in twenty comes from the new version of the producer, {} of {}?",
        number(act.renamed),
        number(figures.orders.published - figures.orders.rename_offset)
    );
    line(out, "");
    paragraph(out, &sentence);
    command(out, &format!("cd ../{} && recount run", SKIP_ONE_IN_20.name));
    books(out, &act.run);
    verdict(out, act);
}

/// What the run said beside its books, and to whoever started it.
fn verdict(out: &mut String, act: &Act) {
    let exit = format!("`recount run` ended with {}", act.exit_code);
    match (&act.exceeded, act.run.working) {
        (Some(exceeded), Some(false)) => told(out, "not working", &format!("{}; {exit}", over(exceeded))),
        (_, working) => told(out, "and", &format!("{}; {exit}", working_word(working))),
    }
}

fn working_word(working: Option<bool>) -> &'static str {
    match working {
        Some(true) => "working",
        Some(false) => "not working",
        None => "can't be said to work",
    }
}

fn books(out: &mut String, stand: &Stand) {
    let of = |verdict: &str| -> u64 {
        let fates = stand.decisions.iter().filter(|(fate, _)| fate.starts_with(verdict));
        fates.map(|(_, count)| count).sum()
    };
    let sentence = format!(
        "{}: {} published = {} applied + {} skipped + {} dead-lettered",
        stand.status,
        number(stand.published),
        number(of("applied")),
        number(of("skipped")),
        number(of("dead-lettered"))
    );
    told(out, "books", &sentence);
}

fn corrected(out: &mut String, figures: &Figures) {
    line(
        out,
        "\n3. Both configs are corrected: the rule, and what is bound to :quantity, take either name\n",
    );
    line(out, format!("        that      = \"{}\"", folder::corrected_rule()));
    let flows = [(&DEAD_LETTER, &figures.dead_letter), (&SKIP, &figures.skip)];
    for (flow, act) in flows {
        if let Some(corrected) = &act.corrected {
            correction(out, flow, corrected);
        }
    }
    line(out, "\n                        units out of stock    articles with a wrong stock");
    let row = |who: &str, units: i64, rest: &str| format!("  {who:<22}{:>18}    {rest}", number(units));
    line(out, row("must be", figures.expected.units, "(from orders and stock list, without Recount)"));
    line(out, row("ordinary", figures.ordinary.units, ""));
    for (flow, act) in flows {
        if let Some(corrected) = &act.corrected {
            let (wrong, end) = (number(corrected.articles_wrong as u64), &corrected.end);
            let rest = format!("{wrong}; books {}, {}", end.status, working_word(end.working));
            line(out, row(&format!("Recount, {}", flow.name), end.units, &rest));
        }
    }
}

fn correction(out: &mut String, flow: &Flow, corrected: &Corrected) {
    let because = format!("--because {}", quoted(folder::BECAUSE));
    command(out, &format!("cd ../{}", flow.name));
    command(out, &format!("recount replay {} --reason {} {because}", folder::FLOW, corrected.reason));
    told(out, "replayed", &counts(&corrected.replayed));
    if !corrected.not_working_before_resume.is_empty() {
        told(out, "not working", "still: what was exceeded stays on record until somebody accepts it");
    }
    command(out, &format!("recount resume {} {because} && recount run", folder::FLOW));
    books(out, &corrected.end);
}

fn counts(decided: &BTreeMap<String, u64>) -> String {
    let count = |(fate, count): (&String, &u64)| format!("{} now {fate}", number(*count));
    decided.iter().map(count).collect::<Vec<_>>().join(", ")
}

fn last(out: &mut String, figures: &Figures) {
    line(out, "");
    if figures.held {
        paragraph(out, &format!("All of it held in this run, which took {}.", seconds(figures.took_ms)));
    } else {
        paragraph(out, "This did not hold in this run:");
        figures.not_held.iter().for_each(|claim| told(out, "", claim));
    }
    let folder = &figures.folder;
    let sentence =
        format!("It is all left in {folder}; README.txt there says what is what. Try, in dead-letter:");
    paragraph(out, &sentence);
    command(out, "recount status");
    if let Some(sign) = &figures.dead_letter.first_sign {
        command(out, &format!("recount story {}", quoted(&sign.event_id)));
        command(out, &format!("recount explain {}", sign.reason));
    }
    command(out, "diff recount.toml.before recount.toml");
    paragraph(
        out,
        "Nobody has corrected one-in-20 yet. And with events of your own: recount init --from FILE",
    );
    if let Some(program) = &figures.program {
        paragraph(out, &format!("(`recount` is not on your PATH; here it stands for {program})"));
    }
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
            out.push(',');
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
        let told = [7_i64, 999, 1000, 21_602, -1_234_567].map(number);
        assert_eq!(told, ["7", "999", "1,000", "21,602", "-1,234,567"]);
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
