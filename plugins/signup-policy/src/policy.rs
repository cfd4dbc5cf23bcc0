//! The decision. A separate module, so that a guest of the tests can run it within another plugin.

use posthouse_sdk::{
    Capability, Manifest, config,
    decide::{Decision, Interceptor, Organization, Request, Unsure},
    info, migrations,
    sql::{self, Migrations},
};

/// The plugin.
pub(crate) struct SignupPolicy;

const TABLES: Migrations = migrations!["001_signup"];

/// Where the people of a domain sign up.
struct Place {
    organization: String,
    external: bool,
    roles: Vec<String>,
}

impl Interceptor for SignupPolicy {
    fn manifest() -> Manifest {
        Manifest::new("decides who may sign up, by mail domain and seats left")
            .decides(["PRE_SIGNUP", "PRE_USER_INVITATION"])
            .requires(Capability::Sql)
    }

    fn decide(request: Request) -> Result<Decision, Unsure> {
        let (Some(email), Some(domain)) = (&request.email, request.domain()) else {
            return Ok(Decision::deny("a mail address is needed to sign up").code("no_email"));
        };
        TABLES.apply()?;
        let email = email.to_lowercase();
        let Some(place) = place(&domain)? else { return unknown() };
        let inviting = request.trigger == "PRE_USER_INVITATION";
        if inviting && request.organization_id.as_ref().is_some_and(|own| *own != place.organization) {
            return Ok(Decision::deny("people of this domain belong to another organization").code("domain"));
        }
        if !reserve(&place.organization, &email, &request.id)? {
            return Ok(Decision::deny("no seat is left in your organization").code("no_seat"));
        }
        info!("reserved a seat in `{}`", place.organization);
        let organization = match place.external {
            true => Organization::ExternalId(place.organization),
            false => Organization::Id(place.organization),
        };
        Ok(if inviting { Decision::allow() } else { Decision::with_membership(organization, place.roles) })
    }
}

/// The decision about a domain that is in no table.
fn unknown() -> Result<Decision, Unsure> {
    match config::get("unknown_domain").as_deref() {
        Some("allow") => Ok(Decision::allow()),
        None | Some("deny") => {
            Ok(Decision::deny("people of this mail domain may not sign up").code("domain"))
        }
        Some(_) => Err(config::Error::invalid("unknown_domain", "write \"deny\" or \"allow\"").into()),
    }
}

fn place(domain: &str) -> Result<Option<Place>, Unsure> {
    let row = sql::query_row(
        "SELECT organization_id, external, roles FROM signup_domains WHERE domain = $1",
        &[&domain],
    )?;
    let Some(row) = row else { return Ok(None) };
    let (external, roles): (i64, String) = (row.get("external")?, row.get("roles")?);
    let roles = serde_json::from_str(&roles)
        .map_err(|error| Unsure::because(format!("`roles` of the domain `{domain}`: {error}")))?;
    Ok(Some(Place { organization: row.get("organization_id")?, external: external != 0, roles }))
}

/// Reserves a seat, unless this person has one. Returns false if none is left.
fn reserve(organization: &str, email: &str, request: &str) -> Result<bool, Unsure> {
    let new = sql::execute(
        "INSERT INTO signup_reservations (organization_id, email, request) VALUES ($1, $2, $3) \
         ON CONFLICT (organization_id, email) DO NOTHING",
        &[&organization, &email, &request],
    )?;
    if new == 0 {
        return Ok(true);
    }
    let taken = sql::execute(
        "UPDATE signup_seats SET taken = taken + 1 WHERE organization_id = $1 AND taken < seats",
        &[&organization],
    )?;
    if taken == 1 {
        return Ok(true);
    }
    let limited =
        sql::query_row("SELECT seats FROM signup_seats WHERE organization_id = $1", &[&organization])?;
    if limited.is_none() {
        return Ok(true);
    }
    // The refusal commits too, so it must not keep the row.
    sql::execute(
        "DELETE FROM signup_reservations WHERE organization_id = $1 AND email = $2",
        &[&organization, &email],
    )?;
    Ok(false)
}
