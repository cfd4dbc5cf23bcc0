//! Tests attempts: what a guest may do, and what the report says about what it may not do.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::*;
use crate::plugin::{AttemptFailure, LoadError, inspect};

fn stopped(report: AttemptReport) -> (String, String) {
    match report.result {
        Err(AttemptFailure::Stopped { error, trace }) => (error, trace.unwrap_or_default()),
        other => panic!("the guest was not stopped: {other:?}"),
    }
}

#[tokio::test]
async fn a_core_module_is_compiled_in_a_child_and_says_what_it_is() {
    let bench = Bench::new(4);
    let path = bench.file(&guest(""));
    let inspection = inspect(&bench.engine, "line", &path, &settings()).await.unwrap();
    assert_eq!(inspection.description, "line");
    assert_eq!(inspection.events, [Pattern::new("user.*").unwrap()]);
    assert_eq!(inspection.revision.len(), 64);
    let cached = fs::read_dir(bench.dir.path().join("aot")).unwrap().count();
    assert_eq!(cached, 1, "the code is kept, and nothing else is left behind");
    fs::write(bench.dir.path().join("compiler"), "#!/bin/sh\nexit 1\n").unwrap();
    drop(inspection);
    inspect(&bench.engine, "line", &path, &settings()).await.expect("the second time it needs no compiler");
}

#[tokio::test]
async fn what_a_guest_staged_is_in_its_report() {
    let bench = Bench::new(4);
    let body = "(call $say) (call $increment (i32.const 272) (i32.const 1) (i64.const 2) (i32.const 1024))";
    let report = bench.attempt(body, settings()).await;
    assert_eq!(report.result.unwrap().effects.writes, [("n".to_owned(), KvWrite::Add(2))].into());
    let logs: Vec<_> = report.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(logs, [(LogLevel::Info, "line")]);
}

#[tokio::test]
async fn a_trap_has_its_cause_and_the_names_of_the_guests_functions() {
    let bench = Bench::new(4);
    let (error, trace) = stopped(bench.attempt("(call $say) unreachable", settings()).await);
    assert!(error.contains("unreachable"), "{error}");
    assert!(trace.contains("greets_users"), "{trace}");
}

#[tokio::test]
async fn every_limit_is_named() {
    let bench = Bench::new(4);
    let forever = |call: &str| format!("(loop {call} (br 0))");
    let stage = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (i32.store (i32.const 272) (i32.or (global.get $count) (i32.const 0x40404040)))
        (i32.store8 (i32.const 272) (i32.add (i32.const 48) (i32.rem_u (global.get $count) (i32.const 60))))
        (i32.store8 offset=1 (i32.const 272) (i32.add (i32.const 48) (i32.div_u (global.get $count) (i32.const 60))))";
    let set = |length: usize| {
        forever(&format!(
            "{stage} (call $set (i32.const 272) (i32.const 2) (i32.const 0) (i32.const {length}) (i32.const 1024))"
        ))
    };
    let mut quick = settings();
    quick.limits.time = Duration::from_millis(100);
    quick.limits.hostcall = 64 << 10;
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let long = "(call $log (i32.const 2) (i32.const 0) (i32.const 70000))";
    let cases = [
        ("(call $spin)".to_owned(), &quick, "limit `time` (100ms) reached"),
        (forever("(call $say)"), &settings(), "limit `log_lines` (1000) reached"),
        ("(call $recurse)".to_owned(), &settings(), "limit `stack` (512 KiB) reached"),
        (grow.to_owned(), &settings(), "limit `memory` (64 MiB) reached"),
        (long.to_owned(), &quick, "limit `hostcall` (64 KiB) reached"),
        (set(4), &settings(), "limit `staged_items` (1000) reached"),
        (set(20_000), &settings(), "limit `staged_bytes` (4 MiB) reached"),
    ];
    for (body, settings, says) in cases {
        let (error, trace) = stopped(bench.attempt(&body, settings.clone()).await);
        assert!(error.contains(says), "{error}");
        assert!(!trace.is_empty(), "the trace of {says} shows where");
    }
}

/// The guest's stack is in linear memory, as compilers place it. Its frames are 1 KiB, and the stack is lowest.
#[tokio::test]
async fn a_guest_that_uses_up_its_own_stack_is_told_so() {
    let bench = Bench::new(4);
    let (error, _) = stopped(bench.attempt("(call $nest)", settings()).await);
    assert!(error.contains("limit `stack` (the guest's own) reached"), "{error}");
    let (error, _) = stopped(bench.attempt("(i32.store (i32.const -64) (i32.const 1))", settings()).await);
    assert!(
        error.contains("out of bounds") && !error.contains("stack"),
        "no recursion, another fault: {error}"
    );
}

#[tokio::test]
async fn a_guest_that_spins_lets_others_run() {
    let bench = Bench::new(4);
    let mut long = settings();
    long.limits.time = Duration::from_secs(600);
    let spin = bench.load(&guest("(call $spin)"), long).await;
    let quick = bench.load(&guest("(call $say)"), settings()).await;
    // One thread runs both, so the second ends only if the first yields.
    tokio::select! {
        report = spin.attempt() => panic!("nothing ends a guest that spins: {report:?}"),
        report = quick.attempt() => assert!(report.result.is_ok()),
    }
}

#[tokio::test]
async fn a_full_pool_waits() {
    let bench = Bench::new(2);
    let quick = bench.load(&guest("(call $say)"), settings()).await;
    let mut slow = settings();
    slow.limits.time = Duration::from_millis(300);
    let slow = bench.load(&guest("(call $spin)"), slow).await;
    let (a, b, c) = tokio::join!(slow.attempt(), slow.attempt(), quick.attempt());
    assert!(c.result.is_ok(), "{:?}", c.result);
    assert!(c.duration < Duration::from_millis(300), "the wait for a place is not the guest's");
    drop((a, b));
}

#[tokio::test]
async fn reuse_serves_so_many_attempts_and_each_begins_anew() {
    let bench = Bench::new(2);
    let reused = PluginSettings { reuse: 3, ..settings() };
    let mut tight = reused.clone();
    tight.limits.log_lines = 3;
    // Logs as many lines as this instance has served attempts.
    let body = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (local.set 0 (global.get $count))
        (loop (call $say) (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))";
    let loaded = bench.load(&guest(body), tight).await;
    let mut lines = Vec::new();
    for _ in 0..7 {
        let report = loaded.attempt().await;
        assert!(report.result.is_ok(), "{:?}", report.result);
        lines.push(report.logs.len());
    }
    assert_eq!(lines, [1, 2, 3, 1, 2, 3, 1]);
    let fails = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (if (i32.eq (global.get $count) (i32.const 2)) (then unreachable))";
    let loaded = bench.load(&guest(fails), reused).await;
    let mut ended = Vec::new();
    for _ in 0..4 {
        ended.push(loaded.attempt().await.result.is_ok());
    }
    assert_eq!(ended, [true, false, true, false], "a trap retires the instance");
}

#[tokio::test]
async fn describe_can_only_log() {
    let bench = Bench::new(2);
    let ask = "(call $increment (i32.const 272) (i32.const 1) (i64.const 2) (i32.const 1024)) (i32.const 16)";
    let error = inspect(&bench.engine, "line", &bench.file(&module("", ask)), &settings()).await.unwrap_err();
    assert!(matches!(error, LoadError::Describe { .. }), "{error:?}");
    assert!(error.to_string().contains("`kv.increment` can't be called from `describe`"), "{error}");
    let logs = module("", "(call $say) (i32.const 16)");
    assert_eq!(inspect(&bench.engine, "line", &bench.file(&logs), &settings()).await.unwrap().logs.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_plugin_says_why() {
    let bench = Bench::new(2);
    let stranger = wat::parse_str(r#"(component (import "foo:bar/baz@1.0.0" (instance)))"#).unwrap();
    let fetches = r#"(component (import "foo:bar/baz@1.0.0" (instance (export "f" (func)))))"#;
    let mut broken = guest("");
    broken.truncate(broken.len() / 2);
    let cases = [
        (b"hello".to_vec(), "it is not WebAssembly"),
        (wat::parse_str("(module)").unwrap(), "component-type"),
        (broken, "it does not compile"),
        (wat::parse_str("(component)").unwrap(), "posthouse:plugin/guest@0.1.0"),
        (stranger, "posthouse:plugin/guest@0.1.0"),
        (wat::parse_str(fetches).unwrap(), "foo:bar/baz@1.0.0"),
    ];
    for (wasm, says) in cases {
        let error =
            inspect(&bench.engine, "line", &bench.file(&wasm), &settings()).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// Prints the cost of an attempt. POSTHOUSE_GUEST names another guest's file, POSTHOUSE_EVENT a type.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_an_attempt() {
    let bench = Bench::new(16);
    let wasm = std::env::var_os("POSTHOUSE_GUEST").map_or_else(|| guest(""), |path| fs::read(path).unwrap());
    let job = job(&std::env::var("POSTHOUSE_EVENT").unwrap_or_else(|_| "user.created".to_owned()));
    for reuse in [1, 1000] {
        let begun = Instant::now();
        let loaded = bench.load(&wasm, PluginSettings { reuse, ..settings() }).await;
        println!("reuse {reuse}: loaded in {:?}", begun.elapsed());
        for _ in 0..3 {
            let begun = Instant::now();
            let mut rounds = 0;
            while begun.elapsed() < Duration::from_secs(1) {
                for _ in 0..100 {
                    let report = loaded.code.attempt(loaded.engine, &loaded.context, &job).await;
                    assert!(report.result.is_ok(), "{report:?}");
                }
                rounds += 100;
            }
            println!(
                "reuse {reuse}: {:.1} µs an attempt",
                begun.elapsed().as_micros() as f64 / f64::from(rounds)
            );
        }
    }
}
