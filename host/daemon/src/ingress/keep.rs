//! Chooses what an event keeps of its request besides the body: the content type, the headers that its source lists and
//! those that its scheme reads, and, for a plugin that was granted them, those that prove who sent it.
//!
//! An event never keeps the signature or a credential otherwise: the reader of config.toml refuses their names.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header::CONTENT_TYPE};
use posthouse_model::{JSON, KEPT_HEADERS, RequestParts, config};

use super::{Verified, form};

/// The names of the headers that the events of a source keep.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    headers: Vec<HeaderName>,
    /// Empty unless a plugin was granted the signatures of the source.
    signature: Vec<HeaderName>,
}

impl Keep {
    pub(super) fn of(source: &config::Source) -> Self {
        let scheme = &source.scheme;
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        let read = scheme.event_headers();
        let more = read.iter().filter(|name| !source.headers.contains(name));
        let proof = if source.keeps_signatures { scheme.proof_headers() } else { Default::default() };
        Self {
            headers: source.headers.iter().chain(more).filter_map(name).collect(),
            signature: proof.iter().filter_map(name).collect(),
        }
    }

    /// What an event with this body keeps of the request.
    pub(super) fn parts(&self, verified: &Verified<'_>, body: &Bytes) -> RequestParts {
        let (sent, headers) = (verified.body(), verified.head().headers);
        let is_whole = (body.as_ptr(), body.len()) == (sent.as_ptr(), sent.len());
        let is_form = !is_whole && form::is_form(headers);
        // One event of several: the signature covers the whole request, of which this event is a part.
        let is_part = !is_whole && !is_form;
        let mut room = KEPT_HEADERS;
        RequestParts {
            content_type: if is_part { RequestParts::content_type(JSON) } else { content_type(headers) },
            headers: kept(&self.headers, headers, &mut room),
            signature: if is_part { Vec::new() } else { kept(&self.signature, headers, &mut room) },
            original: is_form.then(|| sent.clone()),
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<std::borrow::Cow<'static, str>> {
    RequestParts::content_type(headers.get(CONTENT_TYPE)?.to_str().ok()?)
}

/// The headers with these names, in their order. One that is no text, or for which no room is left, is left out.
fn kept(names: &[HeaderName], headers: &HeaderMap, room: &mut usize) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    for name in names {
        for value in headers.get_all(name) {
            let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
            let Some(left) = room.checked_sub(name.as_str().len() + value.len()) else { continue };
            *room = left;
            kept.push((name.as_str().to_owned(), value.to_owned()));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use posthouse_model::config::Source;

    use super::*;

    use crate::ingress::{Verifier, event, fixtures, fixtures::NOW, sign};

    /// What the first event of a request keeps.
    fn parts(source: &Source, extra: &[(&str, &str)], body: &[u8]) -> RequestParts {
        let now = jiff::Timestamp::from_second(NOW).unwrap();
        let signed = sign(source, "msg_1", now, body).unwrap();
        let mut headers: Vec<_> =
            signed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.extend(extra);
        let request = fixtures::request(&headers, body);
        let verifier = Verifier::new(source).unwrap();
        let verified = verifier.verify(&request, now).unwrap();
        let events = event::read(&verified, &source.name, now).unwrap();
        Keep::of(source).parts(&verified, &events[0].event.body)
    }

    fn pairs(headers: &[(String, String)]) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    const BODY: &[u8] = br#"{"id":"evt_1","type":"user.created","action":"opened","event_id":"evt_2"}"#;

    #[test]
    fn an_event_keeps_what_its_source_lists_and_what_its_scheme_reads() {
        let source =
            Source { headers: vec!["x-trace".into(), "x-twice".into()], ..fixtures::source("github") };
        let sent = [
            ("x-github-event", "issues"),
            ("x-twice", "1"),
            ("X-Twice", "2"),
            ("x-other", "3"),
            ("authorization", "Bearer secret"),
            ("content-type", "application/json"),
        ];
        let parts = parts(&source, &sent, BODY);
        let kept = [
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("x-github-delivery", "msg_1"),
            ("x-github-event", "issues"),
        ];
        assert_eq!(pairs(&parts.headers), kept);
        assert_eq!((parts.content_type.as_deref(), parts.original), (Some("application/json"), None));
        assert!(parts.signature.is_empty());
    }

    #[test]
    fn a_source_that_lists_nothing_keeps_nothing() {
        let parts = parts(&fixtures::source("standard-webhooks"), &[("x-a", "1"), ("cookie", "a=b")], BODY);
        assert_eq!(parts, RequestParts::default());
    }

    #[test]
    fn the_signature_is_kept_apart_and_only_if_a_plugin_was_granted_it() {
        let source = fixtures::source("standard-webhooks");
        let granted = Source { keeps_signatures: true, ..source.clone() };
        let names = |parts: &RequestParts| -> Vec<String> {
            parts.signature.iter().map(|(name, _)| name.clone()).collect()
        };
        assert!(names(&parts(&source, &[], BODY)).is_empty());
        let kept = parts(&granted, &[], BODY);
        assert_eq!(names(&kept), ["webhook-id", "webhook-signature", "webhook-timestamp"]);
        assert!(kept.headers.is_empty());
    }

    #[test]
    fn headers_beyond_their_room_are_left_out() {
        let source =
            Source { headers: vec!["x-a".into(), "x-b".into(), "x-c".into()], ..fixtures::source("slack") };
        let long = "a".repeat(KEPT_HEADERS - 10);
        let parts = parts(&source, &[("x-a", &long), ("x-b", "12345"), ("x-c", "1234")], BODY);
        let names: Vec<_> = parts.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-a", "x-c"]);
    }

    #[test]
    fn a_form_is_kept_as_it_was_sent() {
        let form = b"command=%2Fdeploy&trigger_id=13.37&team_id=T1";
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let parts = parts(&fixtures::source("slack"), &[kind], form);
        assert_eq!(parts.original.as_deref(), Some(&form[..]));
        assert_eq!(parts.content_type.as_deref(), Some(kind.1));
    }

    #[test]
    fn one_event_of_several_is_json_without_a_signature() {
        let source = Source { keeps_signatures: true, ..fixtures::source("hubspot") };
        let source = Source { url: Some("https://a.example/webhooks/crm".into()), ..source };
        let body = br#"[{"eventId":1,"subscriptionType":"a.b"},{"eventId":2,"subscriptionType":"a.b"}]"#;
        let parts = parts(&source, &[("content-type", "text/plain")], body);
        assert_eq!((parts.content_type.as_deref(), parts.original), (Some("application/json"), None));
        assert!(parts.signature.is_empty());
    }
}
