//! Keeps a table of users in sync with the sender, and gives each new user settings and an external account.
//!
//! | event | what happens |
//! | --- | --- |
//! | `user.created`, `user.signup`, `user.updated` | the row in `users` gets the values of the event; a new user gets the default settings and the event `user.onboarding` |
//! | `organization.directory.user_created`, `…_updated` | the same for a user of an organization's directory |
//! | `user.deleted`, `organization.directory.user_deleted` | the settings and all personal data are deleted; the id and the time of deletion remain |
//!
//! Events may arrive late, twice or in another order than they happened. The newest event wins, and an older
//! one changes nothing. Each event contains all data of the user. Only the organization is kept if a newer
//! event names none.
//!
//! ```toml
//! [plugin.user-sync.grants]
//! database = "app"
//! http = ["https://accounts.example.com"]      # needed for accounts_url only
//! emit = ["user.onboarding"]                   # optional: without it the event is not emitted
//!
//! [plugin.user-sync.config]                    # every line is optional
//! settings = { language = "en" }               # of a new user
//! accounts_url = "https://accounts.example.com/v1/accounts"
//! ```
//!
//! The plugin creates and updates the account by `PUT <accounts_url>/<user>` with the user as JSON, and deletes
//! it by `DELETE`. If the response is JSON with an `id`, the plugin stores it as `account_id`. It fetches during
//! the attempt and does not use the outbox. The attempt locks the user's row meanwhile, so that requests about
//! one user are sent in the order of their versions. On SQLite, where one attempt writes at a time, it locks the
//! whole file: give this plugin its own database there. If the attempt fails afterwards, the next one sends the
//! request again. A repeated `PUT` does no harm.
//!
//! The tables are in `migrations/`.

mod account;
mod person;

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, config, info, migrations,
    outbox::{Derived, if_granted},
    sql::{self, Micros, Migrations},
};
use serde_json::{Map, Value, json};

use crate::person::Person;

struct UserSync;

const TABLES: Migrations = migrations!["001_users"];

impl Plugin for UserSync {
    fn manifest() -> Manifest {
        Manifest::new("keeps a table of users, each with settings and an account elsewhere")
            .on(["user.created", "user.signup", "user.updated", "user.deleted"])
            .on(["organization.directory.user_created"])
            .on(["organization.directory.user_updated", "organization.directory.user_deleted"])
            .requires(Capability::Sql)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let Some(person) = Person::of(&event)? else { return Ok(()) };
        TABLES.apply()?;
        let newest = write(&event, &person)?;
        if let Some(organization) = &person.organization_id {
            place(&event, &person, organization)?;
        }
        match newest {
            None => info!("a newer event about `{}` has been here; nothing to do", person.id),
            Some(Change::Appeared) => {
                settle(&person)?;
                account::put(&event, &person)?;
                if_granted(Derived::new("user.onboarding", &json!({ "user_id": person.id }))?.emit())?;
                info!("`{}` is a new user", person.id);
            }
            Some(Change::Changed) if person.deleted => {
                sql::execute("DELETE FROM user_settings WHERE user_id = $1", &[&person.id])?;
                account::delete(&person)?;
                info!("`{}` is deleted", person.id);
            }
            Some(Change::Changed) => {
                account::put(&event, &person)?;
                info!("`{}` is up to date", person.id);
            }
        }
        Ok(())
    }
}

posthouse_sdk::plugin!(UserSync);

/// The effect of an event on a user's row.
enum Change {
    /// The user exists now, and did not before.
    Appeared,
    Changed,
}

/// Writes the event's values to the user's row. Returns none if the row already has newer ones.
fn write(event: &Event, person: &Person) -> Result<Option<Change>, Failure> {
    let at = Micros::of(event.time());
    let deleted_at = person.deleted.then_some(at);
    let row = sql::query_row(
        "INSERT INTO users (id, external_id, email, email_verified, first_name, last_name, name, active, \
             updated_at, deleted_at, version, appeared) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT (id) DO UPDATE SET external_id = excluded.external_id, email = excluded.email, \
             email_verified = excluded.email_verified, first_name = excluded.first_name, \
             last_name = excluded.last_name, name = excluded.name, active = excluded.active, \
             updated_at = excluded.updated_at, deleted_at = excluded.deleted_at, \
             version = excluded.version, \
             appeared = users.deleted_at IS NOT NULL AND excluded.deleted_at IS NULL \
         WHERE users.version <= excluded.version \
         RETURNING appeared",
        &[
            &person.id,
            &person.external_id,
            &person.email,
            &person.email_verified,
            &person.first_name,
            &person.last_name,
            &person.name,
            &person.active,
            &at,
            &deleted_at,
            &event.version(),
            &!person.deleted,
        ],
    )?;
    let appeared = row.map(|row| row.get("appeared")).transpose()?;
    Ok(appeared.map(|appeared| if appeared { Change::Appeared } else { Change::Changed }))
}

/// Stores the organization, unless a newer event has named one.
fn place(event: &Event, person: &Person, organization: &str) -> Result<(), Failure> {
    sql::execute(
        "UPDATE users SET organization_id = $2, organization_version = $3 \
         WHERE id = $1 AND organization_version <= $3",
        &[&person.id, &organization, &event.version()],
    )?;
    Ok(())
}

/// Gives a new user the default settings.
fn settle(person: &Person) -> Result<(), Failure> {
    for (name, value) in config::json::<Map<String, Value>>("settings")?.unwrap_or_default() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        sql::execute(
            "INSERT INTO user_settings (user_id, name, value) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id, name) DO NOTHING",
            &[&person.id, &name, &value],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
