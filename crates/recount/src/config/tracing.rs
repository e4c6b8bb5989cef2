//! Where spans go.

use super::Secret;
use super::raw::RawTable;
use super::resolve::Context;
use ureq::http::Uri;

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracingConfig {
    /// The whole address, with its path.
    pub url: String,
    /// Bearer token shown to the collector.
    pub token: Option<Secret>,
    /// `service.name` of the spans.
    pub service: String,
}

/// The path that OTLP over HTTP has for spans.
const TRACES_PATH: &str = "/v1/traces";

pub(super) fn resolve(raw: &RawTable, context: &mut Context<'_, '_>) -> Option<TracingConfig> {
    let table = raw.table("tracing")?;
    let written = table.text("otlp")?;
    let url = whole_address(&written).unwrap_or_else(|what| {
        let help = "write: otlp = \"http://localhost:4318\"".to_owned();
        context.sink.fault(&table.place("otlp"), what, help);
        written
    });
    Some(TracingConfig {
        url,
        token: table.secret("token", &context.folder),
        service: table.text("service").unwrap_or_default(),
    })
}

fn whole_address(written: &str) -> Result<String, String> {
    let wrong = || format!("`otlp` takes an address with http:// or https://, and {written:?} isn't that");
    let uri: Uri = written.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(
            "the address holds credentials: give them as `token`, from the environment or a file".to_owned()
        );
    }
    match uri.path() {
        "" | "/" if uri.query().is_none() => Ok(format!("{}{TRACES_PATH}", written.trim_end_matches('/'))),
        _ => Ok(written.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::whole_address;

    #[test]
    fn an_address_without_a_path_means_the_one_for_spans() {
        for (written, whole) in [
            ("http://localhost:4318", Some("http://localhost:4318/v1/traces")),
            ("https://otel.example/", Some("https://otel.example/v1/traces")),
            ("http://otel.example/traces/in", Some("http://otel.example/traces/in")),
            ("localhost:4318", None),
            ("grpc://localhost:4317", None),
            ("http://ada:secret@otel.example", None),
            ("", None),
        ] {
            assert_eq!(whole_address(written).ok().as_deref(), whole, "{written}");
        }
        let refused = whole_address("http://ada:hunter2@otel.example").unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
