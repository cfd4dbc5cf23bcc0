//! The export of spans to the collector: a bounded queue, batches, OTLP over HTTP in protobuf.
//!
//! ```text
//!   push ──no room──► dropped, counted
//!    ▼
//!   queue ─► batch ─► POST …/v1/traces ──2xx──► the next batch
//!                        │ 429, 502, 503, 504, no answer: again, a few times
//!                        └ anything else, or tried often enough: lost, counted
//! ```
//!
//! A push never waits. The log reports dropped and lost spans at most once a minute. At shutdown, the queued
//! spans are sent within a time limit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use posthouse_egress::HttpPoster;
use prost::Message as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::span;

/// The maximum number of queued spans.
const QUEUE: usize = 8192;
/// The maximum size of the queue, in bytes.
const QUEUE_BYTES: usize = 32 << 20;
/// The maximum number of spans in one request to the collector.
const BATCH: usize = 512;
/// Beyond this size, in bytes, a batch takes no more spans.
const BATCH_BYTES: usize = 2 << 20;
/// How long a span waits for others to share its batch.
const GATHER: Duration = Duration::from_millis(500);
/// The timeout of one request.
const TIME: Duration = Duration::from_secs(10);
/// The maximum number of attempts for a batch.
const TRIES: u32 = 4;
/// The wait after the first attempt; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait that the collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The interval between two log lines about spans that did not arrive.
const TELL: Duration = Duration::from_secs(60);

/// The sending half, which accepts spans.
pub(super) struct Exporter {
    spans: mpsc::Sender<Span>,
    counts: Arc<Counts>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Counts {
    /// The bytes in the queue.
    bytes: AtomicUsize,
    /// Accepted spans that have neither arrived nor been lost.
    waiting: AtomicU64,
    /// Spans dropped for lack of room since the last report.
    dropped: AtomicU64,
    /// Spans lost since the last report.
    lost: AtomicU64,
}

impl Exporter {
    /// Starts the exporting task. Needs a runtime.
    pub(super) fn start(http_poster: HttpPoster, resource: Resource) -> Self {
        let (spans, queue) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let counts = Arc::<Counts>::default();
        let carrier = Carrier {
            http_poster,
            resource,
            queue,
            stop: stop.clone(),
            counts: Arc::clone(&counts),
            told: None,
            failing: false,
        };
        let task = Mutex::new(Some(tokio::spawn(carrier.run())));
        Self { spans, counts, stop, task }
    }

    /// Enqueues a span, unless there is no room.
    pub(super) fn push(&self, span: Span) {
        let bytes = span.encoded_len();
        let waiting = self.counts.bytes.fetch_add(bytes, Relaxed);
        self.counts.waiting.fetch_add(1, Relaxed);
        if waiting + bytes > QUEUE_BYTES || self.spans.try_send(span).is_err() {
            self.counts.bytes.fetch_sub(bytes, Relaxed);
            self.counts.waiting.fetch_sub(1, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Sends the queued spans, within `within`.
    pub(super) async fn finish(&self, within: Duration) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(mut task) = task
            && timeout(within, &mut task).await.is_err()
        {
            task.abort();
        }
        self.counts.lost.fetch_add(self.counts.waiting.swap(0, Relaxed), Relaxed);
        self.counts.tell("the daemon stopped first");
    }
}

impl Counts {
    /// Logs what did not arrive since the last report, if anything. Returns whether it did.
    fn tell(&self, error: &str) -> bool {
        let (dropped, lost) = (self.dropped.swap(0, Relaxed), self.lost.swap(0, Relaxed));
        if dropped + lost > 0 {
            warn!(dropped, lost, error, "spans did not reach the collector");
        }
        dropped + lost > 0
    }
}

/// The exporting task: sends spans to the collector.
struct Carrier {
    http_poster: HttpPoster,
    resource: Resource,
    queue: mpsc::Receiver<Span>,
    stop: CancellationToken,
    counts: Arc<Counts>,
    /// When the last problem was logged.
    told: Option<Instant>,
    /// Whether the collector did not accept the last batch.
    failing: bool,
}

/// The result of a batch.
enum Sent {
    /// The collector rejected so many, for this reason.
    Taken {
        refused: u64,
        error: String,
    },
    /// To be retried, perhaps after this time.
    Again(String, Option<Duration>),
    Refused(String),
}

impl Carrier {
    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            self.gather(&mut batch).await;
            if batch.is_empty() {
                break;
            }
            self.carry(std::mem::take(&mut batch)).await;
        }
    }

    /// Waits for spans, and briefly for more of them. Returns none at the end.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        if !self.stop.is_cancelled() {
            tokio::select! {
                _ = self.queue.recv_many(batch, 1) => {}
                () = self.stop.cancelled() => {}
            }
        }
        if !self.stop.is_cancelled() && self.queue.len() < BATCH {
            tokio::select! {
                () = sleep(GATHER) => {}
                () = self.stop.cancelled() => {}
            }
        }
        let mut bytes: usize = batch.iter().map(Span::encoded_len).sum();
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(span) = self.queue.try_recv() else { break };
            bytes += span.encoded_len();
            batch.push(span);
        }
        self.counts.bytes.fetch_sub(bytes, Relaxed);
    }

    async fn carry(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = self.request(batch).encode_to_vec();
        let (mut pause, mut lost, mut trouble) = (PAUSE, count, String::new());
        for last in (1..=TRIES).map(|n| n == TRIES) {
            match self.send(body.clone()).await {
                Sent::Taken { refused, error } => {
                    (lost, trouble) = (refused, error);
                    break;
                }
                Sent::Refused(error) => {
                    trouble = error;
                    break;
                }
                Sent::Again(error, wait) => {
                    self.complain(&error);
                    trouble = error;
                    if last || self.stop.is_cancelled() {
                        break;
                    }
                    // A collector can ask for a longer pause, not for a shorter one.
                    let wait = wait.unwrap_or_default().max(pause).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = self.stop.cancelled() => {}
                    }
                    pause *= 2;
                }
            }
        }
        self.counts.waiting.fetch_sub(count, Relaxed);
        self.counts.lost.fetch_add(lost, Relaxed);
        if lost > 0 || self.counts.dropped.load(Relaxed) > 0 {
            self.complain(&trouble);
        } else if std::mem::take(&mut self.failing) {
            info!("spans reach the collector again");
        }
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope_spans = ScopeSpans { scope: Some(span::scope()), spans, ..ScopeSpans::default() };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![scope_spans],
                ..ResourceSpans::default()
            }],
        }
    }

    async fn send(&self, body: Vec<u8>) -> Sent {
        let received = match self.http_poster.post("application/x-protobuf", body, TIME).await {
            Ok(received) => received,
            Err(error) => return Sent::Again(error, None),
        };
        // The collector's text may repeat what it was sent, so it is not logged.
        let error = format!("the collector answered {}", received.status.as_u16());
        match received.status.as_u16() {
            200..=299 => {
                let answer = ExportTraceServiceResponse::decode(&received.body[..]).unwrap_or_default();
                let refused = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
                let error = "the collector rejected some of a batch".to_owned();
                Sent::Taken { refused: u64::try_from(refused).unwrap_or(0), error }
            }
            429 | 502 | 503 | 504 => Sent::Again(error, received.retry_after),
            _ => Sent::Refused(error),
        }
    }

    /// Logs at once, and then once a minute while the problem lasts.
    fn complain(&mut self, error: &str) {
        if self.told.is_some_and(|told| told.elapsed() < TELL) {
            self.failing = true;
            return;
        }
        self.told = Some(Instant::now());
        if !self.counts.tell(error) && !self.failing {
            warn!(error, "the collector accepts no spans; they are queued while there is room");
        }
        self.failing = true;
    }
}
