//! Reads the sections of config.toml, key by key, into checked types.
//!
//! Each function here is the list of a section's keys with their ranges. A key that no function reads is
//! unknown, and the shipped config.toml must show each key that one reads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use super::{
    Admin, Breaker, Compile, Config, DEMO_SECRET, DatabaseSettings, DatabaseTarget, Http, Limits, Log,
    LogFormat, MailTarget, MailTransport, PluginSettings, Plugins, Rate, Respond, Retry, Scheme, Secret,
    Server, Source, Store, Telemetry,
    database::{database_url, function_name, named_database},
    diagnose::shown,
    egress::{headers, is_local},
    interceptor::interceptors,
    kept,
    scheme::{KeyEncoding, Row, own_schemes},
    secret::{reference, secret},
    table::{Fault, Table, Value},
    value::{
        address, as_guest_text, collector, duration, host_name, integer, list, log_level, mail_url,
        nameserver, network, number, one_line, order_by, path, pattern, pointer, public_url, recipient,
        scheme, sender, size, source_name, store_url, text, url_path, word,
    },
};
use crate::{Grants, MailGrant, Pattern, Redact, SourceName};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// The default size limit of an SQLite database, in bytes.
const DATABASE_SIZE: u64 = GIB;
const TEN_YEARS: Duration = Duration::from_secs(10 * 31_557_600);

/// Reads all of config.toml. A wrong value keeps its default, and the document records the problem.
pub(super) fn config(root: &mut Table<'_>) -> Config {
    let dir = root.document.dir.clone();
    let mut config = Config {
        server: Server::default(),
        admin: Admin::default(),
        store: Store::default(),
        mail: MailTransport::default(),
        http: Http::default(),
        databases: BTreeMap::new(),
        log: Log::default(),
        telemetry: Telemetry::default(),
        plugins: Plugins::default(),
        schemes: BTreeMap::new(),
        sources: Vec::new(),
        interceptors: Vec::new(),
        plugin: BTreeMap::new(),
    };
    config.store.path = dir.join(config.store.path);
    config.plugins.dir = dir.join(config.plugins.dir);
    if let MailTarget::Folder(folder) = &mut config.mail.target {
        *folder = dir.join(&folder);
    }

    root.table("server", |table| server(table, &mut config.server));
    root.table("admin", |table| admin(table, &mut config.admin, &config.server));
    root.table("store", |table| store(table, &mut config.store));
    root.table("mail", |table| mail(table, &mut config.mail));
    root.table("http", |table| http(table, &mut config.http));
    let databases = databases(root, &mut config);
    root.table("log", |table| log(table, &mut config.log));
    root.table("telemetry", |table| telemetry(table, &mut config.telemetry));
    root.table("plugins", |table| plugins(table, &mut config.plugins));
    config.schemes = own_schemes(root);
    config.sources = sources(root, &config.schemes);
    config.interceptors = interceptors(root, &config.sources);
    if let Some(tables) = root.optional("plugin", Value::table) {
        let known =
            Known { defaults: &config.plugins.defaults, databases: &databases, sources: &config.sources };
        config.plugin = tables
            .entries()
            .filter_map(|(name, value)| Some((name.to_owned(), plugin(name, &value, &known)?)))
            .collect();
    }
    for source in &mut config.sources {
        let mut grants = config.plugin.values().map(|plugin| &plugin.grants);
        source.keeps_signatures = grants.any(|grants| grants.signatures.contains(&source.name));
    }
    config
}

/// What the sections before `[plugin.<name>]` say.
struct Known<'a> {
    defaults: &'a PluginSettings,
    databases: &'a [&'a str],
    sources: &'a [Source],
}

fn server(table: &mut Table<'_>, server: &mut Server) {
    table.read("listen", &mut server.listen, address);
    table.read("max_body", &mut server.max_body, size(KIB..=32 * MIB));
    table.read("max_requests", &mut server.max_requests, integer(1..=65_536));
    table.read("header_timeout", &mut server.header_timeout, duration(millis(100)..=minutes(10)));
    table.read("body_timeout", &mut server.body_timeout, duration(millis(100)..=minutes(10)));
    table.read("idle_timeout", &mut server.idle_timeout, duration(millis(100)..=hours(1)));
    server.trusted_proxies =
        table.optional("trusted_proxies", list(network, "[\"127.0.0.1\"]")).unwrap_or_default();
    table.read("shutdown_timeout", &mut server.shutdown_timeout, duration(Duration::ZERO..=minutes(10)));
}

fn admin(table: &mut Table<'_>, admin: &mut Admin, server: &Server) {
    table.read("listen", &mut admin.listen, address);
    if admin.listen == server.listen && admin.listen.port() != 0 {
        let message = format!("`admin.listen` is {}, as is `server.listen`; take another port", admin.listen);
        table.document.problem(table.at("listen"), message);
    }
    admin.token = table.optional("token", |value| {
        let token = secret(value)?;
        match token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(token),
            false => Err(value.fault("holds what is not visible ASCII, which a bearer token must be")),
        }
    });
    admin.hosts = table.optional("hosts", list(host_name, "[\"posthouse\"]")).unwrap_or_default();
}

fn store(table: &mut Table<'_>, store: &mut Store) {
    table.read("url", &mut store.path, |value| {
        let file = store_url(value)?;
        value.document.leads(value, &file);
        Ok(file)
    });
    store.state = table.optional("state", path);
    table.read("retention", &mut store.retention, duration(secs(1)..=TEN_YEARS));
    table.read("max_backlog", &mut store.max_backlog, integer(1..=1_000_000_000));
    table.read("min_free", &mut store.min_free, size(0..=TIB));
    store.max_size = table.optional("max_size", size(MIB..=1024 * TIB));
}

fn mail(table: &mut Table<'_>, mail: &mut MailTransport) {
    table.read("url", &mut mail.target, |value| {
        let target = mail_url(value)?;
        if let MailTarget::Folder(folder) = &target {
            value.document.leads(value, folder);
        }
        Ok(target)
    });
    table.table("retry", |table| retry(table, &mut mail.retry));
}

fn http(table: &mut Table<'_>, http: &mut Http) {
    http.ca = table.optional("ca", path);
    table.read("nameservers", &mut http.nameservers, list(nameserver, "[\"127.0.0.1:53\"]"));
    table.read("timeout", &mut http.timeout, duration(millis(100)..=minutes(10)));
    table.table("retry", |table| retry(table, &mut http.retry));
    table.read("retry_after", &mut http.retry_after, duration(Duration::ZERO..=days(30)));
}

fn log(table: &mut Table<'_>, log: &mut Log) {
    table.read("level", &mut log.level, log_level);
    table.read("format", &mut log.format, word(&[("human", LogFormat::Human), ("json", LogFormat::Json)]));
}

fn telemetry(table: &mut Table<'_>, telemetry: &mut Telemetry) {
    telemetry.otlp = table.optional("otlp", collector);
    if let Some(own) = table.optional("header", Value::table) {
        telemetry.header = headers(&own);
    }
    table.read("sample", &mut telemetry.sample, number(0.0..=1.0));
    table.read("service_name", &mut telemetry.service_name, one_line);
    if let Some(url) = &telemetry.otlp
        && url.scheme() == "http"
        && !telemetry.header.is_empty()
        && !is_local(url.host())
    {
        let message = "the headers for the collector go in clear; say https://";
        table.document.warn(table.at("otlp"), message);
    }
}

fn plugins(table: &mut Table<'_>, plugins: &mut Plugins) {
    table.read("dir", &mut plugins.dir, path);
    table.read("rescan", &mut plugins.rescan, duration(millis(50)..=minutes(60)));
    table.read("instances", &mut plugins.instances, integer(1..=1024));
    table.table("compile", |table| compile(table, &mut plugins.compile));
    running(table, &mut plugins.defaults);
}

fn compile(table: &mut Table<'_>, compile: &mut Compile) {
    compile.memory = table.optional("memory", size(128 * MIB..=TIB));
    table.read("time", &mut compile.time, duration(secs(1)..=minutes(60)));
}

/// Reads the keys that `[plugins]` sets for all plugins and `[plugin.<name>]` for one.
fn running(table: &mut Table<'_>, settings: &mut PluginSettings) {
    table.read("concurrency", &mut settings.concurrency, integer(1..=1024));
    table.read("reuse", &mut settings.reuse, integer(1..=1_000_000));
    table.table("retry", |table| retry(table, &mut settings.retry));
    table.table("breaker", |table| breaker(table, &mut settings.breaker));
    table.table("limits", |table| limits(table, &mut settings.limits));
}

/// Reads every `[databases.<name>]`. Returns all names, including those of databases that could not be read.
fn databases<'a>(root: &mut Table<'a>, config: &mut Config) -> Vec<&'a str> {
    let Some(tables) = root.optional("databases", Value::table) else { return Vec::new() };
    let mut names = Vec::new();
    for (name, value) in tables.entries() {
        names.push(name);
        check_name("database", name, &value);
        let Some(mut table) = value.parsed(Value::table) else { continue };
        let settings = database(&mut table);
        table.finish();
        config.databases.extend(settings.map(|settings| (name.to_owned(), settings)));
    }
    names
}

fn database(table: &mut Table<'_>) -> Option<DatabaseSettings> {
    let target = table.required("url", "\"sqlite:data/app.db\"", |value| {
        let target = database_url(value)?;
        if let DatabaseTarget::Sqlite(file) = &target {
            value.document.leads(value, file);
        }
        Ok(target)
    });
    let (mut pool, mut statement_timeout) = (8, secs(5));
    table.read("pool", &mut pool, integer(1..=256));
    table.read("statement_timeout", &mut statement_timeout, duration(millis(10)..=minutes(10)));
    let ca = table.optional("ca", path);
    let functions = table.optional("functions", list(function_name, "[\"similarity\"]"));
    let functions = functions.into_iter().flatten().collect();
    let max_size = table.optional("max_size", size(MIB..=1024 * TIB));
    let target = target?;
    let max_size = match &target {
        DatabaseTarget::Sqlite(_) => max_size.or(Some(DATABASE_SIZE)),
        DatabaseTarget::Postgres(_) => max_size,
    };
    Some(DatabaseSettings { target, pool, statement_timeout, ca, max_size, functions })
}

fn retry(table: &mut Table<'_>, retry: &mut Retry) {
    table.read("attempts", &mut retry.attempts, integer(1..=1000));
    table.read("base", &mut retry.base, duration(Duration::ZERO..=days(1)));
    table.read("factor", &mut retry.factor, number(1.0..=100.0));
    table.read("max", &mut retry.max, duration(Duration::ZERO..=days(30)));
    table.read("jitter", &mut retry.jitter, number(0.0..=1.0));
    if retry.max < retry.base {
        let message =
            format!("`{}` is shorter than `base`, the first wait; write a longer one", table.path("max"));
        table.document.problem(table.at("max"), message);
    }
}

fn breaker(table: &mut Table<'_>, breaker: &mut Breaker) {
    table.read("failures", &mut breaker.failures, integer(0..=1_000_000));
    table.read("pause", &mut breaker.pause, duration(millis(100)..=days(1)));
    table.read("max_pause", &mut breaker.max_pause, duration(millis(100)..=days(30)));
    if breaker.max_pause < breaker.pause {
        let message = format!(
            "`{}` is shorter than `pause`, the first one; write a longer one",
            table.path("max_pause")
        );
        table.document.problem(table.at("max_pause"), message);
    }
}

fn limits(table: &mut Table<'_>, limits: &mut Limits) {
    table.read("time", &mut limits.time, duration(millis(10)..=minutes(10)));
    table.read("memory", &mut limits.memory, size(64 * KIB..=512 * MIB));
    table.read("log_lines", &mut limits.log_lines, integer(0..=100_000));
    table.read("log_line", &mut limits.log_line, size(64..=MIB));
    table.read("reason", &mut limits.reason, size(64..=64 * KIB));
    table.read("kv_key", &mut limits.kv_key, size(1..=4 * KIB));
    table.read("kv_value", &mut limits.kv_value, size(1..=16 * MIB));
    table.read("kv_total", &mut limits.kv_total, size(0..=TIB));
    table.read("http_fetches", &mut limits.http_fetches, integer(0..=100_000));
    table.read("http_time", &mut limits.http_time, duration(millis(10)..=minutes(10)));
    table.read("http_request", &mut limits.http_request, size(KIB..=64 * MIB));
    table.read("http_response", &mut limits.http_response, size(KIB..=64 * MIB));
    table.read("http_headers", &mut limits.http_headers, size(KIB..=256 * KIB));
    table.read("staged_items", &mut limits.staged_items, integer(1..=100_000));
    table.read("staged_bytes", &mut limits.staged_bytes, size(KIB..=64 * MIB));
    table.read("sql_rows", &mut limits.sql_rows, integer(1..=1_000_000));
    table.read("sql_bytes", &mut limits.sql_bytes, size(KIB..=64 * MIB));
    table.read("hostcall", &mut limits.hostcall, size(64 * KIB..=64 * MIB));
}

/// Reads every `[[source]]`. A second one with the same name or path is a problem.
fn sources(root: &mut Table<'_>, schemes: &BTreeMap<String, Arc<Scheme>>) -> Vec<Source> {
    let Some(value) = root.value("source") else { return Vec::new() };
    let Some(items) = value.items() else {
        value.parsed(|value| Err::<(), _>(value.mistyped("[[source]] for each sender")));
        return Vec::new();
    };
    let document = root.document;
    let mut sources = Vec::new();
    let (mut names, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for item in items {
        let Some(mut table) = item.parsed(Value::table) else { continue };
        let source = source(&mut table, schemes);
        let (name_at, path_at) = (table.at("name"), table.at("path"));
        table.finish();
        let Some(source) = source else { continue };
        let once = |seen: &mut BTreeMap<String, usize>, what: &str, text: &str, at| {
            if let Some(first) = seen.insert(text.to_owned(), at) {
                let message =
                    format!("`source.{what}` is `{text}`, as on line {}; take another", document.line(first));
                document.problem(at, message);
            }
        };
        once(&mut names, "name", source.name.as_str(), name_at);
        once(&mut paths, "path", &source.path, path_at);
        sources.push(source);
    }
    sources
}

fn source(table: &mut Table<'_>, schemes: &BTreeMap<String, Arc<Scheme>>) -> Option<Source> {
    let everything = vec![Pattern::new("*").ok()?];
    let named = table.optional("name", source_name);
    let path = table.required("path", "\"/webhooks/scalekit\"", url_path);
    let scheme = table.required("scheme", "\"scalekit\"", scheme(schemes));
    let by_scheme = || SourceName::new(&scheme.as_ref()?.name).ok();
    let name = if table.has("name") { named } else { by_scheme() };
    let brings_key = scheme.as_ref().is_some_and(|scheme| scheme.brings_key()) && !table.has("secrets");
    let secrets = match brings_key {
        true => Some(Vec::new()),
        false => table.required("secrets", "[{ env = \"WEBHOOK_SECRET\" }]", |value| {
            source_secrets(value, scheme.as_deref())
        }),
    };
    let verify_token = table.optional("verify_token", secret);
    let url = table.optional("url", public_url);
    let by_scheme = scheme.as_ref().and_then(|scheme| scheme.tolerance());
    if let Some(scheme) = &scheme {
        if scheme.signs_url() && !table.has("url") {
            let message = format!(
                "`{}` is missing; scheme `{}` signs it: write the address that the sender has, such as url = \
                 \"https://hooks.example.com/webhooks/{}\"",
                table.path("url"),
                scheme.name,
                scheme.name
            );
            table.document.problem(table.at("scheme"), message);
        }
        if scheme.wants_verify_token() && !table.has("verify_token") {
            let message = format!(
                "`{}` is missing: without it posthouse refuses the request with which {} tests the URL",
                table.path("verify_token"),
                scheme.title()
            );
            table.document.warn(table.at("scheme"), message);
        }
        if by_scheme.is_none() && table.has("tolerance") {
            let message = format!(
                "`{}` has no effect: scheme `{}` signs no time",
                table.path("tolerance"),
                scheme.name
            );
            table.document.warn(table.at("tolerance"), message);
        }
    }
    let mut tolerance = by_scheme.unwrap_or(minutes(5));
    table.read("tolerance", &mut tolerance, duration(secs(1)..=days(7)));
    let events = table.optional("events", list(pattern, "[\"user.*\"]")).unwrap_or(everything);
    let mut handled = false;
    table.read("respond", &mut handled, word(&[("accepted", false), ("handled", true)]));
    let mut within = secs(8);
    table.read("respond_timeout", &mut within, duration(millis(100)..=minutes(1)));
    let respond = if handled { Respond::Handled { within } } else { Respond::Accepted };
    let mut rate = None;
    table.table("rate", |table| rate = self::rate(table));
    let mut catch_up = None;
    table.table("catch_up", |table| catch_up = super::catch_up::catch_up(table, scheme.as_deref()));
    let redact = table.optional("redact", list(pointer, "[\"/data/user/email\"]")).unwrap_or_default();
    let headers = table.optional("headers", |value| kept::headers(value, scheme.as_deref()));
    Some(Source {
        name: name?,
        path: path?,
        scheme: scheme?,
        url,
        secrets: secrets?,
        brings_key,
        verify_token,
        tolerance,
        events,
        redact: Redact::new(redact),
        respond,
        rate,
        catch_up,
        headers: headers.unwrap_or_default(),
        keeps_signatures: false,
    })
}

fn rate(table: &mut Table<'_>) -> Option<Rate> {
    let per_second = table.required("per_second", "50", number(0.01..=1_000_000.0));
    let burst = table.optional("burst", integer(1..=1_000_000));
    let per_second = per_second?;
    // `per_second` is in its range, so the cast loses nothing.
    Some(Rate { per_second, burst: burst.unwrap_or(per_second.ceil() as u32) })
}

/// The secrets of a source. The list is empty only if secrets are not resolved.
pub(super) fn source_secrets(value: &Value<'_>, scheme: Option<&Scheme>) -> Result<Vec<Secret>, Fault> {
    let read = |value: &Value<'_>| match secret(value) {
        Ok(secret) => {
            if secret.expose() == DEMO_SECRET {
                let message = "the demo secret is in use, which everybody knows: anybody can sign webhooks; \
                               say { env = \"NAME\" } with the secret of the sender's dashboard";
                value.document.warn(value.at(), message);
            } else if let Some(length) = short(secret.expose(), scheme) {
                let message = format!(
                    "`{}` has {length}, which can be guessed; have the sender make a longer one",
                    value.key
                );
                value.document.warn(value.at(), message);
            }
            Ok(Some(secret))
        }
        Err(Fault::Unread) => Ok(None),
        Err(fault) => Err(fault),
    };
    let secrets = list(read, "[{ env = \"WEBHOOK_SECRET\" }]")(value)?;
    Ok(secrets.into_iter().flatten().collect())
}

/// The length of a secret that is short enough to be guessed, for a message. A base64 key needs 24 bytes, which
/// Standard Webhooks asks for; a text needs 16 characters.
fn short(secret: &str, scheme: Option<&Scheme>) -> Option<String> {
    let rows = scheme.map(|scheme| &*scheme.rows).unwrap_or_default();
    if rows.iter().any(|row| row.signature.algorithm.is_public()) || secret.starts_with("whpk_") {
        return None;
    }
    let is_of = |encoding| move |row: &Arc<Row>| row.key.encoding == encoding;
    let (prefix, bare) = match secret.strip_prefix("whsec_") {
        Some(bare) => (true, bare),
        None => (false, secret),
    };
    // With several rows, a text without the prefix may be meant as it is.
    let is_base64 = match rows {
        [] => false,
        [only] => is_of(KeyEncoding::Base64)(only),
        several => prefix && several.iter().any(is_of(KeyEncoding::Base64)),
    };
    if bare.is_empty() {
        return None;
    }
    let key = match rows {
        [only] if is_of(KeyEncoding::Hex)(only) => hex::decode(bare).ok(),
        _ if is_base64 => STANDARD_NO_PAD.decode(bare.trim_end_matches('=')).ok(),
        _ => None,
    };
    match key {
        Some(key) => (key.len() < 24).then(|| format!("a key of {} bytes", key.len())),
        None => {
            let characters = secret.chars().count();
            (characters < 16).then(|| format!("{characters} characters"))
        }
    }
}

/// Reads `[plugin.<name>]` over the defaults of `[plugins]`.
fn plugin(name: &str, value: &Value<'_>, known: &Known<'_>) -> Option<PluginSettings> {
    check_name("plugin", name, value);
    let mut settings = known.defaults.clone();
    let mut table = value.parsed(Value::table)?;
    settings.component = table.optional("component", component).filter(|component| component != name);
    settings.events = table.optional("events", list(pattern, "[\"user.*\"]"));
    settings.order_by = table.optional("order_by", order_by);
    running(&mut table, &mut settings);
    table.table("rate", |table| settings.rate = rate(table));
    table.table("grants", |table| grants(table, &mut settings.grants, known));
    if let Some(own) = table.optional("config", Value::table) {
        settings.config = own
            .entries()
            .filter_map(|(key, value)| Some((key.to_owned(), value.parsed(own_value)?)))
            .collect();
    }
    table.finish();
    Some(settings)
}

/// The name of a file in the plugins folder, without `.wasm`.
fn component(value: &Value<'_>) -> Result<String, Fault> {
    let name = text(value)?;
    if is_name(name) {
        return Ok(name.to_owned());
    }
    let way_out = match name.strip_suffix(".wasm").filter(|name| is_name(name)) {
        Some(stem) => format!("write \"{stem}\""),
        None => {
            "write the name of a file in the plugins folder, such as \"forward\" for forward.wasm".to_owned()
        }
    };
    Err(value.fault(format_args!("is `{}`, which is no name of a plugin; {way_out}", shown(name))))
}

/// Whether a text is a name of the operator's: 1 to 64 of `a-z 0-9 - _`, beginning with a letter or digit.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 64 && name.starts_with(plain) && name.chars().all(|c| plain(c) || matches!(c, '-' | '_'))
}

/// Checks a name that the operator chooses and that is part of a key.
pub(super) fn check_name(what: &str, name: &str, value: &Value<'_>) {
    if !is_name(name) {
        let message = format!(
            "`{}` is no name of a {what}; one is 1 to 64 of `a-z 0-9 - _` and begins with a letter or digit",
            shown(name)
        );
        value.document.problem(value.at(), message);
    }
}

fn grants(table: &mut Table<'_>, grants: &mut Grants, known: &Known<'_>) {
    table.table("mail", |table| {
        let from = table.required("from", "[\"team@example.com\"]", list(sender, "[\"team@example.com\"]"));
        let to = table.required("to", "[\"*\"]", list(recipient, "[\"*\"]"));
        grants.mail = from.zip(to).map(|(from, to)| MailGrant { from, to });
    });
    let example = "[\"https://api.example.com\"]";
    grants.http = table.optional("http", list(super::egress::grant, example)).unwrap_or_default();
    grants.database = table.optional("database", |value| named_database(value, known.databases));
    table.read("emit", &mut grants.emit, list(pattern, "[\"seat.*\"]"));
    let signed = list(|value| kept::signed_source(value, known.sources), "[\"github\"]");
    table.read("signatures", &mut grants.signatures, signed);
}

/// Reads a value of a plugin's own table: a reference to a secret, or else the value itself.
fn own_value(value: &Value<'_>) -> Result<Secret, Fault> {
    match reference(value) {
        Some(_) => secret(value),
        None => as_guest_text(value).map(Secret::new),
    }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) const fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

pub(super) const fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}
