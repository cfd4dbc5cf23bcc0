//! How the online commands show things: tables that fit the terminal, facts one a line, JSON one object
//! a line.
//!
//! What is shown comes from senders, guests and mail servers, so whatever could steer a terminal is
//! shown as its escape. A reader that goes away (`| head`) is no error.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Row, Table, TableStyle};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::CliError;
use crate::escape;

/// Only a line under the header.
const LIGHT: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('-').junction('-'));

/// Rows for people, each on one line that fits the terminal: what is too long for it is cut, but for the
/// columns whose title ends in `!`, which are to be copied.
pub fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    render(titles, rows, &[], terminal_width())
}

/// The same, with what to say when there are none, or more than were asked for.
pub fn page(titles: &[&str], rows: Vec<Vec<String>>, limit: usize, what: &str) -> String {
    page_with_notes(titles, rows, &[], limit, what)
}

/// The same with a note below each row, in full; an empty one is left out.
pub fn page_with_notes(
    titles: &[&str],
    rows: Vec<Vec<String>>,
    notes: &[String],
    limit: usize,
    what: &str,
) -> String {
    let more = match rows.len() {
        0 => return format!("no {what}\n"),
        all if all < limit => String::new(),
        some => format!("the newest {some} {what}; --limit shows more\n"),
    };
    render(titles, rows, notes, terminal_width()) + &more
}

fn render(titles: &[&str], rows: Vec<Vec<String>>, notes: &[String], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(LIGHT).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(one_line(titles.iter().map(|title| title.trim_end_matches('!').to_owned())));
    for row in rows {
        table.add_row(one_line(row.iter().map(|cell| clean(cell))));
    }
    for (at, title) in titles.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            // One more space stands between columns.
            column.set_padding((0, 1));
            if title.ends_with('!') {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    let mut text = String::new();
    for (at, line) in table.lines().enumerate() {
        let _ = writeln!(text, "{}", line.trim_end());
        // The titles and the line below them come first.
        let note = at.checked_sub(2).and_then(|row| notes.get(row)).filter(|note| !note.is_empty());
        if let Some(note) = note {
            let _ = writeln!(text, "    {}", clean(note));
        }
    }
    text
}

fn one_line(cells: impl Iterator<Item = String>) -> Row {
    let mut row = Row::from(cells.collect::<Vec<_>>());
    row.max_height(1);
    row
}

/// Names and values, one a line, the values below one another; those that are empty are left out.
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

/// The answer of the daemon as what a command shows of it.
///
/// # Errors
/// [`CliError::Failure`] where it is of another shape: the daemon is of another version.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, CliError> {
    T::deserialize(value).map_err(|error| {
        CliError::Failure(format!("the daemon answers in another shape ({error}); is it of this version?"))
    })
}

/// Prints the text; whatever is left in it that could steer a terminal leaves as its escape. A reader that
/// has gone away is no error.
///
/// # Errors
/// [`CliError::Failure`] where it can't be written.
pub fn print(text: &str) -> Result<ExitCode, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(escape::lines(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::Failure(format!("standard output can't be written: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The text with everything escaped that could steer a terminal, line breaks and the marks that turn
/// the direction of writing included.
pub fn clean(text: &str) -> String {
    escape::text(text).into_owned()
}

/// The same for a text of several lines, each indented by so many spaces.
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

/// The same; `-` where there is none.
pub fn maybe_time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), time)
}

/// `3 done, 1 dead` of the counts that are not zero; `none` where all are.
pub fn counts<'a>(counts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let parts: Vec<_> = counts
        .into_iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn terminal_width() -> Option<u16> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(out).ok().map(|size| size.ws_col).filter(|width| *width > 0)
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

    #[test]
    fn where_nothing_bounds_it_nothing_is_cut() {
        let text = render(&["delivery!", "state", "why"], rows(), &[], None);
        assert_eq!(
            text,
            "delivery       state  why\n\
             -----------------------------------------------------------------\n\
             dlv_123456789  dead   the guest said a long and rather sad thing\n\
             dlv_1          done\n"
        );
    }

    #[test]
    fn a_row_is_one_line_that_fits_the_terminal_and_ids_are_whole() {
        let text = render(&["delivery!", "state", "why"], rows(), &[], Some(40));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("dlv_123456789 ") && text.contains('…'), "{text}");
    }

    #[test]
    fn a_note_stands_in_full_below_its_row() {
        let notes =
            ["a note that is as long as it likes to be, whatever the width".to_owned(), String::new()];
        let text = render(&["delivery!", "state", "why"], rows(), &notes, Some(40));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[3], format!("    {}", notes[0]));
        assert!(lines[4].starts_with("dlv_1 "), "{text}");
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
