//! Every type of event, in its sender's format, read by every accessor. The accessors that fit return the data of the
//! event; the others name the missing member.

use super::*;
use crate::testing;

const USER: &str = r#"{
    "id": "usr_7", "email": "ada@example.com", "external_id": "", "create_time": "2026-01-01T00:00:00Z",
    "metadata": {}, "user_profile": {"given_name": "Ada", "family_name": "Byron", "name": "Ada Byron",
    "email_verified": true, "groups": null, "gender": ""}
}"#;
const ORGANIZATION: &str = r#"{"id": "org_3", "display_name": "Engines", "external_id": null, "region_code": "EU", "settings": {"features": []}}"#;
const DOMAIN: &str = r#"{"id": "dom_5", "domain": "example.com", "organization_id": "org_3",
    "domain_type": "ORGANIZATION_DOMAIN", "verification_status": "PENDING", "verification_method": "DNS"}"#;
const DIRECTORY: &str = r#"{"id": "dir_6", "organization_id": "org_3", "provider": "OKTA", "directory_type": "SCIM",
    "enabled": true}"#;
const DIRECTORY_USER: &str = r#"{"id": "diruser_8", "organization_id": "org_3", "dp_id": "x-1", "active": true,
    "email": "ada@example.com", "given_name": "Ada", "family_name": "Byron", "name": "Ada Byron", "organization": "Engines",
    "preferred_username": "ada", "title": "Analyst", "department": "Mathematics",
    "groups": [{"id": "dirgroup_9", "name": "Staff"}], "roles": [{"role_name": "admin"}]}"#;
const DIRECTORY_GROUP: &str = r#"{"id": "dirgroup_9", "organization_id": "org_3", "directory_id": "dir_6",
    "dp_id": "x-2", "display_name": "Staff", "external_id": null, "raw_attributes": {}}"#;
const CONNECTION: &str = r#"{"id": "conn_4", "organization_id": "org_3", "connection_type": "OIDC", "provider": "OKTA",
    "enabled": true, "status": "COMPLETED"}"#;
const ROLE: &str = r#"{"id": "role_2", "name": "viewer", "display_name": "Viewer", "description": "Looks",
    "extends": "member"}"#;
const PERMISSION: &str = r#"{"id": "perm_1", "name": "data:read", "description": "Reads"}"#;
const ACCOUNT: &str = r#"{"id": "ca_9", "identifier": "ada", "connection_id": "conn_4", "provider": "GMAIL",
    "authorization_type": "OAUTH", "status": "EXPIRED", "old_status": "ACTIVE",
    "token_expires_at": "2026-01-01T00:00:00Z"}"#;
const LOGIN: &str = r#""user_session": {"session_id": "ses_4", "user_id": "usr_7", "organization_id": "org_3",
    "status": "ACTIVE", "logout_at": null, "device": {"ip": "192.0.2.1", "user_agent": "Browser/1",
    "location": {"city": "London", "region": "GB", "latitude": "51.5"}}}"#;
const SESSION: &str = r#"{"id": "ses_4", "user_id": "usr_7", "organization_id": "org_3", "ip_address": "192.0.2.1",
    "auth_method": "password", "location": "London, GB"}"#;
const MEMBERSHIP: &str =
    r#"{"id": "mem_1", "user_id": "usr_7", "organization_id": "org_3", "roles": ["admin", "viewer"]}"#;
const PAGE_USER: &str = r#"{"id": "usr_7", "email": "ada@example.com", "first_name": "Ada", "last_name": "Byron",
    "email_verified": true}"#;

/// Each type, its `data`, and the accessors that fit.
fn shapes() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let member = format!(r#"{{"user": {USER}, "organization": {ORGANIZATION}}}"#);
    let login = format!(r#"{{"user": {USER}, {LOGIN}}}"#);
    let page_user = format!(r#"{{"user": {PAGE_USER}, "organization": {ORGANIZATION}}}"#);
    let page_organization = format!(r#"{{"organization": {ORGANIZATION}}}"#);
    let page_session = format!(r#"{{"session": {SESSION}}}"#);
    let page_membership = format!(r#"{{"membership": {MEMBERSHIP}}}"#);
    let people = ["membership", "organization", "user"];
    let mut shapes = Vec::new();
    let mut add = |types: &[&'static str], data: &str, fits: &[&'static str]| {
        shapes.extend(types.iter().map(|name| (*name, data.to_owned(), fits.to_vec())));
    };
    // The 41 of the sender's description.
    add(
        &["organization.created", "organization.updated", "organization.deleted"],
        ORGANIZATION,
        &["organization"],
    );
    add(
        &[
            "organization.domain_created",
            "organization.domain_deleted",
            "organization.domain_dns_verification_success",
            "organization.domain_dns_verification_failed",
        ],
        DOMAIN,
        &["domain"],
    );
    add(&["user.signup", "user.organization_invitation"], &member, &people);
    add(
        &[
            "user.organization_membership_created",
            "user.organization_membership_updated",
            "user.organization_membership_deleted",
        ],
        &member,
        &people,
    );
    add(&["user.login", "user.logout"], &login, &["session", "user"]);
    add(&["organization.directory_enabled", "organization.directory_disabled"], DIRECTORY, &["directory"]);
    add(
        &[
            "organization.directory.user_created",
            "organization.directory.user_updated",
            "organization.directory.user_deleted",
        ],
        DIRECTORY_USER,
        &["directory_user"],
    );
    add(
        &[
            "organization.directory.group_created",
            "organization.directory.group_updated",
            "organization.directory.group_deleted",
        ],
        DIRECTORY_GROUP,
        &["directory_group"],
    );
    add(
        &[
            "organization.sso_created",
            "organization.sso_enabled",
            "organization.sso_disabled",
            "organization.sso_deleted",
        ],
        CONNECTION,
        &["connection"],
    );
    add(&["role.created", "role.updated", "role.deleted"], ROLE, &["role"]);
    add(&["permission.created", "permission.updated", "permission.deleted"], PERMISSION, &["permission"]);
    add(
        &[
            "connected_account.created",
            "connected_account.updated",
            "connected_account.status_updated",
            "connected_account.deleted",
            "connected_account.magic_link_generated",
            "connected_account.oauth_tokens_fetched",
            "connected_account.token_refresh_succeeded",
            "connected_account.token_refresh_failed",
            "connected_account.oauth_succeeded",
        ],
        ACCOUNT,
        &["connected_account"],
    );
    // The ten of the page, which wraps what they are about.
    add(&["user.created", "user.updated", "user.deleted"], &page_user, &["organization", "user"]);
    add(&["organization.created", "organization.updated"], &page_organization, &["organization"]);
    add(&["session.created", "session.expired"], &page_session, &["session"]);
    add(
        &["membership.created", "membership.updated", "membership.deleted"],
        &page_membership,
        &["membership"],
    );
    shapes
}

/// The result of each accessor, by its name; those that fit first.
fn read(event: &Event) -> (Vec<&'static str>, Vec<Malformed>) {
    let mut fits = Vec::new();
    let mut errors = Vec::new();
    let mut note = |name, result: Result<(), Malformed>| match result {
        Ok(()) => fits.push(name),
        Err(error) => errors.push(error),
    };
    note("connected_account", event.connected_account().map(|account| assert_eq!(account, whole::account())));
    note("connection", event.connection().map(|connection| assert_eq!(connection, whole::connection())));
    note("directory", event.directory().map(|directory| assert_eq!(directory, whole::directory())));
    note("directory_group", event.directory_group().map(|group| assert_eq!(group, whole::group())));
    note("directory_user", event.directory_user().map(|user| assert_eq!(user, whole::directory_user())));
    note("domain", event.domain().map(|domain| assert_eq!(domain, whole::domain())));
    note("membership", event.membership().map(|membership| whole::check_membership(event, membership)));
    note("organization", event.organization().map(|found| assert_eq!(found, whole::organization())));
    note("permission", event.permission().map(|permission| assert_eq!(permission, whole::permission())));
    note("role", event.role().map(|role| assert_eq!(role, whole::role())));
    note("session", event.session().map(|session| whole::check_session(event, session)));
    note("user", event.user().map(|user| whole::check_user(event, user)));
    (fits, errors)
}

#[test]
fn every_type_is_read_by_the_accessors_that_fit_and_by_no_other() {
    let shapes = shapes();
    assert_eq!(shapes.len(), 41 + 10);
    for (event_type, data, fitting) in shapes {
        let (fits, errors) = read(&testing::event(event_type, &data));
        assert_eq!(fits, fitting, "{event_type}");
        for error in errors {
            let message = error.to_string();
            let start = format!("`{event_type}` event `evt_1` is not usable: it has no `data.");
            assert!(message.starts_with(&start), "{message}");
        }
    }
}

#[test]
fn data_that_is_nothing_of_the_kind_is_an_error_and_no_panic() {
    for data in [
        "null",
        "[]",
        "1",
        r#""user""#,
        "{}",
        r#"{"user": []}"#,
        r#"{"user": null, "organization": "x"}"#,
        "no JSON",
        "",
    ] {
        for (event_type, _, _) in shapes() {
            let (fits, errors) = read(&testing::event(event_type, data));
            assert!(fits.is_empty() && errors.len() == 12, "{event_type} {data}: {fits:?}");
        }
    }
}

#[test]
fn an_error_says_where_the_missing_member_should_be() {
    for (event_type, data, member) in [
        ("user.created", r#"{"user": {"email": "a@example.com"}}"#, "data.user.id"),
        ("user.created", "{}", "data.id"),
        ("role.created", r#"{"name": "x"}"#, "data.id"),
        ("session.created", r#"{"session": {"id": "ses_1"}}"#, "data.session.user_id"),
        ("membership.created", r#"{"membership": {"user_id": "usr_1"}}"#, "data.membership.organization_id"),
    ] {
        let event = testing::event(event_type, data);
        let errors = read(&event).1;
        assert!(errors.contains(&event.missing(member)), "{event_type}: {errors:?}");
        assert!(matches!(Failure::from(event.missing(member)), Failure::Reject(_)));
    }
}

#[test]
fn data_may_be_the_thing_itself() {
    let user = testing::event("user.updated", PAGE_USER).user().unwrap();
    assert_eq!(user.email.as_deref(), Some("ada@example.com"));
    let session = testing::event("session.expired", SESSION).session().unwrap();
    assert_eq!(session.id, "ses_4");
    let membership = testing::event("membership.deleted", MEMBERSHIP).membership().unwrap();
    assert_eq!(membership.roles, ["admin", "viewer"]);
}

#[test]
fn a_membership_knows_its_user_from_beside_it_and_its_organization_from_the_envelope() {
    let data = format!(r#"{{"membership": {{"roles": [{{"name": "admin"}}]}}, "user": {USER}}}"#);
    let mut event = testing::event("membership.created", &data);
    event.organization_id = Some("org_3".to_owned());
    let membership = event.membership().unwrap();
    assert_eq!((membership.user_id.as_str(), membership.organization_id.as_str()), ("usr_7", "org_3"));
    assert_eq!(membership.user.unwrap().email.as_deref(), Some("ada@example.com"));
    assert_eq!(membership.roles, ["admin"]);
}

/// Members that JSON allows and Rust's types do not.
fn odd() -> Vec<String> {
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    [
        r#""x": "\ud800""#,
        r#""x": {"y": ["\udc00\ud800"]}"#,
        r#""\ud800": 1"#,
        r#""\udfff": {"\ud800": "\ud800"}"#,
        r#""x": 1e400"#,
        r#""x": [-1e999999999999, 0.1e-999999999]"#,
        r#""x": 123456789012345678901234567890"#,
        r#""": null, "": 1"#,
        r#""x": 1, "x": 2"#,
        r#""x\u0000": "\u0000""#,
        r#""__proto__": {"id": "x"}"#,
        &format!(r#""x": {deep}"#),
        &format!(r#""metadata": {{"a": {deep}}}"#),
    ]
    .map(str::to_owned)
    .into()
}

#[test]
fn an_odd_member_that_nobody_reads_changes_nothing() {
    for odd in odd() {
        for (event_type, data, fitting) in shapes() {
            let data = format!("{{{odd}, {}", data.trim_start_matches('{'));
            let (fits, _) = read(&testing::event(event_type, &data));
            assert_eq!(fits, fitting, "{event_type} {}", &odd[..odd.len().min(60)]);
        }
        let data = format!(
            r#"{{{odd}, "id": "usr_1", "user": {{{odd}, "id": "usr_7", "user_profile": {{{odd}}}}}}}"#
        );
        let event = testing::event("user.created", &data);
        assert_eq!(event.user().unwrap().id, "usr_7");
        #[derive(serde::Deserialize)]
        struct Own {
            id: String,
        }
        assert_eq!(event.json::<Own>().unwrap().id, "usr_1");
    }
}

#[test]
fn of_an_odd_member_that_is_read_each_part_has_its_meaning() {
    let user =
        |members: &str| testing::event("user.created", &format!(r#"{{"user": {{{members}}}}}"#)).user();
    for (id, text) in [
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("18446744073709551617", "18446744073709551617"),
        ("9007199254740993", "9007199254740993"),
        ("0.10", "0.10"),
        ("-0", "-0"),
        ("1e2", "1e2"),
        ("1e400", "1e400"),
        (r#""1", "id": 2"#, "2"),
        (r#""1", "\u0069d": "3""#, "3"),
        (r#""\ud83d\ude80""#, "🚀"),
    ] {
        assert_eq!(user(&format!(r#""id": {id}"#)).unwrap().id, text, "{id}");
    }
    for id in [r#""\ud800""#, r#""usr\udc00""#, r#""usr\u0000""#] {
        let error = user(&format!(r#""id": {id}"#)).unwrap_err().to_string();
        assert!(error.contains("its `data.user.id` contains U+0000 or half of a surrogate pair"), "{error}");
    }
    let named = user(r#""id": 1, "first_name": "A\ud800a", "last_name": "B\u0000b", "email_verified": true, "email_verified": false"#).unwrap();
    assert_eq!(named.display_name().as_deref(), Some("A\u{fffd}a B\u{fffd}b"));
    assert_eq!(named.email_verified, Some(false));

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Own {
        n: u64,
        text: String,
    }
    let own = |data: &str| testing::event("user.created", data).json::<Own>();
    let read = own(r#"{"n": 1, "text": "\ud800", "\udc00": 1e400, "n": 2}"#).unwrap();
    assert_eq!(read, Own { n: 2, text: "\u{fffd}".to_owned() });
    for data in
        [r#"{"n": 1e2, "text": ""}"#, r#"{"n": 18446744073709551616, "text": ""}"#, r#"{"n": 1, "text": 1}"#]
    {
        assert!(own(data).unwrap_err().to_string().contains("`data`: invalid type"), "{data}");
    }
}

#[test]
fn odd_members_are_none() {
    let data = r#"{"user": {"id": 7, "email": ["x"], "first_name": "", "last_name": null, "email_verified": "yes"}}"#;
    let user = testing::event("user.created", data).user().unwrap();
    assert_eq!(user, User { id: "7".to_owned(), ..User::default() });
    assert_eq!(user.display_name(), None);
}

#[test]
fn a_newer_event_has_a_greater_version_and_at_one_time_what_is_deleted_is_newest() {
    let version = |event_type: &str, at: Timestamp| {
        let mut event = testing::event(event_type, "{}");
        event.occurred_at = Some(at);
        event.version()
    };
    let now = testing::RECEIVED_AT;
    for (older, newer) in [
        (("user.deleted", now), ("user.created", now + 1000)),
        (("user.created", now), ("user.updated", now)),
        (("organization.directory.user_updated", now), ("organization.directory.user_deleted", now)),
        (("user.organization_membership_created", now), ("user.organization_membership_updated", now)),
        (("user.created", 0), ("user.deleted", u64::MAX)),
    ] {
        assert!(version(older.0, older.1) < version(newer.0, newer.1), "{older:?} {newer:?}");
    }
    assert_eq!(version("user.created", now), version("user.created", now));
    assert_eq!(version("user.created", now), version("user.signup", now));
}

#[test]
fn time_is_the_senders_word_or_else_ours() {
    let mut event = testing::event("user.created", "{}");
    assert_eq!(event.time(), testing::RECEIVED_AT);
    event.occurred_at = Some(1);
    assert_eq!(event.time(), 1);
}

/// The contents of the shapes above.
mod whole {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    pub(super) fn check_user(event: &Event, user: User) {
        let from_page = ["user.created", "user.updated", "user.deleted"].contains(&event.event_type.as_str());
        assert_eq!(
            user,
            User {
                id: "usr_7".to_owned(),
                external_id: None,
                email: some("ada@example.com"),
                email_verified: Some(true),
                first_name: some("Ada"),
                last_name: some("Byron"),
                name: if from_page { None } else { some("Ada Byron") },
            }
        );
        assert_eq!(user.display_name(), some("Ada Byron"));
    }

    pub(super) fn organization() -> Organization {
        Organization {
            id: "org_3".to_owned(),
            external_id: None,
            display_name: some("Engines"),
            region_code: some("EU"),
        }
    }

    pub(super) fn check_membership(event: &Event, membership: Membership) {
        assert_eq!((membership.user_id.as_str(), membership.organization_id.as_str()), ("usr_7", "org_3"));
        if event.event_type.starts_with("membership.") {
            assert_eq!(membership.id, some("mem_1"));
            assert_eq!(membership.roles, ["admin", "viewer"]);
            assert_eq!((membership.user, membership.organization), (None, None));
        } else {
            check_user(event, membership.user.unwrap());
            assert_eq!(membership.organization, Some(organization()));
        }
    }

    pub(super) fn check_session(event: &Event, session: Session) {
        assert_eq!((session.id.as_str(), session.user_id.as_str()), ("ses_4", "usr_7"));
        assert_eq!(session.organization_id, some("org_3"));
        assert_eq!(session.ip, some("192.0.2.1"));
        assert_eq!(session.location, some("London, GB"));
        if event.event_type.starts_with("session.") {
            assert_eq!((session.auth_method, session.user), (some("password"), None));
        } else {
            assert_eq!((session.user_agent, session.status), (some("Browser/1"), some("ACTIVE")));
            check_user(event, session.user.unwrap());
        }
    }

    pub(super) fn directory() -> Directory {
        Directory {
            id: "dir_6".to_owned(),
            organization_id: some("org_3"),
            provider: some("OKTA"),
            directory_type: some("SCIM"),
            enabled: Some(true),
        }
    }

    pub(super) fn directory_user() -> DirectoryUser {
        DirectoryUser {
            id: "diruser_8".to_owned(),
            organization_id: some("org_3"),
            directory_provider_id: some("x-1"),
            email: some("ada@example.com"),
            first_name: some("Ada"),
            last_name: some("Byron"),
            name: some("Ada Byron"),
            preferred_username: some("ada"),
            active: Some(true),
            title: some("Analyst"),
            department: some("Mathematics"),
            groups: vec!["Staff".to_owned()],
            roles: vec!["admin".to_owned()],
        }
    }

    pub(super) fn group() -> DirectoryGroup {
        DirectoryGroup {
            id: "dirgroup_9".to_owned(),
            organization_id: some("org_3"),
            directory_id: some("dir_6"),
            directory_provider_id: some("x-2"),
            external_id: None,
            display_name: some("Staff"),
        }
    }

    pub(super) fn connection() -> Connection {
        Connection {
            id: "conn_4".to_owned(),
            organization_id: some("org_3"),
            connection_type: some("OIDC"),
            provider: some("OKTA"),
            enabled: Some(true),
            status: some("COMPLETED"),
        }
    }

    pub(super) fn domain() -> Domain {
        Domain {
            id: "dom_5".to_owned(),
            organization_id: some("org_3"),
            domain: some("example.com"),
            domain_type: some("ORGANIZATION_DOMAIN"),
            verification_status: some("PENDING"),
            verification_method: some("DNS"),
        }
    }

    pub(super) fn role() -> Role {
        Role {
            id: "role_2".to_owned(),
            name: some("viewer"),
            display_name: some("Viewer"),
            description: some("Looks"),
            extends: some("member"),
        }
    }

    pub(super) fn permission() -> Permission {
        Permission { id: "perm_1".to_owned(), name: some("data:read"), description: some("Reads") }
    }

    pub(super) fn account() -> ConnectedAccount {
        ConnectedAccount {
            id: "ca_9".to_owned(),
            identifier: some("ada"),
            connection_id: some("conn_4"),
            provider: some("GMAIL"),
            authorization_type: some("OAUTH"),
            status: some("EXPIRED"),
            old_status: some("ACTIVE"),
            token_expires_at: some("2026-01-01T00:00:00Z"),
        }
    }
}
