//! Decisions of interceptors: begun before the guest runs, and ended with its effects in one transaction.
//!
//! As for a delivery, all checks run before the first write: whether this run may end the decision, whether anything
//! has changed that the guest read, and whether its changes fit.

use posthouse_model::{
    DecisionState, DeliveryId, EventId, EventOrigin, EventType, Fallback, NewEvent, PluginId, Question,
    SourceName, Subscriber,
};
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params, types::Type};

use super::{outbox, plugins, reads::Reads, retention::live_bytes, session::Session};

use crate::{
    Answer, Begun, Completed, DecisionDetail, DecisionFilter, DecisionRun, DecisionSummary, NewDecision,
    Offer, OpenDecision, Origin,
    decisions::{EncodedEnd, allows},
    op::Outcome,
    page,
    time::{nanos, timestamp},
};

/// The most decisions under way that are listed.
const OPEN: i64 = 10_000;

/// The oldest decisions that one slice of retention looks at.
const LOOKED_AT: i64 = 20_000;

/// How much older than others a decision must be that never ended, before it is removed. In nanoseconds: an hour.
const ABANDONED: i64 = 3600 * 1_000_000_000;

/// The number of a state in a row.
fn code(state: DecisionState) -> i64 {
    match state {
        DecisionState::Running => 0,
        DecisionState::Decided => 1,
        DecisionState::Fallback => 2,
    }
}

/// The state with this number in a row.
fn state_of(code: i64) -> DecisionState {
    match code {
        0 => DecisionState::Running,
        1 => DecisionState::Decided,
        _ => DecisionState::Fallback,
    }
}

impl Session<'_> {
    /// Begins a decision, unless this request was decided before.
    pub(super) fn begin_decision(&mut self, new: &NewDecision) -> Result<Outcome> {
        let known: Option<(i64, i64, u32, Option<String>)> = self
            .connection
            .prepare_cached(
                "SELECT id, state, run, answer FROM decision WHERE interceptor = ?1 AND request = ?2",
            )?
            .query_row(params![new.interceptor, new.request.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let (decision, run, may_have_run) = match known {
            Some((_, state, _, Some(answer))) if state != code(DecisionState::Running) => {
                return Ok(Outcome::Begun(Begun::Known { allows: allows(&answer), answer }));
            }
            Some((id, _, run, _)) => {
                let run = run.saturating_add(1);
                self.connection
                    .prepare_cached("UPDATE decision SET state = 0, run = ?2, plugin = ?3 WHERE id = ?1")?
                    .execute(params![id, run, new.plugin.map(|plugin| plugin.0)])?;
                (id, run, true)
            }
            None => {
                if let Some(error) = self.file.space.shortage() {
                    return Ok(Outcome::Refused(error));
                }
                (self.insert_decision(new)?, 1, false)
            }
        };
        let run = DecisionRun { decision: DeliveryId(decision), run };
        Ok(Outcome::Begun(Begun::Now { run, may_have_run }))
    }

    fn insert_decision(&mut self, new: &NewDecision) -> Result<i64> {
        let sequence = self.counters.sequence();
        let id = sequence.next_delivery;
        sequence.next_delivery += 1;
        self.connection
            .prepare_cached(
                "INSERT INTO decision (id, interceptor, request, point, plugin, organization, state, run,
                                       received_at, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 1, ?7, ?8)",
            )?
            .execute(params![
                id,
                new.interceptor,
                new.request.as_str(),
                new.trigger.as_str(),
                new.plugin.map(|plugin| plugin.0),
                new.organization.as_deref(),
                nanos(new.received_at),
                &new.body[..],
            ])?;
        Ok(id)
    }

    /// Ends a decision.
    pub(super) fn end_decision(&mut self, end: &EncodedEnd) -> Result<Outcome> {
        let holds = self
            .connection
            .prepare_cached("SELECT 1 FROM decision WHERE id = ?1 AND run = ?2 AND state = 0")?
            .exists(params![end.run.decision.0, end.run.run])?;
        if !holds {
            self.counters.sequence().lost_leases += 1;
            return Ok(Outcome::Completed(Completed::LostLease));
        }
        if let (Some(plugin), Some(effects)) = (end.plugin, &end.effects) {
            let Some(changes) = self.stage_kv(plugin, effects)? else {
                self.counters.sequence().conflicts += 1;
                return Ok(Outcome::Completed(Completed::Conflict));
            };
            self.apply_kv(plugin, changes);
            for (kind, item) in &end.items {
                self.insert_outbox(end.run.decision, plugin, None, (*kind, item))?;
            }
            for derived in &effects.emitted {
                let event = derived.event(timestamp(self.now));
                let subscribers = derived.subscribers.clone();
                self.take_in(Offer { event, second: None, subscribers, origin: EventOrigin::Derived }, None)?;
            }
        }
        let record = end.record.as_ref();
        self.connection
            .prepare_cached(
                "UPDATE decision SET state = ?2, finished_at = ?3, took_us = ?4, decided = ?5, answer = ?6, cause = ?7,
                 revision = ?8, error = ?9, trace = ?10, logs = ?11, did = ?12 WHERE id = ?1",
            )?
            .execute(params![
                end.run.decision.0,
                code(end.state()),
                self.now,
                end.took_us,
                end.decided,
                end.answer,
                end.cause.map(Fallback::as_str),
                record.and_then(|record| record.revision.as_deref()),
                end.error,
                record.and_then(|record| record.trace.as_deref()),
                record.and_then(|record| record.logs.as_deref()),
                record.and_then(|record| record.actions.as_deref()),
            ])?;
        Ok(Outcome::Completed(Completed::Written))
    }

    /// Marks a decision as late, once, and stores the event that says so.
    pub(super) fn mark_late(
        &mut self,
        decision: DeliveryId,
        event: &NewEvent,
        subscribers: &[Subscriber],
    ) -> Result<Outcome> {
        let marked = self
            .connection
            .prepare_cached("UPDATE decision SET late = 1 WHERE id = ?1 AND state = 1 AND late = 0")?
            .execute([decision.0])?;
        if marked == 1 {
            let (event, subscribers) = (event.clone(), subscribers.to_vec());
            self.take_in(Offer { event, second: None, subscribers, origin: EventOrigin::Derived }, None)?;
        }
        Ok(Outcome::Flag(marked == 1))
    }

    /// Removes some decisions, oldest first. Those with unsent outbox items stay.
    pub(super) fn remove_decisions(&mut self, cutoff: i64, goal: Option<u64>, most: u32) -> Result<Outcome> {
        if let Some(goal) = goal
            && live_bytes(self.connection)? <= goal
        {
            return Ok(Outcome::Count(0));
        }
        let old: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT c.id FROM (SELECT id, received_at, state FROM decision ORDER BY id LIMIT ?3) c
                 WHERE c.received_at < ?1 AND (c.state > 0 OR c.received_at < ?1 - ?4)
                 AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.delivery = c.id AND o.state < 3)
                 ORDER BY c.id LIMIT ?2",
            )?
            .query_map(params![cutoff, most, LOOKED_AT, ABANDONED], |row| row.get(0))?
            .collect::<Result<_>>()?;
        for id in &old {
            for sql in ["DELETE FROM outbox WHERE delivery = ?1", "DELETE FROM decision WHERE id = ?1"] {
                self.connection.prepare_cached(sql)?.execute([id])?;
            }
        }
        Ok(Outcome::Count(old.len() as u64))
    }
}

/// The request that an item of a decision belongs to.
pub(super) fn origin(connection: &Connection, decision: DeliveryId) -> Result<Option<Origin>> {
    connection
        .prepare_cached(
            "SELECT c.interceptor, c.request, p.name FROM decision c JOIN plugin p ON p.id = c.plugin WHERE c.id = ?1",
        )?
        .query_row([decision.0], |row| {
            let interceptor: String = row.get(0)?;
            let request: String = row.get(1)?;
            let source = SourceName::new(&format!("{}{interceptor}", Question::SOURCE));
            Ok(Origin {
                source: source.map_err(|error| damaged(0, error))?,
                event: EventId::new(&request).map_err(|error| damaged(1, error))?,
                plugin: row.get(2)?,
            })
        })
        .optional()
}

/// A name that is no longer valid: the store is damaged.
fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

const COLUMNS: &str = "
SELECT c.id, c.interceptor, c.request, c.point, p.name, c.organization, c.state, c.decided, c.answer, c.cause, c.late,
       c.received_at, c.finished_at, c.took_us, c.error, c.revision, c.trace, c.logs, c.did, c.body
FROM decision c LEFT JOIN plugin p ON p.id = c.plugin";

fn summary(row: &Row<'_>) -> Result<DecisionSummary> {
    let state = state_of(row.get(6)?);
    Ok(DecisionSummary {
        id: DeliveryId(row.get(0)?),
        interceptor: row.get(1)?,
        request: row.get(2)?,
        trigger: row.get(3)?,
        plugin: row.get(4)?,
        organization: row.get(5)?,
        state,
        allows: row.get(7)?,
        answer: row.get(8)?,
        cause: row.get_ref(9)?.as_str_or_null()?.and_then(Fallback::named),
        late: row.get(10)?,
        received_at: timestamp(row.get(11)?),
        finished_at: row.get::<_, Option<i64>>(12)?.map(timestamp),
        took_us: row.get::<_, Option<i64>>(13)?.map(i64::unsigned_abs),
        error: row.get(14)?,
    })
}

impl Reads {
    pub(crate) async fn decisions(&self, filter: DecisionFilter) -> Answer<Vec<DecisionSummary>> {
        self.read(move |connection| {
            let number = filter.id.as_deref().and_then(|id| id.parse::<DeliveryId>().ok()).map(|id| id.0);
            connection
                .prepare_cached(&format!(
                    "{COLUMNS} WHERE c.id < ?1 AND (?2 IS NULL OR c.interceptor = ?2)
                     AND (?3 IS NULL OR c.state = ?3) AND (?4 IS NULL OR c.decided = ?4)
                     AND (?5 IS NULL OR c.request = ?5 OR c.id = ?6) AND c.received_at >= ?7
                     ORDER BY c.id DESC LIMIT ?8"
                ))?
                .query_map(
                    params![
                        filter.before.map_or(i64::MAX, |id| id.0),
                        filter.interceptor,
                        filter.state.map(code),
                        filter.allows,
                        filter.id,
                        number,
                        filter.since.map_or(i64::MIN, nanos),
                        page(filter.limit),
                    ],
                    summary,
                )?
                .collect()
        })
        .await
    }

    pub(crate) async fn decision(&self, id: &str) -> Answer<Vec<DecisionDetail>> {
        let id = id.to_owned();
        self.read(move |connection| {
            let number = id.parse::<DeliveryId>().ok().map(|id| id.0);
            let mut details: Vec<DecisionDetail> = connection
                .prepare_cached(&format!(
                    "{COLUMNS} WHERE c.request = ?1 OR c.id = ?2 ORDER BY c.id LIMIT 100"
                ))?
                .query_map(params![id, number], |row| {
                    let body: Vec<u8> = row.get(19)?;
                    Ok(DecisionDetail {
                        summary: summary(row)?,
                        revision: row.get(15)?,
                        trace: row.get(16)?,
                        logs: plugins::parsed(row, 17)?.unwrap_or_default(),
                        actions: row
                            .get_ref(18)?
                            .as_str_or_null()?
                            .map_or_else(Vec::new, |actions| actions.lines().map(str::to_owned).collect()),
                        body: String::from_utf8_lossy(&body).into_owned(),
                        outbox: Vec::new(),
                    })
                })?
                .collect::<Result<_>>()?;
            let sql = format!("{} WHERE o.delivery = ?1 ORDER BY o.id", outbox::SUMMARY);
            let mut items = connection.prepare_cached(&sql)?;
            for detail in &mut details {
                detail.outbox =
                    items.query_map([detail.summary.id.0], outbox::summary)?.collect::<Result<_>>()?;
            }
            Ok(details)
        })
        .await
    }

    pub(crate) async fn open_decisions(&self) -> Answer<Vec<OpenDecision>> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, interceptor, request, point, plugin, organization, received_at, body
                     FROM decision INDEXED BY decision_open WHERE state = 0 ORDER BY id LIMIT ?1",
                )?
                .query_map([OPEN], |row| {
                    let body: Vec<u8> = row.get(7)?;
                    let (request, trigger): (String, String) = (row.get(2)?, row.get(3)?);
                    Ok(OpenDecision {
                        decision: DeliveryId(row.get(0)?),
                        interceptor: row.get(1)?,
                        request: EventId::new(&request).map_err(|error| damaged(2, error))?,
                        trigger: EventType::new(&trigger).map_err(|error| damaged(3, error))?,
                        plugin: row.get::<_, Option<i64>>(4)?.map(PluginId),
                        organization: row.get(5)?,
                        received_at: timestamp(row.get(6)?),
                        body: body.into(),
                    })
                })?
                .collect()
        })
        .await
    }
}
