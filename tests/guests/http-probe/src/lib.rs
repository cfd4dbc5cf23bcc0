//! Makes the requests that an event asks for, and stores the result of each in `<event id>/<place>`. The result is
//! `200 body` (with `name=value` of the headers named in `show` in between), `staged <key>`, or a word and a
//! message if the request was refused.
//!
//! The event's `data` is `{"requests": [{"url": "…"}]}`. A request may have `method`, `headers` (an array
//! of pairs), `body`, `show` (names of headers of the response), and `later`, which stages it. With `must`, a
//! status other than 2xx fails the attempt.
//! `{"fail": 2}` fails the first two attempts, `{"trap": 1}` traps in the first, both after the requests;
//! `{"times": 10}` repeats everything that often.

use posthouse_sdk::{
    Delivery, Event, Failure, Manifest, Plugin,
    http::{self, Request},
    kv, outbox,
};
use serde::Deserialize;

struct HttpProbe;

#[derive(Deserialize)]
struct Wish {
    #[serde(default)]
    requests: Vec<Asked>,
    #[serde(default)]
    fail: u32,
    #[serde(default)]
    trap: u32,
    #[serde(default = "once")]
    times: u32,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    show: Vec<String>,
    #[serde(default)]
    later: bool,
    #[serde(default)]
    must: bool,
}

fn once() -> u32 {
    1
}

fn get() -> String {
    "GET".to_owned()
}

impl Plugin for HttpProbe {
    fn manifest() -> Manifest {
        Manifest::new("makes the requests an event asks for").on(["*"])
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        let wish: Wish = event.json()?;
        for (place, asked) in (0..wish.times).flat_map(|_| &wish.requests).enumerate() {
            if asked.must {
                asked.request().fetch()?.success()?;
            }
            kv::set(&format!("{}/{place}", event.id), asked.made())?;
        }
        assert!(delivery.attempt > wish.trap, "asked to trap");
        if delivery.attempt <= wish.fail {
            return Err(Failure::retry("asked to fail"));
        }
        Ok(())
    }
}

impl Asked {
    fn request(&self) -> Request {
        let request = Request::new(&self.method, &self.url).body(self.body.clone());
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// Sends or stages the request, and returns the result.
    fn made(&self) -> String {
        let request = self.request();
        if self.later {
            return match request.send_later() {
                Ok(key) => format!("staged {key}"),
                Err(outbox::Error::Denied(message)) => format!("denied {message}"),
                Err(outbox::Error::Invalid(message)) => format!("invalid {message}"),
                Err(outbox::Error::Limit(message)) => format!("limit {message}"),
            };
        }
        match request.fetch() {
            Ok(response) => {
                let shown: Vec<_> = self
                    .show
                    .iter()
                    .map(|name| format!("{name}={} ", response.header(name).unwrap_or("-")))
                    .collect();
                let body = response.body();
                let text = String::from_utf8_lossy(&body[..body.len().min(10_000)]);
                format!("{} {}{text}", response.status(), shown.concat())
            }
            Err(http::Error::Denied(message)) => format!("denied {message}"),
            Err(http::Error::Invalid(message)) => format!("invalid {message}"),
            Err(http::Error::Limit(message)) => format!("limit {message}"),
            Err(http::Error::Timeout(message)) => format!("timeout {message}"),
            Err(http::Error::Failed(message)) => format!("failed {message}"),
            Err(error @ http::Error::Status { .. }) => format!("status {error}"),
        }
    }
}

posthouse_sdk::plugin!(HttpProbe);
