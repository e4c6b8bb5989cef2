//! What in a sample is likely to surprise: fields of changing types, numbers that lose digits, secrets.

use super::identity::{FEW_EVENTS, expression};
use super::input::{Input, code_of};
use super::profile::{Field, Kind, Profile};
use super::shape::words;
use super::write::{count, one_line};
use recount_checks::expr::Segment;

/// Warnings of one kind; more are counted.
const OF_A_KIND_MAX: usize = 12;

/// Something to look at before the flow runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable word.
    pub code: &'static str,
    /// The field, where it is about one.
    pub field: Option<String>,
    /// How many sampled events it is about.
    pub events: u64,
    /// For people.
    pub sentence: String,
}

impl Warning {
    /// About the input as a whole.
    pub fn of_input(code: &'static str, events: u64, sentence: String) -> Self {
        Self { code, field: None, events, sentence }
    }
}

/// A field that shall be told nowhere, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretField {
    /// As `secret` takes it.
    pub path: String,
    /// What speaks for it.
    pub why: String,
}

/// Fields whose names or values look like somebody's own.
pub fn secrets(profile: &Profile) -> Vec<SecretField> {
    let mut found: Vec<(Field<'_>, SecretField)> = Vec::new();
    for field in profile.fields() {
        let within = |outer: &Field<'_>| outer.path != field.path && outer.path.overlaps(&field.path);
        if !matches!(field.path.segments.last(), Some(Segment::Name(_)))
            || found.iter().any(|(outer, _)| within(outer))
        {
            continue;
        }
        // A truth value or an amount tells little of anyone.
        if field.node.is_only(&[Kind::Boolean, Kind::Null, Kind::Number]) {
            continue;
        }
        let texts = field.node.count(Kind::String);
        let why = if let Some(word) = secret_word(field.name()) {
            format!("its name says {word}")
        } else if field.node.shapes.mails * 2 > texts && texts > 0 {
            format!("{} of {texts} texts are mail addresses", field.node.shapes.mails)
        } else if field.node.shapes.cards * 10 > texts * 9 && texts >= 10 {
            format!("{} of {texts} texts have the check digit of a card number", field.node.shapes.cards)
        } else {
            continue;
        };
        let path = field.path.to_string();
        found.push((field, SecretField { path, why }));
    }
    found.into_iter().map(|(_, secret)| secret).collect()
}

fn secret_word(name: &str) -> Option<String> {
    const WORDS: &[&str] = &[
        "email",
        "mail",
        "password",
        "passwd",
        "pwd",
        "secret",
        "token",
        "card",
        "pan",
        "cvv",
        "cvc",
        "iban",
        "ssn",
        "phone",
        "mobile",
        "address",
        "street",
        "birthday",
        "birthdate",
        "dob",
        "customer",
        "patient",
        "passport",
        "authorization",
        "cookie",
        "apikey",
        "credential",
        "credentials",
        "surname",
        "firstname",
        "lastname",
        "ip",
    ];
    let words = words(name);
    let single = words.iter().find(|word| WORDS.contains(&word.as_str())).cloned();
    let joined = words.join(" ");
    let pairs = [
        "api key",
        "private key",
        "access key",
        "first name",
        "last name",
        "full name",
        "family name",
        "birth date",
        "tax id",
    ];
    single.or_else(|| pairs.iter().find(|pair| joined.contains(**pair)).map(|pair| (*pair).to_owned()))
}

/// Everything but what depends on the choice of id, time and secrets.
pub fn warnings(input: &Input, profile: &Profile) -> Vec<Warning> {
    let mut found = of_lines(input);
    let events = profile.events;
    if events < FEW_EVENTS {
        let sentence = format!(
            "only {} could be sampled: what is proposed is a guess from names",
            count(events, "event")
        );
        found.push(Warning::of_input("few_events", events, sentence));
    }
    let fields = profile.fields();
    for kind in [types, missing, maps, large, texts_for_numbers, money] {
        let of_kind: Vec<Warning> = fields.iter().filter_map(|field| kind(input, field)).collect();
        let more = of_kind.len().saturating_sub(OF_A_KIND_MAX);
        let code = of_kind.first().map_or("", |warning| warning.code);
        found.extend(of_kind.into_iter().take(OF_A_KIND_MAX));
        if more > 0 {
            found.push(Warning::of_input(
                code,
                0,
                format!("and {} more of the same kind", count(more as u64, "field")),
            ));
        }
    }
    found
}

fn of_lines(input: &Input) -> Vec<Warning> {
    let lines = input.sample.lines.len() as u64;
    let mut found = Vec::new();
    if input.sample.head.starts_with(b"\xef\xbb\xbf") {
        let sentence = "the file starts with a byte order mark; it is left out when the file is read, and other readers may trip over it";
        found.push(Warning::of_input("byte_order_mark", 1, sentence.to_owned()));
    }
    for (looks, (events, first)) in &input.undecoded {
        let sentence = format!(
            "{events} of {} can't be decoded: {looks} (first: {}); they become dead letters, {}",
            count(lines, "sampled line"),
            input.place(*first),
            if looks.starts_with("larger") { "payload_too_large" } else { "decode_failed" }
        );
        found.push(Warning::of_input(code_of(looks), *events, sentence));
    }
    for damage in &input.sample.damage {
        found.push(Warning::of_input("damaged", 0, one_line(damage)));
    }
    found
}

fn warning(code: &'static str, field: &Field<'_>, events: u64, what: String) -> Option<Warning> {
    let path = field.path.to_string();
    Some(Warning { code, field: Some(path.clone()), events, sentence: format!("`{path}` {what}") })
}

fn types(input: &Input, field: &Field<'_>) -> Option<Warning> {
    let kinds = &field.node.kinds;
    // Integers are numbers.
    let families = kinds
        .keys()
        .filter(|kind| **kind != Kind::Null)
        .map(|kind| if *kind == Kind::Integer { Kind::Number } else { *kind });
    let families: std::collections::BTreeSet<Kind> = families.collect();
    if families.len() < 2 {
        return None;
    }
    let mut told: Vec<(u64, String)> = kinds
        .iter()
        .map(|(kind, (n, first))| (*n, format!("{} {n} times (first: {})", kind.word(), input.place(*first))))
        .collect();
    told.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let rarer = field.node.seen() - told.first().map_or(0, |(n, _)| *n);
    let told: Vec<String> = told.into_iter().map(|(_, told)| told).collect();
    let missing = field.of.saturating_sub(field.node.seen());
    let missing = if missing > 0 { format!(", missing {missing} times") } else { String::new() };
    warning("type_varies", field, rarer, format!("has changing types: {}{missing}", told.join(", ")))
}

/// There nearly always is more telling than there now and then.
fn missing(input: &Input, field: &Field<'_>) -> Option<Warning> {
    if field.of < FEW_EVENTS {
        return None;
    }
    let rarely = |n: u64| n > 0 && n * 20 <= field.of;
    let nulls = field.node.count(Kind::Null);
    let missing = field.of.saturating_sub(field.node.seen());
    let of = field.of;
    if rarely(nulls) {
        let first =
            field.node.kinds.get(&Kind::Null).map(|(_, first)| input.place(*first)).unwrap_or_default();
        return warning(
            "sometimes_null",
            field,
            nulls,
            format!("is null in {nulls} of {of} (first: {first})"),
        );
    }
    if rarely(missing) {
        return warning("sometimes_missing", field, missing, format!("is missing in {missing} of {of}"));
    }
    None
}

fn maps(_: &Input, field: &Field<'_>) -> Option<Warning> {
    if !field.node.is_map {
        return None;
    }
    let what = "has more or longer names than are looked at: it seems to be a map, and the schema lists only the names that are always there";
    warning("map_like", field, field.node.seen(), what.to_owned())
}

fn large(_: &Input, field: &Field<'_>) -> Option<Warning> {
    let (beyond_64, beyond_53) = (field.node.shapes.beyond_64_bits, field.node.shapes.beyond_exact);
    if beyond_64 > 0 {
        let what = format!(
            "holds {} beyond 64 bits, which can't be checked exactly: such events are dead letters, schema_mismatch; send them as text",
            count(beyond_64, "number")
        );
        return warning("large_number", field, beyond_64, what);
    }
    if beyond_53 > 0 {
        let what = format!(
            "holds {} beyond 2^53: Recount keeps them exactly, JavaScript and others round them; send them as text",
            count(beyond_53, "integer")
        );
        return warning("large_number", field, beyond_53, what);
    }
    None
}

fn texts_for_numbers(_: &Input, field: &Field<'_>) -> Option<Warning> {
    const AMOUNTS: &[&str] = &[
        "quantity", "qty", "amount", "price", "total", "count", "value", "weight", "cost", "rate", "score",
        "size",
    ];
    let texts = field.node.count(Kind::String);
    let shapes = &field.node.shapes;
    let is_amount = words(field.name()).iter().any(|word| AMOUNTS.contains(&word.as_str()));
    if texts == 0
        || shapes.numeric_texts * 20 < texts * 19
        || !(is_amount || shapes.decimal_texts * 2 > texts)
    {
        return None;
    }
    let path = expression(&field.path).unwrap_or_else(|| field.path.to_string());
    let what = format!(
        "holds numbers as text in {} of {texts}: compare double({path}), since text is not ordered as numbers are",
        shapes.numeric_texts
    );
    warning("numeric_text", field, shapes.numeric_texts, what)
}

fn money(_: &Input, field: &Field<'_>) -> Option<Warning> {
    const MONEY: &[&str] =
        &["amount", "price", "total", "cost", "fee", "tax", "balance", "payment", "revenue", "discount"];
    let floats = field.node.count(Kind::Number);
    if floats == 0 || !words(field.name()).iter().any(|word| MONEY.contains(&word.as_str())) {
        return None;
    }
    let what = format!(
        "looks like money and is a fraction in {floats} of {}: databases and languages round fractions; whole cents, or text, stay exact",
        field.node.seen()
    );
    warning("money_as_float", field, floats, what)
}
