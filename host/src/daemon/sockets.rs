//! The two listeners: those that systemd holds for us, else our own.
//!
//! A socket that systemd holds outlives the daemon: who connects while it starts anew waits in the
//! socket's queue and is served, where it would be refused otherwise.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use tracing::info;

use super::DaemonError;

/// The names that systemd passes beside the sockets (`FileDescriptorName=`).
const WEBHOOKS: &str = "webhooks";
const ADMIN: &str = "admin";

/// The sockets that were passed to this process; for the others the addresses of config.toml hold.
#[derive(Default)]
pub(super) struct Passed {
    webhooks: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Passed {
    /// Takes what systemd passed, each once. Call it before there are threads: it clears the variables
    /// that tell of the sockets, so that no child takes them for its own.
    ///
    /// # Errors
    /// Where a socket is no TCP socket, or its name says nothing.
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
                    let way_out = format!("say FileDescriptorName={WEBHOOKS} or {ADMIN} in its .socket unit");
                    return Err(wrong(way_out));
                }
            };
            if std::mem::replace(place, socket).is_some() {
                return Err(wrong("there is another of that name; each listener has one address".to_owned()));
            }
        }
        Ok(passed)
    }

    /// Where webhooks come in.
    pub(super) async fn webhooks(&mut self, address: SocketAddr) -> Result<Listener, DaemonError> {
        listen(self.webhooks.take(), address, "server.listen").await
    }

    /// Where the operator comes in.
    pub(super) async fn admin(&mut self, address: SocketAddr) -> Result<Listener, DaemonError> {
        listen(self.admin.take(), address, "admin.listen").await
    }
}

/// A listener of either kind, on the runtime.
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
        info!(%address, %configured, "the socket that systemd holds is used in place of `{key}`");
    }
    socket.set_nonblocking(true)?;
    Listener::from_std(socket)
}
