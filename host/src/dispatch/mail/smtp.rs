//! Hands mail to a mail server.
//!
//! Which server and how is read from the URL by [`SmtpServer`]. Certificates are checked against those of
//! the operating system.
//!
//! Connections are kept for the next mail, but not in lettre's own pool: its commands have no time-outs,
//! and a send that is given up half way goes back to that pool with its answer still to come, so that
//! the next mail would take it for its own. Here a connection that did not end well is dropped.

use std::time::Duration;

use lettre::{
    Message,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls, TlsParameters},
        extension::ClientId,
    },
};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::timeout};

use super::{InvalidMailTarget, NotSent};
use crate::config::{SmtpServer, SmtpTls};

/// How long it may take to connect, agree on TLS and log in.
const CONNECT: Duration = Duration::from_secs(30);
/// How long it may take to hand over one mail.
const HAND_OVER: Duration = Duration::from_secs(60);
/// How long a kept connection may take to show that it still works, or to say goodbye.
const GREETING: Duration = Duration::from_secs(5);

/// A mail server, and the connections that are kept for the next mail: never more than mails were
/// sent at once.
pub(in crate::dispatch) struct Smtp {
    server: Server,
    /// [`HAND_OVER`], but for a test that does not want to wait.
    hand_over: Duration,
    idle: Mutex<Vec<AsyncSmtpConnection>>,
}

impl Smtp {
    pub(super) fn new(server: &SmtpServer) -> Result<Self, InvalidMailTarget> {
        Ok(Self { server: Server::new(server)?, hand_over: HAND_OVER, idle: Mutex::default() })
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), NotSent> {
        let mut connection = match self.kept().await {
            Some(connection) => connection,
            // Whatever the server says here is not about this mail, so it is never for good.
            None => match timeout(CONNECT, self.server.connect()).await {
                Ok(connected) => connected.map_err(|error| NotSent::Transient(error.to_string()))?,
                Err(_) => return Err(late("did not answer", CONNECT)),
            },
        };
        match timeout(self.hand_over, connection.send(message.envelope(), &message.formatted())).await {
            Ok(Ok(_)) => {
                self.idle.lock().push(connection);
                Ok(())
            }
            Ok(Err(error)) if error.is_permanent() => Err(NotSent::Permanent(error.to_string())),
            Ok(Err(error)) => Err(NotSent::Transient(error.to_string())),
            Err(_) => Err(late("did not take the mail", self.hand_over)),
        }
    }

    /// Connects, agrees on TLS, logs in, and says goodbye.
    pub(super) async fn reach(&self) -> Result<(), Error> {
        let mut connection = self.server.connect().await?;
        // A server that does not say goodbye has said all that matters.
        drop(timeout(GREETING, connection.quit()).await);
        Ok(())
    }

    pub(super) async fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        let mut leaving: JoinSet<_> = idle
            .into_iter()
            // A server that does not say goodbye loses nothing.
            .map(|mut connection| async move { drop(timeout(GREETING, connection.quit()).await) })
            .collect();
        while leaving.join_next().await.is_some() {}
    }

    /// A kept connection that still answers.
    async fn kept(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let mut connection = self.idle.lock().pop()?;
            if timeout(GREETING, connection.test_connected()).await == Ok(true) {
                return Some(connection);
            }
        }
    }
}

fn late(what: &str, after: Duration) -> NotSent {
    NotSent::Transient(format!("the mail server {what} within {after:?}"))
}

/// The server in the transport's own terms.
struct Server {
    host: String,
    port: u16,
    tls: Tls,
    login: Option<Credentials>,
    hello: ClientId,
}

impl Server {
    fn new(server: &SmtpServer) -> Result<Self, InvalidMailTarget> {
        let parameters = || TlsParameters::new(server.host.clone());
        Ok(Self {
            host: server.host.clone(),
            port: server.port,
            tls: match server.tls {
                SmtpTls::None => Tls::None,
                SmtpTls::Opportunistic => Tls::Opportunistic(parameters()?),
                SmtpTls::Required => Tls::Required(parameters()?),
                SmtpTls::Wrapper => Tls::Wrapper(parameters()?),
            },
            login: server
                .login
                .as_ref()
                .map(|login| Credentials::new(login.user.clone(), login.password.expose().to_owned())),
            hello: server.hello.clone().map_or_else(ClientId::default, ClientId::Domain),
        })
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let wrapper = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let address = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT), &self.hello, wrapper, None).await?;
        match &self.tls {
            Tls::Required(parameters) => connection.starttls(parameters.clone(), &self.hello).await?,
            Tls::Opportunistic(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), &self.hello).await?;
            }
            _ => {}
        }
        if let Some(login) = &self.login {
            connection.auth(DEFAULT_MECHANISMS, login).await?;
        }
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::{
        super::message::{
            Bcc, build,
            tests::{ambient, mail},
        },
        *,
    };
    use crate::{
        config::{Secret, SmtpLogin},
        model::Mail,
    };

    /// A mail server that answers each line by `reply` and writes down what it was told; `reply` gives
    /// nothing where it falls silent.
    struct FakeServer {
        port: u16,
        heard: Arc<Mutex<Vec<String>>>,
        connections: Arc<Mutex<usize>>,
    }

    impl FakeServer {
        async fn start(reply: fn(&str) -> Option<&'static str>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (heard, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
            let server = Self { port, heard: heard.clone(), connections: connections.clone() };
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    *connections.lock() += 1;
                    let heard = heard.clone();
                    tokio::spawn(async move {
                        let (read, mut write) = stream.into_split();
                        let mut lines = BufReader::new(read).lines();
                        write.write_all(b"220 fake\r\n").await.unwrap();
                        let mut in_data = false;
                        while let Ok(Some(line)) = lines.next_line().await {
                            let ended = in_data && line == ".";
                            let silent = in_data && !ended;
                            in_data = line == "DATA" || silent;
                            heard.lock().push(line.clone());
                            if silent {
                                continue;
                            }
                            let Some(answer) = reply(&line) else { continue };
                            if write.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            server
        }

        fn smtp(&self, login: Option<(&str, &str)>) -> Smtp {
            let login = login
                .map(|(user, password)| SmtpLogin { user: user.into(), password: Secret::new(password) });
            Smtp::new(&SmtpServer { login, ..local(self.port) }).unwrap()
        }
    }

    fn local(port: u16) -> SmtpServer {
        SmtpServer { host: "127.0.0.1".into(), port, tls: SmtpTls::None, login: None, hello: None }
    }

    fn friendly(line: &str) -> Option<&'static str> {
        Some(match line.split(' ').next().unwrap_or_default() {
            "EHLO" => "250-fake\r\n250 AUTH PLAIN",
            "DATA" => "354 go on",
            "AUTH" => "235 welcome",
            _ => "250 ok",
        })
    }

    fn message() -> Message {
        build(&Mail { bcc: vec!["eve@example.com".into()], ..mail() }, Bcc::Dropped, &ambient()).unwrap()
    }

    #[tokio::test]
    async fn mails_share_a_connection_and_bcc_stays_out_of_the_text() {
        let server = FakeServer::start(friendly).await;
        let smtp = server.smtp(None);
        smtp.send(message()).await.unwrap();
        smtp.send(message()).await.unwrap();
        smtp.close_idle().await;
        assert_eq!(*server.connections.lock(), 1);
        let heard = server.heard.lock().join("\n");
        assert_eq!(heard.matches("RCPT TO:<eve@example.com>").count(), 2, "{heard}");
        assert!(!heard.contains("Bcc"), "{heard}");
        assert!(heard.contains("Message-ID: <dlv_7.1@posthouse.example>"), "{heard}");
        assert!(heard.ends_with("QUIT"), "{heard}");
    }

    #[tokio::test]
    async fn a_login_arrives_as_it_is() {
        let server = FakeServer::start(friendly).await;
        server.smtp(Some(("post@house", "a+b&:c&d"))).send(message()).await.unwrap();
        // Base64 of NUL post@house NUL a+b&:c&d.
        let expected = "AUTH PLAIN AHBvc3RAaG91c2UAYStiJjpjJmQ=";
        assert!(server.heard.lock().iter().any(|line| line == expected), "{:?}", server.heard.lock());
    }

    #[tokio::test]
    async fn a_refused_recipient_is_for_good_and_a_busy_server_is_not() {
        let refusing = FakeServer::start(|line| {
            if line.starts_with("RCPT") { Some("550 no such mailbox") } else { friendly(line) }
        })
        .await;
        let error = refusing.smtp(None).send(message()).await.unwrap_err();
        assert!(matches!(&error, NotSent::Permanent(text) if text.contains("no such mailbox")), "{error:?}");

        let busy =
            FakeServer::start(|line| if line == "." { Some("451 try later") } else { friendly(line) }).await;
        let error = busy.smtp(None).send(message()).await.unwrap_err();
        assert!(matches!(&error, NotSent::Transient(text) if text.contains("try later")), "{error:?}");
    }

    #[tokio::test]
    async fn a_wrong_password_is_the_operators_fault_and_not_the_mails() {
        let server = FakeServer::start(|line| {
            if line.starts_with("AUTH") { Some("535 wrong password") } else { friendly(line) }
        })
        .await;
        let error = server.smtp(Some(("a", "b"))).send(message()).await.unwrap_err();
        assert!(matches!(&error, NotSent::Transient(text) if text.contains("wrong password")), "{error:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_transient() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = Smtp::new(&local(port)).unwrap().send(message()).await.unwrap_err();
        assert!(matches!(error, NotSent::Transient(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_is_left_and_its_connection_is_not_used_again() {
        let server =
            FakeServer::start(|line| if line.starts_with("RCPT") { None } else { friendly(line) }).await;
        let smtp = Smtp { hand_over: Duration::from_millis(50), ..server.smtp(None) };
        for _ in 0..2 {
            let error = smtp.send(message()).await.unwrap_err();
            assert!(matches!(&error, NotSent::Transient(text) if text.contains("50ms")), "{error:?}");
        }
        assert_eq!(*server.connections.lock(), 2);
        assert!(smtp.idle.lock().is_empty());
    }
}
