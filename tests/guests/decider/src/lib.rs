//! Decides as a request's `data` asks, and counts: key `asked` counts the decisions, `asked/<id>` those of one
//! request, and `event/<type>` the events, such as those about late decisions.
//!
//! Everything is staged before the answer, so that a fall-back has something to drop. `data` may have:
//!
//! | member | action |
//! | --- | --- |
//! | `"decide"` | `allow` (which is the default), `deny`, `unsure`, `trap`, `spin` (computes forever), `big` (claims that are too large) |
//! | `"message"` | the message of a refusal, or of `unsure` |
//! | `"fetch"` | a URL that it fetches first |
//! | `"mail"` | an address to which it stages a mail |
//! | `"emit"` | the type of an event that it emits |
//! | `"log"` | a line for the log |

use std::hint::black_box;

use posthouse_sdk::{
    Delivery, Event, Failure, Manifest, Plugin,
    decide::{Decision, Interceptor, Request, Unsure},
    http, info, kv,
    outbox::{Derived, Mail},
};
use serde::Deserialize;
use serde_json::json;

struct Decider;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    decide: Option<String>,
    message: Option<String>,
    fetch: Option<String>,
    mail: Option<String>,
    emit: Option<String>,
    log: Option<String>,
}

impl Plugin for Decider {
    fn manifest() -> Manifest {
        Manifest::new("decides as it is asked").on(["*"]).decides(["*"])
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        kv::increment(&format!("event/{}", event.event_type), 1)?;
        Ok(())
    }
}

impl Interceptor for Decider {
    fn manifest() -> Manifest {
        <Self as Plugin>::manifest()
    }

    fn decide(request: Request) -> Result<Decision, Unsure> {
        let wish: Wish = request.json().unwrap_or_default();
        kv::increment("asked", 1)?;
        kv::increment(&format!("asked/{}", request.id), 1)?;
        if let Some(line) = wish.log {
            info!("{line}");
        }
        if let Some(to) = wish.mail {
            Mail::new(to, format!("decided {}", request.id), "decided").send()?;
        }
        if let Some(kind) = wish.emit {
            Derived::new(&kind, &json!({ "about": request.id }))?.emit()?;
        }
        if let Some(url) = wish.fetch {
            http::Request::new("GET", url).fetch()?;
        }
        match wish.decide.as_deref() {
            Some("deny") => Ok(match wish.message {
                Some(message) => Decision::deny(message).code("asked"),
                None => Decision::deny("asked to refuse"),
            }),
            Some("unsure") => Err(Unsure::because(wish.message.unwrap_or_else(|| "asked to".to_owned()))),
            Some("trap") => panic!("asked to trap"),
            Some("spin") => loop {
                black_box(());
            },
            Some("big") => Decision::with_claims(&json!({ "all": "x".repeat(20_000) })),
            _ => Ok(Decision::allow()),
        }
    }
}

posthouse_sdk::plugin!(Decider);
posthouse_sdk::interceptor!(Decider);
