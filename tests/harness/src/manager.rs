//! The service manager's side: the socket of `NOTIFY_SOCKET`, and sockets that outlive a daemon.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::timeout;

/// The most connections that wait while a daemon starts.
const BACKLOG: i32 = 4096;

/// The socket to which a daemon sends its state for the service manager.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    dir: TempDir,
}

/// One message: lines such as `READY=1`.
#[derive(Debug, Clone)]
pub struct Notice {
    lines: Vec<String>,
    /// When it was received.
    pub at: Instant,
}

impl Notice {
    /// The value after `name=`. None if the message has no such line.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether the message has this line, such as `READY=1`.
    pub fn says(&self, line: &str) -> bool {
        self.lines.iter().any(|said| said == line)
    }
}

impl NotifySocket {
    /// Creates a socket in a new folder.
    ///
    /// # Panics
    /// If that fails.
    pub fn new() -> Self {
        let dir = TempDir::with_prefix("posthouse-notify-").expect("a separate folder");
        let socket = UnixDatagram::bind(dir.path().join("socket")).expect("a datagram socket");
        Self { socket, dir }
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The next message, if one is received within this time.
    ///
    /// # Panics
    /// If the socket fails.
    pub fn hear_within(&self, time: Duration) -> Option<Notice> {
        self.socket.set_read_timeout(Some(time.max(Duration::from_millis(1)))).expect("a timeout");
        let mut bytes = [0; 8192];
        let length = self.socket.recv(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        Some(Notice { lines: text.lines().map(str::to_owned).collect(), at: Instant::now() })
    }

    /// The first message that satisfies `wanted`, with those before it.
    ///
    /// # Panics
    /// After [`timeout`], with `what` it waited for and the messages so far.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Notice) -> bool) -> (Vec<Notice>, Notice) {
        let until = Instant::now() + timeout();
        let mut before = Vec::new();
        while let Some(notice) = self.hear_within(until.saturating_duration_since(Instant::now())) {
            if wanted(&notice) {
                return (before, notice);
            }
            before.push(notice);
        }
        panic!("timed out waiting for {what}; received {before:#?}");
    }
}

impl Default for NotifySocket {
    fn default() -> Self {
        Self::new()
    }
}

/// How a daemon gets its listeners.
#[derive(Debug)]
pub(crate) enum Listening {
    /// It binds them itself. Its limit of open files may be set.
    Itself { open_files: Option<u32> },
    /// `systemd-socket-activate` binds them, and starts it at the first connection.
    Activated,
    /// The test holds them, and passes them to each daemon that starts.
    Held(TcpListener, TcpListener),
}

impl Listening {
    /// Holds these two ports.
    pub(crate) fn hold(webhooks: u16, admin: u16) -> Self {
        Self::Held(listener(webhooks), listener(admin))
    }
}

fn listener(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(&address.into()).and_then(|()| socket.listen(BACKLOG)).expect("a free port");
    socket.into()
}

/// The shell's part in passing sockets: it gets them as its standard input and output.
pub(crate) const PASS_ON: &str = "exec 3<&0 4<&1 </dev/null >&2; \
    LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=webhooks:admin exec \"$0\" serve";
