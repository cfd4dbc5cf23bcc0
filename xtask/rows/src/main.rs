//! `posthouse-rows FILE QUERY`: prints the result of a query on a SQLite file as a table.
//!
//! It is a separate crate, built with the daemon, so that xtask itself needs no C compiler to start. It only
//! reads the file, which may be in use.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is all it does")]

use std::process::ExitCode;

use comfy_table::{LineStyle, Table, TableStyle};
use rusqlite::{Connection, OpenFlags, types::ValueRef};

/// A table with only a line under the header.
const LIGHT: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('-').junction('-'));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, query] = arguments.as_slice() else {
        eprintln!("usage: posthouse-rows FILE QUERY");
        return ExitCode::from(2);
    };
    match table(file, query) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("posthouse-rows: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table(file: &str, query: &str) -> rusqlite::Result<Table> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = database.prepare(query)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut table = Table::new();
    table.load_style(LIGHT).set_header(&columns);
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let cell = |index| row.get_ref(index).map(shown);
        table.add_row((0..columns.len()).map(cell).collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(table)
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}
