//! `cargo xtask demo [--once]`: builds all, starts the daemon as it is shipped, and shows what it does.
//!
//! Everything happens in `data/demo`, which is made anew each time: a copy of config.toml, of the built
//! plugins, the store and the mail. Each scene looks at what came out; a scene that does not come out
//! ends the demo with an error. `--once` stops the daemon afterwards and exits with 0 only if every
//! scene came out; without it the daemon stays up to be played with, until Ctrl-C.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{
    guests,
    shell::{Doing, Error, Result, has, line, root, run, say, target},
};

/// How long a scene may take to come out.
const PATIENCE: Duration = Duration::from_secs(60);
/// What comes in after the first event, so that every plugin has something to do.
const MORE: [&str; 6] = [
    "organization.created",
    "membership.created",
    "user.login",
    "session.created",
    "membership.deleted",
    "user.updated",
];

/// `cargo xtask demo [--once]`
pub fn run_command(arguments: &[String]) -> Result {
    let once = match arguments {
        [] => false,
        [flag] if flag == "--once" => true,
        _ => return Err(Error::new("usage: cargo xtask demo [--once]")),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).doing("handle Ctrl-C")?;
    }

    say("building the plugins for WebAssembly (the first time this takes a minute or two)");
    guests::build(&[])?;
    say("building posthouse (the first time this takes some minutes: wasmtime is large)");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run(cargo.current_dir(root()).args([
        "build",
        "--quiet",
        "--package",
        "posthouse",
        "--bin",
        "posthouse",
    ]))?;

    let mut demo = Demo::start(stop)?;
    demo.play()?;
    if once {
        demo.stop()?;
        say("every scene came out");
        return Ok(());
    }
    demo.tell_what_to_try();
    demo.stay()
}

/// A daemon in `data/demo`. Dropped while it runs, it is told to stop.
struct Demo {
    daemon: Child,
    webhooks: String,
    stop: Arc<AtomicBool>,
}

impl Demo {
    fn start(stop: Arc<AtomicBool>) -> Result<Self> {
        let [webhooks, admin] = furnish()?;
        say(format_args!("starting posthouse on {webhooks}, with {}/config.toml", shown(&folder())));
        let log = fs::File::create(folder().join("posthouse.log")).doing("write data/demo/posthouse.log")?;
        let daemon = posthouse(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Of its own group, so that Ctrl-C comes to it by way of this process.
            .process_group(0)
            .spawn()
            .doing("start posthouse")?;
        let mut demo = Self { daemon, webhooks, stop };
        let began = Instant::now();
        while !is_well(&admin) {
            if let Some(status) = demo.daemon.try_wait().doing("wait for posthouse")? {
                let log = fs::read_to_string(folder().join("posthouse.log")).unwrap_or_default();
                return Err(Error::new(format!("posthouse ended ({status}):\n{log}")));
            }
            demo.go_on(began, "posthouse takes requests")?;
        }
        Ok(demo)
    }

    /// The scenes.
    fn play(&self) -> Result {
        say("these plugins are loaded");
        self.show(&["plugins"], &["welcome-email"])?;
        if output(&["plugins", "--json"])?.contains(r#""state":"held""#) {
            return Err(Error::new("a plugin is held"));
        }

        say("a user was created: the sender signs the event and posts it; it is on disk before the answer");
        let send = ["send", "user.created", "--id", "evt_demo_1"];
        self.show(&send, &["200", r#""received":true"#])?;
        say("the sender did not hear the answer and posts it again: nothing runs twice");
        self.show(&send, &["200", r#""duplicate":true"#])?;

        say("somebody posts an event with a signature that is not theirs: refused, and not told why");
        let forged = self.post_forged()?;
        println!("{}", forged.trim());
        expect("the answer to the forged event", &forged, &["401", "Invalid signature"])?;

        say("more comes in");
        for event_type in MORE {
            self.show(&["send", event_type], &["200", r#""received":true"#])?;
        }

        say("a curl line with the headers of `posthouse sign`");
        if has("curl") {
            let line = self.curl_line("evt_demo_curl")?;
            println!("{line}");
            let output =
                Command::new("sh").current_dir(root()).args(["-c", &line]).output().doing("run curl")?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            println!("{}", said.trim());
            expect("the answer to curl", &said, &["200 OK", r#""received":true"#])?;
        } else {
            println!("(curl is not installed here: left out)");
        }

        say("the welcome mail, one .eml a message in data/demo/data/mail");
        let mail = self.wait_for("a welcome mail", || first_mail().ok_or_else(String::new))?;
        println!("{}", mail.trim());
        expect("the mail", &mail, &["Subject: ", "Message-ID: ", "To: "])?;

        say("what the plugins did: the deliveries, all done");
        self.wait_for("every delivery is done", || {
            let all = output(&["deliveries", "--json"]).unwrap_or_default();
            let open = all.lines().filter(|line| !line.contains(r#""state":"done""#)).count();
            if open == 0 && !all.is_empty() { Ok(()) } else { Err(all) }
        })?;
        self.show(&["deliveries"], &["welcome-email", "done"])?;
        say("one event with its deliveries, attempts and log lines");
        self.show(&["events", "show", "evt_demo_1"], &["user.created", "welcome-email", "done"])?;

        say("the two ledgers: what came in and what was made of it");
        self.show(&["stats"], &[])?;
        let stats = output(&["stats", "--json"])?;
        expect("posthouse stats --json", &stats, &[r#""balanced":true"#, r#""duplicate":1"#])
    }

    /// Runs a command of posthouse's, shows it with what it says, and checks that.
    fn show(&self, arguments: &[&str], words: &[&str]) -> Result {
        println!("$ posthouse {}", arguments.join(" "));
        let said = output(arguments)?;
        println!("{}", said.trim_end());
        expect(&format!("posthouse {}", arguments.join(" ")), &said, words)
    }

    /// Posts an event that was changed after it was signed; returns the answer.
    fn post_forged(&self) -> Result<String> {
        let (signed, forged) = (sample("evt_demo_forged", "ada"), sample("evt_demo_forged", "eve"));
        let headers = sign("evt_demo_forged", &signed)?.replace('\n', "\r\n");
        let request = format!(
            "POST /webhooks/scalekit HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n\
             content-length: {}\r\n\r\n{forged}",
            headers.trim(),
            forged.len()
        );
        ask(&self.webhooks, &request).doing("post to posthouse")
    }

    /// A line for a shell in the top folder: signs for now, then posts.
    fn curl_line(&self, id: &str) -> Result<String> {
        let (body, headers) = (folder().join(format!("{id}.json")), folder().join(format!("{id}.headers")));
        fs::write(&body, sample(id, "grace")).doing(format_args!("write {}", body.display()))?;
        let (body, headers) = (shown(&body), shown(&headers));
        let sign = line(&posthouse(&["sign", "--source", "scalekit", "--id", id, "--body", &body]));
        Ok(format!(
            "{sign} > {headers} && curl -sS -i -H @{headers} -H 'content-type: application/json' \
             --data-binary @{body} http://{}/webhooks/scalekit",
            self.webhooks
        ))
    }

    fn tell_what_to_try(&self) {
        let posthouse = |rest: &[&str]| line(&posthouse(rest));
        let curl = self.curl_line("evt_try_1").unwrap_or_default();
        println!();
        say(format_args!(
            "posthouse stays up on http://{}; Ctrl-C stops it. Try, in another terminal:",
            self.webhooks
        ));
        for (line, what) in [
            (posthouse(&["send", "user.created"]), "another user"),
            (curl, "an event of your own: edit the .json first; a second time it is a duplicate"),
            (posthouse(&["events"]), "what came in"),
            (posthouse(&["replay", "evt_demo_1"]), "an old event once more"),
            (posthouse(&["plugins", "pause", "welcome-email"]), "its deliveries wait until `plugins resume`"),
            (
                format!("rm {}/plugins/welcome-email.wasm", shown(&folder())),
                "its deliveries wait until it is back",
            ),
            (posthouse(&["stats"]), "the ledgers"),
            (format!("tail -f {}/posthouse.log", shown(&folder())), "the daemon's log"),
        ] {
            println!("\n  # {what}\n  {line}");
        }
        println!();
    }

    /// Until Ctrl-C, or until the daemon ends by itself.
    fn stay(&mut self) -> Result {
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(status) = self.daemon.try_wait().doing("wait for posthouse")? {
                return Err(Error::new(format!("posthouse ended by itself ({status})")));
            }
            sleep(Duration::from_millis(100));
        }
        self.stop()
    }

    /// Tells it to stop (SIGTERM) and waits until it has.
    fn stop(&mut self) -> Result {
        say("stopping posthouse: it takes nothing more in, ends what runs, and exits");
        terminate(&self.daemon)?;
        let status = self.daemon.wait().doing("wait for posthouse")?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::new(format!("posthouse did not stop well ({status})")))
        }
    }

    /// Looks until it finds something; what it saw last stands in the error.
    fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> std::result::Result<T, String>) -> Result<T> {
        let began = Instant::now();
        loop {
            match look() {
                Ok(found) => return Ok(found),
                Err(seen) => self.go_on(began, &format!("{what}\n{seen}"))?,
            }
        }
    }

    /// Pauses for a moment, unless it took too long already or Ctrl-C was pressed.
    fn go_on(&self, began: Instant, what: &str) -> Result {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new("stopped by Ctrl-C"));
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::new(format!("waited {} s in vain: {}", PATIENCE.as_secs(), what.trim_end())));
        }
        sleep(Duration::from_millis(50));
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.daemon.try_wait(), Ok(None)) && terminate(&self.daemon).is_ok() {
            drop(self.daemon.wait());
        }
    }
}

/// Makes `data/demo` anew, with the shipped settings; returns where webhooks and the operator will come in.
fn furnish() -> Result<[String; 2]> {
    let folder = folder();
    let lock = folder.join("data/posthouse.db.lock");
    if fs::File::open(&lock).is_ok_and(|lock| lock.try_lock().is_err()) {
        return Err(Error::new(format!("a demo runs in {} already; stop it first", shown(&folder))));
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).doing(format_args!("clear {}", shown(&folder)))?;
    }
    let plugins = folder.join("plugins");
    fs::create_dir_all(&plugins).doing(format_args!("make {}", shown(&plugins)))?;
    for entry in fs::read_dir(root().join("plugins")).doing("read plugins")? {
        let path = entry.doing("read plugins")?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let name = path.file_name().unwrap_or_default();
            fs::copy(&path, plugins.join(name)).doing(format_args!("copy {}", path.display()))?;
        }
    }
    // As shipped, unless somebody listens on its ports.
    let mut config = fs::read_to_string(root().join("config.toml")).doing("read config.toml")?;
    let mut listeners = ["127.0.0.1:8400", "127.0.0.1:8401"].map(str::to_owned);
    for shipped in &mut listeners {
        if !config.contains(shipped.as_str()) {
            return Err(Error::new(format!("config.toml does not listen on {shipped}, as this demo thinks")));
        }
        if TcpListener::bind(shipped.as_str()).is_err() {
            let free =
                TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).doing("find a port")?;
            say(format_args!("{shipped} is in use; {free} takes its place"));
            config = config.replace(shipped.as_str(), &free.to_string());
            *shipped = free.to_string();
        }
    }
    fs::write(folder.join("config.toml"), config).doing("write data/demo/config.toml")?;
    Ok(listeners)
}

/// Whether the daemon with this admin listener takes requests.
fn is_well(admin: &str) -> bool {
    let request = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    ask(admin, request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// Sends a request that asks to close the connection; returns the answer.
fn ask(address: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The binary on the demo's config.toml, as one would type it in the top folder.
fn posthouse(arguments: &[&str]) -> Command {
    let mut command = Command::new(shown(&target().join("debug/posthouse")));
    command.current_dir(root()).args(arguments).args(["--config", &shown(&folder().join("config.toml"))]);
    command
}

/// What the command says on standard output.
fn output(arguments: &[&str]) -> Result<String> {
    let mut command = posthouse(arguments);
    let output = command.stdin(Stdio::null()).output().doing(format_args!("run `{}`", line(&command)))?;
    let [said, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    if output.status.success() {
        return Ok(said.into_owned());
    }
    Err(Error::new(format!("`{}` failed ({}): {said}{complained}", line(&command), output.status)))
}

/// The headers that make the body a signed event, one a line.
fn sign(id: &str, body: &str) -> Result<String> {
    let file = folder().join(format!("{id}.json"));
    fs::write(&file, body).doing(format_args!("write {}", file.display()))?;
    output(&["sign", "--source", "scalekit", "--id", id, "--body", &shown(&file)])
}

/// The body of an event about this person.
fn sample(id: &str, name: &str) -> String {
    format!(
        r#"{{"spec_version":"1","id":"{id}","type":"user.created","occurred_at":"2026-01-15T10:30:00Z","environment_id":"env_1","organization_id":"org_1","data":{{"user":{{"id":"usr_{name}","email":"{name}@example.com","first_name":"{name}"}}}}}}"#
    )
}

/// The text of the first mail there is.
fn first_mail() -> Option<String> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder().join("data/mail")).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    fs::read_to_string(files.first()?).ok()
}

/// Fails unless all these words are in it.
fn expect(what: &str, said: &str, words: &[&str]) -> Result {
    match words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(Error::new(format!("{what}: `{word}` was expected in\n{said}"))),
        None => Ok(()),
    }
}

fn terminate(child: &Child) -> Result {
    run(Command::new("kill").args(["-TERM", &child.id().to_string()]))
}

fn folder() -> PathBuf {
    root().join("data/demo")
}

/// A path as one types it in the top folder.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
