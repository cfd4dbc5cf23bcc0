//! `GET /v1/live`: what happens now, as server-sent events.
//!
//! `event` is an event as a list has it, each once, in the order in which they were taken in; when more
//! come than anybody can read, the newest of them. `counts` is how many deliveries are in each state, and
//! comes when that has changed. The store is looked at after a commit and at most once a second, however
//! much comes in and however many look: the accept path does no work for it.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::{
    admin::{Admin, error::ApiError},
    model::EventSeq,
    store::{EventFilter, StoreError},
};

/// The most feeds at once.
pub(in crate::admin) const FEEDS: usize = 16;
/// The most events of one look.
const MOST: u32 = 50;
/// How long a feed rests between two looks.
const REST: Duration = Duration::from_secs(1);
/// How often something is sent where nothing happens.
const BEAT: Duration = Duration::from_secs(15);

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

/// A message; text that a line break could end is JSON by now.
fn sent(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// One who looks.
pub(in crate::admin) struct Feed {
    admin: Admin,
    commits: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    /// The newest event that was sent.
    seen: i64,
    counts: BTreeMap<String, u64>,
    begun: bool,
    _seat: OwnedSemaphorePermit,
}

impl Admin {
    /// A new feed, from now on.
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
            stopping: self.0.stopping.subscribe(),
            seen: 0,
            counts: BTreeMap::new(),
            begun: false,
            _seat: seat,
        };
        let newest = self.0.store.events(EventFilter { limit: 1, ..EventFilter::default() }).await?;
        feed.seen = newest.first().map_or(0, |event| event.seq.0);
        Ok(feed)
    }
}

impl Feed {
    /// What is new, once something is; none when the daemon stops.
    pub(in crate::admin) async fn next(&mut self) -> Option<Vec<(&'static str, Value)>> {
        loop {
            if self.begun {
                let stopped = tokio::select! {
                    _ = self.stopping.wait_for(|stop| *stop) => true,
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

    /// Lets a moment pass; true where the daemon stops meanwhile.
    async fn rest(&mut self) -> bool {
        tokio::select! {
            _ = self.stopping.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(REST) => false,
        }
    }

    async fn look(&mut self) -> Result<Vec<(&'static str, Value)>, StoreError> {
        let store = &self.admin.0.store;
        let newest = store.events(EventFilter { limit: MOST, ..EventFilter::default() }).await?;
        let mut news: Vec<_> = newest
            .iter()
            .rev()
            .filter(|event| event.seq > EventSeq(self.seen))
            .map(|event| ("event", json!(event)))
            .collect();
        self.seen = newest.first().map_or(self.seen, |event| event.seq.0.max(self.seen));
        let stats = store.stats().await?;
        let states: BTreeMap<_, _> =
            stats.states.iter().map(|(state, count)| (state.to_string(), *count)).collect();
        if states != self.counts {
            news.push(("counts", json!({ "made": stats.made, "states": states, "outbox": stats.outbox })));
            self.counts = states;
        }
        Ok(news)
    }
}
