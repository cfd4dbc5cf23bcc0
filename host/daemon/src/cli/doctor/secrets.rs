//! Checks secrets: default ones, missing ones, short ones, and those that two sources share.

use posthouse_model::config::{DEMO_SECRET, Source};

use super::{Context, Notes};

use crate::{admin, ingress::Verifier};

/// The fewest characters of a secret that can't be guessed.
const SHORT: usize = 16;

pub(super) fn config(patient: &Context, notes: &mut Notes) {
    for warning in patient.warnings.iter().filter(|warning| !is_of_secrets(warning)) {
        notes.problem(warning, "as it says");
    }
    for lack in &patient.lacks {
        notes.problem(lack, "posthouse does not start without it");
    }
    if patient.config.sources.is_empty() && patient.lacks.is_empty() {
        notes.warning("there is no [[source]]: no webhook is taken", "add one");
    }
    if notes.found.is_empty() {
        notes.ok(format!("it holds together; sources: {}", patient.config.sources.len()));
    }
}

/// Whether the check of the secrets reports this warning.
fn is_of_secrets(warning: &str) -> bool {
    ["demo secret", "can be guessed", "has a password that"].iter().any(|words| warning.contains(words))
}

pub(super) fn secrets(patient: &Context, notes: &mut Notes) {
    let sources = &patient.config.sources;
    for source in sources {
        source_secrets(source, notes);
    }
    // The demo secret is a problem, which was reported above.
    let of_secrets = |warning: &&String| is_of_secrets(warning) && !warning.contains("demo secret");
    for warning in patient.warnings.iter().filter(of_secrets) {
        notes.warning(warning, "as it says");
    }
    for (at, source) in sources.iter().enumerate() {
        for other in &sources[at + 1..] {
            if source.secrets.iter().any(|secret| other.secrets.contains(secret)) {
                notes.problem(
                    format!(
                        "sources `{}` and `{}` share a secret: what one signs passes as the other's",
                        source.name, other.name
                    ),
                    "give each its own",
                );
            }
        }
    }
    match &patient.config.admin.token {
        Some(token) if token.expose().len() < SHORT => notes.problem(
            format!("`[admin] token` has fewer than {SHORT} characters"),
            "make it longer, or leave it out: the daemon makes one",
        ),
        Some(_) => {}
        None => match admin::token::existing(&patient.config) {
            Ok(_) | Err(admin::TokenError::Missing(_)) => {}
            Err(error) => notes.problem(error.to_string(), "as it says"),
        },
    }
    if notes.found.is_empty() {
        notes.ok("each is there, and nobody else's");
    }
}

fn source_secrets(source: &Source, notes: &mut Notes) {
    let name = &source.name;
    if source.secrets.iter().any(|secret| secret.expose() == DEMO_SECRET) {
        notes.problem(
            format!(
                "source `{name}` takes the demo secret, which everybody knows: anybody can sign webhooks"
            ),
            "say { env = \"NAME\" } with the secret of the sender's dashboard",
        );
    }
    if !source.secrets.is_empty()
        && let Err(error) = Verifier::new(source)
    {
        notes.problem(error.to_string(), "the daemon does not start with it");
    }
}
