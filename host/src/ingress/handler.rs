//! One request: from its path to its end.

use std::{
    collections::{BTreeMap, HashMap},
    convert::identity,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::{KeyError, RawRequest, Verifier, body::BodyReader, ending::Ending, envelope, flood::FloodGate};
use crate::{
    config,
    model::{Ambient, EventType, NewEvent, Pattern, PluginId, RequestLedger, SourceName},
    store::{Accepted, Store, StoreError},
};

/// The ledger's key for requests that belong to no source.
pub const NO_SOURCE: &str = "(none)";

/// Which plugins get an event of this type.
pub type Subscribers = Arc<dyn Fn(&EventType) -> Vec<PluginId> + Send + Sync>;

/// Where events go: the store, or what stands for it in a test.
pub trait Inbox: Send + Sync + 'static {
    /// Takes in an event with a delivery for each plugin; returns when both are on disk.
    fn accept(
        &self,
        event: NewEvent,
        plugins: Vec<PluginId>,
    ) -> impl Future<Output = Result<Accepted, StoreError>> + Send;
}

impl Inbox for Store {
    async fn accept(&self, event: NewEvent, plugins: Vec<PluginId>) -> Result<Accepted, StoreError> {
        Store::accept(self, event, plugins).await
    }
}

/// Takes webhooks in; cheap to clone.
pub struct Ingress<I = Store>(pub(super) Arc<Shared<I>>);

impl<I> Clone for Ingress<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What all requests share.
pub(super) struct Shared<I> {
    /// By path.
    routes: HashMap<String, Route>,
    pub(super) strays: Tally,
    inbox: I,
    subscribers: Subscribers,
    ambient: Ambient,
    bodies: BodyReader,
    /// One for each request under way.
    places: Semaphore,
    pub(super) server: config::Server,
}

/// A source, ready for its requests.
struct Route {
    source: SourceName,
    verifier: Verifier,
    events: Vec<Pattern>,
    tally: Tally,
}

/// Where requests are counted and, if they end badly, logged.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) ledger: Arc<RequestLedger>,
    pub(super) gate: FloodGate,
}

impl<I: Inbox> Ingress<I> {
    /// Prepares the sources and their keys.
    ///
    /// # Errors
    /// [`KeyError`] names the secret that can't serve.
    pub fn new(
        sources: &[config::Source],
        server: &config::Server,
        inbox: I,
        subscribers: Subscribers,
        ambient: Ambient,
    ) -> Result<Self, KeyError> {
        let routes = sources.iter().map(|source| {
            let route = Route {
                source: source.name.clone(),
                verifier: Verifier::new(source)?,
                events: source.events.clone(),
                tally: Tally::default(),
            };
            Ok((source.path.clone(), route))
        });
        Ok(Self(Arc::new(Shared {
            routes: routes.collect::<Result<_, _>>()?,
            strays: Tally::default(),
            inbox,
            subscribers,
            ambient,
            bodies: BodyReader::new(server.max_body, server.body_timeout),
            places: Semaphore::new(server.max_requests),
            server: server.clone(),
        })))
    }

    /// The ledger of each source, and of [`NO_SOURCE`].
    pub fn ledger(&self) -> BTreeMap<String, Arc<RequestLedger>> {
        let routes = self.0.routes.values();
        routes
            .map(|route| (route.source.as_str(), &route.tally))
            .chain([(NO_SOURCE, &self.0.strays)])
            .map(|(name, tally)| (name.to_owned(), Arc::clone(&tally.ledger)))
            .collect()
    }
}

impl<I: Inbox> Shared<I> {
    /// Answers a request. Dropped on its way it counts as failed.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(route) = self.routes.get(request.uri().path()) else {
            let receipt = self.strays.ledger.receive();
            self.strays.log(NO_SOURCE, &Ending::UnknownPath);
            receipt.settle(Ending::UnknownPath.outcome());
            return Ending::UnknownPath.response();
        };
        let receipt = route.tally.ledger.receive();
        let ending = self.take_in(route, request).await.unwrap_or_else(identity);
        route.tally.log(route.source.as_str(), &ending);
        receipt.settle(ending.outcome());
        ending.response()
    }

    async fn take_in(&self, route: &Route, request: Request<Incoming>) -> Result<Ending, Ending> {
        if request.method() != Method::POST {
            return Err(Ending::WrongMethod);
        }
        let Ok(_place) = self.places.try_acquire() else { return Err(Ending::Busy) };
        let (head, body) = request.into_parts();
        let (body, _large) = self.bodies.read(body).await?;
        let event = self.event(route, head.headers, body)?;
        if !route.events.iter().any(|pattern| pattern.matches(&event.event_type)) {
            return Ok(Ending::Filtered);
        }
        let plugins = (self.subscribers)(&event.event_type);
        match self.inbox.accept(event, plugins).await? {
            Accepted::Stored(_) => Ok(Ending::Accepted),
            Accepted::Duplicate => Ok(Ending::Duplicate),
        }
    }

    /// The event in a request, if its sender is the source's.
    fn event(&self, route: &Route, headers: HeaderMap, body: Bytes) -> Result<NewEvent, Ending> {
        let request = RawRequest { headers, body };
        let now = self.ambient.now();
        let verified = route.verifier.verify(&request, now)?;
        Ok(envelope::read(&verified, &route.source, now)?)
    }
}

impl Tally {
    /// Writes down a request that did not end well, unless too many did just now.
    fn log(&self, source: &str, ending: &Ending) {
        if matches!(ending, Ending::Accepted | Ending::Duplicate | Ending::Filtered) {
            return;
        }
        let Some(held_back) = self.gate.admit() else { return };
        match ending {
            Ending::Refused(refusal) => {
                tracing::warn!(source, reason = refusal.label(), held_back, "signature refused: {refusal}");
            }
            Ending::NoEvent(error) => {
                tracing::warn!(source, reason = error.label(), held_back, "payload refused: {error}");
            }
            Ending::NotStored(error) => {
                tracing::error!(source, held_back, "event not taken in: {error}");
            }
            Ending::Busy => {
                tracing::warn!(source, held_back, "too many requests at once; see `max_requests`")
            }
            Ending::Unread(error) => tracing::warn!(source, held_back, "request refused: {error}"),
            other => tracing::debug!(source, held_back, "request refused: {other:?}"),
        }
    }
}
