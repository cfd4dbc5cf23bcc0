//! Reads the question in a verified request of an interceptor: its trigger, and who asks from where.
//!
//! The id is that of the signed headers: the body has none. A sender's customer may reshape the body by a template, so
//! that a member may be absent, and no other than the trigger is needed.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use posthouse_model::{EventId, EventType, Question, SourceName, text_time};
use serde_json::error::Category;

use super::{InvalidPayload, envelope, members::Wanted};

/// The longest member that a guest gets apart from the body, in bytes.
const MAX_TEXT: usize = 255;

/// The places of a question's members. Of several, the first that has a value counts.
struct Places {
    wanted: Wanted,
    trigger: usize,
    environment: usize,
    user: [usize; 2],
    email: [usize; 2],
    organization: [usize; 3],
    client: [usize; 2],
    ip: usize,
    region: usize,
    triggered_at: usize,
    data: usize,
}

static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let mut wanted = Wanted::default();
    let mut at = |path: &str| wanted.add(&path.split('/').map(str::to_owned).collect::<Vec<_>>());
    let trigger = at("trigger_point");
    let environment = at("interceptor_context/environment_id");
    let user = [at("interceptor_context/user_id"), at("data/user/id")];
    let email = [at("interceptor_context/user_email"), at("data/user/email")];
    let organization = [
        at("interceptor_context/organization_id"),
        at("data/organization/id"),
        at("data/m2m_token_claims/claims/oid"),
    ];
    let client = [at("interceptor_context/client_id"), at("data/m2m_token_claims/client_id")];
    let ip = at("interceptor_context/ip_address");
    let region = at("interceptor_context/region");
    let triggered_at = at("interceptor_context/triggered_at");
    let data = at("data");
    Places { wanted, trigger, environment, user, email, organization, client, ip, region, triggered_at, data }
});

/// Reads a body whose signature is valid. `headers` are those of its one family.
///
/// # Errors
/// [`InvalidPayload`] says what is missing or wrong.
pub(super) fn read(
    source: &SourceName,
    headers: &HeaderMap,
    body: &Bytes,
    received_at: Timestamp,
) -> Result<Question, InvalidPayload> {
    let id = headers.get("interceptor-id").or_else(|| headers.get("webhook-id"));
    let id = id.and_then(|id| id.to_str().ok()).ok_or(InvalidPayload::Missing("id"))?;
    let id = EventId::new(id).map_err(|_| InvalidPayload::BadId)?;
    let text = envelope::text(body)?;
    let places = &*PLACES;
    let found = places.wanted.read(text).map_err(|error| match error.classify() {
        Category::Data => InvalidPayload::NotAnObject,
        _ => InvalidPayload::NotJson { line: error.line(), column: error.column() },
    })?;
    if let Some(name) = &found.repeated {
        return Err(InvalidPayload::Repeated(name.clone()));
    }
    if !text.trim_ascii_start().starts_with('{') {
        return Err(InvalidPayload::NotAnObject);
    }
    let trigger = found.text(places.trigger).ok_or(InvalidPayload::Missing("trigger_point"))?;
    let trigger = EventType::new(&trigger).map_err(|_| InvalidPayload::BadType)?;
    let first = |numbers: &[usize]| -> Option<Arc<str>> {
        let value = numbers.iter().find_map(|number| found.text(*number))?;
        (value.len() <= MAX_TEXT && !value.chars().any(char::is_control)).then(|| Arc::from(&*value))
    };
    let data = found.json(places.data).map(|data| envelope::range_within(text, data));
    Ok(Question {
        source: source.clone(),
        id,
        trigger,
        environment: first(&[places.environment]),
        user: first(&places.user),
        email: first(&places.email),
        organization: first(&places.organization),
        client: first(&places.client),
        ip: first(&[places.ip]),
        region: first(&[places.region]),
        triggered_at: found.text(places.triggered_at).and_then(|time| text_time(&time)),
        received_at,
        body: body.clone(),
        data: data.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(body: &str) -> Result<Question, InvalidPayload> {
        let mut headers = HeaderMap::new();
        headers.insert("interceptor-id", http::HeaderValue::from_static("req_1"));
        let source = SourceName::new("interceptor:signup").unwrap();
        read(&source, &headers, &Bytes::copy_from_slice(body.as_bytes()), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn each_trigger_names_what_it_is_about() {
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let samples = posthouse_model::interceptor_samples(at).unwrap();
        assert_eq!(samples.len(), 4);
        for (trigger, body) in &samples {
            let question = question(&body.to_string()).unwrap();
            assert_eq!(question.trigger.as_str(), trigger);
            assert!(question.environment.is_some() && question.triggered_at == Some(at), "{question:?}");
            let machine = trigger == "PRE_M2M_TOKEN_CREATION";
            assert_eq!(question.email.is_some(), !machine, "{question:?}");
            assert_eq!(question.client.is_some(), machine, "{question:?}");
            assert_eq!(question.organization.is_some(), trigger != "PRE_SIGNUP", "{question:?}");
            let data = question.event();
            assert_eq!(serde_json::from_str::<serde_json::Value>(data.data()).unwrap(), body["data"]);
        }
    }

    #[test]
    fn only_the_trigger_is_needed_and_odd_values_are_left_out() {
        let bare =
            question(r#"{"trigger_point":"POST_LOGIN","interceptor_context":[],"data":null}"#).unwrap();
        assert_eq!((bare.trigger.as_str(), bare.user, bare.triggered_at), ("POST_LOGIN", None, None));
        let long = format!(
            r#"{{"trigger_point":"X","interceptor_context":{{"user_id":"{}","region":"a\nb","ip_address":17}}}}"#,
            "u".repeat(256)
        );
        let long = question(&long).unwrap();
        assert_eq!((long.user, long.region, long.ip.as_deref()), (None, None, Some("17")));
    }

    #[test]
    fn what_is_no_question_says_why() {
        for (body, label) in [
            ("", "body-not-json"),
            ("[]", "body-not-object"),
            (r#"{"data":{}}"#, "member-missing"),
            (r#"{"trigger_point":"PRE SIGNUP"}"#, "bad-event-type"),
            (r#"{"trigger_point":"A","trigger_point":"B"}"#, "member-repeated"),
        ] {
            assert_eq!(question(body).unwrap_err().label(), label, "{body}");
        }
    }
}
