//! The two listeners: sockets that systemd passes, or else the daemon's own.
//!
//! A socket that systemd holds outlives the daemon. A client that connects during a restart waits in the
//! socket's queue, and the daemon serves it after its start.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use tracing::info;

use super::DaemonError;

/// The names that systemd passes with the sockets (`FileDescriptorName=`).
const WEBHOOKS: &str = "webhooks";
const ADMIN: &str = "admin";

/// The sockets that systemd passed. A listener without one uses its address in config.toml.
#[derive(Default)]
pub(super) struct Passed {
    webhooks: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Passed {
    /// Takes the sockets that systemd passed. Call it before there are threads: it removes the variables that
    /// describe the sockets, so that no child process uses them.
    ///
    /// # Errors
    /// A socket is no TCP socket, its name is unknown, or two have the same name.
    pub(super) fn take() -> Result<Self, DaemonError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut passed = Self::default();
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let wrong = |problem: String| DaemonError::Passed { name: name.to_owned(), problem };
            let socket = sockets.take_tcp_listener(index).map_err(|error| wrong(error.to_string()))?;
            let place = match name {
                WEBHOOKS => &mut passed.webhooks,
                ADMIN => &mut passed.admin,
                _ => {
                    let way_out = format!("set FileDescriptorName={WEBHOOKS} or {ADMIN} in its .socket unit");
                    return Err(wrong(way_out));
                }
            };
            if std::mem::replace(place, socket).is_some() {
                return Err(wrong(
                    "there is another socket with that name; each listener has one address".to_owned(),
                ));
            }
        }
        Ok(passed)
    }

    /// The listener for webhooks.
    pub(super) async fn webhooks(&mut self, address: SocketAddr) -> Result<Listener, DaemonError> {
        listen(self.webhooks.take(), address, "server.listen").await
    }

    /// The listener for the operator.
    pub(super) async fn admin(&mut self, address: SocketAddr) -> Result<Listener, DaemonError> {
        listen(self.admin.take(), address, "admin.listen").await
    }
}

/// A listener on the runtime, passed or own.
type Listener = tokio::net::TcpListener;

async fn listen(
    passed: Option<TcpListener>,
    address: SocketAddr,
    key: &'static str,
) -> Result<Listener, DaemonError> {
    let listening = match passed {
        Some(socket) => adopt(socket, address, key),
        None => Listener::bind(address).await,
    };
    listening.map_err(|error| DaemonError::Listen { address, key, error })
}

fn adopt(socket: TcpListener, configured: SocketAddr, key: &'static str) -> std::io::Result<Listener> {
    let address = socket.local_addr()?;
    if address != configured {
        info!(%address, %configured, "using a socket from systemd instead of `{key}`");
    }
    socket.set_nonblocking(true)?;
    Listener::from_std(socket)
}
