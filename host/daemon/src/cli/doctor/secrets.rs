//! Checks secrets: default ones, missing ones, short ones, and those that two sources share.

use posthouse_model::config::{DEMO_SECRET, Source};

use super::{Context, Notes};

use crate::{
    admin,
    ingress::{BroughtKeys, Verifier},
};

/// The fewest characters of a secret that can't be guessed.
const SHORT: usize = 16;

pub(super) fn config(context: &Context, notes: &mut Notes) {
    for warning in context.warnings.iter().filter(|warning| !is_of_secrets(warning)) {
        notes.problem(warning, "follow this message");
    }
    for lack in &context.lacks {
        notes.problem(lack, "provide it; the daemon does not start without it");
    }
    if context.config.sources.is_empty() && context.lacks.is_empty() {
        notes.warning("config.toml has no [[source]], so the daemon accepts no webhooks", "add one");
    }
    if notes.found.is_empty() {
        notes.ok(format!("config.toml is valid; sources: {}", context.config.sources.len()));
    }
}

/// Whether the check of the secrets reports this warning.
fn is_of_secrets(warning: &str) -> bool {
    ["demo secret", "can be guessed", "has a password that"].iter().any(|words| warning.contains(words))
}

pub(super) fn secrets(context: &Context, notes: &mut Notes) {
    let sources = &context.config.sources;
    for source in sources {
        source_secrets(source, notes);
    }
    match BroughtKeys::new(&context.config.store.state_dir()).with_keys(sources) {
        Err(error) => notes.problem(error.to_string(), "fix it; the daemon does not start until then"),
        Ok(sources) => {
            for source in sources.iter().filter(|source| source.brings_key && source.secrets.is_empty()) {
                notes.warning(
                    format!("source `{}` has no key yet, and refuses every request", source.name),
                    format!(
                        "run `posthouse senders learn {}`, and make the webhook at its sender",
                        source.name
                    ),
                );
            }
        }
    }
    // The demo secret is a problem, which was reported above.
    let of_secrets = |warning: &&String| is_of_secrets(warning) && !warning.contains("demo secret");
    for warning in context.warnings.iter().filter(of_secrets) {
        notes.warning(warning, "follow this message");
    }
    for (at, source) in sources.iter().enumerate() {
        for other in &sources[at + 1..] {
            if source.secrets.iter().any(|secret| other.secrets.contains(secret)) {
                notes.problem(
                    format!(
                        "sources `{}` and `{}` share a secret, so each can sign for the other",
                        source.name, other.name
                    ),
                    "give each source its own secret",
                );
            }
        }
    }
    match &context.config.admin.token {
        Some(token) if token.expose().len() < SHORT => notes.problem(
            format!("`[admin] token` has fewer than {SHORT} characters"),
            "choose a longer one, or remove it: then the daemon creates one",
        ),
        Some(_) => {}
        None => match admin::token::existing(&context.config) {
            Ok(_) | Err(admin::TokenError::Missing(_)) => {}
            Err(error) => notes.problem(error.to_string(), "follow this message"),
        },
    }
    if notes.found.is_empty() {
        notes.ok("every secret is set, and no two sources share one");
    }
}

fn source_secrets(source: &Source, notes: &mut Notes) {
    let name = &source.name;
    if source.secrets.iter().any(|secret| secret.expose() == DEMO_SECRET) {
        notes.problem(
            format!("source `{name}` uses the demo secret, which is public: anybody can sign webhooks"),
            "use { env = \"NAME\" } with the signing secret from the sender's dashboard",
        );
    }
    if !source.secrets.is_empty()
        && let Err(error) = Verifier::new(source)
    {
        notes.problem(error.to_string(), "fix it; the daemon does not start until then");
    }
}
