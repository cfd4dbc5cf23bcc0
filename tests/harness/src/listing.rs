//! A sender's API that lists its events, as Scalekit's or as Stripe's. It is written from their descriptions and not
//! from the daemon's code, so that one checks the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::{WebReply, WebRequest, WebServer, unix_now};

/// The most events on a page.
const MOST: usize = 100;
/// Events on a page if the request does not say how many.
const USUAL: usize = 10;

/// The API that a list speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListApi {
    /// `POST /oauth/token`, `POST /api/v1/events/paginated`; members in snake_case.
    Scalekit,
    /// The same with members in lowerCamelCase, as JSON of protobuf has them by default.
    ScalekitCamel,
    /// `GET /v1/events`.
    Stripe,
}

/// An event of a list.
#[derive(Debug, Clone)]
struct Entry {
    /// When it happened, in seconds since 1970.
    at: i64,
    id: String,
    body: Value,
}

type Instead = dyn Fn(&WebRequest, u64) -> Option<WebReply> + Send + Sync;

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    tokens: Vec<String>,
    requests: u64,
    instead: Option<Arc<Instead>>,
}

/// A running list of events, which stops on drop.
pub struct EventList {
    server: WebServer,
    api: ListApi,
    state: Arc<Mutex<State>>,
}

impl EventList {
    /// The id of the client that gets a token.
    pub const CLIENT_ID: &str = "skc_test_client";
    /// The secret of the client, or the API key.
    pub const SECRET: &str = "test-catch-up-secret-0a1b2c3d4e5f";

    /// Starts an empty list at 127.0.0.1.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start(api: ListApi) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let own = Arc::clone(&state);
        let server = WebServer::start(move |request| {
            let (number, instead) = {
                let mut state = own.lock().unwrap();
                state.requests += 1;
                (state.requests, state.instead.clone())
            };
            if let Some(reply) = instead.and_then(|instead| instead(request, number)) {
                return reply;
            }
            let mut state = own.lock().unwrap();
            match api {
                ListApi::Stripe => state.stripe(request),
                ListApi::Scalekit => state.scalekit(request, false),
                ListApi::ScalekitCamel => state.scalekit(request, true),
            }
        });
        Self { server, api, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds an event that happened at this second, with this `data`. Returns the body of its webhook.
    pub fn add(&self, at: i64, id: &str, event_type: &str, data: &Value) -> String {
        let body = match self.api {
            ListApi::Stripe => json!({
                "id": id, "object": "event", "type": event_type, "created": at, "livemode": false,
                "pending_webhooks": 0, "data": { "object": data },
            }),
            _ => json!({
                "spec_version": "1", "id": id, "type": event_type, "occurred_at": rfc3339(at),
                "environment_id": "env_1", "organization_id": "org_1", "object": "User", "data": data,
                "display_name": "Something happened",
            }),
        };
        let text = body.to_string();
        self.state().entries.push(Entry { at, id: id.to_owned(), body });
        text
    }

    /// Answers like this instead, where the function answers: it gets the request and its number, from 1.
    pub fn instead(&self, answer: impl Fn(&WebRequest, u64) -> Option<WebReply> + Send + Sync + 'static) {
        let mut state = self.state();
        state.requests = 0;
        state.instead = Some(Arc::new(answer));
    }

    /// Answers as usual again.
    pub fn as_usual(&self) {
        self.state().instead = None;
    }

    /// Forgets all tokens that were given, so that they are refused.
    pub fn withdraw_tokens(&self) {
        self.state().tokens.clear();
    }

    /// The requests so far.
    ///
    /// # Panics
    /// If one of its threads did.
    pub fn requests(&self) -> Vec<WebRequest> {
        self.server.requests()
    }

    /// Its address, without a path.
    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// The value of `catch_up` of a source that asks this list, with these further keys such as `mode = "apply"`.
    pub fn settings(&self, more: &str) -> String {
        let (url, id, secret) = (self.url(), Self::CLIENT_ID, Self::SECRET);
        let login = match self.api {
            ListApi::Stripe => format!("api_key = {secret:?}"),
            _ => format!("client_id = {id:?}, client_secret = {secret:?}"),
        };
        format!("catch_up = {{ url = {url:?}, {login}, rate = 1000, {more} }}")
    }
}

impl State {
    fn scalekit(&mut self, request: &WebRequest, camel: bool) -> WebReply {
        let (path, query) = split(&request.path);
        match (request.method.as_str(), path) {
            ("POST", "/oauth/token") => {
                let form = pairs(&String::from_utf8_lossy(&request.body));
                let of = |name: &str| form.get(name).map(String::as_str);
                let fits = of("grant_type") == Some("client_credentials")
                    && of("client_id") == Some(EventList::CLIENT_ID)
                    && of("client_secret") == Some(EventList::SECRET);
                if !fits {
                    return error(401, json!({ "error": "invalid_client" }));
                }
                let token = format!("token-{}", self.requests);
                self.tokens.push(token.clone());
                answer(
                    &json!({ "access_token": token, "token_type": "Bearer", "expires_in": 86399, "scope": "openid" }),
                )
            }
            ("POST", "/api/v1/events/paginated") => {
                let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
                if !bearer.is_some_and(|token| self.tokens.iter().any(|known| known == token)) {
                    return error(401, json!({ "code": 16, "message": "Token empty", "details": [] }));
                }
                let filter: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                let bound =
                    |snake: &str, camel: &str| filter[snake].as_str().or(filter[camel].as_str()).map(seconds);
                let (from, to) = (bound("start_time", "startTime"), bound("end_time", "endTime"));
                if from.zip(to).is_some_and(|(from, to)| from > to) {
                    return error(400, json!({ "code": 3, "message": "start_time is after end_time" }));
                }
                let size =
                    query.get("page_size").and_then(|size| size.parse().ok()).unwrap_or(USUAL).min(MOST);
                let after = match query.get("page_token").filter(|token| !token.is_empty()) {
                    None => None,
                    Some(token) => match of_token(token) {
                        Some(id) => Some(id),
                        None => {
                            return error(400, json!({ "code": 3, "message": "page_token is malformed" }));
                        }
                    },
                };
                // Whether the bounds belong to the time is not documented: here the end does.
                let within = |at: f64| from.is_none_or(|from| at >= from) && to.is_none_or(|to| at <= to);
                let (page, more) = self.page(|entry| within(entry.at as f64), after.as_deref(), size);
                let next = page.last().filter(|_| more).map(|last| token_after(&last.id)).unwrap_or_default();
                let shown = |entry: &&Entry| if camel { camelled(&entry.body) } else { entry.body.clone() };
                let events: Vec<_> = page.iter().map(shown).collect();
                let [events_name, next_name, previous] = match camel {
                    true => ["events", "nextPageToken", "prevPageToken"],
                    false => ["events", "next_page_token", "prev_page_token"],
                };
                answer(&json!({ events_name: events, next_name: next, previous: "" }))
            }
            _ => error(404, json!({ "code": 5, "message": "Not Found" })),
        }
    }

    fn stripe(&mut self, request: &WebRequest) -> WebReply {
        let (path, query) = split(&request.path);
        let bearer = format!("Bearer {}", EventList::SECRET);
        if request.header("authorization") != Some(bearer.as_str()) {
            return error(
                401,
                json!({ "error": { "type": "invalid_request_error", "message": "Invalid API Key" } }),
            );
        }
        if (request.method.as_str(), path) != ("GET", "/v1/events") {
            return error(404, json!({ "error": { "type": "invalid_request_error" } }));
        }
        let bound =
            |name: &str| query.get(&format!("created[{name}]")).and_then(|text| text.parse::<i64>().ok());
        let [gte, gt, lt, lte] = ["gte", "gt", "lt", "lte"].map(bound);
        let within = |at: i64| {
            gte.is_none_or(|bound| at >= bound)
                && gt.is_none_or(|bound| at > bound)
                && lt.is_none_or(|bound| at < bound)
                && lte.is_none_or(|bound| at <= bound)
        };
        let size = query.get("limit").and_then(|size| size.parse().ok()).unwrap_or(USUAL).min(MOST);
        let after = query.get("starting_after").map(String::as_str);
        let (page, more) = self.page(|entry| within(entry.at), after, size);
        let data: Vec<_> = page.into_iter().map(|entry| entry.body.clone()).collect();
        answer(&json!({ "object": "list", "url": "/v1/events", "has_more": more, "data": data }))
    }

    /// The events of a page, newest first, and whether there are more.
    fn page(&self, wanted: impl Fn(&Entry) -> bool, after: Option<&str>, size: usize) -> (Vec<&Entry>, bool) {
        let mut found: Vec<_> = self.entries.iter().enumerate().filter(|(_, entry)| wanted(entry)).collect();
        found.sort_by_key(|(number, entry)| std::cmp::Reverse((entry.at, *number)));
        let found: Vec<_> = found.into_iter().map(|(_, entry)| entry).collect();
        let skip = after.and_then(|id| found.iter().position(|entry| entry.id == id)).map_or(0, |at| at + 1);
        let page: Vec<_> = found.iter().skip(skip).take(size).copied().collect();
        let more = skip + page.len() < found.len();
        (page, more)
    }
}

fn answer(body: &Value) -> WebReply {
    WebReply::text(body.to_string()).with("content-type", "application/json")
}

fn error(status: u16, body: Value) -> WebReply {
    WebReply::Whole(
        status,
        vec![("content-type".to_owned(), "application/json".to_owned())],
        body.to_string().into(),
    )
}

/// A cursor as Scalekit's descriptors show one: `>:` and a list with the id of an event, in base64.
fn token_after(id: &str) -> String {
    format!(">:{}", URL_SAFE_NO_PAD.encode(json!([id]).to_string()))
}

fn of_token(token: &str) -> Option<String> {
    let ids: Vec<String> =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.strip_prefix(">:")?).ok()?).ok()?;
    ids.into_iter().next()
}

/// An object with the names of its own members in lowerCamelCase.
fn camelled(body: &Value) -> Value {
    let camel = |name: &str| {
        let mut words = name.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
    };
    let members = body.as_object().cloned().unwrap_or_default();
    members.into_iter().map(|(name, value)| (camel(&name), value)).collect::<Map<_, _>>().into()
}

fn split(path: &str) -> (&str, BTreeMap<String, String>) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    (path, pairs(query))
}

/// The names and values of a form or a query.
fn pairs(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (unescaped(name), unescaped(value)))
        .collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.unwrap_or(b'0') as char);
                bytes.push(u8::from_str_radix(&String::from_iter(digits), 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The seconds since 1970 of an RFC 3339 time in UTC.
fn seconds(text: &str) -> f64 {
    let (date, time) = text.trim_end_matches('Z').split_once('T').expect("a date and a time");
    let parts: Vec<i64> = date.split('-').map(|part| part.parse().expect("a number")).collect();
    let [year, month, day] = parts[..] else { panic!("no date: {text}") };
    let mut clock = time.split(':').map(|part| part.parse::<f64>().expect("a number"));
    let mut next = || clock.next().expect("hours, minutes and seconds");
    let (hours, minutes, seconds) = (next(), next(), next());
    days(year, month, day) as f64 * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds
}

/// The days since 1970 of a date in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// A second since 1970 as RFC 3339, in UTC.
pub fn rfc3339(at: i64) -> String {
    let (mut year, mut month) = (1970 + at / 31_556_952, 1);
    let day = at.div_euclid(86_400);
    while days(year, 1, 1) > day {
        year -= 1;
    }
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    while month < 12 && days(year, month + 1, 1) <= day {
        month += 1;
    }
    let (of_month, clock) = (day - days(year, month, 1) + 1, at.rem_euclid(86_400));
    let (hours, minutes, seconds) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{hours:02}:{minutes:02}:{seconds:02}Z")
}

/// A time this many seconds ago.
pub fn ago(seconds: i64) -> i64 {
    unix_now() - seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_alike() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_765_281_881, "2025-12-09T12:04:41Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!((rfc3339(at).as_str(), seconds(text)), (text, at as f64));
        }
        assert!((seconds("2025-12-09T11:59:59.999Z") - 1_765_281_599.999).abs() < 1e-3);
    }

    #[test]
    fn a_cursor_is_read_back() {
        assert_eq!(of_token(&token_after("evt_1")).as_deref(), Some("evt_1"));
        assert_eq!(of_token("evt_1"), None);
        assert_eq!(unescaped("%3E%3Aa+b"), ">:a b");
    }
}
