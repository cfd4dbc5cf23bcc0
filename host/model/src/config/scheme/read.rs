//! Reads the table of a scheme into a [`Scheme`], and checks that its parts fit together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    About, Algorithm, Also, AnswerForm, BodyForm, Encoding, EventForm, EventsApi, Guard, Handshake,
    KeyEncoding, KeyForm, MAX_LIST, Part, Piece, Place, Reply, ReplyValue, Row, Scheme, Signature,
    SignatureForm, SignedTime, Text, TimeUnit, fetched, shipped, template,
};
use crate::config::{
    diagnose::{nearest, shown},
    sections::check_name,
    table::{Fault, Table, Value},
    value::{duration, integer, list, one_line, text, truth, word},
};

const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("hmac-sha1", Algorithm::HmacSha1),
    ("hmac-sha256", Algorithm::HmacSha256),
    ("hmac-sha512", Algorithm::HmacSha512),
    ("sha256", Algorithm::Sha256),
    ("ed25519", Algorithm::Ed25519),
    ("ecdsa-p256", Algorithm::EcdsaP256),
    ("rsa-sha1", Algorithm::RsaSha1),
    ("rsa-sha256", Algorithm::RsaSha256),
    ("jwt-es256", Algorithm::JwtEs256),
    ("jwt-hs256", Algorithm::JwtHs256),
    ("token", Algorithm::Token),
    ("basic", Algorithm::Basic),
];

/// The longest tolerance. PayPal retries for three days, maybe with the time of the first request.
const MAX_TOLERANCE: Duration = Duration::from_hours(7 * 24);
const APIS: [(&str, EventsApi); 2] = [("scalekit", EventsApi::Scalekit), ("stripe", EventsApi::Stripe)];

/// A table: a row, or the names of rows. Each name has the byte at which it begins.
enum Told {
    Row(Box<Row>),
    Any(Vec<(String, usize)>, bool),
}

/// Reads every `[scheme.NAME]` of config.toml.
pub(in crate::config) fn own_schemes(root: &mut Table<'_>) -> BTreeMap<String, Arc<Scheme>> {
    let Some(tables) = root.optional("scheme", Value::table) else { return BTreeMap::new() };
    schemes(&tables, shipped::rows())
}

/// Reads every table in this one as a scheme. `known` are rows that an `any` may name besides those here.
pub(super) fn schemes(
    tables: &Table<'_>,
    known: &BTreeMap<String, Arc<Row>>,
) -> BTreeMap<String, Arc<Scheme>> {
    let document = tables.document;
    let mut schemes = BTreeMap::new();
    let mut rows = known.clone();
    let mut choices = Vec::new();
    for (name, value) in tables.entries() {
        check_name("scheme", name, &value);
        if shipped::names(known, name) {
            let message = format!("posthouse ships a scheme `{name}`; take another name");
            document.problem(value.at(), message);
            continue;
        }
        let Some(mut table) = value.parsed(Value::table) else { continue };
        let name: Arc<str> = name.into();
        let about = about(&mut table);
        let catch_up = table.optional("catch_up", word(&APIS));
        let told = told(&mut table, &name);
        table.finish();
        match told {
            Some(Told::Row(row)) => {
                let row: Arc<Row> = Arc::new(*row);
                rows.insert(name.to_string(), Arc::clone(&row));
                let scheme =
                    Scheme { name: Arc::clone(&name), rows: vec![row], body_id: false, catch_up, about };
                schemes.insert(name.to_string(), Arc::new(scheme));
            }
            Some(Told::Any(names, body_id)) => choices.push((name, names, body_id, catch_up, about)),
            None => {}
        }
    }
    let several: Vec<_> = choices.iter().map(|(name, ..)| Arc::clone(name)).collect();
    for (name, names, body_id, catch_up, about) in choices {
        let mut chosen = Vec::new();
        for (wanted, at) in &names {
            match rows.get(wanted) {
                Some(row) => chosen.push(Arc::clone(row)),
                None if several.iter().any(|name| **name == **wanted) => {
                    let message = format!("`any` names `{wanted}`, which is an `any` itself; name its rows");
                    document.problem(*at, message);
                }
                // Its own table has a problem already.
                None if tables.has(wanted) => {}
                None => {
                    let way_out = match nearest(wanted, rows.keys().map(String::as_str)) {
                        Some(near) => format!("; did you mean `{near}`?"),
                        None => String::new(),
                    };
                    let message = format!("`any` names `{}`, which is no row{way_out}", shown(wanted));
                    document.problem(*at, message);
                }
            }
        }
        let at = names.first().map_or(0, |(_, at)| *at);
        if chosen.iter().any(|row| matches!(row.signature.at, Place::Json(_))) {
            let message = "`any` chooses by headers, and a row here has its signature in the body";
            document.problem(at, message);
        }
        if body_id && !chosen.iter().all(|row| row.event.envelope) {
            document.problem(at, "`body_id` is for rows whose event is an envelope".to_owned());
        }
        if chosen.len() == names.len() {
            let scheme = Scheme { name: Arc::clone(&name), rows: chosen, body_id, catch_up, about };
            schemes.insert(name.to_string(), Arc::new(scheme));
        }
    }
    schemes
}

fn about(table: &mut Table<'_>) -> About {
    let line = |value: &Value<'_>| text(value).map(str::to_owned);
    About {
        title: table.optional("title", one_line),
        page: table.optional("page", one_line),
        setup: table.optional("setup", line),
        caution: table.optional("caution", line),
    }
}

fn told(table: &mut Table<'_>, name: &Arc<str>) -> Option<Told> {
    let any = table.optional("any", |value| {
        let item = |value: &Value<'_>| Ok((text(value)?.to_owned(), value.at()));
        bounded(value, list(item, "[\"standard-webhooks\"]")(value)?)
    });
    match any {
        Some(names) => {
            let mut body_id = false;
            table.read("body_id", &mut body_id, truth);
            Some(Told::Any(names, body_id))
        }
        None => row(table, name).map(|row| Told::Row(Box::new(row))),
    }
}

fn row(table: &mut Table<'_>, name: &Arc<str>) -> Option<Row> {
    let families = table
        .optional("families", |value| {
            let item = |value: &Value<'_>| {
                let prefix = text(value)?;
                template::header_name(prefix).map_err(|problem| value.fault(problem))
            };
            bounded(value, list(item, "[\"webhook-\"]")(value)?)
        })
        .unwrap_or_default();
    let signature_at = table.at("signature");
    let example = "{ header = \"x-signature\" }";
    let signature = table.required("signature", example, Value::table).and_then(|mut given| {
        let signature = signature(&mut given);
        given.finish();
        signature
    });
    let signed_at = table.at("signed");
    let has_signed = table.has("signed");
    let mut signed = vec![Piece::Body];
    table.read("signed", &mut signed, |value| {
        template::pieces(text(value)?).map_err(|problem| value.fault(problem))
    });
    let mut key = KeyForm::default();
    table.table("key", |table| key_form(table, &mut key));
    let timestamp_at = table.at("timestamp");
    let mut timestamp = None;
    table.table("timestamp", |table| timestamp = signed_time(table));
    let digest = table.optional("digest", place);
    let once = table.optional("once", place);
    let key_source = fetched::key_source(table);
    let require = table.optional("require", fetched::requirements).unwrap_or_default();
    let encrypted = table.optional("encrypted", place);
    let event_at = table.at("event");
    let mut event = EventForm::default();
    if let Some(mut given) = table.required("event", "{ type = \"{json:/type}\" }", Value::table) {
        event_form(&mut given, &mut event);
        given.finish();
    }
    let body = table.optional("body", body_forms).unwrap_or_else(|| vec![BodyForm::Json]);
    let handshakes = table
        .optional("handshake", |value| bounded(value, list(handshake, "[{ method = \"HEAD\" }]")(value)?))
        .unwrap_or_default();
    let mut answer = None;
    table.table("answer", |table| answer = Some(answer_form(table)));
    let signature = signature?;
    if signature.algorithm.is_bearer() || signature.algorithm.is_jwt() {
        signed.clear();
    }
    let row = Row {
        name: Arc::clone(name),
        families,
        signature,
        signed,
        key,
        timestamp,
        digest,
        once,
        key_source,
        require,
        encrypted,
        event,
        body,
        handshakes,
        answer,
    };
    let places =
        Places { signature: signature_at, signed: signed_at, timestamp: timestamp_at, event: event_at };
    check(&row, has_signed, &places, table);
    Some(row)
}

fn signature(table: &mut Table<'_>) -> Option<Signature> {
    let json = table.optional("json", |value| {
        let steps = template::pointer(text(value)?).map_err(|problem| value.fault(problem))?;
        match steps.iter().filter(|step| *step == "*").count() {
            _ if steps.is_empty() => Err(value.fault("names the whole body")),
            0 | 1 => Ok(Place::Json(steps)),
            _ => Err(value.fault("has more than one `*`")),
        }
    });
    let header = |value: &Value<'_>| {
        template::header_name(text(value)?).map(Place::Header).map_err(|problem| value.fault(problem))
    };
    let at = match json {
        Some(json) => {
            if table.has("header") {
                let message = "`header` and `json` are two places of one signature; write one of them";
                table.document.problem(table.at("header"), message);
            }
            Some(json)
        }
        None => table.required("header", "\"x-signature\"", header),
    };
    let mut algorithm = Algorithm::HmacSha256;
    table.read("algorithm", &mut algorithm, word(&ALGORITHMS));
    let mut encoding = Encoding::Hex;
    let encodings =
        [("hex", Encoding::Hex), ("hex-any-case", Encoding::HexAnyCase), ("base64", Encoding::Base64)];
    table.read("encoding", &mut encoding, word(&encodings));
    let prefix = table.optional("prefix", |value| text(value).map(str::to_owned));
    let between = table.optional("entries", letter);
    let separator = table.optional("separator", letter);
    let label = table.optional("label", |value| text(value).map(str::to_owned));
    let mut trim = false;
    table.read("trim", &mut trim, truth);
    let also = table.optional("also", |value| {
        bounded(
            value,
            list(another_kind, "[{ label = \"v1a\", algorithm = \"ed25519\", key = \"whpk_\" }]")(value)?,
        )
    });
    let form = match between {
        Some(between) => {
            if prefix.is_some() {
                let message = "`prefix` is for one signature, and `entries` for several; write one of them";
                table.document.problem(table.at("prefix"), message);
            }
            let label = match label {
                Some(label) => label,
                None => {
                    let message = format!("`{}` is missing; write label = \"v1\"", table.path("label"));
                    table.document.problem(table.at("entries"), message);
                    return None;
                }
            };
            SignatureForm::Entries { between, separator: separator.unwrap_or('='), label, trim }
        }
        None => {
            for (key, is_there) in
                [("label", label.is_some()), ("separator", separator.is_some()), ("also", also.is_some())]
            {
                if is_there {
                    let message = format!("`{}` needs `entries`, which separates them", table.path(key));
                    table.document.problem(table.at(key), message);
                }
            }
            SignatureForm::One { prefix: prefix.unwrap_or_default() }
        }
    };
    Some(Signature { at: at?, form, algorithm, encoding, also: also.unwrap_or_default() })
}

fn another_kind(value: &Value<'_>) -> Result<Also, Fault> {
    let mut table = value.table()?;
    let label = table.required("label", "\"v1a\"", |value| text(value).map(str::to_owned));
    let algorithms = [("ed25519", Algorithm::Ed25519)];
    let algorithm = table.required("algorithm", "\"ed25519\"", word(&algorithms));
    let key = table.required("key", "\"whpk_\"", one_line);
    table.finish();
    match (label, algorithm, key) {
        (Some(label), Some(algorithm), Some(key)) => Ok(Also { label, algorithm, key }),
        // The problem is recorded already.
        _ => Err(Fault::Unread),
    }
}

fn key_form(table: &mut Table<'_>, key: &mut KeyForm) {
    table.read("prefix", &mut key.prefix, one_line);
    let encodings = [
        ("text", KeyEncoding::Text),
        ("base64", KeyEncoding::Base64),
        ("hex", KeyEncoding::Hex),
        ("spki", KeyEncoding::Spki),
    ];
    table.read("encoding", &mut key.encoding, word(&encodings));
}

fn signed_time(table: &mut Table<'_>) -> Option<SignedTime> {
    let at = table.required("at", "\"header:x-timestamp\"", place);
    let mut unit = TimeUnit::Seconds;
    let units = [("s", TimeUnit::Seconds), ("ms", TimeUnit::Milliseconds), ("rfc3339", TimeUnit::Rfc3339)];
    table.read("unit", &mut unit, word(&units));
    let mut tolerance = Duration::from_mins(5);
    table.read("tolerance", &mut tolerance, duration(Duration::from_secs(1)..=MAX_TOLERANCE));
    Some(SignedTime { at: at?, unit, tolerance })
}

fn event_form(table: &mut Table<'_>, event: &mut EventForm) {
    table.read("envelope", &mut event.envelope, truth);
    event.each = table
        .optional("each", |value| template::pointer(text(value)?).map_err(|problem| value.fault(problem)));
    table.read("id", &mut event.id, texts);
    table.read("type", &mut event.event_type, texts);
    table.read("time", &mut event.time, texts);
    table.read("organization", &mut event.organization, texts);
}

fn answer_form(table: &mut Table<'_>) -> AnswerForm {
    let mut answer = AnswerForm { status: 200, empty: false };
    table.read("status", &mut answer.status, integer(200..=204));
    table.read("empty", &mut answer.empty, truth);
    answer.empty |= answer.status == 204;
    answer
}

fn handshake(value: &Value<'_>) -> Result<Handshake, Fault> {
    let mut table = value.table()?;
    let methods = ["GET", "HEAD", "POST"].map(|method| (method, method));
    let method = table.optional("method", word(&methods)).map(str::to_owned);
    let here = table.optional("place", shown_place);
    let is = table.optional("is", |value| text(value).map(str::to_owned));
    let absent = table.optional("absent", shown_place);
    let mut verified = false;
    table.read("verified", &mut verified, truth);
    let secret = table.optional("secret", shown_place);
    let learn = table.optional("learn", shown_place);
    if usize::from(verified) + usize::from(secret.is_some()) + usize::from(learn.is_some()) > 1 {
        let message = "`verified`, `secret` and `learn` are three guards; write one of them";
        table.document.problem(value.at(), message);
    }
    let guard = match (secret, learn) {
        (Some(place), _) => Guard::Secret(place),
        (None, Some(place)) => Guard::Learn(place),
        (None, None) if verified => Guard::Verified,
        (None, None) => Guard::Open,
    };
    let mut confirm = None;
    table.table("confirm", |table| {
        let at = table.required("at", "\"json:/SubscribeURL\"", shown_place);
        let from = table.required("from", "[\"https://api.example.com/confirm?*\"]", fetched::fetchables);
        confirm = at.zip(from);
    });
    if confirm.is_some() && guard != Guard::Verified {
        let message = "`confirm` fetches a URL of the request, so that the request has to be `verified`";
        table.document.problem(table.at("confirm"), message);
    }
    let mut answer = Reply { status: 200, ..Reply::default() };
    table.table("answer", |table| reply(table, &mut answer));
    if !table.has("place") && method.as_deref() != Some("HEAD") {
        let message = "a handshake names the `place` that shows it, unless its method is \"HEAD\"";
        table.document.problem(value.at(), message);
    }
    if is.is_some() && !table.has("place") {
        table.document.problem(table.at("is"), "`is` is the text of a `place`, and there is none");
    }
    table.finish();
    Ok(Handshake { method, place: here.map(|here| (here, is)), absent, guard, confirm, answer })
}

fn reply(table: &mut Table<'_>, answer: &mut Reply) {
    let parts = |value: &Value<'_>| template::reply(text(value)?).map_err(|problem| value.fault(problem));
    table.read("status", &mut answer.status, integer(200..=204));
    answer.text = table.optional("text", parts);
    if let Some(members) = table.optional("json", Value::table) {
        for (name, value) in members.entries() {
            let read = value.parsed(|value| match value.get().as_str() {
                Some(_) => parts(value).map(ReplyValue::Text),
                None => integer(-1_000_000..=1_000_000)(value).map(ReplyValue::Number),
            });
            answer.json.extend(read.map(|read| (name.to_owned(), read)));
        }
    }
    if let Some(headers) = table.optional("headers", Value::table) {
        for (name, value) in headers.entries() {
            let read = value.parsed(|value| match template::header_name(name) {
                Ok(_) if name.starts_with('*') => Err(value.fault("is a header that begins with `*`")),
                Ok(name) => Ok((name, parts(value)?)),
                Err(problem) => Err(value.fault(problem)),
            });
            answer.headers.extend(read);
        }
    }
}

/// One text, or a list of them.
fn texts(value: &Value<'_>) -> Result<Vec<Text>, Fault> {
    let one = |value: &Value<'_>| template::text(text(value)?).map_err(|problem| value.fault(problem));
    match value.get().as_str() {
        Some(_) => Ok(vec![one(value)?]),
        None => bounded(value, list(one, "[\"{json:/type}\"]")(value)?),
    }
}

/// One form of a body, or a list of them.
fn body_forms(value: &Value<'_>) -> Result<Vec<BodyForm>, Fault> {
    let one = |value: &Value<'_>| match text(value)? {
        "json" => Ok(BodyForm::Json),
        "lines" => Ok(BodyForm::Lines),
        "form" => Ok(BodyForm::Form),
        other => match other.strip_prefix("form:") {
            Some(field) if !field.is_empty() => Ok(BodyForm::Field(field.to_owned())),
            _ => Err(value.fault(format_args!(
                "is `{}`, which is no form of a body; \"json\", \"lines\", \"form\" and \"form:FIELD\" are",
                shown(other)
            ))),
        },
    };
    match value.get().as_str() {
        Some(_) => Ok(vec![one(value)?]),
        None => bounded(value, list(one, "[\"json\"]")(value)?),
    }
}

/// A place.
pub(super) fn place(value: &Value<'_>) -> Result<Place, Fault> {
    template::place(text(value)?).map_err(|problem| value.fault(problem))
}

/// A place of a handshake.
fn shown_place(value: &Value<'_>) -> Result<Place, Fault> {
    template::place_of_handshake(text(value)?).map_err(|problem| value.fault(problem))
}

/// One character of ASCII.
fn letter(value: &Value<'_>) -> Result<char, Fault> {
    let mut letters = text(value)?.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii() => Ok(letter),
        _ => Err(value.fault("is not one character of ASCII; write one such as \",\"")),
    }
}

/// The items, if there are not too many.
pub(super) fn bounded<T>(value: &Value<'_>, items: Vec<T>) -> Result<Vec<T>, Fault> {
    match items.len() {
        0..=MAX_LIST => Ok(items),
        more => Err(value.fault(format_args!("has {more} items; the limit is {MAX_LIST}"))),
    }
}

/// Where the parts of a row begin.
struct Places {
    signature: usize,
    signed: usize,
    timestamp: usize,
    event: usize,
}

/// Reports parts that do not fit together: a row that could never verify, or would leave something unsigned.
fn check(row: &Row, has_signed: bool, places: &Places, table: &Table<'_>) {
    let wrong = |at: usize, message: String| table.document.problem(at, message);
    let path = |key: &str| table.path(key);
    let has = |wanted: &Piece| row.signed.contains(wanted);
    let algorithm = row.signature.algorithm;
    let is_entries = matches!(row.signature.form, SignatureForm::Entries { .. });

    for name in names(row) {
        if name.starts_with('*') && row.families.is_empty() {
            wrong(places.signature, format!("`{name}` begins with `*`, and there are no `families`"));
        }
    }
    if let Place::Json(steps) = &row.signature.at {
        let message = if is_entries {
            Some("has `entries`, which only a header has")
        } else if steps.iter().any(|step| step == "*") && !algorithm.is_bearer() {
            Some("has a `*`, which only a token may have")
        } else {
            None
        };
        if let Some(message) = message {
            wrong(places.signature, format!("`{}` {message}", path("signature")));
        }
    }
    check_handshakes(row, table);
    fetched::check(row, has_signed, table);
    if algorithm.is_jwt() {
        check_event(row, places, table);
        return;
    }
    if algorithm.is_bearer() {
        if has_signed || row.timestamp.is_some() || row.digest.is_some() {
            let message = format!(
                "`{}` is a secret and signs nothing; take `signed`, `timestamp` and `digest` away",
                path("signature")
            );
            wrong(places.signature, message);
        }
        if row.key != KeyForm::default() {
            wrong(table.at("key"), format!("`{}` has no use: the secret itself is sent", path("key")));
        }
        return;
    }
    let is_once = row.once.as_ref().is_some_and(|place| has(&Piece::Place(place.clone())));
    if row.once.is_some() && !is_once {
        let message = format!("`{}` is not signed, so anybody could choose it", path("once"));
        wrong(table.at("once"), message);
    }
    if row.once.is_some() && row.event.each.is_some() {
        let message = format!(
            "`{}` guards one event a request; take `each` away, or sign the body instead",
            path("once")
        );
        wrong(table.at("once"), message);
    }
    let has_form = has(&Piece::Form) && row.digest.is_some();
    let covers_body = has(&Piece::Body) || has(&Piece::Sns) || has_form || is_once;
    if !covers_body {
        let message = format!(
            "`{}` does not contain {{body}}, so anybody could change it; write {{body}}, or {{form}} and a \
             `digest`, or a place that is `once`",
            path("signed")
        );
        wrong(places.signed, message);
    }
    match (&row.timestamp, has(&Piece::Timestamp)) {
        (None, true) => {
            wrong(places.signed, format!("`{}` is missing, and `signed` contains it", path("timestamp")));
        }
        (Some(time), false) => {
            let is_signed = match &time.at {
                Place::Json(_) => has(&Piece::Body) || has(&Piece::Timestamp),
                Place::Header(_) => row.signed.iter().any(|piece| matches!(piece, Piece::Headers(_))),
                _ => false,
            };
            if !is_signed {
                let message = format!(
                    "`{}` is not signed, so it guards against nothing; write {{timestamp}} into `signed`",
                    path("timestamp")
                );
                wrong(places.timestamp, message);
            }
        }
        _ => {}
    }
    let entry = row.timestamp.as_ref().is_some_and(|time| matches!(time.at, Place::Entry(_)));
    let signed_entry = |piece: &Piece| matches!(piece, Piece::Place(Place::Entry(_)));
    if !is_entries && (entry || row.signed.iter().any(signed_entry)) {
        let message = format!("`{}` has no `entries`, and a place names one", path("signature"));
        wrong(places.signature, message);
    }
    if has(&Piece::Key) != (algorithm == Algorithm::Sha256) && !algorithm.is_rsa() {
        let message = format!(
            "`{}` contains {{key}} exactly if the algorithm is \"sha256\", and may if it is RSA; any other has its \
             key beside the text",
            path("signed")
        );
        wrong(places.signed, message);
    }
    let key = row.key.encoding;
    let fits = match algorithm {
        Algorithm::Ed25519 => matches!(key, KeyEncoding::Hex | KeyEncoding::Base64),
        Algorithm::EcdsaP256 => key == KeyEncoding::Spki,
        _ => key != KeyEncoding::Spki,
    };
    if !fits {
        let message = format!(
            "`{}` does not fit the algorithm: ed25519 has a key in \"hex\" or \"base64\", ecdsa-p256 one in \
             \"spki\", and others no \"spki\"",
            path("key.encoding")
        );
        wrong(table.at("key"), message);
    }
    check_event(row, places, table);
}

/// Reports an event without a type, or with two.
fn check_event(row: &Row, places: &Places, table: &Table<'_>) {
    let wrong = |at: usize, message: String| table.document.problem(at, message);
    let path = |key: &str| table.path(key);
    if row.event.envelope {
        if !row.event.event_type.is_empty() || row.event.each.is_some() || row.body != [BodyForm::Json] {
            let message = format!("`{}`: an envelope has its own `type`, and is JSON", path("event"));
            wrong(places.event, message);
        }
    } else if row.event.event_type.is_empty() {
        let message = format!("`{}` is missing; write type = \"{{json:/type}}\"", path("event.type"));
        wrong(places.event, message);
    }
}

/// Reports handshakes that could never be read, or whose answers could forge an event.
fn check_handshakes(row: &Row, table: &Table<'_>) {
    let wrong = |message: &str| {
        let message = format!("`{}` {message}", table.path("handshake"));
        table.document.problem(table.at("handshake"), message);
    };
    let has_family = |place: &Place| matches!(place, Place::Header(name) if name.starts_with('*'));
    if row.handshakes.iter().flat_map(Handshake::places).any(has_family) {
        wrong("names a header that begins with `*`; a test of the URL has no family of headers");
    }
    let brings = |handshake: &Handshake| matches!(handshake.guard, Guard::Learn(_));
    if row.handshakes.iter().any(brings) && row.signature.algorithm.is_public() {
        wrong("brings a key, and the algorithm has a public one; enter it in config.toml");
    }
    // An HMAC of a text that a stranger chooses is the signature of a request whose signed text is that text.
    let is_oracle = |handshake: &Handshake| handshake.guard != Guard::Verified && handshake.signs();
    if row.handshakes.iter().any(is_oracle) {
        let only_json = row.signed.contains(&Piece::Body) && row.body == [BodyForm::Json];
        let signed_one = row.handshakes.iter().any(|handshake| handshake.guard == Guard::Verified);
        if !only_json || signed_one {
            wrong(
                "answers anybody with an HMAC. That is safe only if the signed text contains {body}, bodies are JSON \
                 and no other handshake is `verified`",
            );
        }
    }
}

/// The headers that a row names.
fn names(row: &Row) -> impl Iterator<Item = &str> {
    let signed = row.signed.iter().filter_map(|piece| match piece {
        Piece::Headers(name) | Piece::Place(Place::Header(name)) => Some(name.as_str()),
        _ => None,
    });
    let time = row.timestamp.iter().filter_map(|time| match &time.at {
        Place::Header(name) => Some(name.as_str()),
        _ => None,
    });
    let event = &row.event;
    let texts = [&event.id, &event.event_type, &event.time, &event.organization];
    let event = texts.into_iter().flatten().flatten().filter_map(|part| match part {
        Part::Place(Place::Header(name)) => Some(name.as_str()),
        _ => None,
    });
    let own = match &row.signature.at {
        Place::Header(name) => Some(name.as_str()),
        _ => None,
    };
    let required = row.require.iter().filter_map(|required| match &required.place {
        Place::Header(name) => Some(name.as_str()),
        _ => None,
    });
    own.into_iter().chain(signed).chain(time).chain(required).chain(event)
}
