//! Reads one value of config.toml: a duration, a size, a number, an address, a path, a list.
//!
//! Each reader's error names the key, the value and an accepted form. Values in errors are escaped and cut.
//! These readers never get a secret.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::IpNet;
use lettre::{Address, message::Mailbox};
use toml::de::DeValue;
use url::Url;

use super::{
    MailTarget, Scheme, SmtpServer,
    diagnose::{listed, nearest, shown},
    scheme::suggestion,
    secret::secret,
    table::{Fault, Value},
};
use crate::{OrderBy, Pattern, Pointer, SourceName};

/// A text.
pub(super) fn text<'a>(value: &Value<'a>) -> Result<&'a str, Fault> {
    value.get().as_str().ok_or_else(|| value.mistyped("a text in quotes"))
}

/// A duration with its unit, such as `"8s"`, within the range.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Value<'_>) -> Result<Duration, Fault> {
    move |value| {
        let wanted = "a duration with its unit, such as \"8s\", \"5m\" or \"30d\"";
        let text = value.get().as_str().ok_or_else(|| value.mistyped(wanted))?;
        let duration = humantime::parse_duration(text).map_err(|_| {
            value.fault(format_args!("is `{}`, which is no duration; write one such as \"8s\"", shown(text)))
        })?;
        within(value, duration, range, |duration| humantime::format_duration(*duration).to_string())
    }
}

/// A number of bytes, or a size with its unit, such as `"1MiB"`, within the range.
pub(super) fn size<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl FnOnce(&Value<'_>) -> Result<T, Fault> {
    move |value| {
        let bytes = match value.get() {
            DeValue::Integer(_) => u64::try_from(whole(value)?)
                .map_err(|_| value.fault("is no number of bytes; write one, or a size such as \"1MiB\""))?,
            DeValue::String(text) => ByteSize::from_str(text).map(|size| size.as_u64()).map_err(|_| {
                value.fault(format_args!(
                    "is `{}`, which is no size; write one such as \"1MiB\" or a number of bytes",
                    shown(text)
                ))
            })?,
            _ => return Err(value.mistyped("a size such as \"1MiB\" or a number of bytes")),
        };
        let bytes = within(value, bytes, range, |bytes| ByteSize(*bytes).display().iec().to_string())?;
        T::try_from(bytes).map_err(|_| value.fault("is more than this machine can count"))
    }
}

/// A whole number within the range.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl FnOnce(&Value<'_>) -> Result<T, Fault>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let number = whole(value)?;
        match T::try_from(number) {
            Ok(number) => within(value, number, range, ToString::to_string),
            Err(_) => Err(out_of_range(value, number, range.start(), range.end())),
        }
    }
}

/// A number within the range, with or without a decimal point.
pub(super) fn number(range: RangeInclusive<f64>) -> impl FnOnce(&Value<'_>) -> Result<f64, Fault> {
    move |value| {
        let number = match value.get() {
            DeValue::Float(float) => float.as_str().parse().map_err(|_| value.fault("is no number"))?,
            DeValue::Integer(_) => whole(value)? as f64,
            _ => return Err(value.mistyped("a number")),
        };
        within(value, number, range, ToString::to_string)
    }
}

/// An address to listen on, such as `"127.0.0.1:8400"`.
pub(super) fn address(value: &Value<'_>) -> Result<SocketAddr, Fault> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        value.fault(format_args!(
            "is `{}`, which is no IP address with a port; write one such as \"127.0.0.1:8400\" or \"[::1]:8400\"",
            shown(text)
        ))
    })
}

/// A name server: an address, with a port if it is not 53.
pub(super) fn nameserver(value: &Value<'_>) -> Result<SocketAddr, Fault> {
    let text = text(value)?;
    text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53))).map_err(|_| {
        value.fault(format_args!(
            "holds `{}`, which is no IP address; write one such as \"127.0.0.1\" or \"127.0.0.1:5353\"",
            shown(text)
        ))
    })
}

/// A network, or one address.
pub(super) fn network(value: &Value<'_>) -> Result<IpNet, Fault> {
    let text = text(value)?;
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        value.fault(format_args!(
            "holds `{}`, which is no network; write one such as \"10.0.0.0/8\" or \"127.0.0.1\"",
            shown(text)
        ))
    })
}

/// A name that a `Host` header may contain, in lower case: no port, no pattern.
pub(super) fn host_name(value: &Value<'_>) -> Result<String, Fault> {
    let text = text(value)?;
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
    };
    if text.len() <= 253 && (text.split('.').all(label) || text.parse::<IpAddr>().is_ok()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(value.fault(format_args!(
        "holds `{}`, which is no host name; write one such as \"posthouse\", without a port",
        shown(text)
    )))
}

/// A path. A relative one starts at the folder of config.toml.
pub(super) fn path(value: &Value<'_>) -> Result<PathBuf, Fault> {
    match text(value)? {
        "" => Err(value.fault("is empty; write a path")),
        text => Ok(value.document.dir.join(text)),
    }
}

/// `sqlite:` and the path of a file.
pub(super) fn store_url(value: &Value<'_>) -> Result<PathBuf, Fault> {
    let url = text(value)?;
    let way_out = "write \"sqlite:\" and a path, such as \"sqlite:data/posthouse.db\"";
    match url.strip_prefix("sqlite:") {
        Some("" | ":memory:") => Err(value.fault(format_args!("names no file; {way_out}"))),
        Some(file) if !file.ends_with('/') => {
            Ok(value.document.dir.join(file.strip_prefix("//").unwrap_or(file)))
        }
        _ => Err(value.fault(format_args!("is no file of an SQLite store; {way_out}"))),
    }
}

/// `file:` and a folder, or an SMTP server. It may contain a password, so no error shows it.
pub(super) fn mail_url(value: &Value<'_>) -> Result<MailTarget, Fault> {
    let folder = |folder: &str| match folder.strip_prefix("//").unwrap_or(folder) {
        "" => Err(value.fault("names no folder; write one such as \"file:data/mail\"")),
        folder => Ok(MailTarget::Folder(value.document.dir.join(folder))),
    };
    // A folder is no secret, and must not count as a secret in the file.
    if let Some(path) = value.get().as_str().and_then(|text| text.strip_prefix("file:")) {
        return folder(path);
    }
    let url = secret(value)?;
    let text = url.expose();
    if let Some(path) = text.strip_prefix("file:") {
        return folder(path);
    }
    let server = SmtpServer::parse(text).map_err(|problem| {
        value.fault(format_args!(
            "{problem}; write \"file:FOLDER\", \"smtps://USER:PASSWORD@HOST\" or \
             \"smtp://USER:PASSWORD@HOST:587?tls=required\""
        ))
    })?;
    if server.shows_password() {
        let message = "the mail server's password may go in clear; add `?tls=required`, or say smtps://";
        value.document.warn(value.at(), message);
    }
    Ok(MailTarget::Smtp(server))
}

/// The meaning of one of `words`.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Value<'_>) -> Result<T, Fault> {
    move |value| {
        let text = text(value)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let guess = match nearest(text, known.iter().copied()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        Err(value.fault(format_args!("is `{}`, which is none of {}{guess}", shown(text), listed(&known))))
    }
}

/// `true` or `false`.
pub(super) fn truth(value: &Value<'_>) -> Result<bool, Fault> {
    value.get().as_bool().ok_or_else(|| value.mistyped("true or false"))
}

/// The scheme of a source: one of config.toml, or one that posthouse ships.
pub(super) fn scheme(
    own: &BTreeMap<String, Arc<Scheme>>,
) -> impl FnOnce(&Value<'_>) -> Result<Arc<Scheme>, Fault> {
    move |value| {
        let name = text(value)?;
        let found = own.get(name).cloned().or_else(|| Scheme::named(name));
        found.ok_or_else(|| value.fault(suggestion(name, own)))
    }
}

/// The address to which a sender posts: no query, and to the letter as the sender has it.
pub(super) fn public_url(value: &Value<'_>) -> Result<String, Fault> {
    let text = text(value)?;
    let way_out =
        "write the address that the sender has, such as \"https://hooks.example.com/webhooks/acme\"";
    let is_web = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_web || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(value.fault(format_args!("is `{}`, which is no web address; {way_out}", shown(text))));
    }
    if text.contains(['?', '#', '@']) {
        return Err(value.fault(format_args!("has a query, a fragment or a login; {way_out}")));
    }
    Ok(text.to_owned())
}

/// The name of a source. Names with a colon are reserved for derived events.
pub(super) fn source_name(value: &Value<'_>) -> Result<SourceName, Fault> {
    let text = text(value)?;
    match SourceName::new(text) {
        Ok(_) if text.contains(':') => {
            Err(value.fault("holds ':'; letters, digits, `-` and `_` are allowed"))
        }
        named => named.map_err(|error| value.fault(format_args!("is wrong: {error}"))),
    }
}

/// The path of a URL: `/` and letters, digits and `- . _ ~`.
pub(super) fn url_path(value: &Value<'_>) -> Result<String, Fault> {
    let text = text(value)?;
    let odd = text.chars().find(|&c| !(c.is_ascii_alphanumeric() || "/-._~".contains(c)));
    if !text.starts_with('/') {
        Err(value.fault(format_args!("is `{}`, which does not begin with `/`", shown(text))))
    } else if let Some(odd) = odd {
        Err(value.fault(format_args!("holds {odd:?}; a path may have letters, digits and `/ - . _ ~`")))
    } else {
        Ok(text.to_owned())
    }
}

/// The URL of an OpenTelemetry collector: the one in its documentation, with the path for traces.
pub(super) fn collector(value: &Value<'_>) -> Result<Url, Fault> {
    let text = text(value)?;
    // A login in the URL would be a secret, and a query may be one.
    let named =
        if text.contains(['@', '?']) { String::new() } else { format!("is `{}`, which ", shown(text)) };
    let wrong = |problem: &str| {
        let way_out = "write one such as \"http://127.0.0.1:4318\"";
        value.fault(format_args!("{named}{problem}; {way_out}"))
    };
    let mut url = Url::parse(text).map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("is neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a login; `header` is where credentials stand"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a query or a fragment"));
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// A name for people and programs: one line of at most 255 bytes.
pub(super) fn one_line(value: &Value<'_>) -> Result<String, Fault> {
    let text = text(value)?;
    match text {
        "" => Err(value.fault("is empty; write a name")),
        _ if text.len() > 255 => Err(value.fault("is longer than 255 bytes; write a shorter name")),
        _ if text.chars().any(char::is_control) => {
            Err(value.fault("holds a control character; write a name of one line"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// A log filter in tracing-subscriber's syntax.
pub(super) fn log_level(value: &Value<'_>) -> Result<String, Fault> {
    let text = text(value)?;
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(value.fault(format_args!(
            "is `{}`, which is no filter; write \"error\", \"warn\", \"info\", \"debug\", \"trace\" or one \
             such as \"info,posthouse::ingress=debug\"",
            shown(text)
        ))),
    }
}

/// A pattern of event types.
pub(super) fn pattern(value: &Value<'_>) -> Result<Pattern, Fault> {
    let text = text(value)?;
    Pattern::new(text).map_err(|_| {
        value.fault(format_args!(
            "holds `{}`, which is no pattern of event types; `user.created`, `membership.*` and `*` are",
            shown(text)
        ))
    })
}

/// The order key of a plugin's deliveries.
pub(super) fn order_by(value: &Value<'_>) -> Result<OrderBy, Fault> {
    let text = text(value)?;
    OrderBy::new(text).map_err(|_| {
        value.fault(format_args!(
            "is `{}`, which is no order; write \"organization\", \"user\", or a JSON pointer into the body such as \
             \"/data/user/id\"",
            shown(text)
        ))
    })
}

/// A JSON pointer into a payload.
pub(super) fn pointer(value: &Value<'_>) -> Result<Pointer, Fault> {
    let text = text(value)?;
    Pointer::new(text).map_err(|_| {
        value.fault(format_args!(
            "holds `{}`, which is no JSON pointer; `/data/user/email` and `/data/*/email` are",
            shown(text)
        ))
    })
}

/// A mail address that a plugin may send from.
pub(super) fn sender(value: &Value<'_>) -> Result<String, Fault> {
    let text = text(value)?;
    if text.parse::<Mailbox>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(value.fault(format_args!(
        "holds `{}`, which is no mail address; write one such as \"team@example.com\" or \
         \"The team <team@example.com>\"",
        shown(text)
    )))
}

/// The recipients of a plugin's mail: an address, a domain or everybody.
pub(super) fn recipient(value: &Value<'_>) -> Result<String, Fault> {
    let text = text(value)?;
    let fits = match text.strip_prefix("*@") {
        Some(domain) => Address::new("anybody", domain).is_ok(),
        None => text == "*" || text.parse::<Address>().is_ok(),
    };
    if fits {
        return Ok(text.to_owned());
    }
    Err(value.fault(format_args!(
        "holds `{}`, which is nobody; write an address, \"*@example.com\" for a domain or \"*\" for everybody",
        shown(text)
    )))
}

/// An array with at least one item.
pub(super) fn list<T>(
    item: impl Fn(&Value<'_>) -> Result<T, Fault>,
    example: &str,
) -> impl FnOnce(&Value<'_>) -> Result<Vec<T>, Fault> {
    move |value| {
        let items = value.items().ok_or_else(|| value.mistyped(&format!("an array such as {example}")))?;
        let read: Vec<T> = items.map(|value| item(&value)).collect::<Result<_, _>>()?;
        if read.is_empty() {
            return Err(value.fault(format_args!("is empty; write at least one, such as {example}")));
        }
        Ok(read)
    }
}

/// A value of a plugin's own table as its guest gets it: a string unchanged, any other value as JSON.
pub(super) fn as_guest_text(value: &Value<'_>) -> Result<String, Fault> {
    match value.get() {
        DeValue::String(text) => Ok(text.as_ref().to_owned()),
        other => match json(other) {
            Some(json) => Ok(json.to_string()),
            None => Err(value.fault("holds a number that JSON can't hold; write it as a text")),
        },
    }
}

fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    Some(match value {
        DeValue::String(text) => Json::from(text.as_ref()),
        DeValue::Integer(integer) => Json::from(i64::from_str_radix(integer.as_str(), integer.radix()).ok()?),
        DeValue::Float(float) => Json::Number(serde_json::Number::from_f64(float.as_str().parse().ok()?)?),
        DeValue::Boolean(boolean) => Json::from(*boolean),
        DeValue::Datetime(datetime) => Json::from(datetime.to_string()),
        DeValue::Array(items) => {
            Json::Array(items.iter().map(|item| json(item.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(entries) => Json::Object(
            entries
                .iter()
                .map(|(key, value)| Some((key.get_ref().clone().into_owned(), json(value.get_ref())?)))
                .collect::<Option<_>>()?,
        ),
    })
}

fn whole(value: &Value<'_>) -> Result<i128, Fault> {
    let integer = value.get().as_integer().ok_or_else(|| value.mistyped("a whole number"))?;
    i128::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| value.fault("is a number out of all range"))
}

fn within<T: PartialOrd>(
    value: &Value<'_>,
    read: T,
    range: RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, Fault> {
    if range.contains(&read) {
        return Ok(read);
    }
    Err(out_of_range(value, show(&read), show(range.start()), show(range.end())))
}

fn out_of_range(value: &Value<'_>, read: impl Display, least: impl Display, most: impl Display) -> Fault {
    value.fault(format_args!("is {read}; it may be {least} to {most}"))
}
