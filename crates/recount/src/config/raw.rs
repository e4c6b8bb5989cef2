//! The first stage: the text as TOML, held against the description of its keys. What comes out has only
//! known keys, each of its declared kind; whether they fit together is the second stage's to say.

use super::broker::{Property, StartAt};
use super::fault::{NOT_TOML, Place, Sink, floor_boundary, nearest};
use super::scalar::Expect;
use super::secret::Secret;
use super::spec::{KeySpec, Kind, Need, TableSpec};
use super::value::{self, read_value};
use recount_engine::RowRange;
use recount_model::{Amount, Budget, ReasonCode};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table whose keys are known.
#[derive(Debug, Clone)]
pub(super) struct RawTable {
    /// Its description.
    pub spec: &'static TableSpec,
    /// Its header, or its braces.
    pub at: Place,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: &'static str,
    at: Place,
    /// None where it had a fault.
    value: Option<Raw>,
}

/// A value with where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    /// Where.
    pub at: Place,
    /// What.
    pub value: T,
}

/// A value of its declared kind.
#[derive(Debug, Clone)]
pub(super) enum Raw {
    Text(String),
    Texts(Vec<At<String>>),
    Integer(i64),
    Bool(bool),
    Share(f64),
    /// Bytes or milliseconds.
    Quantity(u64),
    Budget(Budget),
    Rate(Expect),
    Amount(Amount),
    Date(jiff::civil::Date),
    Secret(Secret),
    Reason(ReasonCode),
    Rows(Vec<RowRange>),
    /// Name and text, in the order written.
    Pairs(Vec<(String, At<String>)>),
    Budgets(Vec<(String, At<Budget>)>),
    /// Name, with its dots, and what it says.
    Properties(Vec<(String, At<Property>)>),
    Start(StartAt),
    Table(RawTable),
    Tables(Vec<RawTable>),
    Named(Vec<(String, RawTable)>),
}

/// Reads a whole text. Syntax errors are faults too; what could be read is there all the same.
pub(super) fn read(spec: &'static TableSpec, text: &str, sink: &mut Sink<'_>) -> RawTable {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        hide_line(text, span.start, sink);
        sink.fault(&Place { span, key: String::new() }, format!("{NOT_TOML}{}", error.message()), None);
    }
    let at = Place { span: 0..0, key: String::new() };
    read_table(spec, document.get_ref(), at, errors.is_empty(), sink)
}

/// A line that isn't TOML may hold anything, so what follows its first `=` is not quoted.
fn hide_line(text: &str, at: usize, sink: &mut Sink<'_>) {
    let at = floor_boundary(text, at);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let line = text[start..end].to_ascii_lowercase();
    let may_be_secret =
        ["token", "secret", "hmac", "password", "slack", "url"].iter().any(|w| line.contains(w));
    if let (true, Some(equals)) = (may_be_secret, line.find('=')) {
        sink.mask(start + equals + 1..end);
    }
}

/// Reads one table; `whole` is false where syntax errors may have eaten keys.
pub(super) fn read_table(
    spec: &'static TableSpec,
    table: &DeTable<'_>,
    at: Place,
    whole: bool,
    sink: &mut Sink<'_>,
) -> RawTable {
    let mut raw = RawTable { spec, at, entries: Vec::new() };
    for (key, value) in in_order(table) {
        let place = Place { span: value.span(), key: value::dotted(&raw.at.key, key.get_ref()) };
        match spec.key(key.get_ref()) {
            Some(known) => {
                let read = read_value(known, value, &place, whole, sink);
                raw.entries.push(Entry { name: known.name, at: place, value: read });
            }
            None => {
                sink.mask(value.span());
                let place = Place { span: key.span(), ..place };
                unknown_key(spec, key.get_ref(), &place, sink);
            }
        }
    }
    if whole {
        for key in spec.keys.iter().filter(|key| key.need == Need::Required) {
            if !raw.has(key.name) {
                missing_key(spec, key, &raw.at, sink);
            }
        }
    }
    raw
}

/// A table's entries as they are written.
pub(super) fn in_order<'d, 'i>(
    table: &'d DeTable<'i>,
) -> Vec<(&'d Spanned<toml::de::DeString<'i>>, &'d Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn unknown_key(spec: &'static TableSpec, name: &str, at: &Place, sink: &mut Sink<'_>) {
    let names: Vec<&str> = spec.keys.iter().map(|key| key.name).collect();
    let help = match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known keys here: {}", names.join(", ")),
    };
    let place = if spec.header.is_empty() { "the file".to_owned() } else { format!("`{}`", spec.header) };
    sink.fault(at, format!("unknown key `{name}` in {place}"), help);
}

fn missing_key(spec: &'static TableSpec, key: &KeySpec, table: &Place, sink: &mut Sink<'_>) {
    let at = Place { span: table.span.clone(), key: value::dotted(&table.key, key.name) };
    let doc = key.doc.strip_suffix('.').unwrap_or(key.doc);
    sink.fault(
        &at,
        format!("`{}` has no `{}`", spec.header, key.name),
        format!("write: {} = {}\n({doc})", key.name, key.example),
    );
}

impl RawTable {
    /// Whether the key is written, be it with a fault.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Where the key's value stands; the table's header where it isn't written.
    pub fn place(&self, name: &str) -> Place {
        match self.entry(name) {
            Some(entry) => entry.at.clone(),
            None => Place { span: self.at.span.clone(), key: value::dotted(&self.at.key, name) },
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        debug_assert!(self.spec.key(name).is_some(), "{} describes no key {name}", self.spec.header);
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// What is written without a fault.
    fn written(&self, name: &str) -> Option<&Raw> {
        self.entry(name)?.value.as_ref()
    }

    /// What is written, else the default that the description gives.
    fn get(&self, name: &str) -> Option<Raw> {
        if let Some(raw) = self.written(name) {
            return Some(raw.clone());
        }
        let key = self.spec.key(name)?;
        let Need::Default(text) = key.need else { return None };
        read_default(key, text)
    }

    /// Bytes, milliseconds or a whole number; 0 where there is neither a value nor a default.
    pub fn quantity(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Raw::Quantity(number)) => number,
            Some(Raw::Integer(number)) => number.unsigned_abs(),
            _ => 0,
        }
    }

    /// The same as a `usize`.
    pub fn count(&self, name: &str) -> usize {
        usize::try_from(self.quantity(name)).unwrap_or(usize::MAX)
    }

    /// The same as a `u32`.
    pub fn small_count(&self, name: &str) -> u32 {
        u32::try_from(self.quantity(name)).unwrap_or(u32::MAX)
    }

    /// A quantity without a default.
    pub fn quantity_if(&self, name: &str) -> Option<u64> {
        self.written(name).map(|_| self.quantity(name))
    }

    /// A share, with its default.
    pub fn share(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Raw::Share(share)) => share,
            _ => 0.0,
        }
    }

    /// A text, path, expression or word; its default where it has one.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(Raw::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Texts with their places; empty where the key isn't written.
    pub fn texts(&self, name: &str) -> &[At<String>] {
        match self.written(name) {
            Some(Raw::Texts(texts)) => texts,
            _ => &[],
        }
    }

    /// Only the texts.
    pub fn plain_texts(&self, name: &str) -> Vec<String> {
        self.texts(name).iter().map(|text| text.value.clone()).collect()
    }

    /// True only where `true` is written.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.written(name), Some(Raw::Bool(true)))
    }

    /// A budget; its default where it has one.
    pub fn budget(&self, name: &str) -> Option<Budget> {
        match self.get(name) {
            Some(Raw::Budget(budget)) => Some(budget),
            _ => None,
        }
    }

    /// A rate.
    pub fn rate(&self, name: &str) -> Option<Expect> {
        match self.written(name) {
            Some(Raw::Rate(rate)) => Some(*rate),
            _ => None,
        }
    }

    /// An amount; zero where there is none.
    pub fn amount(&self, name: &str) -> Amount {
        match self.get(name) {
            Some(Raw::Amount(amount)) => amount,
            _ => Amount::ZERO,
        }
    }

    /// A date.
    pub fn date(&self, name: &str) -> Option<jiff::civil::Date> {
        match self.written(name) {
            Some(Raw::Date(date)) => Some(*date),
            _ => None,
        }
    }

    /// A secret's place; a file's path is resolved against `folder`.
    pub fn secret(&self, name: &str, folder: &Path) -> Option<Secret> {
        match self.written(name) {
            Some(Raw::Secret(Secret::File(path))) => Some(Secret::File(folder.join(path))),
            Some(Raw::Secret(secret)) => Some(secret.clone()),
            _ => None,
        }
    }

    /// A reason's code.
    pub fn reason(&self, name: &str) -> Option<&ReasonCode> {
        match self.written(name) {
            Some(Raw::Reason(code)) => Some(code),
            _ => None,
        }
    }

    /// Row ranges; empty where the key isn't written.
    pub fn rows(&self, name: &str) -> &[RowRange] {
        match self.written(name) {
            Some(Raw::Rows(rows)) => rows,
            _ => &[],
        }
    }

    /// Names and expressions, in the order written.
    pub fn pairs(&self, name: &str) -> &[(String, At<String>)] {
        match self.written(name) {
            Some(Raw::Pairs(pairs)) => pairs,
            _ => &[],
        }
    }

    /// Names and budgets, in the order written.
    pub fn budgets(&self, name: &str) -> &[(String, At<Budget>)] {
        match self.written(name) {
            Some(Raw::Budgets(budgets)) => budgets,
            _ => &[],
        }
    }

    /// Properties of a client, in the order written.
    pub fn properties(&self, name: &str) -> &[(String, At<Property>)] {
        match self.written(name) {
            Some(Raw::Properties(properties)) => properties,
            _ => &[],
        }
    }

    /// Where a flow begins.
    pub fn start(&self, name: &str) -> Option<StartAt> {
        match self.written(name) {
            Some(Raw::Start(start)) => Some(*start),
            _ => None,
        }
    }

    /// A table within, where it is written.
    pub fn table(&self, name: &str) -> Option<&RawTable> {
        match self.written(name) {
            Some(Raw::Table(table)) => Some(table),
            _ => None,
        }
    }

    /// A table within; where it isn't written, an empty one, which has the defaults.
    pub fn table_or_defaults(&self, name: &str) -> RawTable {
        if let Some(table) = self.table(name) {
            return table.clone();
        }
        let spec = match self.spec.key(name).map(|key| key.kind) {
            Some(Kind::Table(spec) | Kind::WordOrTable(_, spec)) => spec,
            _ => self.spec,
        };
        RawTable { spec, at: self.place(name), entries: Vec::new() }
    }

    /// An array of tables; empty where there is none.
    pub fn tables(&self, name: &str) -> &[RawTable] {
        match self.written(name) {
            Some(Raw::Tables(tables)) => tables,
            _ => &[],
        }
    }

    /// Tables with free names, in the order written.
    pub fn named(&self, name: &str) -> &[(String, RawTable)] {
        match self.written(name) {
            Some(Raw::Named(tables)) => tables,
            _ => &[],
        }
    }
}

/// Reads a default from the description. A test holds that all of them can be read.
pub(super) fn read_default(key: &KeySpec, text: &str) -> Option<Raw> {
    let value = DeValue::parse(text).ok()?;
    let mut sink = Sink::new("", "");
    let at = Place { span: 0..0, key: key.name.to_owned() };
    read_value(key, &value, &at, true, &mut sink).filter(|_| sink.is_clean())
}
