//! Hands mail to a mail server.
//!
//! [`SmtpServer`] reads the server and its options from the URL. Certificates are checked against those of the
//! operating system.
//!
//! Connections are kept for the next mail, but not in lettre's own pool, whose commands have no timeouts. A
//! send that is given up halfway would return to that pool with its answer still unread. The next mail would
//! take that answer for its own. Here a connection that did not end well is dropped.
//!
//! A server may close a kept connection at any moment, also between its answer to a NOOP and the mail. If it
//! closes before it has received the text, or answers 421, it has not accepted the mail. Then the mail is sent
//! once more over a fresh connection, as part of the same attempt.

use std::time::Duration;

use lettre::{
    Address, Message,
    address::Envelope,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    },
};
use parking_lot::Mutex;
use posthouse_model::config::{SmtpServer, SmtpTls};
use tokio::{task::JoinSet, time::timeout};

use super::{InvalidMailTarget, NotSent};

/// The timeout to connect, agree on TLS and log in.
const CONNECT: Duration = Duration::from_secs(30);
/// The timeout to hand over one mail.
const HAND_OVER: Duration = Duration::from_secs(60);
/// The timeout for a kept connection to show that it still works, and for the end of a session.
const GREETING: Duration = Duration::from_secs(5);

/// A mail server and the connections kept for the next mail. It never keeps more than there were mails sent at
/// once.
pub(in crate::dispatch) struct Smtp {
    server: Server,
    /// [`HAND_OVER`], except in a test that does not want to wait.
    hand_over: Duration,
    idle: Mutex<Vec<AsyncSmtpConnection>>,
}

impl Smtp {
    pub(super) fn new(server: &SmtpServer) -> Result<Self, InvalidMailTarget> {
        Ok(Self { server: Server::new(server)?, hand_over: HAND_OVER, idle: Mutex::default() })
    }

    /// Hands the mail over. Returns within 200 s, given at most 8 kept connections.
    pub(super) async fn send(&self, message: Message) -> Result<(), NotSent> {
        if let Some(connection) = self.kept().await {
            match self.hand_over(connection, &message).await {
                Err(Refused::Closed(_)) => {}
                ended => return ended.map_err(NotSent::from),
            }
        }
        // An answer here is not about this mail, so a failure is always transient.
        let connection = match timeout(CONNECT, self.server.connect()).await {
            Ok(connected) => connected.map_err(|error| NotSent::Transient(error.to_string()))?,
            Err(_) => return Err(late("did not answer", CONNECT)),
        };
        self.hand_over(connection, &message).await.map_err(NotSent::from)
    }

    /// Hands the mail over on this connection, and keeps the connection for the next mail.
    async fn hand_over(&self, mut connection: AsyncSmtpConnection, message: &Message) -> Result<(), Refused> {
        let handed_over = timeout(self.hand_over, transact(&mut connection, message)).await;
        match handed_over {
            Ok(Ok(())) => {
                self.idle.lock().push(connection);
                Ok(())
            }
            Ok(Err(refused)) => {
                // Nothing is lost if the server does not answer the end of the session.
                drop(timeout(GREETING, connection.abort()).await);
                Err(refused)
            }
            Err(_) => Err(Refused::Mail(late("did not accept the mail", self.hand_over))),
        }
    }

    /// Connects, agrees on TLS, logs in, and ends the session.
    pub(super) async fn reach(&self) -> Result<(), Error> {
        let mut connection = self.server.connect().await?;
        // The check is complete, even if the server does not answer the end of the session.
        drop(timeout(GREETING, connection.quit()).await);
        Ok(())
    }

    pub(super) async fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        let mut leaving: JoinSet<_> = idle
            .into_iter()
            // Nothing is lost if the server does not answer the end of the session.
            .map(|mut connection| async move { drop(timeout(GREETING, connection.quit()).await) })
            .collect();
        while leaving.join_next().await.is_some() {}
    }

    /// Returns a kept connection that still answers.
    async fn kept(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let mut connection = self.idle.lock().pop()?;
            if timeout(GREETING, connection.test_connected()).await == Ok(true) {
                return Some(connection);
            }
        }
    }
}

/// Why a connection did not take a mail.
#[derive(Debug)]
enum Refused {
    /// The server closed the connection and has not accepted the mail, so the mail may be sent again at once.
    Closed(Error),
    /// Any other failure.
    Mail(NotSent),
}

impl From<Refused> for NotSent {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed(error) => Self::Transient(error.to_string()),
            Refused::Mail(why) => why,
        }
    }
}

/// Runs one mail transaction: envelope and text (RFC 5321, 3.3).
async fn transact(connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), Refused> {
    let (envelope, text) = (message.envelope(), message.formatted());
    let parameters = parameters(connection, envelope, &text).map_err(Refused::Mail)?;
    let before_text = |error| refused(error, true);
    let from = envelope.from().cloned();
    connection.command(Mail::new(from, parameters)).await.map_err(before_text)?;
    for recipient in envelope.to() {
        connection.command(Rcpt::new(recipient.clone(), Vec::new())).await.map_err(before_text)?;
    }
    connection.command(Data).await.map_err(before_text)?;
    connection.message(&text).await.map_err(|error| refused(error, false))?;
    Ok(())
}

/// Decides what a failed command means. If `before_text`, the server has received nothing of the text.
fn refused(error: Error, before_text: bool) -> Refused {
    const CLOSING: u16 = 421; // RFC 5321, 3.8
    let closed = match error.status() {
        Some(code) => u16::from(code) == CLOSING,
        None => before_text,
    };
    if closed {
        Refused::Closed(error)
    } else if error.is_permanent() {
        Refused::Mail(NotSent::Permanent(error.to_string()))
    } else {
        Refused::Mail(NotSent::Transient(error.to_string()))
    }
}

/// Returns the parameters of MAIL FROM. The parts of a message are encoded, and domains are ASCII. So only the
/// part of an address before the `@` can need more than ASCII.
///
/// # Errors
/// [`NotSent::Permanent`] if the server does not accept such an address (RFC 6531, 3.2). A retry would fail
/// too.
fn parameters(
    connection: &AsyncSmtpConnection,
    envelope: &Envelope,
    text: &[u8],
) -> Result<Vec<MailParameter>, NotSent> {
    let mut addresses = envelope.to().iter().chain(envelope.from());
    let odd = addresses.find(|address| !AsRef::<str>::as_ref(*address).is_ascii());
    if odd.is_none() && text.is_ascii() {
        return Ok(Vec::new());
    }
    if connection.server_info().supports_feature(Extension::SmtpUtfEight) {
        return Ok(vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)]);
    }
    let which =
        odd.map_or_else(|| "an address of the mail".to_owned(), |address: &Address| format!("`{address}`"));
    Err(NotSent::Permanent(format!(
        "{which} has letters beyond ASCII before the `@`, which the mail server does not accept (it does \
         not offer SMTPUTF8)"
    )))
}

fn late(what: &str, after: Duration) -> NotSent {
    NotSent::Transient(format!("the mail server {what} within {after:?}"))
}

/// The server, in lettre's types.
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

    use posthouse_model::{
        Mail,
        config::{Secret, SmtpLogin},
    };
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::{
        super::message::{
            Bcc, build,
            tests::{env, mail},
        },
        *,
    };

    /// A mail server that answers each line with `reply` and records the lines. `reply` also gets the
    /// connection's number, counted from 1, and returns none to stay silent. After "421" the server closes the
    /// connection. [`CUT`] closes it without an answer.
    struct FakeServer {
        port: u16,
        heard: Arc<Mutex<Vec<String>>>,
        connections: Arc<Mutex<usize>>,
    }

    const CUT: &str = "cut";

    impl FakeServer {
        async fn start(reply: fn(&str) -> Option<&'static str>) -> Self {
            Self::start_counting(move |_, line| reply(line)).await
        }

        async fn start_counting(
            reply: impl Fn(usize, &str) -> Option<&'static str> + Clone + Send + 'static,
        ) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (heard, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
            let server = Self { port, heard: heard.clone(), connections: connections.clone() };
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let number = {
                        let mut connections = connections.lock();
                        *connections += 1;
                        *connections
                    };
                    let (heard, reply) = (heard.clone(), reply.clone());
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
                            let Some(answer) = reply(number, &line) else { continue };
                            if answer == CUT {
                                return;
                            }
                            let written = write.write_all(format!("{answer}\r\n").as_bytes()).await;
                            if written.is_err() || answer.starts_with("421") {
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
        build(&Mail { bcc: vec!["eve@example.com".into()], ..mail() }, Bcc::Dropped, &env()).unwrap()
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

    /// The first connection takes one mail and then answers `at` with `answer`. All others accept everything.
    async fn closing_after_one_mail(at: &'static str, answer: &'static str) -> FakeServer {
        let mails = Arc::new(Mutex::new(0));
        FakeServer::start_counting(move |connection, line| {
            let (mut mails, starts) = (mails.lock(), line.starts_with(at));
            let closes = connection == 1 && *mails > 0 && starts;
            *mails += usize::from(line == ".");
            if closes { Some(answer) } else { friendly(line) }
        })
        .await
    }

    #[tokio::test]
    async fn a_mail_that_a_kept_connection_did_not_take_goes_over_a_fresh_one_at_once() {
        for (at, answer) in [
            ("MAIL", "421 closing"),
            ("RCPT", "421 closing"),
            ("DATA", "421 closing"),
            (".", "421 closing"),
            ("MAIL", CUT),
            ("RCPT", CUT),
            ("DATA", CUT),
            ("NOOP", CUT),
            ("NOOP", "421 closing"),
        ] {
            let server = closing_after_one_mail(at, answer).await;
            let smtp = server.smtp(None);
            smtp.send(message()).await.unwrap();
            smtp.send(message()).await.unwrap_or_else(|error| panic!("{at} {answer}: {error:?}"));
            assert_eq!(*server.connections.lock(), 2, "{at} {answer}");
        }
    }

    #[tokio::test]
    async fn what_may_have_been_taken_and_what_a_fresh_connection_refuses_is_not_sent_at_once_again() {
        // The server was cut off after it had received the whole text, so it may have accepted it.
        let server = closing_after_one_mail(".", CUT).await;
        let smtp = server.smtp(None);
        smtp.send(message()).await.unwrap();
        let error = smtp.send(message()).await.unwrap_err();
        assert!(matches!(error, NotSent::Transient(_)), "{error:?}");
        assert_eq!(*server.connections.lock(), 1);

        // A server that always closes is tried twice: over the kept connection and over a fresh one.
        let server = FakeServer::start_counting(|connection, line| {
            let closes = connection > 1 && line.starts_with("MAIL");
            if closes { Some("421 closing") } else { friendly(line) }
        })
        .await;
        let smtp = server.smtp(None);
        smtp.send(message()).await.unwrap();
        smtp.close_idle().await;
        let error = smtp.send(message()).await.unwrap_err();
        assert!(matches!(&error, NotSent::Transient(text) if text.contains("closing")), "{error:?}");
        assert_eq!(*server.connections.lock(), 2);
    }

    #[tokio::test]
    async fn letters_before_the_at_sign_need_a_server_that_takes_them() {
        let odd = || {
            let mail = Mail { to: vec!["jörg@bücher.example".into()], ..mail() };
            build(&mail, Bcc::Dropped, &env()).unwrap()
        };
        let plain = FakeServer::start(friendly).await;
        let error = plain.smtp(None).send(odd()).await.unwrap_err();
        assert!(
            matches!(&error, NotSent::Permanent(text) if text.contains("SMTPUTF8") && text.contains("jörg@")),
            "{error:?}"
        );
        let able = FakeServer::start(|line| match line.split(' ').next() {
            Some("EHLO") => Some("250-fake\r\n250-8BITMIME\r\n250 SMTPUTF8"),
            _ => friendly(line),
        })
        .await;
        able.smtp(None).send(odd()).await.unwrap();
        let heard = able.heard.lock().join("\n");
        assert!(heard.contains("SMTPUTF8 BODY=8BITMIME"), "{heard}");
        assert!(heard.contains("RCPT TO:<jörg@xn--bcher-kva.example>"), "{heard}");
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
