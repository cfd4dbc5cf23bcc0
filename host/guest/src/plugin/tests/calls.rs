//! Tests the one path of host calls: a guest makes every call, and a tap sees each once, in the guest's order.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use parking_lot::Mutex;
use posthouse_database::{Databases, Value};
use posthouse_egress::{Draft, Egress};
use posthouse_model::config::{self, DatabaseSettings, DatabaseTarget};

use super::*;
use crate::{
    imports::{HostAnswer, HostCall, Kind, MailDraft, Stdio, Stop, Tap},
    plugin::AttemptFailure,
};

/// The parts of WASI that the guest calls.
const WORLD: &str = "
package test:every-call;

world every-call {
    include posthouse:plugin/plugin@0.1.0;
    import wasi:clocks/wall-clock@0.2.0;
    import wasi:clocks/monotonic-clock@0.2.0;
    import wasi:io/poll@0.2.0;
    import wasi:io/streams@0.2.0;
    import wasi:random/random@0.2.0;
    import wasi:random/insecure@0.2.0;
    import wasi:random/insecure-seed@0.2.0;
    import wasi:cli/stdin@0.2.0;
    import wasi:cli/stdout@0.2.0;
    import wasi:cli/stderr@0.2.0;
    import wasi:cli/exit@0.2.0;
    import wasi:http/outgoing-handler@0.2.0;
}

package wasi:clocks@0.2.0 {
    interface wall-clock {
        record datetime { seconds: u64, nanoseconds: u32 }
        now: func() -> datetime;
    }
    interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        now: func() -> u64;
        subscribe-instant: func(when: u64) -> pollable;
        subscribe-duration: func(when: u64) -> pollable;
    }
}

package wasi:io@0.2.0 {
    interface error { resource error; }
    interface poll {
        resource pollable {
            ready: func() -> bool;
            block: func();
        }
        poll: func(in: list<borrow<pollable>>) -> list<u32>;
    }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource input-stream;
        resource output-stream {
            check-write: func() -> result<u64, stream-error>;
            write: func(contents: list<u8>) -> result<_, stream-error>;
            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            flush: func() -> result<_, stream-error>;
            write-zeroes: func(len: u64) -> result<_, stream-error>;
            blocking-write-zeroes-and-flush: func(len: u64) -> result<_, stream-error>;
            splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>;
        }
    }
}

package wasi:random@0.2.0 {
    interface random {
        get-random-bytes: func(len: u64) -> list<u8>;
        get-random-u64: func() -> u64;
    }
    interface insecure {
        get-insecure-random-bytes: func(len: u64) -> list<u8>;
        get-insecure-random-u64: func() -> u64;
    }
    interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
}

package wasi:cli@0.2.0 {
    interface stdin {
        use wasi:io/streams@0.2.0.{input-stream};
        get-stdin: func() -> input-stream;
    }
    interface stdout {
        use wasi:io/streams@0.2.0.{output-stream};
        get-stdout: func() -> output-stream;
    }
    interface stderr {
        use wasi:io/streams@0.2.0.{output-stream};
        get-stderr: func() -> output-stream;
    }
    interface exit { exit: func(status: result); }
}

package wasi:http@0.2.0 {
    interface outgoing-handler { handle: func(); }
}
";

/// The functions that the guest imports: interface, function, name in the module, and type.
const IMPORTS: &[(&str, &str, &str, &str)] = &[
    ("posthouse:plugin/log@0.1.0", "write", "log", "(param i32 i32 i32)"),
    ("posthouse:plugin/config@0.1.0", "get", "config", "(param i32 i32 i32)"),
    ("posthouse:plugin/kv@0.1.0", "get", "kv-get", "(param i32 i32 i32)"),
    ("posthouse:plugin/kv@0.1.0", "set", "kv-set", "(param i32 i32 i32 i32 i32)"),
    ("posthouse:plugin/kv@0.1.0", "delete", "kv-delete", "(param i32 i32 i32)"),
    ("posthouse:plugin/kv@0.1.0", "list", "kv-list", "(param i32 i32 i32 i32 i32 i32 i32)"),
    ("posthouse:plugin/kv@0.1.0", "increment", "kv-increment", "(param i32 i32 i64 i32)"),
    ("posthouse:plugin/sql@0.1.0", "query", "sql-query", "(param i32 i32 i32 i32 i32)"),
    ("posthouse:plugin/sql@0.1.0", "execute", "sql-execute", "(param i32 i32 i32 i32 i32)"),
    ("posthouse:plugin/http@0.1.0", "fetch", "fetch", "(param i32 i32 i32 i32 i32 i32 i32 i32 i32)"),
    ("posthouse:plugin/outbox@0.1.0", "send-mail", "mail", "(param i32 i32)"),
    ("posthouse:plugin/outbox@0.1.0", "send-request", "send", "(param i32 i32 i32 i32 i32 i32 i32 i32 i32)"),
    ("posthouse:plugin/outbox@0.1.0", "emit", "emit", "(param i32 i32 i32 i32 i32 i32 i32 i32)"),
    ("wasi:clocks/wall-clock@0.2.0", "now", "wall", "(param i32)"),
    ("wasi:clocks/monotonic-clock@0.2.0", "now", "monotonic", "(result i64)"),
    ("wasi:clocks/monotonic-clock@0.2.0", "subscribe-instant", "alarm-at", "(param i64) (result i32)"),
    ("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "alarm-after", "(param i64) (result i32)"),
    ("wasi:io/poll@0.2.0", "poll", "poll", "(param i32 i32 i32)"),
    ("wasi:io/poll@0.2.0", "[method]pollable.block", "block", "(param i32)"),
    ("wasi:io/poll@0.2.0", "[method]pollable.ready", "ready", "(param i32) (result i32)"),
    ("wasi:io/streams@0.2.0", "[method]output-stream.check-write", "check-write", "(param i32 i32)"),
    ("wasi:io/streams@0.2.0", "[method]output-stream.write", "write", "(param i32 i32 i32 i32)"),
    (
        "wasi:io/streams@0.2.0",
        "[method]output-stream.blocking-write-and-flush",
        "write-flush",
        "(param i32 i32 i32 i32)",
    ),
    ("wasi:io/streams@0.2.0", "[method]output-stream.flush", "flush", "(param i32 i32)"),
    ("wasi:io/streams@0.2.0", "[method]output-stream.write-zeroes", "zeroes", "(param i32 i64 i32)"),
    (
        "wasi:io/streams@0.2.0",
        "[method]output-stream.blocking-write-zeroes-and-flush",
        "zeroes-flush",
        "(param i32 i64 i32)",
    ),
    ("wasi:io/streams@0.2.0", "[method]output-stream.splice", "splice", "(param i32 i32 i64 i32)"),
    ("wasi:random/random@0.2.0", "get-random-bytes", "bytes", "(param i64 i32)"),
    ("wasi:random/random@0.2.0", "get-random-u64", "number", "(result i64)"),
    ("wasi:random/insecure@0.2.0", "get-insecure-random-bytes", "insecure-bytes", "(param i64 i32)"),
    ("wasi:random/insecure@0.2.0", "get-insecure-random-u64", "insecure-number", "(result i64)"),
    ("wasi:random/insecure-seed@0.2.0", "insecure-seed", "seed", "(param i32)"),
    ("wasi:cli/stdin@0.2.0", "get-stdin", "stdin", "(result i32)"),
    ("wasi:cli/stdout@0.2.0", "get-stdout", "stdout", "(result i32)"),
    ("wasi:cli/stderr@0.2.0", "get-stderr", "stderr", "(result i32)"),
    ("wasi:cli/exit@0.2.0", "exit", "exit", "(param i32)"),
    ("wasi:http/outgoing-handler@0.2.0", "handle", "wasi-http", ""),
];

/// A guest in the making: its texts, and the body of its `handle`. Calls write their results to address 0.
#[derive(Default)]
struct Script {
    data: String,
    used: usize,
    body: String,
}

/// The argument for the place of a result.
const RESULT: &str = "(i32.const 0)";

/// Where the texts begin. Below are results, and the manifest at 512.
const TEXTS: usize = 1024;

impl Script {
    /// Puts bytes into memory, and returns their address.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let address = TEXTS + self.used;
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        self.data.push_str(&format!("(data (i32.const {address}) \"{escaped}\")\n"));
        self.used += bytes.len().next_multiple_of(8);
        address
    }

    /// The arguments for a text or a list of bytes.
    fn text(&mut self, text: &str) -> String {
        format!("(i32.const {}) (i32.const {})", self.put(text.as_bytes()), text.len())
    }

    /// Adds an instruction to `handle`.
    fn add(&mut self, instruction: &str) {
        self.body.push_str(instruction);
        self.body.push('\n');
    }

    /// Adds a call with these texts as its first arguments, then `rest`.
    fn call(&mut self, function: &str, texts: &[&str], rest: &str) {
        let texts: Vec<_> = texts.iter().map(|text| self.text(text)).collect();
        self.add(&format!("(call ${function} {} {rest})", texts.join(" ")));
    }

    /// Adds a call with the handle in a global as its first argument, then a text and the place of the result.
    fn write(&mut self, function: &str, text: &str) {
        let text = self.text(text);
        self.add(&format!("(call ${function} (global.get $handle) {text} {RESULT})"));
    }

    fn finish(&self) -> Vec<u8> {
        let mut imports = String::new();
        for (interface, function, name, ty) in IMPORTS {
            imports.push_str(&format!("(import \"{interface}\" \"{function}\" (func ${name} {ty}))\n"));
        }
        let text = format!(
            r#"(module $every
                {imports}
                (memory (export "memory") 16)
                (global $top (mut i32) (i32.const 65536))
                (global $handle (mut i32) (i32.const 0))
                (global $other (mut i32) (i32.const 0))
                {}
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                    (global.get $top)
                    (global.set $top (i32.add (global.get $top) (local.get 3))))
                (func (export "posthouse:plugin/guest@0.1.0#describe") (result i32) (i32.const 512))
                (func (export "posthouse:plugin/guest@0.1.0#handle") (param i32) (result i32)
                    {}
                    (i32.const 4096)))"#,
            self.data, self.body
        );
        in_world(&text, Some(WORLD))
    }
}

/// A guest that makes every call which returns, and these calls in its order.
fn every_call(origin: &str) -> (Vec<u8>, Vec<HostCall>) {
    let mut script = Script::default();
    let mut calls = Vec::new();
    let owned = str::to_owned;
    let none = "(i32.const 0) (i32.const 0)";

    let line = script.text("a line");
    script.add(&format!("(call $log (i32.const 3) {line})"));
    calls.push(HostCall::LogWrite { level: LogLevel::Warn, message: owned("a line") });
    script.call("config", &["greeting"], RESULT);
    calls.push(HostCall::ConfigGet { key: owned("greeting") });

    script.call("kv-set", &["key", "value"], RESULT);
    calls.push(HostCall::KvSet { key: owned("key"), value: b"value".to_vec() });
    script.call("kv-get", &["key"], RESULT);
    calls.push(HostCall::KvGet { key: owned("key") });
    script.call("kv-increment", &["count"], &format!("(i64.const 2) {RESULT}"));
    calls.push(HostCall::KvIncrement { key: owned("count"), by: 2 });
    script.call("kv-list", &["k"], &format!("(i32.const 0) {none} (i32.const 9) {RESULT}"));
    calls.push(HostCall::KvList { prefix: owned("k"), after: None, limit: 9 });
    script.call("kv-delete", &["key"], RESULT);
    calls.push(HostCall::KvDelete { key: owned("key") });

    let execute = "CREATE TABLE numbers (n INTEGER)";
    script.call("sql-execute", &[execute], &format!("{none} {RESULT}"));
    calls.push(HostCall::SqlExecute { statement: owned(execute), parameters: Vec::new() });
    let query = "SELECT $1 AS n, $2 AS x";
    let parameters = [2_u64.to_le_bytes(), 7_i64.to_le_bytes(), 3_u64.to_le_bytes(), 0.1_f64.to_le_bytes()];
    let parameters = script.put(&parameters.concat());
    script.call("sql-query", &[query], &format!("(i32.const {parameters}) (i32.const 2) {RESULT}"));
    let parameters = vec![Value::Integer(7), Value::Float(0.1)];
    calls.push(HostCall::SqlQuery { statement: owned(query), parameters });

    let url = format!("{origin}/path?query");
    script.call("fetch", &["GET", &url], &format!("{none} {none} {RESULT}"));
    let method = owned("GET");
    calls.push(HostCall::HttpFetch(Draft { method, url: url.clone(), ..Draft::default() }));

    let mut mail = vec![0; 76];
    let mut field = |at: usize, address: usize, length: usize| {
        mail[at..at + 4].copy_from_slice(&(address as u32).to_le_bytes());
        mail[at + 4..at + 8].copy_from_slice(&(length as u32).to_le_bytes());
    };
    let (to, subject, text) = ("ada@example.com", "Hello", "How are you?");
    let list = [script.put(to.as_bytes()) as u32, to.len() as u32].map(u32::to_le_bytes).concat();
    field(12, script.put(&list), 1);
    field(48, script.put(subject.as_bytes()), subject.len());
    field(56, script.put(text.as_bytes()), text.len());
    let mail = script.put(&mail);
    script.add(&format!("(call $mail (i32.const {mail}) {RESULT})"));
    calls.push(HostCall::SendMail(Box::new(MailDraft {
        to: vec![owned(to)],
        subject: owned(subject),
        text: owned(text),
        ..MailDraft::default()
    })));
    let body = script.text("{}");
    script.call("send", &["POST", &url], &format!("{none} {body} {RESULT}"));
    let method = owned("POST");
    calls.push(HostCall::SendRequest(Draft {
        method,
        url,
        headers: Vec::new(),
        body: b"{}".to_vec(),
        deliver: false,
    }));
    let data = script.text("[1]");
    script.call("emit", &["seat.added"], &format!("(i32.const 0) {none} {data} {RESULT}"));
    let event_type = owned("seat.added");
    calls.push(HostCall::Emit { event_type, organization: None, data: owned("[1]") });

    script.add(&format!("(call $wall {RESULT})"));
    calls.push(HostCall::WallClock);
    script.add("(drop (call $monotonic))");
    calls.push(HostCall::MonotonicClock);
    script.add("(global.set $handle (call $alarm-at (i64.const 0)))");
    calls.push(HostCall::AlarmAt { instant: 0 });
    script.add("(global.set $other (call $alarm-after (i64.const 1)))");
    calls.push(HostCall::AlarmAfter { duration: 1 });
    script.add("(i32.store (i32.const 256) (global.get $handle))");
    script.add("(i32.store (i32.const 260) (global.get $other))");
    script.add(&format!("(call $poll (i32.const 256) (i32.const 2) {RESULT})"));
    // wasmtime-wasi numbers the alarms and their handles in one sequence.
    calls.push(HostCall::Poll { pollables: vec![1, 3] });
    script.add("(drop (call $ready (global.get $handle)))");
    calls.push(HostCall::Ready { pollable: 1 });
    script.add("(call $block (global.get $other))");
    calls.push(HostCall::Block { pollable: 3 });

    for name in ["bytes", "insecure-bytes"] {
        script.add(&format!("(call ${name} (i64.const 4) {RESULT})"));
        calls.push(HostCall::RandomBytes { length: 4 });
    }
    for name in ["number", "insecure-number"] {
        script.add(&format!("(drop (call ${name}))"));
        calls.push(HostCall::RandomNumber);
    }
    script.add(&format!("(call $seed {RESULT})"));
    calls.push(HostCall::RandomSeed);

    script.add("(global.set $handle (call $stdout))");
    calls.push(HostCall::OpenStream(Stdio::Out));
    script.add(&format!("(call $check-write (global.get $handle) {RESULT})"));
    let mut print = |stream, bytes: &[u8]| calls.push(HostCall::Print { stream, bytes: bytes.to_vec() });
    script.write("write", "one\ntw");
    print(Stdio::Out, b"one\ntw");
    script.write("write-flush", "o\n");
    print(Stdio::Out, b"o\n");
    script.add(&format!("(call $flush (global.get $handle) {RESULT})"));
    script.add(&format!("(call $zeroes (global.get $handle) (i64.const 3) {RESULT})"));
    print(Stdio::Out, &[0; 3]);
    script.add(&format!("(call $zeroes-flush (global.get $handle) (i64.const 2) {RESULT})"));
    print(Stdio::Out, &[0; 2]);
    // Standard input is at its end, so there is nothing to write.
    script.add(&format!("(call $splice (global.get $handle) (call $stdin) (i64.const 5) {RESULT})"));
    script.add("(global.set $handle (call $stderr))");
    calls.push(HostCall::OpenStream(Stdio::Err));
    script.write("write", "oh\n");
    calls.push(HostCall::Print { stream: Stdio::Err, bytes: b"oh\n".to_vec() });
    (script.finish(), calls)
}

/// A guest that makes one call which ends the attempt.
fn last_call(call: &str) -> Vec<u8> {
    let mut script = Script::default();
    script.add(call);
    script.finish()
}

/// The record of a tap: each call, and its answer or the reason why the attempt ends.
type Record = Vec<(HostCall, Option<Result<HostAnswer, String>>)>;

/// Keeps every call and every answer.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Record>>);

impl Tap for Recorder {
    fn asked(&mut self, call: &HostCall) -> Option<Result<HostAnswer, Stop>> {
        self.0.lock().push((call.clone(), None));
        None
    }

    fn answered(&mut self, result: &Result<HostAnswer, Stop>) {
        let result = result.as_ref().cloned().map_err(Stop::to_string);
        let before = self.0.lock().last_mut().unwrap().1.replace(result);
        assert_eq!(before, None, "each call has one answer");
    }
}

/// Answers every call from a record.
struct Player(std::vec::IntoIter<(HostCall, HostAnswer)>);

impl Tap for Player {
    fn asked(&mut self, call: &HostCall) -> Option<Result<HostAnswer, Stop>> {
        let (recorded, answer) = self.0.next().unwrap();
        assert_eq!(*call, recorded);
        Some(Ok(answer))
    }

    fn answered(&mut self, _result: &Result<HostAnswer, Stop>) {}
}

/// Answers one request on loopback, and returns its origin.
fn server() -> String {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n\xff\x00hi";
        connection.write_all(response).unwrap();
    });
    origin
}

fn granted(origin: &str) -> PluginSettings {
    let http = HttpGrant {
        url: WebPattern::parse(origin).unwrap(),
        addresses: vec!["127.0.0.1/32".parse().unwrap()],
        header: BTreeMap::new(),
        sign: Vec::new(),
    };
    let grants = Grants {
        mail: Some(MailGrant { from: vec!["team@example.com".to_owned()], to: vec!["*".to_owned()] }),
        http: vec![http],
        database: Some("main".to_owned()),
        emit: vec![Pattern::new("seat.*").unwrap()],
        signatures: Vec::new(),
    };
    PluginSettings { grants, ..settings() }
}

impl Loaded<'_> {
    async fn tapped(&self, tap: impl Tap + 'static) -> AttemptReport {
        let job = Job { trace: Some(TraceContext::root(&still())), ..job("user.created") };
        self.code.attempt_with(self.engine, &self.context, &job, Some(Box::new(tap))).await
    }

    /// Gives the plugin a database, and access to HTTP.
    fn connect(&mut self, dir: &Path) {
        let settings = Arc::clone(&self.context.settings);
        let database = DatabaseSettings {
            target: DatabaseTarget::Sqlite(dir.join("main.db")),
            pool: 2,
            statement_timeout: Duration::from_secs(5),
            ca: None,
            max_size: None,
            functions: BTreeSet::new(),
        };
        let databases = Databases::new(&[("main".to_owned(), database)].into(), 0);
        let egress = Egress::new(&config::Http::default(), still()).unwrap();
        self.context = Arc::new(PluginContext {
            plugin: "guest".to_owned(),
            env: still(),
            kv: None,
            database: databases.get("main"),
            plugin_http: Some(egress.plugin_http("guest", &settings.grants.http)),
            settings,
        });
    }
}

#[tokio::test]
async fn every_call_is_seen_once_in_the_guests_order_and_can_be_played_back() {
    let bench = Bench::new(4);
    let origin = server();
    let (guest, calls) = every_call(&origin);
    let mut loaded = bench.load(&guest, granted(&origin)).await;
    loaded.connect(bench.dir.path());

    let recorder = Recorder::default();
    let report = loaded.tapped(recorder.clone()).await;
    let mut record = recorder.0.lock().clone();
    assert!(report.result.is_ok(), "{:?} after {record:?}", report.result);
    assert_eq!(record.iter().map(|(call, _)| call.clone()).collect::<Vec<_>>(), calls);
    let answered: Vec<_> =
        record.iter().map(|(call, answer)| (call.clone(), answer.clone().unwrap().unwrap())).collect();
    for (call, answer) in &answered {
        let refused = format!("{answer:?}").contains("Err(");
        assert!(!refused, "{call:?} was answered by {answer:?}");
        // The variants have the same names, and so do their JSON values.
        assert_eq!(name(&as_json(call)), name(&as_json(answer)));
    }

    // The calls that end the attempt.
    for (last, error) in [
        ("(call $exit (i32.const 1))", "the guest exited with status 1 in place of returning"),
        ("(call $wasi-http)", "`wasi:http/outgoing-handler@0.2.0#handle` is not offered"),
    ] {
        let recorder = Recorder::default();
        let report = bench.load(&last_call(last), granted(&origin)).await.tapped(recorder.clone()).await;
        let Err(AttemptFailure::Stopped { error: stopped, .. }) = report.result else {
            panic!("{:?}", report.result)
        };
        assert!(stopped.contains(error), "{stopped}");
        let seen = recorder.0.lock().clone();
        let [(_, Some(Err(reason)))] = &seen[..] else { panic!("{seen:?}") };
        assert!(reason.contains(error), "{reason}");
        record.extend(seen);
    }

    // `HostCall::kind` does not compile without a kind for every variant. So no variant is missing here.
    let kinds: Vec<_> = record.iter().map(|(call, _)| call.kind()).collect();
    for kind in Kind::ALL {
        assert!(kinds.contains(kind), "no guest here calls `{}`", kind.name());
    }
    for (call, answer) in &record {
        assert_eq!(serde_json::from_str::<HostCall>(&as_json(call).to_string()).unwrap(), *call);
        if let Some(Ok(answer)) = answer {
            assert_eq!(serde_json::from_str::<HostAnswer>(&as_json(answer).to_string()).unwrap(), *answer);
        }
    }

    // The same guest with answers from the record. It has no keys, no database and no HTTP.
    let played = bench.load(&guest, granted(&origin)).await;
    let played = Loaded {
        context: Arc::new(PluginContext {
            plugin: "guest".to_owned(),
            settings: Arc::clone(&played.context.settings),
            env: still(),
            kv: None,
            database: None,
            plugin_http: None,
        }),
        ..played
    };
    let again = played.tapped(Player(answered.into_iter())).await;
    assert!(again.result.is_ok(), "{:?}", again.result);
    let lines = |report: &AttemptReport| {
        let lines = report.logs.iter().map(|line| (line.level, line.message.clone()));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(lines(&again), lines(&report));
    assert_eq!(
        lines(&report),
        [
            (LogLevel::Warn, "a line".to_owned()),
            (LogLevel::Info, "one".to_owned()),
            (LogLevel::Info, "two".to_owned()),
            (LogLevel::Warn, "oh".to_owned()),
            (LogLevel::Info, "\0\0\0\0\0".to_owned()),
        ]
    );
    let actions = again.actions.as_deref().unwrap();
    assert_eq!(actions, format!("fetch GET {origin} 200\nsql 2 statements, 0 rows changed"));
    assert!(report.actions.unwrap().starts_with("fetch GET"));
    let fetched = |report: &AttemptReport| {
        report.fetched.iter().map(|fetched| (fetched.url.clone(), fetched.result)).collect::<Vec<_>>()
    };
    assert_eq!(fetched(&again), [(format!("{origin}/path?query"), Ok(200))]);
}

#[tokio::test]
async fn a_call_without_its_grant_is_seen_with_its_answer() {
    let bench = Bench::new(2);
    let (guest, calls) = every_call("http://127.0.0.1:9");
    let recorder = Recorder::default();
    let report = bench.load(&guest, settings()).await.tapped(recorder.clone()).await;
    assert!(report.result.is_ok(), "{:?}", report.result);
    let record = recorder.0.lock().clone();
    assert_eq!(record.len(), calls.len());
    for (call, answer) in record {
        let denied = format!("{answer:?}").contains("has no grant for");
        let needs = matches!(
            call.kind(),
            Kind::SqlQuery
                | Kind::SqlExecute
                | Kind::HttpFetch
                | Kind::SendMail
                | Kind::SendRequest
                | Kind::Emit
        );
        assert_eq!(denied, needs, "{call:?} was answered by {answer:?}");
    }
}

fn as_json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

/// The name of a variant.
fn name(json: &serde_json::Value) -> &str {
    json.as_str().or_else(|| json.as_object()?.keys().next().map(String::as_str)).unwrap()
}
