//! Scalekit's list of events: `POST /api/v1/events/paginated`, newest first, at most 100 a page.
//!
//! The paths, the parameters and the members are those of the HTTP bindings in the descriptors of Scalekit's Python SDK
//! 2.21.0 (`scalekit.v1.events.EventsService.ListEventsPaginated`, whose body is the filter). JSON of protobuf has
//! names in lowerCamelCase or as in the descriptor, so both are read. Webhooks have the latter.

use std::{borrow::Cow, fmt, time::Duration};

use bytes::Bytes;
use posthouse_egress::Draft;
use posthouse_model::Secret;
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use url::{Url, form_urlencoded};

use super::{Page, Window, asker::read};

/// The members of an event whose names differ: in lowerCamelCase, and as webhooks have them.
const NAMES: [(&str, &str); 5] = [
    ("specVersion", "spec_version"),
    ("occurredAt", "occurred_at"),
    ("environmentId", "environment_id"),
    ("organizationId", "organization_id"),
    ("displayName", "display_name"),
];

/// The lifetime of a token whose answer names none.
const LIFETIME: Duration = Duration::from_secs(300);

/// The request for a token.
pub(super) fn token_request(url: &Url, client_id: &str, client_secret: &Secret) -> Draft {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", client_id)
        .append_pair("client_secret", client_secret.expose())
        .finish();
    Draft {
        method: "POST".to_owned(),
        url: at(url, "/oauth/token").into(),
        headers: vec![
            ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
            ("accept".to_owned(), "application/json".to_owned()),
        ],
        body: body.into_bytes(),
        deliver: false,
    }
}

/// The token in an answer, and its lifetime. None if there is none that can be in a header.
pub(super) fn token(answer: &[u8]) -> Option<(Secret, Duration)> {
    #[derive(Deserialize)]
    struct Token {
        #[serde(alias = "accessToken")]
        access_token: String,
        #[serde(default, alias = "expiresIn")]
        expires_in: Option<f64>,
    }
    let Token { access_token, expires_in } = serde_json::from_slice(answer).ok()?;
    let fits = !access_token.is_empty() && access_token.bytes().all(|byte| byte.is_ascii_graphic());
    let lifetime = expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    fits.then(|| (Secret::new(access_token), lifetime.unwrap_or(LIFETIME)))
}

/// The request for a page. Whether the bounds belong to the time is not documented, so it reaches back a millisecond.
pub(super) fn page_request(
    url: &Url,
    token: &Secret,
    window: Window,
    cursor: Option<&str>,
    size: usize,
) -> Draft {
    let mut url = at(url, "/api/v1/events/paginated");
    let mut query = url.query_pairs_mut();
    query.append_pair("page_size", &size.to_string());
    if let Some(cursor) = cursor {
        query.append_pair("page_token", cursor);
    }
    drop(query);
    let from = window.from.saturating_sub(Duration::from_millis(1)).unwrap_or(window.from);
    let filter = serde_json::json!({ "start_time": from.to_string(), "end_time": window.to.to_string() });
    Draft {
        method: "POST".to_owned(),
        url: url.into(),
        headers: vec![
            ("authorization".to_owned(), format!("Bearer {}", token.expose())),
            ("content-type".to_owned(), "application/json".to_owned()),
            ("accept".to_owned(), "application/json".to_owned()),
        ],
        body: filter.to_string().into_bytes(),
        deliver: false,
    }
}

/// The page in an answer.
///
/// # Errors
/// Why it is none, in words that contain nothing of it.
pub(super) fn page(answer: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        events: Option<Vec<&'a RawValue>>,
        #[serde(default, alias = "nextPageToken")]
        next_page_token: Option<String>,
    }
    let Answer { events, next_page_token } = read(answer, "events")?;
    let events = events.unwrap_or_default().into_iter().map(|event| as_webhook(event.get())).collect();
    let next = next_page_token.filter(|token| !token.is_empty());
    Ok(Page { events, next })
}

/// An event with the names of a webhook's members. Everything else stays as it is, byte for byte.
fn as_webhook(event: &str) -> Bytes {
    let renamed = |name: &str| NAMES.iter().find(|(camel, _)| *camel == name).map(|(_, own)| *own);
    match serde_json::from_str::<Members<'_>>(event) {
        Ok(Members(members)) if members.iter().any(|(name, _)| renamed(name).is_some()) => {
            let member = |(name, value): &(Cow<'_, str>, &RawValue)| {
                let name = renamed(name).unwrap_or(name);
                format!("{}:{}", serde_json::Value::from(name), value.get())
            };
            let members: Vec<_> = members.iter().map(member).collect();
            Bytes::from(format!("{{{}}}", members.join(",")))
        }
        _ => Bytes::copy_from_slice(event.as_bytes()),
    }
}

/// The members of an object, in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A name, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn at(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn url() -> Url {
        Url::parse("https://acme.scalekit.dev").unwrap()
    }

    #[test]
    fn the_requests_are_those_of_the_api() {
        let secret = Secret::new("s&cret=1");
        let draft = token_request(&url(), "skc_1", &secret);
        assert_eq!(
            (draft.method.as_str(), draft.url.as_str()),
            ("POST", "https://acme.scalekit.dev/oauth/token")
        );
        let body = String::from_utf8(draft.body).unwrap();
        assert_eq!(body, "grant_type=client_credentials&client_id=skc_1&client_secret=s%26cret%3D1");

        let at = |second| Timestamp::from_second(second).unwrap();
        let window = Window { from: at(1_765_281_600), to: at(1_765_281_660) };
        let draft = page_request(&url(), &Secret::new("t0ken"), window, Some(">:WyJldnRfMTAwNCJd"), 100);
        assert_eq!(
            draft.url,
            "https://acme.scalekit.dev/api/v1/events/paginated?page_size=100&page_token=%3E%3AWyJldnRfMTAwNCJd"
        );
        let filter: serde_json::Value = serde_json::from_slice(&draft.body).unwrap();
        let expected = r#"{"start_time":"2025-12-09T11:59:59.999Z","end_time":"2025-12-09T12:01:00Z"}"#;
        assert_eq!(filter, serde_json::from_str::<serde_json::Value>(expected).unwrap());
        assert_eq!(draft.headers[0], ("authorization".to_owned(), "Bearer t0ken".to_owned()));
    }

    #[test]
    fn a_token_is_read_with_its_lifetime() {
        let (token, lifetime) =
            token(br#"{"access_token":"abc","expires_in":86399,"token_type":"Bearer"}"#).unwrap();
        assert_eq!((token.expose(), lifetime.as_secs()), ("abc", 86399));
        let (_, lifetime) = super::token(br#"{"access_token":"abc","expires_in":-1}"#).unwrap();
        assert_eq!(lifetime, LIFETIME);
        for answer in
            ["", "{}", r#"{"access_token":""}"#, r#"{"access_token":"a\nb"}"#, r#"{"access_token":7}"#]
        {
            assert!(super::token(answer.as_bytes()).is_none(), "{answer}");
        }
    }

    #[test]
    fn names_of_either_kind_are_read_and_the_body_is_that_of_the_webhook() {
        let snake = r#"{"spec_version":"1","id":"evt_2","type":"user.created","occurred_at":"2025-12-09T12:00:00Z","environment_id":"env_1","organization_id":"org_1","object":"User","data": {"userId":1e999},"display_name":"x"}"#;
        let camel = snake
            .replace("spec_version", "specVersion")
            .replace("occurred_at", "occurredAt")
            .replace("environment_id", "environmentId")
            .replace("organization_id", "organizationId")
            .replace("display_name", "displayName");
        let of_snake =
            page(format!(r#"{{"events":[{snake}],"next_page_token":"n","prev_page_token":"p"}}"#).as_bytes());
        let of_camel =
            page(format!(r#"{{"events":[{camel}],"nextPageToken":"n","prevPageToken":"p"}}"#).as_bytes());
        let told: Page = of_snake.unwrap();
        assert_eq!(told.next.as_deref(), Some("n"));
        assert_eq!(&told.events[0][..], snake.as_bytes(), "byte for byte");
        let of_camel = of_camel.unwrap();
        assert_eq!(of_camel.next.as_deref(), Some("n"));
        let value = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().replace(' ', "");
        assert_eq!(value(&of_camel.events[0]), value(snake.as_bytes()), "names within `data` stay");
    }

    #[test]
    fn an_empty_page_is_the_end_and_what_is_no_page_says_so() {
        for answer in ["{}", r#"{"events":[]}"#, r#"{"events":null,"next_page_token":""}"#] {
            assert_eq!(page(answer.as_bytes()), Ok(Page::default()), "{answer}");
        }
        for answer in ["", "<html>", "[]", r#"{"events":{}}"#, r#"{"events":[1"#] {
            assert!(page(answer.as_bytes()).is_err(), "{answer}");
        }
        let odd = page(br#"{"events":[1,"two",{"\ud800":1}]}"#).unwrap();
        assert_eq!(odd.events.len(), 3, "each is judged by itself");
    }
}
