//! `outbox` of the package.

use super::{
    answer,
    bindings::posthouse::plugin::{http, outbox},
};
use crate::imports::{
    Call, HostState, Stop,
    kv::Fault,
    outbox::{Draft, OutboxError},
};

impl outbox::Host for HostState {
    fn send_mail(&mut self, mail: outbox::Mail) -> wasmtime::Result<Result<String, outbox::Error>> {
        let draft = Draft {
            from: mail.from,
            to: mail.to,
            cc: mail.cc,
            bcc: mail.bcc,
            reply_to: mail.reply_to,
            subject: mail.subject,
            text: mail.text,
            html: mail.html,
        };
        staged(self.pass(Call::SendMail, |state| state.outbox()?.send_mail(draft)))
    }

    fn send_request(&mut self, request: http::Request) -> wasmtime::Result<Result<String, outbox::Error>> {
        staged(self.pass(Call::SendRequest, |state| state.outbox()?.send_request(request.into())))
    }

    fn emit(&mut self, event: outbox::Derived) -> wasmtime::Result<Result<String, outbox::Error>> {
        let outbox::Derived { event_type, organization_id, data } = event;
        match self
            .pass(Call::Emit, |state| state.emitter()?.emit(&event_type, organization_id.as_deref(), &data))
        {
            Err(Fault::Stop(Stop::Denied(why))) => Ok(Err(outbox::Error::Denied(why))),
            other => answer(other),
        }
    }
}

fn staged(result: Result<String, Fault<OutboxError>>) -> wasmtime::Result<Result<String, outbox::Error>> {
    match result {
        Err(Fault::Stop(Stop::Denied(why))) => Ok(Err(outbox::Error::Denied(why))),
        other => answer(other),
    }
}

impl From<OutboxError> for outbox::Error {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Invalid(text) => Self::Invalid(text),
            OutboxError::Limit(text) => Self::Limit(text),
        }
    }
}
