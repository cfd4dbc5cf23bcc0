//! The shipped config.toml runs unchanged, and shows every key with its default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::Path,
    process::Command,
};

use posthouse_harness::workspace;
use posthouse_model::config::{DEMO_SECRET, Environment, Loaded, Secrets};

/// An environment without variables: the file needs none.
struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<OsString> {
        None
    }
}

/// An environment with everything that its commented lines refer to.
struct Anything;

impl Environment for Anything {
    fn variable(&self, name: &str) -> Option<OsString> {
        let key = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        Some(if name == "API_SECRET" { key } else { "set" }.into())
    }
}

fn shipped() -> String {
    std::fs::read_to_string(workspace().join("config.toml")).unwrap()
}

fn load(text: &str, environment: &dyn Environment) -> Loaded {
    Loaded::parse(text, Path::new("config.toml"), environment, Secrets::All).unwrap()
}

/// The file with its `# key = value` lines enabled.
fn uncommented(text: &str) -> String {
    let live = |line: &str| {
        let bare = line.strip_prefix("# ")?;
        let (key, _) = bare.split_once(" = ")?;
        key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then(|| bare.to_owned())
    };
    text.lines().map(|line| live(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn check_finds_nothing_wrong_with_it_and_warns_of_the_demo_secret() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), shipped()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .arg("check")
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stdout.starts_with("config.toml: ok\nsource scalekit: /webhooks/scalekit, scheme scalekit\n"));
    let warnings: Vec<_> =
        stderr.lines().map(|line| line.strip_prefix("posthouse: warning: ").unwrap()).collect();
    assert!(warnings[0].contains("the demo secret is in use"), "{warnings:?}");
    // This folder has none of the plugins that have a table in the file.
    let plugins = ["access", "login-monitor", "seat-billing", "user-sync", "welcome-email", "workspace"];
    assert_eq!(warnings.len(), 1 + plugins.len(), "{warnings:?}");
    for (warning, plugin) in warnings[1..].iter().zip(plugins) {
        assert!(warning.contains(&format!("{plugin}.wasm")), "{warning}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().count() == 1, "check left something behind");
}

#[test]
fn it_shows_every_key() {
    let shown = toml::from_str::<toml::Table>(&uncommented(&shipped())).unwrap();
    let mut keys = BTreeSet::new();
    gather(&mut keys, "", &toml::Value::Table(shown));

    // Keys that each plugin's table shares with [plugins] are shown once, there.
    let repeated = |key: &str| {
        let mut parts = key.splitn(3, '.');
        let (first, _, rest) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let shared = ["concurrency", "reuse", "retry", "breaker", "limits"];
        first == Some("plugin")
            && shared.iter().any(|key| rest == *key || rest.starts_with(&format!("{key}.")))
    };
    let known = load(&uncommented(&shipped()), &Anything).keys;
    // The keys of a plugin's table are shown once, at welcome-email.
    let shown_elsewhere = |key: &str| key.starts_with("plugin.") && !key.starts_with("plugin.welcome-email");
    let missing: Vec<_> = known
        .iter()
        .filter(|key| !keys.contains(*key) && !repeated(key) && !shown_elsewhere(key))
        // Tables that are shown as comments.
        .filter(|key| !["scheme", "interceptor"].contains(&key.as_str()))
        .collect();
    assert!(missing.is_empty(), "config.toml does not show {missing:?}");
    assert!(known.len() > 50, "{known:?}");
}

#[test]
fn the_page_explains_every_key() {
    let page = std::fs::read_to_string(workspace().join("docs/configuration.md")).unwrap();
    let known = load(&uncommented(&shipped()), &Anything).keys;
    let missing: Vec<_> = known
        .iter()
        .filter(|key| !page.contains(&format!("`{}`", key.rsplit('.').next().unwrap())))
        .collect();
    let tables = [
        "server",
        "admin",
        "store",
        "mail",
        "databases",
        "log",
        "telemetry",
        "plugins",
        "source",
        "scheme",
        "interceptor",
        "plugin",
    ];
    let missing: Vec<_> = missing.into_iter().filter(|key| !tables.contains(&key.as_str())).collect();
    assert!(missing.is_empty(), "docs/configuration.md does not explain {missing:?}");
}

#[test]
fn the_page_of_senders_explains_every_key_of_a_scheme_and_lists_every_sender() {
    let page = std::fs::read_to_string(workspace().join("docs/senders.md")).unwrap();
    let whole = r#"[scheme.acme]
families = ["acme-"]
signature = { header = "*signature", entries = ",", label = "v1", also = [{ label = "v1a", algorithm = "ed25519", key = "acme_" }] }
timestamp = { at = "header:*time" }
signed = "{timestamp}.{body}"
key = { prefix = "acme_" }
event = { type = "{json:/type}" }
handshake = [{ method = "HEAD", answer = { json = { a = 1 } } }]
answer = { empty = true }

[scheme.beta]
signature = { header = "x-signature", algorithm = "rsa-sha256", encoding = "base64" }
signed = "{key}{body}"
require = [{ place = "header:x-kind", is = "b" }]
certificate = { at = "header:x-url", from = [{ url = "https://a.example/c", addresses = ["127.0.0.1"] }], name = "a.example" }
event = { type = "b" }
handshake = [{ verified = true, place = "json:/a", confirm = { at = "json:/b", from = ["https://a.example/?*"] } }]"#;
    let keys = load(whole, &Nothing).keys;
    let of_a_scheme = |key: &str| {
        ["scheme.acme.", "scheme.beta."].iter().find_map(|table| key.strip_prefix(table)).map(str::to_owned)
    };
    let own: Vec<_> = keys.iter().filter_map(|key| of_a_scheme(key)).collect();
    assert!(own.len() > 40, "{own:?}");
    let missing: Vec<_> = own
        .into_iter()
        .filter(|key| !page.contains(&format!("`{}`", key.rsplit('.').next().unwrap())))
        .collect();
    assert!(missing.is_empty(), "docs/senders.md does not explain {missing:?}");
    for scheme in posthouse_model::config::scheme::shipped() {
        assert!(
            page.contains(&format!("`{}`", scheme.name)),
            "docs/senders.md does not list {}",
            scheme.name
        );
    }
}

#[test]
fn it_shows_defaults() {
    let (shipped, defaults) = (load(&shipped(), &Nothing).config, load("", &Nothing).config);
    assert_eq!(shipped.server, defaults.server);
    assert_eq!(shipped.admin, defaults.admin);
    assert_eq!(shipped.store, defaults.store);
    assert_eq!(shipped.mail, defaults.mail);
    assert_eq!(shipped.log, defaults.log);
    assert_eq!(shipped.telemetry, defaults.telemetry);
    assert_eq!(shipped.plugins, defaults.plugins);

    let source = &shipped.sources[0];
    let [name, path, scheme] =
        [source.name.as_str(), source.path.as_str(), source.scheme.as_str()].map(|text| format!("{text:?}"));
    let bare =
        format!("[[source]]\nname = {name}\npath = {path}\nscheme = {scheme}\nsecrets = [{DEMO_SECRET:?}]\n");
    assert_eq!(load(&bare, &Nothing).config.sources, shipped.sources, "a source's defaults");
    for settings in shipped.plugin.values() {
        let mut bare = settings.clone();
        bare.grants = defaults.plugins.defaults.grants.clone();
        bare.config = BTreeMap::new();
        assert_eq!(bare, defaults.plugins.defaults, "a plugin's defaults");
    }
}

/// The dotted keys of a value, through tables and arrays of tables.
fn gather(keys: &mut BTreeSet<String>, name: &str, value: &toml::Value) {
    if !name.is_empty() {
        keys.insert(name.to_owned());
    }
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                gather(keys, &name, value);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| gather(keys, name, item)),
        _ => {}
    }
}
