//! The calls of a guest and their answers, as plain data.
//!
//! A version of the WIT package converts its types to these and back. So code that watches the calls of an attempt,
//! keeps them or answers in place of the host needs neither WIT nor wasmtime.
//!
//! A call passes if its answer can differ between two attempts, if it has an effect, or if it ends the attempt. The rest
//! of WASI answers the same in every attempt and does not pass: resolutions of clocks, an environment without
//! variables, no files, refused sockets, standard input at its end, and handles that only name what a call has opened.

use jiff::Timestamp;
use posthouse_database::{Rows, Value};
use posthouse_egress::{Draft, Refusal, WebResponse};
use posthouse_model::{Capability, LogLevel, Octets, octets};
use serde::{Deserialize, Serialize};

use super::{kv::KvError, limits::Stop, outbox::OutboxError, sql::SqlError};

/// A call of a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum HostCall {
    /// `log.write`.
    LogWrite { level: LogLevel, message: String },
    /// `config.get`.
    ConfigGet { key: String },
    /// `kv.get`.
    KvGet { key: String },
    /// `kv.set`.
    KvSet {
        key: String,
        #[serde(with = "octets")]
        value: Vec<u8>,
    },
    /// `kv.delete`.
    KvDelete { key: String },
    /// `kv.list`.
    KvList { prefix: String, after: Option<String>, limit: u32 },
    /// `kv.increment`.
    KvIncrement { key: String, by: i64 },
    /// `sql.query`.
    SqlQuery { statement: String, parameters: Vec<Value> },
    /// `sql.execute`.
    SqlExecute { statement: String, parameters: Vec<Value> },
    /// `http.fetch`.
    HttpFetch(Draft),
    /// `outbox.send-mail`.
    SendMail(Box<MailDraft>),
    /// `outbox.send-request`.
    SendRequest(Draft),
    /// `outbox.emit`.
    Emit { event_type: String, organization: Option<String>, data: String },
    /// `now` of `wasi:clocks/wall-clock`.
    WallClock,
    /// `now` of `wasi:clocks/monotonic-clock`.
    MonotonicClock,
    /// `subscribe-instant` of the monotonic clock: an alarm at this time, in nanoseconds on that clock.
    AlarmAt { instant: u64 },
    /// `subscribe-duration` of the monotonic clock: an alarm after so many nanoseconds.
    AlarmAfter { duration: u64 },
    /// `poll` of `wasi:io/poll`: waits for one of these handles.
    Poll { pollables: Vec<u32> },
    /// `block` of a pollable: waits for this handle.
    Block { pollable: u32 },
    /// `ready` of a pollable: asks without waiting.
    Ready { pollable: u32 },
    /// `get-random-bytes` and `get-insecure-random-bytes` of `wasi:random`.
    RandomBytes { length: u64 },
    /// `get-random-u64` and `get-insecure-random-u64` of `wasi:random`.
    RandomNumber,
    /// `insecure-seed` of `wasi:random`.
    RandomSeed,
    /// `get-stdout` and `get-stderr` of `wasi:cli`.
    OpenStream(Stdio),
    /// A write to a standard stream, by any of the functions of `wasi:io/streams`.
    Print {
        stream: Stdio,
        #[serde(with = "octets")]
        bytes: Vec<u8>,
    },
    /// `exit` of `wasi:cli`. It ends the attempt.
    Exit { status: u8 },
    /// A function of `wasi:http`, which is linked but not offered. It ends the attempt.
    WasiHttp { function: String },
}

/// The answer to a call. Errors that the guest can handle are part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum HostAnswer {
    LogWrite,
    ConfigGet(Option<String>),
    KvGet(Result<Option<Octets>, KvError>),
    KvSet(Result<(), KvError>),
    KvDelete(Result<(), KvError>),
    KvList(Result<Vec<(String, Octets)>, KvError>),
    KvIncrement(Result<(), KvError>),
    SqlQuery(Result<Rows, SqlError>),
    SqlExecute(Result<u64, SqlError>),
    HttpFetch(Fetch),
    SendMail(Result<String, OutboxError>),
    SendRequest(Result<String, OutboxError>),
    Emit(Result<String, OutboxError>),
    WallClock(Timestamp),
    /// Nanoseconds on the monotonic clock.
    MonotonicClock(u64),
    /// When the alarm is due, in nanoseconds on the monotonic clock.
    AlarmAt(u64),
    /// As for [`HostAnswer::AlarmAt`].
    AlarmAfter(u64),
    /// The positions of those that are ready.
    Poll(Vec<u32>),
    Block,
    Ready(bool),
    RandomBytes(#[serde(with = "octets")] Vec<u8>),
    RandomNumber(u64),
    RandomSeed((u64, u64)),
    OpenStream,
    Print,
}

/// The answer to `http.fetch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fetch {
    /// The request as it was sent. None if it failed a check before.
    pub(crate) sent: Option<Target>,
    /// The response, or why there is none.
    pub(crate) result: Result<WebResponse, Refusal>,
}

/// Where a request went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) method: String,
    pub(crate) url: String,
}

/// A mail as a guest describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MailDraft {
    pub(crate) from: Option<String>,
    pub(crate) to: Vec<String>,
    pub(crate) cc: Vec<String>,
    pub(crate) bcc: Vec<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: Option<String>,
}

/// A standard stream that a guest writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stdio {
    Out,
    Err,
}

/// Watches the calls of an attempt, and may answer in place of the host.
pub(crate) trait Tap: Send {
    /// Sees a call before the host does. If this returns an answer, the guest gets it in place of the host's.
    fn asked(&mut self, call: &HostCall) -> Option<Result<HostAnswer, Stop>>;

    /// Sees the answer to the last call, or that the attempt ends with it. An attempt that is stopped while the guest
    /// waits for an answer ends without this.
    fn answered(&mut self, result: &Result<HostAnswer, Stop>);
}

/// Makes [`Kind`] of a list of the variants of [`HostCall`], each with its name.
macro_rules! kinds {
    ($($kind:ident: $name:literal,)*) => {
        /// A kind of call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// Every kind, by its number.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name by which a guest's author knows it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }

        impl HostCall {
            /// The kind of this call.
            pub(crate) fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind { .. } => Kind::$kind,)*
                }
            }
        }
    };
}

kinds! {
    LogWrite: "log.write",
    ConfigGet: "config.get",
    KvGet: "kv.get",
    KvSet: "kv.set",
    KvDelete: "kv.delete",
    KvList: "kv.list",
    KvIncrement: "kv.increment",
    SqlQuery: "sql.query",
    SqlExecute: "sql.execute",
    HttpFetch: "http.fetch",
    SendMail: "outbox.send-mail",
    SendRequest: "outbox.send-request",
    Emit: "outbox.emit",
    WallClock: "wall-clock.now",
    MonotonicClock: "monotonic-clock.now",
    AlarmAt: "monotonic-clock.subscribe-instant",
    AlarmAfter: "monotonic-clock.subscribe-duration",
    Poll: "poll.poll",
    Block: "pollable.block",
    Ready: "pollable.ready",
    RandomBytes: "random.get-random-bytes",
    RandomNumber: "random.get-random-u64",
    RandomSeed: "insecure-seed.insecure-seed",
    OpenStream: "cli.get-stdout",
    Print: "output-stream.write",
    Exit: "exit.exit",
    WasiHttp: "wasi:http",
}

impl Kind {
    /// The grant that it needs, and the answer to a guest without it.
    pub(super) fn needs(self) -> Option<(Capability, Denial)> {
        let (capability, denial): (_, Denial) = match self {
            Self::SqlQuery => (Capability::Sql, |why| HostAnswer::SqlQuery(Err(SqlError::Denied(why)))),
            Self::SqlExecute => (Capability::Sql, |why| HostAnswer::SqlExecute(Err(SqlError::Denied(why)))),
            Self::HttpFetch => (Capability::Http, |why| {
                HostAnswer::HttpFetch(Fetch { sent: None, result: Err(Refusal::Denied(why)) })
            }),
            Self::SendRequest => {
                (Capability::Http, |why| HostAnswer::SendRequest(Err(OutboxError::Denied(why))))
            }
            Self::SendMail => (Capability::Mail, |why| HostAnswer::SendMail(Err(OutboxError::Denied(why)))),
            Self::Emit => (Capability::Emit, |why| HostAnswer::Emit(Err(OutboxError::Denied(why)))),
            _ => return None,
        };
        Some((capability, denial))
    }

    /// Whether `describe` may make it. The runtime of a language needs all of WASI to start.
    pub(super) fn while_describing(self) -> bool {
        !matches!(
            self,
            Self::ConfigGet
                | Self::KvGet
                | Self::KvSet
                | Self::KvDelete
                | Self::KvList
                | Self::KvIncrement
                | Self::SqlQuery
                | Self::SqlExecute
                | Self::HttpFetch
                | Self::SendMail
                | Self::SendRequest
                | Self::Emit
        )
    }
}

/// Makes the answer to a call without its grant, from the text that names the grant.
type Denial = fn(String) -> HostAnswer;

/// Takes what an answer of this kind contains, or returns the error that it is of another kind.
macro_rules! answered {
    ($answer:expr, $kind:ident) => {
        match $answer {
            $crate::imports::call::HostAnswer::$kind(value) => Ok(value),
            _ => Err($crate::imports::limits::Stop::Misfit($crate::imports::call::Kind::$kind)),
        }
    };
}

pub(super) use answered;
