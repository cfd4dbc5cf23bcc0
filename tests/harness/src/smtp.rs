//! A real mail server (Python's aiosmtpd) that records its mail, and fails as a test says.

use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{Mail, certificates, eventually, mail, ports, workspace};

/// The requirements of the server, and its failures.
#[derive(Debug, Clone, Default)]
pub struct SmtpOptions {
    /// Requires STARTTLS, with a certificate created for this run, and a login as `user` with `two-doves`.
    pub secured: bool,
    /// The number of messages that get 451, "try again later", before the first is accepted.
    pub busy: u32,
    /// Recipients that get 550, "no such user".
    pub unknown: Vec<String>,
    /// Accepts one message on each connection, answers the next one with 421, and closes the connection.
    pub one_each: bool,
}

/// A running mail server, which is killed on drop.
#[derive(Debug)]
pub struct SmtpServer {
    child: Child,
    dir: TempDir,
    port: u16,
    secured: bool,
}

impl SmtpServer {
    /// Starts it and waits until it accepts mail.
    ///
    /// # Panics
    /// If it does not start: `cargo xtask test` installs what it needs.
    #[track_caller]
    pub fn start(options: &SmtpOptions) -> Self {
        let dir = TempDir::with_prefix("posthouse-smtp-").expect("a separate folder");
        let port = ports::free();
        let mut command = Command::new(test_python());
        command.arg(workspace().join("tests/servers/smtp.py")).arg(port.to_string()).arg(dir.path());
        command.args(["--busy", &options.busy.to_string()]);
        for recipient in &options.unknown {
            command.args(["--unknown", recipient]);
        }
        if options.one_each {
            command.arg("--one-each");
        }
        if options.secured {
            certificates::write_self_signed(dir.path());
            command.arg("--secured");
        }
        let mut child =
            command.stdin(Stdio::null()).spawn().expect("a Python with aiosmtpd; see `test_python`");
        eventually("the mail server takes mail", || {
            let ended = child.try_wait().expect("a child to wait for");
            assert!(
                ended.is_none(),
                "the mail server ended: {ended:?}; has {:?} got aiosmtpd?",
                test_python()
            );
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { child, dir, port, secured: options.secured }
    }

    /// The value of `url` in `[mail]`.
    pub fn url(&self) -> String {
        if self.secured {
            format!("smtp://user:two-doves@localhost:{}?tls=required", self.port)
        } else {
            format!("smtp://127.0.0.1:{}", self.port)
        }
    }

    /// The file of the certificate that a client must trust. `SSL_CERT_FILE` makes the daemon trust it.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// The messages that it accepted, in order.
    ///
    /// # Panics
    /// If its record is malformed.
    pub fn messages(&self) -> Vec<Mail> {
        let parse = |text: &String| serde_json::from_str(text).expect("a message as smtp.py writes it");
        mail::files(self.dir.path(), "json").iter().map(parse).collect()
    }

    /// The number of messages that it refused with 421, 451 or 550.
    pub fn refusals(&self) -> usize {
        fs::read_to_string(self.dir.path().join("refusals")).map_or(0, |text| text.lines().count())
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The Python of the test servers: `POSTHOUSE_TEST_PYTHON`, or else the one that `cargo xtask test` creates.
pub fn test_python() -> PathBuf {
    if let Some(python) = std::env::var_os("POSTHOUSE_TEST_PYTHON") {
        return python.into();
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join("python/bin/python")
}
