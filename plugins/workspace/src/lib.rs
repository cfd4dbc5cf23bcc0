//! Creates a workspace for each organization, notifies the team, and provisions it at an external service.
//!
//! | event | what happens |
//! | --- | --- |
//! | `organization.created`, `organization.updated` | the row in `workspaces` gets the values of the event; for a new one the plugin adds the default settings and mails the team |
//! | `organization.deleted` | the row stays, with the time of deletion; its settings stay |
//!
//! Events may arrive late, twice or in another order than they happened. The newest event wins, and an older
//! one changes nothing.
//!
//! ```toml
//! [plugin.workspace.grants]
//! database = "app"
//! mail = { from = ["Workspaces <workspaces@example.com>"], to = ["team@example.com"] }  # for notify only
//! http = ["https://provision.example.com"]                                      # for provision_url only
//!
//! [plugin.workspace.config]                    # every line is optional
//! settings = { plan = "trial" }                # of a new workspace
//! notify = "team@example.com"                  # or several: ["a@example.com", "b@example.com"]
//! provision_url = "https://provision.example.com/v1/workspaces"
//! ```
//!
//! Provisioning is `PUT <provision_url>/<organization>` with the workspace as JSON, and finally `DELETE`. The
//! outbox sends the request after the row is committed, and only then. The plugin does not need the response,
//! and a slow or failing service must not delay events. Two such requests may arrive in another order than
//! they were sent: the `version` in each shows which is newer.
//!
//! The tables are in `migrations/`.

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, config, debug,
    event::Organization,
    http::{Request, segment},
    info, migrations,
    outbox::Mail,
    sql::{self, Micros, Migrations},
    template::Escape,
};
use serde_json::{Map, Value, json};

struct Workspace;

const TABLES: Migrations = migrations!["001_workspaces"];

impl Plugin for Workspace {
    fn manifest() -> Manifest {
        Manifest::new("a workspace for each organization: tells the team and provisions it")
            .on(["organization.created", "organization.updated", "organization.deleted"])
            .requires(Capability::Sql)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let deleted = match event.event_type.as_str() {
            "organization.created" | "organization.updated" => false,
            "organization.deleted" => true,
            other => {
                debug!("`{other}` is none of the events that change a workspace; nothing to do");
                return Ok(());
            }
        };
        let organization = event.organization()?;
        TABLES.apply()?;
        let Some(appeared) = write(&event, &organization, deleted)? else {
            info!("a newer event about `{}` has been here; nothing to do", organization.id);
            return Ok(());
        };
        if appeared {
            settle(&organization)?;
            notify(&organization)?;
        }
        provision(&event, &organization, deleted)?;
        info!("the workspace of `{}` is {}", organization.id, if deleted { "deleted" } else { "up to date" });
        Ok(())
    }
}

posthouse_sdk::plugin!(Workspace);

/// Writes the event's values to the row. Returns whether the workspace exists now and did not before, or none
/// if the row already has newer values.
fn write(event: &Event, organization: &Organization, deleted: bool) -> Result<Option<bool>, Failure> {
    let at = Micros::of(event.time());
    let row = sql::query_row(
        "INSERT INTO workspaces (organization_id, name, external_id, region_code, updated_at, deleted_at, \
             version, appeared) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (organization_id) DO UPDATE SET name = excluded.name, \
             external_id = excluded.external_id, region_code = excluded.region_code, \
             updated_at = excluded.updated_at, deleted_at = excluded.deleted_at, \
             version = excluded.version, \
             appeared = workspaces.deleted_at IS NOT NULL AND excluded.deleted_at IS NULL \
         WHERE workspaces.version <= excluded.version \
         RETURNING appeared",
        &[
            &organization.id,
            &organization.display_name,
            &organization.external_id,
            &organization.region_code,
            &at,
            &deleted.then_some(at),
            &event.version(),
            &!deleted,
        ],
    )?;
    Ok(row.map(|row| row.get("appeared")).transpose()?)
}

/// Gives a new workspace the default settings.
fn settle(organization: &Organization) -> Result<(), Failure> {
    for (name, value) in config::json::<Map<String, Value>>("settings")?.unwrap_or_default() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        sql::execute(
            "INSERT INTO workspace_settings (organization_id, name, value) VALUES ($1, $2, $3) \
             ON CONFLICT (organization_id, name) DO NOTHING",
            &[&organization.id, &name, &value],
        )?;
    }
    Ok(())
}

/// Mails the team about a new workspace.
fn notify(organization: &Organization) -> Result<(), Failure> {
    let mut team = config::texts("notify")?.into_iter().filter(|address| !address.is_empty());
    let Some(first) = team.next() else { return Ok(()) };
    let name = Escape::Line.apply(organization.display_name.as_deref().unwrap_or(&organization.id));
    let mut text = format!("{name} has a workspace now.\n\nOrganization: {}\n", organization.id);
    for (label, value) in [("External id", &organization.external_id), ("Region", &organization.region_code)]
    {
        if let Some(value) = value {
            text.push_str(&format!("{label}: {}\n", Escape::Line.apply(value)));
        }
    }
    team.fold(Mail::new(first, format!("New workspace: {name}"), text), Mail::to).send()?;
    Ok(())
}

/// Creates, updates or deletes the workspace at the external service, if config.toml names one.
fn provision(event: &Event, organization: &Organization, deleted: bool) -> Result<(), Failure> {
    let Some(url) = config::get("provision_url").filter(|url| !url.is_empty()) else { return Ok(()) };
    let url = format!("{}/{}", url.trim_end_matches('/'), segment(&organization.id));
    let request = if deleted { Request::delete(url) } else { Request::put(url) };
    let request = request.json(&json!({
        "organization_id": organization.id,
        "name": organization.display_name,
        "external_id": organization.external_id,
        "region_code": organization.region_code,
        "version": event.version(),
    }))?;
    request.send_later()?;
    Ok(())
}

#[cfg(test)]
mod tests;
