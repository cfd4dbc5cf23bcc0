//! Has every kind of effect at once. Each effect shows whether it happened twice, or only in part:
//!
//! | effect | result |
//! | --- | --- |
//! | kv | `seen/<event>` and `count/<bucket>`, each increased by one |
//! | sql | a row of `entry` for the event; `bucket.n` increased by one, with the new value in that row |
//! | mail | `did <event>`, if `data.mail` has an address |
//! | request | a POST of the event's id, if `data.request` has a URL |
//!
//! The test creates the tables. `data.bucket` selects the bucket. `{"fail": 2}` fails the first two attempts
//! after all effects, `{"spin": 1000000}` computes for that many rounds before it returns.

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, http::Request, kv, outbox::Mail, sql,
};
use serde::Deserialize;

struct Effects;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    bucket: i64,
    mail: Option<String>,
    request: Option<String>,
    fail: u32,
    spin: u64,
}

impl Plugin for Effects {
    fn manifest() -> Manifest {
        Manifest::new("has every kind of effect").on(["*"]).requires(Capability::Sql)
    }

    fn handle(event: Event, delivery: Delivery) -> Result<(), Failure> {
        let wish: Wish = event.json().unwrap_or_default();
        kv::increment(&format!("seen/{}", event.id), 1)?;
        kv::increment(&format!("count/{}", wish.bucket), 1)?;
        // Read and written back: if another attempt writes in between, one of the two must run again.
        let n: i64 = sql::query_row("SELECT n FROM bucket WHERE id = $1", &[&wish.bucket])?
            .ok_or_else(|| Failure::reject("no such bucket"))?
            .get("n")?;
        sql::execute("UPDATE bucket SET n = $2 WHERE id = $1", &[&wish.bucket, &(n + 1)])?;
        sql::execute(
            "INSERT INTO entry (event, bucket, n) VALUES ($1, $2, $3)",
            &[&event.id, &wish.bucket, &(n + 1)],
        )?;
        if let Some(to) = wish.mail {
            Mail::new(to, format!("did {}", event.id), "done").send()?;
        }
        if let Some(url) = wish.request {
            Request::post(url).body(event.id.clone()).send_later()?;
        }
        (0..wish.spin).for_each(|round| _ = std::hint::black_box(round));
        if delivery.attempt <= wish.fail {
            return Err(Failure::retry(format!("asked to fail {} times", wish.fail)));
        }
        Ok(())
    }
}

posthouse_sdk::plugin!(Effects);
