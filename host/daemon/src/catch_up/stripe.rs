//! Stripe's list of events: `GET /v1/events`, newest first, at most 100 a page, of the last 30 days.
//!
//! Source: <https://docs.stripe.com/api/events/list>. Pages go on after the last event of the page before.

use bytes::Bytes;
use posthouse_egress::Draft;
use posthouse_model::{Secret, json};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::{Page, Window, asker::read};

/// The request for a page.
pub(super) fn page_request(
    url: &Url,
    key: &Secret,
    window: Window,
    cursor: Option<&str>,
    size: usize,
) -> Draft {
    let mut url = url.clone();
    url.set_path("/v1/events");
    let mut query = url.query_pairs_mut();
    query.append_pair("limit", &size.to_string());
    query.append_pair("created[gte]", &window.from.as_second().to_string());
    query.append_pair("created[lt]", &window.to.as_second().to_string());
    if let Some(cursor) = cursor {
        query.append_pair("starting_after", cursor);
    }
    drop(query);
    Draft {
        method: "GET".to_owned(),
        url: url.into(),
        headers: vec![
            ("authorization".to_owned(), format!("Bearer {}", key.expose())),
            ("accept".to_owned(), "application/json".to_owned()),
        ],
        body: Vec::new(),
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
        #[serde(borrow)]
        data: Vec<&'a RawValue>,
        has_more: bool,
    }
    let Answer { data, has_more } = read(answer, "data and has_more")?;
    let last = data.last().map(|last| last.get());
    let next = match (has_more, last) {
        (false, _) => None,
        (true, last) => {
            let id = last.and_then(|last| json::member(last, "id")).and_then(json::string);
            Some(
                id.filter(|id| !id.is_empty())
                    .ok_or("there are more events, after one that has no id")?
                    .into_owned(),
            )
        }
    };
    let events = data.into_iter().map(|event| Bytes::copy_from_slice(event.get().as_bytes())).collect();
    Ok(Page { events, next })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_request_is_that_of_the_api() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let window = Window { from: at(1_765_281_600), to: at(1_765_281_660) };
        let url = Url::parse("https://api.stripe.com").unwrap();
        let draft = page_request(&url, &Secret::new("sk_1"), window, Some("evt_7"), 100);
        assert_eq!(
            draft.url,
            "https://api.stripe.com/v1/events?limit=100&created%5Bgte%5D=1765281600&created%5Blt%5D=1765281660&starting_after=evt_7"
        );
        assert_eq!(draft.headers[0], ("authorization".to_owned(), "Bearer sk_1".to_owned()));
        assert!(draft.body.is_empty());
    }

    #[test]
    fn a_page_goes_on_after_its_last_event() {
        let events = r#"[{"id":"evt_2","data":{"n":1e999}}, {"id":"evt_1"}]"#;
        let read =
            |more: bool| page(format!(r#"{{"object":"list","data":{events},"has_more":{more}}}"#).as_bytes());
        assert_eq!(read(true).unwrap().next.as_deref(), Some("evt_1"));
        let last = read(false).unwrap();
        assert_eq!((last.next, &last.events[0][..]), (None, &br#"{"id":"evt_2","data":{"n":1e999}}"#[..]));
    }

    #[test]
    fn what_is_no_page_says_so() {
        for answer in
            ["", "{}", r#"{"data":[]}"#, r#"{"data":{},"has_more":false}"#, r#"{"data":[],"has_more":true}"#]
        {
            assert!(page(answer.as_bytes()).is_err(), "{answer}");
        }
        assert!(page(br#"{"data":[{"id":7}],"has_more":true}"#).is_err(), "no id to go on after");
    }
}
