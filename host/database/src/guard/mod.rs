//! The guard decides which statements a guest may run, before the database sees them.
//!
//! The host owns the transaction and the session. So a call has one statement of a few kinds: it reads and
//! writes rows, or creates and changes tables. A statement must not name what belongs to the host: tables that
//! begin with `posthouse_`, PostgreSQL's catalogs, and objects that live as long as a session. On PostgreSQL it
//! may call functions that only compute, and functions that the operator granted.
//!
//! On SQLite the authorizer decides as well, on the statement as SQLite itself has read it. There the guard
//! gives the clearer message. On PostgreSQL the server runs the text that the guard has written.
//!
//! ```text
//! lexer       text to tokens, and tokens to the text that runs
//! calls       finds and checks the functions that a statement calls on PostgreSQL
//! functions   the functions that any statement may call
//! grants      the functions that the operator granted
//! keywords    PostgreSQL's keywords
//! definition  checks CREATE, ALTER and DROP on PostgreSQL
//! ```

mod calls;
mod definition;
mod functions;
mod grants;
mod keywords;
mod lexer;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use self::functions::built_in;
pub(super) use self::{calls::Names, grants::Grants};
use self::{
    functions::is_built_in,
    lexer::{Kind, Token},
};

/// The dialect of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialect<'a> {
    Sqlite,
    /// PostgreSQL, with the granted functions.
    Postgres(&'a Grants),
}

/// The effect of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// It reads and writes rows.
    Rows,
    /// It creates or drops a table or another object.
    Defines,
    /// It changes or renames an object.
    Alters,
}

/// A statement that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// The text to run.
    pub(super) text: String,
    /// Whether it only reads, judging by its words.
    pub(super) reads: bool,
    pub(super) does: Does,
    /// The highest number of a `$n` in it.
    pub(super) parameters: usize,
    /// Names to ask PostgreSQL about before the statement runs.
    pub(super) names: Names,
}

/// The longest statement, in bytes.
const LENGTH: usize = 256 << 10;

/// The first words that are allowed.
const FIRST: [&str; 11] =
    ["select", "values", "with", "insert", "update", "delete", "merge", "replace", "create", "alter", "drop"];
/// The objects that may be created, changed and dropped.
const MADE: [&str; 7] = ["table", "index", "unique", "view", "materialized", "sequence", "type"];
/// A statement without any of these words only reads.
const WRITES: [&str; 9] =
    ["insert", "update", "delete", "merge", "replace", "into", "create", "alter", "drop"];
/// SQLite's own names that a reading statement may use.
const SQLITES_OWN: [&str; 4] = ["sqlite_master", "sqlite_schema", "sqlite_sequence", "sqlite_version"];
/// Tables that SQLite generates when they are read, and that plugins may read.
pub(super) const MADE_UP: [&str; 2] = ["json_each", "json_tree"];
/// The tables in PostgreSQL's `information_schema` that plugins may read.
const INFORMATION: [&str; 8] = [
    "columns",
    "constraint_column_usage",
    "key_column_usage",
    "referential_constraints",
    "schemata",
    "sequences",
    "table_constraints",
    "tables",
];
/// PostgreSQL's types whose values are names. A text that is cast to one can name an object that no word of the
/// statement names.
const NAMES_AS_VALUES: [&str; 9] = [
    "regclass",
    "regcollation",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// Checks a statement.
///
/// # Errors
/// The error in the statement, for the guest's author.
pub(super) fn check(dialect: Dialect<'_>, statement: &str) -> Result<Checked, String> {
    if statement.len() > LENGTH {
        return Err(format!("the statement has {} bytes; {LENGTH} is the limit", statement.len()));
    }
    // Also within a literal: some functions take one as a table's name.
    if contains(statement, "posthouse_") {
        return Err(
            "names that begin with `posthouse_` are reserved for the host; pass such a text as a parameter"
                .into(),
        );
    }
    let scanned = lexer::scan(dialect, statement)?;
    let tokens = &scanned.tokens[..];
    check_kind(tokens)?;
    let mut does = match tokens[0].text.as_ref() {
        "create" | "drop" => Does::Defines,
        "alter" => Does::Alters,
        _ => Does::Rows,
    };
    let reads = !tokens.iter().any(|token| WRITES.iter().any(|word| token.is(word)));
    let names = match dialect {
        Dialect::Sqlite => {
            check_sqlites_own(tokens, reads)?;
            check_sqlites_made_up(tokens)?;
            Names::default()
        }
        Dialect::Postgres(grants) => {
            check_session(tokens)?;
            check_catalogs(tokens, grants)?;
            check_names_as_values(tokens)?;
            check_information_schema(tokens)?;
            definition::check(tokens)?;
            if selects_into(tokens) {
                does = Does::Defines;
            }
            calls::check(tokens, grants)?
        }
    };
    Ok(Checked { text: scanned.text, reads, does, parameters: scanned.parameters, names })
}

fn check_kind(tokens: &[Token<'_>]) -> Result<(), String> {
    let Some(first) = tokens.first() else { return Err("there is no statement".into()) };
    let shown = first.text.to_uppercase();
    if !FIRST.iter().any(|word| first.is(word)) {
        return Err(format!(
            "plugins may not use `{shown}`: the host controls the transaction and the session; a statement may be \
             SELECT, VALUES, WITH, INSERT, UPDATE, DELETE, MERGE, REPLACE, or CREATE, ALTER and DROP of a table, \
             an index, a view, a sequence or a type"
        ));
    }
    if ["create", "alter", "drop"].iter().any(|word| first.is(word)) {
        let what = tokens[1..].iter().find(|token| !(token.is("or") || token.is("replace")));
        match what {
            Some(what) if MADE.iter().any(|word| what.is(word)) => {}
            Some(what) => return Err(format!("plugins may not use `{shown} {}`", what.text.to_uppercase())),
            None => return Err(format!("`{shown}` of nothing")),
        }
    }
    Ok(())
}

/// PostgreSQL's `SELECT … INTO t` creates a table.
fn selects_into(tokens: &[Token<'_>]) -> bool {
    let writes_rows = |before: &Token<'_>| before.is("insert") || before.is("merge") || before.is("replace");
    tokens.windows(2).any(|pair| pair[1].is("into") && !writes_rows(&pair[0]))
}

/// SQLite also reads a text in quotes as a name, if only a name can be there.
fn check_sqlites_own(tokens: &[Token<'_>], reads: bool) -> Result<(), String> {
    for (at, token) in tokens.iter().enumerate() {
        if !token.is_name() && token.kind != Kind::Text {
            continue;
        }
        let name = token.text.to_ascii_lowercase();
        let qualifies = tokens.get(at + 1).is_some_and(|next| next.is_sign("."));
        if qualifies && name == "temp" {
            return Err(
                "`temp` lives as long as a connection, which is the host's; a plugin's tables are in `main`"
                    .into(),
            );
        }
        if !token.is_name() {
            continue;
        }
        if name.starts_with("sqlite_") && !(reads && SQLITES_OWN.contains(&name.as_str())) {
            return Err(format!(
                "`{name}` is SQLite's own; a statement that only reads may name {}",
                SQLITES_OWN.join(", ")
            ));
        }
        if name.starts_with("pragma_") {
            return Err(format!("`{name}` is a PRAGMA, which is the host's"));
        }
    }
    Ok(())
}

/// SQLite generates the table `json_each`. A table of that name would replace it in all statements.
fn check_sqlites_made_up(tokens: &[Token<'_>]) -> Result<(), String> {
    for pair in tokens.windows(2) {
        let name = &pair[1].text;
        if pair[0].is("to") && MADE_UP.iter().any(|made_up| name.eq_ignore_ascii_case(made_up)) {
            return Err(format!(
                "`{name}` is the name of a table that SQLite creates itself; choose another one"
            ));
        }
    }
    Ok(())
}

/// Plugins may read the description of tables. The rest describes functions, roles and other servers.
fn check_information_schema(tokens: &[Token<'_>]) -> Result<(), String> {
    for (at, token) in tokens.iter().enumerate() {
        if !token.is_name() || token.text != "information_schema" {
            continue;
        }
        let table = tokens.get(at + 2).filter(|_| tokens[at + 1].is_sign("."));
        if !table.is_some_and(|table| INFORMATION.contains(&table.text.as_ref())) {
            return Err(format!("of `information_schema` plugins may read {}", INFORMATION.join(", ")));
        }
    }
    Ok(())
}

/// Refuses objects that live as long as a session.
fn check_session(tokens: &[Token<'_>]) -> Result<(), String> {
    for (at, pair) in tokens.windows(2).enumerate() {
        let after = ["into", "local", "global"].iter().any(|word| pair[0].is(word));
        // `INSERT INTO temp` refers to a table of that name.
        let inserts = at > 0 && tokens[at - 1].is("insert");
        if after && !inserts && (pair[1].is("temp") || pair[1].is("temporary")) {
            return Err("a temporary table lives as long as a session, which is the host's".into());
        }
    }
    Ok(())
}

/// PostgreSQL reserves names that begin with `pg_`: catalogs, the temporary schema, functions.
fn check_catalogs(tokens: &[Token<'_>], grants: &Grants) -> Result<(), String> {
    for (at, token) in tokens.iter().enumerate() {
        let name = token.text.as_ref();
        if !token.is_name() || !name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("pg_")) {
            continue;
        }
        let qualifies = tokens.get(at + 1).is_some_and(|next| next.is_sign("."));
        let qualified = at > 0 && tokens[at - 1].is_sign(".");
        if name == "pg_catalog" && qualifies && !qualified {
            continue;
        }
        if is_built_in(name) || grants.function(name) {
            continue;
        }
        return Err(match tokens.get(at + 1) {
            Some(next) if next.is_sign("(") => grants.refusal(name),
            _ => {
                format!("names that begin with `pg_` are PostgreSQL's own, and plugins may not use `{name}`")
            }
        });
    }
    Ok(())
}

/// `'t'::regclass` and `regclass 't'` name an object that the statement shows; a computed text could name any.
fn check_names_as_values(tokens: &[Token<'_>]) -> Result<(), String> {
    let is_text = |at: Option<usize>| at.is_some_and(|at| tokens[at].kind == Kind::Text);
    for (at, token) in tokens.iter().enumerate() {
        if !token.is_name() || !NAMES_AS_VALUES.contains(&token.text.as_ref()) {
            continue;
        }
        let cast = at >= 3 && tokens[at - 1].is_sign(":") && tokens[at - 2].is_sign(":");
        let literal = (cast && is_text(at.checked_sub(3)))
            || tokens.get(at + 1).is_some_and(|next| next.kind == Kind::Text);
        if !literal {
            return Err(format!(
                "`{}` turns a value into a name; write a text before it, as in `'name'::regclass`",
                token.text
            ));
        }
    }
    Ok(())
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}
