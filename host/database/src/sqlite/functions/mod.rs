//! SQL functions: which ones a guest's statement may call, what a call costs, and our replacements.
//!
//! A call is one step of SQLite's program, without a check of the deadline. A function is therefore allowed if its
//! time grows no faster than its input. We replace useful functions whose time grows faster ([`text`],
//! [`pattern`]); ours check the deadline as they go. They return the same values as SQLite's, and have the same
//! flags, so that indexes, constraints and generated columns that use them keep working. [`super::program`]
//! bounds the cost of all calls together.
//!
//! The replacements have one drawback: SQLite uses an index for `LIKE` and `GLOB` only with its own functions. A
//! range (`name >= 'a' AND name < 'b'`) uses one.

mod pattern;
#[cfg(test)]
mod tests;
mod text;
mod utf8;

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use rusqlite::{
    Connection, Error, ToSql, ffi,
    functions::{Context, FunctionFlags},
    types::{ToSqlOutput, ValueRef},
};

use self::text::Side;
use super::control::{Control, Work, failure};

/// The longest pattern of `LIKE` or `GLOB`, in bytes.
pub(super) const PATTERN: usize = 1000;

/// The most arguments of a call.
pub(super) const ARGUMENTS: i32 = 100;

/// The weight of a function of ours, which checks the deadline itself: the memory for its result.
const OURS: u32 = 2;
/// The weight of a function that parses and writes JSON.
const JSON: u32 = 15;

/// The functions that a statement may call. The number is the most nanoseconds of a call for each byte of the
/// longest value, with all its arguments. It was measured on a quiet machine, and rounded up. It is 0 if the
/// length of the input does not matter.
const ALLOWED: &[(&str, u32)] = &[
    // Replaced.
    ("instr", OURS),
    ("replace", OURS),
    ("trim", OURS),
    ("ltrim", OURS),
    ("rtrim", OURS),
    ("unhex", OURS),
    ("like", OURS),
    ("glob", OURS),
    // Texts and bytes.
    ("lower", 5),
    ("upper", 5),
    ("length", 5),
    ("octet_length", 0),
    ("substr", 4),
    ("substring", 4),
    ("char", 0),
    ("unicode", 0),
    ("hex", 6),
    ("quote", 6),
    ("unistr", 4),
    ("unistr_quote", 6),
    ("concat", 20),
    ("concat_ws", 20),
    ("printf", 10),
    ("format", 10),
    ("soundex", 3),
    ("randomblob", 6),
    ("zeroblob", 1),
    // Numbers.
    ("abs", 3),
    ("round", 3),
    ("sign", 3),
    ("random", 0),
    ("ceil", 3),
    ("ceiling", 3),
    ("floor", 3),
    ("trunc", 3),
    ("ln", 3),
    ("log", 3),
    ("log2", 3),
    ("log10", 3),
    ("exp", 3),
    ("pow", 6),
    ("power", 6),
    ("mod", 6),
    ("sqrt", 3),
    ("sin", 3),
    ("cos", 3),
    ("tan", 3),
    ("asin", 3),
    ("acos", 3),
    ("atan", 3),
    ("atan2", 6),
    ("sinh", 3),
    ("cosh", 3),
    ("tanh", 3),
    ("asinh", 3),
    ("acosh", 3),
    ("atanh", 3),
    ("radians", 3),
    ("degrees", 3),
    ("pi", 0),
    // Choices.
    ("coalesce", 0),
    ("ifnull", 0),
    ("iif", 0),
    ("if", 0),
    ("nullif", 2),
    ("likely", 0),
    ("unlikely", 0),
    ("likelihood", 0),
    ("typeof", 0),
    ("subtype", 0),
    // On one row with several arguments, or on several rows.
    ("min", 20),
    ("max", 20),
    // On several rows.
    ("count", 0),
    ("sum", 3),
    ("total", 3),
    ("avg", 3),
    ("group_concat", 4),
    ("string_agg", 4),
    ("row_number", 0),
    ("rank", 0),
    ("dense_rank", 0),
    ("percent_rank", 0),
    ("cume_dist", 0),
    ("ntile", 0),
    ("first_value", 1),
    ("last_value", 1),
    ("nth_value", 1),
    ("lead", 1),
    ("lag", 1),
    // Dates and times. The format of `strftime` may be of any length.
    ("date", 1),
    ("time", 1),
    ("datetime", 1),
    ("julianday", 1),
    ("unixepoch", 1),
    ("timediff", 1),
    ("strftime", 60),
    ("current_date", 0),
    ("current_time", 0),
    ("current_timestamp", 0),
    // JSON. `json_patch` searches the whole first document for each key of the second.
    ("->", JSON),
    ("->>", JSON),
    ("json", JSON),
    ("jsonb", JSON),
    ("json_array", 20),
    ("jsonb_array", 20),
    ("json_array_insert", JSON),
    ("jsonb_array_insert", JSON),
    ("json_array_length", JSON),
    ("json_error_position", JSON),
    ("json_extract", JSON),
    ("jsonb_extract", JSON),
    ("json_group_array", JSON),
    ("jsonb_group_array", JSON),
    ("json_group_object", JSON),
    ("jsonb_group_object", JSON),
    ("json_insert", JSON),
    ("jsonb_insert", JSON),
    ("json_object", 20),
    ("jsonb_object", 20),
    ("json_patch", 25_000),
    ("jsonb_patch", 25_000),
    ("json_quote", 6),
    ("json_remove", JSON),
    ("jsonb_remove", JSON),
    ("json_replace", JSON),
    ("jsonb_replace", JSON),
    ("json_set", JSON),
    ("jsonb_set", JSON),
    ("json_type", JSON),
    ("json_valid", JSON),
    // Full-text search, in tables that the operator created.
    ("match", JSON),
    ("bm25", JSON),
    ("highlight", JSON),
    // The connection.
    ("sqlite_version", 0),
];

/// Functions that SQLite itself calls within `ALTER TABLE`; a statement cannot.
const WITHIN_ALTER: [&str; 9] = [
    "sqlite_rename_column",
    "sqlite_rename_table",
    "sqlite_rename_test",
    "sqlite_rename_quotefix",
    "sqlite_drop_column",
    "sqlite_drop_constraint",
    "sqlite_add_constraint",
    "sqlite_find_constraint",
    "sqlite_fail",
];

/// Whether a guest's statement may call the function.
pub(super) fn is_allowed(name: &str) -> bool {
    weight(name).is_some() || WITHIN_ALTER.iter().any(|internal| name.eq_ignore_ascii_case(internal))
}

/// The cost of a call, in nanoseconds for each byte of the longest value. None if it is not allowed.
pub(super) fn weight(name: &str) -> Option<u32> {
    ALLOWED.iter().find(|(allowed, _)| name.eq_ignore_ascii_case(allowed)).map(|(_, weight)| *weight)
}

/// Replaces SQLite's functions by ours.
pub(super) fn register(connection: &Connection, control: &Arc<Control>) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    let add = |name: &str, arguments: i32, call: Call| {
        let control = Arc::clone(control);
        connection.create_scalar_function(name, arguments, flags, move |context| {
            let arguments = Arguments(context);
            call(&control.work()?, &arguments)
        })
    };
    add("instr", 2, instr)?;
    add("replace", 3, replace)?;
    for arguments in [1, 2] {
        add("trim", arguments, |work, given| trim(work, given, Side::Both))?;
        add("ltrim", arguments, |work, given| trim(work, given, Side::Left))?;
        add("rtrim", arguments, |work, given| trim(work, given, Side::Right))?;
        add("unhex", arguments, unhex)?;
    }
    add("like", 2, |work, given| compare(work, given, pattern::LIKE))?;
    add("like", 3, |work, given| compare(work, given, pattern::LIKE))?;
    add("glob", 2, |work, given| compare(work, given, pattern::GLOB))
}

type Call = fn(&Work<'_>, &Arguments<'_, '_>) -> Result<Answer, Error>;

fn instr(work: &Work<'_>, given: &Arguments<'_, '_>) -> Result<Answer, Error> {
    let is_text = !(given.is_blob(0) && given.is_blob(1));
    let (Some(haystack), Some(needle)) = (given.text(0)?, given.text(1)?) else { return Ok(Answer::Null) };
    text::instr(work, &haystack, &needle, is_text).map(Answer::Integer)
}

fn replace(work: &Work<'_>, given: &Arguments<'_, '_>) -> Result<Answer, Error> {
    let (Some(text), Some(old)) = (given.text(0)?, given.text(1)?) else { return Ok(Answer::Null) };
    if matches!(old.first(), None | Some(0)) {
        return Ok(Answer::Text(text.into_owned()));
    }
    let Some(new) = given.text(2)? else { return Ok(Answer::Null) };
    text::replace(work, &text, &old, &new).map(Answer::Text)
}

fn trim(work: &Work<'_>, given: &Arguments<'_, '_>, side: Side) -> Result<Answer, Error> {
    let Some(text) = given.text(0)? else { return Ok(Answer::Null) };
    let set = if given.len() == 1 { Some(Cow::Borrowed(&b" "[..])) } else { given.text(1)? };
    let Some(set) = set else { return Ok(Answer::Null) };
    text::trim(work, &text, &set, side).map(|trimmed| Answer::Text(trimmed.to_vec()))
}

fn unhex(work: &Work<'_>, given: &Arguments<'_, '_>) -> Result<Answer, Error> {
    let pass = if given.len() == 1 { Some(Cow::Borrowed(&b""[..])) } else { given.text(1)? };
    let (Some(hex), Some(pass)) = (given.text(0)?, pass) else { return Ok(Answer::Null) };
    Ok(text::unhex(work, &hex, &pass)?.map_or(Answer::Null, Answer::Blob))
}

/// `LIKE` and `GLOB`: the pattern is the first argument, the escape character the last.
fn compare(work: &Work<'_>, given: &Arguments<'_, '_>, mut rules: pattern::Rules) -> Result<Answer, Error> {
    let pattern = given.text(0)?;
    if pattern.as_ref().is_some_and(|pattern| pattern.len() > PATTERN) {
        return Err(said("LIKE or GLOB pattern too complex"));
    }
    if given.len() == 3 {
        let Some(escape) = given.text(2)? else { return Ok(Answer::Null) };
        let mut rest = utf8::until_nul(&escape);
        if rest.is_empty() || utf8::length(rest) != rest.len() {
            return Err(said("ESCAPE expression must be a single character"));
        }
        rules.other = utf8::read(&mut rest);
        if rules.other == rules.all {
            rules.all = 0;
        }
        if rules.other == rules.one {
            rules.one = 0;
        }
    }
    let (Some(pattern), Some(text)) = (pattern, given.text(1)?) else { return Ok(Answer::Null) };
    pattern::matches(work, rules, &pattern, &text).map(|matches| Answer::Integer(matches.into()))
}

/// An error with the message of SQLite's own function.
fn said(words: &str) -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), Some(words.to_owned()))
}

/// The arguments of a call.
struct Arguments<'a, 'b>(&'a Context<'b>);

impl Arguments<'_, '_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_blob(&self, at: usize) -> bool {
        matches!(self.0.get_raw(at), ValueRef::Blob(_))
    }

    /// An argument as the text that SQLite converts it to; none if it is NULL.
    fn text(&self, at: usize) -> Result<Option<Cow<'_, [u8]>>, Error> {
        Ok(Some(match self.0.get_raw(at) {
            ValueRef::Null => return Ok(None),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Cow::Borrowed(bytes),
            ValueRef::Integer(number) => Cow::Owned(number.to_string().into_bytes()),
            ValueRef::Real(number) => Cow::Owned(written(number)?),
        }))
    }
}

/// A number with a fraction, as SQLite writes it.
fn written(number: f64) -> Result<Vec<u8>, Error> {
    static WRITER: LazyLock<Mutex<Option<Connection>>> =
        LazyLock::new(|| Mutex::new(Connection::open_in_memory().ok()));
    let writer = WRITER.lock();
    let writer = writer.as_ref().ok_or_else(|| failure(ffi::SQLITE_NOMEM))?;
    let mut write = writer.prepare_cached("SELECT CAST(?1 AS TEXT)")?;
    write.query_row([number], |row| row.get_ref(0).and_then(|text| Ok(text.as_bytes()?.to_vec())))
}

/// The result of a call. A text may be any bytes.
enum Answer {
    Null,
    Integer(i64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl ToSql for Answer {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}
