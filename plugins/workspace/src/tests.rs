//! Each promise of the module's header, on an in-memory host.

use posthouse_sdk::testing::{self, Host, RECEIVED_AT};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn host() -> Host {
    Host::new().grant(Capability::Sql).config("settings", r#"{"plan": "trial", "seats": 5}"#)
}

/// An event about an organization, `seconds` after the first, in the format of the page.
fn page(event_type: &str, seconds: u64, name: &str) -> Event {
    let data =
        format!(r#"{{"organization": {{"id": "org_1", "display_name": "{name}", "external_id": "ext_1"}}}}"#);
    at(seconds, testing::event(event_type, &data))
}

/// The same about another organization, in the format of real senders.
fn real(event_type: &str, seconds: u64) -> Event {
    let data = r#"{"create_time": "2025-12-09T09:25:02.02Z", "display_name": "AcmeCorp", "external_id": null,
        "id": "org_2", "metadata": null, "region_code": "US", "update_time": "2025-12-09T09:25:02.025330364Z",
        "settings": {"features": [{"enabled": true, "name": "sso"}]}}"#;
    at(seconds, testing::event(event_type, data))
}

fn at(seconds: u64, mut event: Event) -> Event {
    event.occurred_at = Some(RECEIVED_AT + seconds * SECOND);
    event
}

fn workspaces(host: &Host) -> Vec<String> {
    host.rows(
        "SELECT organization_id, name, external_id, region_code, deleted_at IS NOT NULL FROM workspaces \
         ORDER BY organization_id",
    )
}

#[test]
fn organizations_of_both_shapes_get_a_workspace_with_settings() {
    let mut host = host();
    host.deliver::<Workspace>(page("organization.created", 0, "Example Corp")).unwrap();
    host.deliver::<Workspace>(real("organization.created", 0)).unwrap();
    assert_eq!(workspaces(&host), ["org_1|Example Corp|ext_1|NULL|0", "org_2|AcmeCorp|NULL|US|0"]);
    let settings =
        host.rows("SELECT * FROM workspace_settings WHERE organization_id = 'org_2' ORDER BY name");
    assert_eq!(settings, ["org_2|plan|trial", "org_2|seats|5"]);
    assert!(host.mails().is_empty() && host.requests().is_empty());
}

#[test]
fn the_newest_event_holds_in_whatever_order_they_come() {
    let (created, renamed, deleted) = (
        page("organization.created", 0, "First"),
        page("organization.updated", 10, "Second"),
        page("organization.deleted", 20, "Second"),
    );
    for order in [
        [&created, &renamed, &deleted],
        [&created, &deleted, &renamed],
        [&renamed, &created, &deleted],
        [&renamed, &deleted, &created],
        [&deleted, &created, &renamed],
        [&deleted, &renamed, &created],
    ] {
        let mut host = host();
        for event in order.into_iter().chain(order) {
            host.deliver::<Workspace>(event.clone()).unwrap();
        }
        assert_eq!(workspaces(&host), ["org_1|Second|ext_1|NULL|1"], "{order:?}");
    }
}

#[test]
fn the_team_is_told_of_a_new_workspace_once() {
    let mut host =
        host().grant(Capability::Mail).config("notify", r#"["team@example.com", "boss@example.com"]"#);
    for event in [
        page("organization.updated", 10, "Example\\nCorp"),
        page("organization.created", 0, "Example"),
        page("organization.updated", 10, "Example\\nCorp"),
        page("organization.updated", 20, "Example"),
    ] {
        host.deliver::<Workspace>(event).unwrap();
    }
    let [mail] = host.mails() else { panic!("{:?}", host.mails()) };
    assert_eq!(mail.to, ["team@example.com", "boss@example.com"]);
    assert_eq!(mail.subject, "New workspace: Example Corp");
    assert_eq!(mail.text, "Example Corp has a workspace now.\n\nOrganization: org_1\nExternal id: ext_1\n");
    // Deleted and created again: new once more.
    host.deliver::<Workspace>(page("organization.deleted", 30, "Example")).unwrap();
    host.deliver::<Workspace>(page("organization.created", 40, "Example")).unwrap();
    assert_eq!(host.mails().len(), 2);
}

#[test]
fn provisioning_is_asked_for_with_each_change() {
    let mut host =
        host().grant(Capability::Http).config("provision_url", "https://provision.example.com/v1/");
    for event in [
        page("organization.created", 0, "Example"),
        page("organization.updated", 10, "Examples"),
        page("organization.updated", 5, "Old"),
        page("organization.deleted", 20, "Examples"),
    ] {
        host.deliver::<Workspace>(event).unwrap();
    }
    let made: Vec<_> = host.requests().iter().map(|made| (&*made.method, &*made.url)).collect();
    let url = "https://provision.example.com/v1/org_1";
    assert_eq!(made, [("PUT", url), ("PUT", url), ("DELETE", url)]);
    let body: serde_json::Value = serde_json::from_slice(&host.requests()[1].body).unwrap();
    assert_eq!(body["name"], "Examples");
    assert_eq!(body["version"], page("organization.updated", 10, "").version());
}

#[test]
fn a_mail_that_is_not_granted_leaves_no_workspace() {
    let mut host = host().config("notify", "team@example.com");
    let failure = host.deliver::<Workspace>(page("organization.created", 0, "Example")).unwrap_err();
    assert!(matches!(&failure, Failure::Reject(reason) if reason.contains("mail =")), "{failure:?}");
    assert!(host.rows("SELECT name FROM sqlite_schema").is_empty());
}
