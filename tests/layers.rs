//! The shape of the host: imports point downwards only, and each foreign thing has its place.
//!
//! SQL stands in the store, wasmtime where guests run, axum where HTTP comes in; unsafe code stands in
//! two files. The rules are read off the source text, so that nobody has to remember them.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use posthouse_harness::workspace;

/// What each top-level module may import. The order is that of the layers, lowest first.
const MAY_IMPORT: [(&str, &[&str]); 20] = [
    ("model", &[]),
    ("fault", &[]),
    ("flood", &[]),
    ("escape", &[]),
    ("seal", &[]),
    ("owner", &[]),
    ("config", &["model"]),
    ("listener", &["flood"]),
    ("store", &["fault", "seal", "owner", "model", "config"]),
    ("database", &["fault", "model", "config"]),
    ("egress", &["model", "config"]),
    ("telemetry", &["model", "config", "egress"]),
    ("imports", &["model", "config", "store", "database", "egress"]),
    ("plugin", &["seal", "model", "config", "store", "database", "egress", "imports"]),
    (
        "ingress",
        &["flood", "listener", "model", "config", "store", "database", "telemetry", "imports", "plugin"],
    ),
    (
        "dispatch",
        &[
            "fault",
            "flood",
            "model",
            "config",
            "store",
            "database",
            "egress",
            "telemetry",
            "imports",
            "plugin",
        ],
    ),
    ("admin", &["flood", "listener", "owner", "model", "config", "store", "database", "imports", "plugin"]),
    (
        "daemon",
        &[
            "escape",
            "fault",
            "model",
            "config",
            "store",
            "database",
            "egress",
            "telemetry",
            "imports",
            "plugin",
            "ingress",
            "dispatch",
            "admin",
        ],
    ),
    (
        "cli",
        &[
            "escape", "model", "config", "store", "database", "egress", "imports", "plugin", "ingress",
            "dispatch", "admin", "daemon",
        ],
    ),
    ("fuzz", &["model", "config", "database", "listener", "ingress"]),
];

/// Which crates are named in which modules only.
const PLACES: [(&str, &[&str]); 12] = [
    ("httparse", &["listener"]),
    ("rusqlite", &["store", "database"]),
    ("tokio_postgres", &["config", "database"]),
    ("reqwest", &["egress"]),
    ("hickory_resolver", &["egress"]),
    ("opentelemetry_proto", &["telemetry"]),
    ("prost", &["telemetry"]),
    ("wasmtime", &["plugin", "imports"]),
    ("wasmtime_wasi", &["plugin", "imports"]),
    ("axum", &["ingress", "admin"]),
    ("clap", &["cli"]),
    ("prometheus_client", &["admin"]),
];

#[test]
fn imports_point_downwards_only() {
    let mut wrong = Vec::new();
    for file in host_files() {
        let Some(&(module, allowed)) = MAY_IMPORT.iter().find(|(module, _)| *module == file.module) else {
            // The roots: lib.rs names the modules, main.rs hands over to the library.
            assert!(["lib", "main"].contains(&file.module.as_str()), "no layer is set for `{}`", file.module);
            continue;
        };
        for target in file.imports() {
            if target != module && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{} imports `{target}`, which is not below it", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn foreign_crates_stay_in_their_places() {
    let mut wrong = Vec::new();
    for file in host_files() {
        for (krate, places) in PLACES {
            if file.names(krate) && !places.contains(&file.module.as_str()) {
                wrong.push(format!("{} names `{krate}`, whose place is {places:?}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_store_names_its_database_in_the_engine_alone() {
    let outside = |file: &&SourceFile| file.module == "store" && !file.path.starts_with("store/sqlite");
    for file in host_files().iter().filter(outside) {
        assert!(!file.names("rusqlite"), "{} names `rusqlite`", file.path.display());
    }
}

#[test]
fn the_model_has_no_runtime_no_files_and_no_network() {
    for file in host_files().iter().filter(|file| file.module == "model") {
        let paths = file.paths();
        for odd in ["tokio", "std::fs", "std::net", "std::io", "std::process", "std::env"] {
            let named = paths.iter().any(|path| path == odd || path.starts_with(&format!("{odd}::")));
            assert!(!named, "{} names `{odd}`", file.path.display());
        }
    }
}

#[test]
fn sql_stands_in_the_store_and_in_the_databases() {
    let mut in_store = 0;
    for file in host_files() {
        for text in file.strings.iter().filter(|text| looks_like_sql(text)) {
            let at_home = ["store", "database"].contains(&file.module.as_str());
            assert!(at_home, "{} holds SQL: {text}", file.path.display());
            in_store += 1;
        }
    }
    assert!(in_store > 0, "this test sees no SQL at all any more");
}

#[test]
fn unsafe_code_is_allowed_where_machine_code_is_loaded_and_where_sqlite_calls_back() {
    let allowing: BTreeSet<_> = host_files()
        .into_iter()
        .filter(|file| file.tokens.windows(3).any(|three| three == ["allow", "(", "unsafe_code"]))
        .map(|file| file.path)
        .collect();
    let known = ["database/sqlite/vfs.rs", "plugin/aot.rs"].map(PathBuf::from);
    assert_eq!(allowing, known.into());
}

/// A source file of the host, taken apart far enough for the rules above.
struct SourceFile {
    path: PathBuf,
    /// The top-level module it belongs to.
    module: String,
    /// How many modules it is below the crate's root.
    depth: usize,
    /// Words and signs, without comments and literals.
    tokens: Vec<String>,
    /// What the string literals hold.
    strings: Vec<String>,
}

impl SourceFile {
    fn new(path: &Path, text: &str) -> Self {
        let mut parts: Vec<_> =
            path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if parts.last().is_some_and(|last| last == "mod") {
            parts.pop();
        }
        let (tokens, strings) = take_apart(text);
        Self { path: path.into(), module: parts[0].clone(), depth: parts.len(), tokens, strings }
    }

    fn names(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| token == word)
    }

    /// The top-level modules it imports or names by path, from the root or by way of `super`.
    fn imports(&self) -> BTreeSet<String> {
        let known: Vec<_> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
        let from_root = |path: &String| {
            let mut parts = path.split("::").peekable();
            let mut above = 0;
            while parts.next_if_eq(&"super").is_some() {
                above += 1;
            }
            let rooted = parts.next_if(|part| ["crate", "posthouse"].contains(part)).is_some();
            // A `mod tests` in the file is one deeper, so that one `super` more leads to the same place.
            let reaches = rooted || (above > 0 && above >= self.depth);
            reaches.then(|| parts.next().map(str::to_owned)).flatten()
        };
        self.paths().iter().filter_map(from_root).filter(|module| known.contains(&module.as_str())).collect()
    }

    /// Every path that is named, those in braces written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
    fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            at = read_path(&self.tokens, at, "", &mut paths).max(at + 1);
        }
        paths
    }
}

/// Reads the path that begins at `at`, or nothing; returns where it ends.
fn read_path(tokens: &[String], mut at: usize, prefix: &str, paths: &mut Vec<String>) -> usize {
    let is = |at: usize, sign: &str| tokens.get(at).is_some_and(|token| token == sign);
    let mut path = prefix.to_owned();
    while let Some(word) = tokens.get(at).filter(|token| is_word(token)) {
        path = if path.is_empty() { word.clone() } else { format!("{path}::{word}") };
        at += 1;
        if !is(at, "::") {
            break;
        }
        at += 1;
        if is(at, "{") {
            at += 1;
            while at < tokens.len() && !is(at, "}") {
                at = read_path(tokens, at, &path, paths).max(at + 1);
            }
            return at + 1;
        }
    }
    if path != prefix {
        paths.push(path);
    }
    at
}

/// Splits Rust text into tokens and the contents of its string literals.
fn take_apart(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut tokens, mut strings) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw_string = rest
            .strip_prefix('r')
            .map(|after| after.trim_start_matches('#'))
            .is_some_and(|after| after.starts_with('"'));
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if raw_string {
            let hashes = rest[1..].find('"').unwrap_or(0);
            let open = 1 + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let content = rest[open..].find(&close).unwrap_or(rest.len() - open);
            strings.push(rest[open..open + content].to_owned());
            (open + content + close.len()).min(rest.len())
        } else if first == '"' {
            let content = end_of_literal(&rest[1..], '"');
            strings.push(rest[1..1 + content].to_owned());
            (content + 2).min(rest.len())
        } else if first == '\'' {
            // A character, else a lifetime.
            let content = end_of_literal(&rest[1..], '\'');
            let inside = &rest[1..1 + content];
            if inside.starts_with('\\') || inside.chars().count() == 1 { content + 2 } else { 1 }
        } else if is_word(&rest[..first.len_utf8()]) {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".into());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.into());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    (tokens, strings)
}

/// How many bytes come before the closing sign, escaped ones passed over.
fn end_of_literal(text: &str, sign: char) -> usize {
    let mut escaped = false;
    text.char_indices()
        .find(|&(_, c)| {
            let ends = c == sign && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })
        .map_or(text.len(), |(at, _)| at)
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn looks_like_sql(text: &str) -> bool {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let begins = ["SELECT ", "INSERT INTO ", "INSERT OR ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA "];
    begins.iter().any(|begin| text.contains(begin)) || (text.contains("UPDATE ") && text.contains(" SET "))
}

fn host_files() -> Vec<SourceFile> {
    let root = workspace().join("host/src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push(SourceFile::new(path.strip_prefix(&root).unwrap(), &text));
            }
        }
    }
    assert!(files.len() > 10, "the host's sources are not where this test looks");
    files
}

#[test]
fn the_rules_see_what_they_are_to_see() {
    let text = r##"
        //! crate::daemon in a comment, "SELECT 1" too
        use crate::{config::{Config, Limits}, model::*};
        use super::super::ingress::Server;
        pub(crate) fn f<'a>(x: &'a str) -> char { crate::dispatch::run(x); '"' }
        const SQL: &str = r#"SELECT "a" FROM b"#;
        const NO: &str = "crate::cli \" crate::admin";
    "##;
    let file = SourceFile::new(Path::new("store/writer.rs"), text);
    assert_eq!((file.module.as_str(), file.depth), ("store", 2));
    assert_eq!(file.imports(), ["config", "dispatch", "ingress", "model"].map(str::to_owned).into());
    assert!(file.paths().contains(&"crate::config::Limits".to_owned()));
    let sql: Vec<_> = file.strings.iter().filter(|text| looks_like_sql(text)).collect();
    assert_eq!(sql, [r#"SELECT "a" FROM b"#]);

    for (path, depth) in [("plugin/mod.rs", 1), ("daemon.rs", 1), ("store/sql/kv.rs", 3)] {
        assert_eq!(SourceFile::new(Path::new(path), "").depth, depth, "{path}");
    }
}
