//! Each promise of the header, on a host in memory.

use posthouse_sdk::testing::{self, Header, Host, HttpError, Response};

use super::*;

const URL: &str = "https://shop.example.com/webhooks";

fn host() -> Host {
    Host::new().grant(Capability::Http).config("url", URL)
}

fn event() -> Event {
    testing::event("order.paid", r#"{"plan":"pro","seats":3,"trial":false}"#)
}

/// The headers of the only request.
fn headers(host: &Host) -> Vec<(&str, &str)> {
    let [request] = host.fetched() else { panic!("{:?}", host.fetched()) };
    request.headers.iter().map(|header| (&*header.name, &*header.value)).collect()
}

#[test]
fn the_request_has_the_body_and_the_headers_of_the_senders() {
    let mut host = host();
    let kept = [
        ("x-github-event", "issues"),
        ("idempotency-key", "theirs"),
        ("x-posthouse-source", "forged"),
        ("x-name", "Zoë"),
    ];
    let event = Event {
        headers: kept.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        content_type: "application/json; charset=utf-8".to_owned(),
        ..event()
    };
    let body = event.body.clone();
    host.deliver::<Forward>(event).unwrap();
    let expected = [
        ("x-posthouse-source", "test"),
        ("x-posthouse-type", "order.paid"),
        ("x-posthouse-id", "evt_1"),
        ("x-github-event", "issues"),
        ("content-type", "application/json; charset=utf-8"),
    ];
    assert_eq!(headers(&host), expected);
    let request = &host.fetched()[0];
    assert_eq!((&*request.method, &*request.url, &request.body), ("POST", URL, &body));
}

#[test]
fn a_form_is_sent_as_a_form_and_an_event_of_no_request_as_json() {
    let form = "application/x-www-form-urlencoded";
    let mut sent = host();
    let event = Event { original: Some(b"a=b".to_vec()), content_type: form.to_owned(), ..event() };
    sent.deliver::<Forward>(event.clone()).unwrap();
    assert_eq!(sent.fetched()[0].body, b"a=b");
    assert!(headers(&sent).contains(&("content-type", form)));
    let mut sent = host();
    sent.deliver::<Forward>(Event { original: None, content_type: String::new(), ..event }).unwrap();
    assert!(headers(&sent).contains(&("content-type", "application/json")));
}

#[test]
fn only_events_with_the_wanted_values_are_sent() {
    for (wanted, sent) in [
        (r#"{"/data/plan":"pro"}"#, true),
        (r#"{"/data/plan":"free"}"#, false),
        (r#"{"/data/plan":["free","pro"]}"#, true),
        (r#"{"/data/plan":"pro","/data/seats":3}"#, true),
        (r#"{"/data/seats":3.0}"#, true),
        (r#"{"/data/seats":"3"}"#, false),
        (r#"{"/data/plan":"pro","/data/seats":4}"#, false),
        (r#"{"/data/trial":false,"/type":"order.paid"}"#, true),
        (r#"{"/data/none":null}"#, false),
        ("{}", true),
    ] {
        let mut host = host().config("where", wanted);
        host.deliver::<Forward>(event()).unwrap();
        assert_eq!(host.fetched().len(), usize::from(sent), "{wanted}");
    }
    let mut odd = host().config("where", r#"{"data.plan":"pro"}"#);
    let failure = odd.deliver::<Forward>(event()).unwrap_err();
    assert!(
        matches!(&failure, Failure::Reject(reason) if reason.contains("is no JSON pointer")),
        "{failure:?}"
    );
}

#[test]
fn what_may_pass_is_tried_again_and_the_rest_is_a_dead_letter() {
    let answer = |status, headers: &[(&str, &str)]| {
        let header = |(name, value): &(&str, &str)| Header { name: (*name).into(), value: (*value).into() };
        Ok(Response { status, headers: headers.iter().map(header).collect(), body: Vec::new() })
    };
    let failure = |answer, retry_on: &str| {
        let mut host = host().config("retry_on", retry_on);
        host.answer_next(answer);
        host.deliver::<Forward>(event())
    };
    assert_eq!(failure(answer(204, &[]), "[]"), Ok(()));
    for status in [408, 425, 429, 500, 503] {
        assert!(matches!(failure(answer(status, &[]), "[]"), Err(Failure::Retry(_))), "{status}");
    }
    let busy = failure(answer(429, &[("retry-after", "30")]), "[]");
    assert!(matches!(busy, Err(Failure::RetryAfter(delay)) if delay.seconds == 30));
    for status in [301, 303, 400, 401, 404, 410, 422] {
        assert!(matches!(failure(answer(status, &[]), "[]"), Err(Failure::Reject(_))), "{status}");
    }
    assert!(matches!(failure(answer(404, &[]), "[404]"), Err(Failure::RetryAfter(_))));
    let late = Err(HttpError::Timeout("no whole response within 5 s".to_owned()));
    assert!(matches!(failure(late, "[]"), Err(Failure::Retry(_))));
}

#[test]
fn a_plugin_without_a_url_says_what_to_write() {
    let mut host = Host::new().grant(Capability::Http);
    let failure = host.deliver::<Forward>(event()).unwrap_err();
    assert!(
        matches!(&failure, Failure::Reject(reason) if reason.starts_with("`url` is missing")),
        "{failure:?}"
    );
}
