//! HTTP by hand: answers for tests, and a connection on which a test writes any bytes.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::Headers;

/// The parts of an answer that a test checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, such as 200.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Headers,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether the event was accepted now, for the first time.
    pub fn accepted(&self) -> bool {
        self.status == 200 && self.json() == serde_json::json!({ "received": true })
    }

    /// Whether the event was stored before.
    pub fn duplicate(&self) -> bool {
        self.status == 200 && self.json() == serde_json::json!({ "received": true, "duplicate": true })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

/// One TCP connection to the daemon. Written bytes are sent unchanged.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects. Every read and write may take 30 s.
    ///
    /// # Errors
    /// If nothing listens there.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// If the other side has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Signals that nothing more will be written.
    ///
    /// # Errors
    /// If the other side has closed the connection.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown(Shutdown::Write)
    }

    /// Sends a POST with a `content-length` and reads its answer. The body is JSON unless the headers say otherwise. The connection stays open.
    ///
    /// # Errors
    /// If the connection breaks, or the answer is not HTTP.
    pub fn post(&mut self, path: &str, headers: &Headers, body: &[u8]) -> io::Result<Answer> {
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request += "content-type: application/json\r\n";
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        self.answer()
    }

    /// Reads one answer. A body without a `content-length` ends with the connection.
    ///
    /// # Errors
    /// If the connection breaks, or the answer is not HTTP.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let odd = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {line:?}"));
        let first = self.line()?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| first.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| odd(&first))?;
        let mut headers = Headers::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| odd(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        match answer.header("content-length").map(str::parse) {
            Some(Ok(length)) => {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body)?;
                answer.body = String::from_utf8_lossy(&body).into_owned();
            }
            Some(Err(_)) => return Err(odd("content-length")),
            // These never have a body (RFC 9110, 6.4.1).
            None if matches!(status, 204 | 304) => {}
            None => drop(self.stream.read_to_string(&mut answer.body)?),
        }
        Ok(answer)
    }

    /// Whether the other side has closed the connection: the next read returns the end.
    pub fn closed(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
