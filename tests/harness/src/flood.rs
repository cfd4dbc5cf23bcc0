//! A web server that answers each request with something that never ends, as fast as the client reads it.
//!
//! It writes bytes and knows no protocol beyond what a request needs. Over HTTP/2, it writes frames on
//! stream 1.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::certificates;

/// The number of bytes in one write.
const AT_ONCE: usize = 64 << 10;

/// The bytes that begin each connection over HTTP/2 (RFC 9113, 3.4), and the length of a frame's head.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACKNOWLEDGED: u8 = 1;

/// A running server, which stops on drop.
pub struct Flood {
    address: SocketAddr,
    counts: Arc<Counts>,
    dir: Option<TempDir>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    open: AtomicUsize,
    stop: AtomicBool,
}

impl Flood {
    /// Starts a server at 127.0.0.1 that speaks HTTP/1.1. It answers with `begin`, and then with `again`
    /// forever.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start(begin: impl Into<Vec<u8>>, again: impl Into<Vec<u8>>) -> Self {
        Self::serve(None, begin.into(), again.into())
    }

    /// Starts a server that speaks HTTP/2, with a certificate for this name. `begin` and `again` are frames
    /// ([`Flood::frame`]). [`Flood::authority`] is the file that a client must trust.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start_http2(name: &str, begin: impl Into<Vec<u8>>, again: impl Into<Vec<u8>>) -> Self {
        Self::serve(Some(certificates::make(&[name])), begin.into(), again.into())
    }

    /// A frame of HTTP/2 on this stream.
    ///
    /// # Panics
    /// If the payload is longer than 16 KiB.
    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() <= 16 << 10, "a frame that each client takes");
        let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn serve(dir: Option<TempDir>, begin: Vec<u8>, again: Vec<u8>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port to listen at");
        let address = listener.local_addr().expect("its address");
        let tls = dir.as_ref().map(|dir| certificates::server(dir.path(), &["h2"]));
        let counts = Arc::<Counts>::default();
        let (shared, many) = (Arc::clone(&counts), again.repeat((AT_ONCE / again.len().max(1)).max(1)));
        let answer = Arc::new((begin, many));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (counts, tls, answer) = (Arc::clone(&shared), tls.clone(), Arc::clone(&answer));
                thread::spawn(move || {
                    counts.open.fetch_add(1, Ordering::SeqCst);
                    // A test waits for the end of a connection, so an error is ignored.
                    drop(counts.connection(stream, tls, &answer.0, &answer.1));
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, counts, dir }
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://<address>/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The number of bytes that it has sent.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// The file of the authority that a client of an HTTP/2 server must trust.
    ///
    /// # Panics
    /// If the server speaks HTTP/1.1.
    pub fn authority(&self) -> PathBuf {
        self.dir.as_ref().expect("a server with a certificate").path().join("ca.pem")
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

impl Counts {
    fn connection(
        &self,
        stream: TcpStream,
        tls: Option<Arc<ServerConfig>>,
        begin: &[u8],
        again: &[u8],
    ) -> io::Result<()> {
        match tls {
            None => {
                let mut stream = stream;
                until_blank_line(&mut stream)?;
                self.pour(&mut stream, begin, again)
            }
            Some(tls) => {
                let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, stream);
                stream.write_all(&Flood::frame(SETTINGS, 0, 0, &[]))?;
                until_request(&mut stream)?;
                stream.write_all(&Flood::frame(SETTINGS, ACKNOWLEDGED, 0, &[]))?;
                self.pour(&mut stream, begin, again)
            }
        }
    }

    fn pour(&self, out: &mut impl Write, begin: &[u8], again: &[u8]) -> io::Result<()> {
        out.write_all(begin)?;
        while !self.stop.load(Ordering::Relaxed) {
            out.write_all(again)?;
            self.sent.fetch_add(again.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Reads a request without a body.
fn until_blank_line(stream: &mut impl Read) -> io::Result<()> {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        read.push(byte[0]);
    }
    Ok(())
}

/// Reads frames up to the first one that begins a request.
fn until_request(stream: &mut impl Read) -> io::Result<()> {
    stream.read_exact(&mut [0; PREFACE.len()])?;
    loop {
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length])?;
        if head[3] == HEADERS {
            return Ok(());
        }
    }
}
