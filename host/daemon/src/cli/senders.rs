//! `posthouse senders`: which senders posthouse knows, what to enter in the dashboard of one, and a `[[source]]` to
//! paste. It also has the daemon learn or forget the key of a sender that brings it.

use std::{collections::BTreeMap, path::Path, process::ExitCode, sync::Arc, time::Duration};

use posthouse_model::config::{
    Loaded, ProcessEnvironment, Scheme, Secrets, nearest,
    scheme::{
        Algorithm, Fetchable, KeyEncoding, KeySource, Part, Piece, Place, Required, Row, SignatureForm,
        TimeUnit, shipped,
    },
};

use serde_json::json;

use super::{
    CliError,
    client::{Client, segment},
    table,
};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show how a sender signs, what to do in its dashboard, and a [[source]] to paste.
    Show {
        /// The scheme, such as `stripe`.
        scheme: String,
    },
    /// Have a source accept the key that its sender brings (Asana, Notion), for some minutes.
    Learn {
        /// The source in config.toml, which has no `secrets`.
        source: String,
        /// How long it accepts one, such as `10m`; at most an hour.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
        within: Duration,
    },
    /// Remove the key that the sender of a source brought.
    Forget {
        /// The source in config.toml.
        source: String,
    },
}

/// Prints all senders, or one; or has the daemon learn or forget a key.
///
/// # Errors
/// [`CliError::Usage`] if there is no such scheme. [`CliError::Failure`] if the daemon does not answer, or refuses.
pub fn run(args: Args, path: &Path) -> Result<ExitCode, CliError> {
    let client = || Client::new(&Loaded::read(path, &ProcessEnvironment, Secrets::OfAdmin)?.config);
    match &args.action {
        Some(Action::Learn { source, within }) => return learn(&client()?, source, *within),
        Some(Action::Forget { source }) => return forget(&client()?, source),
        Some(Action::Show { .. }) | None => {}
    }
    // A configuration is optional here: the command helps to write the first one.
    let own = Loaded::read(path, &ProcessEnvironment, Secrets::OfAdmin)
        .map(|loaded| loaded.config.schemes)
        .unwrap_or_default();
    match args.action {
        Some(Action::Show { scheme }) => show(&scheme, &own),
        _ => list(&own),
    }
}

fn learn(client: &Client, source: &str, within: Duration) -> Result<ExitCode, CliError> {
    let path = format!("/v1/sources/{}/learn", segment(source));
    let answer = client.post(&path, &json!({ "seconds": within.as_secs() }))?;
    let [until, file] =
        ["until", "file"].map(|member| table::clean(answer[member].as_str().unwrap_or_default()));
    table::print(&format!(
        "Source `{source}` accepts the key of its sender until {until}. Make the webhook at the sender now.\n\
         The first request that brings a key sets it. It will be in `{file}`.\n"
    ))
}

fn forget(client: &Client, source: &str) -> Result<ExitCode, CliError> {
    client.post(&format!("/v1/sources/{}/forget", segment(source)), &json!({}))?;
    table::print(&format!(
        "Source `{source}` has no key any more, and refuses every request until its sender brings another one.\n"
    ))
}

fn all(own: &BTreeMap<String, Arc<Scheme>>) -> impl Iterator<Item = &Arc<Scheme>> {
    own.values().chain(shipped())
}

fn list(own: &BTreeMap<String, Arc<Scheme>>) -> Result<ExitCode, CliError> {
    let width = all(own).map(|scheme| scheme.name.len()).max().unwrap_or_default();
    let mut names: Vec<_> = all(own).collect();
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let line = |scheme: &Arc<Scheme>| {
        let asked = if scheme.catch_up.is_some() { "catch-up" } else { "" };
        format!("{:width$}  {asked:8}  {}\n", scheme.name, scheme.title())
    };
    let lines: String = names.into_iter().map(line).collect();
    table::print(&format!(
        "{lines}\n`catch-up`: posthouse can ask the sender for events that no webhook brought.\n\
         `posthouse senders show NAME` says how to set one up.\n"
    ))
}

fn show(name: &str, own: &BTreeMap<String, Arc<Scheme>>) -> Result<ExitCode, CliError> {
    let scheme = all(own).find(|scheme| &*scheme.name == name).ok_or_else(|| {
        let way_out = match nearest(name, all(own).map(|scheme| &*scheme.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`posthouse senders` lists them".to_owned(),
        };
        CliError::Usage(format!("no scheme `{}`; {way_out}", name.escape_debug()))
    })?;
    let mut text = format!("{}: {}\n", scheme.name, scheme.title());
    let about = &scheme.about;
    for (label, told) in [("setup", &about.setup), ("caution", &about.caution), ("page", &about.page)] {
        if let Some(told) = told {
            text.push_str(&format!("\n{label}: {told}\n"));
        }
    }
    if scheme.catch_up.is_some() {
        text.push_str(
            "\ncatch-up: posthouse can ask for events that no webhook brought; see [source.catch_up] in \
             docs/catch-up.md\n",
        );
    }
    for row in &scheme.rows {
        text.push_str(&format!("\n{}\n", told(row).join("\n")));
    }
    text.push_str(&format!("\nFor config.toml:\n\n{}\n", source(scheme)));
    table::print(&text)
}

/// How a row signs, a line for each part.
fn told(row: &Row) -> Vec<String> {
    let signature = &row.signature;
    let form = match &signature.form {
        SignatureForm::One { prefix } if prefix.is_empty() => String::new(),
        SignatureForm::One { prefix } => format!(", after `{prefix}`"),
        SignatureForm::Entries { label, separator, .. } => {
            format!(", in each entry `{label}{separator}…`")
        }
    };
    let algorithm = match signature.algorithm {
        Algorithm::HmacSha1 => "HMAC-SHA1",
        Algorithm::HmacSha256 => "HMAC-SHA256",
        Algorithm::HmacSha512 => "HMAC-SHA512",
        Algorithm::Sha256 => "SHA-256 over a text with the key in it",
        Algorithm::Ed25519 => "Ed25519",
        Algorithm::EcdsaP256 => "ECDSA over P-256",
        Algorithm::RsaSha1 => "RSA with SHA-1",
        Algorithm::RsaSha256 => "RSA with SHA-256",
        Algorithm::JwtEs256 => "JWT with ECDSA over P-256",
        Algorithm::JwtHs256 => "JWT with HMAC-SHA256",
        Algorithm::Token => "the secret itself; nothing is signed",
        Algorithm::Basic => "a user and password; nothing is signed",
    };
    let mut lines = vec![format!("signature: {algorithm}, in `{}`{form}", signature.at)];
    if !row.families.is_empty() {
        lines.push(format!("families: `*` is each of `{}`", row.families.join("`, `")));
    }
    if !row.signed.is_empty() {
        lines.push(format!("signed: {}", row.signed.iter().map(piece).collect::<String>().escape_debug()));
    }
    match &row.timestamp {
        Some(time) => {
            let unit = match time.unit {
                TimeUnit::Seconds => "seconds",
                TimeUnit::Milliseconds => "milliseconds",
                TimeUnit::Rfc3339 => "RFC 3339",
            };
            let tolerance = humantime::format_duration(time.tolerance);
            lines.push(format!("time: `{}`, in {unit}, may be off by {tolerance}", time.at));
        }
        None if row.once.is_some() => {}
        None => lines.push("time: none; an old request can be sent again".to_owned()),
    }
    let urls = |from: &[Fetchable]| {
        let urls: Vec<_> = from.iter().map(|one| format!("`{}`", one.url.as_str())).collect();
        urls.join(" or ")
    };
    match &row.key_source {
        Some(KeySource::Certificate { at, from, name }) => {
            lines.push(format!("certificate: `{at}`, at {}, for `{name}`", urls(from)));
        }
        Some(KeySource::Api(from)) => lines.push(format!("keys: from `{}`", from.url.as_str())),
        None => {}
    }
    for required in &row.require {
        let is = match &required.is {
            Required::Text(text) => format!("`{text}`"),
            Required::Url => "`url` of the source".to_owned(),
            Required::Key => "a secret of the source".to_owned(),
        };
        lines.push(format!("required: `{}` is {is}", required.place));
    }
    if let Some(digest) = &row.digest {
        lines.push(format!("digest: `{digest}` is the SHA-256 of the body"));
    }
    if let Some(encrypted) = &row.encrypted {
        lines.push(format!("encrypted: `{encrypted}`, if it is there"));
    }
    if let Some(once) = &row.once {
        lines.push(format!("once: `{once}` serves for one request"));
    }
    match row.event.each.as_deref() {
        None => {}
        Some([]) => lines.push("events: each element of the body".to_owned()),
        Some(steps) => lines.push(format!("events: each element of `{}`", Place::Json(steps.to_vec()))),
    }
    let of = |texts: &[Vec<Part>]| match texts {
        [] => "none".to_owned(),
        texts => {
            let shown = texts.iter().map(|text| text.iter().map(part).collect::<String>());
            shown.map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ")
        }
    };
    let event = &row.event;
    if event.envelope {
        let id = if event.id.is_empty() { "`{json:/id}`".to_owned() } else { of(&event.id) };
        lines.push(format!("event: id {id}, type `{{json:/type}}`, and the other members of the envelope"));
    } else {
        let id = if event.id.is_empty() { "the SHA-256 of the body".to_owned() } else { of(&event.id) };
        lines.push(format!("event: id {id}, type {}", of(&event.event_type)));
        lines.push(format!("       time {}, organization {}", of(&event.time), of(&event.organization)));
    }
    lines
}

fn piece(piece: &Piece) -> String {
    match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Body => "{body}".to_owned(),
        Piece::Timestamp => "{timestamp}".to_owned(),
        Piece::Url => "{url}".to_owned(),
        Piece::UrlUnescaped => "{url-unescaped}".to_owned(),
        Piece::Path => "{path}".to_owned(),
        Piece::Method => "{method}".to_owned(),
        Piece::Key => "{key}".to_owned(),
        Piece::Form => "{form}".to_owned(),
        Piece::Headers(name) => format!("{{headers:{name}}}"),
        Piece::Crc32 => "{crc32}".to_owned(),
        Piece::Sns => "{sns}".to_owned(),
        Piece::Place(place) => braces(place),
    }
}

fn part(part: &Part) -> String {
    match part {
        Part::Literal(text) => text.clone(),
        Part::Place(place) => braces(place),
    }
}

fn braces(place: &Place) -> String {
    match place {
        Place::Header(name) => format!("{{header:{name}}}"),
        Place::Entry(label) => format!("{{entry:{label}}}"),
        other => format!("{{{other}}}"),
    }
}

/// A `[[source]]` to paste.
fn source(scheme: &Scheme) -> String {
    let name = &scheme.name;
    let variable = format!("{}_WEBHOOK_SECRET", name.to_uppercase().replace('-', "_"));
    let public = scheme.rows.iter().any(|row| row.signature.algorithm.is_public());
    let comment = match scheme.rows.first().map(|row| (row.signature.algorithm, row.key.encoding)) {
        Some((Algorithm::Basic, _)) => "   # USER:PASSWORD",
        Some((Algorithm::JwtEs256, _)) => "   # CLIENT_ID:SECRET",
        Some((algorithm, _)) if algorithm.is_rsa() => "   # see above; it is no secret",
        Some((_, KeyEncoding::Hex)) if public => "   # the public key, in hexadecimal",
        _ if public => "   # the public key",
        _ => "",
    };
    let mut lines = vec![
        "[[source]]".to_owned(),
        format!("name = \"{name}\""),
        format!("path = \"/webhooks/{name}\""),
        format!("scheme = \"{name}\""),
    ];
    if scheme.signs_url() {
        lines.push(format!(
            "url = \"https://hooks.example.com/webhooks/{name}\"   # to the letter as the sender has it"
        ));
    }
    match scheme.brings_key() {
        true => lines.push(format!("# The sender brings its key, after `posthouse senders learn {name}`.")),
        false => lines.push(format!("secrets = [{{ env = \"{variable}\" }}]{comment}")),
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use posthouse_model::config::Environment;

    use super::*;

    /// An environment in which every variable has a key that fits any algorithm of text, and no other.
    struct Everywhere;

    impl Environment for Everywhere {
        fn variable(&self, _: &str) -> Option<OsString> {
            Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into())
        }
    }

    #[test]
    fn what_is_to_be_pasted_is_a_configuration() {
        for scheme in shipped() {
            let text = source(scheme);
            let loaded = Loaded::parse(&text, Path::new("config.toml"), &Everywhere, Secrets::All);
            let loaded = loaded.unwrap_or_else(|error| panic!("{text}\n{error}"));
            assert_eq!(loaded.config.sources[0].scheme.name, scheme.name);
            assert!(scheme.rows.iter().all(|row| told(row).len() >= 3), "{scheme:?}");
        }
    }
}
