//! A real HTTP server that writes down the requests it got, and fails when told to.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// For example `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header, its name in lower case; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Answers 200 to everything on a port of its own. Dropped, it takes no more connections.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    /// Every so many requests get 503; 0: none.
    busy: AtomicU64,
    silent: AtomicBool,
    ended: AtomicBool,
    count: AtomicU64,
}

impl Receiver {
    /// Starts it.
    ///
    /// # Panics
    /// Where there is no port for it.
    #[track_caller]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its port").port();
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if state.ended.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&state);
                thread::spawn(move || while state.serve(&stream).is_some() {});
            }
        });
        Self { port, shared }
    }

    /// The URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Every `n`-th request gets 503; 0: none.
    pub fn busy_every(&self, n: u64) {
        self.shared.busy.store(n, Ordering::Relaxed);
    }

    /// Whether requests are written down and never answered.
    pub fn silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::Relaxed);
    }

    /// All requests so far, in the order in which they came.
    ///
    /// # Panics
    /// Where one of its threads has.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("what was received").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that listens.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    /// One request; none at the connection's end.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
        };
        let first = line()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        while let Some((name, value)) = line()?.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap_or(0))];
        reader.read_exact(&mut body).ok()?;
        self.received.lock().ok()?.push(Received { method, target, headers, body });
        while self.silent.load(Ordering::Relaxed) {
            if self.ended.load(Ordering::Relaxed) {
                return None;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        let every = self.busy.load(Ordering::Relaxed);
        let nth = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let busy = every > 0 && nth.is_multiple_of(every);
        let status = if busy { "503 Service Unavailable" } else { "200 OK" };
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").ok()
    }
}
