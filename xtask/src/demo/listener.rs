//! The target of the plugins' requests: a web server on this machine that records each request and answers it
//! with success.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::shell::{Doing as _, Result};

/// Requests, one line each: method and path, key, and body.
type Seen = Arc<Mutex<Vec<String>>>;

/// The server. It listens until the process ends.
pub(super) struct Listener {
    /// Its address, such as `127.0.0.1:41234`.
    pub(super) address: String,
    seen: Seen,
}

impl Listener {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").doing("listen for requests of plugins")?;
        let address = listener.local_addr().doing("find a port")?.to_string();
        let seen = Seen::default();
        let theirs = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&theirs);
                // The client sees an error and retries.
                thread::spawn(move || drop(answer(stream, &seen)));
            }
        });
        Ok(Self { address, seen })
    }

    /// The requests so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers the requests of one connection.
fn answer(stream: TcpStream, seen: &Seen) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let asked = line.trim_end_matches(" HTTP/1.1\r\n").to_owned();
        let (mut length, mut key) = (0, String::new());
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                "idempotency-key" => key = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body);
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{asked}  [{key}]  {body}"));
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
    }
}
