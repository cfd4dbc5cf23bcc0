//! Many hostile peers: they hold connections, and reconnect as soon as they are cut off.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Daemon, unix_now, wait_until};

/// The interval at which each peer checks whether it is cut off.
const GLANCE: Duration = Duration::from_millis(20);
/// The most peers that reconnect in one interval: a few hundred a second in all.
const AGAIN: usize = 8;
/// The most writes in one interval of a peer that keeps writing.
const AT_ONCE: usize = 8;

/// The bytes that one peer writes. It never reads an answer.
#[derive(Debug, Clone, Default)]
pub struct Opening {
    /// Written first, and once.
    pub first: Vec<u8>,
    /// Written then, for as long as the socket has room.
    pub again: Vec<u8>,
}

impl Opening {
    /// Writes these bytes once.
    pub fn once(first: impl Into<Vec<u8>>) -> Self {
        Self { first: first.into(), again: Vec::new() }
    }

    /// Writes these bytes again and again.
    pub fn forever(again: impl Into<Vec<u8>>) -> Self {
        Self { first: Vec::new(), again: again.into() }
    }
}

/// Peers with one address. They disconnect on drop.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Everything that strangers can do at the webhook listener: silence, half of a head, endless bodies with
    /// and without a sender's headers, and requests whose answers they do not read.
    pub fn of_senders(daemon: &Daemon, peers: usize) -> Self {
        let unsigned = format!("POST {} HTTP/1.1\r\nhost: x\r\n", daemon.sender().path);
        let forged = format!(
            "{unsigned}webhook-id: msg_1\r\nwebhook-timestamp: {}\r\nwebhook-signature: v1,{}=\r\n",
            unix_now(),
            "A".repeat(43)
        );
        let large = "x".repeat(40_000);
        let openings = vec![
            Opening::default(),
            Opening::once("POST /webh"),
            Opening::once(format!("{unsigned}content-length: 100000\r\n\r\nx")),
            Opening::once(format!("{forged}content-length: 100000\r\n\r\nx")),
            Opening::once(format!("{forged}transfer-encoding: chunked\r\n\r\n10000\r\n{large}")),
            Opening::forever("GET /webhooks HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20)),
        ];
        Self::start(daemon.address(), peers, openings)
    }

    /// Everything that strangers can do at the admin listener, including guesses of the token.
    pub fn of_operators(daemon: &Daemon, peers: usize) -> Self {
        let wrong = daemon.admin_token().chars().rev().collect::<String>();
        let guess = format!("authorization: Bearer {wrong}\r\n");
        let openings = vec![
            Opening::default(),
            Opening::once("GET /he"),
            Opening::once(format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{guess}\r\n")),
            Opening::once("POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nt"),
            Opening::forever("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20)),
        ];
        Self::start(daemon.admin_address(), peers, openings)
    }

    /// Starts this many peers, which use these openings in turn. Returns when all have connected once.
    ///
    /// # Panics
    /// If this process may not have so many connections.
    pub fn start(address: SocketAddr, peers: usize, openings: Vec<Opening>) -> Self {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("a limit of files");
        let (stop, opened) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&opened));
        let thread = thread::spawn(move || {
            let mut open: Vec<Option<TcpStream>> = (0..peers).map(|_| None).collect();
            while !stopping.load(Ordering::Relaxed) {
                let mut again = 0;
                for (number, place) in open.iter_mut().enumerate() {
                    let opening = &openings[number % openings.len()];
                    let first = counting.load(Ordering::Relaxed) < peers;
                    if place.as_mut().is_none_or(|stream| !goes_on(stream, opening))
                        && (first || again < AGAIN)
                    {
                        again += 1;
                        *place = connect(address, opening);
                        counting.fetch_add(usize::from(place.is_some()), Ordering::Relaxed);
                    }
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                }
                thread::sleep(GLANCE);
            }
        });
        let crowd = Self { stop, opened, thread: Some(thread) };
        wait_until("the crowd is there", || crowd.opened() >= peers);
        crowd
    }

    /// The number of connections so far, including those that were cut off.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn connect(address: SocketAddr, opening: &Opening) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_nonblocking(true).ok()?;
    // The connection may be closed already.
    let _ = stream.write(&opening.first);
    Some(stream)
}

/// Whether the peer is still connected. A peer that writes again and again does so here.
fn goes_on(stream: &mut TcpStream, opening: &Opening) -> bool {
    if opening.again.is_empty() {
        let mut answer = [0; 512];
        return match stream.read(&mut answer) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
    }
    for _ in 0..AT_ONCE {
        match stream.write(&opening.again) {
            Ok(written) if written == opening.again.len() => {}
            // The rest of a request that did not fit is lost, so the bytes after it are not HTTP. The server does
            // not read that far.
            Ok(_) => return true,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}
