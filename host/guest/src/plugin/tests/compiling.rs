//! Tests the compiler child: its limits, its end, its turns, and the errors that report them.

use std::{fs, path::PathBuf, time::Duration};

use posthouse_model::testing::{MachineClock, ManualClock};

use super::{registry::Fixture, *};

/// The longest that a test waits. Only a failure takes this long, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Makes the compiler hang on a file that contains `stuck`, and write its process id to a file.
fn stick(fixture: &Fixture) -> PathBuf {
    let pid = fixture.bench.dir.path().join("pid");
    fixture.bench.compiler_begins_with(&format!(
        "grep -q stuck \"$2\" && echo $$ >> {} && exec sleep 600",
        pid.display()
    ));
    pid
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !reached() {
        assert!(began.elapsed() < TIMEOUT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The process ids in the file.
fn pids(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn runs(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Watches the folder of the fixture until the returned task is aborted.
fn watched(fixture: &Fixture) -> tokio::task::JoinHandle<()> {
    let registry = fixture.registry.clone();
    tokio::spawn(async move { registry.watch(Duration::from_millis(200)).await })
}

/// The error of loading this.
async fn refused(bench: &Bench, wasm: &[u8]) -> String {
    let content = revision::read(&bench.file(wasm)).await.unwrap();
    let loaded = revision::load(&bench.engine, "guest", &content, Arc::new(settings())).await;
    loaded.map(drop).unwrap_err().to_string()
}

/// A component with one function that takes a compiler a long time.
pub(crate) fn heavy(rounds: usize) -> Vec<u8> {
    let mut body = String::new();
    for round in 0..rounds {
        let (a, b, c) = (round * 7 % 400, round * 13 % 400, round * 31 % 400);
        body += &format!(
            "local.get {a} local.get {b} i32.mul local.get {c} i32.add local.tee {b} if local.get {c} i32.const {round} i32.xor local.set {a} end\n"
        );
    }
    let locals = "i32 ".repeat(400);
    let text = format!(
        "(component (core module (func (export \"f\") (result i32) (local {locals}) {body} local.get 0)))"
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn a_compiler_that_somebody_killed_is_said_to_be_killed_and_not_to_have_reached_a_limit() {
    let bench = Bench::new(1);
    bench.compiler_begins_with("kill -KILL $$");
    let said = refused(&bench, b"any").await;
    assert!(said.contains("SIGKILL") && said.contains("s of CPU") && !said.contains("limit"), "{said}");
    bench.compiler_begins_with("kill -SEGV $$");
    let said = refused(&bench, b"any").await;
    assert!(said.contains("SIGSEGV") && !said.contains("limit"), "{said}");
    bench.compiler_begins_with("echo memory allocation of 9 bytes failed >&2; kill -ABRT $$");
    let said = refused(&bench, b"any").await;
    assert!(said.contains("of memory") && said.contains("plugins.compile.memory"), "{said}");
    bench.compiler_begins_with("kill -XCPU $$");
    let said = refused(&bench, b"any").await;
    assert!(said.contains("120 s of CPU") && said.contains("plugins.compile.time"), "{said}");
}

#[tokio::test]
async fn a_file_that_takes_a_compiler_too_long_names_the_limit() {
    let compile = Compile { time: Duration::from_secs(1), ..Compile::default() };
    let said = refused(&Bench::compiling(1, compile), &heavy(100_000)).await;
    assert!(said.contains("limit of 1 s of CPU") && said.contains("plugins.compile.time"), "{said}");
}

#[tokio::test]
async fn a_file_that_leaves_takes_its_compiler_with_it() {
    let fixture = Fixture::new(MachineClock).await;
    let pid = stick(&fixture);
    let watching = watched(&fixture);
    fixture.put("slow", b"stuck");
    until("it is compiled", || !pids(&pid).is_empty()).await;
    fixture.remove("slow");
    until("its compiler ends", || !runs(&pids(&pid)[0])).await;
    assert!(fixture.registry.by_name("slow").is_none(), "it was never a plugin");

    // The same holds for a start that waits for it.
    fixture.put("slow", b"stuck once more");
    watching.abort();
    let (scanned, ()) = tokio::join!(tokio::time::timeout(TIMEOUT, fixture.registry.scan()), async {
        until("it is compiled again", || pids(&pid).len() == 2).await;
        fixture.remove("slow");
    });
    scanned.expect("the start goes on");
    until("its compiler ends", || !runs(&pids(&pid)[1])).await;
}

#[tokio::test]
async fn a_file_that_is_replaced_is_not_compiled_to_its_end_and_one_that_is_touched_is() {
    let fixture = Fixture::new(MachineClock).await;
    let pid = stick(&fixture);
    let watching = watched(&fixture);
    fixture.put("greet", b"stuck");
    until("it is compiled", || !pids(&pid).is_empty()).await;
    fixture.put("greet", b"stuck");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert!(pids(&pid).len() == 1 && runs(&pids(&pid)[0]), "the same content: {:?}", pids(&pid));

    fixture.put("greet", &guest("(call $say)"));
    until("the new content serves", || fixture.registry.by_name("greet").is_some_and(|it| it.serving()))
        .await;
    assert!(!runs(&pids(&pid)[0]));
    watching.abort();
}

#[tokio::test]
async fn two_files_that_compile_for_ever_keep_no_third_waiting() {
    let fixture = Fixture::new(MachineClock).await;
    let pid = stick(&fixture);
    let watching = watched(&fixture);
    fixture.put("a", b"stuck");
    fixture.put("b", b"stuck too");
    until("two are compiled", || pids(&pid).len() == 2).await;
    fixture.put("greet", &guest("(call $say)"));
    until("the third serves", || fixture.registry.by_name("greet").is_some_and(|it| it.serving())).await;
    assert!(runs(&pids(&pid)[0]) || runs(&pids(&pid)[1]), "one goes on");
    fixture.registry.stop_loading().await;
    watching.abort();
}

#[tokio::test]
async fn a_file_that_the_daemon_died_of_three_times_is_held_until_something_changes() {
    let fixture = Fixture::new(ManualClock::epoch()).await;
    let pid = stick(&fixture);
    let aot = fixture.bench.dir.path().join("aot");
    let markers = || {
        let files = fs::read_dir(&aot).unwrap().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension() == Some("compiling".as_ref())).collect::<Vec<_>>()
    };
    let watching = watched(&fixture);
    fixture.put("greet", b"stuck");
    until("it is compiled", || !pids(&pid).is_empty()).await;
    let marker = markers().remove(0);
    let once = fs::read_to_string(&marker).unwrap();
    let memory = once.strip_prefix("1 ").expect("one try").to_owned();
    watching.abort();
    fixture.registry.stop_loading().await;
    assert!(markers().is_empty(), "a daemon that ends well blames no file");

    // The marker of a daemon that was killed three times.
    fs::write(&marker, format!("3 {memory}")).unwrap();
    fixture.registry.scan().await;
    let Some(HeldReason::Broken(said)) = fixture.registry.by_name("greet").unwrap().record.held.clone()
    else {
        panic!("it is held")
    };
    assert!(said.contains("3 times") && said.contains(&marker.display().to_string()), "{said}");
    assert_eq!(pids(&pid).len(), 1, "it was not tried");

    // Another content counts as another file.
    fixture.put("greet", &guest("(call $say)"));
    fixture.registry.scan().await;
    assert!(fixture.registry.by_name("greet").unwrap().serving());
}
