//! Adds claims from your tables to the tokens of sessions and machines.
//!
//! | trigger | decision |
//! | --- | --- |
//! | `PRE_SESSION_CREATION` | ALLOW with the claims of the organization and those of the user |
//! | `PRE_M2M_TOKEN_CREATION` | ALLOW with the claims of the organization and those of the client |
//!
//! ```toml
//! [[interceptor]]
//! name = "session"
//! path = "/interceptors/session"
//! secrets = [{ env = "SESSION_INTERCEPTOR_SECRET" }]
//! triggers = ["PRE_SESSION_CREATION", "PRE_M2M_TOKEN_CREATION"]
//! plugin = "session-claims"
//! on_failure = "allow"               # without a decision people log in, without the claims
//!
//! [plugin.session-claims.grants]
//! database = "app"
//! ```
//!
//! The tables are in `migrations/`. Of two claims with one name, that of the user or the client counts. A row that is no
//! JSON object makes no decision: `on_failure` answers, and `posthouse decisions` shows the row.

use posthouse_sdk::{
    Capability, Manifest,
    decide::{Decision, Interceptor, Request, Unsure},
    migrations,
    sql::{self, Migrations},
};
use serde_json::{Map, Value};

struct SessionClaims;

const TABLES: Migrations = migrations!["001_claims"];

impl Interceptor for SessionClaims {
    fn manifest() -> Manifest {
        Manifest::new("adds claims from tables to the tokens of sessions and machines")
            .decides(["PRE_SESSION_CREATION", "PRE_M2M_TOKEN_CREATION"])
            .requires(Capability::Sql)
    }

    fn decide(request: Request) -> Result<Decision, Unsure> {
        TABLES.apply()?;
        let mut claims = Map::new();
        let tables = [
            ("organization_claims", "organization_id", &request.organization_id),
            ("user_claims", "user_id", &request.user_id),
            ("client_claims", "client_id", &request.client_id),
        ];
        for (table, key, id) in tables {
            if let Some(id) = id {
                claims.extend(of(table, key, id)?);
            }
        }
        if claims.is_empty() { Ok(Decision::allow()) } else { Decision::with_claims(&claims) }
    }
}

/// The claims in one row; none if there is no row.
fn of(table: &str, key: &str, id: &str) -> Result<Map<String, Value>, Unsure> {
    let row = sql::query_row(&format!("SELECT claims FROM {table} WHERE {key} = $1"), &[&id])?;
    let Some(row) = row else { return Ok(Map::new()) };
    let claims: String = row.get("claims")?;
    serde_json::from_str(&claims).map_err(|error| {
        Unsure::because(format!("`{table}` of `{id}` has no JSON object as claims: {error}"))
    })
}

posthouse_sdk::interceptor!(SessionClaims);

#[cfg(test)]
mod tests;
