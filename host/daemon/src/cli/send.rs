//! `posthouse send`: sends a test event. It takes a sample of the source's sender and signs it with the source's
//! first secret. Then it posts it to the running daemon as the sender would.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use http::Method;
use jiff::Timestamp;
use posthouse_model::{
    Env, EventType, Samples, SenderRequest, SenderSamples,
    config::{Config, Interceptor, Source, nearest},
    event_text, interceptor_samples, of_own_type,
};
use serde_json::{Value, json, value::RawValue};
use ureq::Agent;

use super::{
    CliError,
    client::reachable,
    output::{body, say, text},
    source::source,
};

use crate::{
    daemon,
    ingress::{Draft, sign_in_body, sign_request},
};

/// The time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of an answer.
const MOST_BYTES: u64 = 64 << 10;

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The type of the event, such as `user.created`; with --interceptor the trigger, such as `PRE_SIGNUP`.
    #[arg(value_name = "TYPE", required_unless_present_any = ["list", "interceptor"])]
    event_type: Option<String>,
    /// List the types that have a sample, those of the sender of --source, and send nothing.
    #[arg(long, conflicts_with_all = ["event_type", "data", "id", "url", "count"])]
    list: bool,
    /// The source in config.toml whose secret signs it; required if there are several.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Ask this interceptor in config.toml, with the sample of one of its triggers, and print its answer.
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    interceptor: Option<String>,
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
    let samples = AllSamples::read()?;
    if let Some(name) = &args.interceptor {
        return ask(&args, name, &config()?);
    }
    let Some(event_type) = args.event_type else {
        let config = args.source.as_ref().map(|_| config()).transpose()?;
        let source = config.as_ref().map(|config| source(config, args.source.as_deref())).transpose()?;
        let names = samples.names(source);
        return names.into_iter().try_for_each(say).map(|()| ExitCode::SUCCESS);
    };
    let data = args.data.as_deref().map(|file| data(body(Some(file))?, &file.display())).transpose()?;
    samples.known(&event_type, None, data.is_some())?;

    let config = config()?;
    let source = source(&config, args.source.as_deref())?;
    samples.known(&event_type, Some(source), data.is_some())?;
    let url = match args.url {
        Some(url) => address(url)?,
        None => format!("http://{}{}", reachable(config.server.listen), source.path),
    };
    let sender = Sender::new(url, source);
    let made = |id: &str| samples.request(source, &event_type, id, sender.env.now(), data.as_deref());

    let began = Instant::now();
    let mut answers = BTreeMap::<u16, u64>::new();
    for _ in 0..args.count {
        let id = args.id.clone().unwrap_or_else(|| fresh_id(&sender.env));
        let (status, answer) = sender.send(&id, made(&id)?)?;
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

/// Asks an interceptor with the sample of a trigger, and prints the answers.
fn ask(args: &Args, name: &str, config: &Config) -> Result<ExitCode, CliError> {
    let interceptor = named(config, name)?;
    let env = daemon::env();
    let failed = |error: &dyn std::fmt::Display| CliError::Failure(error.to_string());
    let mut samples = interceptor_samples(env.now()).map_err(|error| failed(&error))?;
    let wanted = |trigger: &&String| {
        EventType::new(trigger).is_ok_and(|trigger| interceptor.triggers.contains(&trigger))
    };
    let trigger = match &args.event_type {
        Some(trigger) => trigger.clone(),
        None => samples.keys().find(wanted).cloned().ok_or_else(|| {
            CliError::Usage(format!("there is no sample for the triggers of `{name}`; name a trigger"))
        })?,
    };
    let mut body =
        samples.remove(&trigger).unwrap_or_else(|| json!({ "interceptor_context": {}, "data": {} }));
    body["trigger_point"] = trigger.clone().into();
    if let Some(file) = args.data.as_deref() {
        let data = data(self::body(Some(file))?, &file.display())?;
        body["data"] = serde_json::from_str(data.get()).map_err(|error| failed(&error))?;
    }
    let url = match &args.url {
        Some(url) => address(url.clone())?,
        None => format!("http://{}{}", reachable(config.server.listen), interceptor.source.path),
    };
    let sender = Sender::new(url, &interceptor.source);
    let mut good = true;
    for _ in 0..args.count {
        let id = args.id.clone().unwrap_or_else(|| fresh_id(&sender.env));
        let request = SenderRequest {
            event_type: trigger.clone(),
            headers: Vec::new(),
            content_type: "application/json",
            body: body.to_string(),
        };
        let (status, answer) = sender.send(&id, request)?;
        good &= is_good(status);
        say(format_args!("{status} {answer} {trigger} {id}"))?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The interceptor with this name.
fn named<'a>(config: &'a Config, name: &str) -> Result<&'a Interceptor, CliError> {
    let names = || config.interceptors.iter().map(Interceptor::name);
    config.interceptors.iter().find(|one| one.name() == name).ok_or_else(|| {
        let way_out = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "config.toml has no [[interceptor]] of that name".to_owned(),
        };
        CliError::Usage(format!("no interceptor `{}`; {way_out}", name.escape_debug()))
    })
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

/// The samples of posthouse's own envelope, and those of each sender.
struct AllSamples {
    envelopes: Samples,
    senders: SenderSamples,
}

impl AllSamples {
    fn read() -> Result<Self, CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::Failure(error.to_string());
        let envelopes = Samples::read().map_err(|error| failed(&error))?;
        let senders = SenderSamples::read().map_err(|error| failed(&error))?;
        Ok(Self { envelopes, senders })
    }

    /// The names of the samples of a source's sender. A scheme that has none of its own has those of the envelope.
    fn names(&self, source: Option<&Source>) -> Vec<&str> {
        let own: Vec<_> =
            source.into_iter().flat_map(|source| self.senders.names(&source.scheme.name)).collect();
        if own.is_empty() { self.envelopes.types().collect() } else { own }
    }

    /// Checks that the type has a sample, or that there is data for it. Without a source, a sample of any sender will
    /// do.
    fn known(&self, event_type: &str, source: Option<&Source>, has_data: bool) -> Result<(), CliError> {
        let names = self.names(source);
        if names.contains(&event_type) || (source.is_none() && self.senders.has(event_type)) {
            return Ok(());
        }
        if has_data {
            return match EventType::new(event_type) {
                Ok(_) => Ok(()),
                Err(error) => Err(CliError::Usage(error.to_string())),
            };
        }
        let guess = match nearest(event_type, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? "),
            None => String::new(),
        };
        let of = source.map(|source| format!(" --source {}", source.name)).unwrap_or_default();
        Err(CliError::Usage(format!(
            "there is no sample of type `{}`; {guess}`posthouse send --list{of}` lists the types; --data sends any type",
            event_type.escape_debug()
        )))
    }

    /// The request of an event with this id and time. With data, it is an envelope.
    fn request(
        &self,
        source: &Source,
        event_type: &str,
        id: &str,
        at: Timestamp,
        data: Option<&RawValue>,
    ) -> Result<SenderRequest, CliError> {
        let own = || self.senders.request(&source.scheme.name, event_type, id, at);
        if let Some(request) = data.is_none().then(own).flatten() {
            return Ok(request);
        }
        let members =
            self.envelopes.body(event_type, id, at).unwrap_or_else(|| of_own_type(event_type, id, at));
        let body = event_text(&members, data).map_err(|error| CliError::Failure(error.to_string()))?;
        let event_type = event_type.to_owned();
        Ok(SenderRequest { event_type, headers: Vec::new(), content_type: "application/json", body })
    }
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

    /// Signs an event and sends it. Returns the status and the body of the answer.
    fn send(&self, id: &str, event: SenderRequest) -> Result<(u16, String), CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::Failure(error.to_string());
        let SenderRequest { headers, content_type, mut body, .. } = event;
        let (address, query) = match self.url.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (self.url.as_str(), None),
        };
        let bytes = body.clone().into_bytes();
        let at = self.env.now();
        let draft = Draft { method: &Method::POST, query, id, at, content_type, body: &bytes };
        let (signed, query) = match sign_in_body(self.source, &draft).map_err(|error| failed(&error))? {
            Some(signature) => {
                let text = Value::from(signature).to_string();
                body = body.replace("{signature}", text.trim_matches('"'));
                (Vec::new(), query.map(str::to_owned))
            }
            None => {
                let signed = sign_request(self.source, &draft).map_err(|error| failed(&error))?;
                (signed.headers, signed.query)
            }
        };
        let url = query.map_or_else(|| address.to_owned(), |query| format!("{address}?{query}"));
        let request = self.agent.post(&url).header("content-type", content_type);
        let headers = headers.into_iter().chain(signed);
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
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
        let samples = AllSamples::read().unwrap();
        let known = |event_type, has_data| samples.known(event_type, None, has_data);
        let said = known("user.creatd", false).unwrap_err().to_string();
        assert!(said.contains("`user.created`") && said.contains("--list"), "{said}");
        assert!(known("issues.opened", false).is_ok(), "GitHub has a sample of it");
        assert!(known("invoice.sent", false).is_err() && known("invoice.sent", true).is_ok());
        assert!(known("invoice paid", true).is_err());
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
