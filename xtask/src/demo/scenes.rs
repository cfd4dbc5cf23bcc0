//! The scenes of the demo, in their order.

use std::process::Command;

use super::{
    daemon::{Demo, expect, output, posthouse},
    folder::{first_mail, folder, shown},
};
use crate::shell::{Doing as _, Error, Result, has, line, root, say, target};

/// Events after the first one, so that every plugin has something to do.
const MORE: [&str; 6] = [
    "organization.created",
    "membership.created",
    "user.login",
    "session.created",
    "membership.deleted",
    "user.updated",
];

impl Demo {
    /// The scenes.
    pub(super) fn play(&self) -> Result {
        say("these plugins are loaded");
        self.show(&["plugins"], &["welcome-email"])?;
        if output(&["plugins", "--json"])?.contains(r#""state":"held""#) {
            return Err(Error::new("a plugin is held"));
        }

        say("a user was created: the sender signs the event and posts it; it is on disk before the answer");
        let send = ["send", "user.created", "--id", "evt_demo_1"];
        self.show(&send, &["200", r#""received":true"#])?;
        say("the sender lost the answer and posts the event again: nothing runs twice");
        self.show(&send, &["200", r#""duplicate":true"#])?;

        say("a stranger posts an event with a forged signature: refused, without a reason");
        let forged = self.post_forged()?;
        println!("{}", forged.trim());
        expect("the answer to the forged event", &forged, &["401", "Invalid signature"])?;

        say("more events arrive");
        for event_type in MORE {
            self.show(&["send", event_type], &["200", r#""received":true"#])?;
        }
        say("four people join an organization, and one leaves it");
        for (kind, user) in [("created", 1), ("created", 2), ("created", 3), ("created", 4), ("deleted", 2)] {
            let membership =
                format!(r#""user_id":"usr_demo_{user}","organization_id":"org_demo","roles":["member"]"#);
            // With the user that it is about. Otherwise welcome-email waits for each user's `user.created`.
            let user = format!(r#""id":"usr_demo_{user}","email":"usr_{user}@example.com""#);
            let data = format!(r#"{{"membership":{{{membership}}},"user":{{{user}}}}}"#);
            self.send(&format!("membership.{kind}"), &data)?;
        }

        say("a curl line with the headers of `posthouse sign`");
        if has("curl") {
            let line = self.curl_line("evt_demo_curl")?;
            println!("{line}");
            let output =
                Command::new("sh").current_dir(root()).args(["-c", &line]).output().doing("run curl")?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            println!("{}", said.trim());
            expect("the answer to curl", &said, &["200 OK", r#""received":true"#])?;
        } else {
            println!("(curl is not installed here: left out)");
        }

        say("the welcome mail, one .eml a message in data/demo/data/mail");
        let mail = self.wait_for("a welcome mail", || first_mail().ok_or_else(String::new))?;
        println!("{}", mail.trim());
        expect("the mail", &mail, &["Subject: ", "Message-ID: ", "To: "])?;

        say("the work of the plugins: all deliveries are done");
        self.wait_for("every delivery is done", || {
            let all = output(&["deliveries", "--json"]).unwrap_or_default();
            let open = all.lines().filter(|line| !line.contains(r#""state":"done""#)).count();
            if open == 0 && !all.is_empty() { Ok(()) } else { Err(all) }
        })?;
        self.show(&["deliveries"], &["welcome-email", "done"])?;
        self.rows_and_requests()?;
        say("one event with its deliveries, attempts and log lines");
        self.show(&["events", "show", "evt_demo_1"], &["user.created", "welcome-email", "done"])?;

        say("the two ledgers: requests received, and deliveries");
        self.show(&["stats"], &[])?;
        let stats = output(&["stats", "--json"])?;
        expect("posthouse stats --json", &stats, &[r#""balanced":true"#, r#""duplicate":1"#])
    }

    /// The rows that plugins wrote, the events they emitted, and the requests they sent.
    fn rows_and_requests(&self) -> Result {
        say("user-sync: the users, in data/demo/data/app.db");
        self.show_rows(
            "SELECT id, email, first_name, organization_id, deleted_at FROM users",
            &["@example.com"],
        )?;
        say("workspace: a workspace for each organization");
        self.show_rows("SELECT organization_id, name, external_id FROM workspaces", &["org_"])?;
        say("access: each user's roles, until they are revoked");
        let roles = "SELECT organization_id, user_id, role, revoked_at IS NULL AS held FROM access_grants";
        self.show_rows(roles, &["usr_demo_1", "member"])?;
        say("seat-billing: the seats that each organization takes, and how often that changed");
        self.show_rows("SELECT * FROM seat_counts ORDER BY organization_id", &["org_demo", "3", "5"])?;
        say("each change of a count was emitted, as an event for whichever plugin subscribes to it");
        self.show(&["events", "--type", "seat.changed"], &["plugin:seat-billing"])?;

        say("the plugins' requests to other services, which are all this demo's own listener");
        let wanted = ["/accounts/", "/analytics/", "/billing/", "/provision/"];
        let seen = self.wait_for("requests to each service", || {
            let seen = self.listener.seen();
            let all = wanted.iter().all(|path| seen.iter().any(|request| request.contains(path)));
            if all { Ok(seen) } else { Err(seen.join("\n")) }
        })?;
        println!("{}", seen.join("\n"));
        Ok(())
    }

    pub(super) fn tell_what_to_try(&self) {
        let posthouse = |rest: &[&str]| line(&posthouse(rest));
        let curl = self.curl_line("evt_try_1").unwrap_or_default();
        println!();
        say(format_args!(
            "posthouse keeps running on http://{}; Ctrl-C stops it. Try in another terminal:",
            self.webhooks
        ));
        for (line, what) in [
            (posthouse(&["send", "user.created"]), "another user"),
            (curl, "an event of your own: edit the .json first; a second time it is a duplicate"),
            (posthouse(&["events"]), "the events received"),
            (posthouse(&["replay", "evt_demo_1"]), "an old event once more"),
            (posthouse(&["plugins", "pause", "welcome-email"]), "its deliveries wait until `plugins resume`"),
            (
                format!("rm {}/plugins/welcome-email.wasm", shown(&folder())),
                "its deliveries wait until it is back",
            ),
            (
                format!(
                    "{} {}/data/app.db 'SELECT * FROM users'",
                    shown(&target().join("debug/posthouse-rows")),
                    shown(&folder())
                ),
                "what a plugin keeps",
            ),
            (posthouse(&["stats"]), "the ledgers"),
            (format!("tail -f {}/posthouse.log", shown(&folder())), "the daemon's log"),
        ] {
            println!("\n  # {what}\n  {line}");
        }
        println!();
    }
}
