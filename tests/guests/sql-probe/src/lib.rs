//! Performs the steps in an event, and logs the result of each step:
//!
//! ```json
//! {"steps": [
//!   {"sql": "INSERT INTO t VALUES ($1)", "with": [1, "text", null]},
//!   {"sql": "SELECT n FROM t", "query": true},
//!   {"set": "key", "to": "value"}, {"get": "key"}, {"add": "counter", "by": 2},
//!   {"fail": 2}, {"trap": true}, {"wait": 100000000}
//! ]}
//! ```
//! `fail` returns a failure up to that attempt, `wait` counts up to that number. If a statement with
//! `"must": true` fails, the attempt fails with its error.

use posthouse_sdk::{
    Delivery, Event, Failure, Manifest, Plugin,
    bindings::posthouse::plugin::sql::{self, Error, Value},
    info, kv,
};
use serde::Deserialize;

struct SqlProbe;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    steps: Vec<Step>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Step {
    sql: Option<String>,
    with: Vec<serde_json::Value>,
    query: bool,
    must: bool,
    get: Option<String>,
    set: Option<String>,
    to: String,
    add: Option<String>,
    by: i64,
    fail: u32,
    trap: bool,
    wait: u64,
}

impl Plugin for SqlProbe {
    fn manifest() -> Manifest {
        Manifest::new("does what events ask for").on(["*"])
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        for step in event.json::<Wish>().unwrap_or_default().steps {
            let values: Vec<_> = step.with.into_iter().map(value).collect();
            if let Some(statement) = &step.sql {
                let answer = if step.query {
                    sql::query(statement, &values).map(|rows| format!("rows {:?}", rows.rows))
                } else {
                    sql::execute(statement, &values).map(|changed| format!("changed {changed}"))
                };
                match answer.map_err(told) {
                    Err(error) if step.must => return Err(Failure::retry(error)),
                    answer => info!("{}", answer.unwrap_or_else(|error| error)),
                }
            }
            if let Some(key) = &step.get {
                let value = kv::get(key)?.map(|value| String::from_utf8_lossy(&value).into_owned());
                info!("value {value:?}");
            }
            if let Some(key) = &step.set {
                kv::set(key, step.to)?;
            }
            if let Some(key) = &step.add {
                kv::increment(key, step.by)?;
            }
            for turn in 0..step.wait {
                std::hint::black_box(turn);
            }
            assert!(!step.trap, "asked to trap");
            if delivery.attempt <= step.fail {
                return Err(Failure::retry("asked to fail"));
            }
        }
        Ok(())
    }
}

fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Boolean(value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::Text(text),
        other => Value::Json(other.to_string()),
    }
}

fn told(error: Error) -> String {
    match error {
        Error::Denied(text) => format!("denied: {text}"),
        Error::Refused(text) => format!("refused: {text}"),
        Error::Statement(error) => format!("error {}: {}", error.sqlstate, error.message),
        Error::Limit(text) => format!("limit: {text}"),
    }
}

posthouse_sdk::plugin!(SqlProbe);
