//! Reads the names of the headers that an event keeps, and refuses those of credentials.

use std::collections::BTreeSet;

use super::{
    Scheme, Source,
    diagnose::{listed, nearest, shown},
    table::{Fault, Value},
    value::text,
};
use crate::{SourceName, is_reserved_header};

/// The most names that one source may list.
const NAMES: usize = 32;
/// The longest name, in bytes.
const NAME: usize = 64;

/// Words within a header's name that say that it carries a credential.
const WORDS: [&str; 10] = [
    "apikey",
    "authoriz",
    "cookie",
    "credential",
    "csrf",
    "passw",
    "secret",
    "session",
    "signature",
    "token",
];

/// Whole parts of such a name, between `-` or `_`.
const PARTS: [&str; 8] = ["auth", "hmac", "jwt", "key", "login", "sig", "sign", "xsrf"];

/// Reads `headers` of a source.
pub(super) fn headers(value: &Value<'_>, scheme: Option<&Scheme>) -> Result<Vec<String>, Fault> {
    let items = value.items().ok_or_else(|| value.mistyped("an array such as [\"x-github-event\"]"))?;
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let name = header(&item, scheme)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.len() {
        1..=NAMES => Ok(names),
        0 => Err(value.fault("is empty; write at least one, such as [\"x-github-event\"]")),
        more => Err(value.fault(format_args!("has {more} names; the limit is {NAMES}"))),
    }
}

/// Reads one name. What the sender's row reads events from is known to be harmless, whatever its name says.
fn header(value: &Value<'_>, scheme: Option<&Scheme>) -> Result<String, Fault> {
    let name = text(value)?.to_ascii_lowercase();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > NAME || !name.chars().all(is_token) {
        return Err(value.fault(format_args!(
            "holds `{}`, which is no header's name; one is 1 to {NAME} letters, digits and `-`",
            shown(&name)
        )));
    }
    let of_scheme =
        |names: fn(&Scheme) -> BTreeSet<String>| scheme.is_some_and(|scheme| names(scheme).contains(&name));
    if of_scheme(Scheme::signature_headers) {
        return Err(value.fault(format_args!(
            "holds `{name}`, the sender's signature, which plugins do not get; a plugin for an app that verifies \
             requests itself gets it by `signatures` in its grants"
        )));
    }
    if of_scheme(Scheme::event_headers) {
        return Ok(name);
    }
    if name == "content-type" {
        return Err(value.fault("holds `content-type`, which plugins get anyway; leave it out"));
    }
    if is_reserved_header(&name) {
        return Err(value.fault(format_args!(
            "holds `{name}`, which is about the connection and not about the event; leave it out"
        )));
    }
    if may_be_a_credential(&name) {
        return Err(value.fault(format_args!(
            "holds `{name}`, which may carry a credential, and plugins get none; leave it out"
        )));
    }
    Ok(name)
}

fn may_be_a_credential(name: &str) -> bool {
    WORDS.iter().any(|word| name.contains(word))
        || name.split(['-', '_', '.']).any(|part| PARTS.contains(&part))
}

/// Reads one name of `signatures` in a plugin's grants: a source whose signatures the plugin gets.
pub(super) fn signed_source(value: &Value<'_>, sources: &[Source]) -> Result<SourceName, Fault> {
    let name = text(value)?;
    let Some(source) = sources.iter().find(|source| source.name.as_str() == name) else {
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        let way_out = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "there is none".to_owned(),
            None => format!("the sources are {}", listed(&names)),
        };
        return Err(
            value.fault(format_args!("holds `{}`, which names no [[source]]; {way_out}", shown(name)))
        );
    };
    if source.scheme.shows_secret() {
        return Err(value.fault(format_args!(
            "holds `{name}`, whose scheme `{}` does not sign the body: who has its header can send anything, so plugins \
             do not get it; use `sign` of the `http` grant",
            source.scheme.name
        )));
    }
    Ok(source.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_known_by_their_names() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-apikey",
            "x-auth",
            "x-amz-security-token",
            "x-csrf-token",
            "x-hub-signature",
            "x-line-signature",
            "x_secret",
            "x-session-id",
            "x-jwt-assertion",
        ] {
            assert!(may_be_a_credential(name), "{name}");
        }
        for name in
            ["x-github-event", "user-agent", "x-request-id", "x-author", "x-monkey", "x-shopify-topic"]
        {
            assert!(!may_be_a_credential(name), "{name}");
        }
    }
}
