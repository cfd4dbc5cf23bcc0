//! Fixtures of the tests in this folder.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use parking_lot::Mutex;
use posthouse_egress::Egress;
use posthouse_model::{
    Env, EventSeq, NewEvent, Pattern, PluginId, RequestCounts, SourceName, Subscriber,
    config::{Http, Respond, Scheme, Secret, Server, Source},
    testing::{Constant, ManualClock},
};
use posthouse_store::{Accepted, Offer, StoreError, Watcher};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{BroughtKeys, Inbox, Ingress, KeyPlaces, NO_SOURCE, RawRequest, sign};

use crate::telemetry::Telemetry;

/// The time of the tests' clock, in Unix seconds.
pub(super) const NOW: i64 = 1_765_281_881;
/// A body that is a valid event.
pub(super) const BODY: &str = r#"{"id":"evt_1","type":"user.created","data":{}}"#;
/// A test fails if something takes longer than this.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A source named `crm` with one secret that is valid in every scheme.
pub(crate) fn source(scheme: &str) -> Source {
    Source {
        name: SourceName::new("crm").unwrap(),
        path: "/webhooks/crm".into(),
        scheme: Scheme::named(scheme).unwrap(),
        url: None,
        secrets: vec![Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")],
        tolerance: Duration::from_secs(300),
        events: vec![Pattern::new("*").unwrap()],
        redact: Default::default(),
        respond: Respond::Accepted,
        rate: None,
        brings_key: false,
        catch_up: None,
        headers: Vec::new(),
        keeps_signatures: false,
        verify_token: None,
    }
}

/// A request with these headers, in this order.
pub(super) fn request(headers: &[(&str, &str)], body: &[u8]) -> RawRequest {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    RawRequest::post(map, Bytes::copy_from_slice(body))
}

/// The headers of a sender that signs any id and timestamp, valid or not. This does not use `sign`, so that the
/// two check each other.
pub(super) fn standard_headers(
    source: &Source,
    id: &str,
    timestamp: &str,
    body: &[u8],
) -> Vec<(String, String)> {
    let key = BASE64.decode(source.secrets[0].expose().strip_prefix("whsec_").unwrap()).unwrap();
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    hmac.update(format!("{id}.{timestamp}.").as_bytes());
    hmac.update(body);
    vec![
        ("webhook-id".to_owned(), id.to_owned()),
        ("webhook-timestamp".to_owned(), timestamp.to_owned()),
        ("webhook-signature".to_owned(), format!("v1,{}", BASE64.encode(hmac.finalize().into_bytes()))),
    ]
}

/// An inbox in memory. It stores events or fails with `failure`, and answers while `gate` has permits.
pub(super) struct FakeInbox {
    pub(super) taken: Mutex<Vec<(NewEvent, Vec<Subscriber>)>>,
    pub(super) failure: Mutex<Option<StoreError>>,
    pub(super) gate: Semaphore,
    pub(super) watchers: Mutex<Vec<Watcher>>,
    seen: Mutex<HashSet<String>>,
}

impl Inbox for Arc<FakeInbox> {
    async fn accept(
        &self,
        offers: Vec<Offer>,
        watcher: Option<Watcher>,
    ) -> Result<Vec<Accepted>, StoreError> {
        let _pass = self.gate.acquire().await;
        if let Some(error) = self.failure.lock().clone() {
            return Err(error);
        }
        let mut accepted = Vec::new();
        for Offer { event, subscribers, .. } in offers {
            if !self.seen.lock().insert(event.id.to_string()) {
                accepted.push(Accepted::Duplicate);
                continue;
            }
            let mut taken = self.taken.lock();
            taken.push((event, subscribers));
            accepted.push(Accepted::Stored(EventSeq(taken.len() as i64)));
        }
        if accepted.iter().any(|accepted| *accepted != Accepted::Duplicate) {
            self.watchers.lock().extend(watcher);
        }
        Ok(accepted)
    }
}

/// An ingress that serves on a free port.
pub(super) struct TestServer {
    pub(super) inbox: Arc<FakeInbox>,
    pub(super) source: Source,
    pub(super) address: SocketAddr,
    ingress: Ingress<Arc<FakeInbox>>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl TestServer {
    /// A server with the defaults of config.toml.
    pub(super) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// A server with these changes to the defaults.
    pub(super) async fn with(change: impl FnOnce(&mut Server)) -> Self {
        Self::answering(Respond::Accepted, change).await
    }

    /// A server with these changes to its source.
    pub(super) async fn at(change: impl FnOnce(&mut Source)) -> Self {
        Self::of(change, |_| ()).await
    }

    /// A server with this `respond` in its source, and these changes to the defaults.
    pub(super) async fn answering(respond: Respond, change: impl FnOnce(&mut Server)) -> Self {
        Self::of(|source| source.respond = respond, change).await
    }

    async fn of(change_source: impl FnOnce(&mut Source), change: impl FnOnce(&mut Server)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server {
            listen: address,
            max_body: 1024 * 1024,
            max_requests: 1024,
            header_timeout: TIMEOUT,
            body_timeout: TIMEOUT,
            idle_timeout: TIMEOUT,
            trusted_proxies: Vec::new(),
            shutdown_timeout: TIMEOUT,
        };
        change(&mut server);
        let mut source = source("standard-webhooks");
        source.events = vec![Pattern::new("user.*").unwrap()];
        change_source(&mut source);
        let inbox = Arc::new(FakeInbox {
            taken: Mutex::default(),
            failure: Mutex::default(),
            gate: Semaphore::new(1000),
            watchers: Mutex::default(),
            seen: Mutex::default(),
        });
        let env = Env::new(ManualClock::at(Timestamp::from_second(NOW).unwrap()), Constant(0));
        let egress = Egress::new(&Http::default(), env.clone()).unwrap();
        let ingress = Ingress::new(
            std::slice::from_ref(&source),
            &server,
            Arc::clone(&inbox),
            Arc::new(|_| vec![PluginId(7).into()]),
            env,
            Telemetry::default(),
            KeyPlaces { brought: BroughtKeys::new(std::path::Path::new("no-such-folder")), egress },
        );
        let ingress = ingress.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn({
            let ingress = ingress.clone();
            let connections = server.max_requests * super::server::CONNECTIONS_PER_REQUEST;
            async move { ingress.serve(listener, connections, async { drop(stopped.await) }).await }
        });
        Self { inbox, source, address, ingress, stop: Some(stop), serving }
    }

    /// Replaces its source by a copy with these changes.
    pub(super) fn replace(&self, change: impl FnOnce(&mut Source)) {
        let mut source = self.source.clone();
        change(&mut source);
        self.ingress.replace_sources(&[source]).unwrap();
    }

    /// A signed request for this event, as text, with its body.
    pub(super) fn signed(&self, id: &str, body: &str) -> String {
        let at = Timestamp::from_second(NOW).unwrap();
        let headers = sign(&self.source, id, at, body.as_bytes()).unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        format!("POST /webhooks/crm HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}")
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request. Returns the status and the rest of the answer.
    pub(super) async fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream).await
    }

    /// The counts of the source, once no request is active.
    pub(super) async fn counts(&self, of: &str) -> RequestCounts {
        let ledger = &self.ingress.ledger()[of];
        timeout(TIMEOUT, async {
            while ledger.snapshot().under_way() != 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a request stays under way");
        ledger.snapshot()
    }

    /// How many more requests may be active.
    pub(super) fn places_left(&self) -> usize {
        self.ingress.0.places.available_permits()
    }

    /// The rejected requests of no source, by reason.
    pub(super) async fn strays(&self) -> Vec<(String, u64)> {
        self.counts(NO_SOURCE).await.rejected.into_iter().collect()
    }

    /// Tells the server to stop.
    pub(super) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server has stopped.
    pub(super) async fn stopped(self) {
        timeout(TIMEOUT, self.serving).await.expect("it never stops").unwrap();
    }
}

/// Reads one answer. Returns its status, and the rest with the head in lower case.
pub(super) async fn read_answer(stream: &mut TcpStream) -> (u16, String) {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(b"\r\n\r\n") {
            text.push(stream.read_u8().await.expect("the answer breaks off"));
        }
        let head = String::from_utf8_lossy(&text).to_lowercase();
        let length =
            head.split_once("content-length: ").map_or("0", |(_, rest)| rest.lines().next().unwrap());
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let status = head["http/1.1 ".len()..][..3].parse().unwrap();
        (status, head + std::str::from_utf8(&body).unwrap())
    };
    timeout(TIMEOUT, read).await.expect("no answer comes")
}

/// Reads until the other side closes.
pub(super) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut text)).await.expect("it never closes").unwrap();
    text
}
