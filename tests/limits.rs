//! The rate of a source. The daemon answers requests beyond it with the time to retry, counts them and reports them.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use posthouse_harness::{Answer, Daemon, Event, Source, wait_until};
use serde_json::json;

#[test]
fn what_is_beyond_the_rate_is_told_when_to_come_again() {
    let slow = Source::new("slow").line("rate = { per_second = 0.05, burst = 3 }");
    let mut daemon =
        Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).source(slow).source(Source::new("free")).start();
    let event = || Event::new("user.created");
    let slow = daemon.sender_of("slow");
    let first = event();
    assert!(slow.post_event(&first).accepted());
    assert!(slow.post_event(&first).duplicate(), "a copy counts like any other");
    assert!(slow.post_event(&event()).accepted());
    let refused = slow.post_event(&event());
    assert_eq!((refused.status, refused.json()), (429, json!({ "error": "Too many requests" })));
    assert!((1..=20).contains(&wait(&refused)), "{refused}");
    assert_eq!(daemon.events().len(), 2, "nothing was taken in");
    assert!((0..10).all(|_| daemon.sender_of("free").post_event(&event()).accepted()));

    let stats = daemon.stats();
    let requests = &stats["requests"]["slow"];
    assert_eq!(requests["rejected"], json!({ "rate-limited": 1 }), "{stats}");
    assert_eq!((&requests["received"], &stats["balanced"]), (&json!(4), &json!(true)));
    assert!(daemon.cli(&["stats"]).stdout.contains("rejected, slow: 1 rate-limited"));
    let source = daemon.admin_get("/v1/sources/slow");
    assert_eq!(source["rate"], json!({ "per_second": 0.05, "burst": 3 }), "{source}");
    let page = daemon.admin("GET", "/sources/slow", None).body;
    assert!(page.contains("rate-limited") && page.contains("0.05 signed requests a second"), "{page}");

    // Another rate begins with a full burst. The same rate keeps what is left.
    daemon.edit_config(|config| config.replace("burst = 3", "burst = 2"));
    wait_until("the new rate is in force", || daemon.admin_get("/v1/sources/slow")["rate"]["burst"] == 2);
    assert!((0..2).all(|_| slow.post_event(&event()).accepted()));
    assert_eq!(slow.post_event(&event()).status, 429);
}

fn wait(answer: &Answer) -> u64 {
    let (_, wait) = answer.headers.iter().find(|(name, _)| name == "retry-after").unwrap();
    wait.parse().unwrap()
}
