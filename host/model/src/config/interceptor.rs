//! `[[interceptor]]`: a sender that waits for a decision.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::{
    Respond, Scheme, Secret, Source,
    diagnose::shown,
    scheme::{About, Row},
    sections::{check_name, source_secrets},
    table::{Fault, Table, Value},
    value::{duration, list, pointer, text, url_path, word},
};
use crate::{Pattern, Pointer, Question, Redact, SourceName, Triggers};

/// The values of a request that are masked unless `redact` says otherwise: mail addresses and the person's address.
const REDACTED: [&str; 4] = [
    "/interceptor_context/user_email",
    "/interceptor_context/ip_address",
    "/interceptor_context/auth_request/login_hint",
    "/data/user/email",
];

/// The shortest and the longest deadline. Scalekit waits at most 30 s.
const DEADLINES: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(29);

/// The prefixes of the headers, the sender's own first.
const FAMILIES: [&str; 2] = ["interceptor-", "webhook-"];

/// How Scalekit signs the requests of interceptors: as Standard Webhooks, under its own prefix or that of webhooks. Which of
/// the two arrives is not documented.
static SCHEME: LazyLock<Option<Arc<Scheme>>> = LazyLock::new(|| {
    let standard = Scheme::named("standard-webhooks")?;
    let row = Row {
        name: "scalekit-interceptor".into(),
        families: FAMILIES.map(str::to_owned).to_vec(),
        ..Row::clone(standard.rows.first()?)
    };
    let about = About { title: Some("Scalekit, interceptors".to_owned()), ..About::default() };
    let (name, rows) = ("scalekit-interceptor".into(), vec![Arc::new(row)]);
    Some(Arc::new(Scheme { name, rows, body_id: false, catch_up: None, about }))
});

/// `[[interceptor]]`: a path at which a sender asks, and waits for ALLOW or DENY.
#[derive(Debug, Clone, PartialEq)]
pub struct Interceptor {
    /// How its requests are verified and masked. The name is `interceptor:` and that in config.toml.
    pub source: Source,
    /// The triggers that it answers.
    pub triggers: Triggers,
    /// The plugin that decides.
    pub plugin: String,
    /// The time from the request to the answer; 2.5 s by default.
    pub deadline: Duration,
    /// The answer if there is no decision; DENY by default.
    pub on_failure: OnFailure,
    /// Whether the sender gets the decision; else it always gets ALLOW. True by default.
    pub enforce: bool,
}

/// The answer of an interceptor without a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// DENY.
    Deny,
    /// ALLOW.
    Allow,
}

impl OnFailure {
    /// Whether it allows.
    pub fn allows(self) -> bool {
        self == Self::Allow
    }

    /// The word in config.toml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

impl Interceptor {
    /// The name in config.toml.
    pub fn name(&self) -> &str {
        self.source.name.as_str().strip_prefix(Question::SOURCE).unwrap_or(self.source.name.as_str())
    }
}

/// Reads every `[[interceptor]]`. A second one with the same name or path is a problem, and so is the path of a source.
pub(super) fn interceptors(root: &mut Table<'_>, sources: &[Source]) -> Vec<Interceptor> {
    let Some(value) = root.value("interceptor") else { return Vec::new() };
    let Some(items) = value.items() else {
        value.parsed(|value| Err::<(), _>(value.mistyped("[[interceptor]] for each interceptor")));
        return Vec::new();
    };
    let document = root.document;
    let mut interceptors = Vec::new();
    let (mut names, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for item in items {
        let Some(mut table) = item.parsed(Value::table) else { continue };
        let interceptor = interceptor(&mut table);
        let (name_at, path_at) = (table.at("name"), table.at("path"));
        table.finish();
        let Some(interceptor) = interceptor else { continue };
        let once = |seen: &mut BTreeMap<String, usize>, what: &str, text: &str, at| {
            if let Some(first) = seen.insert(text.to_owned(), at) {
                let first = document.line(first);
                let message = format!("`interceptor.{what}` is `{text}`, as on line {first}; take another");
                document.problem(at, message);
            }
        };
        once(&mut names, "name", interceptor.name(), name_at);
        once(&mut paths, "path", &interceptor.source.path, path_at);
        if let Some(source) = sources.iter().find(|source| source.path == interceptor.source.path) {
            let message = format!(
                "`interceptor.path` is `{}`, as is that of the source `{}`; take another",
                source.path, source.name
            );
            document.problem(path_at, message);
        }
        interceptors.push(interceptor);
    }
    interceptors
}

fn interceptor(table: &mut Table<'_>) -> Option<Interceptor> {
    let scheme = SCHEME.clone()?;
    let name = table.required("name", "\"signup\"", name);
    let path = table.required("path", "\"/interceptors/signup\"", url_path);
    let secrets =
        table.required("secrets", "[{ env = \"INTERCEPTOR_SECRET\" }]", |value| secrets(value, &scheme));
    let triggers = table.required("triggers", "[\"PRE_SIGNUP\"]", triggers);
    let plugin = table.required("plugin", "\"signup-policy\"", plugin);
    let mut deadline = Duration::from_millis(2500);
    table.read("deadline", &mut deadline, duration(DEADLINES));
    let mut on_failure = OnFailure::Deny;
    table.read(
        "on_failure",
        &mut on_failure,
        word(&[("deny", OnFailure::Deny), ("allow", OnFailure::Allow)]),
    );
    let mut enforce = true;
    table.read("enforce", &mut enforce, flag);
    let mut tolerance = scheme.tolerance().unwrap_or(Duration::from_mins(5));
    table.read("tolerance", &mut tolerance, duration(Duration::from_secs(1)..=Duration::from_hours(24)));
    let masked = || REDACTED.iter().filter_map(|text| Pointer::new(text).ok()).collect();
    let redact = table.optional("redact", list(pointer, "[\"/data/user/email\"]")).unwrap_or_else(masked);
    let source = Source {
        name: name?,
        path: path?,
        scheme,
        url: None,
        secrets: secrets?,
        brings_key: false,
        verify_token: None,
        tolerance,
        events: vec![Pattern::new("*").ok()?],
        redact: Redact::new(redact),
        respond: Respond::Accepted,
        rate: None,
        catch_up: None,
        headers: Vec::new(),
        keeps_signatures: false,
    };
    Some(Interceptor { source, triggers: triggers?, plugin: plugin?, deadline, on_failure, enforce })
}

/// The name, as that of a source.
fn name(value: &Value<'_>) -> Result<SourceName, Fault> {
    let name = text(value)?;
    check_name("interceptor", name, value);
    SourceName::new(&format!("{}{name}", Question::SOURCE))
        .map_err(|error| value.fault(format_args!("is wrong: {error}")))
}

fn plugin(value: &Value<'_>) -> Result<String, Fault> {
    let name = text(value)?;
    check_name("plugin", name, value);
    Ok(name.to_owned())
}

fn secrets(value: &Value<'_>, scheme: &Scheme) -> Result<Vec<Secret>, Fault> {
    source_secrets(value, Some(scheme))
}

/// The list of triggers.
fn triggers(value: &Value<'_>) -> Result<Triggers, Fault> {
    let texts = list(|value: &Value<'_>| text(value).map(str::to_owned), "[\"PRE_SIGNUP\"]")(value)?;
    Triggers::new(texts.iter().map(String::as_str)).map_err(|error| {
        value.fault(format_args!(
            "holds what is no trigger ({error}); write such as \"PRE_SIGNUP\", or \"*\" for all"
        ))
    })
}

/// `true` or `false`.
fn flag(value: &Value<'_>) -> Result<bool, Fault> {
    let wanted = "true or false";
    value.get().as_bool().ok_or_else(|| match value.get().as_str() {
        Some(text) => {
            value.fault(format_args!("is the text `{}`; write {wanted} without quotes", shown(text)))
        }
        None => value.mistyped(wanted),
    })
}
