//! Lists for operators, newest first.
//!
//! A query walks the rows backwards by number, in steps of a bounded number of rows, each a short read of its
//! own. A rare type or an old organization takes many steps, but no step prevents a checkpoint of the
//! write-ahead log, and every row that is found is consistent. Dead letters have a separate index.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use posthouse_model::{
    DeliveryId, DeliveryState, EventSeq, EventType, Pattern, RequestParts, SourceName, TraceContext, cause,
};
use rusqlite::{Connection, Result, Row, params};

use super::{
    catching_up::origin,
    complete::outcome_of,
    outbox, plugins,
    reads::Reads,
    schema::{code, state_of},
};

use crate::{
    Answer, AttemptDetail, DeliveryDetail, DeliveryFilter, DeliveryPage, DeliverySummary, EventDetail,
    EventSummary, page,
    time::{nanos, timestamp},
};

/// The rows that one step reads.
const STEP: i64 = 20_000;

/// Events are in the order of their arrival, except when the clock was set. If the clock was set back by more
/// than this, a walk with `since` ends too early.
pub(super) const CLOCK_STEP: Duration = Duration::from_secs(3600);

impl Reads {
    pub(crate) async fn event(&self, source: Option<SourceName>, id: &str) -> Answer<Vec<EventDetail>> {
        let id = id.to_owned();
        self.read(move |connection| {
            let sql = format!(
                "{EVENT_COLUMNS}, e.body, e.trace, e.content_type, e.headers FROM event e {EVENT_NAMES}
                 WHERE e.source = ?1 AND e.id = ?2"
            );
            let mut details = Vec::new();
            for source in sources(connection, source.as_ref().map(SourceName::as_str))? {
                let found: Vec<EventDetail> = connection
                    .prepare_cached(&sql)?
                    .query_map(params![source, id], event_detail)?
                    .collect::<Result<_>>()?;
                for mut detail in found {
                    detail.summary.deliveries = event_states(connection, detail.summary.seq)?;
                    detail.history = history(connection, detail.summary.seq)?;
                    details.push(detail);
                }
            }
            Ok(details)
        })
        .await
    }

    pub(crate) async fn deliveries_within(
        &self,
        filter: DeliveryFilter,
        time: Duration,
    ) -> Answer<DeliveryPage> {
        let limit = page(filter.limit) as usize;
        let until = Instant::now().checked_add(time);
        let mut found = Vec::new();
        let mut walk = Walk::new(&filter);
        while found.len() < limit
            && let Some(before) = walk.before
        {
            let (filter, room) = (filter.clone(), limit - found.len());
            let step = self
                .read_at_low_priority(move |connection| {
                    deliveries_step(connection, &filter, before, room, false, delivery_summary)
                })
                .await?;
            found.extend(step.rows);
            walk.before = step.next;
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Ok(DeliveryPage { deliveries: found, next: walk.before.map(DeliveryId) })
    }

    /// The number of deliveries that [`Self::replayable`] would return.
    pub(crate) async fn count_deliveries(&self, filter: DeliveryFilter) -> Answer<u64> {
        let mut walk = Walk::new(&filter);
        let mut count = 0;
        while let Some(ids) = self.next_replayable(&filter, &mut walk).await? {
            count += ids.len() as u64;
        }
        Ok(count)
    }

    /// The finished deliveries that have not been replayed, newest first.
    pub(crate) async fn replayable(&self, filter: &DeliveryFilter) -> Answer<Vec<DeliveryId>> {
        let mut walk = Walk::new(filter);
        let mut found = Vec::new();
        while let Some(ids) = self.next_replayable(filter, &mut walk).await? {
            found.extend(ids);
        }
        Ok(found)
    }

    /// The next replayable deliveries of a walk; none at its end.
    async fn next_replayable(
        &self,
        filter: &DeliveryFilter,
        walk: &mut Walk,
    ) -> Answer<Option<Vec<DeliveryId>>> {
        let (Some(before), room) = (walk.before, walk.room.min(REPLAY_SLICE)) else { return Ok(None) };
        if room == 0 {
            return Ok(None);
        }
        let filter = filter.clone();
        let step = self
            .read_at_low_priority(move |connection| {
                deliveries_step(connection, &filter, before, room, true, |row| row.get(0).map(DeliveryId))
            })
            .await?;
        walk.before = step.next;
        walk.room -= step.rows.len();
        Ok(Some(step.rows))
    }
}

/// The maximum number of deliveries that one step returns.
const REPLAY_SLICE: usize = 256;

/// The position of a walk.
struct Walk {
    /// Where the next step begins; none at the end.
    before: Option<i64>,
    /// How many more rows are wanted.
    room: usize,
}

impl Walk {
    fn new(filter: &DeliveryFilter) -> Self {
        let room = if filter.limit == 0 { usize::MAX } else { filter.limit as usize };
        Self { before: Some(filter.before.map_or(i64::MAX, |id| id.0)), room }
    }
}

/// The rows of one step, and where the next step begins.
struct Step<T> {
    rows: Vec<T>,
    next: Option<i64>,
}

pub(super) const EVENT_COLUMNS: &str = "
SELECT e.seq, s.name, e.id, t.name, e.organization, e.occurred_at, e.received_at, length(e.body),
       e.depth, e.origin";

pub(super) const EVENT_NAMES: &str = "JOIN source s ON s.id = e.source JOIN event_type t ON t.id = e.type";

pub(super) fn event_summary(row: &Row<'_>) -> Result<EventSummary> {
    Ok(EventSummary {
        seq: EventSeq(row.get(0)?),
        source: row.get(1)?,
        id: row.get(2)?,
        event_type: row.get(3)?,
        organization: row.get(4)?,
        occurred_at: row.get::<_, Option<i64>>(5)?.map(timestamp),
        received_at: timestamp(row.get(6)?),
        bytes: row.get::<_, i64>(7)?.unsigned_abs(),
        origin: origin(row.get(8)?, row.get(9)?),
        deliveries: BTreeMap::new(),
    })
}

/// The ids of an event's deliveries: those created with it, and later ones.
pub(super) const OF_EVENT: &str = "
SELECT d.id FROM event e JOIN delivery d ON d.id >= e.first_delivery AND d.id < e.first_delivery + e.fanout
WHERE e.seq = ?1
UNION ALL
SELECT id FROM delivery WHERE event = ?1 AND replay_of IS NOT NULL";

pub(super) fn event_states(connection: &Connection, event: EventSeq) -> Result<BTreeMap<String, u64>> {
    let mut states = BTreeMap::new();
    let sql = format!(
        "SELECT d.state, p.held IS NOT NULL FROM delivery d JOIN plugin p ON p.id = d.plugin
         WHERE d.id IN ({OF_EVENT})"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([event.0])?;
    while let Some(row) = rows.next()? {
        *states.entry(state_of(row.get(0)?, row.get(1)?).to_string()).or_default() += 1;
    }
    Ok(states)
}

/// An event without its deliveries.
fn event_detail(row: &Row<'_>) -> Result<EventDetail> {
    let trace = row.get_ref(11)?.as_blob_or_null()?.and_then(TraceContext::from_bytes);
    let content_type = row.get_ref(12)?.as_str_or_null()?;
    let request = RequestParts::from_store(content_type, row.get_ref(13)?.as_str_or_null()?, None);
    Ok(EventDetail {
        summary: event_summary(row)?,
        trace: trace.map(|trace| trace.trace_id()),
        content_type: request.content_type.map(Cow::into_owned),
        headers: request.headers,
        body: String::from_utf8_lossy(row.get_ref(10)?.as_blob()?).into_owned(),
        masked: false,
        history: Vec::new(),
    })
}

/// The deliveries of an event, oldest first.
fn history(connection: &Connection, event: EventSeq) -> Result<Vec<DeliveryDetail>> {
    let sql = format!(
        "{DELIVERY_COLUMNS} FROM delivery d {DELIVERY_NAMES} WHERE d.id IN ({OF_EVENT}) ORDER BY d.id"
    );
    let deliveries: Vec<DeliverySummary> =
        connection.prepare_cached(&sql)?.query_map([event.0], delivery_summary)?.collect::<Result<_>>()?;
    deliveries
        .into_iter()
        .map(|summary| {
            let id = summary.id.0;
            let attempt_log = connection
                .prepare_cached(
                    "SELECT number, started_at, duration_us, outcome, error, trace, logs, revision, did
                     FROM attempt WHERE delivery = ?1 ORDER BY number",
                )?
                .query_map([id], attempt)?
                .collect::<Result<_>>()?;
            let outbox = connection
                .prepare_cached(&format!("{} WHERE o.delivery = ?1 ORDER BY o.id", outbox::SUMMARY))?
                .query_map([id], outbox::summary)?
                .collect::<Result<_>>()?;
            Ok(DeliveryDetail { summary, attempt_log, outbox })
        })
        .collect()
}

fn attempt(row: &Row<'_>) -> Result<AttemptDetail> {
    Ok(AttemptDetail {
        number: row.get(0)?,
        revision: row.get(7)?,
        started_at: timestamp(row.get(1)?),
        duration_us: row.get::<_, i64>(2)?.unsigned_abs(),
        outcome: outcome_of(row.get(3)?),
        error: row.get(4)?,
        trace: row.get(5)?,
        logs: plugins::parsed(row, 6)?.unwrap_or_default(),
        actions: row
            .get_ref(8)?
            .as_str_or_null()?
            .map_or_else(Vec::new, |actions| actions.lines().map(str::to_owned).collect()),
    })
}

const DELIVERY_COLUMNS: &str = "
SELECT d.id, e.id, s.name, t.name, p.name, d.state, p.held, d.attempts, d.due_at, d.made_at, d.finished_at,
       d.error, d.replay_of,
       CASE WHEN d.state = -1 THEN (
           SELECT ahead.id FROM delivery ahead INDEXED BY delivery_order
           WHERE ahead.plugin = d.plugin AND ahead.order_key = d.order_key AND ahead.state < 3
           ORDER BY ahead.id LIMIT 1) END";

const DELIVERY_NAMES: &str = "
JOIN event e ON e.seq = d.event JOIN source s ON s.id = e.source JOIN event_type t ON t.id = e.type
JOIN plugin p ON p.id = d.plugin";

/// True for a delivery that has not been replayed.
pub(super) const NOT_REPLAYED: &str =
    "NOT EXISTS (SELECT 1 FROM delivery again WHERE again.event = d.event AND again.replay_of = d.id)";

fn deliveries_step<T>(
    connection: &Connection,
    filter: &DeliveryFilter,
    before: i64,
    room: usize,
    replayable: bool,
    row: fn(&Row<'_>) -> Result<T>,
) -> Result<Step<T>> {
    let dead = filter.state == Some(DeliveryState::Dead);
    let source =
        if dead { "delivery INDEXED BY delivery_dead WHERE state = 4 AND" } else { "delivery WHERE" };
    let sql = format!("SELECT id FROM {source} id < ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2");
    let end: Option<i64> = connection
        .prepare_cached(&sql)?
        .query_map([before, STEP - 1], |row| row.get(0))?
        .next()
        .transpose()?;
    let states: &[i64] = match filter.state {
        None => &[code::DEFERRED, code::BLOCKED, 0, 1, 2, 3, 4],
        Some(DeliveryState::Ready) => &[0],
        Some(DeliveryState::Leased) => &[1],
        Some(DeliveryState::Waiting) => &[code::DEFERRED, code::BLOCKED, 2],
        Some(DeliveryState::Held) => &[code::DEFERRED, code::BLOCKED, 0, 2],
        Some(DeliveryState::Done) => &[3],
        Some(DeliveryState::Dead) => &[4],
    };
    let held = match filter.state {
        Some(DeliveryState::Held) => Some(true),
        Some(DeliveryState::Ready | DeliveryState::Waiting) => Some(false),
        _ => None,
    };
    let wanted = filter.reason.as_deref().map(cause);
    let of_event = OF_EVENT.replace("?1", "?4");
    let sql = format!(
        "{DELIVERY_COLUMNS} FROM delivery d {hint} {DELIVERY_NAMES}
         WHERE d.id < ?1 AND d.id >= ?2 AND {state} AND {replayable}
         AND (?3 IS NULL OR p.name = ?3) AND {event}
         AND (?5 IS NULL OR e.type IN (SELECT value FROM json_each(?5)))
         AND ifnull(d.finished_at, d.made_at) >= ?6
         AND ifnull(d.finished_at, d.made_at) <= ?9
         AND (?7 IS NULL OR (p.held IS NOT NULL) = ?7)
         AND (?10 IS NULL OR s.name = ?10)
         ORDER BY d.id DESC LIMIT ?8",
        hint = if dead { "INDEXED BY delivery_dead" } else { "NOT INDEXED" },
        state = if dead { "d.state = 4".to_owned() } else { format!("d.state IN ({})", listed(states)) },
        replayable =
            if replayable { format!("d.state IN (3, 4) AND {NOT_REPLAYED}") } else { "true".to_owned() },
        event =
            if filter.event.is_some() { format!("d.id IN ({of_event})") } else { "?4 IS NULL".to_owned() },
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let parameters = params![
        before,
        end.unwrap_or(i64::MIN),
        filter.plugin,
        filter.event.map(|seq| seq.0),
        types(connection, filter.event_type.as_ref())?,
        filter.since.map_or(i64::MIN, nanos),
        held,
        // SQL cannot compare causes, so all rows of the step are read.
        if wanted.is_some() { STEP } else { i64::try_from(room).unwrap_or(i64::MAX) },
        filter.until.map_or(i64::MAX, nanos),
        filter.source,
    ];
    let mut found = statement.query(parameters)?;
    let (mut rows, mut last) = (Vec::new(), None);
    while rows.len() < room
        && let Some(found) = found.next()?
    {
        let error = found.get_ref(11)?.as_str_or_null()?.unwrap_or_default();
        if wanted.as_ref().is_none_or(|wanted| cause(error) == *wanted) {
            last = Some(found.get(0)?);
            rows.push(row(found)?);
        }
    }
    let next = if rows.len() == room { last } else { end };
    Ok(Step { rows, next })
}

fn delivery_summary(row: &Row<'_>) -> Result<DeliverySummary> {
    let held = plugins::parsed(row, 6)?;
    let code = row.get(5)?;
    let state = state_of(code, held.is_some());
    let finished_at = row.get::<_, Option<i64>>(10)?.map(timestamp);
    Ok(DeliverySummary {
        id: DeliveryId(row.get(0)?),
        event: row.get(1)?,
        source: row.get(2)?,
        event_type: row.get(3)?,
        plugin: row.get(4)?,
        state,
        held: held.filter(|_| state == DeliveryState::Held),
        attempts: row.get(7)?,
        due_at: if finished_at.is_some() || matches!(code, code::BLOCKED | code::DEFERRED) {
            None
        } else {
            Some(timestamp(row.get(8)?))
        },
        made_at: timestamp(row.get(9)?),
        finished_at,
        error: row.get(11)?,
        replay_of: row.get::<_, Option<i64>>(12)?.filter(|&id| id != 0).map(DeliveryId),
        blocked_by: row.get::<_, Option<i64>>(13)?.map(DeliveryId),
    })
}

pub(super) fn sources(connection: &Connection, name: Option<&str>) -> Result<Vec<i64>> {
    connection
        .prepare_cached("SELECT id FROM source WHERE ?1 IS NULL OR name = ?1 ORDER BY name")?
        .query_map([name], |row| row.get(0))?
        .collect()
}

/// The ids of the types that match a pattern, as a JSON list; none if there is no pattern.
pub(super) fn types(connection: &Connection, pattern: Option<&Pattern>) -> Result<Option<String>> {
    let Some(pattern) = pattern else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT id, name FROM event_type")?;
    let mut rows = statement.query([])?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        if EventType::new(row.get_ref(1)?.as_str()?).is_ok_and(|name| pattern.matches(&name)) {
            ids.push(row.get(0)?);
        }
    }
    Ok(Some(format!("[{}]", listed(&ids))))
}

fn listed(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}
