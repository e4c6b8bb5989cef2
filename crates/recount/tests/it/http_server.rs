//! An HTTP handler in a few lines, as somebody in another language would write it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Answers requests on a port of its own until the test ends.
pub struct Handler {
    /// Where it listens.
    pub url: String,
    /// How many requests came.
    pub requests: Arc<AtomicU64>,
    /// The bodies that came.
    pub bodies: Arc<Mutex<Vec<Value>>>,
}

/// Starts a handler: a request's body becomes a status and an answer.
pub fn handler(answer: impl Fn(u64, &Value) -> (u16, String) + Send + 'static) -> Handler {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/reserve", listener.local_addr().unwrap());
    let (requests, bodies) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (counted, kept) = (Arc::clone(&requests), Arc::clone(&bodies));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let Some(body) = read_body(&stream) else { continue };
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            let (status, text) = answer(nth, &body);
            kept.lock().unwrap().push(body);
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                text.len()
            );
            let _ = (&stream).write_all(&[head.as_bytes(), text.as_bytes()].concat());
        }
    });
    Handler { url, requests, bodies }
}

fn read_body(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
