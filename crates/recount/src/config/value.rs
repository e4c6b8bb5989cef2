//! One key's value, held against its kind.

use super::broker;
use super::fault::{Place, Sink, nearest};
use super::raw::{At, Raw, RawTable, in_order, read_table};
use super::scalar::{parse_rows, parse_size};
use super::secret::{Secret, env_name};
use super::spec::{KeySpec, Kind, TableSpec};
use recount_engine::RowRange;
use recount_model::budget::parse_duration_ms;
use recount_model::{Amount, Budget, ReasonCode};
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

/// Longer texts are refused: nobody writes them by hand.
const TEXT_BYTES_MAX: usize = 100_000;

/// `flow.a` and `owner` to `flow.a.owner`.
pub(super) fn dotted(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// Reads the value of a key; `None` where it had a fault.
pub(super) fn read_value(
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    whole: bool,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    match key.kind {
        Kind::Table(spec) => Some(Raw::Table(read_subtable(key, spec, value, at, whole, sink)?)),
        Kind::WordOrTable(words, spec) => match value.get_ref() {
            DeValue::String(_) => read_scalar(key, Kind::Word(words), value, at, sink),
            _ => Some(Raw::Table(read_subtable(key, spec, value, at, whole, sink)?)),
        },
        Kind::Tables(spec) => Some(Raw::Tables(read_tables(key, spec, value, at, whole, sink)?)),
        Kind::OneOrMore(spec) => match value.get_ref() {
            DeValue::Table(_) => Some(Raw::Tables(vec![read_subtable(key, spec, value, at, whole, sink)?])),
            _ => Some(Raw::Tables(read_tables(key, spec, value, at, whole, sink)?)),
        },
        Kind::Named(spec) => read_named(key, spec, value, at, whole, sink),
        Kind::Properties => broker::read_properties(key, value, at, sink),
        Kind::Start => broker::read_start(key, value, at, sink),
        Kind::Later(sentence) => {
            sink.mask(value.span());
            sink.fault(at, format!("`{}` comes later: {sentence}", key.name), None);
            None
        }
        kind => read_scalar(key, kind, value, at, sink),
    }
}

fn read_subtable(
    key: &KeySpec,
    spec: &'static TableSpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    whole: bool,
    sink: &mut Sink<'_>,
) -> Option<RawTable> {
    let DeValue::Table(table) = value.get_ref() else { return wrong_kind(key, value, at, sink) };
    Some(read_table(spec, table, at.clone(), whole, sink))
}

fn read_tables(
    key: &KeySpec,
    spec: &'static TableSpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    whole: bool,
    sink: &mut Sink<'_>,
) -> Option<Vec<RawTable>> {
    let DeValue::Array(array) = value.get_ref() else { return wrong_kind(key, value, at, sink) };
    let mut tables = Vec::new();
    for (index, item) in array.iter().enumerate() {
        let place = Place { span: item.span(), key: format!("{}[{index}]", at.key) };
        tables.extend(read_subtable(key, spec, item, &place, whole, sink));
    }
    Some(tables)
}

fn read_named(
    key: &KeySpec,
    spec: &'static TableSpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    whole: bool,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    let DeValue::Table(table) = value.get_ref() else { return wrong_kind(key, value, at, sink) };
    let mut named = Vec::new();
    for (name, value) in in_order(table) {
        let place = Place { span: value.span(), key: dotted(&at.key, name.get_ref()) };
        match value.get_ref() {
            DeValue::Table(table) => {
                named.push((name.get_ref().to_string(), read_table(spec, table, place, whole, sink)));
            }
            _ => {
                sink.mask(value.span());
                let place = Place { span: name.span(), ..place };
                let help = format!("write a table with a name of your own: {}", spec.header);
                sink.fault(&place, format!("`{}` must be a table", place.key), help);
            }
        }
    }
    Some(Raw::Named(named))
}

fn wrong_kind<T>(key: &KeySpec, value: &Spanned<DeValue<'_>>, at: &Place, sink: &mut Sink<'_>) -> Option<T> {
    if matches!(key.kind, Kind::Secret) {
        sink.mask(value.span());
    }
    let found = match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    sink.fault(at, format!("`{}` takes {}, not {found}", key.name, key.kind.described()), example(key));
    None
}

/// A correction made of the description's example.
fn example(key: &KeySpec) -> Option<String> {
    (!key.example.is_empty()).then(|| format!("write: {} = {}", key.name, key.example))
}

fn read_scalar(
    key: &KeySpec,
    kind: Kind,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    match (kind, value.get_ref()) {
        (Kind::Secret, DeValue::String(text)) => read_secret(key, text, value, at, sink),
        (_, DeValue::String(text)) => read_text(key, kind, text, at, sink),
        (Kind::Size, DeValue::Integer(number)) => {
            bounded(key, number, 0, 1 << 40, at, sink).map(|bytes| Raw::Quantity(bytes.unsigned_abs()))
        }
        (Kind::Integer(min, max), DeValue::Integer(number)) => {
            bounded(key, number, min, max, at, sink).map(Raw::Integer)
        }
        (Kind::Share, DeValue::Integer(_) | DeValue::Float(_)) => {
            match decimal(value.get_ref()).and_then(|text| text.parse::<f64>().ok()) {
                Some(share) if (0.0..=1.0).contains(&share) => Some(Raw::Share(share)),
                _ => refuse(key, at, sink, format!("`{}` must lie between 0 and 1", key.name)),
            }
        }
        (Kind::Amount, DeValue::Integer(_) | DeValue::Float(_)) => {
            match decimal(value.get_ref()).as_deref().and_then(Amount::parse) {
                Some(amount) if amount >= Amount::ZERO => Some(Raw::Amount(amount)),
                _ => refuse(key, at, sink, format!("`{}` must be a decimal of at least 0", key.name)),
            }
        }
        (Kind::Rows, DeValue::Integer(_)) => {
            read_rows(key, std::slice::from_ref(value), at, sink).map(Raw::Rows)
        }
        (Kind::Rows, DeValue::Array(items)) => {
            let items: Vec<_> = items.iter().cloned().collect();
            read_rows(key, &items, at, sink).map(Raw::Rows)
        }
        (Kind::Bool, DeValue::Boolean(flag)) => Some(Raw::Bool(*flag)),
        (Kind::Date, DeValue::Datetime(date)) => read_date(key, *date, at, sink),
        (Kind::Texts(_), DeValue::Array(items)) => read_texts(key, items.iter(), at, sink),
        (Kind::Expressions, DeValue::Table(_)) => read_expressions(key, value, at, sink),
        (Kind::Budgets, DeValue::Table(_)) => read_budgets(key, value, at, sink),
        (Kind::Secret, DeValue::Table(_)) => read_secret_file(key, value, at, sink),
        _ => wrong_kind(key, value, at, sink),
    }
}

fn refuse<T>(key: &KeySpec, at: &Place, sink: &mut Sink<'_>, message: String) -> Option<T> {
    sink.fault(at, message, example(key));
    None
}

fn decimal(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(number) => whole(number).map(|number| number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn whole(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn bounded(
    key: &KeySpec,
    number: &DeInteger<'_>,
    min: i64,
    max: i64,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<i64> {
    let number = whole(number).filter(|number| (min..=max).contains(number));
    if number.is_none() {
        sink.fault(at, format!("`{}` must lie between {min} and {max}", key.name), example(key));
    }
    number
}

fn read_text(key: &KeySpec, kind: Kind, text: &str, at: &Place, sink: &mut Sink<'_>) -> Option<Raw> {
    if text.trim().is_empty() {
        return refuse(key, at, sink, format!("`{}` is empty", key.name));
    }
    if text.len() > TEXT_BYTES_MAX {
        return refuse(key, at, sink, format!("`{}` is longer than {TEXT_BYTES_MAX} bytes", key.name));
    }
    let parsed = match kind {
        Kind::Text | Kind::Cel | Kind::Path => Some(Raw::Text(text.to_owned())),
        Kind::Texts(_) => Some(Raw::Texts(vec![At { at: at.clone(), value: text.to_owned() }])),
        Kind::Word(words) => return read_word(key, words, text, at, sink),
        Kind::Budget => return read_budget(text, at, sink).map(Raw::Budget),
        Kind::Reason => return read_reason(key, text, at, sink),
        Kind::Duration => parse_duration_ms(text).map(Raw::Quantity),
        Kind::Size => parse_size(text).map(Raw::Quantity),
        Kind::Rate => text.parse().ok().map(Raw::Rate),
        Kind::Amount => Amount::parse(text).filter(|a| *a >= Amount::ZERO).map(Raw::Amount),
        Kind::Rows => parse_rows(text).map(|rows| Raw::Rows(vec![rows])),
        Kind::Date => {
            return refuse(key, at, sink, format!("`{}` takes a date without quotes", key.name));
        }
        _ => None,
    };
    if parsed.is_none() {
        let message = format!("`{}` takes {}, and {text:?} isn't that", key.name, kind.described());
        sink.fault(at, message, example(key));
    }
    parsed
}

fn read_word(key: &KeySpec, words: &[&str], text: &str, at: &Place, sink: &mut Sink<'_>) -> Option<Raw> {
    if words.contains(&text) {
        return Some(Raw::Text(text.to_owned()));
    }
    let known = words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let help = match nearest(text, words.iter().copied()) {
        Some(meant) => format!("did you mean {meant:?}? known: {known}"),
        None if key.name == "otherwise" && text == "retry" => format!(
            "write one of {known}: a check has the same outcome each time, so only an effect may be tried again"
        ),
        None => format!("write one of {known}"),
    };
    sink.fault(at, format!("`{}` can't be {text:?}", key.name), help);
    None
}

fn read_budget(text: &str, at: &Place, sink: &mut Sink<'_>) -> Option<Budget> {
    match Budget::parse(text) {
        Ok(budget) => Some(budget),
        Err(message) => {
            sink.fault(at, message, "write \"2% of 1000\", \"5% per 1h\" or \"any\"".to_owned());
            None
        }
    }
}

fn read_reason(key: &KeySpec, text: &str, at: &Place, sink: &mut Sink<'_>) -> Option<Raw> {
    match ReasonCode::new(text) {
        Ok(code) => Some(Raw::Reason(code)),
        Err(error) => {
            let mut code: String = text
                .to_ascii_lowercase()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .take(64)
                .collect();
            code = code.trim_matches(|c: char| c == '_' || c.is_ascii_digit()).to_owned();
            let help = ReasonCode::new(&code).is_ok().then(|| format!("write: {} = \"{code}\"", key.name));
            sink.fault(at, error.to_string(), help);
            None
        }
    }
}

fn read_rows(
    key: &KeySpec,
    items: &[Spanned<DeValue<'_>>],
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Vec<RowRange>> {
    let read = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::Integer(number) => {
            whole(number).and_then(|n| u64::try_from(n).ok()).map(|n| RowRange { min: n, max: n })
        }
        DeValue::String(text) => parse_rows(text),
        _ => None,
    };
    let rows: Option<Vec<RowRange>> = items.iter().map(read).collect();
    match rows.filter(|rows| !rows.is_empty()) {
        Some(rows) => Some(rows),
        None => refuse(key, at, sink, format!("`{}` takes {}", key.name, key.kind.described())),
    }
}

fn read_date(key: &KeySpec, date: toml::value::Datetime, at: &Place, sink: &mut Sink<'_>) -> Option<Raw> {
    let civil = date.date.filter(|_| date.time.is_none()).and_then(|date| {
        jiff::civil::Date::new(
            date.year.try_into().ok()?,
            date.month.try_into().ok()?,
            date.day.try_into().ok()?,
        )
        .ok()
    });
    match civil {
        Some(date) => Some(Raw::Date(date)),
        None => refuse(key, at, sink, format!("`{}` takes a date alone", key.name)),
    }
}

fn read_texts<'v>(
    key: &KeySpec,
    items: impl Iterator<Item = &'v Spanned<DeValue<'v>>>,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    let mut texts = Vec::new();
    for (index, item) in items.enumerate() {
        let place = Place { span: item.span(), key: format!("{}[{index}]", at.key) };
        match item.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX => {
                texts.push(At { at: place, value: text.to_string() });
            }
            _ => {
                wrong_kind::<()>(key, item, &place, sink);
            }
        }
    }
    Some(Raw::Texts(texts))
}

fn read_expressions(
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    let mut pairs = Vec::new();
    for (name, value) in in_order(table) {
        let place = Place { span: value.span(), key: dotted(&at.key, name.get_ref()) };
        match value.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() => {
                pairs.push((name.get_ref().to_string(), At { at: place, value: text.to_string() }));
            }
            _ => {
                let help = format!("write: {name} = \"event.{name}\"", name = name.get_ref());
                sink.fault(&place, format!("`{}` takes an expression as text", place.key), help);
            }
        }
    }
    let _ = key;
    Some(Raw::Pairs(pairs))
}

fn read_budgets(key: &KeySpec, value: &Spanned<DeValue<'_>>, at: &Place, sink: &mut Sink<'_>) -> Option<Raw> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    let mut budgets = Vec::new();
    for (name, value) in in_order(table) {
        let place = Place { span: value.span(), key: dotted(&at.key, name.get_ref()) };
        match value.get_ref() {
            DeValue::String(text) => {
                if let Some(budget) = read_budget(text, &place, sink) {
                    budgets.push((name.get_ref().to_string(), At { at: place, value: budget }));
                }
            }
            _ => {
                wrong_kind::<()>(key, value, &place, sink);
            }
        }
    }
    Some(Raw::Budgets(budgets))
}

fn read_secret(
    key: &KeySpec,
    text: &str,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    if let Some(name) = env_name(text) {
        return Some(Raw::Secret(Secret::Env(name.to_owned())));
    }
    sink.mask(value.span());
    sink.fault(
        at,
        format!("`{}` holds a secret, and this file is kept in the ledger as it is written", key.name),
        format!("write: {} = {}, or {} = {{ file = \"path\" }}", key.name, key.example, key.name),
    );
    None
}

fn read_secret_file(
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    let mut entries = table.iter();
    match (entries.next(), entries.next()) {
        (Some((name, file)), None) if name.get_ref() == "file" => match file.get_ref() {
            DeValue::String(path) if !path.is_empty() => {
                Some(Raw::Secret(Secret::File(path.to_string().into())))
            }
            _ => wrong_kind(key, value, at, sink),
        },
        _ => wrong_kind(key, value, at, sink),
    }
}

impl Kind {
    /// What it takes, in words that follow "takes".
    pub fn described(&self) -> String {
        match self {
            Self::Text => "a text".into(),
            Self::Word(words) => one_of(words),
            Self::Cel => "a CEL expression as text".into(),
            Self::Texts(what) => format!("a text or a list of texts ({what})"),
            Self::Path => "a path".into(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Bool => "true or false".into(),
            Self::Share => "a number from 0 to 1".into(),
            Self::Duration => "a duration such as \"250ms\", \"30s\", \"15m\", \"1h\" or \"7d\"".into(),
            Self::Size => "a size such as \"64KiB\", \"1MiB\" or \"1GiB\", or a number of bytes".into(),
            Self::Budget => "a budget: \"2% of 1000\", \"5% per 1h\" or \"any\"".into(),
            Self::Rate => "a rate such as \"1 per 15m\"".into(),
            Self::Amount => "a decimal of at least 0".into(),
            Self::Date => "a date without quotes, such as 2027-06-01".into(),
            Self::Secret => "\"${NAME}\" or { file = \"path\" }".into(),
            Self::Reason => "a code in snake_case".into(),
            Self::Rows => {
                "a number of rows, a range such as \"1..3\" or \"1..\", \"any\", or a list of these".into()
            }
            Self::Expressions => "a table of names and CEL expressions".into(),
            Self::Budgets => "a table of reasons and budgets".into(),
            Self::Properties => "a table of `servers` and further settings of the client".into(),
            Self::Start => "\"earliest\", \"latest\", a time (RFC 3339) or an offset".into(),
            Self::Table(_) => "a table".into(),
            Self::WordOrTable(words, _) => format!("{}, or a table", one_of(words)),
            Self::Named(_) => "tables with names of your own".into(),
            Self::Tables(_) => "an array of tables".into(),
            Self::OneOrMore(_) => "a table, or an array of tables".into(),
            Self::Later(_) => "nothing yet".into(),
        }
    }
}

fn one_of(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}
