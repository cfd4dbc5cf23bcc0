//! Checks the names in a filter. A name that does not exist is an error, which says so. A known name without
//! matches gives an empty list.

use std::collections::BTreeSet;

use posthouse_model::{EventType, Pattern, config::nearest, known_types};

use crate::admin::{
    Admin,
    error::{ApiError, shown},
};

/// The names in a filter.
#[derive(Default)]
pub(in crate::admin) struct Asked<'a> {
    pub(in crate::admin) source: Option<&'a str>,
    pub(in crate::admin) plugin: Option<&'a str>,
    pub(in crate::admin) event_type: Option<&'a Pattern>,
}

/// All names that exist.
struct Known {
    sources: BTreeSet<String>,
    plugins: BTreeSet<String>,
    types: BTreeSet<String>,
    /// Types that a plugin subscribes to or a source accepts.
    wanted: Vec<Pattern>,
}

impl Admin {
    /// Checks that all of these names are known.
    ///
    /// # Errors
    /// 404 for the first unknown name, with the nearest known one.
    pub(in crate::admin) async fn known(&self, asked: Asked<'_>) -> Result<(), ApiError> {
        if asked.source.is_none() && asked.plugin.is_none() && asked.event_type.is_none() {
            return Ok(());
        }
        let known = self.known_names().await?;
        if let Some(source) = asked.source {
            known.has_source(source)?;
        }
        if let Some(plugin) = asked.plugin {
            known.has_plugin(plugin)?;
        }
        asked.event_type.map_or(Ok(()), |pattern| known.has_type(pattern))
    }

    /// Says which other record in posthouse has this text as its name or id, as a sentence to add to an
    /// error. Empty if none has.
    pub(in crate::admin) async fn what_is(&self, text: &str) -> Result<String, ApiError> {
        let known = self.known_names().await?;
        let has = |names: &BTreeSet<String>| names.contains(text);
        let shown = shown(text);
        let hex = text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let revision =
            |plugin: &str| self.0.registry.by_name(plugin).and_then(|plugin| plugin.record.revision.clone());
        let of_revision =
            || known.plugins.iter().find(|plugin| revision(plugin).is_some_and(|all| all.starts_with(text)));
        Ok(if has(&known.plugins) {
            format!("`{shown}` is a plugin: `posthouse plugins show {shown}`")
        } else if has(&known.sources) {
            format!("`{shown}` is a source: `posthouse events --source {shown}`")
        } else if has(&known.types) {
            format!("`{shown}` is a type of events: `posthouse events --type {shown}`")
        } else if let Some(plugin) = hex.then(of_revision).flatten() {
            format!("`{shown}` is the revision of plugin `{plugin}`: `posthouse plugins show {plugin}`")
        } else if text.len() == 32 && hex {
            format!("`{shown}` looks like the id of a trace: `posthouse events show` prints an event's")
        } else {
            String::new()
        })
    }

    async fn known_names(&self) -> Result<Known, ApiError> {
        let stored = self.0.store.names().await?;
        let config = self.config();
        let sources = &config.sources;
        let plugins = self.0.registry.list();
        let named = plugins.iter().map(|plugin| plugin.record.name.clone());
        let emitting = plugins.iter().map(|plugin| format!("plugin:{}", plugin.record.name));
        let interceptors = config.interceptors.iter().map(|interceptor| &interceptor.source);
        let configured = sources.iter().chain(interceptors).map(|source| source.name.as_str().to_owned());
        let subscribed = plugins.iter().flat_map(|plugin| plugin.record.events.iter().cloned());
        let taken = sources.iter().flat_map(|source| source.events.iter().cloned());
        Ok(Known {
            sources: stored.sources.into_iter().chain(configured).chain(emitting).collect(),
            plugins: stored.plugins.into_iter().chain(named).collect(),
            types: stored.types.into_iter().chain(known_types().iter().cloned()).collect(),
            wanted: subscribed.chain(taken).filter(|pattern| pattern.as_str() != "*").collect(),
        })
    }
}

impl Known {
    fn has_source(&self, name: &str) -> Result<(), ApiError> {
        if self.sources.contains(name) {
            return Ok(());
        }
        Err(unknown("source", name, &self.sources, "config.toml"))
    }

    fn has_plugin(&self, name: &str) -> Result<(), ApiError> {
        if self.plugins.contains(name) {
            return Ok(());
        }
        Err(unknown("plugin", name, &self.plugins, "the plugins folder"))
    }

    fn has_type(&self, pattern: &Pattern) -> Result<(), ApiError> {
        let one = EventType::new(pattern.as_str()).ok();
        let means = |name: &str| EventType::new(name).is_ok_and(|name| pattern.matches(&name));
        let wanted = |known: &Pattern| known == pattern || one.as_ref().is_some_and(|one| known.matches(one));
        if pattern.as_str() == "*"
            || self.types.iter().any(|name| means(name))
            || self.wanted.iter().any(|known| wanted(known) || means(known.as_str()))
        {
            return Ok(());
        }
        let exact = self.wanted.iter().map(|known| known.as_str().to_owned());
        let names: BTreeSet<_> = self.types.iter().cloned().chain(exact).chain(self.groups()).collect();
        Err(unknown("type of events", pattern.as_str(), &names, ""))
    }

    /// The groups of the types: `user.*` for `user.created`.
    fn groups(&self) -> impl Iterator<Item = String> {
        self.types.iter().filter_map(|name| Some(format!("{}.*", name.rsplit_once('.')?.0)))
    }
}

/// The error for an unknown name, with the nearest known name, or with all if there are few.
fn unknown(what: &str, name: &str, known: &BTreeSet<String>, place: &str) -> ApiError {
    let shown = shown(name);
    let few = || known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let way_out = match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if !place.is_empty() && known.is_empty() => format!("{place} has none"),
        None if known.len() <= 8 => format!("known: {}", few()),
        None => "the store has never seen that name".to_owned(),
    };
    ApiError::not_found(format!("no {what} `{shown}`; {way_out}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Known {
            sources: set(&["scalekit", "plugin:counter"]),
            plugins: set(&["counter"]),
            types: set(&["user.created", "user.deleted"]),
            wanted: vec![Pattern::new("invoice.*").unwrap()],
        }
    }

    #[test]
    fn a_type_is_known_if_it_was_seen_or_somebody_wants_it() {
        for good in ["user.created", "user.*", "*", "invoice.*", "invoice.paid"] {
            assert!(known().has_type(&Pattern::new(good).unwrap()).is_ok(), "{good}");
        }
        for (odd, near) in [("user.creatd", "`user.created`"), ("usr.*", "`user.*`"), ("order.paid", "")] {
            let said = known().has_type(&Pattern::new(odd).unwrap()).unwrap_err().message;
            assert!(said.contains(odd) && said.contains(near), "{said}");
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        assert!(known().has_source("scalekit").is_ok() && known().has_plugin("counter").is_ok());
        let said = known().has_source("scalekt").unwrap_err().message;
        assert_eq!(said, "no source `scalekt`; did you mean `scalekit`?");
        let said = known().has_plugin("\u{1b}zzzzzzzz").unwrap_err().message;
        assert!(said.contains("known: `counter`") && !said.contains('\u{1b}'), "{said}");
    }
}
