//! config.toml as types: read, checked, with all defaults filled in.
//!
//! The types are proof. Code that holds a [`Config`] need not check again whether a number is in its range, a
//! path begins with `/` or a secret is present.
//!
//! ```text
//! load         the file, its syntax, its warnings
//! sections     each section, key by key, into these types
//! table        a table that hands out its keys and reports those that no code reads
//! value        one value: a duration, a size, an address, …
//! secret       a text that is never shown, and its place: environment, file, credential
//! placeholder  placeholders and other texts that cannot be a secret
//! smtp         the URL of a mail server, parsed
//! database     the URL and the settings of a plugins' database
//! files        the files that config.toml names, each with one role
//! catch_up     how a sender is asked for the events that no webhook brought
//! interceptor  [[interceptor]]: senders that wait for a decision
//! egress       one entry of a plugin's `http` grant
//! scheme       how senders sign: the shipped table, and [scheme.NAME]
//! diagnose     findings, with line, column and a way to fix them
//! defaults     the defaults
//! ```

mod catch_up;
mod database;
mod defaults;
mod diagnose;
mod egress;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod interceptor;
mod kept;
mod load;
mod placeholder;
pub mod scheme;
mod secret;
mod sections;
mod smtp;
mod table;
mod value;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use url::Url;

pub use catch_up::{CatchUp, CatchUpLogin, CatchUpMode};
pub use database::{DatabaseSettings, DatabaseTarget, read_postgres_url};
pub use diagnose::{ConfigError, Finding, nearest, shown};
pub use files::Files;
pub use interceptor::{Interceptor, OnFailure};
pub use load::{Loaded, Secrets};
pub use placeholder::{NotASecret, not_a_secret};
pub use scheme::Scheme;
pub use secret::{DEMO_SECRET, Environment, ProcessEnvironment};
pub use smtp::{SmtpLogin, SmtpServer, SmtpTls};

pub use crate::Secret;
use crate::{Grants, OrderBy, Pattern, Redact, SourceName};

/// All of config.toml, checked, with defaults filled in and secrets read.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`: the listener for webhooks.
    pub server: Server,
    /// `[admin]`: the listener for the operator.
    pub admin: Admin,
    /// `[store]`: where events are stored.
    pub store: Store,
    /// `[mail]`: how mail is sent.
    pub mail: MailTransport,
    /// `[http]`: how requests of plugins are sent.
    pub http: Http,
    /// `[databases.<name>]`: databases for plugins.
    pub databases: BTreeMap<String, DatabaseSettings>,
    /// `[log]`: the log on standard error.
    pub log: Log,
    /// `[telemetry]`: the collector of traces.
    pub telemetry: Telemetry,
    /// `[plugins]`: the folder, and the defaults of all plugins.
    pub plugins: Plugins,
    /// `[scheme.<name>]`: further ways of signing, besides those that posthouse ships.
    pub schemes: BTreeMap<String, Arc<Scheme>>,
    /// `[[source]]`: the senders.
    pub sources: Vec<Source>,
    /// `[[interceptor]]`: senders that wait for a decision.
    pub interceptors: Vec<Interceptor>,
    /// `[plugin.<name>]`, each merged with the defaults of `[plugins]`.
    pub plugin: BTreeMap<String, PluginSettings>,
}

impl Config {
    /// The settings of a plugin. A plugin without a table in config.toml has the defaults.
    pub fn settings(&self, plugin: &str) -> &PluginSettings {
        self.plugin.get(plugin).unwrap_or(&self.plugins.defaults)
    }

    /// Whether any source or interceptor masks values.
    pub fn redacts(&self) -> bool {
        // The empty name is of none, and selects the values of all.
        !self.redact_of("").is_empty()
    }

    /// The values to mask in an event or request of the source or interceptor with this name.
    pub fn redact_of(&self, name: &str) -> Redact {
        let sources =
            self.sources.iter().chain(self.interceptors.iter().map(|interceptor| &interceptor.source));
        Redact::among(sources.map(|source| (source.name.as_str(), &source.redact)), name)
    }
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// The address to listen on; `127.0.0.1:8400` by default.
    pub listen: SocketAddr,
    /// The largest body, in bytes; 1 MiB by default.
    pub max_body: u64,
    /// The most active requests; further ones get 503. 1024 by default.
    pub max_requests: usize,
    /// The timeout of a request's header; 10 s by default.
    pub header_timeout: Duration,
    /// The timeout of a request's body; 10 s by default.
    pub body_timeout: Duration,
    /// The timeout of a connection between two requests, on both listeners; 75 s by default.
    pub idle_timeout: Duration,
    /// Proxies whose `X-Forwarded-For` is used for the log of both listeners; none by default.
    pub trusted_proxies: Vec<IpNet>,
    /// How long active requests and attempts may take to end at shutdown; 10 s by default.
    pub shutdown_timeout: Duration,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// The address to listen on; `127.0.0.1:8401` by default.
    pub listen: SocketAddr,
    /// The bearer token. By default the daemon makes one at its first start, and keeps it in the file
    /// `admin-token` (mode 0600) in the state folder.
    pub token: Option<Secret>,
    /// Host names that the listener accepts besides `localhost` and its addresses, in lower case.
    pub hosts: Vec<String>,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// The file of the SQLite store, from `url = "sqlite:data/posthouse.db"`.
    pub path: PathBuf,
    /// The folder of the AOT cache and the admin token; the store file's folder by default.
    pub state: Option<PathBuf>,
    /// How long finished events are kept; 30 days by default.
    pub retention: Duration,
    /// The most unfinished deliveries; beyond it requests get 503. 1,000,000 by default.
    pub max_backlog: u64,
    /// Bytes to keep free on the store's disk. With less, requests get 503, so that accepted events can be
    /// finished. 256 MiB by default; 0 means no limit.
    pub min_free: u64,
    /// Bytes in use in the file, beyond which the oldest finished events are removed before `retention`. None
    /// means no limit.
    pub max_size: Option<u64>,
}

impl Store {
    /// The folder that holds the AOT cache and the admin token.
    pub fn state_dir(&self) -> PathBuf {
        match &self.state {
            Some(folder) => folder.clone(),
            None => self.path.parent().map(PathBuf::from).unwrap_or_default(),
        }
    }
}

/// `[mail]`: `url`, and `retry` for mail that could not be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct MailTransport {
    /// How mail is sent.
    pub target: MailTarget,
    /// When a failed mail is retried. By default 33 attempts in a day, from 10 s doubling up to an hour.
    pub retry: Retry,
}

/// The `url` of `[mail]`.
#[derive(Debug, Clone, PartialEq)]
pub enum MailTarget {
    /// `file:data/mail`: one .eml file for each message in this folder.
    Folder(PathBuf),
    /// `smtp://user:password@host:587?tls=required`, `smtps://…`.
    Smtp(SmtpServer),
}

/// `[http]`: how requests of plugins are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// A PEM file of certificates that are trusted besides those of the operating system.
    pub ca: Option<PathBuf>,
    /// The name servers to ask; none: those of the operating system.
    pub nameservers: Vec<SocketAddr>,
    /// The timeout of one attempt to send an outbox request; 30 s by default.
    pub timeout: Duration,
    /// When a failed outbox request is retried. By default 33 attempts in a day, from 10 s doubling up to an
    /// hour.
    pub retry: Retry,
    /// The longest wait that a `Retry-After` may request; 1 h by default.
    pub retry_after: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A filter in tracing-subscriber's syntax; `info` by default.
    pub level: String,
    /// The format of a line; human by default.
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// The URL at which an OpenTelemetry collector accepts traces over HTTP: `otlp` with `/v1/traces`. None by
    /// default: then there are no traces.
    pub otlp: Option<Url>,
    /// Headers for the collector, by their names in lower case.
    pub header: BTreeMap<String, Secret>,
    /// The share of traces to record, of those that begin here; all by default.
    pub sample: f64,
    /// The name of this daemon in traces; `posthouse` by default.
    pub service_name: String,
}

/// `[plugins]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugins {
    /// The folder; `plugins` by default.
    pub dir: PathBuf,
    /// How often the folder is scanned, with or without file events; 2 s by default.
    pub rescan: Duration,
    /// The most instances at once, over all plugins; further ones wait. 64 by default.
    pub instances: u32,
    /// The limits of compiling a plugin.
    pub compile: Compile,
    /// The settings of a plugin that config.toml does not change.
    pub defaults: PluginSettings,
}

/// `[plugins.compile]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compile {
    /// Bytes of memory. By default three quarters of the memory of the machine or container, at most 4 GiB.
    pub memory: Option<u64>,
    /// CPU time; 2 min by default.
    pub time: Duration,
}

/// `[plugin.<name>]`.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSettings {
    /// The name of its file without `.wasm`, if that is not its own name.
    pub component: Option<String>,
    /// The events that it gets, in place of those in its manifest.
    pub events: Option<Vec<Pattern>>,
    /// The most attempts at once; 8 by default.
    pub concurrency: usize,
    /// The order key: deliveries with the same value run in the order in which they were received. None by default.
    pub order_by: Option<OrderBy>,
    /// How many attempts one instance serves, one after another; 1 by default.
    pub reuse: u32,
    /// How many attempts it may begin; any number by default.
    pub rate: Option<Rate>,
    /// When a failed attempt is retried.
    pub retry: Retry,
    /// When it is paused automatically.
    pub breaker: Breaker,
    /// The limits of one attempt.
    pub limits: Limits,
    /// Its grants.
    pub grants: Grants,
    /// Its own table: strings unchanged, other values as JSON text. A value may be secret, so all of them are
    /// treated as secret.
    pub config: BTreeMap<String, Secret>,
}

/// `retry = { attempts = 4, base = "2s", factor = 2.0, max = "1h", jitter = 0.2 }`. Attempt n + 1 follows `base
/// * factor^(n - 1)` after attempt n, at most `max`, plus or minus `jitter`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// All attempts, including the first; at least 1.
    pub attempts: u32,
    /// The wait after the first attempt.
    pub base: Duration,
    /// The factor between two waits; at least 1.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// The share by which a wait varies, 0 to 1.
    pub jitter: f64,
}

/// `breaker = { failures = 10, pause = "30s", max_pause = "10m" }`. Defines how many different deliveries must
/// fail in a row to pause a plugin, and when one is tried meanwhile (`model/breaker.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Different deliveries that fail without a success in between; 0: the plugin is never paused
    /// automatically.
    pub failures: u32,
    /// The wait before a failed delivery is tried. Each further pause is twice as long.
    pub pause: Duration,
    /// The longest pause.
    pub max_pause: Duration,
}

/// `[plugin.<name>.limits]`: the limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the request for an instance to the guest's return; 8 s by default.
    pub time: Duration,
    /// Linear memory of the whole instance, in bytes; 64 MiB by default, at most 512 MiB.
    pub memory: usize,
    /// Lines that it may log; 1,000 by default.
    pub log_lines: usize,
    /// Bytes of one line; 8 KiB by default. A longer one is cut.
    pub log_line: usize,
    /// Bytes of a failure's reason that are stored; 4 KiB by default.
    pub reason: usize,
    /// Bytes of a key; 512 by default.
    pub kv_key: usize,
    /// Bytes of a value; 256 KiB by default.
    pub kv_value: usize,
    /// Bytes of all the plugin's keys and values; 64 MiB by default.
    pub kv_total: u64,
    /// Fetches that it may make; 100 by default.
    pub http_fetches: usize,
    /// The timeout of one fetch; 5 s by default.
    pub http_time: Duration,
    /// Bytes of a request's body; 1 MiB by default.
    pub http_request: usize,
    /// Bytes of a response's body; 1 MiB by default.
    pub http_response: usize,
    /// Bytes of the headers of a request or a response; 16 KiB by default.
    pub http_headers: usize,
    /// Keys and outbox items that it may stage; 1,000 by default.
    pub staged_items: usize,
    /// Bytes that it may stage; 4 MiB by default.
    pub staged_bytes: usize,
    /// Rows that one query may return; 10,000 by default.
    pub sql_rows: usize,
    /// Bytes of the rows of one query, or of one value within the database; 4 MiB by default.
    pub sql_bytes: usize,
    /// Bytes that one host call may allocate for a guest's arguments; 4 MiB by default.
    pub hostcall: usize,
}

/// `[[source]]`: a sender.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The name.
    pub name: SourceName,
    /// The path of its webhooks, such as `/webhooks/scalekit`.
    pub path: String,
    /// How it signs.
    pub scheme: Arc<Scheme>,
    /// The address to which its sender posts, without a query, as the sender has it. Some schemes sign it.
    pub url: Option<String>,
    /// Its secrets. Any of them may have signed. At least one, unless its sender brings the key.
    pub secrets: Vec<Secret>,
    /// Whether its sender brings the key, because config.toml names no secrets.
    pub brings_key: bool,
    /// The text by which some senders show that a test of the URL is theirs.
    pub verify_token: Option<Secret>,
    /// How far its timestamps may differ from our clock, either way; by default what the scheme says, mostly
    /// 5 min.
    pub tolerance: Duration,
    /// The event types to store; all by default. Others are answered and dropped.
    pub events: Vec<Pattern>,
    /// The values to mask in its payloads wherever people see them; none by default.
    pub redact: Redact,
    /// When the sender gets its response; by default once its event is on disk.
    pub respond: Respond,
    /// How many signed requests it may send; any number by default.
    pub rate: Option<Rate>,
    /// How its sender is asked for events that no webhook brought; not at all by default.
    pub catch_up: Option<CatchUp>,
    /// The headers that its events keep for plugins, in lower case; by default those that its scheme reads.
    pub headers: Vec<String>,
    /// Whether its events keep the headers that prove who sent them, since a plugin was granted those.
    pub keeps_signatures: bool,
}

impl Source {
    /// The values to mask in an event from the source with this name.
    pub fn redact_of(sources: &[Self], name: &str) -> Redact {
        Redact::among(sources.iter().map(|source| (source.name.as_str(), &source.redact)), name)
    }
}

/// `rate = { per_second = 50, burst = 100 }`: the requests with a valid signature that a source may send, or the attempts
/// that a plugin may begin.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rate {
    /// The average; 0.01 to 1,000,000.
    pub per_second: f64,
    /// How many may follow at once after a pause. By default the number for one second, at least 1.
    pub burst: u32,
}

/// When a sender gets its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Respond {
    /// Once its event is on disk.
    Accepted,
    /// Once the first attempt of each delivery has ended, or this time has passed; 8 s by default.
    Handled {
        /// Measured from when its event is on disk.
        within: Duration,
    },
}
