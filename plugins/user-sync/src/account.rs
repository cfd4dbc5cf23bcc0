//! The user's account at an external service, if config.toml names one.

use posthouse_sdk::{
    Event, Failure, config,
    http::{Request, segment},
    sql,
};
use serde::{Deserialize, Serialize};

use crate::person::Person;

/// The request to the external service.
#[derive(Serialize)]
struct Profile<'a> {
    user_id: &'a str,
    email: Option<&'a str>,
    first_name: Option<&'a str>,
    last_name: Option<&'a str>,
    organization_id: Option<&'a str>,
    active: bool,
    /// Grows with each change of this user.
    version: i64,
}

/// Its response, as far as the plugin uses it.
#[derive(Deserialize)]
struct Account {
    id: String,
}

/// Creates or updates the account.
pub(crate) fn put(event: &Event, person: &Person) -> Result<(), Failure> {
    let Some(url) = url(person) else { return Ok(()) };
    let profile = Profile {
        user_id: &person.id,
        email: person.email.as_deref(),
        first_name: person.first_name.as_deref(),
        last_name: person.last_name.as_deref(),
        organization_id: person.organization_id.as_deref(),
        active: person.active,
        version: event.version(),
    };
    let answer = Request::put(url).json(&profile)?.fetch()?.success()?;
    if let Ok(account) = answer.json::<Account>() {
        sql::execute("UPDATE users SET account_id = $2 WHERE id = $1", &[&person.id, &account.id])?;
    }
    Ok(())
}

/// Deletes the account. A missing account is not an error.
pub(crate) fn delete(person: &Person) -> Result<(), Failure> {
    let Some(url) = url(person) else { return Ok(()) };
    let answer = Request::delete(url).fetch()?;
    if !matches!(answer.status(), 404 | 410) {
        answer.success()?;
    }
    sql::execute("UPDATE users SET account_id = NULL WHERE id = $1", &[&person.id])?;
    Ok(())
}

fn url(person: &Person) -> Option<String> {
    let url = config::get("accounts_url").filter(|url| !url.is_empty())?;
    Some(format!("{}/{}", url.trim_end_matches('/'), segment(&person.id)))
}
