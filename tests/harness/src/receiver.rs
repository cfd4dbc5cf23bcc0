//! An application's webhook handler (Python's standardwebhooks) that verifies and records requests, and is restarted as
//! a test says.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{eventually, ports, test_python, workspace};

/// A receiver, which is killed on drop. It keeps its address and its record over restarts.
#[derive(Debug)]
pub struct Receiver {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
    secret: String,
    trouble: Option<u64>,
}

impl Receiver {
    /// Starts a receiver that has this secret and takes everything.
    ///
    /// # Panics
    /// If it does not start: `cargo xtask test` installs what it needs.
    #[track_caller]
    pub fn start(secret: &str) -> Self {
        Self::new(secret, None)
    }

    /// Starts one that answers some requests with 503, 429 or not at all, as this seed says.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn troubled(secret: &str, seed: u64) -> Self {
        Self::new(secret, Some(seed))
    }

    #[track_caller]
    fn new(secret: &str, trouble: Option<u64>) -> Self {
        let dir = TempDir::with_prefix("posthouse-receiver-").expect("a separate folder");
        let mut receiver = Self { child: None, dir, port: ports::free(), secret: secret.to_owned(), trouble };
        receiver.restart();
        receiver
    }

    /// Its origin, such as `http://127.0.0.1:1234`.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it, whatever it is doing.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Kills it and starts it again.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(test_python());
        command.arg(workspace().join("tests/servers/receiver.py")).arg(self.port.to_string());
        command.arg(self.dir.path()).arg(&self.secret);
        if let Some(seed) = &mut self.trouble {
            *seed += 1;
            command.args(["--trouble", &seed.to_string()]);
        }
        let mut child =
            command.stdin(Stdio::null()).spawn().expect("a Python with standardwebhooks; see `test_python`");
        eventually("the receiver listens", || {
            let ended = child.try_wait().expect("a child to wait for");
            assert!(ended.is_none(), "the receiver ended: {ended:?}");
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.child = Some(child);
    }

    /// The requests that it verified and took, in order: `headers` and `body`.
    ///
    /// # Panics
    /// If its record is malformed.
    pub fn taken(&self) -> Vec<Value> {
        self.record("taken")
    }

    /// The requests that did not verify, each with its error.
    ///
    /// # Panics
    /// If its record is malformed.
    pub fn refused(&self) -> Vec<Value> {
        self.record("refused")
    }

    fn record(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        // A killed receiver may have left half a line, of a request that it did not answer.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}
