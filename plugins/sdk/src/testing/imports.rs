//! The imports, with the signatures that wit-bindgen generates.

use super::{Capability, current};

pub(crate) mod log {
    use super::*;
    use crate::log::Level;

    pub(crate) fn write(level: Level, message: &str) {
        current(|host| host.logs.push((level, message.to_owned())));
    }
}

pub(crate) mod config {
    use super::*;

    pub(crate) fn get(key: &str) -> Option<String> {
        current(|host| host.config.get(key).cloned())
    }
}

pub(crate) mod kv {
    use super::*;
    use crate::bindings::posthouse::plugin::kv::{Entry, Error};

    fn checked(key: &str) -> Result<&str, Error> {
        match key.len() {
            1..=512 => Ok(key),
            length => Err(Error::InvalidKey(format!("a key of {length} bytes; the limit is 512"))),
        }
    }

    pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        let key = checked(key)?;
        Ok(current(|host| host.effects.kv.get(key).cloned()))
    }

    pub(crate) fn set(key: &str, value: &[u8]) -> Result<(), Error> {
        let key = checked(key)?;
        current(|host| host.effects.kv.insert(key.to_owned(), value.to_owned()));
        Ok(())
    }

    pub(crate) fn delete(key: &str) -> Result<(), Error> {
        let key = checked(key)?;
        current(|host| host.effects.kv.remove(key));
        Ok(())
    }

    pub(crate) fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<Entry>, Error> {
        let wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        Ok(current(|host| {
            let found =
                host.effects.kv.iter().filter(|(key, _)| wanted(key)).take(limit.clamp(1, 1000) as usize);
            found.map(|(key, value)| Entry { key: key.clone(), value: value.clone() }).collect()
        }))
    }

    pub(crate) fn increment(key: &str, by: i64) -> Result<(), Error> {
        let odd = || Error::NotAnInteger(format!("`{key}` is not a decimal number within 64 bits"));
        let now = match get(key)? {
            None => 0,
            Some(value) => str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or_else(odd)?,
        };
        set(key, i64::checked_add(now, by).ok_or_else(odd)?.to_string().as_bytes())
    }
}

pub(crate) mod sql {
    use super::*;
    use crate::{
        bindings::posthouse::plugin::sql::{Error, Rows, Value},
        testing::database::Database,
    };

    pub(crate) fn query(statement: &str, parameters: &[Value]) -> Result<Rows, Error> {
        on_database(|database| database.query(statement, parameters))
    }

    pub(crate) fn execute(statement: &str, parameters: &[Value]) -> Result<u64, Error> {
        on_database(|database| database.execute(statement, parameters))
    }

    fn on_database<T>(call: impl FnOnce(&mut Database) -> Result<T, Error>) -> Result<T, Error> {
        current(|host| match &mut host.database {
            Some(database) => call(database),
            None => Err(Error::Denied(
                "no database is granted: add `database = \"<name>\"` to the plugin's grants".to_owned(),
            )),
        })
    }
}

pub(crate) mod http {
    use super::*;
    use crate::bindings::posthouse::plugin::http::{Error, Request, Response};

    pub(crate) const GRANT: &str = "http = [\"https://…\"]";

    pub(crate) fn fetch(request: &Request) -> Result<Response, Error> {
        current(|host| {
            if let Some(denial) = host.denial(Capability::Http, GRANT) {
                return Err(Error::Denied(denial));
            }
            if !is_url(&request.url) {
                return Err(Error::Invalid(format!("url: `{}` is none", request.url)));
            }
            host.fetched.push(request.clone());
            let nothing_said = || Ok(Response { status: 200, headers: Vec::new(), body: b"{}".to_vec() });
            host.answers.pop_front().unwrap_or_else(nothing_said)
        })
    }

    pub(crate) fn deliver(request: &Request) -> Result<Response, Error> {
        Ok(Response { body: Vec::new(), ..fetch(request)? })
    }

    pub(crate) fn is_url(text: &str) -> bool {
        ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme))
    }
}

pub(crate) mod outbox {
    use super::{http::is_url, *};
    use crate::bindings::posthouse::plugin::{
        http::Request,
        outbox::{Derived, Error, Mail},
    };

    pub(crate) fn send_mail(mail: &Mail) -> Result<String, Error> {
        current(|host| {
            if let Some(denial) = host.denial(Capability::Mail, "mail = { … }") {
                return Err(Error::Denied(denial));
            }
            if let Some(odd) = mail.to.iter().find(|address| !address.contains('@')) {
                return Err(Error::Invalid(format!("to: `{odd}` is no address")));
            }
            if mail.subject.contains(char::is_control) {
                return Err(Error::Invalid("subject: holds a control character".to_owned()));
            }
            host.effects.mails.push(mail.clone());
            Ok(format!("<{}-{}@test>", host.delivery, host.effects.mails.len()))
        })
    }

    pub(crate) fn send_request(request: &Request) -> Result<String, Error> {
        current(|host| {
            if let Some(denial) = host.denial(Capability::Http, super::http::GRANT) {
                return Err(Error::Denied(denial));
            }
            if !is_url(&request.url) {
                return Err(Error::Invalid(format!("url: `{}` is none", request.url)));
            }
            host.effects.requests.push(request.clone());
            Ok(format!("{}-{}", host.delivery, host.effects.requests.len()))
        })
    }

    pub(crate) fn emit(event: &Derived) -> Result<String, Error> {
        current(|host| {
            if let Some(denial) = host.denial(Capability::Emit, "emit = [\"…\"]") {
                return Err(Error::Denied(denial));
            }
            host.effects.emitted.push(event.clone());
            Ok(format!("evt_{}_{}", host.delivery, host.effects.emitted.len()))
        })
    }
}
