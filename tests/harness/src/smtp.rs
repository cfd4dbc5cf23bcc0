//! A real mail server (Python's aiosmtpd) that writes down what it got, and fails when told to.

use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{Mail, certificates, eventually, mail, ports, workspace};

/// What the server demands, and where it fails.
#[derive(Debug, Clone, Default)]
pub struct SmtpOptions {
    /// Demands STARTTLS, with a certificate made for this run, and a login of `user` and `two-doves`.
    pub secured: bool,
    /// How many messages get 451, "try again later", before the first is taken.
    pub busy: u32,
    /// Recipients that get 550, "no such user".
    pub unknown: Vec<String>,
    /// Takes one message a connection, answers the next one on it with 421, and closes it.
    pub one_each: bool,
}

/// A running mail server. Dropped, it is killed.
#[derive(Debug)]
pub struct SmtpServer {
    child: Child,
    dir: TempDir,
    port: u16,
    secured: bool,
}

impl SmtpServer {
    /// Starts it and waits until it takes mail.
    ///
    /// # Panics
    /// Where it does not start: `cargo xtask test` installs what it needs.
    #[track_caller]
    pub fn start(options: &SmtpOptions) -> Self {
        let dir = TempDir::with_prefix("posthouse-smtp-").expect("a folder of its own");
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

    /// What `[mail]` needs as `url`.
    pub fn url(&self) -> String {
        if self.secured {
            format!("smtp://user:two-doves@localhost:{}?tls=required", self.port)
        } else {
            format!("smtp://127.0.0.1:{}", self.port)
        }
    }

    /// The file of the certificate a client must trust; `SSL_CERT_FILE` makes the daemon do so.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// The messages it took, in that order.
    ///
    /// # Panics
    /// Where it wrote down something odd.
    pub fn messages(&self) -> Vec<Mail> {
        let parse = |text: &String| serde_json::from_str(text).expect("a message as smtp.py writes it");
        mail::files(self.dir.path(), "json").iter().map(parse).collect()
    }

    /// How many messages it turned away with 421, 451 or 550.
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

/// The Python of the test servers: `POSTHOUSE_TEST_PYTHON`, else the one `cargo xtask test` makes.
pub fn test_python() -> PathBuf {
    if let Some(python) = std::env::var_os("POSTHOUSE_TEST_PYTHON") {
        return python.into();
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join("python/bin/python")
}
