//! How a mail leaves: over SMTP, or as an `.eml` file in a folder.
//!
//! Sending is at least once: when the daemon dies between handing a mail over and writing that down,
//! the mail goes again, with the same Message-ID, so that the receiver can tell. In the folder the
//! second one takes the place of the first.
//!
//! | part | what |
//! | --- | --- |
//! | [`message`] | builds the text of a message; whatever a plugin wrote, it adds no header |
//! | [`folder`] | writes it to a file that is whole whenever it can be seen |
//! | [`smtp`] | hands it to a mail server, within time-outs |

mod folder;
mod message;
mod smtp;

use self::{folder::Folder, smtp::Smtp};
use super::desk::{Desk, NotSent};
use crate::{
    config::{MailTarget, MailTransport, Retry},
    model::{Ambient, Mail, OutboxItem, OutboxKind},
    store::{OutboxJob, Places},
};

/// Why mail can't leave at all: TLS for its server can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS for the mail server of [mail] can't be set up: {0}")]
pub struct InvalidMailTarget(#[from] lettre::transport::smtp::Error);

/// Looks whether the mail server takes us: its greeting, TLS and the login, and nothing is sent. A folder is
/// not looked at.
///
/// # Errors
/// What it said, or what is between.
pub async fn reach_mail(transport: &MailTransport) -> Result<(), String> {
    match Mailer::new(transport, 0).map_err(|error| error.to_string())? {
        Mailer::Folder(_) => Ok(()),
        Mailer::Smtp(smtp) => smtp.reach().await.map_err(|error| error.to_string()),
    }
}

/// Where mail goes.
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

    /// Hands the mail over. Returns within 90 s; dropped, it may have handed it over or not.
    async fn send(&self, mail: &Mail, ambient: &Ambient) -> Result<(), NotSent> {
        match self {
            Self::Folder(folder) => {
                folder.send(message::build(mail, message::Bcc::Kept, ambient)?, mail).await
            }
            Self::Smtp(smtp) => smtp.send(message::build(mail, message::Bcc::Dropped, ambient)?).await,
        }
    }

    /// Lets go of what is kept for the next mail.
    async fn rest(&self) {
        if let Self::Smtp(smtp) = self {
            smtp.close_idle().await;
        }
    }
}

/// Sends mail.
pub(super) struct MailDesk {
    mailer: Mailer,
    retry: Retry,
    ambient: Ambient,
}

impl MailDesk {
    /// A folder leaves `min_free` bytes of its disk free.
    pub(super) fn new(
        transport: &MailTransport,
        min_free: u64,
        ambient: Ambient,
    ) -> Result<Self, InvalidMailTarget> {
        Ok(Self { mailer: Mailer::new(transport, min_free)?, retry: transport.retry, ambient })
    }
}

impl Desk for MailDesk {
    const KIND: OutboxKind = OutboxKind::Mail;
    // All go to one server: where that hangs, kept places are of no use.
    const PLACES: Places = Places { at_once: 8, kept: false };

    fn retry(&self) -> &Retry {
        &self.retry
    }

    async fn send(&self, job: &OutboxJob) -> Result<(), NotSent> {
        match &job.item {
            OutboxItem::Mail(mail) => self.mailer.send(mail, &self.ambient).await,
            OutboxItem::Request(_) => Err(NotSent::Permanent("it is no mail".to_owned())),
        }
    }

    async fn rest(&self) {
        self.mailer.rest().await;
    }
}
