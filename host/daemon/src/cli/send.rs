//! `posthouse send`: sends a test event. It takes a sample of any known type and signs it with the source's
//! first secret. Then it posts it to the running daemon as the sender would.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use posthouse_model::{
    Env, EventType, Samples,
    config::{Config, Source, nearest},
    event_text, of_own_type,
};
use serde_json::value::RawValue;
use ureq::Agent;

use super::{
    CliError,
    client::reachable,
    output::{body, say, text},
    source::source,
};

use crate::{daemon, ingress::sign};

/// The time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of an answer.
const MOST_BYTES: u64 = 64 << 10;

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The type of the event, such as `user.created`.
    #[arg(value_name = "TYPE", required_unless_present = "list")]
    event_type: Option<String>,
    /// List the types that have a sample, and send nothing.
    #[arg(long, exclusive = true)]
    list: bool,
    /// The source in config.toml whose secret signs it; required if there are several.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// A file with JSON to send as `data` instead of the sample's; `-` is standard input. TYPE may then be any type.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The event's id; by default a random one for each event.
    #[arg(long)]
    id: Option<String>,
    /// The URL to post to; by default the listener of config.toml with the source's path.
    #[arg(long)]
    url: Option<String>,
    /// The number of events to send, one after another.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
}

/// Sends events, and prints the answers: for one event its status and body, for several the number of each
/// status.
///
/// # Errors
/// [`CliError`] if nothing could be sent or no answer arrives. An answer other than 2xx is exit code 1.
pub fn run(args: Args, config: impl FnOnce() -> Result<Config, CliError>) -> Result<ExitCode, CliError> {
    let samples = Samples::read().map_err(|error| CliError::Failure(error.to_string()))?;
    let Some(event_type) = args.event_type else {
        return samples.types().try_for_each(say).map(|()| ExitCode::SUCCESS);
    };
    let data = args.data.as_deref().map(|file| data(body(Some(file))?, &file.display())).transpose()?;
    known(&event_type, &samples, data.is_some())?;

    let config = config()?;
    let source = source(&config, args.source.as_deref())?;
    let url = match args.url {
        Some(url) => address(url)?,
        None => format!("http://{}{}", reachable(config.server.listen), source.path),
    };
    let sender = Sender::new(url, source);
    let made = |id: &str| {
        let at = sender.env.now();
        let members = samples.body(&event_type, id, at).unwrap_or_else(|| of_own_type(&event_type, id, at));
        event_text(&members, data.as_deref()).map_err(|error| CliError::Failure(error.to_string()))
    };

    let began = Instant::now();
    let mut answers = BTreeMap::<u16, u64>::new();
    for _ in 0..args.count {
        let id = args.id.clone().unwrap_or_else(|| fresh_id(&sender.env));
        let (status, answer) = sender.send(&id, made(&id)?.as_bytes())?;
        *answers.entry(status).or_default() += 1;
        if args.count == 1 {
            say(format_args!("{status} {answer} {event_type} {id}"))?;
        } else if !is_good(status) {
            say(format_args!("{status} {answer} {id}"))?;
        }
    }
    if args.count > 1 {
        let counts: Vec<_> = answers.iter().map(|(status, count)| format!("{count} × {status}")).collect();
        let seconds = began.elapsed().as_secs_f64();
        say(format_args!("{event_type}: {} in {seconds:.2} s", counts.join(", ")))?;
    }
    Ok(if answers.keys().all(|status| is_good(*status)) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A new event id: `evt_` and 128 random bits.
pub(super) fn fresh_id(env: &Env) -> String {
    format!("evt_{:016x}{:016x}", env.random_u64(), env.random_u64())
}

fn is_good(status: u16) -> bool {
    (200..300).contains(&status)
}

fn data(bytes: Vec<u8>, name: &dyn std::fmt::Display) -> Result<Box<RawValue>, CliError> {
    serde_json::from_str(&text(bytes, name)?)
        .map_err(|error| CliError::Failure(format!("`{name}` is not JSON: {error}")))
}

/// Checks that a URL can be posted to.
fn address(text: String) -> Result<String, CliError> {
    let refused = |what: &str| Err(CliError::Failure(format!("`{}` {what}", text.escape_debug())));
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text),
        Ok(url) if text.contains("://") => refused(&format!(
            "is not a web address: `{}://` is neither `http://` nor `https://`",
            url.scheme()
        )),
        _ if text.contains("://") => {
            refused("is not a URL; an example is `http://localhost:8400/webhooks/scalekit`")
        }
        _ => refused(&format!(
            "is not a URL: `http://` is missing; did you mean `http://{}`?",
            text.trim_start_matches('/').escape_debug()
        )),
    }
}

/// Checks that the type has a sample, or that there is data for it.
fn known(event_type: &str, samples: &Samples, has_data: bool) -> Result<(), CliError> {
    if samples.types().any(|known| known == event_type) {
        return Ok(());
    }
    if has_data {
        return match EventType::new(event_type) {
            Ok(_) => Ok(()),
            Err(error) => Err(CliError::Usage(error.to_string())),
        };
    }
    let guess = match nearest(event_type, samples.types()) {
        Some(near) => format!("did you mean `{near}`? "),
        None => String::new(),
    };
    Err(CliError::Usage(format!(
        "there is no sample of type `{}`; {guess}`posthouse send --list` lists the types; --data sends any type",
        event_type.escape_debug()
    )))
}

/// Signs events and posts them.
struct Sender<'a> {
    agent: Agent,
    env: Env,
    url: String,
    source: &'a Source,
}

impl<'a> Sender<'a> {
    fn new(url: String, source: &'a Source) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, env: daemon::env(), url, source }
    }

    /// Sends an event. Returns the status and the body of the answer.
    fn send(&self, id: &str, body: &[u8]) -> Result<(u16, String), CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::Failure(error.to_string());
        let headers = sign(self.source, id, self.env.now(), body).map_err(|error| failed(&error))?;
        let request = self.agent.post(&self.url).header("content-type", "application/json");
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let silent = |error: ureq::Error| {
            failed(&format_args!(
                "`{}` does not answer: {error}; is `posthouse serve` running there?",
                self.url
            ))
        };
        let mut response = request.send(body).map_err(silent)?;
        let answer = response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string();
        Ok((response.status().as_u16(), answer.map_err(silent)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_refused_with_the_nearest_unless_it_brings_its_data() {
        let samples = Samples::read().unwrap();
        let said = known("user.creatd", &samples, false).unwrap_err().to_string();
        assert!(said.contains("`user.created`") && said.contains("--list"), "{said}");
        assert!(known("invoice.paid", &samples, true).is_ok());
        assert!(known("invoice paid", &samples, true).is_err());
    }

    #[test]
    fn an_address_without_its_scheme_is_said_to_lack_it() {
        for good in ["http://localhost:8600/hook", "https://example.com/hook", "HTTP://127.0.0.1:9/"] {
            assert_eq!(address(good.to_owned()).unwrap(), good);
        }
        for odd in [
            "localhost:8600/hook",
            "localhost",
            "127.0.0.1:8600",
            "example.com/hook",
            "//localhost/hook",
            "[::1]:8600/",
        ] {
            let said = address(odd.to_owned()).unwrap_err().to_string();
            assert!(said.contains("`http://` is missing") && said.contains(odd), "{said}");
        }
        for odd in ["ftp://example.com/", "http://", "http://:80/x"] {
            assert!(address(odd.to_owned()).is_err(), "{odd}");
        }
    }
}
