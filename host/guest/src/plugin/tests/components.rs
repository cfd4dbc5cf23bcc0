//! Tests several plugins that run one file: `component` in config.toml.

use std::{collections::BTreeMap, fs, sync::Arc};

use parking_lot::Mutex;
use posthouse_model::testing::ManualClock;

use super::{registry::Fixture, *};

use crate::plugin::{Components, PluginConfig, PluginError};

/// Tables of config.toml that a test changes.
#[derive(Default)]
struct Tables(Mutex<BTreeMap<String, PluginSettings>>);

impl Tables {
    fn set(&self, name: &str, component: Option<&str>) {
        let component = component.map(str::to_owned);
        self.0.lock().insert(name.to_owned(), PluginSettings { component, ..settings() });
    }
}

impl PluginConfig for Tables {
    fn settings(&self, name: &str) -> PluginSettings {
        self.0.lock().get(name).cloned().unwrap_or_else(settings)
    }

    fn components(&self) -> Components {
        Components::new(&self.0.lock())
    }
}

async fn fixture(tables: &Arc<Tables>) -> Fixture {
    Fixture::with(ManualClock::epoch(), Arc::clone(tables) as Arc<dyn PluginConfig>).await
}

/// The names of all plugins.
fn names(fixture: &Fixture) -> Vec<String> {
    fixture.registry.list().iter().map(|plugin| plugin.record.name.clone()).collect()
}

#[tokio::test]
async fn one_file_serves_several_plugins_and_is_compiled_once() {
    let tables = Arc::new(Tables::default());
    tables.set("app", Some("greet"));
    tables.set("shop", Some("greet"));
    let fixture = fixture(&tables).await;
    let compiled = fixture.bench.dir.path().join("compiled");
    fixture.bench.compiler_begins_with(&format!("echo one >> {}", compiled.display()));
    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    assert_eq!(names(&fixture), ["app", "shop"], "the file itself is no plugin");
    assert_eq!(fs::read_to_string(&compiled).unwrap().lines().count(), 1);
    let (app, shop) = (fixture.record("app"), fixture.record("shop"));
    assert_eq!((app.held, shop.held), (None, None));
    assert_eq!(app.revision, shop.revision);
    assert_ne!(app.id, shop.id, "each has its own keys, deliveries and counts");
    assert_eq!(fixture.subscribers("user.created"), 2);

    // A new file replaces both.
    fixture.put("greet", &guest("(call $say) (call $say)"));
    fixture.registry.scan().await;
    assert_eq!((fixture.lines("app").await, fixture.lines("shop").await), (2, 2));
    assert_eq!(fs::read_to_string(&compiled).unwrap().lines().count(), 2);

    // The file is a plugin of its own name once it has a table.
    tables.set("greet", None);
    fixture.registry.resettle().await;
    assert_eq!(names(&fixture), ["app", "greet", "shop"]);
    assert_eq!(fixture.record("greet").held, None);
    tables.0.lock().remove("greet");
    fixture.registry.resettle().await;
    let greet = fixture.record("greet");
    assert_eq!(greet.held, Some(HeldReason::Gone));
    assert!(greet.last_error.unwrap().contains("posthouse plugins forget greet"));
    fixture.registry.forget("greet").await.unwrap();
    fixture.registry.scan().await;
    assert_eq!(names(&fixture), ["app", "shop"]);
}

#[tokio::test]
async fn a_plugin_whose_component_is_missing_is_listed_with_the_file() {
    let tables = Arc::new(Tables::default());
    tables.set("app", Some("greet"));
    let fixture = fixture(&tables).await;
    let missing = Some("`greet.wasm`, its `component`, is not in the plugins folder".to_owned());
    fixture.registry.scan().await;
    let app = fixture.record("app");
    assert_eq!((app.held, app.last_error), (Some(HeldReason::Gone), missing.clone()));
    assert!(matches!(fixture.registry.forget("app").await, Err(PluginError::StillThere(..))));

    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    let app = fixture.record("app");
    assert_eq!((app.held, app.last_error), (None, None));

    fixture.remove("greet");
    fixture.registry.scan().await;
    let app = fixture.record("app");
    assert_eq!((app.held, app.last_error), (Some(HeldReason::Gone), missing));
    assert_eq!(fixture.subscribers("user.created"), 1, "its deliveries wait");

    // Another component is another file.
    tables.set("app", Some("other"));
    fixture.put("other", &guest("(call $say) (call $say)"));
    fixture.registry.resettle().await;
    assert_eq!((fixture.record("app").held, fixture.lines("app").await), (None, 2));
}
