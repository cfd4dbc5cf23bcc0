//! Checks the other side of connections: the mail server, trusted certificates, the daemon.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use posthouse_egress::Egress;
use posthouse_model::{
    config::{MailTarget, SmtpTls},
    counted, turn,
};
use serde_json::Value;
use ureq::Agent;

use super::{Context, Notes, plugins::runtime};

use crate::{
    cli::client::{Client, reachable},
    daemon, dispatch,
};

/// The time limit for the daemon to answer.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) fn mail(context: &Context, notes: &mut Notes) {
    match &context.config.mail.target {
        // The check of the disk says whether the folder is writable.
        MailTarget::Folder(folder) => {
            notes.ok(format!("mails are written to files in `{}`", folder.display()))
        }
        MailTarget::Smtp(server) => {
            let name = format!("{}:{}", server.host, server.port);
            let transport = context.config.mail.clone();
            match runtime(notes.timeout, async move { dispatch::reach_mail(&transport).await }) {
                Some(Ok(())) => notes.ok(format!("{name} accepts our login")),
                Some(Err(error)) => notes.problem(
                    format!("{name} can't be used: {error}"),
                    "check `url` of [mail] and the server; until then mails wait and are retried",
                ),
                None => notes.problem(
                    format!("{name} did not answer within {:?}", notes.timeout),
                    "check that it runs, and the network between",
                ),
            }
            let local = ["localhost", "127.0.0.1", "::1"].contains(&server.host.as_str());
            if server.login.is_some() && server.tls == SmtpTls::None && !local {
                notes.problem(
                    format!("the password is sent to {name} without encryption"),
                    "use smtps://, or smtp://…?tls=required",
                );
            }
        }
    }
}

pub(super) fn http(context: &Context, notes: &mut Notes) {
    match Egress::new(&context.config.http, daemon::env()) {
        Ok(_) => notes.ok("plugins can send requests, and their certificates can be verified"),
        Err(error) => notes.problem(error.to_string(), "fix it; the daemon does not start until then"),
    }
}

pub(super) fn daemon(context: &Context, notes: &mut Notes) {
    let address = reachable(context.config.admin.listen);
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER.min(notes.timeout)))
        .proxy(None)
        .build()
        .into();
    let ask = |path: &str| -> Result<(bool, String), String> {
        let mut answer =
            agent.get(format!("http://{address}{path}")).call().map_err(|error| error.to_string())?;
        let body: Value = answer.body_mut().read_json().map_err(|error| error.to_string())?;
        let reasons = body["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
        let reasons: Vec<_> = reasons.iter().filter_map(Value::as_str).collect();
        Ok((answer.status() == 200, reasons.join("; ")))
    };
    let healthy = match ask("/healthz") {
        Err(error) => {
            return notes.warning(
                format!("no daemon answers at {address}: {error}"),
                "start it: `posthouse serve`, or systemctl start posthouse",
            );
        }
        Ok((healthy, reasons)) => {
            if !healthy {
                notes.problem(
                    format!("the daemon must be restarted: {reasons}"),
                    "fix the disk, then restart the daemon",
                );
            }
            healthy
        }
    };
    match ask("/readyz") {
        Ok((true, _)) => notes.ok(format!("the daemon accepts events, and answers at {address}")),
        Ok((false, reasons)) if healthy => {
            notes.problem(
                format!("the daemon accepts no events: {reasons}"),
                "remove the cause; the daemon then recovers automatically",
            );
        }
        Ok(_) => {}
        Err(error) => notes.problem(format!("/readyz does not answer: {error}"), "read the daemon's log"),
    }
    let webhooks = reachable(context.config.server.listen);
    let began = Instant::now();
    if let Err(error) = TcpStream::connect_timeout(&webhooks, ANSWER) {
        notes.problem(
            format!("nothing listens for webhooks at {webhooks}: {error} ({:.1?})", began.elapsed()),
            "check `[server] listen`, and the sockets of systemd",
        );
    }
    let asked = Client::new(&context.config).and_then(|client| {
        let sources = client.get("/v1/sources", &[])?;
        catch_ups(&sources, notes);
        Ok((client.get("/v1/stats", &[])?, client.get("/v1/dead-letters", &[])?))
    });
    match asked {
        Err(error) => {
            notes.problem(error.to_string(), "fix it; until then no command can talk to the daemon")
        }
        Ok((stats, dead)) => counts(&stats, &dead, notes),
    }
}

/// Reports how the lists of senders compare with the store.
fn catch_ups(sources: &Value, notes: &mut Notes) {
    for source in sources["sources"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let (name, status) = (source["name"].as_str().unwrap_or_default(), &source["catch_up"]);
        let missing = status["missing"].as_u64().unwrap_or(0);
        let summary = status["last"]["summary"].as_str();
        if missing > 0 {
            notes.problem(
                format!("{} at the sender of source `{name}` that never arrived", counted(missing, "event")),
                format!("`posthouse catch-up --source {name} --dry-run` lists them; mode = \"apply\" takes them in"),
            );
        } else if let (Some(summary), Some(_)) = (summary, status["last"]["error"].as_str()) {
            notes.warning(
                format!("source `{name}`: {summary}"),
                "check the credentials and the address in [source.catch_up]; posthouse tries again",
            );
        } else if let Some(summary) = summary {
            notes.ok(format!("source `{name}`: {summary}"));
        }
    }
}

fn counts(stats: &Value, dead_letters: &Value, notes: &mut Notes) {
    if let Some(by) = stats["clock_set_back_seconds"].as_f64().filter(|by| *by > 0.0) {
        notes.problem(
            format!("the system's clock was set back by {by:.0} s while it ran"),
            "correct the clock (timedatectl set-ntp true); until then the daemon counts the time itself",
        );
    }
    if stats["balanced"] == false {
        notes.problem(
            "the ledgers do not add up, which is a defect in posthouse",
            "report it with the output of `posthouse stats`",
        );
    }
    // Dead letters that have been replayed are no longer a problem.
    let groups = dead_letters["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let dead: u64 = groups.iter().filter_map(|group| group["to_replay"].as_u64()).sum();
    if dead > 0 {
        notes.warning(
            format!("{} not replayed", counted(dead, "dead letter")),
            "`posthouse deliveries --causes` says why; `posthouse replay --dead` replays them",
        );
    }
    let waiting = stats["store"]["replays_waiting"].as_u64().unwrap_or(0);
    if waiting > 0 {
        let (what, turn) = (counted(waiting, "replayed delivery"), turn(waiting));
        notes.ok(format!("{what} {turn}; new events run first"));
    }
    let unsent = stats["store"]["outbox"]["dead"].as_u64().unwrap_or(0);
    if unsent > 0 {
        notes.warning(
            format!("{} in the outbox", counted(unsent, "dead item")),
            "`posthouse outbox --state dead` says why; `posthouse outbox replay` sends them again",
        );
    }
}
