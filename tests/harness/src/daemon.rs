//! The running binary: its answers, its command line, its files, its start and end.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rusqlite::{Connection as Sqlite, OpenFlags, types::ValueRef};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Answer, Builder, Connection, Event, Headers, Mail, Sender, Source,
    manager::{Listening, PASS_ON},
    ports, put_in_place,
    sender::request,
    timeout,
    wait::within,
    wait_until,
};

/// A daemon in its own folder. On drop, it is killed and its folder is removed.
#[derive(Debug)]
pub struct Daemon {
    setup: Setup,
    dir: TempDir,
    webhooks: u16,
    admin: u16,
    child: Option<Child>,
}

/// The settings that stay the same over all starts of the daemon.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    pub(crate) config: String,
    pub(crate) sources: Vec<Source>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) token: String,
    pub(crate) listening: Listening,
}

/// The output of a command, and its exit code.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code. None if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Each line of its output as JSON, as `--json` prints it.
    ///
    /// # Panics
    /// If a line is not JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line:?}\n{self:?}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl Daemon {
    /// Begins a daemon with this binary, which is `env!("CARGO_BIN_EXE_posthouse")` in a test.
    pub fn builder(binary: impl AsRef<Path>) -> Builder {
        Builder::new(binary.as_ref())
    }

    pub(crate) fn new(setup: Setup, dir: TempDir, webhooks: u16, admin: u16) -> Self {
        Self { setup, dir, webhooks, admin, child: None }
    }

    // ---- its answers

    /// The URL of a path on the webhook listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// The address of the webhook listener.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.webhooks))
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.admin))
    }

    /// A sender for the first source.
    pub fn sender(&self) -> Sender {
        let source = self.setup.sources.first().expect("a builder adds a source");
        Sender { address: self.address(), path: source.path.clone(), signer: source.signer() }
    }

    /// A sender for the source with this name.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn sender_of(&self, source: &str) -> Sender {
        let source =
            self.setup.sources.iter().find(|known| known.name == source).expect("a source of that name");
        Sender { address: self.address(), path: source.path.clone(), signer: source.signer() }
    }

    /// Posts an event to the first source, signed now.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn post_event(&self, event: &Event) -> Answer {
        self.sender().post_event(event)
    }

    /// Opens a connection for arbitrary bytes.
    ///
    /// # Panics
    /// If the daemon does not listen.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address()).expect("a connection")
    }

    /// Sends a GET to the admin API.
    ///
    /// # Panics
    /// If the answer is not 200 with JSON.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Value {
        let answer = self.admin("GET", path, None);
        assert_eq!(answer.status, 200, "GET {path}: {answer}");
        answer.json()
    }

    /// Sends a POST to the admin API.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn admin_post(&self, path: &str, body: &Value) -> Answer {
        self.admin("POST", path, Some(body))
    }

    /// Sends any request to the admin API, with the right token.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_admin(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_admin(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ureq::Error> {
        let headers: Headers = vec![
            ("authorization".into(), format!("Bearer {}", self.admin_token())),
            ("content-type".into(), "application/json".into()),
        ];
        let body = body.map(Value::to_string);
        request(
            method,
            &format!("http://{}{path}", self.admin_address()),
            &headers,
            body.as_deref().map(str::as_bytes),
        )
    }

    /// The bearer token of its admin listener.
    ///
    /// It is the token in its config.toml. If a test removed that, it is the token that the daemon made.
    pub fn admin_token(&self) -> String {
        let made = std::fs::read_to_string(self.dir().join("data/admin-token"));
        made.map_or_else(|_| self.setup.token.clone(), |token| token.trim().to_owned())
    }

    /// Whether it accepts requests. Checks `GET /healthz`, the daemon's own token, and the webhook port.
    pub fn healthy(&self) -> bool {
        let answers = |path| self.try_admin("GET", path, None).is_ok_and(|answer| answer.status == 200);
        answers("/healthz") && answers("/v1/events?limit=1") && Connection::open(self.address()).is_ok()
    }

    /// All counters: `GET /v1/stats`.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn stats(&self) -> Value {
        self.admin_get("/v1/stats")
    }

    /// The number of deliveries in this state, such as `done`.
    ///
    /// # Panics
    /// If the daemon does not answer.
    #[track_caller]
    pub fn deliveries_in(&self, state: &str) -> u64 {
        let stats = self.stats();
        stats["store"]["states"][state].as_u64().unwrap_or(0)
    }

    /// Every event, newest first: all pages of `GET /v1/events`.
    ///
    /// # Panics
    /// If the daemon does not answer.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.pages("events", "", |event| event["seq"].to_string())
    }

    /// Every delivery, newest first: all pages of `GET /v1/deliveries` with these parameters, such as
    /// `state=dead&`.
    ///
    /// # Panics
    /// If the daemon does not answer.
    #[track_caller]
    pub fn deliveries(&self, parameters: &str) -> Vec<Value> {
        self.pages("deliveries", parameters, |delivery| {
            delivery["id"].as_str().unwrap_or_default().to_owned()
        })
    }

    #[track_caller]
    fn pages(&self, what: &str, parameters: &str, key: impl Fn(&Value) -> String) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let before = all.last().map(|last| format!("&before={}", key(last))).unwrap_or_default();
            let mut page = self.admin_get(&format!("/v1/{what}?{parameters}limit=1000{before}"));
            match page[what].as_array_mut() {
                Some(rows) if !rows.is_empty() => all.append(rows),
                _ => return all,
            }
        }
    }

    /// Everything about one event, including its deliveries and their attempts: `GET /v1/events/{id}`.
    ///
    /// # Panics
    /// If it does not exist exactly once.
    #[track_caller]
    pub fn event(&self, id: &str) -> Value {
        let mut found = self.admin_get(&format!("/v1/events/{id}"));
        let events = found["events"].as_array_mut().expect("a list of events");
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// One plugin: `GET /v1/plugins/{name}`. Null if it is not known.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn plugin(&self, name: &str) -> Value {
        let answer = self.admin("GET", &format!("/v1/plugins/{name}"), None);
        if answer.status == 404 { Value::Null } else { answer.json() }
    }

    /// Waits until no delivery is ready, waiting or running. Held ones do not count.
    ///
    /// # Panics
    /// If it takes too long.
    #[track_caller]
    pub fn wait_settled(&self) {
        wait_until("every delivery is done, dead or held", || {
            let stats = self.stats();
            ["ready", "leased", "waiting"]
                .iter()
                .all(|state| stats["store"]["states"][state].as_u64().unwrap_or(0) == 0)
        });
    }

    /// Waits until no mail is unsent, after [`Daemon::wait_settled`].
    ///
    /// # Panics
    /// If it takes too long.
    #[track_caller]
    pub fn wait_mail_settled(&self) {
        self.wait_settled();
        wait_until("every mail is sent or dead", || {
            let stats = self.stats();
            let outbox = stats["store"]["outbox"].as_object().cloned().unwrap_or_default();
            outbox
                .iter()
                .all(|(state, count)| matches!(state.as_str(), "sent" | "dead") || *count == json!(0))
        });
    }

    // ---- its command line

    /// Runs `posthouse` with these arguments in the daemon's folder, and so with its config.toml.
    ///
    /// # Panics
    /// If it can't be run.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_with_input(arguments, b"")
    }

    /// Like [`Daemon::cli`], with this standard input.
    ///
    /// # Panics
    /// If it can't be run, or does not end.
    #[track_caller]
    pub fn cli_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let file = || tempfile::tempfile().expect("a file for what goes into a command, or comes out");
        let (mut stdin, stdout, stderr) = (file(), file(), file());
        stdin.write_all(input).and_then(|()| stdin.rewind()).expect("the standard input");
        let shared = |file: &File| file.try_clone().expect("a file");
        let mut child = self
            .command(arguments)
            .stdin(stdin)
            .stdout(shared(&stdout))
            .stderr(shared(&stderr))
            .spawn()
            .expect("the binary runs");
        let status = wait_for(&mut child).unwrap_or_else(|| panic!("`posthouse {arguments:?}` does not end"));
        let [stdout, stderr] = [stdout, stderr].map(|mut file| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("what a command said");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Output { code: status.code(), stdout, stderr }
    }

    /// The binary with these arguments, in the daemon's folder and environment, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.setup.binary);
        command
            .args(arguments)
            .current_dir(self.dir())
            .envs(self.setup.env.iter().map(|(name, value)| (name, value)));
        command
    }

    // ---- its files

    /// The folder with `config.toml`, `plugins/`, `data/`, `stderr.log`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a plugin's file, which may not exist.
    pub fn plugin_file(&self, name: &str) -> PathBuf {
        self.dir().join("plugins").join(format!("{name}.wasm"))
    }

    /// Puts these bytes into the plugins folder as `<name>.wasm`, whole or not at all.
    ///
    /// # Panics
    /// If the folder can't be written.
    #[track_caller]
    pub fn put_plugin(&self, name: &str, bytes: &[u8]) {
        put_in_place(&self.plugin_file(name), bytes);
    }

    /// Its log, over all starts.
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The mails in its mail folder, `data/mail`.
    pub fn mails(&self) -> Vec<Mail> {
        Mail::in_folder(&self.dir().join("data/mail"))
    }

    /// Rewrites config.toml. It applies from the next start or reload.
    ///
    /// # Panics
    /// If the file can't be written.
    pub fn edit_config(&mut self, edit: impl FnOnce(&str) -> String) {
        self.setup.config = edit(&self.setup.config);
        self.write_config();
    }

    pub(crate) fn write_config(&self) {
        let config = self
            .setup
            .config
            .replace("{webhooks}", &self.webhooks.to_string())
            .replace("{admin}", &self.admin.to_string());
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.dir().join("config.toml"))
            .expect("config.toml");
        file.write_all(config.as_bytes()).expect("config.toml");
    }

    /// Opens the store's file for reading, for checks that must not rely on the daemon.
    ///
    /// # Panics
    /// If it can't be opened.
    #[track_caller]
    pub fn store(&self) -> Sqlite {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Sqlite::open_with_flags(self.dir().join("data/posthouse.db"), flags).expect("the store")
    }

    /// Every key and value that a plugin has committed, read from the store's file.
    ///
    /// # Panics
    /// If the store can't be read.
    #[track_caller]
    pub fn kv(&self, plugin: &str) -> BTreeMap<String, String> {
        let sql = "SELECT key, value FROM kv JOIN plugin ON plugin.id = kv.plugin WHERE plugin.name = ?";
        let store = self.store();
        let mut statement = store.prepare(sql).expect("the table `kv`");
        let text = |row: &rusqlite::Row<'_>| {
            let value: Vec<u8> = row.get(1)?;
            Ok((row.get(0)?, String::from_utf8_lossy(&value).into_owned()))
        };
        statement.query_map([plugin], text).and_then(Iterator::collect).expect("the rows of `kv`")
    }

    /// The result of a query on `data/app.db`, where plugins keep their rows. Each value is text, NULL an
    /// empty one.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn app_rows(&self, query: &str) -> Vec<Vec<String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = Sqlite::open_with_flags(self.dir().join("data/app.db"), flags).expect("data/app.db");
        let mut statement = database.prepare(query).expect("a query");
        let width = statement.column_count();
        let text = |row: &rusqlite::Row<'_>| {
            let value = |column| Ok(shown(row.get_ref(column)?));
            (0..width).map(value).collect()
        };
        statement.query_map([], text).and_then(Iterator::collect).expect("the rows")
    }

    // ---- its life and death

    /// Starts it, after [`Daemon::stop`] or [`Daemon::kill`], with the same folder and ports, and waits until
    /// it accepts requests.
    ///
    /// # Panics
    /// If it ends instead, with its output.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        for _ in 0..5 {
            let said_before = self.log().len();
            self.spawn();
            let Some(code) = self.ready_or_ended() else { return };
            let said = self.log().split_off(said_before);
            assert!(said.contains("in use"), "the daemon ended with {code}:\n{said}");
            // Another process was faster at one of the ports.
            (self.webhooks, self.admin) = ports::free_pair();
            self.write_config();
        }
        panic!("no free port in five tries");
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// If it runs already.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        self.spawn();
    }

    /// Starts a daemon that should refuse to start. Returns its output and exit code.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn refused(&mut self) -> Output {
        let said_before = self.log().len();
        self.spawn();
        let status = self.wait_ended();
        Output { code: status.code(), stdout: String::new(), stderr: self.log().split_off(said_before) }
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// If it does not stop.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_ended()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    /// Kills it like a power cut, with SIGKILL, and waits until it has ended.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_ended();
    }

    /// Stops it and starts it again.
    ///
    /// # Panics
    /// If either fails.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// The id of its process.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the daemon runs"))
    }

    /// Waits until it has ended, without stopping it.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait_ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        wait_for(&mut child).expect("the daemon ends")
    }

    /// Sets or removes a variable of its environment, from the next start on.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.setup.env.retain(|(known, _)| known != name);
        self.setup.env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Whether it ended within this time, without being stopped. Then it can be started again.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn ended_within(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        let child = self.child.as_mut().expect("the daemon runs");
        while child.try_wait().expect("a child to wait for").is_none() {
            if began.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child = None;
        true
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the log file");
        let stdout = log.try_clone().expect("the log file");
        let mut command = match &self.setup.listening {
            Listening::Itself { open_files: None } => self.command(&["serve"]),
            Listening::Itself { open_files: Some(limit) } => {
                let mut shell = Command::new("sh");
                let limited = format!("ulimit -n {limit} && exec \"$0\" serve");
                shell.arg("-c").arg(limited).arg(&self.setup.binary).current_dir(self.dir());
                shell.envs(self.setup.env.iter().map(|(name, value)| (name, value)));
                shell
            }
            Listening::Activated => self.activated(),
            Listening::Held(..) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(PASS_ON).arg(&self.setup.binary).current_dir(self.dir());
                shell.envs(self.setup.env.iter().map(|(name, value)| (name, value)));
                shell
            }
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(log);
        if let Listening::Held(webhooks, admin) = &self.setup.listening {
            let passed = |held: &TcpListener| OwnedFd::from(held.try_clone().expect("a socket"));
            command.stdin(passed(webhooks)).stdout(passed(admin));
        }
        self.child = Some(command.spawn().expect("the binary runs"));
    }

    /// Runs it by `systemd-socket-activate`, which keeps its process id when it becomes the daemon.
    fn activated(&self) -> Command {
        let mut command = Command::new("systemd-socket-activate");
        command.current_dir(self.dir()).arg("--fdname=webhooks:admin");
        for address in [self.address(), self.admin_address()] {
            command.arg(format!("--listen={address}"));
        }
        for (name, value) in &self.setup.env {
            command.arg(format!("--setenv={name}={value}"));
        }
        command.arg(&self.setup.binary).arg("serve");
        command
    }

    /// Returns none once it accepts requests, or its exit status if it ended before.
    fn ready_or_ended(&mut self) -> Option<ExitStatus> {
        // It compiles its plugins first. A plugin in JavaScript takes a busy machine a minute or two.
        within(5 * timeout(), "the daemon takes requests", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child to wait for"));
            if ended.is_some() {
                self.child = None;
                return Some(ended);
            }
            self.healthy().then_some(None)
        })
    }

    fn log_file(&self) -> PathBuf {
        self.dir().join("stderr.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "---- the end of the daemon's log\n{}\n----",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        }
        if std::env::var_os("POSTHOUSE_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.dir().display());
        }
    }
}

/// A SQLite value as text, as SQLite's shell prints it.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Waits until it has ended. Kills it if it does not.
fn wait_for(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < timeout() {
        if let Some(status) = child.try_wait().expect("a child to wait for") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(child.kill());
    drop(child.wait());
    None
}
