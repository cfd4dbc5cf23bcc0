//! The server that every row is compared with: an axum server that reads the body of a POST and answers
//! `received`.
//!
//! It is a separate process, with the daemon's allocator and runtime. It verifies and stores nothing.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};

/// The hidden subcommand that makes this binary the no-op.
pub(crate) const SUBCOMMAND: &str = "noop";

/// The no-op's answer, which is the daemon's for an accepted event.
pub(crate) const ANSWER: &str = r#"{"received":true}"#;

/// Serves until the process ends. Calls `listening` with its address once it listens.
pub(crate) fn serve(listening: impl FnOnce(SocketAddr)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listening(listener.local_addr().expect("an address"));
        let answer = |_: Bytes| async { ([("content-type", "application/json")], ANSWER) };
        let router = Router::new().route("/webhooks/scalekit", post(answer));
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, router).await.expect("a server that serves");
    });
}

/// The no-op as a child process, which is killed on drop.
pub(crate) struct Noop {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The time from the start of the process until it accepted a connection.
    pub(crate) started_in: Duration,
}

impl Noop {
    pub(crate) fn start() -> Self {
        let began = Instant::now();
        let own = std::env::current_exe().expect("this binary");
        let mut child =
            Command::new(own).arg(SUBCOMMAND).stdout(Stdio::piped()).spawn().expect("this binary runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        let address = line.trim().parse().expect("an address");
        Self { child, address, started_in: began.elapsed() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Noop {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
