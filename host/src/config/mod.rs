//! config.toml as types: read, checked whole, with every default filled in.
//!
//! What stands here is proof: whoever holds a [`Config`] need not ask again whether a number is within
//! its range, a path begins with `/` or a secret is there.
//!
//! ```text
//! load      the file, its grammar, its warnings
//! sections  each section, key by key, into these types
//! table     a table that hands out its keys and says which nobody asked for
//! value     one value: a duration, a size, an address, …
//! secret    a text that never shows, and where it comes from
//! unmeant   what nobody can have meant as a secret
//! smtp      the URL of a mail server, taken apart
//! database  the URL of a database, and what stands beside it
//! files     the files that it leads to, none of them two things at once
//! egress    one place that a plugin may make requests to
//! diagnose  what is wrong, at which line and column, and the way out
//! defaults  what holds where the file says nothing
//! ```

mod database;
mod defaults;
mod diagnose;
mod egress;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod load;
mod secret;
mod sections;
mod smtp;
mod table;
mod unmeant;
mod value;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use url::Url;

pub use database::{DatabaseSettings, DatabaseTarget, read_postgres_url};
pub use diagnose::{ConfigError, Finding, nearest, shown};
pub use files::Files;
pub use load::{Loaded, Secrets};
pub use secret::{DEMO_SECRET, Environment, ProcessEnvironment};
pub use smtp::{SmtpLogin, SmtpServer, SmtpTls};
pub use unmeant::{Unmeant, unmeant};

pub use crate::model::Secret;
use crate::model::{Grants, OrderBy, Pattern, Redact, SourceName};

/// All of config.toml, checked, with its defaults filled in and its secrets read.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`: where webhooks come in.
    pub server: Server,
    /// `[admin]`: where the operator comes in.
    pub admin: Admin,
    /// `[store]`: where events are kept.
    pub store: Store,
    /// `[mail]`: how mail leaves.
    pub mail: MailTransport,
    /// `[http]`: how requests of plugins leave.
    pub http: Http,
    /// `[databases.<name>]`: where plugins keep rows of their own.
    pub databases: BTreeMap<String, DatabaseSettings>,
    /// `[log]`: what is written to standard error.
    pub log: Log,
    /// `[telemetry]`: where traces go.
    pub telemetry: Telemetry,
    /// `[plugins]`: the folder and the defaults of every plugin.
    pub plugins: Plugins,
    /// `[[source]]`: the senders.
    pub sources: Vec<Source>,
    /// `[plugin.<name>]`, each merged with the defaults of `[plugins]`.
    pub plugin: BTreeMap<String, PluginSettings>,
}

impl Config {
    /// The settings of a plugin, which are the defaults where config.toml has no table for it.
    pub fn settings(&self, plugin: &str) -> &PluginSettings {
        self.plugin.get(plugin).unwrap_or(&self.plugins.defaults)
    }
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Where to listen; `127.0.0.1:8400` by default.
    pub listen: SocketAddr,
    /// The largest body, in bytes; 1 MiB by default.
    pub max_body: u64,
    /// The most requests at once; the next one gets 503. 1024 by default.
    pub max_requests: usize,
    /// How long the header of a request may take; 10 s by default.
    pub header_timeout: Duration,
    /// How long the body of a request may take; 10 s by default.
    pub body_timeout: Duration,
    /// How long a connection may be idle between two requests, on both listeners; 75 s by default.
    pub idle_timeout: Duration,
    /// Proxies whose `X-Forwarded-For` is believed, in the log of both listeners; none by default.
    pub trusted_proxies: Vec<IpNet>,
    /// How long requests and attempts may take to end when the daemon is told to stop; 10 s by default.
    pub shutdown_timeout: Duration,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where to listen; `127.0.0.1:8401` by default.
    pub listen: SocketAddr,
    /// The bearer token; where none is given it is made at the first start and kept in the file
    /// `admin-token` (mode 0600) in the state folder.
    pub token: Option<Secret>,
    /// Names by which the listener may be asked besides `localhost` and its addresses, in lower case.
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
    /// The most unfinished deliveries; beyond it the answer is 503. 1,000,000 by default.
    pub max_backlog: u64,
    /// Bytes that stay free on the disk of the store: with less the answer is 503, so that what was taken
    /// in can be finished. 256 MiB by default; 0: no bound.
    pub min_free: u64,
    /// Bytes in use in the file, beyond which the oldest finished events leave before `retention`; none:
    /// no bound.
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

/// `[mail]`: `url`, and `retry` for mail that could not be handed over.
#[derive(Debug, Clone, PartialEq)]
pub struct MailTransport {
    /// How mail leaves.
    pub target: MailTarget,
    /// When a mail that failed is tried again; 33 attempts in a day, from 10 s doubling up to an hour, by default.
    pub retry: Retry,
}

/// The `url` of `[mail]`.
#[derive(Debug, Clone, PartialEq)]
pub enum MailTarget {
    /// `file:data/mail`: one .eml a message in this folder.
    Folder(PathBuf),
    /// `smtp://user:password@host:587?tls=required`, `smtps://…`.
    Smtp(SmtpServer),
}

/// `[http]`: how requests of plugins leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// A file of certificates, PEM, that are trusted besides those of the operating system.
    pub ca: Option<PathBuf>,
    /// The servers that names are looked up at; none: as the operating system does.
    pub nameservers: Vec<SocketAddr>,
    /// How long one sending of a request of the outbox may take; 30 s by default.
    pub timeout: Duration,
    /// When a request of the outbox that failed is tried again; 33 attempts in a day, from 10 s doubling up to an hour, by default.
    pub retry: Retry,
    /// The longest wait that a `Retry-After` may ask for; 1 h by default.
    pub retry_after: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A filter as tracing-subscriber reads it; `info` by default.
    pub level: String,
    /// How a line looks; human by default.
    pub format: LogFormat,
}

/// How a line of the log looks.
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
    /// Where an OpenTelemetry collector takes traces over HTTP: `otlp` and `/v1/traces`. None by default: then
    /// there are none.
    pub otlp: Option<Url>,
    /// Headers for the collector, their names in lower case.
    pub header: BTreeMap<String, Secret>,
    /// The share of traces that is recorded, of those that begin here; all by default.
    pub sample: f64,
    /// What the traces call this daemon; `posthouse` by default.
    pub service_name: String,
}

/// `[plugins]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugins {
    /// The folder; `plugins` by default.
    pub dir: PathBuf,
    /// How often the folder is looked through, events or not; 2 s by default.
    pub rescan: Duration,
    /// The most instances at once, over all plugins; a further one waits. 64 by default.
    pub instances: u32,
    /// What compiling a plugin may use.
    pub compile: Compile,
    /// What holds for a plugin that says nothing else.
    pub defaults: PluginSettings,
}

/// `[plugins.compile]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compile {
    /// Bytes of memory; by default three quarters of what the machine or container has, at most 4 GiB.
    pub memory: Option<u64>,
    /// Time of CPU; 2 min by default.
    pub time: Duration,
}

/// `[plugin.<name>]`.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSettings {
    /// Which events it gets, in place of those its manifest declares.
    pub events: Option<Vec<Pattern>>,
    /// The most attempts at once; 8 by default.
    pub concurrency: usize,
    /// By what its deliveries keep to the order in which they came; by nothing by default.
    pub order_by: Option<OrderBy>,
    /// How many attempts one instance serves, one after another; 1 by default.
    pub reuse: u32,
    /// When a failed attempt is tried again.
    pub retry: Retry,
    /// When it is paused on its own.
    pub breaker: Breaker,
    /// What an attempt may use up.
    pub limits: Limits,
    /// What it may do.
    pub grants: Grants,
    /// Its own table: strings as they are, other values as JSON text. Values may be secret, so the
    /// whole is.
    pub config: BTreeMap<String, Secret>,
}

/// `retry = { attempts = 4, base = "2s", factor = 2.0, max = "1h", jitter = 0.2 }`: attempt n + 1 comes
/// `base * factor^(n - 1)` after attempt n, at most `max`, give or take `jitter`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included; at least 1.
    pub attempts: u32,
    /// The wait after the first attempt.
    pub base: Duration,
    /// What the wait is multiplied by each time; at least 1.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// The share by which a wait varies, 0 to 1.
    pub jitter: f64,
}

/// `breaker = { failures = 10, pause = "30s", max_pause = "10m" }`: when a plugin of which so many different
/// deliveries have failed in a row is paused, and what is tried meanwhile (`model/breaker.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Different deliveries that fail, with no success in between; 0: it is never paused on its own.
    pub failures: u32,
    /// How long until a delivery that failed is tried; each further such pause is twice as long.
    pub pause: Duration,
    /// The longest.
    pub max_pause: Duration,
}

/// `[plugin.<name>.limits]`: what one attempt may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the asking for an instance to the guest's return; 8 s by default.
    pub time: Duration,
    /// Linear memory of all the instance, in bytes; 64 MiB by default, at most 512 MiB.
    pub memory: usize,
    /// Lines it may log; 1,000 by default.
    pub log_lines: usize,
    /// Bytes of one line; 8 KiB by default. A longer one is cut.
    pub log_line: usize,
    /// Bytes of a failure's reason that are kept; 4 KiB by default.
    pub reason: usize,
    /// Bytes of a key; 512 by default.
    pub kv_key: usize,
    /// Bytes of a value; 256 KiB by default.
    pub kv_value: usize,
    /// Bytes of all the plugin's keys and values; 64 MiB by default.
    pub kv_total: u64,
    /// Fetches it may make; 100 by default.
    pub http_fetches: usize,
    /// How long one fetch may take; 5 s by default.
    pub http_time: Duration,
    /// Bytes of a request's body; 1 MiB by default.
    pub http_request: usize,
    /// Bytes of a response's body; 1 MiB by default.
    pub http_response: usize,
    /// Bytes of the headers of a request or a response; 16 KiB by default.
    pub http_headers: usize,
    /// Keys and outbox items it may stage; 1,000 by default.
    pub staged_items: usize,
    /// Bytes it may stage; 4 MiB by default.
    pub staged_bytes: usize,
    /// Rows that one query may bring; 10,000 by default.
    pub sql_rows: usize,
    /// Bytes that the rows of one query, or one value within the database, may have; 4 MiB by default.
    pub sql_bytes: usize,
    /// Bytes that one host call may allocate for what a guest passes; 4 MiB by default.
    pub hostcall: usize,
}

/// `[[source]]`: a sender.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its name.
    pub name: SourceName,
    /// The path of its webhooks, such as `/webhooks/scalekit`.
    pub path: String,
    /// How it signs.
    pub scheme: SchemeName,
    /// Its secrets; any of them may have signed. At least one.
    pub secrets: Vec<Secret>,
    /// How far its clock may be off, either way; 5 min by default.
    pub tolerance: Duration,
    /// The types it may send; all by default. Others are answered and dropped.
    pub events: Vec<Pattern>,
    /// What of its payloads is masked wherever people look; nothing by default.
    pub redact: Redact,
    /// When it is answered; once its event is on disk by default.
    pub respond: Respond,
    /// How many signed requests it may send; any number by default.
    pub rate: Option<Rate>,
}

impl Source {
    /// What is masked of an event, by the name of its source, where these are the sources.
    pub fn redact_of(sources: &[Self], name: &str) -> Redact {
        Redact::among(sources.iter().map(|source| (source.name.as_str(), &source.redact)), name)
    }
}

/// `rate = { per_second = 50, burst = 100 }`: requests with a valid signature that a source may send.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rate {
    /// In the long run; 0.01 to 1,000,000.
    pub per_second: f64,
    /// At once, after a rest; what comes in a second, and at least 1, by default.
    pub burst: u32,
}

/// When a source is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Respond {
    /// When its event is on disk.
    Accepted,
    /// When the first attempt of every delivery has ended, or this time has passed; 8 s by default.
    Handled {
        /// From the moment its event is on disk.
        within: Duration,
    },
}

/// How a source signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemeName {
    /// <https://www.standardwebhooks.com>, in either family of headers.
    StandardWebhooks,
    /// The one on Scalekit's page: `scalekit-signature: t=…,v1=…`.
    ScalekitDocumented,
    /// Either of the two, by the headers present.
    Scalekit,
}

impl SchemeName {
    /// Every scheme.
    pub const ALL: [Self; 3] = [Self::Scalekit, Self::ScalekitDocumented, Self::StandardWebhooks];

    /// The word for it in config.toml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard-webhooks",
            Self::ScalekitDocumented => "scalekit-documented",
            Self::Scalekit => "scalekit",
        }
    }
}
