//! TLS as the URL asks for it, in the words of libpq: `sslmode`, `sslrootcert`, `sslcert` and `sslkey`.
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>
//!
//! Stricter than libpq in one thing: where there is TLS, the certificate and the server's name are always
//! checked, whatever the mode.

use super::settings::PostgresOpenError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a URL says of certificates.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Who is believed instead of the system's authorities.
    pub root: Option<PathBuf>,
    /// Ours, where the server wants one.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Takes out of the URL's parameters what the driver does not know.
pub(crate) fn split(url: &str) -> Result<(String, Trust), PostgresOpenError> {
    let mut trust = Trust::default();
    let Some((address, parameters)) = url.split_once('?') else { return Ok((url.to_owned(), trust)) };
    let mut kept = Vec::new();
    let mut mode = None;
    for parameter in parameters.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let path = || Some(PathBuf::from(decoded(value)));
        match name {
            // What the system trusts is what is trusted where no file is named.
            "sslrootcert" if value == "system" => {}
            "sslrootcert" => trust.root = path(),
            "sslcert" => trust.certificate = path(),
            "sslkey" => trust.key = path(),
            "sslmode" => mode = Some(value),
            _ => kept.push(parameter.to_owned()),
        }
    }
    if trust.certificate.is_some() != trust.key.is_some() {
        let why = "the database's url names one of sslcert and sslkey: it takes both or none";
        return Err(PostgresOpenError::Url(why.to_owned()));
    }
    let names_files = trust != Trust::default();
    let mode = match mode {
        Some("verify-ca" | "verify-full" | "require") => Some("require"),
        Some("allow") => Some("prefer"),
        Some(_) if mode == Some("disable") && names_files => {
            let why = "the database's url names certificates and sslmode=disable: write sslmode=verify-full";
            return Err(PostgresOpenError::Url(why.to_owned()));
        }
        // Who names a certificate wants it to be used.
        None | Some("prefer") if names_files => Some("require"),
        other => other,
    };
    kept.extend(mode.map(|mode| format!("sslmode={mode}")));
    Ok((if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) }, trust))
}

/// `%41` is an `A`; what is no such escape stands as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| first == b'%');
        let byte = escaped.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Makes connections with TLS; the server's name is checked.
pub(crate) fn connector(trust: &Trust) -> Result<MakeRustlsConnect, PostgresOpenError> {
    let mut roots = RootCertStore::empty();
    match &trust.root {
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(path) => {
            for certificate in certificates("sslrootcert", path)? {
                roots.add(certificate).map_err(|error| unusable("sslrootcert", path, &error.to_string()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the protocol versions that rustls holds safe")
        .with_root_certificates(roots);
    let config = match (&trust.certificate, &trust.key) {
        (Some(certificate), Some(key)) => {
            let read = PrivateKeyDer::from_pem_file(key);
            // The error of a key says nothing of what stands in it.
            let read = read.map_err(|_| unusable("sslkey", key, "it holds no private key in PEM"))?;
            let chain = certificates("sslcert", certificate)?;
            let refused = |error: rustls::Error| unusable("sslcert", certificate, &error.to_string());
            builder.with_client_auth_cert(chain, read).map_err(refused)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, PostgresOpenError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| unusable(what, path, &error.to_string()))?;
    if read.is_empty() {
        return Err(unusable(what, path, "it holds no certificate in PEM"));
    }
    Ok(read)
}

fn unusable(what: &str, path: &Path, why: &str) -> PostgresOpenError {
    PostgresOpenError::Url(format!("{what}={} in the database's url can't be used: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(root: &str) -> Trust {
        Trust { root: Some(root.into()), ..Trust::default() }
    }

    #[test]
    fn a_named_certificate_is_used_and_the_other_parameters_stay() {
        let url = "postgres://shop@db/shop";
        let of = |parameters: &str| split(&format!("{url}{parameters}")).unwrap();
        assert_eq!(of(""), (url.to_owned(), Trust::default()));
        assert_eq!(
            of("?sslmode=verify-full&sslrootcert=/etc/a%20b.pem&keepalives_idle=7"),
            (format!("{url}?keepalives_idle=7&sslmode=require"), trust("/etc/a b.pem"))
        );
        assert_eq!(of("?sslrootcert=ca.pem"), (format!("{url}?sslmode=require"), trust("ca.pem")));
        assert_eq!(of("?sslmode=disable"), (format!("{url}?sslmode=disable"), Trust::default()));
        assert_eq!(of("?sslrootcert=system"), (url.to_owned(), Trust::default()));
    }

    #[test]
    fn certificates_without_tls_and_a_certificate_without_its_key_are_refused() {
        for parameters in ["sslmode=disable&sslrootcert=ca.pem", "sslcert=me.pem", "sslkey=me.key"] {
            let refused = split(&format!("postgres://shop@db/shop?{parameters}")).unwrap_err();
            assert!(refused.to_string().contains("the database's url"), "{refused}");
        }
    }
}
