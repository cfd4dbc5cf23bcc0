//! Compares our functions with SQLite's own, and the list with all of SQLite's functions.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::{
    Connection,
    types::{ToSqlOutput, Value},
};

use super::*;

fn ours() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    register(&connection, &Control::new()).unwrap();
    connection.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000).unwrap();
    connection
}

/// A value that two functions may easily read differently.
#[derive(Debug, Clone)]
struct Odd(Value, Option<Vec<u8>>);

impl ToSql for Odd {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.1 {
            Some(text) => ToSqlOutput::Borrowed(ValueRef::Text(text)),
            None => ToSqlOutput::Owned(self.0.clone()),
        })
    }
}

/// Few characters, so that they match often: ASCII in both cases, wildcards, digits, NUL, complete characters
/// and parts of them.
const SIGNS: [&[u8]; 30] = [
    b"a",
    b"A",
    b"b",
    b"ab",
    b" ",
    b"%",
    b"_",
    b"*",
    b"?",
    b"[",
    b"]",
    b"^",
    b"-",
    b"\\",
    b"0",
    b"1",
    b"f",
    b".",
    b"e",
    "é".as_bytes(),
    "É".as_bytes(),
    "漢".as_bytes(),
    "😀".as_bytes(),
    b"\xc3",
    b"\xa9",
    b"\xe6",
    b"\x80",
    b"\xff",
    b"\xed\xa0\x80",
    b"\0",
];

fn odd(random: &mut StdRng) -> Odd {
    let most = if random.random_bool(0.5) { 12 } else { SIGNS.len() };
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(0..12) {
        bytes.extend_from_slice(SIGNS[random.random_range(0..most)]);
    }
    match random.random_range(0..12) {
        0 => Odd(Value::Null, None),
        1 => Odd(Value::Integer(random.random_range(-200..200)), None),
        2 => Odd(Value::Integer(random.random()), None),
        3 => Odd(Value::Real(f64::from(random.random_range(-40..40)) / 8.0), None),
        4 => Odd(Value::Real(f64::from_bits(random.random())), None),
        5 | 6 => Odd(Value::Blob(bytes), None),
        _ => Odd(Value::Null, Some(bytes)),
    }
}

fn answer(connection: &Connection, call: &str, given: &[Odd]) -> Result<(String, Vec<u8>), String> {
    let ask = || {
        let mut statement = connection.prepare_cached(call)?;
        statement.query_row(rusqlite::params_from_iter(given), |row| {
            let value = row.get_ref(0)?;
            let bytes = match value {
                ValueRef::Integer(number) => number.to_string().into_bytes(),
                value => value.as_bytes_or_null()?.unwrap_or_default().to_vec(),
            };
            Ok((format!("{}", value.data_type()), bytes))
        })
    };
    ask().map_err(|error: Error| error.to_string())
}

#[test]
fn what_replaces_a_function_of_sqlites_answers_as_that_does() {
    let seed = posthouse_harness::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let (ours, theirs) = (ours(), Connection::open_in_memory().unwrap());
    theirs.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000).unwrap();
    let calls = [
        ("SELECT instr(?1, ?2)", 2),
        ("SELECT replace(?1, ?2, ?3)", 3),
        ("SELECT trim(?1)", 1),
        ("SELECT ltrim(?1)", 1),
        ("SELECT rtrim(?1)", 1),
        ("SELECT trim(?1, ?2)", 2),
        ("SELECT ltrim(?1, ?2)", 2),
        ("SELECT rtrim(?1, ?2)", 2),
        ("SELECT unhex(?1)", 1),
        ("SELECT unhex(?1, ?2)", 2),
        ("SELECT ?1 LIKE ?2", 2),
        ("SELECT like(?1, ?2, ?3)", 3),
        ("SELECT ?1 GLOB ?2", 2),
    ];
    let mut answers = std::collections::BTreeMap::<_, std::collections::BTreeSet<_>>::new();
    for (call, arguments) in calls {
        for _ in 0..6000 {
            let mut given: Vec<_> = (0..arguments).map(|_| odd(&mut random)).collect();
            // The second argument is a part of the first more often than by chance.
            if let [Odd(_, Some(all)), Odd(_, Some(part)), ..] = &mut given[..]
                && random.random_bool(0.5)
            {
                let from = random.random_range(0..=all.len());
                let to = random.random_range(from..=all.len());
                *part = all[from..to].to_vec();
            }
            let expected = answer(&theirs, call, &given);
            assert_eq!(answer(&ours, call, &given), expected, "{call} of {given:?}, seed {seed}");
            answers.entry(call).or_default().insert(expected);
        }
    }
    for (call, answers) in answers {
        assert!(answers.len() > 2, "{call} gave only {answers:?}");
    }
}

#[test]
fn long_patterns_and_wrong_signs_to_escape_are_refused_in_sqlites_words() {
    let ours = ours();
    for (call, says) in [
        ("SELECT 'a' LIKE printf('%.1001c', 'a')", "LIKE or GLOB pattern too complex"),
        ("SELECT 'a' GLOB printf('%.1001c', 'a')", "LIKE or GLOB pattern too complex"),
        ("SELECT 'a' LIKE 'a' ESCAPE 'ab'", "ESCAPE expression must be a single character"),
        ("SELECT 'a' LIKE 'a' ESCAPE ''", "ESCAPE expression must be a single character"),
    ] {
        let expected = answer(&Connection::open_in_memory().unwrap(), call, &[]);
        if !call.contains("printf") {
            assert_eq!(answer(&ours, call, &[]), expected);
        }
        assert!(answer(&ours, call, &[]).unwrap_err().contains(says), "{call}");
    }
}

/// Functions that a guest may not call, with the reasons.
const REFUSED: &[(&str, &str)] = &[
    ("load_extension", "loads native code"),
    ("fts3_tokenizer", "takes a pointer"),
    ("fts5", "gives a pointer"),
    ("changes", "tells of other statements of the connection"),
    ("total_changes", "tells of other statements of the connection"),
    ("last_insert_rowid", "tells of other statements of the connection"),
    ("sqlite_source_id", "of no use"),
    ("sqlite_log", "writes to the host's log"),
    ("sqlite_compileoption_get", "of no use"),
    ("sqlite_compileoption_used", "of no use"),
    ("fts5_source_id", "of no use"),
    ("fts5_locale", "of no use without a tokenizer of its own"),
    ("fts5_get_locale", "of no use without a tokenizer of its own"),
    ("fts5_insttoken", "of no use without full text search by prefix"),
    ("json_pretty", "a document of 4 MiB may come to gigabytes"),
    ("snippet", "its time grows with the square of the hits"),
    ("offsets", "its time grows with the square of the hits"),
    ("matchinfo", "its time grows with the square of the hits"),
    ("optimize", "works on a whole index at once"),
    ("rtreecheck", "works on a whole index at once"),
    ("rtreenode", "of no use"),
    ("rtreedepth", "of no use"),
];

#[test]
fn every_function_of_sqlites_is_allowed_or_refused_for_a_reason() {
    let connection = Connection::open_in_memory().unwrap();
    let mut list = connection.prepare("SELECT DISTINCT name FROM pragma_function_list").unwrap();
    let names = list.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let names: Vec<_> = names.map(Result::unwrap).collect();
    assert!(names.len() > 100, "{names:?}");
    for name in &names {
        let refused = REFUSED.iter().any(|(refused, _)| refused == name);
        assert!(is_allowed(name) != refused, "`{name}` is on both lists, or on none");
    }
}
