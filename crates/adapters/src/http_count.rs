//! The number of a consumer's effects, asked over HTTP: one GET, whose JSON answer holds it.

use crate::http_effect::agent;
use recount_audit::{EffectSnapshot, EffectWitness, PositionRow, WitnessError};
use recount_model::{Amount, FlowName, PartitionId};
use std::ops::ControlFlow;
use ureq::Agent;

/// How long an answer may take, and how large it may be.
const DEADLINE_MS: u64 = 10_000;
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Somebody who answers how many effects there are. There is no snapshot over HTTP: each question is answered as
/// of its own instant.
pub struct HttpCountWitness {
    agent: Agent,
    url: String,
    pointer: String,
    token: Option<String>,
}

impl HttpCountWitness {
    /// `pointer` is a JSON Pointer (RFC 6901) to the number; empty where the answer is the number itself. `token`
    /// is sent as a bearer token.
    pub fn new(url: impl Into<String>, pointer: impl Into<String>, token: Option<String>) -> Self {
        Self { agent: agent(DEADLINE_MS), url: url.into(), pointer: pointer.into(), token }
    }

    /// Asks now.
    ///
    /// # Errors
    /// Where there is no answer, or none with a number of effects in its place.
    pub fn count(&self) -> Result<u64, WitnessError> {
        let Self { url, pointer, .. } = self;
        let away = |why: String| WitnessError::Unreachable(format!("{url} {why}"));
        let mut request = self.agent.get(url).header("Accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(|error| away(format!("does not answer: {error}")))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(away(format!("answered {status}, and not 200 with the number of effects")));
        }
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| away(format!("could not be read to the end: {error}")))?;
        let json: serde_json::Value = serde_json::from_slice(&body)
            .map_err(|error| away(format!("answered what is not JSON: {error}")))?;
        let place = if pointer.is_empty() {
            "its whole answer".to_owned()
        } else {
            format!("{pointer} of its answer")
        };
        match json.pointer(pointer) {
            Some(number) => number.as_u64().ok_or_else(|| {
                away(format!("gives no number of effects: {place} is not a whole number from 0 on"))
            }),
            None => Err(away(format!("gives no number of effects: there is no {place}"))),
        }
    }
}

impl EffectWitness for HttpCountWitness {
    fn snapshot(&self) -> Result<Box<dyn EffectSnapshot + '_>, WitnessError> {
        Ok(Box::new(Asking(self)))
    }
}

struct Asking<'a>(&'a HttpCountWitness);

impl Asking<'_> {
    fn only_counts<T>(&self) -> Result<T, WitnessError> {
        Err(WitnessError::Unreachable(format!("{} gives a number of effects, and nothing else", self.0.url)))
    }
}

impl EffectSnapshot for Asking<'_> {
    fn positions(&self, _: &FlowName) -> Result<Vec<PositionRow>, WitnessError> {
        self.only_counts()
    }

    fn stored_batches(&self, _: &PartitionId, _: u64) -> Result<Vec<u64>, WitnessError> {
        self.only_counts()
    }

    fn effects(
        &self,
        _: &PartitionId,
        _: u64,
        _: u64,
        _: &mut dyn FnMut(u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.only_counts()
    }

    fn custom_ids(
        &self,
        _: &str,
        _: &str,
        _: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.only_counts()
    }

    fn custom_count(&self, _: &str) -> Result<u64, WitnessError> {
        self.0.count()
    }

    fn reconcile(
        &self,
        _: &str,
        _: bool,
        _: &mut dyn FnMut(Option<&str>, Amount) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.only_counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// What one answer is read as, and what was asked.
    fn counted(answer: &str, pointer: &str, token: Option<&str>) -> (Result<u64, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/count", listener.local_addr().unwrap());
        let answer = answer.to_owned();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let length = client.read(&mut asked).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let count = HttpCountWitness::new(url, pointer, token.map(str::to_owned)).count();
        (count.map_err(|error| error.to_string()), server.join().unwrap())
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    #[test]
    fn the_number_is_found_in_its_place_and_anything_else_is_no_answer() {
        let nested = ok(r#"{"total":{"movements":[7,42]},"name":"x","part":1.5,"less":-1}"#);
        for (answer, pointer, expected) in [
            (nested.clone(), "/total/movements/1", Ok(42)),
            (ok("17"), "", Ok(17)),
            (nested.clone(), "/total", Err("is not a whole number")),
            (nested.clone(), "/name", Err("is not a whole number")),
            (nested.clone(), "/part", Err("is not a whole number")),
            (nested.clone(), "/less", Err("is not a whole number")),
            (nested, "/count", Err("there is no /count of its answer")),
            (ok("<html>"), "", Err("not JSON")),
            (
                "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".into(),
                "",
                Err("answered 302"),
            ),
            ("HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n17".into(), "", Err("answered 500")),
        ] {
            let (count, _) = counted(&answer, pointer, None);
            match (&count, expected) {
                (Ok(count), Ok(expected)) => assert_eq!(*count, expected),
                (Err(told), Err(part)) => assert!(told.contains(part), "{told}"),
                (count, expected) => panic!("{answer} {pointer}: {count:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_token_is_sent_and_never_told() {
        let (count, asked) = counted(&ok("1"), "", Some("hush"));
        assert_eq!(count, Ok(1));
        assert!(asked.to_ascii_lowercase().contains("authorization: bearer hush"), "{asked}");
        let (count, _) = counted("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "", Some("hush"));
        assert!(!count.unwrap_err().contains("hush"));
    }
}
