//! Sends mail over SMTP, or writes it as an `.eml` file to a folder.
//!
//! Mail is sent at least once. If the daemon dies between handing a mail over and recording that, the next
//! start sends it again. It keeps its Message-ID, so the receiver can detect the repeat. In a folder, the
//! second file replaces the first.
//!
//! | part | what |
//! | --- | --- |
//! | [`message`] | builds the text of a message, to which no plugin can add a header |
//! | [`folder`] | writes the message to a file that is complete whenever it is visible |
//! | [`smtp`] | hands the message to a mail server, within timeouts |

mod folder;
mod message;
mod smtp;

use posthouse_model::{
    Env, Mail, OutboxItem, OutboxKind,
    config::{MailTarget, MailTransport, Retry},
};
use posthouse_store::{OutboxJob, OutboxSlots};

use self::{folder::Folder, smtp::Smtp};
use super::transport::{NotSent, Transport};

/// Why no mail can be sent: TLS for the mail server can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS for the mail server of [mail] can't be set up: {0}")]
pub struct InvalidMailTarget(#[from] lettre::transport::smtp::Error);

/// Checks the greeting, TLS and login of the mail server, and sends nothing. A folder is not checked.
///
/// # Errors
/// The server's answer, or why it can't be reached.
pub async fn reach_mail(transport: &MailTransport) -> Result<(), String> {
    match Mailer::new(transport, 0).map_err(|error| error.to_string())? {
        Mailer::Folder(_) => Ok(()),
        Mailer::Smtp(smtp) => smtp.reach().await.map_err(|error| error.to_string()),
    }
}

/// Where mail is sent to.
enum Mailer {
    Folder(Folder),
    Smtp(Box<Smtp>),
}

impl Mailer {
    fn new(transport: &MailTransport, min_free: u64) -> Result<Self, InvalidMailTarget> {
        Ok(match &transport.target {
            MailTarget::Folder(folder) => Self::Folder(Folder::new(folder.clone(), min_free)),
            MailTarget::Smtp(server) => Self::Smtp(Box::new(Smtp::new(server)?)),
        })
    }

    /// Hands the mail over; over SMTP it returns within 200 s. If dropped, it may or may not have handed the mail over.
    async fn send(&self, mail: &Mail, env: &Env) -> Result<(), NotSent> {
        match self {
            Self::Folder(folder) => folder.send(message::build(mail, message::Bcc::Kept, env)?, mail).await,
            Self::Smtp(smtp) => smtp.send(message::build(mail, message::Bcc::Dropped, env)?).await,
        }
    }

    /// Closes the connections that are kept for the next mail.
    async fn rest(&self) {
        if let Self::Smtp(smtp) = self {
            smtp.close_idle().await;
        }
    }
}

/// Sends the mails of the outbox.
pub(super) struct MailDesk {
    mailer: Mailer,
    retry: Retry,
    env: Env,
}

impl MailDesk {
    /// A transport for this transport. A folder leaves `min_free` bytes of its disk free.
    pub(super) fn new(transport: &MailTransport, min_free: u64, env: Env) -> Result<Self, InvalidMailTarget> {
        Ok(Self { mailer: Mailer::new(transport, min_free)?, retry: transport.retry, env })
    }
}

impl Transport for MailDesk {
    const KIND: OutboxKind = OutboxKind::Mail;
    // All mails go to one server, so if it hangs, reserved slots are of no use.
    const SLOTS: OutboxSlots = OutboxSlots { at_once: 8, kept: false };

    fn retry(&self) -> &Retry {
        &self.retry
    }

    async fn send(&self, job: &OutboxJob) -> Result<(), NotSent> {
        match &job.item {
            OutboxItem::Mail(mail) => self.mailer.send(mail, &self.env).await,
            OutboxItem::Request(_) => Err(NotSent::Permanent("it is not a mail".to_owned())),
        }
    }

    async fn rest(&self) {
        self.mailer.rest().await;
    }
}
