//! The host's records of an attempt's calls. Each view reads every call and every answer, and keeps its own part.

use posthouse_model::{Env, Fetched, LogLine, TraceContext, config::Limits};

use super::{
    actions::Actions,
    call::{Fetch, HostAnswer, HostCall, Kind, Tap, Target},
    limits::Stop,
    log::Log,
};

/// The most requests of one attempt that its trace contains.
const MOST_FETCHED: usize = 128;

/// The views of one attempt.
pub(super) struct Views {
    counts: Counts,
    pub(super) log: Log,
    pub(super) actions: Actions,
    fetches: Option<Box<Fetches>>,
    tap: Option<Box<dyn Tap>>,
}

impl Views {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            counts: Counts::default(),
            log: Log::new(limits),
            actions: Actions::default(),
            fetches: None,
            tap: None,
        }
    }

    /// Starts again, for another attempt.
    pub(super) fn begin(&mut self) {
        self.counts = Counts::default();
        self.log.begin();
        self.actions = Actions::default();
        self.fetches = None;
        self.tap = None;
    }

    /// Keeps the requests of this attempt for its trace.
    pub(super) fn trace(&mut self, trace: TraceContext, env: &Env) {
        let (env, span, fetched) = (env.clone(), None, Vec::new());
        self.fetches = Some(Box::new(Fetches { trace, env, span, fetched }));
    }

    /// Passes every call and every answer of this attempt to `tap`.
    pub(super) fn tap(&mut self, tap: Box<dyn Tap>) {
        self.tap = Some(tap);
    }

    /// Reads a call. Returns the answer if it is not the host that answers.
    pub(super) fn asked(&mut self, call: &HostCall) -> Option<Result<HostAnswer, Stop>> {
        self.counts.asked(call);
        self.log.asked(call);
        if let Some(fetches) = &mut self.fetches {
            fetches.asked(call);
        }
        self.tap.as_mut()?.asked(call)
    }

    /// Reads the answer to the last call.
    pub(super) fn answered(&mut self, result: &Result<HostAnswer, Stop>) {
        if let Ok(answer) = result {
            self.actions.answered(answer);
            if let Some(fetches) = &mut self.fetches {
                fetches.answered(answer);
            }
        }
        if let Some(tap) = &mut self.tap {
            tap.answered(result);
        }
    }

    /// How many calls of this kind the attempt has made.
    pub(super) fn count(&self, kind: Kind) -> u32 {
        self.counts.0[kind as usize]
    }

    /// The calls of the attempt by name, without those that it never made.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u32)> {
        Kind::ALL.iter().zip(self.counts.0).filter(|(_, count)| *count > 0).map(|(kind, n)| (kind.name(), n))
    }

    /// The span of the request that is being made, if it is recorded.
    pub(super) fn span(&self) -> Option<TraceContext> {
        self.fetches.as_ref().and_then(|fetches| fetches.span.as_ref().map(|(span, _)| *span))
    }

    /// Returns the log lines.
    pub(super) fn take_logs(&mut self) -> Vec<LogLine> {
        self.log.take()
    }

    /// Returns the requests for the attempt's trace.
    pub(super) fn take_fetched(&mut self) -> Vec<Fetched> {
        self.fetches.take().map_or_else(Vec::new, |fetches| fetches.fetched)
    }
}

/// The number of calls of each kind.
struct Counts([u32; Kind::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Kind::ALL.len()])
    }
}

impl Counts {
    fn asked(&mut self, call: &HostCall) {
        let count = &mut self.0[call.kind() as usize];
        *count = count.saturating_add(1);
    }
}

/// The requests of an attempt that has a trace.
struct Fetches {
    /// The span of the attempt.
    trace: TraceContext,
    env: Env,
    /// The span of the request that is being made, and when it began.
    span: Option<(TraceContext, jiff::Timestamp)>,
    fetched: Vec<Fetched>,
}

impl Fetches {
    fn asked(&mut self, call: &HostCall) {
        if let HostCall::HttpFetch(_) = call {
            self.span = Some((self.trace.child(&self.env), self.env.now()));
        }
    }

    fn answered(&mut self, answer: &HostAnswer) {
        let Some((context, started_at)) = self.span.take() else { return };
        let HostAnswer::HttpFetch(Fetch { sent: Some(Target { method, url }), result }) = answer else {
            return;
        };
        if self.fetched.len() < MOST_FETCHED {
            self.fetched.push(Fetched {
                context,
                started_at,
                ended_at: self.env.now(),
                result: result.as_ref().map(|response| response.status).map_err(|refusal| refusal.word()),
                method: method.clone(),
                url: url.clone(),
            });
        }
    }
}
