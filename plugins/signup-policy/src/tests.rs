//! Each promise of the header, on a host in memory.

use posthouse_sdk::{
    Capability, Manifest,
    decide::{Decision, Interceptor, Organization, Request, Unsure},
    sql,
    testing::{Host, question},
};

use crate::policy::SignupPolicy;

/// Runs a statement in the plugin's database.
struct Fill;

impl Interceptor for Fill {
    fn manifest() -> Manifest {
        Manifest::new("fills")
    }

    fn decide(request: Request) -> Result<Decision, Unsure> {
        for statement in request.data.split(';') {
            sql::execute(statement, &[])?;
        }
        Ok(Decision::allow())
    }
}

fn fill(host: &mut Host, statements: &str) {
    let request = Request { data: statements.to_owned(), ..question("FILL", None) };
    host.decide::<Fill>(request).unwrap();
}

/// A host whose tables let example.com into `org_1`, which has two seats.
fn host() -> Host {
    let mut host = Host::new().grant(Capability::Sql);
    // The plugin makes its tables.
    ask(&mut host, "req_0", "eve@nowhere.example");
    fill(
        &mut host,
        "INSERT INTO signup_domains VALUES ('example.com', 'org_1', 0, '[\"member\",\"viewer\"]'); \
         INSERT INTO signup_domains VALUES ('acme.example', 'acme', 1, '[]'); \
         INSERT INTO signup_seats (organization_id, seats) VALUES ('org_1', 2)",
    );
    host
}

fn ask(host: &mut Host, id: &str, email: &str) -> Decision {
    let request = Request { id: id.to_owned(), ..question("PRE_SIGNUP", Some(email)) };
    host.decide::<SignupPolicy>(request).unwrap()
}

fn member() -> Decision {
    let roles = vec!["member".to_owned(), "viewer".to_owned()];
    Decision::with_membership(Organization::Id("org_1".to_owned()), roles)
}

fn code(decision: &Decision) -> Option<&str> {
    match decision {
        Decision::Deny(refusal) => refusal.code.as_deref(),
        Decision::Allow(_) => None,
    }
}

#[test]
fn people_of_a_known_domain_get_a_membership_and_a_seat_until_none_is_left() {
    let mut host = host();
    assert_eq!(ask(&mut host, "req_1", "Ada@Example.com"), member());
    assert_eq!(ask(&mut host, "req_2", "bob@example.com"), member());
    assert_eq!(code(&ask(&mut host, "req_3", "eve@example.com")), Some("no_seat"));
    assert_eq!(host.rows("SELECT seats, taken FROM signup_seats"), ["2|2"]);
    let seats = host.rows("SELECT email, request FROM signup_reservations ORDER BY email");
    assert_eq!(seats, ["ada@example.com|req_1", "bob@example.com|req_2"]);
}

#[test]
fn a_person_who_signs_up_again_keeps_the_seat() {
    let mut host = host();
    for id in ["req_1", "req_1", "req_2"] {
        assert_eq!(ask(&mut host, id, "ada@example.com"), member());
    }
    assert_eq!(host.rows("SELECT taken FROM signup_seats"), ["1"]);
}

#[test]
fn other_domains_are_refused_unless_the_operator_lets_them() {
    let mut host = host();
    assert_eq!(code(&ask(&mut host, "req_1", "eve@nowhere.example")), Some("domain"));
    assert_eq!(code(&ask(&mut host, "req_2", "nobody")), Some("no_email"));
    let mut host = Host::new().grant(Capability::Sql).config("unknown_domain", "allow");
    assert_eq!(ask(&mut host, "req_1", "eve@nowhere.example"), Decision::allow());
    let mut odd = Host::new().grant(Capability::Sql).config("unknown_domain", "perhaps");
    let error = odd.decide::<SignupPolicy>(question("PRE_SIGNUP", Some("eve@nowhere.example"))).unwrap_err();
    assert!(error.reason().contains("unknown_domain"), "{error:?}");
}

#[test]
fn an_organization_without_a_row_has_seats_for_all() {
    let mut host = host();
    let acme = Decision::with_membership(Organization::ExternalId("acme".to_owned()), Vec::new());
    for n in 0..5 {
        assert_eq!(ask(&mut host, &format!("req_{n}"), &format!("p{n}@acme.example")), acme);
    }
    assert_eq!(host.rows("SELECT count(*) FROM signup_reservations"), ["5"]);
}

#[test]
fn an_invitation_takes_a_seat_of_the_organization_that_invites() {
    let mut host = host();
    let invite = |host: &mut Host, email: &str| {
        host.decide::<SignupPolicy>(question("PRE_USER_INVITATION", Some(email))).unwrap()
    };
    assert_eq!(invite(&mut host, "ada@example.com"), Decision::allow());
    assert_eq!(code(&invite(&mut host, "ada@acme.example")), Some("domain"), "of another organization");
    assert_eq!(host.rows("SELECT taken FROM signup_seats"), ["1"]);
}
