//! A real PostgreSQL for one test, which the test can kill, stop and start again.

use std::{
    env, fs,
    fs::File,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{certificates, eventually, ports, quick::refuse_in_quick_loop};

/// The owner of the server's databases.
const USER: &str = "posthouse";

/// A running server with one database, `app`. On drop, it is killed and its folder is removed.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    dir: TempDir,
    port: u16,
    /// The user and group that it runs as if the test is root, because PostgreSQL refuses to run as root.
    owner: Option<(u32, u32)>,
    options: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Starts a server and waits until it accepts statements. It does not sync to disk, which would only
    /// matter if the machine lost power: killing the server loses nothing.
    ///
    /// # Panics
    /// If it does not start: `cargo xtask test` installs what it needs.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&["fsync=off"])
    }

    /// Like [`Postgres::start`], with only these settings, such as `max_connections=20`. It syncs to disk
    /// unless they say otherwise.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[track_caller]
    pub fn with(settings: &[&str]) -> Self {
        Self::make(settings, &[])
    }

    /// A server that offers TLS, with a certificate for these names that [`Postgres::authority`] signed. Its
    /// role `scram` needs the password `scram`, and TLS.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[track_caller]
    pub fn secured(names: &[&str]) -> Self {
        let postgres = Self::make(&["fsync=off", "ssl=on", "password_encryption=scram-sha-256"], names);
        postgres.execute("CREATE ROLE scram LOGIN PASSWORD 'scram'; GRANT ALL ON SCHEMA public TO scram");
        postgres
    }

    /// The file of the authority that a client of a secured server must trust.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    #[track_caller]
    fn make(settings: &[&str], names: &[&str]) -> Self {
        refuse_in_quick_loop("PostgreSQL");
        let dir = TempDir::with_prefix("posthouse-postgres-").expect("a separate folder");
        let owner = rustix::process::geteuid().is_root().then(unprivileged);
        if let Some((user, group)) = owner {
            chown(dir.path(), Some(user), Some(group)).expect("a folder that is PostgreSQL's");
        }
        let mut postgres = Self {
            programs: programs(),
            dir,
            port: ports::free(),
            owner,
            options: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            child: None,
        };
        let made = postgres
            .command("initdb")
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER])
            .arg("--pgdata")
            .arg(postgres.data())
            .stdout(Stdio::null())
            .status()
            .expect("initdb runs");
        assert!(made.success(), "initdb failed");
        if !names.is_empty() {
            postgres.secure(names);
        }
        postgres.start_again();
        postgres.execute_in("postgres", "CREATE DATABASE app");
        postgres
    }

    /// Gives it its certificate, and makes `scram` need a password.
    fn secure(&mut self, names: &[&str]) {
        certificates::write(self.dir.path(), names);
        for file in ["server.pem", "server.key"] {
            let path = self.dir.path().join(file);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a private file");
            if let Some((user, group)) = self.owner {
                chown(&path, Some(user), Some(group)).expect("a file that is PostgreSQL's");
            }
            let setting = if file.ends_with(".key") { "ssl_key_file" } else { "ssl_cert_file" };
            self.options.push(format!("{setting}={}", path.display()));
        }
        let rules = self.data().join("pg_hba.conf");
        let trusting = fs::read_to_string(&rules).expect("its rules");
        let all = format!("hostssl all scram all scram-sha-256\nhost all scram all reject\n{trusting}");
        fs::write(&rules, all).expect("its rules");
    }

    /// The URL of its database `app`, for the owner.
    pub fn url(&self) -> String {
        self.url_by(self.port)
    }

    /// Like [`Postgres::url`], with another port of this machine, such as that of a proxy.
    pub fn url_by(&self, port: u16) -> String {
        format!("postgres://{USER}@127.0.0.1:{port}/app?sslmode=disable")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements in `app`.
    ///
    /// # Panics
    /// If one of them fails.
    #[track_caller]
    pub fn execute(&self, statements: &str) {
        self.execute_in("app", statements);
    }

    #[track_caller]
    fn execute_in(&self, database: &str, statements: &str) {
        let (said, succeeded) = self.psql(database, statements);
        assert!(succeeded, "{statements}: {said}");
    }

    /// Runs a query in `app`. Returns its rows; each value is text, NULL an empty one.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Vec<String>> {
        let (said, succeeded) = self.psql("app", query);
        assert!(succeeded, "{query}: {said}");
        said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Kills the postmaster like a power cut, with SIGKILL. Its processes end when they notice. Restart it
    /// with [`Postgres::start_again`].
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().and_then(|()| child.wait()).expect("the server ends");
    }

    /// Asks it to end at once with all connections, and waits until it has.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
        child.wait().expect("the server ends");
    }

    /// Starts it with the same folder and port, and waits until it accepts statements.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        // Processes of an earlier run may hold its memory for a moment.
        eventually("the server takes statements", || {
            if self.child.as_mut().is_none_or(|child| child.try_wait().expect("a child").is_some()) {
                self.child = Some(self.spawn());
            }
            self.psql("postgres", "SELECT 1").1.then_some(())
        });
    }

    /// Leaves the server running for the rest of this process. A shell ends it and removes its folder when this
    /// process has ended, however it ends: a static value is never dropped.
    ///
    /// # Panics
    /// If no shell can be started.
    #[track_caller]
    #[allow(clippy::zombie_processes, reason = "the shell outlives this process")]
    pub fn for_this_process(mut self) -> &'static Self {
        let child = self.child.as_ref().expect("the server runs").id();
        self.dir.disable_cleanup(true);
        Command::new("sh")
            .args(["-c", r#"tail --pid="$1" -f /dev/null; kill -QUIT "$2"; sleep 1; rm -rf "$3""#, "sh"])
            .args([std::process::id().to_string(), child.to_string()])
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("sh runs");
        Box::leak(Box::new(self))
    }

    fn spawn(&self) -> Child {
        let log =
            File::options().create(true).append(true).open(self.dir.path().join("log")).expect("its log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let own = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "log_min_messages=warning"];
        for setting in own.into_iter().chain(self.options.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.stdout(log.try_clone().expect("its log")).stderr(log).spawn().expect("postgres runs")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    /// Its answer or its error, and whether it is an answer.
    fn psql(&self, database: &str, statements: &str) -> (String, bool) {
        let output = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", database])
            .args(["-c", statements])
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        let said = if output.status.success() { output.stdout } else { output.stderr };
        (String::from_utf8_lossy(&said).into_owned(), output.status.success())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ends its processes too, at once. If it were killed, they would end only when they notice.
            let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
            drop(child.wait());
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "---- the end of PostgreSQL's log\n{}\n----",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

/// The folder with `initdb` and `postgres`: one in PATH, or the one that Debian uses.
fn programs() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(debian)
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .expect("a PostgreSQL server; `cargo xtask test` installs one")
}

/// A user other than root: `postgres` if the system has it, or else `nobody`.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string(Path::new("/etc/passwd")).expect("the users");
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map_while(|number| number.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    of("postgres").or_else(|| of("nobody")).expect("a user that is not root")
}
