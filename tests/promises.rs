//! Every test that docs/guarantees.md and docs/threat-model.md name exists.
//!
//! The last cell of a row names tests. `contract` is `tests/contract.rs`, and a path is a file from the top of the
//! repository or of a crate of `host/`: `store/lanes.rs` is `host/store/src/lanes.rs`, and `plugin/cache.rs` is a
//! file of the one crate that has a module `plugin`. After a colon there are functions in the files before it. A
//! function of the store's conformance suite is a test if the suite names it.

use std::{collections::HashMap, fs, path::Path};

use posthouse_harness::workspace;

const PAGES: [&str; 2] = ["docs/guarantees.md", "docs/threat-model.md"];

/// The folders that may contain a file with a path, beside the folder of the crate that begins it.
const SOURCES: [&str; 4] = ["host/model/src", "host/guest/src", "host/daemon/src", "."];

/// If there are fewer names than this, the format of the pages has changed.
const AT_LEAST: usize = 150;

/// A part of a cell.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    /// A text in backticks.
    File(&'a str),
    /// A word with underscores.
    Function(&'a str),
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut texts = HashMap::new();
    let (mut wrong, mut found) = (Vec::new(), 0);
    for page in PAGES {
        let text = fs::read_to_string(workspace().join(page)).unwrap();
        for (number, row) in text.lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
            let (mut files, mut after_function) = (Vec::new(), false);
            for part in parts(last_cell(row)) {
                match part {
                    Part::File(name) => {
                        if std::mem::take(&mut after_function) {
                            files.clear();
                        }
                        match file(name) {
                            Some(path) => {
                                texts
                                    .entry(path.clone())
                                    .or_insert_with(|| fs::read_to_string(&path).unwrap_or_default());
                                files.push(path);
                            }
                            None => wrong.push(format!("{page}:{}: no file `{name}`", number + 1)),
                        }
                    }
                    Part::Function(name) => {
                        (after_function, found) = (true, found + 1);
                        if !files.iter().any(|file| has_test(&texts[file], name) || is_in_suite(file, name)) {
                            wrong.push(format!("{page}:{}: no test `{name}` in {files:?}", number + 1));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found >= AT_LEAST, "only {found} names were found in {PAGES:?}");
}

fn last_cell(row: &str) -> &str {
    row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default()
}

fn parts(cell: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for (n, text) in cell.split('`').enumerate() {
        if n % 2 == 1 {
            parts.push(Part::File(text));
            continue;
        }
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        parts.extend(words.filter(|word| word.contains('_')).map(Part::Function));
    }
    parts
}

/// The path of a file that a page names.
fn file(name: &str) -> Option<String> {
    let mut places = vec![format!("tests/{name}.rs")];
    if name.contains('.') {
        places = SOURCES.iter().map(|folder| format!("{folder}/{name}")).collect();
        places.extend(name.split_once('/').map(|(krate, rest)| format!("host/{krate}/src/{rest}")));
    }
    let paths = places.into_iter().map(|place| workspace().join(place));
    paths.filter(|path| Path::is_file(path)).map(|path| path.display().to_string()).next()
}

/// Whether a function with this name has an attribute that makes it a test.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_function = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let at = lines.iter().position(|line| is_function(line));
    let before = at.map(|at| lines[..at].iter().rev().take_while(|line| line.starts_with("#[")));
    before.is_some_and(|mut before| before.any(|line| line.contains("test]") || line.contains("test(")))
}

/// Whether the store's conformance suite, which names its tests for each engine, has this test.
fn is_in_suite(file: &str, name: &str) -> bool {
    let file = Path::new(file);
    let in_suite = file.parent().is_some_and(|folder| folder.ends_with("store/src/conformance"));
    let suite = fs::read_to_string(file.with_file_name("mod.rs")).unwrap_or_default();
    in_suite && suite.lines().any(|line| line.trim().trim_end_matches([',', ';']) == name)
}

#[test]
fn a_cell_is_read_as_the_pages_write_it() {
    let row = "| a promise | `a_b`: x_y, z_1; `c/d.rs`, `e.rs`: not names; f_g |";
    let expected = [
        Part::File("a_b"),
        Part::Function("x_y"),
        Part::Function("z_1"),
        Part::File("c/d.rs"),
        Part::File("e.rs"),
        Part::Function("f_g"),
    ];
    assert_eq!(parts(last_cell(row)), expected);
    let text = "#[test]\nfn x_y() {}\nfn z_1() {}\n    #[tokio::test(flavor = \"multi_thread\")]\n    async fn f_g() {}";
    assert_eq!(["x_y", "z_1", "f_g", "x_"].map(|name| has_test(text, name)), [true, false, true, false]);
}
