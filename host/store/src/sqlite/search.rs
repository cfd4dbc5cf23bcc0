//! Searches events, newest first, within a time limit.
//!
//! There is no index of texts: it would add cost to every stored event, and is needed rarely. A search reads
//! event by event backwards from its start and stops at its time limit. Then it returns its position, and the
//! next search continues there. An id has an index.

use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use posthouse_model::EventSeq;
use rusqlite::{Connection, Result, params};

use super::{
    query::{CLOCK_STEP, EVENT_COLUMNS, EVENT_NAMES, event_states, event_summary, sources, types},
    reads::Reads,
};

use crate::{
    Answer, EventFilter, EventPage, EventSummary, page,
    time::{nanos, timestamp},
};

/// Events that one step looks at.
const STEP: i64 = 20_000;

/// The same, if their bodies are read.
const STEP_OF_BODIES: i64 = 5_000;

/// The clock is checked after so many bodies.
const GLANCE: usize = 128;

impl Reads {
    pub(crate) async fn search(&self, filter: EventFilter, time: Duration) -> Answer<EventPage> {
        let limit = page(filter.limit) as usize;
        let until = Instant::now().checked_add(time);
        let mut found = EventPage::default();
        let mut before = filter.before.map_or(i64::MAX, |seq| seq.0);
        loop {
            let (filter, room) = (filter.clone(), limit - found.events.len());
            let step = self
                .read_at_low_priority(move |connection| match &filter.id {
                    Some(id) => by_id(connection, &filter, id, before, room),
                    None => step(connection, &filter, before, room, until),
                })
                .await?;
            found.events.extend(step.rows);
            found.next = step.next.map(EventSeq);
            found.looked_to = step.looked_to.map(timestamp).or(found.looked_to);
            match step.next {
                Some(next)
                    if found.events.len() < limit && until.is_none_or(|until| Instant::now() < until) =>
                {
                    before = next;
                }
                _ => return Ok(found),
            }
        }
    }
}

/// The matches of one step, where the next step begins, and when the last event read was received.
struct Step {
    rows: Vec<EventSummary>,
    next: Option<i64>,
    looked_to: Option<i64>,
}

impl Step {
    fn nothing() -> Self {
        Self { rows: Vec::new(), next: None, looked_to: None }
    }
}

/// The conditions of all kinds of search: ?1 to ?6.
const CONDITIONS: &str = "
e.seq < ?1 AND e.seq >= ?2 AND e.received_at >= ?3 AND e.received_at <= ?4
AND (?5 IS NULL OR e.source IN (SELECT value FROM json_each(?5)))
AND (?6 IS NULL OR e.organization = ?6)
AND (?7 IS NULL OR e.type IN (SELECT value FROM json_each(?7)))";

fn step(
    connection: &Connection,
    filter: &EventFilter,
    before: i64,
    room: usize,
    until: Option<Instant>,
) -> Result<Step> {
    let Some((sources, types)) = narrowed(connection, filter)? else { return Ok(Step::nothing()) };
    let text = filter.text.as_ref().map(|text| text.to_ascii_lowercase());
    let finder = text.as_ref().map(|text| Finder::new(text.as_bytes()));
    let size = if finder.is_some() { STEP_OF_BODIES } else { STEP };
    let end: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT seq, received_at FROM event WHERE seq < ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2",
        )?
        .query_map([before, size - 1], |row| Ok((row.get(0)?, row.get(1)?)))?
        .next()
        .transpose()?;
    let since = filter.since.map_or(i64::MIN, nanos);
    let sql = format!(
        "{EVENT_COLUMNS}{} FROM event e {EVENT_NAMES} WHERE {CONDITIONS} ORDER BY e.seq DESC LIMIT ?8",
        if finder.is_some() { ", e.body" } else { "" }
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params![
        before,
        end.map_or(i64::MIN, |(seq, _)| seq),
        since,
        filter.until.map_or(i64::MAX, nanos),
        sources,
        filter.organization,
        types,
        if finder.is_some() { -1 } else { room as i64 },
    ])?;
    let mut rows = Vec::new();
    let mut lower = Vec::new();
    let (mut looked_at, mut stopped) = (0, None);
    while let Some(row) = found.next()? {
        looked_at += 1;
        let summary = event_summary(row)?;
        let here = (summary.seq.0, nanos(summary.received_at));
        let wanted = match &finder {
            None => true,
            Some(finder) => {
                lower.clear();
                lower.extend_from_slice(row.get_ref(10)?.as_blob()?);
                lower.make_ascii_lowercase();
                finder.find(&lower).is_some()
            }
        };
        if wanted {
            rows.push(summary);
        }
        let late = looked_at % GLANCE == 0 && until.is_some_and(|until| Instant::now() >= until);
        if rows.len() == room || (finder.is_some() && late) {
            stopped = Some(here);
            break;
        }
    }
    drop(found);
    drop(statement);
    for summary in &mut rows {
        summary.deliveries = event_states(connection, summary.seq)?;
    }
    let step = i64::try_from(CLOCK_STEP.as_nanos()).unwrap_or(0);
    let reached = stopped.or(end);
    let next = reached.filter(|(_, received_at)| received_at.saturating_add(step) >= since);
    Ok(Step { rows, next: next.map(|(seq, _)| seq), looked_to: reached.map(|(_, at)| at) })
}

/// The events with one id: at most one of each source.
fn by_id(connection: &Connection, filter: &EventFilter, id: &str, before: i64, room: usize) -> Result<Step> {
    let Some((narrowed, types)) = narrowed(connection, filter)? else { return Ok(Step::nothing()) };
    let mut seqs = Vec::new();
    for source in sources(connection, filter.source.as_deref())? {
        let mut statement =
            connection.prepare_cached("SELECT seq, body FROM event WHERE source = ?1 AND id = ?2")?;
        let mut rows = statement.query(params![source, id])?;
        while let Some(row) = rows.next()? {
            let has = |text: &String| {
                let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?.to_ascii_lowercase()));
                body.is_ok_and(|body| Finder::new(text.to_ascii_lowercase().as_bytes()).find(&body).is_some())
            };
            if filter.text.as_ref().is_none_or(has) {
                seqs.push(row.get::<_, i64>(0)?);
            }
        }
    }
    let listed = seqs.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let sql = format!(
        "{EVENT_COLUMNS} FROM event e {EVENT_NAMES}
         WHERE e.seq IN (SELECT value FROM json_each(?9)) AND {CONDITIONS} ORDER BY e.seq DESC LIMIT ?8"
    );
    let mut rows: Vec<EventSummary> = connection
        .prepare_cached(&sql)?
        .query_map(
            params![
                before,
                i64::MIN,
                filter.since.map_or(i64::MIN, nanos),
                filter.until.map_or(i64::MAX, nanos),
                narrowed,
                filter.organization,
                types,
                room as i64,
                format!("[{listed}]"),
            ],
            event_summary,
        )?
        .collect::<Result<_>>()?;
    for summary in &mut rows {
        summary.deliveries = event_states(connection, summary.seq)?;
    }
    Ok(Step { rows, next: None, looked_to: None })
}

/// The ids of the sources and types that match the filter, as JSON lists, none meaning all; nothing if no
/// event can match.
fn narrowed(
    connection: &Connection,
    filter: &EventFilter,
) -> Result<Option<(Option<String>, Option<String>)>> {
    let types = types(connection, filter.event_type.as_ref())?;
    let sources = match filter.source.as_deref() {
        None => None,
        Some(name) => {
            let ids = sources(connection, Some(name))?;
            Some(format!("[{}]", ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")))
        }
    };
    let none = |list: &Option<String>| list.as_deref() == Some("[]");
    Ok(if none(&types) || none(&sources) { None } else { Some((sources, types)) })
}
