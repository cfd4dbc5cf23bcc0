//! The result of comparing a sender's list of events with the store, for the operator.

use jiff::Timestamp;

/// Why a sender was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUpReason {
    /// The daemon started, or the settings changed.
    Start,
    /// posthouse had accepted no events for a while.
    Outage,
    /// It was time to.
    Interval,
    /// An operator wanted it.
    Operator,
}

impl CatchUpReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Start, Self::Outage, Self::Interval, Self::Operator];

    /// The word in the API and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Outage => "outage",
            Self::Interval => "interval",
            Self::Operator => "operator",
        }
    }
}

/// An event that a sender lists and the store does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEvent {
    /// The sender's id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened, according to the sender.
    pub occurred_at: Timestamp,
}

/// The result of one comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpReport {
    /// Why the sender was asked.
    pub reason: CatchUpReason,
    /// Whether missing events were to be taken in.
    pub takes_in: bool,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The beginning of the time that was compared, by the sender's clock.
    pub from: Timestamp,
    /// The end of that time.
    pub to: Timestamp,
    /// How far the comparison came. It is `to` if it was complete.
    pub compared_to: Timestamp,
    /// Requests to the sender.
    pub requests: u64,
    /// Events that the sender lists, of types that the source accepts.
    pub listed: u64,
    /// Those that the store had already.
    pub here: u64,
    /// Those that it did not have.
    pub missing: u64,
    /// Those of the missing ones that no earlier comparison had found.
    pub found: u64,
    /// Missing events that were taken in.
    pub taken_in: u64,
    /// Listed events of types that the source does not accept.
    pub filtered: u64,
    /// Listed events that can't be read.
    pub unreadable: u64,
    /// Events that the sender listed although they did not happen in the time that was asked for.
    pub outside: u64,
    /// Events of the store that happened in that time and that the sender does not list. None if that is not known.
    pub unlisted: Option<u64>,
    /// Whether more events happened within a second than are put in order.
    pub unordered: bool,
    /// The first missing events.
    pub first_missing: Vec<ListedEvent>,
    /// The ids of the first events of the store that are not listed.
    pub first_unlisted: Vec<String>,
    /// Why the comparison ended early. None: it is complete.
    pub error: Option<String>,
}

impl CatchUpReport {
    /// A comparison of this time that has not begun yet.
    pub fn new(
        reason: CatchUpReason,
        takes_in: bool,
        now: Timestamp,
        from: Timestamp,
        to: Timestamp,
    ) -> Self {
        Self {
            reason,
            takes_in,
            began_at: now,
            ended_at: now,
            from,
            to,
            compared_to: from,
            requests: 0,
            listed: 0,
            here: 0,
            missing: 0,
            found: 0,
            taken_in: 0,
            filtered: 0,
            unreadable: 0,
            outside: 0,
            unlisted: None,
            unordered: false,
            first_missing: Vec::new(),
            first_unlisted: Vec::new(),
            error: None,
        }
    }

    /// Whether all of the time was compared.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.compared_to >= self.to
    }

    /// The result in a sentence.
    pub fn summary(&self) -> String {
        let events = |count: u64| crate::counted(count, "event");
        let told = match (self.listed, self.missing, self.taken_in) {
            (0, ..) => "the sender is quiet: it lists no event".to_owned(),
            (listed, 0, _) => format!("nothing is missing: {} listed, all here", events(listed)),
            (_, missing, 0) => format!("{} at the sender that never arrived", events(missing)),
            (_, missing, taken_in) if missing == taken_in => {
                format!("{} at the sender had not arrived and {} taken in", events(missing), was(taken_in))
            }
            (_, missing, taken_in) => {
                format!(
                    "{} at the sender had not arrived, {taken_in} of them {} taken in",
                    events(missing),
                    was(taken_in)
                )
            }
        };
        match &self.error {
            Some(error) if self.listed == 0 => format!("the sender could not be asked: {error}"),
            Some(error) => format!("{told}; not complete: {error}"),
            None => told,
        }
    }
}

fn was(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// All that is known of catching up on a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpStatus {
    /// `report` or `apply`.
    pub mode: &'static str,
    /// Whether the sender is being asked now.
    pub running: bool,
    /// The result of the last comparison. None: there was none since the start.
    pub last: Option<CatchUpReport>,
    /// When the last complete comparison ended. None: there was none since the start.
    pub complete_at: Option<Timestamp>,
    /// How many events the sender lists that are not here, as of the last comparison.
    pub missing: u64,
    /// Comparisons since the start that were complete.
    pub complete: u64,
    /// Comparisons since the start that ended early.
    pub failed: u64,
    /// Requests to the sender since the start.
    pub requests: u64,
    /// Missing events that were found since the start.
    pub found: u64,
    /// Events that were taken in since the start.
    pub taken_in: u64,
}

impl CatchUpStatus {
    /// The status before the first comparison.
    pub fn new(mode: &'static str) -> Self {
        Self {
            mode,
            running: false,
            last: None,
            complete_at: None,
            missing: 0,
            complete: 0,
            failed: 0,
            requests: 0,
            found: 0,
            taken_in: 0,
        }
    }

    /// Counts a comparison that ended, of which `missing` events are still not here.
    pub fn count(&mut self, report: CatchUpReport, missing: u64) {
        let complete = report.is_complete();
        *if complete { &mut self.complete } else { &mut self.failed } += 1;
        if complete {
            self.complete_at = Some(report.ended_at);
        }
        self.requests += report.requests;
        self.found += report.found;
        self.taken_in += report.taken_in;
        self.missing = missing;
        self.last = Some(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(listed: u64, missing: u64, taken_in: u64, error: Option<&str>) -> CatchUpReport {
        let at = Timestamp::UNIX_EPOCH;
        let new = CatchUpReport::new(CatchUpReason::Start, taken_in > 0, at, at, at);
        CatchUpReport { listed, missing, taken_in, error: error.map(str::to_owned), ..new }
    }

    #[test]
    fn a_quiet_sender_a_whole_store_a_loss_and_a_broken_api_are_told_apart() {
        for (report, told) in [
            (report(0, 0, 0, None), "the sender is quiet: it lists no event"),
            (report(12, 0, 0, None), "nothing is missing: 12 events listed, all here"),
            (report(12, 3, 0, None), "3 events at the sender that never arrived"),
            (report(12, 1, 1, None), "1 event at the sender had not arrived and was taken in"),
            (
                report(12, 3, 2, Some("x")),
                "3 events at the sender had not arrived, 2 of them were taken in; not complete: x",
            ),
            (report(0, 0, 0, Some("401")), "the sender could not be asked: 401"),
        ] {
            assert_eq!(report.summary(), told);
        }
    }

    #[test]
    fn what_ended_early_counts_as_failed_and_its_events_count_all_the_same() {
        let mut status = CatchUpStatus::new("apply");
        status.count(CatchUpReport { found: 2, ..report(5, 2, 2, None) }, 0);
        status.count(CatchUpReport { found: 2, ..report(5, 3, 1, Some("x")) }, 2);
        assert_eq!((status.complete, status.failed, status.found, status.taken_in), (1, 1, 4, 3));
        assert_eq!((status.missing, status.complete_at), (2, Some(Timestamp::UNIX_EPOCH)));
    }
}
