//! The parts of ingress that the admin listener needs: the list of sources, and a sender of test events. The
//! sender posts to the daemon's own listener as any sender does.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use posthouse_model::{
    Env, SourceName,
    config::{Config, Source},
};
use ureq::Agent;

use crate::{
    admin::{self, KeyState, Keys, Posted, Senders},
    catch_up::CatchUps,
    ingress::{BroughtKeys, Ingress, KeyState as Held, sign},
};

/// The timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum length of an answer, in bytes.
const MOST_BYTES: u64 = 64 << 10;

/// The sources with their keys, what asks their senders, and a sender that posts to `listen`.
pub(super) fn senders(
    config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
    catch_ups: CatchUps,
    listen: SocketAddr,
    env: Env,
    ingress: &Ingress,
    brought: BroughtKeys,
) -> Senders {
    let agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .proxy(None)
        .build()
        .new_agent();
    let listen = reachable(listen);
    let brought = Arc::new(brought);
    let keys = keys(ingress, Arc::clone(&brought));
    let post = move |source: &Source, id: &str, body: &[u8]| {
        let with_key = brought.with_keys(std::slice::from_ref(source)).map_err(|error| error.to_string())?;
        let source = with_key.first().unwrap_or(source);
        let headers = sign(source, id, env.now(), body).map_err(|error| error.to_string())?;
        let request = agent.post(format!("http://{listen}{}", source.path));
        let request = request.header("content-type", "application/json");
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let silent = |error: ureq::Error| format!("the own listener {listen} gives no answer: {error}");
        let mut response = request.send(body).map_err(silent)?;
        let answer = response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string();
        Ok(Posted { status: response.status().as_u16(), answer: answer.map_err(silent)? })
    };
    let statuses = catch_ups.clone();
    let catch_ups = admin::CatchUps {
        statuses: Arc::new(move || statuses.statuses()),
        compare: Arc::new(move |source, since, dry_run| {
            let catch_ups = catch_ups.clone();
            async move { catch_ups.compare(&source, since, dry_run).await }.boxed()
        }),
    };
    Senders { config, post: Arc::new(post), keys, catch_ups }
}

/// The keys that senders bring.
fn keys(ingress: &Ingress, brought: Arc<BroughtKeys>) -> Keys {
    let of = ingress.clone();
    let state = move |source: &str| match of.key_state(source) {
        Some(Held::Configured) => (KeyState::Configured, None),
        Some(Held::Brought) => (KeyState::Brought, None),
        Some(Held::Awaited(until)) => (KeyState::Awaited, Some(until)),
        Some(Held::Missing) | None => (KeyState::Missing, None),
    };
    let of = ingress.clone();
    let learn = move |source: &str, within| {
        let until = of.await_key(source, within).map_err(|error| error.to_string())?;
        let name = SourceName::new(source).map_err(|error| error.to_string())?;
        Ok((until, brought.file(&name)))
    };
    let of = ingress.clone();
    let forget = move |source: &str| of.forget_key(source).map_err(|error| error.to_string());
    Keys { state: Arc::new(state), learn: Arc::new(learn), forget: Arc::new(forget) }
}

/// The address at which the daemon reaches its own listener: loopback if it listens on every address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
