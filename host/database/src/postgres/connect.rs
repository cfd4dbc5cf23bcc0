//! A connection to PostgreSQL: TCP or a Unix socket, TLS unless the URL disables it, session settings, and the
//! host's own tables.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use posthouse_model::config::read_postgres_url;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::{
    CancelToken, Client, Config, NoTls,
    config::{Host, SslMode},
    error::SqlState,
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use super::{
    BY_COMMITS,
    frames::{Bound, OWN, Watched, WatchedTls},
    session::{Proof, Session},
    wire::Wire,
};

/// The timeout for connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is checked before it is used.
const RESTED: Duration = Duration::from_secs(20);
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS posthouse_deliveries (
    delivery_id bigint PRIMARY KEY,
    effects bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS posthouse_kv (
    plugin text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (plugin, key)
);";

/// A server, and how to connect to it.
pub(super) struct Server {
    /// The table in config.toml.
    table: String,
    config: Config,
    ca: Option<PathBuf>,
    tls: Result<Option<MakeRustlsConnect>, String>,
    /// The settings that a session begins with.
    settings: String,
    /// Whether the host's tables exist.
    tables: AtomicBool,
}

/// A connection.
pub(super) struct Connection {
    session: Session,
    /// The proof of the session's initial state.
    at_first: Option<Proof>,
    /// Declared after the session, because the session must be dropped before the wire closes the connection.
    wire: Wire,
    resting: Instant,
}

impl Server {
    pub(super) fn new(name: &str, url: &str, ca: Option<PathBuf>, statement_timeout: Duration) -> Self {
        // config.toml's reader has checked the URL.
        let mut config = read_postgres_url(url).unwrap_or_default();
        if config.get_application_name().is_none() {
            config.application_name("posthouse");
        }
        let unix = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let tls = if config.get_ssl_mode() == SslMode::Disable || unix {
            config.ssl_mode(SslMode::Disable);
            Ok(None)
        } else {
            config.ssl_mode(SslMode::Require);
            tls(ca.as_deref()).map(Some)
        };
        // Literals mean what they say, times are UTC, and no wait is endless: a session whose host is gone
        // must not keep its locks.
        let settings = format!(
            "SET standard_conforming_strings = on; SET client_min_messages = error; SET TimeZone = 'UTC';
             SET DateStyle = 'ISO, YMD'; SET statement_timeout = {};
             SET default_transaction_isolation = 'serializable'; SET tcp_keepalives_idle = 10;
             SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;",
            statement_timeout.as_millis()
        );
        let table = format!("[databases.{name}]");
        Self { table, config, ca, tls, settings, tables: AtomicBool::new(false) }
    }

    /// Connects to the first host that answers, and sets the session up.
    pub(super) fn connect(&self) -> BoxFuture<'_, Result<Connection, String>> {
        Box::pin(self.connected())
    }

    async fn connected(&self) -> Result<Connection, String> {
        let opened = tokio::time::timeout(CONNECT, self.open()).await;
        let mut link = opened.map_err(|_| format!("no connection within {CONNECT:?}"))??;
        link.at_work(OWN, async |session| {
            session.client.batch_execute(&self.settings).await.map_err(|error| said(&error))?;
            if !self.tables.load(Ordering::Relaxed) {
                tables(&session.client).await?;
                self.tables.store(true, Ordering::Relaxed);
            }
            // So that a commit sends all its messages at once, with the proof after them.
            let prepared = BY_COMMITS.map(|text| session.prepared(text));
            futures_util::future::try_join_all(prepared).await.map_err(|error| said(&error))?;
            Ok::<_, String>(())
        })
        .await?;
        link.at_first = link.at_work(OWN, async |session| session.proof().await).await;
        link.session.bound.begin();
        Ok(link)
    }

    async fn open(&self) -> Result<Connection, String> {
        let mut why = "its URL names no host".to_owned();
        let hosts = self.config.get_hosts();
        for at in 0..hosts.len() {
            match self.open_at(at).await {
                Ok(link) => return Ok(link),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn open_at(&self, at: usize) -> Result<Connection, String> {
        let bound = Bound::default();
        let name = match &self.config.get_hosts()[at] {
            Host::Tcp(name) => name.clone(),
            Host::Unix(_) => String::new(),
        };
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        let stream = Watched::new(self.stream(at).await?, bound.clone(), tls.is_none());
        let (client, wire) = match tls {
            None => {
                let opened = self.config.connect_raw(stream, NoTls).await;
                let (client, connection) = opened.map_err(|error| said(&error))?;
                (client, Wire::new(connection))
            }
            Some(tls) => {
                let Ok(connect) =
                    MakeTlsConnect::<Watched<Stream>>::make_tls_connect(&mut tls.clone(), &name);
                let connect = WatchedTls(connect, bound.clone());
                let opened = self.config.connect_raw(stream, connect).await;
                let (client, connection) = opened.map_err(|error| self.refused(&name, &error))?;
                (client, Wire::new(connection))
            }
        };
        Ok(Connection { session: Session::new(client, bound), at_first: None, wire, resting: Instant::now() })
    }

    /// Why a TLS connection failed, and how to fix it.
    fn refused(&self, name: &str, error: &tokio_postgres::Error) -> String {
        let table = &self.table;
        match certificate_error(error) {
            Some(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
                format!(
                    "the server's certificate is not for `{name}`: {}; write a name that it is for into `url` of \
                     {table}",
                    said(error)
                )
            }
            Some(CertificateError::UnknownIssuer | CertificateError::BadSignature) => match &self.ca {
                Some(ca) => format!(
                    "the server's certificate is of no authority in `{}`, which is `ca` of {table}: {}",
                    ca.display(),
                    said(error)
                ),
                None => format!(
                    "the server's certificate is of no authority that the system trusts: {}; name the file of \
                     its authority as `ca` in {table}",
                    said(error)
                ),
            },
            Some(_) => format!("the server's certificate is not valid: {}", said(error)),
            None if error.as_db_error().is_none() && error.to_string().contains("TLS") => format!(
                "{}; let it offer TLS, or, for a connection without encryption, write `?sslmode=disable` into `url` of {table}",
                said(error)
            ),
            None => said(error),
        }
    }

    async fn stream(&self, at: usize) -> Result<Stream, String> {
        let ports = self.config.get_ports();
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match &self.config.get_hosts()[at] {
            Host::Tcp(name) => {
                let failed = |error: std::io::Error| format!("can't connect to {name}:{port}: {error}");
                let stream = TcpStream::connect((name.as_str(), port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                Ok(Either::Left(stream))
            }
            Host::Unix(folder) => {
                let socket = folder.join(format!(".s.PGSQL.{port}"));
                let failed =
                    |error: std::io::Error| format!("can't connect to {}: {error}", socket.display());
                Ok(Either::Right(UnixStream::connect(&socket).await.map_err(failed)?))
            }
        }
    }

    /// Asks the server to cancel the running statement, so that its locks are released at once. This may fail;
    /// then the statement's timeout ends it.
    pub(super) fn cancel(&self, token: CancelToken) -> BoxFuture<'_, ()> {
        Box::pin(self.cancelled(token))
    }

    async fn cancelled(&self, token: CancelToken) {
        for at in 0..self.config.get_hosts().len() {
            let Ok(stream) = self.stream(at).await else { continue };
            let asked = match &self.tls {
                Ok(Some(tls)) => {
                    let name = match &self.config.get_hosts()[at] {
                        Host::Tcp(name) => name.clone(),
                        Host::Unix(_) => String::new(),
                    };
                    let Ok(connect) = MakeTlsConnect::<Stream>::make_tls_connect(&mut tls.clone(), &name);
                    token.cancel_query_raw(stream, connect).await
                }
                _ => token.cancel_query_raw(stream, NoTls).await,
            };
            if asked.is_ok() {
                return;
            }
        }
    }
}

impl Connection {
    /// Does `work` on the connection. A message from the server may have `most` bytes.
    pub(super) async fn at_work<T>(&mut self, most: usize, work: impl AsyncFnOnce(&Session) -> T) -> T {
        self.session.bound.set(most);
        self.wire.carry(work(&self.session)).await
    }

    /// Whether the session is in its initial state, judging by this proof and by the server's own messages.
    pub(super) fn is_as_at_first(&self, proof: Option<&Proof>) -> bool {
        proof.is_some() && proof == self.at_first.as_ref() && !self.session.bound.has_changed()
    }

    /// The size of the message that broke the connection, if one did.
    pub(super) fn over(&self) -> Option<usize> {
        self.session.bound.over()
    }

    /// The token to cancel the running statement.
    pub(super) fn cancel_token(&self) -> CancelToken {
        self.session.client.cancel_token()
    }

    /// Marks the connection as idle from now on.
    pub(super) fn rest(&mut self) {
        self.resting = Instant::now();
    }

    /// Whether the connection can still be used.
    pub(super) async fn is_open(&mut self) -> bool {
        if !self.wire.is_open() {
            return false;
        }
        if self.resting.elapsed() < RESTED {
            return true;
        }
        let asked = self.at_work(OWN, async |session| session.client.check_connection().await);
        matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(())))
    }
}

/// The socket of a connection.
type Stream = Either<TcpStream, UnixStream>;

/// TLS that verifies the server's certificate and name.
fn tls(ca: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let failed =
                |error: &dyn std::fmt::Display| format!("`{}` can't be read: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.is_empty() {
                return Err(failed(&"it contains no certificate"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// The error in the server's certificate, if that is the cause.
fn certificate_error(error: &tokio_postgres::Error) -> Option<&CertificateError> {
    let failed: &std::io::Error = std::error::Error::source(error)?.downcast_ref()?;
    match failed.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(why) => Some(why),
        _ => None,
    }
}

/// Creates the host's tables if they are missing.
async fn tables(client: &Client) -> Result<(), String> {
    let there =
        "SELECT to_regclass('posthouse_deliveries') IS NOT NULL AND to_regclass('posthouse_kv') IS NOT NULL";
    let row = client.query_one(there, &[]).await.map_err(|error| said(&error))?;
    if row.try_get(0).unwrap_or(false) {
        return Ok(());
    }
    // Two daemons that create them at once would collide.
    let make = format!("BEGIN; SELECT pg_advisory_xact_lock(7305808869231650419); {TABLES} COMMIT;");
    match client.batch_execute(&make).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            let mut why = said(&error);
            if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                why = format!(
                    "{why}: its role may not create the tables `posthouse_deliveries` and `posthouse_kv`; \
                     let their owner create them, and grant the role SELECT, INSERT, UPDATE and DELETE on both \
                     (docs/configuration.md has the statements)"
                );
            }
            Err(why)
        }
    }
}

/// The error, without what was sent.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => format!("{} (SQLSTATE {})", refusal.message(), refusal.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.ends_with(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
