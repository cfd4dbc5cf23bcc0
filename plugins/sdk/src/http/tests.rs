//! Immediate requests, staged requests, and events, on an in-memory host.

use serde_json::json;

use super::*;
use crate::{
    Capability, Delivery, Event, Failure, Manifest, Plugin,
    outbox::{Derived, if_granted},
    testing::{self, Header, Host},
};

const URL: &str = "https://api.example.com/v1/accounts";

/// Fetches, then stages a request that contains the answer, and an event.
struct Accounts;

impl Plugin for Accounts {
    fn manifest() -> Manifest {
        Manifest::new("a test").requires(Capability::Http)
    }
    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let request = Request::post(URL).header("X-Event", &event.id).json(&json!({"a": 1}))?;
        let answer: serde_json::Value = request.fetch()?.success()?.json()?;
        Request::put(format!("{URL}/later")).json(&answer)?.send_later()?;
        if_granted(Derived::new("account.opened", &answer)?.organization("org_1").emit())?;
        if event.event_type == "fails.late" { Err(Failure::retry("late")) } else { Ok(()) }
    }
}

fn host() -> Host {
    Host::new().grant(Capability::Http)
}

#[test]
fn a_request_is_made_and_its_answer_read() {
    let mut host = host().grant(Capability::Emit).answer(201, r#"{"id": "acc_1"}"#);
    host.deliver::<Accounts>(testing::event("a.b", "{}")).unwrap();
    let [request] = host.fetched() else { panic!("{:?}", host.fetched()) };
    assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", URL));
    let headers: Vec<_> = request.headers.iter().map(|header| (&*header.name, &*header.value)).collect();
    assert_eq!(headers, [("X-Event", "evt_1"), ("content-type", "application/json")]);
    assert_eq!(request.body, br#"{"a":1}"#);
    assert_eq!(host.requests()[0].body, br#"{"id":"acc_1"}"#);
    let [event] = host.emitted() else { panic!("{:?}", host.emitted()) };
    assert_eq!((&*event.event_type, event.organization_id.as_deref()), ("account.opened", Some("org_1")));
    assert_eq!(event.data, r#"{"id":"acc_1"}"#);
}

#[test]
fn a_failed_attempt_has_made_its_requests_and_staged_nothing() {
    let mut host = host();
    host.deliver::<Accounts>(testing::event("fails.late", "{}")).unwrap_err();
    assert_eq!((host.fetched().len(), host.requests().len()), (1, 0));
}

#[test]
fn what_the_plugin_can_do_without_is_left_out_where_it_is_not_granted() {
    let mut host = host();
    host.deliver::<Accounts>(testing::event("a.b", "{}")).unwrap();
    assert!(host.emitted().is_empty());
    let failure = Host::new().deliver::<Accounts>(testing::event("a.b", "{}")).unwrap_err();
    assert!(matches!(&failure, Failure::Reject(reason) if reason.contains("http =")), "{failure:?}");
}

#[test]
fn answers_that_are_of_no_use_say_which_request_they_were_to() {
    let mut host = host().answer(404, "").answer(200, "<html>");
    host.answer_next(Ok(testing::Response {
        status: 429,
        headers: vec![Header { name: "Retry-After".to_owned(), value: "30".to_owned() }],
        body: Vec::new(),
    }));
    host.answer_next(Err(testing::HttpError::Timeout("no whole response within 5 s".to_owned())));
    let mut next = || host.deliver::<Accounts>(testing::event("a.b", "{}")).unwrap_err();
    let to = format!("the response to `POST {URL}` is");
    assert_eq!(next(), Failure::reject(format!("{to} 404")));
    assert!(
        matches!(next(), Failure::Retry(reason) if reason.starts_with(&format!("{to} not the expected JSON: ")))
    );
    assert_eq!(next(), Failure::retry_after(format!("{to} 429"), 30));
    assert_eq!(next(), Failure::retry("no whole response within 5 s"));
}

#[test]
fn a_text_from_outside_stays_one_segment_of_a_path() {
    for (text, wanted) in [
        ("org_1", "org_1"),
        ("a.b~c-D", "a.b~c-D"),
        ("../admin?x#y", "..%2Fadmin%3Fx%23y"),
        ("..", "%252E%252E"),
        ("ä %", "%C3%A4%20%25"),
    ] {
        assert_eq!(segment(text), wanted);
    }
}
