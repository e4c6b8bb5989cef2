//! Who may post.

use super::answer::Refusal;
use axum::http::{HeaderMap, StatusCode, header};
use ring::hmac;
use std::fmt;
use std::net::SocketAddr;

/// The header that carries `sha256=<hex>`, the HMAC-SHA256 of the body.
pub const SIGNATURE_HEADER: &str = "x-recount-signature";

/// A secret that no log and no debug text shows.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps a resolved secret. None where it is empty: that would let everyone in.
    pub fn new(secret: &str) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(secret.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a client proves that it may post.
#[derive(Debug, Clone)]
pub enum Auth {
    /// It needn't; only where nobody but this machine can reach the server.
    None,
    /// `Authorization: Bearer <token>`.
    Bearer(Secret),
    /// `X-Recount-Signature: sha256=<hex>`: HMAC-SHA256 (RFC 2104) over the body's bytes.
    Hmac(Secret),
}

impl Auth {
    pub(crate) fn check_before_body(&self, headers: &HeaderMap) -> Result<(), Box<Refusal>> {
        match self {
            Self::None => Ok(()),
            Self::Bearer(token) => {
                let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
                let given = given.and_then(|value| match value.split_at_checked(7) {
                    Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(token),
                    _ => None,
                });
                let Some(given) = given else {
                    return Err(unauthorized(
                        "send the header Authorization: Bearer with the server's token",
                    ));
                };
                // Hashes of BLAKE3 are compared in constant time, and have one length.
                if blake3::hash(given) == blake3::hash(token.0.as_bytes()) {
                    return Ok(());
                }
                Err(unauthorized("the bearer token is not the one that this server expects"))
            }
            Self::Hmac(_) if headers.contains_key(SIGNATURE_HEADER) => Ok(()),
            Self::Hmac(_) => Err(unauthorized(
                "send the header X-Recount-Signature: sha256=<hex>, the HMAC-SHA256 of the body",
            )),
        }
    }

    pub(crate) fn check_body(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Box<Refusal>> {
        let Self::Hmac(secret) = self else { return Ok(()) };
        let given = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("sha256=")).and_then(bytes_of_hex);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.0.as_bytes());
        match given {
            Some(given) if hmac::verify(&key, body, &given).is_ok() => Ok(()),
            Some(_) => Err(unauthorized("the signature does not fit the body: sign its bytes as sent")),
            None => Err(unauthorized("the signature is not sha256= and 64 hex digits")),
        }
    }
}

fn unauthorized(sentence: &'static str) -> Box<Refusal> {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", sentence)
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Whether events may be taken at this address: without authentication only from this machine.
pub fn check_listen(address: SocketAddr, auth: &Auth) -> Result<(), String> {
    if address.ip().to_canonical().is_loopback() || !matches!(auth, Auth::None) {
        return Ok(());
    }
    Err(format!(
        "events can't be taken at {address} without authentication, since others can reach it: set a bearer \
         token or an HMAC secret for the source, or listen at 127.0.0.1:{}",
        address.port()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_goes_without_authentication() {
        let bearer = Auth::Bearer(Secret::new("t").unwrap());
        for (address, auth, allowed) in [
            ("127.0.0.1:80", &Auth::None, true),
            ("127.8.8.8:80", &Auth::None, true),
            ("[::1]:80", &Auth::None, true),
            ("[::ffff:127.0.0.1]:80", &Auth::None, true),
            ("0.0.0.0:80", &Auth::None, false),
            ("[::]:80", &Auth::None, false),
            ("192.168.1.7:80", &Auth::None, false),
            ("0.0.0.0:80", &bearer, true),
        ] {
            assert_eq!(check_listen(address.parse().unwrap(), auth).is_ok(), allowed, "{address}");
        }
        assert!(Secret::new("").is_none());
        assert!(!format!("{bearer:?}").contains('t') || format!("{bearer:?}") == "Bearer(Secret(…))");
    }
}
