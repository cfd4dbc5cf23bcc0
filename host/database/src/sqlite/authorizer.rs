//! The authorizer decides what a guest's statement may do, on the statement as SQLite itself has read it.
//!
//! SQLite calls it for each action of a statement, when it compiles the statement. Only known actions are
//! allowed: on rows of tables in the schema `main`, and on their definitions. Temporary tables and attached
//! files live as long as a connection, which other plugins use next.

use rusqlite::hooks::{AuthAction, AuthContext};

use super::functions;
use crate::guard::{Does, MADE_UP};

/// The only schema that guests may use.
const MAIN: &str = "main";

/// Functions that report what other statements of the connection did.
const OF_THE_CONNECTION: [&str; 3] = ["last_insert_rowid", "changes", "total_changes"];

/// Tables that SQLite generates when they are read. They show pages, statements or memory instead of a table's
/// rows.
const NOT_READ: [&str; 6] =
    ["bytecode", "dbstat", "sqlite_dbpage", "sqlite_stmt", "sqlite_memstat", "tables_used"];

/// Checks one action of a statement.
///
/// # Errors
/// The action in words, for the guest's author.
pub(super) fn check(does: Does, context: AuthContext<'_>) -> Result<(), String> {
    use AuthAction as A;
    let schema = context.database_name;
    match context.action {
        A::Select | A::Recursive => Ok(()),
        A::Function { function_name } => function(function_name),
        // If a statement reads no column of a table, as with `count(*)`, SQLite passes the schema that the
        // statement names.
        A::Read { table_name, column_name: "" } => readable(does, schema.or(Some(MAIN)), table_name),
        A::Read { table_name, .. } => readable(does, schema, table_name),
        A::Insert { table_name } | A::Update { table_name, .. } | A::Delete { table_name } => {
            writable(does, schema, table_name)
        }
        A::CreateTable { table_name }
        | A::DropTable { table_name }
        | A::CreateIndex { table_name, .. }
        | A::DropIndex { table_name, .. } => defined(does, schema, table_name),
        A::CreateView { view_name } | A::DropView { view_name } => defined(does, schema, view_name),
        A::AlterTable { database_name, table_name } => defined(does, Some(database_name), table_name),
        A::Reindex { index_name } => defined(does, schema, index_name),
        A::CreateTempTable { .. }
        | A::CreateTempView { .. }
        | A::CreateTempIndex { .. }
        | A::CreateTempTrigger { .. }
        | A::DropTempTable { .. }
        | A::DropTempView { .. }
        | A::DropTempIndex { .. }
        | A::DropTempTrigger { .. } => Err(not_in_main("temp")),
        A::CreateTrigger { .. } | A::DropTrigger { .. } => Err("plugins may not use triggers".to_owned()),
        A::CreateVtable { .. } | A::DropVtable { .. } => Err("plugins may not use virtual tables".to_owned()),
        A::Pragma { pragma_name, .. } => {
            Err(format!("plugins may not use PRAGMA {pragma_name}: the host controls the connection"))
        }
        _ => Err("plugins may not do what the statement does".to_owned()),
    }
}

fn function(name: &str) -> Result<(), String> {
    if OF_THE_CONNECTION.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Err(format!(
            "`{name}()` tells what other statements of the connection did; use RETURNING, or the number of rows \
             that the call returns"
        ));
    }
    if functions::is_allowed(name) {
        Ok(())
    } else {
        Err(format!("plugins may not call the function `{name}` on SQLite"))
    }
}

fn readable(does: Does, schema: Option<&str>, table: &str) -> Result<(), String> {
    // ALTER searches the temporary schema for objects that name the table.
    let looks = does == Does::Alters && schema == Some("temp") && is_temporary_schema(table);
    if looks {
        return Ok(());
    }
    in_main(schema)?;
    not_the_hosts(table)?;
    if is_temporary_schema(table) {
        return Err(not_in_main("temp"));
    }
    let starts =
        |prefix: &str| table.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if starts("pragma_") || NOT_READ.iter().any(|known| table.eq_ignore_ascii_case(known)) {
        return Err(format!("plugins may not read the table `{table}`: it shows data of the host"));
    }
    Ok(())
}

fn writable(does: Does, schema: Option<&str>, table: &str) -> Result<(), String> {
    if is_sqlites(table) {
        // A definition writes to SQLite's own tables. SQLite refuses a statement that names them.
        let temporary = schema == Some("temp") && is_temporary_schema(table);
        return match does {
            Does::Defines | Does::Alters if schema == Some(MAIN) => Ok(()),
            Does::Alters if temporary => Ok(()),
            _ => Err(format!("`{table}` is SQLite's own, and can only be read")),
        };
    }
    in_main(schema)?;
    not_the_hosts(table)
}

fn defined(does: Does, schema: Option<&str>, name: &str) -> Result<(), String> {
    in_main(schema)?;
    not_the_hosts(name)?;
    if MADE_UP.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Err(format!(
            "`{name}` is the name of a table that SQLite creates itself; choose another one"
        ));
    }
    match does {
        Does::Defines | Does::Alters => Ok(()),
        Does::Rows => Err("a statement that begins with another word defines something".to_owned()),
    }
}

fn in_main(schema: Option<&str>) -> Result<(), String> {
    match schema {
        Some(MAIN) => Ok(()),
        schema => Err(not_in_main(schema.unwrap_or_default())),
    }
}

fn not_in_main(schema: &str) -> String {
    format!(
        "`{schema}` lives as long as a connection, which is the host's; a plugin's tables and views are in `main`"
    )
}

fn not_the_hosts(table: &str) -> Result<(), String> {
    const PREFIX: &str = "posthouse_";
    if table.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) {
        return Err(format!("`{table}` belongs to the host"));
    }
    Ok(())
}

fn is_sqlites(table: &str) -> bool {
    table.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
}

fn is_temporary_schema(table: &str) -> bool {
    ["sqlite_temp_master", "sqlite_temp_schema"].iter().any(|known| table.eq_ignore_ascii_case(known))
}
