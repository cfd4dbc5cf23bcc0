//! `outbox` of the package.

use super::bindings::posthouse::plugin::{http, outbox};
use crate::imports::{
    call::{HostCall, MailDraft, answered},
    outbox::OutboxError,
    state::HostState,
};

impl outbox::Host for HostState {
    fn send_mail(&mut self, mail: outbox::Mail) -> wasmtime::Result<Result<String, outbox::Error>> {
        let draft = MailDraft {
            from: mail.from,
            to: mail.to,
            cc: mail.cc,
            bcc: mail.bcc,
            reply_to: mail.reply_to,
            subject: mail.subject,
            text: mail.text,
            html: mail.html,
        };
        let staged = answered!(self.call_now(HostCall::SendMail(Box::new(draft)))?, SendMail)?;
        Ok(staged.map_err(outbox::Error::from))
    }

    fn send_request(&mut self, request: http::Request) -> wasmtime::Result<Result<String, outbox::Error>> {
        let staged = answered!(self.call_now(HostCall::SendRequest(request.into()))?, SendRequest)?;
        Ok(staged.map_err(outbox::Error::from))
    }

    fn emit(&mut self, event: outbox::Derived) -> wasmtime::Result<Result<String, outbox::Error>> {
        let outbox::Derived { event_type, organization_id: organization, data } = event;
        let staged = answered!(self.call_now(HostCall::Emit { event_type, organization, data })?, Emit)?;
        Ok(staged.map_err(outbox::Error::from))
    }
}

impl From<OutboxError> for outbox::Error {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Denied(text) => Self::Denied(text),
            OutboxError::Invalid(text) => Self::Invalid(text),
            OutboxError::Limit(text) => Self::Limit(text),
        }
    }
}
