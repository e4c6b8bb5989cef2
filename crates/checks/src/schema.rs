//! JSON Schema: whether an event fits, and what does not, without the event's values.

use crate::secret::Secrets;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};

/// Errors that evidence shows.
const ERRORS_MAX: usize = 5;
/// Of a path, in bytes.
const PATH_BYTES_MAX: usize = 200;
/// Of one `pattern` on one text.
const BACKTRACKS_MAX: usize = 100_000;

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: Validator,
}

/// What does not fit.
#[derive(Debug)]
pub(crate) struct Mismatch {
    /// Paths and keywords.
    pub errors: Vec<Value>,
    /// The first of them, for people.
    pub sentence: String,
}

impl Schema {
    /// Compiles a schema; references must lie within it.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let pattern = PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS_MAX);
        let built = jsonschema::options().with_pattern_options(pattern).build(schema);
        let validator = built.map_err(|error| {
            let mut message = error.to_string();
            message.truncate(message.floor_char_boundary(300));
            format!("it is not a JSON Schema that can be used (references must lie within it): {message}")
        })?;
        Ok(Self { validator })
    }

    /// `rounded`: the event holds whole numbers beyond 64 bits, of which only a rounded form could be
    /// compared with the schema's limits.
    pub fn check(&self, data: &Value, rounded: bool, secrets: &Secrets) -> Result<(), Mismatch> {
        if rounded {
            return Err(Mismatch {
                errors: vec![json!({ "error": "an integer beyond 64 bits can't be checked exactly" })],
                sentence: "the event holds an integer beyond 64 bits, which can't be checked exactly; send it as text"
                    .to_owned(),
            });
        }
        if self.validator.is_valid(data) {
            return Ok(());
        }
        let mut errors = Vec::new();
        let mut sentence = "the event does not fit the schema".to_owned();
        for error in self.validator.iter_errors(data).take(ERRORS_MAX) {
            let path = shown_path(data, error.instance_path().as_str(), secrets);
            let keyword = error.kind().keyword();
            let wanted = wanted(error.kind());
            if errors.is_empty() {
                let place = if path.is_empty() { "the event".to_owned() } else { path.clone() };
                let wanted = wanted.as_ref().map(|wanted| format!(" ({wanted})")).unwrap_or_default();
                sentence = format!("{place} does not fit the schema's {keyword}{wanted}");
            }
            errors.push(match wanted {
                Some(wanted) => json!({ "path": path, "keyword": keyword, "wanted": wanted }),
                None => json!({ "path": path, "keyword": keyword }),
            });
        }
        Err(Mismatch { errors, sentence })
    }
}

/// What the schema says there, from the schema alone.
fn wanted(kind: &ValidationErrorKind) -> Option<String> {
    Some(match kind {
        ValidationErrorKind::Type { kind } => match kind {
            jsonschema::error::TypeKind::Single(single) => format!("{single} is needed"),
            jsonschema::error::TypeKind::Multiple(_) => return None,
        },
        ValidationErrorKind::Required { property } => format!("{property} is missing"),
        ValidationErrorKind::Minimum { limit } => format!("at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("less than {limit}"),
        ValidationErrorKind::MinLength { limit } => format!("at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("at most {limit} characters"),
        ValidationErrorKind::MinItems { limit } => format!("at least {limit} items"),
        ValidationErrorKind::MaxItems { limit } => format!("at most {limit} items"),
        ValidationErrorKind::Format { format } => format!("{format} is needed"),
        _ => return None,
    })
}

/// A JSON pointer into the event, ended where a secret begins: names below it may be values.
fn shown_path(data: &Value, pointer: &str, secrets: &Secrets) -> String {
    let mut shown = String::new();
    let mut names = Vec::new();
    let unescaped: Vec<String> =
        pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let mut value = Some(data);
    for (part, written) in unescaped.iter().zip(pointer.split('/').skip(1)) {
        if !matches!(value, Some(Value::Array(_))) {
            names.push(part.as_str());
        }
        shown.push('/');
        shown.push_str(written);
        if shown.len() > PATH_BYTES_MAX {
            shown.truncate(shown.floor_char_boundary(PATH_BYTES_MAX));
            shown.push('…');
            break;
        }
        if secrets.reached_by(&names) {
            break;
        }
        value = match value {
            Some(Value::Array(items)) => part.parse().ok().and_then(|place: usize| items.get(place)),
            Some(Value::Object(fields)) => fields.get(part),
            _ => None,
        };
    }
    shown
}
