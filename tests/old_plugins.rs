//! A plugin that was built for an earlier version of the interface runs unchanged.
//!
//! `data/plugins/` has the files. Their host calls, failures and effects are those of today's plugins.

use posthouse_harness::{Daemon, Event, WebReply, WebServer, workspace};
use serde_json::json;

#[test]
fn a_plugin_that_was_built_for_0_1_runs_unchanged() {
    let built = std::fs::read(workspace().join("tests/data/plugins/effects_0.1.wasm")).unwrap();
    assert!(
        contains(&built, b"posthouse:plugin/guest@0.1.0")
            && !contains(&built, b"posthouse:plugin/guest@0.2.0")
    );
    let server = WebServer::start(|_| WebReply::status(200));
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .toml("[databases.app]\nurl = \"sqlite:data/app.db\"")
        .plugin_config(&format!(
            "[plugin.effects]\nretry = {{ attempts = 3, base = \"10ms\" }}
             [plugin.effects.grants]
             database = \"app\"
             mail = {{ from = [\"team@example.com\"], to = [\"*\"] }}
             http = [{{ url = {:?}, addresses = [\"127.0.0.1/32\"] }}]",
            server.url("/")
        ))
        .plugin("effects", built)
        .start();
    let tables = "CREATE TABLE bucket (id BIGINT PRIMARY KEY, n BIGINT NOT NULL);
        INSERT INTO bucket VALUES (0, 0);
        CREATE TABLE entry (event TEXT NOT NULL, bucket BIGINT NOT NULL, n BIGINT NOT NULL);";
    rusqlite::Connection::open(daemon.dir().join("data/app.db")).unwrap().execute_batch(tables).unwrap();
    assert_eq!(daemon.plugin("effects")["state"], json!("serving"));

    let events = ["evt_plain", "evt_failing"].map(|id| {
        let fail = u32::from(id == "evt_failing") * 2;
        let url = server.url("/hook");
        Event::new("user.created")
            .id(id)
            .data(json!({ "bucket": 0, "mail": "ada@example.com", "request": url, "fail": fail }))
    });
    for event in &events {
        assert!(daemon.post_event(event).accepted());
        daemon.wait_mail_settled();
    }
    // Each took effect once: rows, keys, a mail and a request. What failed left nothing.
    assert_eq!(
        daemon.app_rows("SELECT event, n FROM entry ORDER BY n"),
        [["evt_plain", "1"], ["evt_failing", "2"]]
    );
    let keys = daemon.app_rows("SELECT key, value FROM posthouse_kv WHERE plugin = 'effects' ORDER BY key");
    assert_eq!(keys, [["count/0", "2"], ["seen/evt_failing", "1"], ["seen/evt_plain", "1"]]);
    assert_eq!(daemon.mails().len(), 2);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(daemon.event("evt_failing")["history"][0]["attempts"], json!(3));
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
