//! Formats the output of the online commands: tables that fit the terminal, facts one a line, JSON one object
//! a line.
//!
//! In a terminal, no line of a table is longer than the terminal is wide: longer text is cut, and ends with
//! `…`. In a pipe, every record is one line, with its note as the last column, so that `grep` and `awk` find
//! it. `COLUMNS` in the environment sets the width in both cases.
//!
//! The texts come from senders, guests and mail servers, so everything that could steer a terminal is
//! escaped. If the reader goes away (`| head`), that is not an error.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use jiff::Timestamp;
use posthouse_model::{counted, noun};
use serde::de::DeserializeOwned;
use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::CliError;

use crate::escape;

/// The width of a terminal that does not report its own.
const USUAL_WIDTH: usize = 80;
/// Spaces between two columns.
const GAP: usize = 2;
/// Other columns are cut down to this width before those to be copied are cut.
const NARROW: usize = 6;
/// The most columns of a cell in a pipe. `show` and `--json` print all of it.
const LONGEST: usize = 200;
/// Spaces before a note.
const INDENT: usize = 4;

/// Rows for people, each on one line. Columns whose title ends in `!` are for copying: they are cut last.
pub fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    render(titles, rows, &[], width())
}

/// Like [`table`], with a line that says if there are none, or more than `limit`. `one` is the noun for a
/// row.
pub fn page(titles: &[&str], rows: Vec<Vec<String>>, limit: usize, one: &str) -> String {
    page_with_notes(titles, rows, &[], limit, one)
}

/// Like [`page`], with a note to each row. An empty note is left out.
pub fn page_with_notes(
    titles: &[&str],
    rows: Vec<Vec<String>>,
    notes: &[String],
    limit: usize,
    one: &str,
) -> String {
    let more = match rows.len() {
        0 => return format!("no {}\n", noun(0, one)),
        all if all < limit => String::new(),
        1 => format!("the newest {one}; --limit shows more\n"),
        some => format!("the newest {}; --limit shows more\n", counted(some as u64, one)),
    };
    render(titles, rows, notes, width()) + &more
}

fn render(titles: &[&str], rows: Vec<Vec<String>>, notes: &[String], width: Option<usize>) -> String {
    let mut titles: Vec<_> = titles.to_vec();
    let mut rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let mut notes: Vec<_> = notes.iter().map(|note| clean(note)).collect();
    if width.is_none() && notes.iter().any(|note| !note.is_empty()) {
        titles.push("details");
        for (row, note) in rows.iter_mut().zip(notes.drain(..)) {
            row.push(note);
        }
    }
    let columns: Vec<_> = titles.iter().map(|title| Column::of(title)).collect();
    let natural = columns.iter().enumerate().map(|(at, column)| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
        let widest = cells.chain([column.title.width()]).max().unwrap_or(0);
        if width.is_none() && !column.whole { widest.min(LONGEST) } else { widest }
    });
    let mut widths: Vec<usize> = natural.collect();
    if let Some(width) = width {
        fit(&mut widths, &columns, width);
    }
    let mut text = String::new();
    line(&mut text, &widths, columns.iter().map(|column| column.title));
    let _ =
        writeln!(text, "{}", "-".repeat(widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)));
    for (at, row) in rows.iter().enumerate() {
        line(&mut text, &widths, row.iter().map(String::as_str));
        if let Some(note) = notes.get(at).filter(|note| !note.is_empty()) {
            let room = width.unwrap_or(LONGEST).saturating_sub(INDENT).max(1);
            let _ = writeln!(text, "{:INDENT$}{}", "", cut(note, room));
        }
    }
    text
}

/// A column of a table.
struct Column<'a> {
    title: &'a str,
    /// The column is for copying, so it is cut last.
    whole: bool,
}

impl<'a> Column<'a> {
    fn of(title: &'a str) -> Self {
        let bare = title.strip_suffix('!');
        Self { title: bare.unwrap_or(title), whole: bare.is_some() }
    }
}

/// Makes the widest columns narrower until a line is at most `width` wide.
fn fit(widths: &mut [usize], columns: &[Column<'_>], width: usize) {
    let room = width.saturating_sub(GAP * widths.len().saturating_sub(1));
    for (also_whole, least) in [(false, NARROW), (true, NARROW), (true, 1)] {
        while widths.iter().sum::<usize>() > room {
            let narrower = widths
                .iter_mut()
                .zip(columns)
                .filter(|(width, column)| **width > least && (also_whole || !column.whole))
                .max_by_key(|(width, _)| **width);
            match narrower {
                Some((width, _)) => *width -= 1,
                None => break,
            }
        }
    }
}

/// One line of a table, without spaces at its end.
fn line<'a>(text: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        let cell = cut(cell, *width);
        line.push_str(&cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + GAP));
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// The text, or the part of it that fits, followed by `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide >= width {
            break;
        }
        used += wide;
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// Names and values, one pair a line, with the values aligned. Pairs with an empty value are left out.
pub fn facts(facts: &[(&str, String)]) -> String {
    let widest = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:widest$}  {}", clean(value));
    }
    text
}

/// One object a line, for programs.
pub fn json_lines<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    values.into_iter().fold(String::new(), |lines, value| lines + &escape::json(&value.to_string()) + "\n")
}

/// Parses an answer of the daemon.
///
/// # Errors
/// [`CliError::Failure`] if it has another shape: then the daemon has another version.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, CliError> {
    T::deserialize(value).map_err(|error| {
        CliError::Failure(format!("the daemon's answer has an unexpected form ({error}); does the daemon have the version of this command?"))
    })
}

/// Prints the text. If anything in it could still steer a terminal, that is escaped. If the reader has gone
/// away, that is not an error.
///
/// # Errors
/// [`CliError::Failure`] if it can't be written.
pub fn print(text: &str) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(escape::lines(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::Failure(format!("standard output can't be written: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Escapes everything in the text that could steer a terminal, including line breaks and marks of writing
/// direction.
pub fn clean(text: &str) -> String {
    escape::text(text).into_owned()
}

/// Like [`clean`], for a text of several lines, which it indents by `indent` spaces.
pub fn clean_lines(text: &str, indent: usize) -> String {
    text.lines().fold(String::new(), |mut lines, line| {
        let line = clean(&line.replace('\t', "    "));
        let _ = writeln!(lines, "{:indent$}{line}", "");
        lines
    })
}

/// A time to the second, UTC.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Like [`time`]; `-` if there is none.
pub fn maybe_time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), time)
}

/// The counts that are not zero, such as `3 done, 1 dead`; `none` if all are.
pub fn counts<'a>(counts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let parts: Vec<_> = counts
        .into_iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// The most columns of a line. None if there is no limit, because the output goes to a pipe or a file.
fn width() -> Option<usize> {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    if let Some(columns @ 20..=10_000) = asked {
        return Some(columns);
    }
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(out).map_or(0, |size| size.ws_col.into());
    Some(if columns == 0 { USUAL_WIDTH } else { columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec!["dlv_123456789".into(), "dead".into(), "the guest said a long and rather sad thing".into()],
            vec!["dlv_1".into(), "done".into(), String::new()],
        ]
    }

    fn lines_of(text: &str) -> Vec<&str> {
        text.lines().collect()
    }

    #[test]
    fn in_a_pipe_a_record_is_one_line_with_its_note_at_the_end() {
        let notes = ["evt_1: it failed".to_owned(), String::new()];
        let text = render(&["delivery!", "state", "why"], rows(), &notes, None);
        assert_eq!(
            text,
            "delivery       state  why                                         details\n\
             ----------------------------------------------------------------------------------\n\
             dlv_123456789  dead   the guest said a long and rather sad thing  evt_1: it failed\n\
             dlv_1          done\n"
        );
        let long = render(&["id!", "why"], vec![vec!["x".repeat(300), "y".repeat(4096)]], &[], None);
        let row = lines_of(&long)[2];
        assert!(row.starts_with(&"x".repeat(300)) && row.ends_with('…'), "{row}");
        assert_eq!(row.chars().count(), 300 + GAP + LONGEST);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_whatever_stands_in_it() {
        let titles = ["delivery!", "state!", "plugin", "type", "tries!", "why"];
        let long = |c: &str, n: usize| c.repeat(n);
        for width in [20, 40, 80, 132] {
            for (id, name, why) in [
                ("dlv_1".to_owned(), "counter".to_owned(), "short".to_owned()),
                (long("i", 500), long("p", 64), long("r", 4096)),
                ("dlv_2".to_owned(), "你好".repeat(40), long("你", 2000)),
            ] {
                let rows =
                    vec![vec![id, "waiting".into(), name, long("t", 90), "1234567".into(), why.clone()]];
                let text = render(&titles, rows, &[why], Some(width));
                assert_eq!(lines_of(&text).len(), 4, "{text}");
                assert!(lines_of(&text).iter().all(|line| line.width() <= width), "{width}:\n{text}");
            }
        }
    }

    #[test]
    fn what_is_to_be_copied_is_cut_last() {
        let text = render(&["delivery!", "state", "why"], rows(), &[], Some(40));
        assert!(text.contains("dlv_123456789 ") && text.contains('…'), "{text}");
        assert_eq!(lines_of(&text).len(), 4, "{text}");
    }

    #[test]
    fn a_note_in_a_terminal_stands_below_its_row_and_is_cut_to_fit() {
        let notes = ["a note that is longer than the terminal is wide".to_owned(), String::new()];
        let text = render(&["delivery!", "state", "why"], rows(), &notes, Some(40));
        let lines = lines_of(&text);
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[3], "    a note that is longer than the term…");
        assert!(lines[4].starts_with("dlv_1 "), "{text}");
    }

    #[test]
    fn one_row_is_not_several() {
        let row = || vec![vec!["a".to_owned()]];
        assert!(page(&["x"], row(), 1, "event").ends_with("the newest event; --limit shows more\n"));
        assert!(page(&["x"], [row(), row()].concat(), 2, "delivery").contains("the newest 2 deliveries;"));
        assert_eq!(page(&["x"], Vec::new(), 2, "entry"), "no entries\n");
    }

    #[test]
    fn nothing_shown_steers_the_terminal() {
        let odd = "a\u{1b}[2Jb\r\n\u{9b}c\u{202e}d\u{7f}";
        let text = render(&["x"], vec![vec![odd.into()]], &[odd.into()], None)
            + &facts(&[("x", odd.into())])
            + &clean_lines(odd, 2);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{text:?}");
        assert_eq!(clean("a\u{1b}b\nü 你好"), "a\\u{1b}b\\nü 你好");
    }

    #[test]
    fn facts_stand_below_one_another_and_empty_ones_nowhere() {
        let text = facts(&[("id", "1".into()), ("none", String::new()), ("source", "a".into())]);
        assert_eq!(text, "id      1\nsource  a\n");
    }

    #[test]
    fn counts_leave_out_what_is_not_there() {
        let some = std::collections::BTreeMap::from([("dead".to_owned(), 1), ("done".to_owned(), 0)]);
        assert_eq!(counts(&some), "1 dead");
        assert_eq!(counts(&std::collections::BTreeMap::new()), "none");
    }
}
