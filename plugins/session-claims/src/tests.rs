//! Each promise of the header, on a host in memory.

use posthouse_sdk::{
    Capability,
    testing::{Host, question},
};
use serde_json::json;

use super::*;

/// Runs the statements in `data` in the plugin's database.
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

fn host() -> Host {
    let mut host = Host::new().grant(Capability::Sql);
    host.decide::<SessionClaims>(question("PRE_SESSION_CREATION", None)).unwrap();
    let statements = "INSERT INTO organization_claims VALUES ('org_1', '{\"tier\":\"free\",\"region\":\"eu\"}'); \
        INSERT INTO user_claims VALUES ('usr_1', '{\"tier\":\"pro\"}'); \
        INSERT INTO user_claims VALUES ('usr_odd', '[]'); \
        INSERT INTO client_claims VALUES ('m2m_1', '{\"scope\":\"read\"}')";
    host.decide::<Fill>(Request { data: statements.to_owned(), ..question("FILL", None) }).unwrap();
    host
}

fn claims(decision: &Decision) -> Value {
    match decision {
        Decision::Allow(grant) => {
            grant.claims.as_deref().map_or(Value::Null, |claims| serde_json::from_str(claims).unwrap())
        }
        Decision::Deny(refusal) => panic!("{refusal:?}"),
    }
}

#[test]
fn a_session_has_the_claims_of_the_organization_and_those_of_the_user_before_them() {
    let mut host = host();
    let asked = question("PRE_SESSION_CREATION", None);
    let decided = host.decide::<SessionClaims>(asked.clone()).unwrap();
    assert_eq!(claims(&decided), json!({ "tier": "pro", "region": "eu" }));
    let other = Request { user_id: Some("usr_2".to_owned()), organization_id: None, ..asked };
    assert_eq!(claims(&host.decide::<SessionClaims>(other).unwrap()), Value::Null);
}

#[test]
fn a_machine_has_the_claims_of_its_client() {
    let mut host = host();
    let asked = question("PRE_M2M_TOKEN_CREATION", None);
    let machine = Request { user_id: None, client_id: Some("m2m_1".to_owned()), ..asked };
    let decided = host.decide::<SessionClaims>(machine).unwrap();
    assert_eq!(claims(&decided), json!({ "tier": "free", "region": "eu", "scope": "read" }));
}

#[test]
fn a_row_that_is_no_object_makes_no_decision_and_is_named() {
    let mut host = host();
    let asked = question("PRE_SESSION_CREATION", None);
    let odd = Request { user_id: Some("usr_odd".to_owned()), ..asked };
    let error = host.decide::<SessionClaims>(odd).unwrap_err();
    assert!(error.reason().contains("`user_claims` of `usr_odd`"), "{error:?}");
}
