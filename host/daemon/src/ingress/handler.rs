//! Handles one request, from its path to its response.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use ipnet::IpNet;
use jiff::Timestamp;
use parking_lot::Mutex;
use posthouse_egress::Egress;
use posthouse_model::{
    Env, EventOrigin, LastRefusal, NewEvent, Pattern, RequestLedger, SourceName, Subscriber,
    config::{self, Rate, Respond, Scheme, Secret, scheme::AnswerForm},
};
use posthouse_store::{Accepted, Offer, Store, StoreError, Watcher, watch};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    KeyError, Refusal, Verifier,
    body::{BodyReader, content_coding},
    claim::{Claim, Whole},
    ending::Ending,
    event::{self, Arrived},
    handling::Handling,
    handshake::{Confirmation, Shaken, Test},
    interceptor::{Decide, Doors},
    keep::Keep,
    keychain::{Keychain, Unpublished, Wanted},
    learning::BroughtKeys,
    network::Network,
    published::PublishedKey,
    request::Head,
    stray,
};

use crate::{
    listener::{self, Peer, Pulse},
    log_limiter::LogLimiter,
    rate::Allowance,
    telemetry::{RequestTrace, Telemetry},
};

/// The ledger's key for requests that belong to no source.
pub const NO_SOURCE: &str = "(none)";

/// How many unsigned tests of a URL are answered. A sender sends a few when the URL is entered, and some one an hour.
const TESTS: Rate = Rate { per_second: 1.0, burst: 10 };

/// Selects the plugins that get an event.
pub type Subscribers = Arc<dyn Fn(&NewEvent) -> Vec<Subscriber> + Send + Sync>;

/// Where verified events go: the store, or a fake in tests.
pub trait Inbox: Send + Sync + 'static {
    /// Stores events, each with a delivery for each of its subscribers, all or none. Returns when they are on disk.
    /// The watcher learns how the first attempt of each delivery ended, except for plugins that are held.
    fn accept(
        &self,
        offers: Vec<Offer>,
        watcher: Option<Watcher>,
    ) -> impl Future<Output = Result<Vec<Accepted>, StoreError>> + Send;
}

impl Inbox for Store {
    async fn accept(
        &self,
        offers: Vec<Offer>,
        watcher: Option<Watcher>,
    ) -> Result<Vec<Accepted>, StoreError> {
        self.accept_all(offers, watcher).await
    }
}

/// Where keys come from that config.toml does not have.
pub struct KeyPlaces {
    /// The keys that senders bring.
    pub brought: BroughtKeys,
    /// The way to the keys that senders publish.
    pub egress: Egress,
}

/// Accepts webhooks; cheap to clone.
pub struct Ingress<I = Store>(pub(super) Arc<Shared<I>>);

impl<I> Clone for Ingress<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The state that all requests share.
pub(super) struct Shared<I> {
    /// A reload of config.toml replaces all of it. A request keeps the route that it began with.
    pub(super) routes: ArcSwap<Routes>,
    /// Held while `routes` are replaced, so that no reload undoes what a sender has brought meanwhile.
    pub(super) changing: Mutex<()>,
    /// The keys that senders brought.
    pub(super) keys: Arc<BroughtKeys>,
    /// One for every source since the start, by name. A source that is removed and added back continues its
    /// counts.
    tallies: Mutex<BTreeMap<String, Arc<Tally>>>,
    pub(super) strays: Tally,
    pub(super) pulse: Pulse,
    /// As `routes`, for the interceptors.
    pub(super) interceptors: ArcSwap<Doors>,
    pub(super) decide: OnceLock<Decide>,
    inbox: I,
    subscribers: Subscribers,
    pub(super) env: Env,
    telemetry: Telemetry,
    egress: Egress,
    pub(super) bodies: BodyReader,
    /// One permit for each active request. A request is active from when its body is complete.
    pub(super) places: Semaphore,
    pub(super) proxies: Arc<[IpNet]>,
    pub(super) server: config::Server,
}

/// The sources by path.
pub(super) type Routes = HashMap<String, Arc<Route>>;

/// A source with everything that its requests need.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) source: SourceName,
    pub(super) path: String,
    pub(super) verifier: Arc<Verifier>,
    /// The source without a key, if its sender brings the key.
    pub(super) learner: Option<Arc<config::Source>>,
    /// Whether it has a key.
    pub(super) has_key: bool,
    events: Vec<Pattern>,
    respond: Respond,
    /// None if the source has no rate.
    allowance: Option<Arc<Allowance>>,
    /// What its events keep of their requests.
    keep: Keep,
    /// How many unsigned tests of the URL are answered.
    tests: Arc<Allowance>,
    /// The keys that the sender publishes. None if the secrets are the keys.
    published: Option<Arc<Published>>,
    /// The answer to an event, where the sender reads it.
    answer: Option<AnswerForm>,
    tally: Arc<Tally>,
}

/// The published keys of a source, which a reload keeps if the source still has this scheme and these secrets.
pub(super) struct Published {
    scheme: Arc<Scheme>,
    secrets: Vec<Secret>,
    keys: Keychain,
}

impl Route {
    /// Gives a response the form that the sender wants.
    fn shape(&self, ending: &Ending, response: &mut Response<Full<Bytes>>) {
        use Ending::{Accepted, Duplicate, Filtered, Refused};
        let Some(form) = self.answer else { return };
        if !matches!(ending, Accepted | Duplicate | Filtered | Refused(_)) {
            return;
        }
        if response.status() == StatusCode::OK {
            *response.status_mut() = StatusCode::from_u16(form.status).unwrap_or(StatusCode::OK);
        }
        if form.empty {
            *response.body_mut() = Full::default();
            response.headers_mut().remove(CONTENT_TYPE);
        }
    }

    /// The same source with other keys.
    pub(super) fn with_verifier(&self, verifier: Verifier) -> Self {
        Self { has_key: !verifier.is_keyless(), verifier: Arc::new(verifier), ..self.clone() }
    }

    /// Whether the source has this rate.
    fn has(&self, rate: Rate) -> bool {
        self.allowance.as_ref().is_some_and(|allowance| allowance.rate() == rate)
    }
}

/// Where requests are counted and, if they fail, logged.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) ledger: Arc<RequestLedger>,
    pub(super) gate: LogLimiter,
}

impl<I: Inbox> Ingress<I> {
    /// Prepares the sources and their keys.
    ///
    /// # Errors
    /// [`KeyError`] names the secret that cannot be used.
    pub fn new(
        sources: &[config::Source],
        server: &config::Server,
        inbox: I,
        subscribers: Subscribers,
        env: Env,
        telemetry: Telemetry,
        keys: KeyPlaces,
    ) -> Result<Self, KeyError> {
        let KeyPlaces { brought, egress } = keys;
        let ingress = Self(Arc::new(Shared {
            routes: ArcSwap::default(),
            changing: Mutex::default(),
            keys: Arc::new(brought),
            tallies: Mutex::default(),
            strays: Tally::default(),
            pulse: Pulse::default(),
            interceptors: ArcSwap::default(),
            decide: OnceLock::new(),
            inbox,
            subscribers,
            env,
            telemetry,
            egress,
            bodies: BodyReader::new(server.max_body, server.body_timeout),
            places: Semaphore::new(server.max_requests),
            proxies: server.trusted_proxies.clone().into(),
            server: server.clone(),
        }));
        ingress.replace_sources(sources)?;
        Ok(ingress)
    }

    /// Replaces all sources at once, or none. An active request ends with the source that it began with.
    ///
    /// # Errors
    /// [`KeyError`] names the secret that cannot be used; then nothing has changed.
    pub fn replace_sources(&self, sources: &[config::Source]) -> Result<(), KeyError> {
        let _one_at_a_time = self.0.changing.lock();
        let with_keys = self.0.keys.with_keys(sources)?;
        let verifiers = with_keys.iter().map(Verifier::new).collect::<Result<Vec<_>, _>>()?;
        let running = self.0.routes.load_full();
        let mut tallies = self.0.tallies.lock();
        let route = |(source, verifier): (&config::Source, Verifier)| {
            let tally = tallies.entry(source.name.as_str().to_owned()).or_default();
            let (source, path) = (source.clone(), source.path.clone());
            let tally = Arc::clone(tally);
            let answer = source.scheme.rows.iter().find_map(|row| row.answer);
            let learner = source.brings_key.then(|| Arc::new(source.clone()));
            let published = self.0.published(&source, running.get(&path));
            let keep = Keep::of(&source);
            let config::Source { name, events, respond, rate, .. } = source;
            let allowance = rate.and_then(|rate| match running.get(&path) {
                // A reload does not refill an unchanged rate.
                Some(route) if route.source == name && route.has(rate) => route.allowance.clone(),
                _ => Some(Arc::new(Allowance::new(rate))),
            });
            (
                path.clone(),
                Arc::new(Route {
                    source: name,
                    path,
                    has_key: !verifier.is_keyless(),
                    learner,
                    verifier: Arc::new(verifier),
                    events,
                    respond,
                    allowance,
                    keep,
                    tests: Arc::new(Allowance::new(TESTS)),
                    published,
                    answer,
                    tally,
                }),
            )
        };
        self.0.routes.store(Arc::new(sources.iter().zip(verifiers).map(route).collect()));
        Ok(())
    }

    /// Returns when the loop that accepts connections has run once more.
    pub async fn turns(&self) {
        self.0.pulse.beat().await;
    }

    /// The ledger of each source, including removed ones, and of [`NO_SOURCE`].
    pub fn ledger(&self) -> BTreeMap<String, Arc<RequestLedger>> {
        let tallies = self.0.tallies.lock();
        tallies
            .iter()
            .map(|(name, tally)| (name.as_str(), &**tally))
            .chain([(NO_SOURCE, &self.0.strays)])
            .map(|(name, tally)| (name.to_owned(), Arc::clone(&tally.ledger)))
            .collect()
    }
}

impl<I: Inbox> Shared<I> {
    /// The published keys of a source: those of its running route, if nothing of them has changed.
    fn published(&self, source: &config::Source, running: Option<&Arc<Route>>) -> Option<Arc<Published>> {
        let network = Network::of(source, &self.egress, &self.env)?;
        let (scheme, secrets) = (Arc::clone(&source.scheme), source.secrets.clone());
        let same = |kept: &&Arc<Published>| kept.scheme == scheme && kept.secrets == secrets;
        let running = running.filter(|route| route.source == source.name);
        if let Some(kept) = running.and_then(|route| route.published.as_ref()).filter(same) {
            return Some(Arc::clone(kept));
        }
        let keys = Keychain::new(network, self.env.clone());
        Some(Arc::new(Published { scheme, secrets, keys }))
    }

    /// A place among the active requests.
    fn place(&self) -> Result<SemaphorePermit<'_>, Ending> {
        self.places.try_acquire().map_err(|_| Ending::Busy)
    }

    /// The tally of a source or an interceptor.
    pub(super) fn tally(&self, name: &str) -> Arc<Tally> {
        Arc::clone(self.tallies.lock().entry(name.to_owned()).or_default())
    }

    /// Answers a request. If its future is dropped, the ledger counts the request as failed.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let client = || listener::client(peer.address(), &head.headers, &self.proxies);
        let routes = self.routes.load();
        let Some(route) = routes.get(head.uri.path()).cloned() else {
            let door = self.interceptors.load().get(head.uri.path()).cloned();
            if let Some(door) = door {
                drop(routes);
                return self.answer_interceptor(&door, &head, body, peer).await;
            }
            let receipt = self.strays.ledger.receive();
            if let Some(held_back) = self.strays.gate.admit() {
                stray::log(&head.method, head.uri.path(), client(), &routes, held_back);
            }
            receipt.settle(Ending::UnknownPath.outcome());
            return Ending::UnknownPath.response();
        };
        drop(routes);
        let receipt = route.tally.ledger.receive();
        let mut trace = self.telemetry.request();
        let taken_in = self.take_in(&route, &head, body, peer, &mut trace).await;
        let (ending, handling) = taken_in.unwrap_or_else(|ending| (ending, None));
        route.tally.log(route.source.as_str(), &ending, client, self.env.now());
        // The event is on disk, so it counts as accepted even if its sender does not wait for the response.
        receipt.settle(ending.outcome());
        let mut response = match handling {
            Some(handling) => handling.response().await,
            None => ending.response(),
        };
        route.shape(&ending, &mut response);
        trace.end(&route.path, ending.outcome(), response.status().as_u16());
        response
    }

    /// Verifies and stores a request. Anything that the head alone can refuse, it refuses before it reads the
    /// body. Only a complete body takes one of the `max_requests` places.
    async fn take_in(
        &self,
        route: &Route,
        head: &Parts,
        body: Incoming,
        peer: &Peer,
        trace: &mut RequestTrace,
    ) -> Result<(Ending, Option<Handling>), Ending> {
        let claimed = Head { method: head.method.as_str(), query: head.uri.query(), headers: &head.headers };
        self.test(route, claimed, None).await?;
        if head.method != Method::POST {
            return Err(self.signed_test(route, claimed));
        }
        // Senders sign a body before it is compressed. If posthouse verified the compressed bytes, the answer
        // would be a bad signature, which hides the cause. If it unpacked them for strangers, they could be a
        // decompression bomb.
        if content_coding(&head.headers).is_some() {
            return Err(Ending::Compressed);
        }
        self.bodies.check_length(&body)?;
        let claim = match self.claim(route, claimed) {
            Err(Refusal::Unsigned) if route.verifier.may_shake(claimed, false) => {
                let (body, _room) = self.bodies.read(body).await?;
                self.test(route, claimed, Some(&body)).await?;
                return Err(Refusal::Unsigned.into());
            }
            claim => claim?,
        };
        let (body, _room) = self.bodies.read(body).await?;
        let mut place = self.place()?;
        trace.read();
        let whole = claim.with_body(&body)?;
        self.check_age(|now| whole.check_age(route.verifier.tolerance(), now))?;
        let wanted = whole.wanted()?;
        let mut key = None;
        if let (Some(wanted), Some(published)) = (&wanted, &route.published) {
            key = published.keys.known(wanted);
            if key.is_none() {
                // Requests that wait for the network have a limit of their own.
                drop(place);
                key = Some(published.keys.key(wanted).await?);
                place = self.place()?;
            }
        }
        let mut events = match self.events(route, &whole, key.as_deref(), wanted.as_ref(), peer, trace)? {
            Signed::Events(events) => events,
            Signed::Confirmation(confirmation) => {
                drop(place);
                return Err(self.confirm(route, confirmation).await);
            }
        };
        events
            .retain(|arrived| route.events.iter().any(|pattern| pattern.matches(&arrived.event.event_type)));
        if events.is_empty() {
            return Ok((Ending::Filtered, None));
        }
        let offer = |Arrived { event, second }: Arrived| {
            let subscribers = (self.subscribers)(&event);
            Offer { event, second, subscribers, origin: EventOrigin::Webhook }
        };
        let offers: Vec<_> = events.into_iter().map(offer).collect();
        let known: Vec<_> = offers.iter().map(|offer| (offer.event.id.clone(), offer.event.trace)).collect();
        let (watcher, watched) = match route.respond {
            Respond::Accepted => (None, None),
            Respond::Handled { within } => {
                let (watcher, attempts) = watch();
                let subscribers: Vec<_> = offers.iter().map(|offer| offer.subscribers.clone()).collect();
                (Some(watcher), Some((attempts, subscribers, within)))
            }
        };
        let accepted = self.inbox.accept(offers, watcher).await?;
        trace.stored();
        for ((id, context), accepted) in known.iter().zip(&accepted) {
            tracing::debug!(
                source = %route.source,
                event = %id,
                trace = context.map(|context| tracing::field::display(context.trace_id())),
                duplicate = *accepted == Accepted::Duplicate,
                "event taken in"
            );
        }
        if accepted.iter().all(|accepted| *accepted == Accepted::Duplicate) {
            return Ok((Ending::Duplicate, None));
        }
        let handling = watched.map(|(attempts, subscribers, within)| {
            // Of an event that was here already, no attempt is heard of.
            let stored = subscribers.into_iter().zip(&accepted);
            let stored = stored.filter(|(_, accepted)| **accepted != Accepted::Duplicate);
            let stored: Vec<_> = stored.flat_map(|(subscribers, _)| subscribers).collect();
            Handling::new(attempts, &stored, within)
        });
        Ok((Ending::Accepted, handling))
    }

    /// Answers a request that tests the URL without a signature.
    ///
    /// # Errors
    /// [`Ending`] if it is one: its answer, or why it gets none.
    async fn test(&self, route: &Route, head: Head<'_>, body: Option<&Bytes>) -> Result<(), Ending> {
        let opened = body.and_then(|body| route.verifier.open_unsigned(body));
        if opened.is_some() {
            // Whoever sends these tries what can be decrypted.
            route.tests.take().map_err(|seconds| Ending::TooMany { seconds })?;
        }
        let body = opened.as_ref().or(body);
        let test = Test { head, body: body.map(|body| &body[..]), verified: false };
        match route.verifier.handshake(&test, None) {
            Shaken::No => Ok(()),
            Shaken::Answer(answer) if !answer.open => Err(Ending::Answered(answer)),
            shaken => {
                // Anybody can send these, so they have a rate of their own.
                route.tests.take().map_err(|seconds| Ending::TooMany { seconds })?;
                match shaken {
                    Shaken::Answer(answer) => Err(Ending::Answered(answer)),
                    Shaken::Key(key, answer) => {
                        self.learn(route, key).await?;
                        Err(Ending::Answered(answer))
                    }
                    Shaken::Confirm(_) | Shaken::Refused | Shaken::No => Err(Refusal::Mismatch.into()),
                }
            }
        }
    }

    /// The end of a request with another method than POST: a test of the URL that is signed, or nothing.
    fn signed_test(&self, route: &Route, head: Head<'_>) -> Ending {
        if !route.verifier.may_shake(head, true) {
            return Ending::WrongMethod;
        }
        let body = Bytes::new();
        let verified = || {
            let whole = self.claim(route, head)?.with_body(&body)?;
            self.check_age(|now| whole.check_age(route.verifier.tolerance(), now))?;
            whole.check_signatures(None)?;
            let test = Test { head, body: Some(&body), verified: true };
            Ok::<_, Refusal>(route.verifier.handshake(&test, Some(whole.plan())))
        };
        match verified() {
            Ok(Shaken::Answer(answer)) => Ending::Answered(answer),
            Ok(_) => Ending::WrongMethod,
            Err(refusal) => refusal.into(),
        }
    }

    /// Returns the claim of the head, if the time of signing is acceptable now.
    fn claim<'r>(&self, route: &'r Route, head: Head<'r>) -> Result<Claim<'r, 'r>, Refusal> {
        let claim = route.verifier.claim(head)?;
        self.check_age(|now| claim.check_age(route.verifier.tolerance(), now))?;
        Ok(claim)
    }

    /// Checks an age. If the clock was set back, a timestamp that fits either clock is accepted.
    pub(super) fn check_age(&self, check: impl Fn(Timestamp) -> Result<(), Refusal>) -> Result<(), Refusal> {
        match check(self.env.now()) {
            Err(refusal) if self.env.set_back().is_some() => check(self.env.wall()).map_err(|_| refusal),
            other => other,
        }
    }

    /// Fetches a URL of a signed request, and returns the end of the request.
    async fn confirm(&self, route: &Route, confirmation: Confirmation) -> Ending {
        // A recorded request can be sent again, and is no event that is known.
        if let Err(seconds) = route.tests.take() {
            return Ending::TooMany { seconds };
        }
        let Confirmation { url, addresses, answer } = confirmation;
        match self.egress.fetch(&url, &addresses, None).await {
            Ok(_) => {
                tracing::info!(source = %route.source, "confirmed what the sender asked to be confirmed");
                Ending::Answered(answer)
            }
            Err(reason) => Ending::Unpublished(Unpublished::new(reason, 30)),
        }
    }

    /// The events in a request, if its signature is valid. `published` is the key that it names as `wanted`.
    fn events(
        &self,
        route: &Route,
        whole: &Whole<'_, '_>,
        published: Option<&PublishedKey>,
        wanted: Option<&Wanted>,
        peer: &Peer,
        trace: &mut RequestTrace,
    ) -> Result<Signed, Ending> {
        // The body may have taken long to arrive, and the claim may be too old by now.
        self.check_age(|now| whole.check_age(route.verifier.tolerance(), now))?;
        let verified = route.verifier.verify_claim(whole, published)?;
        if let (Some(published), Some(wanted)) = (&route.published, wanted) {
            published.keys.prove(wanted);
        }
        peer.admit().map_err(|_| Ending::Busy)?;
        if let Some(allowance) = &route.allowance {
            allowance.take().map_err(|seconds| Ending::TooMany { seconds })?;
        }
        let test = Test { head: verified.head(), body: Some(verified.body()), verified: true };
        match route.verifier.handshake(&test, Some(verified.plan())) {
            Shaken::Answer(answer) => return Err(Ending::Answered(answer)),
            Shaken::Confirm(confirmation) => return Ok(Signed::Confirmation(confirmation)),
            Shaken::Refused => return Err(Refusal::Unmet("handshake".into()).into()),
            Shaken::No | Shaken::Key(..) => {}
        }
        let mut events = event::read(&verified, &route.source, self.env.now())?;
        for Arrived { event, .. } in &mut events {
            event.request = route.keep.parts(&verified, &event.body);
        }
        if let Some((first, others)) = events.split_first_mut() {
            trace.verified(verified.head().headers, &mut first.event);
            others.iter_mut().for_each(|other| other.event.trace = first.event.trace);
        }
        Ok(Signed::Events(events))
    }
}

/// What a signed request has.
enum Signed {
    Events(Vec<Arrived>),
    Confirmation(Confirmation),
}

impl Tally {
    /// Logs a request that failed, with its client. [`LogLimiter`] limits the lines.
    pub(super) fn log(&self, source: &str, ending: &Ending, client: impl FnOnce() -> IpAddr, at: Timestamp) {
        if matches!(ending, Ending::Accepted | Ending::Duplicate | Ending::Filtered) {
            return;
        }
        let Some(held_back) = self.gate.admit() else { return };
        let peer = tracing::field::display(client());
        match ending {
            Ending::Refused(refusal) => {
                self.ledger.refused(LastRefusal { at, why: refusal.to_string() });
                tracing::warn!(
                    source,
                    reason = refusal.label(),
                    peer,
                    held_back,
                    "signature refused: {refusal}"
                );
            }
            Ending::NoEvent(error) => {
                tracing::warn!(
                    source,
                    reason = error.label(),
                    peer,
                    held_back,
                    "payload refused: {}",
                    error.for_the_log()
                );
            }
            Ending::Unpublished(why) => {
                tracing::warn!(
                    source,
                    peer,
                    held_back,
                    "signature not checked, the sender was asked to retry: {why}"
                );
            }
            Ending::NotStored(error) => {
                tracing::error!(source, held_back, "event not taken in: {error}");
            }
            Ending::Busy => {
                tracing::warn!(source, peer, held_back, "too many requests at once; see `max_requests`");
            }
            Ending::TooMany { seconds } => {
                tracing::warn!(source, seconds, peer, held_back, "more signed requests than `rate` allows");
            }
            Ending::Compressed => {
                tracing::warn!(
                    source,
                    peer,
                    held_back,
                    "request refused: its body is compressed (Content-Encoding)"
                );
            }
            Ending::Unread(error) => tracing::warn!(source, peer, held_back, "request refused: {error}"),
            Ending::Answered(_) => tracing::info!(source, peer, held_back, "test of the URL answered"),
            Ending::WrongMethod => {
                tracing::info!(source, peer, held_back, "request refused: the method is not POST");
            }
            other => tracing::debug!(source, peer, held_back, "request refused: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posthouse_model::{
        EventSeq, PluginId,
        config::{Rate, Respond},
    };
    use posthouse_store::{FirstAttempt, StoreError};

    use crate::ingress::{
        NO_SOURCE,
        fixtures::{BODY, TestServer},
    };

    fn body_of((status, answer): (u16, String)) -> (u16, String) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/json"), "{head}");
        (status, body.to_owned())
    }

    #[tokio::test]
    async fn an_event_is_taken_in_once() {
        let server = TestServer::start().await;
        let request = server.signed("msg_1", BODY);
        assert_eq!(body_of(server.ask(&request).await), (200, r#"{"received":true}"#.into()));
        let duplicate = (200, r#"{"received":true,"duplicate":true}"#.to_owned());
        assert_eq!(body_of(server.ask(&request).await), duplicate);

        let taken = server.inbox.taken.lock().clone();
        let [(event, subscribers)] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((event.id.as_str(), event.event_type.as_str()), ("msg_1", "user.created"));
        assert_eq!((&event.body[..], &subscribers[..]), (BODY.as_bytes(), &[PluginId(7).into()][..]));
        assert_eq!(posthouse_model::Event { seq: EventSeq(1), content: event.clone() }.data(), "{}");
        let counts = server.counts("crm").await;
        assert_eq!((counts.received, counts.accepted, counts.duplicate), (2, 1, 1));
    }

    #[tokio::test]
    async fn a_type_that_is_not_wanted_is_answered_and_dropped() {
        let server = TestServer::start().await;
        let request = server.signed("msg_1", r#"{"type":"session.created"}"#);
        let filtered = (200, r#"{"received":true,"filtered":true}"#.to_owned());
        assert_eq!(body_of(server.ask(&request).await), filtered);
        assert!(server.inbox.taken.lock().is_empty());
        assert_eq!(server.counts("crm").await.filtered, 1);
    }

    #[tokio::test]
    async fn every_bad_signature_gets_the_same_answer() {
        let server = TestServer::start().await;
        let good = server.signed("msg_1", BODY);
        let bad = [
            good.replace("user.created", "user.deleted"),
            good.replace("webhook-signature", "x-signature"),
            good.replace("webhook-id: msg_1", "webhook-id: msg_1\r\nwebhook-id: msg_1"),
            good.replace("webhook-timestamp: 1765281881", "webhook-timestamp: 1765281001"),
            good.replace("webhook-", "x-"),
        ];
        for request in &bad {
            let answer = server.ask(request).await;
            assert_eq!(body_of(answer), (401, r#"{"error":"Invalid signature"}"#.into()), "{request}");
        }
        let reasons = server.counts("crm").await.rejected;
        let labels: Vec<_> = reasons.keys().map(String::as_str).collect();
        let expected =
            ["missing-header", "repeated-header", "signature-mismatch", "stale-timestamp", "unsigned"];
        assert_eq!(labels, expected);
    }

    #[tokio::test]
    async fn what_is_signed_and_no_event_is_told_what_it_lacks() {
        let server = TestServer::start().await;
        let answer = body_of(server.ask(&server.signed("msg_1", r#"{"id":"evt_1"}"#)).await);
        assert_eq!(answer, (400, r#"{"detail":"`type` is missing","error":"Invalid payload"}"#.into()));
        let answer = body_of(server.ask(&server.signed("msg_1", "")).await);
        assert_eq!(answer.0, 400);
        assert_eq!(server.counts("crm").await.rejected.len(), 2);
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_named() {
        let server = TestServer::start().await;
        for path in ["/", "/webhooks/crm/", "/webhooks/CRM", "/webhooks"] {
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(body_of(server.ask(&request).await).0, 404, "{path}");
        }
        let (status, answer) = server.ask("GET /webhooks/crm HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(status == 405 && answer.contains("allow: post\r\n"), "{answer}");
        assert_eq!(server.counts("crm").await.rejected["wrong-method"], 1);
        assert_eq!(server.counts(NO_SOURCE).await.rejected["unknown-path"], 4);

        let query = server.signed("msg_1", BODY).replace("/webhooks/crm", "/webhooks/crm?from=here");
        assert_eq!(server.ask(&query).await.0, 200);
    }

    #[tokio::test]
    async fn nothing_is_acknowledged_that_the_store_has_not() {
        let server = TestServer::start().await;
        for (error, label) in [
            (StoreError::Backlog(10), "backlog"),
            (StoreError::NoSpace { free: 1, least: 2 }, "disk-space"),
            (StoreError::Poisoned("disk".into()), "store-poisoned"),
            (StoreError::Io("disk".into()), "store-write"),
            (StoreError::Closed, "store-closed"),
        ] {
            *server.inbox.failure.lock() = Some(error);
            let (status, answer) = server.ask(&server.signed("msg_1", BODY)).await;
            assert!(status == 503 && answer.contains("retry-after: "), "{answer}");
            assert!(!answer.contains("disk") && !answer.contains("received"), "{answer}");
            assert_eq!(server.counts("crm").await.failed[label], 1);
        }
        *server.inbox.failure.lock() = None;
        assert_eq!(server.ask(&server.signed("msg_1", BODY)).await.0, 200);
    }

    #[tokio::test]
    async fn a_request_that_waits_to_be_handled_takes_no_place() {
        let within = Duration::from_secs(600);
        let server =
            TestServer::answering(Respond::Handled { within }, |server| server.max_requests = 1).await;
        let request = server.signed("msg_1", BODY);
        let first = server.ask(&request);
        let second = async {
            while server.inbox.watchers.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            // Stored already, so this request does not wait.
            let duplicate = server.ask(&request).await;
            let watcher = server.inbox.watchers.lock().remove(0);
            watcher.tell(FirstAttempt::Failed);
            duplicate
        };
        let ((failed, answer), (duplicate, _)) = tokio::join!(first, second);
        assert_eq!((failed, duplicate), (500, 200), "{answer}");
        assert!(answer.ends_with(r#"{"error":"Critical processing error"}"#), "{answer}");
        let counts = server.counts("crm").await;
        assert_eq!((counts.received, counts.accepted, counts.duplicate), (2, 1, 1));
    }

    #[tokio::test]
    async fn a_source_sends_as_much_as_its_rate_allows_and_a_stranger_uses_up_nothing_of_it() {
        let rate = Rate { per_second: 0.02, burst: 3 };
        let server = TestServer::at(|source| source.rate = Some(rate)).await;
        let forged = server.signed("msg_0", BODY).replace("user.created", "user.deleted");
        for _ in 0..10 {
            assert_eq!(server.ask(&forged).await.0, 401);
        }
        // Invalid events, unwanted types and duplicates count as well.
        for (id, body, status) in [("msg_1", BODY, 200), ("msg_1", BODY, 200), ("msg_2", "{}", 400)] {
            assert_eq!(server.ask(&server.signed(id, body)).await.0, status);
        }
        let (status, answer) = server.ask(&server.signed("msg_3", BODY)).await;
        assert_eq!(status, 429, "{answer}");
        assert!(answer.ends_with(r#"{"error":"Too many requests"}"#), "{answer}");
        let (_, wait) = answer.split_once("retry-after: ").unwrap();
        let wait: u64 = wait.lines().next().unwrap().parse().unwrap();
        assert!((1..=50).contains(&wait), "{answer}");
        // A reload of config.toml refills nothing; another rate does.
        server.replace(|source| source.rate = Some(rate));
        assert_eq!(server.ask(&server.signed("msg_3", BODY)).await.0, 429);
        server.replace(|source| source.rate = Some(Rate { burst: 1, ..rate }));
        assert_eq!(server.ask(&server.signed("msg_3", BODY)).await.0, 200);
        server.replace(|source| source.rate = None);
        assert_eq!(server.ask(&server.signed("msg_4", BODY)).await.0, 200);
        let counts = server.counts("crm").await;
        assert_eq!((counts.rejected["rate-limited"], counts.accepted, counts.duplicate), (2, 3, 1));
        assert_eq!(counts.received, 10 + 3 + 2 + 2);
    }

    #[tokio::test]
    async fn one_request_too_many_is_asked_to_come_again() {
        let server = TestServer::with(|server| server.max_requests = 1).await;
        let held = server.inbox.gate.acquire_many(1000).await.unwrap();
        let request = server.signed("msg_1", BODY);
        let first = server.ask(&request);
        let second = async {
            while server.places_left() > 0 {
                tokio::task::yield_now().await;
            }
            let answer = server.ask(&server.signed("msg_2", BODY)).await;
            drop(held);
            answer
        };
        let ((accepted, _), (busy, answer)) = tokio::join!(first, second);
        assert_eq!((accepted, busy), (200, 503), "{answer}");
        assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
        assert_eq!(server.counts("crm").await.failed["busy"], 1);
    }
}
