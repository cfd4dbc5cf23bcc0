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

pub(super) fn mail(patient: &Context, notes: &mut Notes) {
    match &patient.config.mail.target {
        // The check of the disk says whether the folder is writable.
        MailTarget::Folder(folder) => notes.ok(format!("it goes to files in `{}`", folder.display())),
        MailTarget::Smtp(server) => {
            let name = format!("{}:{}", server.host, server.port);
            let transport = patient.config.mail.clone();
            match runtime(notes.patience, async move { dispatch::reach_mail(&transport).await }) {
                Some(Ok(())) => notes.ok(format!("{name} answers, and takes us")),
                Some(Err(error)) => notes.problem(
                    format!("{name} can't be used: {error}"),
                    "mail waits and is tried again; look at `url` of [mail] and at the server",
                ),
                None => notes.problem(
                    format!("{name} gives no answer within {:?}", notes.patience),
                    "see whether it runs, and what is between",
                ),
            }
            let local = ["localhost", "127.0.0.1", "::1"].contains(&server.host.as_str());
            if server.login.is_some() && server.tls == SmtpTls::None && !local {
                notes.problem(
                    format!("the password goes to {name} in clear"),
                    "say smtps://, or smtp://…?tls=required",
                );
            }
        }
    }
}

pub(super) fn http(patient: &Context, notes: &mut Notes) {
    match Egress::new(&patient.config.http, daemon::env()) {
        Ok(_) => notes.ok("requests of plugins can leave, and certificates be checked"),
        Err(error) => notes.problem(error.to_string(), "the daemon does not start with it"),
    }
}

pub(super) fn daemon(patient: &Context, notes: &mut Notes) {
    let address = reachable(patient.config.admin.listen);
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER.min(notes.patience)))
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
                    format!("it has to be started anew: {reasons}"),
                    "mend the disk, and restart it",
                );
            }
            healthy
        }
    };
    match ask("/readyz") {
        Ok((true, _)) => notes.ok(format!("it takes events, and answers at {address}")),
        Ok((false, reasons)) if healthy => {
            notes.problem(
                format!("it takes no events: {reasons}"),
                "it goes on by itself when the cause is gone",
            );
        }
        Ok(_) => {}
        Err(error) => notes.problem(format!("/readyz gives no answer: {error}"), "see its log"),
    }
    let webhooks = reachable(patient.config.server.listen);
    let began = Instant::now();
    if let Err(error) = TcpStream::connect_timeout(&webhooks, ANSWER) {
        notes.problem(
            format!("nobody takes webhooks at {webhooks}: {error} ({:.1?})", began.elapsed()),
            "see `[server] listen`, and the sockets of systemd",
        );
    }
    let asked = Client::new(&patient.config)
        .and_then(|client| Ok((client.get("/v1/stats", &[])?, client.get("/v1/dead-letters", &[])?)));
    match asked {
        Err(error) => notes.problem(error.to_string(), "the commands can't speak to it"),
        Ok((stats, dead)) => counts(&stats, &dead, notes),
    }
}

fn counts(stats: &Value, dead_letters: &Value, notes: &mut Notes) {
    if let Some(by) = stats["clock_set_back_seconds"].as_f64().filter(|by| *by > 0.0) {
        notes.problem(
            format!("the system's clock was set back by {by:.0} s while it ran"),
            "set it right (timedatectl set-ntp true); the daemon's time goes on as it was until then",
        );
    }
    if stats["balanced"] == false {
        notes.problem(
            "its ledgers do not add up, which is a defect",
            "`posthouse stats` says where; report it",
        );
    }
    // Dead letters that have been replayed are no longer a problem.
    let groups = dead_letters["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let dead: u64 = groups.iter().filter_map(|group| group["to_replay"].as_u64()).sum();
    if dead > 0 {
        notes.warning(
            format!("{} {} given up", counted(dead, "delivery"), if dead == 1 { "was" } else { "were" }),
            "`posthouse deliveries --state dead` says why; `posthouse replay --dead` runs them again",
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
            format!(
                "{} of the outbox {} given up",
                counted(unsent, "item"),
                if unsent == 1 { "was" } else { "were" }
            ),
            "`posthouse outbox --state dead` says why; `posthouse outbox replay` sends them again",
        );
    }
}
