//! Prepares a daemon: config.toml from its parts, guests in the plugins folder, free ports.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    Daemon, NotifySocket, Output, Source, daemon::Setup, guest, manager::Listening, ports, put_in_place,
};

/// Collects the settings of a daemon, then starts it. See [`Daemon::builder`].
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    sections: BTreeMap<String, Vec<String>>,
    sources: Vec<Source>,
    tables: String,
    guests: Vec<(String, Vec<u8>)>,
    env: Vec<(String, String)>,
    below: PathBuf,
    sockets: Sockets,
    open_files: Option<u32>,
    /// The bearer token of its admin listener. It differs for each daemon, so that no test mistakes another
    /// test's daemon for its own.
    token: String,
}

/// How the daemon gets its sockets.
#[derive(Debug)]
enum Sockets {
    Own,
    Activated,
    Held,
}

impl Builder {
    pub(crate) fn new(binary: &Path) -> Self {
        let builder = Self {
            binary: binary.to_owned(),
            sections: BTreeMap::new(),
            sources: Vec::new(),
            tables: String::new(),
            guests: Vec::new(),
            env: Vec::new(),
            below: std::env::temp_dir(),
            sockets: Sockets::Own,
            open_files: None,
            token: format!("test-admin-{:016x}", rand::random_range(0..u64::MAX)),
        };
        let token = format!("token = {:?}", builder.token);
        builder.set("admin", &token)
    }

    /// Adds a `[[source]]`. Without one, the daemon has [`Source::new`]`("scalekit")`.
    pub fn source(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Adds a line to a section, such as `("server", "max_body = \"1 KiB\"")`. `listen` of `[server]` and
    /// `[admin]` and the admin token are set already.
    pub fn set(mut self, section: &str, line: &str) -> Self {
        self.sections.entry(section.into()).or_default().push(line.into());
        self
    }

    /// Adds tables unchanged, such as `[plugin.counter]` and everything below it.
    pub fn toml(mut self, tables: &str) -> Self {
        self.tables += tables;
        self.tables.push('\n');
        self
    }

    /// Adds the tables of a plugin. It is [`Builder::toml`] under a name that says so.
    pub fn plugin_config(self, tables: &str) -> Self {
        self.toml(tables)
    }

    /// Puts a built guest into the plugins folder, under its own name.
    ///
    /// # Panics
    /// If it was not built.
    #[track_caller]
    pub fn guest(self, name: &str) -> Self {
        let bytes = guest(name);
        self.plugin(name, bytes)
    }

    /// Puts these bytes into the plugins folder as `<name>.wasm`.
    pub fn plugin(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.guests.push((name.into(), bytes));
        self
    }

    /// Sets a variable of the daemon's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Makes the daemon send to this socket what it would send to systemd.
    pub fn notify(self, socket: &NotifySocket) -> Self {
        self.env("NOTIFY_SOCKET", &socket.path().to_string_lossy())
    }

    /// Makes `systemd-socket-activate` open the sockets and start the daemon at the first connection.
    pub fn activated(mut self) -> Self {
        self.sockets = Sockets::Activated;
        self
    }

    /// Holds the daemon's sockets open in the test, as systemd does, and passes them to each daemon that
    /// starts.
    pub fn sockets_held(mut self) -> Self {
        self.sockets = Sockets::Held;
        self
    }

    /// Limits the files and connections that the daemon may have open. Not with passed sockets.
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Creates the daemon's folder in this one and not in the system's folder for temporary files. So a bench
    /// chooses the disk that it measures.
    pub fn below(mut self, folder: &Path) -> Self {
        self.below = folder.into();
        self
    }

    /// Starts the daemon and waits until it accepts requests.
    ///
    /// # Panics
    /// If it ends instead, with its output.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start();
        daemon
    }

    /// Starts a daemon that should refuse to start. Returns its output and exit code.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn refused(self) -> Output {
        self.prepare().refused()
    }

    /// Creates the folder with everything in it and starts nothing, for commands that need no daemon.
    pub fn prepare(mut self) -> Daemon {
        if self.sources.is_empty() {
            self.sources.push(Source::new("scalekit"));
        }
        let dir = TempDir::with_prefix_in("posthouse-test-", &self.below).expect("a separate folder");
        let plugins = dir.path().join("plugins");
        fs::create_dir(&plugins).expect("the plugins folder");
        for (name, bytes) in &self.guests {
            put_in_place(&plugins.join(name).with_extension("wasm"), bytes);
        }
        let (webhooks, admin) = ports::free_pair();
        let setup = Setup {
            config: self.config(),
            binary: self.binary,
            sources: self.sources,
            env: self.env,
            token: self.token,
            listening: match self.sockets {
                Sockets::Own => Listening::Itself { open_files: self.open_files },
                Sockets::Activated => Listening::Activated,
                Sockets::Held => Listening::hold(webhooks, admin),
            },
        };
        let daemon = Daemon::new(setup, dir, webhooks, admin);
        daemon.write_config();
        daemon
    }

    /// config.toml, with `{webhooks}` and `{admin}` in place of the two ports.
    fn config(&self) -> String {
        let mut sections = self.sections.clone();
        for (section, port) in [("server", "{webhooks}"), ("admin", "{admin}")] {
            sections.entry(section.into()).or_default().insert(0, format!("listen = \"127.0.0.1:{port}\""));
        }
        let mut config = String::new();
        for (section, lines) in &sections {
            write!(config, "[{section}]\n{}\n\n", lines.join("\n")).unwrap();
        }
        for source in &self.sources {
            config += &source.toml();
        }
        config + &self.tables
    }
}
