//! Has every kind of effect at once, each in a way that shows when it took place twice, or in part:
//!
//! | effect | what it leaves |
//! | --- | --- |
//! | kv | `seen/<event>` and `count/<bucket>`, each one higher |
//! | sql | a row of `entry` for the event; `bucket.n` one higher, and what it was then in that row |
//! | mail | `did <event>`, where `data.mail` has an address |
//! | request | a POST of the event's id, where `data.request` has a URL |
//!
//! The test makes the tables. `data.bucket` is which bucket counts; `{"fail": 2}` fails the first two
//! attempts after all of it, `{"spin": 1000000}` computes for so many rounds before it returns.

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
        // Read and written back: what comes between must make one of the two run again.
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
