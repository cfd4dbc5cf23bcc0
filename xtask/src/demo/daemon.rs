//! The demo's daemon: its start, its end, and the commands in between.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    folder::{folder, furnish, shown},
    listener::Listener,
    sender::ask,
};
use crate::shell::{Doing as _, Error, Result, line, root, run, say, target};

/// The time limit for a scene.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// A daemon in `data/demo`. It is stopped on drop if it still runs.
pub(super) struct Demo {
    daemon: Child,
    pub(super) webhooks: String,
    pub(super) listener: Listener,
    stop: Arc<AtomicBool>,
}

impl Demo {
    pub(super) fn start(stop: Arc<AtomicBool>) -> Result<Self> {
        let listener = Listener::start()?;
        let [webhooks, admin] = furnish(&listener.address)?;
        say(format_args!("starting posthouse on {webhooks}, with {}/config.toml", shown(&folder())));
        let log = fs::File::create(folder().join("posthouse.log")).doing("write data/demo/posthouse.log")?;
        let daemon = posthouse(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // The daemon has its own process group, so that Ctrl-C reaches it only through this process.
            .process_group(0)
            .spawn()
            .doing("start posthouse")?;
        let mut demo = Self { daemon, webhooks, listener, stop };
        let began = Instant::now();
        while !is_well(&admin) {
            if let Some(status) = demo.daemon.try_wait().doing("wait for posthouse")? {
                let log = fs::read_to_string(folder().join("posthouse.log")).unwrap_or_default();
                return Err(Error::new(format!("posthouse ended ({status}):\n{log}")));
            }
            demo.go_on(began, "posthouse accepts requests")?;
        }
        Ok(demo)
    }

    /// Runs a posthouse command, shows it with its output, and checks the output for these words.
    pub(super) fn show(&self, arguments: &[&str], words: &[&str]) -> Result {
        println!("$ posthouse {}", arguments.join(" "));
        let said = output(arguments)?;
        println!("{}", said.trim_end());
        expect(&format!("posthouse {}", arguments.join(" ")), &said, words)
    }

    /// Runs a query on the plugins' rows, shows it with its result, and checks the result for these words.
    pub(super) fn show_rows(&self, query: &str, words: &[&str]) -> Result {
        let mut command = Command::new(shown(&target().join("debug/posthouse-rows")));
        command.current_dir(root()).arg(shown(&folder().join("data/app.db"))).arg(query);
        println!("$ {}", line(&command));
        let said = said(&mut command)?;
        println!("{}", said.trim_end());
        expect(query, &said, words)
    }

    /// Waits until Ctrl-C, or until the daemon ends.
    pub(super) fn stay(&mut self) -> Result {
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(status) = self.daemon.try_wait().doing("wait for posthouse")? {
                return Err(Error::new(format!("posthouse stopped unexpectedly ({status})")));
            }
            sleep(Duration::from_millis(100));
        }
        self.stop()
    }

    /// Stops the daemon (SIGTERM) and waits until it has ended.
    pub(super) fn stop(&mut self) -> Result {
        say("stopping posthouse: it accepts no more events, finishes the running attempts, and exits");
        terminate(&self.daemon)?;
        let status = self.daemon.wait().doing("wait for posthouse")?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::new(format!("posthouse failed while it stopped ({status})")))
        }
    }

    /// Polls until there is a result. The error contains what it saw last.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> std::result::Result<T, String>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            match look() {
                Ok(found) => return Ok(found),
                Err(seen) => self.go_on(began, &format!("{what}\n{seen}"))?,
            }
        }
    }

    /// Pauses for a moment. An error if that took too long already, or after Ctrl-C.
    fn go_on(&self, began: Instant, what: &str) -> Result {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new("stopped by Ctrl-C"));
        }
        if began.elapsed() > TIMEOUT {
            return Err(Error::new(format!("gave up after {} s: {}", TIMEOUT.as_secs(), what.trim_end())));
        }
        sleep(Duration::from_millis(50));
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.daemon.try_wait(), Ok(None)) && terminate(&self.daemon).is_ok() {
            drop(self.daemon.wait());
        }
    }
}

/// Whether the daemon with this admin listener is healthy.
fn is_well(admin: &str) -> bool {
    let request = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    ask(admin, request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// The binary with the demo's config.toml, as one would type it in the top folder.
pub(super) fn posthouse(arguments: &[&str]) -> Command {
    let mut command = Command::new(shown(&target().join("debug/posthouse")));
    command.current_dir(root()).args(arguments).args(["--config", &shown(&folder().join("config.toml"))]);
    command
}

/// The command's standard output.
pub(super) fn output(arguments: &[&str]) -> Result<String> {
    said(posthouse(arguments).stdin(Stdio::null()))
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().doing(format_args!("run `{}`", line(command)))?;
    let [said, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    if output.status.success() {
        return Ok(said.into_owned());
    }
    Err(Error::new(format!("`{}` failed ({}): {said}{complained}", line(command), output.status)))
}

/// Fails unless the text contains all these words.
pub(super) fn expect(what: &str, said: &str, words: &[&str]) -> Result {
    match words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(Error::new(format!("{what}: `{word}` was expected in\n{said}"))),
        None => Ok(()),
    }
}

fn terminate(child: &Child) -> Result {
    run(Command::new("kill").args(["-TERM", &child.id().to_string()]))
}
