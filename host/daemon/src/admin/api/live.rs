//! `GET /v1/live`: new events and counts, as server-sent events.
//!
//! `event` is an event as in a list: each once, in the order in which they were received; if there are more
//! than anybody can read, only the newest. `counts` is the number of deliveries in each state, and is sent
//! when it changes. The feed reads the store after a commit and at most once a second, however many events
//! arrive and however many clients read: the accept path does no work for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    time::Duration,
};

use axum::{
    extract::State,
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use posthouse_model::EventSeq;
use posthouse_store::{EventFilter, EventSummary, StoreError};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::rows;

use crate::admin::{Admin, error::ApiError};

/// The maximum number of feeds.
pub(in crate::admin) const FEEDS: usize = 16;
/// The maximum number of events sent at once.
const MOST: u32 = 50;
/// The pause of a feed between two reads.
const REST: Duration = Duration::from_secs(1);
/// The interval of keep-alive messages.
const BEAT: Duration = Duration::from_secs(15);

/// The live feed, as server-sent events
#[utoipa::path(
    get,
    path = "/v1/live",
    operation_id = "getLive",
    responses((
        status = 200, body = String, content_type = "text/event-stream",
        description = "Server-sent events without end. The data of an `event` is an Event, that of `counts` the \
                       number of deliveries in each state.",
    )),
)]
pub(super) async fn live(
    State(admin): State<Admin>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let feed = admin.feed().await?;
    let looks = stream::unfold(feed, |mut feed| async move {
        let news = feed.next().await?;
        let items: Vec<_> = news.into_iter().map(|(name, data)| Ok(sent(name, &data))).collect();
        Some((stream::iter(items), feed))
    });
    Ok(Sse::new(futures_util::StreamExt::flatten(looks)).keep_alive(KeepAlive::new().interval(BEAT)))
}

/// A message. Text that could contain a line break is encoded as JSON.
fn sent(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// One client of the feed.
pub(in crate::admin) struct Feed {
    admin: Admin,
    commits: watch::Receiver<u64>,
    stopping: CancellationToken,
    /// The newest events at the last read. A commit may show an event with a lower number later than one with
    /// a higher number, so the feed compares pages instead of numbers.
    seen: BTreeSet<EventSeq>,
    counts: BTreeMap<String, u64>,
    begun: bool,
    _seat: OwnedSemaphorePermit,
}

impl Admin {
    /// A new feed that begins now.
    pub(in crate::admin) async fn feed(&self) -> Result<Feed, ApiError> {
        let Ok(seat) = self.0.feeds.clone().try_acquire_owned() else {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{FEEDS} live feeds are open already; close one"),
            ));
        };
        let mut feed = Feed {
            admin: self.clone(),
            commits: self.0.store.commits(),
            stopping: self.0.stopping.clone(),
            seen: BTreeSet::new(),
            counts: BTreeMap::new(),
            begun: false,
            _seat: seat,
        };
        feed.seen = feed.newest().await?.iter().map(|event| event.seq).collect();
        Ok(feed)
    }
}

impl Feed {
    /// Waits for something new, and returns it; none when the daemon stops.
    pub(in crate::admin) async fn next(&mut self) -> Option<Vec<(&'static str, Value)>> {
        loop {
            if self.begun {
                let stopped = tokio::select! {
                    () = self.stopping.cancelled() => true,
                    changed = self.commits.changed() => changed.is_err(),
                };
                if stopped || self.rest().await {
                    return None;
                }
            }
            self.begun = true;
            self.commits.mark_unchanged();
            match self.look().await {
                Ok(news) if news.is_empty() => {}
                Ok(news) => return Some(news),
                Err(_) => return None,
            }
        }
    }

    /// Pauses. Returns true if the daemon stops meanwhile.
    async fn rest(&mut self) -> bool {
        tokio::select! {
            () = self.stopping.cancelled() => true,
            () = tokio::time::sleep(REST) => false,
        }
    }

    /// The newest events in the store, newest first.
    async fn newest(&self) -> Result<Vec<EventSummary>, StoreError> {
        self.admin.0.store.events(EventFilter { limit: MOST, ..EventFilter::default() }).await
    }

    async fn look(&mut self) -> Result<Vec<(&'static str, Value)>, StoreError> {
        let newest = self.newest().await?;
        let page = newest.iter().map(|event| event.seq).collect();
        let seen = std::mem::replace(&mut self.seen, page);
        // If retention removed events, older ones move into the page; they are not new.
        let oldest = if seen.len() < MOST as usize { None } else { seen.first().copied() };
        let is_new = |event: &EventSummary| !seen.contains(&event.seq) && Some(event.seq) > oldest;
        let mut news: Vec<_> = newest
            .into_iter()
            .rev()
            .filter(is_new)
            .map(|event| ("event", json!(rows::Event::from(event))))
            .collect();
        let stats = self.admin.0.store.stats().await?;
        let states: BTreeMap<_, _> =
            stats.states.iter().map(|(state, count)| (state.to_string(), *count)).collect();
        if states != self.counts {
            news.push(("counts", json!({ "made": stats.made, "states": states, "outbox": stats.outbox })));
            self.counts = states;
        }
        Ok(news)
    }
}
