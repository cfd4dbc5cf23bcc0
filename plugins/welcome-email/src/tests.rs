//! Each promise of the header, on a host in memory.

use posthouse_sdk::testing::{self, Host};

use super::*;

const PAGE_USER: &str = r#"{
    "user": {"id": "usr_1", "email": "ada@example.com", "first_name": "Ada", "last_name": "Byron"},
    "organization": {"id": "org_1", "display_name": "Engines & Co"}
}"#;
const SIGNUP: &str = r#"{
    "user": {"id": "usr_1", "email": "ada@example.com", "user_profile": {"given_name": "Ada", "name": "Ada Byron"}},
    "organization": {"id": "org_1", "display_name": "Engines & Co"}
}"#;
const PAGE_MEMBERSHIP: &str =
    r#"{"membership": {"user_id": "usr_1", "organization_id": "org_1", "roles": ["member"]}}"#;

fn host() -> Host {
    Host::new().grant(Capability::Mail)
}

fn deliver(host: &mut Host, event_type: &str, data: &str) -> Result<(), Failure> {
    host.deliver::<WelcomeEmail>(testing::event(event_type, data))
}

fn subjects(host: &Host) -> Vec<&str> {
    host.mails().iter().map(|mail| mail.subject.as_str()).collect()
}

#[test]
fn a_user_is_welcomed_once_whatever_comes() {
    let mut host = host().config("product", "Analytical Engine");
    for event_type in ["user.created", "user.signup", "user.created"] {
        deliver(&mut host, event_type, if event_type == "user.signup" { SIGNUP } else { PAGE_USER }).unwrap();
    }
    assert_eq!(subjects(&host), ["Welcome to Analytical Engine"]);
    let mail = &host.mails()[0];
    assert_eq!((mail.to.as_slice(), mail.html.as_deref()), (&["ada@example.com".to_owned()][..], None));
    assert!(mail.text.starts_with("Hello Ada,"), "{}", mail.text);
    assert_eq!(host.keys(), ["user/usr_1", "welcomed/usr_1"]);
}

#[test]
fn the_defaults_need_no_configuration_and_no_name() {
    let mut host = host();
    deliver(&mut host, "user.signup", r#"{"user": {"id": "usr_2", "email": "b@example.com"}}"#).unwrap();
    let mail = &host.mails()[0];
    assert_eq!(mail.subject, "Welcome to our service");
    assert!(mail.text.starts_with("Hello there,") && mail.text.contains("b@example.com"), "{}", mail.text);
}

#[test]
fn a_user_without_an_address_is_refused_and_leaves_nothing() {
    let mut host = host();
    let failure =
        deliver(&mut host, "user.created", r#"{"user": {"id": "usr_1", "email": ""}}"#).unwrap_err();
    assert_eq!(
        failure,
        Failure::reject("`user.created` event `evt_1` is not usable: it has no `data.user.email`")
    );
    assert!(host.keys().is_empty() && host.mails().is_empty());
}

#[test]
fn each_organization_welcomes_once() {
    let mut host = host();
    let joined = |organization: &str| {
        format!(
            r#"{{"user": {{"id": "usr_1", "email": "ada@example.com"}},
                "organization": {{"id": "{organization}", "display_name": "The {organization}"}}}}"#
        )
    };
    for organization in ["org_1", "org_2", "org_1"] {
        deliver(&mut host, "user.organization_membership_created", &joined(organization)).unwrap();
    }
    assert_eq!(subjects(&host), ["Welcome to The org_1", "Welcome to The org_2"]);
}

#[test]
fn a_membership_without_an_address_waits_for_its_user() {
    let mut host = host();
    let failure = deliver(&mut host, "membership.created", PAGE_MEMBERSHIP).unwrap_err();
    assert!(matches!(&failure, Failure::Retry(reason) if reason.contains("`usr_1`")), "{failure:?}");
    deliver(&mut host, "user.created", PAGE_USER).unwrap();
    deliver(&mut host, "membership.created", PAGE_MEMBERSHIP).unwrap();
    assert_eq!(subjects(&host), ["Welcome to our service", "Welcome to your new organization"]);
    assert_eq!(host.mails()[1].to, ["ada@example.com"]);
    assert!(host.mails()[1].text.starts_with("Hello Ada,"));
}

#[test]
fn the_operator_says_what_is_written_and_values_cannot_break_out() {
    let mut host = host()
        .config("from", "Babbage <charles@example.com>")
        .config("reply_to", "help@example.com")
        .config("subject", "{name}, hello")
        .config("text", "{name} of {organization}")
        .config("html", "<style>p { color: red }</style><p>{name} of {organization}</p>");
    let data = r#"{"user": {"id": "usr_1", "email": "ada@example.com", "first_name": "<b>Ada</b>\r\nBcc: x@example.com"},
        "organization": {"id": "org_1", "display_name": "Engines & Co {email}"}}"#;
    deliver(&mut host, "user.created", data).unwrap();
    let mail = &host.mails()[0];
    assert_eq!(mail.from.as_deref(), Some("Babbage <charles@example.com>"));
    assert_eq!(mail.reply_to.as_deref(), Some("help@example.com"));
    assert_eq!(mail.subject, "<b>Ada</b>  Bcc: x@example.com, hello");
    assert!(mail.text.ends_with("of Engines & Co {email}"), "{}", mail.text);
    let html = mail.html.as_deref().unwrap();
    assert!(html.starts_with("<style>p { color: red }</style><p>&lt;b&gt;Ada"), "{html}");
    assert!(html.ends_with("Engines &amp; Co {email}</p>"), "{html}");
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let mut host = host().config("organization_html", "{nmae}");
    deliver(&mut host, "user.created", PAGE_USER).unwrap();
    let failure = deliver(&mut host, "membership.created", PAGE_MEMBERSHIP).unwrap_err();
    let Failure::Reject(reason) = failure else { panic!("{failure:?}") };
    assert!(reason.contains("`organization_html`") && reason.contains("{nmae}"), "{reason}");
    assert_eq!(host.mails().len(), 1);
}

#[test]
fn without_the_grant_nothing_is_remembered_as_sent() {
    let mut host = Host::new();
    let failure = deliver(&mut host, "user.created", PAGE_USER).unwrap_err();
    assert!(matches!(failure, Failure::Reject(_)));
    assert!(host.keys().is_empty());
}
