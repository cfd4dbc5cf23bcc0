//! A web server that records its requests, and answers as a test says.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::{Headers, certificates, http2};

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct WebRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// When it was received completely.
    pub at: Instant,
    /// Whether it used HTTP/2.
    pub http2: bool,
    /// The number of its connection to the server, from 1.
    pub connection: usize,
}

impl WebRequest {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Its `Idempotency-Key`.
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    pub fn key(&self) -> &str {
        self.header("idempotency-key").expect("an idempotency key")
    }
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub enum WebReply {
    /// Status, headers and body.
    Whole(u16, Headers, Vec<u8>),
    /// 200 with an endless body: this many bytes at a time, with this pause between them.
    Endless(usize, Duration),
    /// Nothing, while the client waits.
    Silence,
    /// The end instead of a response: of the stream, or with HTTP/1.1 of the connection.
    BreaksOff,
    /// The end of the connection with all its streams.
    HangsUp,
}

impl WebReply {
    /// Only this status.
    pub fn status(status: u16) -> Self {
        Self::Whole(status, Headers::new(), Vec::new())
    }

    /// 200 with this body.
    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Self::Whole(200, Headers::new(), body.into())
    }

    /// A redirect.
    pub fn redirect(status: u16, to: impl Into<String>) -> Self {
        Self::Whole(status, vec![("location".into(), to.into())], Vec::new())
    }

    /// Adds a header.
    ///
    /// # Panics
    /// If the answer has no headers.
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<String>) -> Self {
        let Self::Whole(status, mut headers, body) = self else { panic!("a whole reply") };
        headers.push((name.into(), value.into()));
        Self::Whole(status, headers, body)
    }
}

type Answer = dyn Fn(&WebRequest) -> WebReply + Send + Sync;

/// A running web server, which stops on drop.
pub struct WebServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<WebRequest>>>,
    stop: Arc<AtomicBool>,
    dir: Option<TempDir>,
}

/// The properties of a server that its connections share.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) answer: Arc<Answer>,
    pub(crate) seen: Arc<Mutex<Vec<WebRequest>>>,
    pub(crate) stop: Arc<AtomicBool>,
    speaks: Speaks,
}

/// The protocols that a server speaks.
#[derive(Clone)]
enum Speaks {
    Clear,
    Tls(Arc<ServerConfig>),
    Http2(Arc<ServerConfig>),
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) serving: Serving,
    pub(crate) number: usize,
}

impl WebServer {
    /// Starts a server at 127.0.0.1. It calls `answer` for each request.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start(answer: impl Fn(&WebRequest) -> WebReply + Send + Sync + 'static) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), answer)
    }

    /// Starts a server at another address of this machine.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&WebRequest) -> WebReply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(address, Arc::new(answer), Speaks::Clear)
    }

    /// Starts a server with TLS. An authority created for this run signed its certificate for these names;
    /// [`WebServer::authority`] is its file. The server speaks only HTTP/1.1.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start_secured(
        names: &[&str],
        answer: impl Fn(&WebRequest) -> WebReply + Send + Sync + 'static,
    ) -> Self {
        let dir = certificates::make(names);
        let speaks = Speaks::Tls(certificates::server(dir.path(), &["http/1.1"]));
        let mut server = Self::serve((Ipv4Addr::LOCALHOST, 0).into(), Arc::new(answer), speaks);
        server.dir = Some(dir);
        server
    }

    /// Like [`WebServer::start_secured`], but it also offers HTTP/2.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start_http2(
        names: &[&str],
        answer: impl Fn(&WebRequest) -> WebReply + Send + Sync + 'static,
    ) -> Self {
        let dir = certificates::make(names);
        let speaks = Speaks::Http2(certificates::server(dir.path(), &["h2", "http/1.1"]));
        let mut server = Self::serve((Ipv4Addr::LOCALHOST, 0).into(), Arc::new(answer), speaks);
        server.dir = Some(dir);
        server
    }

    #[track_caller]
    fn serve(address: SocketAddr, answer: Arc<Answer>, speaks: Speaks) -> Self {
        let listener = TcpListener::bind(address).expect("a port to listen at");
        let address = listener.local_addr().expect("its address");
        let (seen, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let serving = Serving { answer, seen: Arc::clone(&seen), stop: Arc::clone(&stop), speaks };
        thread::spawn(move || {
            for (stream, number) in listener.incoming().zip(1..) {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let connection = Connection { serving: serving.clone(), number };
                // The client notices an error by its broken connection, and the test by its result.
                thread::spawn(move || drop(connection.serve(stream)));
            }
        });
        Self { address, seen, stop, dir: None }
    }

    /// The server's address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The server's address.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// `http://<address>` and this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far, in order.
    ///
    /// # Panics
    /// If one of its threads did.
    pub fn requests(&self) -> Vec<WebRequest> {
        self.seen.lock().expect("what was seen").clone()
    }

    /// The file of the authority that a client of a secured server must trust.
    ///
    /// # Panics
    /// If the server is not secured.
    pub fn authority(&self) -> PathBuf {
        self.dir.as_ref().expect("a secured server").path().join("ca.pem")
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

impl Connection {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match &self.serving.speaks {
            Speaks::Http2(tls) => http2::serve(self, stream, Arc::clone(tls)),
            Speaks::Tls(tls) => {
                let connection = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
                self.requests(StreamOwned::new(connection, stream))
            }
            Speaks::Clear => self.requests(stream),
        }
    }

    fn requests(&self, stream: impl Read + Write) -> io::Result<()> {
        let Serving { answer, seen, stop, .. } = &self.serving;
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream, self.number)? {
            seen.lock().map_err(|_| io::Error::other("a thread failed"))?.push(request.clone());
            let out = stream.get_mut();
            match answer(&request) {
                WebReply::Whole(status, headers, body) => {
                    let mut head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n", body.len());
                    for (name, value) in &headers {
                        head += &format!("{name}: {value}\r\n");
                    }
                    out.write_all(format!("{head}\r\n").as_bytes())?;
                    if request.method != "HEAD" {
                        out.write_all(&body)?;
                    }
                    out.flush()?;
                    if headers.iter().any(|(name, value)| name == "connection" && value == "close") {
                        return Ok(());
                    }
                }
                WebReply::Endless(bytes, pause) => {
                    out.write_all(b"HTTP/1.1 200 Said\r\ntransfer-encoding: chunked\r\n\r\n")?;
                    while !stop.load(Ordering::Relaxed) {
                        write!(out, "{bytes:x}\r\n{}\r\n", "x".repeat(bytes))?;
                        out.flush()?;
                        thread::sleep(pause);
                    }
                    return Ok(());
                }
                WebReply::Silence => {
                    while !stop.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(20));
                    }
                    return Ok(());
                }
                WebReply::BreaksOff | WebReply::HangsUp => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Reads one request. None if the client has closed the connection.
fn read(stream: &mut impl BufRead, connection: usize) -> io::Result<Option<WebRequest>> {
    let odd = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {line:?}"));
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Err(odd(&line)) };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = Headers::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| odd(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(Ok(0), |(_, value)| value.parse()).map_err(|_| odd("content-length"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(WebRequest { method, path, headers, body, at: Instant::now(), http2: false, connection }))
}
