//! Applies the result of loading a plugin's file: in the store first, then in the list.

use std::sync::Arc;

use posthouse_model::{HeldReason, config::PluginSettings};
use posthouse_store::{PluginChange, PluginRecord, StoreError};

use super::{
    list::{Edit, List},
    revision::Inspection,
    running::{Plugin, Services},
};

/// A revision of the plugin with this name loads. It serves from now on, unless it lacks a grant.
pub(super) async fn loads(
    list: &List,
    services: &Services,
    name: &str,
    settings: Arc<PluginSettings>,
    inspection: Inspection,
) -> Result<(), StoreError> {
    let edit = list.edit().await;
    let before = known(&edit, services, name, &settings).await?;
    let revision = services.revision(&before, &settings, inspection);
    let sha256 = revision.revision.clone();
    let next = before.loaded(settings, revision, services.env.now());
    let PluginRecord { id, revision, description, events, requires, loaded_at, .. } = next.record.clone();
    let said = description.clone();
    edit.save(&next, PluginChange::Loaded { revision, description, events, requires, loaded_at }).await?;
    services.store.revision_loaded(id, &sha256, &said).await?;
    edit.count(name, true);
    announce(&next);
    edit.publish(next);
    Ok(())
}

/// The file of the plugin with this name does not load. `sha256` is that of its content. None means that the
/// file could not be read.
pub(super) async fn refused(
    list: &List,
    services: &Services,
    name: &str,
    settings: Arc<PluginSettings>,
    error: String,
    sha256: Option<&str>,
) -> Result<(), StoreError> {
    let edit = list.edit().await;
    let next = known(&edit, services, name, &settings).await?.failed(error.clone());
    edit.save(&next, PluginChange::Failed(error.clone())).await?;
    if let Some(sha256) = sha256 {
        services.store.revision_refused(next.record.id, sha256, &error).await?;
    }
    edit.count(name, false);
    announce(&next);
    edit.publish(next);
    Ok(())
}

/// The plugin's file has the running revision's content again. An error of another content in between is
/// cleared. Returns whether the store took it.
pub(super) async fn recovered(list: &List, plugin: &Plugin) -> bool {
    plugin.record.last_error.is_none()
        || list.change(&plugin.record.name, PluginChange::Recovered, Plugin::recovered).await.is_ok()
}

/// The file of the plugin with this name has left. Returns whether the store took it.
pub(super) async fn left(list: &List, services: &Services, name: &str) -> bool {
    let was_gone = list.by_name(name).is_some_and(|plugin| plugin.is_gone());
    match list.change(name, PluginChange::Held, Plugin::gone).await {
        Ok(()) if !was_gone => {
            if let Some(plugin) = list.by_name(name)
                && let Err(error) = services.store.revision_removed(plugin.record.id).await
            {
                tracing::error!(plugin = name, %error, "the store could not record the end of the revision");
            }
            tracing::warn!(plugin = name, "the plugin's file left; its deliveries are held");
            true
        }
        Ok(()) => true,
        Err(error) => {
            tracing::error!(plugin = name, %error, "the store could not record that the plugin's file is gone");
            false
        }
    }
}

/// The plugin with this name has no file, for this reason. Returns whether the store took it.
pub(super) async fn missing(
    list: &List,
    services: &Services,
    name: &str,
    settings: Arc<PluginSettings>,
    error: &str,
) -> bool {
    let told = |plugin: Arc<Plugin>| plugin.is_gone() && plugin.record.last_error.as_deref() == Some(error);
    if list.by_name(name).is_some_and(told) {
        return true;
    }
    match lacks_file(list, services, name, &settings, error).await {
        Ok(()) => {
            tracing::error!(plugin = name, error, "the plugin has no file; its deliveries are held");
            true
        }
        Err(failure) => {
            tracing::error!(plugin = name, error = %failure, "the store did not record the plugin's state");
            false
        }
    }
}

async fn lacks_file(
    list: &List,
    services: &Services,
    name: &str,
    settings: &Arc<PluginSettings>,
    error: &str,
) -> Result<(), StoreError> {
    let edit = list.edit().await;
    let before = known(&edit, services, name, settings).await?;
    let next = before.without_file(error);
    edit.save(&next, PluginChange::Failed(error.to_owned())).await?;
    if before.running().is_some() {
        services.store.revision_removed(next.record.id).await?;
    }
    edit.publish(next);
    Ok(())
}

/// The plugin with this name. One that the store does not know yet is added to it.
async fn known(
    edit: &Edit<'_>,
    services: &Services,
    name: &str,
    settings: &Arc<PluginSettings>,
) -> Result<Arc<Plugin>, StoreError> {
    if let Ok(plugin) = edit.plugin(name) {
        return Ok(plugin);
    }
    let id = services.store.plugin_id(name).await?;
    let new = Plugin::new(id, name, Arc::clone(settings));
    edit.save(&new, PluginChange::Subscribed(new.record.events.clone())).await?;
    Ok(Arc::new(new))
}

/// Logs one line about the plugin's state after its file was loaded, or failed to load.
fn announce(plugin: &Plugin) {
    let record = &plugin.record;
    let events: Vec<_> = record.events.iter().map(|pattern| pattern.as_str()).collect();
    let name = &record.name;
    match (&record.last_error, &record.held) {
        (Some(error), None) => {
            tracing::error!(
                plugin = name,
                error,
                "a new revision does not load; the old one goes on serving"
            );
        }
        (Some(error), Some(_)) => {
            tracing::error!(plugin = name, error, "the plugin does not load; it is held")
        }
        (None, Some(HeldReason::LacksGrant(lines))) => {
            tracing::warn!(plugin = name, "the plugin lacks a grant and is held: {lines}");
        }
        (None, held) => {
            let revision = record.revision.as_deref().map(|hash| &hash[..hash.len().min(12)]);
            tracing::info!(plugin = name, revision, ?events, ?held, "plugin loaded");
        }
    }
}
