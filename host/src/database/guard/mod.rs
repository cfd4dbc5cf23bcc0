//! The guard: which statements a guest may run, decided before the database sees them.
//!
//! The transaction and the session are the host's. So a call has one statement, of a few kinds: rows read and
//! written, tables made and changed. A statement does not name what is the host's: tables that begin with
//! `posthouse_`, PostgreSQL's catalogs, and objects that live as long as a session. On PostgreSQL it calls the
//! functions that only compute, and those that the operator granted.
//!
//! On SQLite the authorizer stands behind the guard, and decides on what SQLite itself has read. The guard then
//! gives the clearer message. On PostgreSQL the server runs what the guard has read and written out again.
//!
//! ```text
//! lexer       text to tokens, and tokens to the text that runs
//! calls       which functions PostgreSQL is to call
//! functions   those that any statement may call
//! grants      those that the operator granted
//! keywords    PostgreSQL's words
//! definition  which CREATE, ALTER and DROP PostgreSQL is to run
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

/// Whose language.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialect<'a> {
    Sqlite,
    /// PostgreSQL's, with the functions that are granted.
    Postgres(&'a Grants),
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// It reads and writes rows.
    Rows,
    /// It makes or drops a table or the like.
    Defines,
    /// It changes or renames one.
    Alters,
}

/// A statement that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// What is to run.
    pub(super) text: String,
    /// Whether it only reads, as far as its words say.
    pub(super) reads: bool,
    pub(super) does: Does,
    /// The highest number of a `$n` in it.
    pub(super) parameters: usize,
    /// What PostgreSQL has to be asked about before it runs.
    pub(super) names: Names,
}

/// Bytes of a statement.
const LENGTH: usize = 256 << 10;

/// How a statement may begin.
const FIRST: [&str; 11] =
    ["select", "values", "with", "insert", "update", "delete", "merge", "replace", "create", "alter", "drop"];
/// What may be made, changed and dropped.
const MADE: [&str; 7] = ["table", "index", "unique", "view", "materialized", "sequence", "type"];
/// Words without which a statement only reads.
const WRITES: [&str; 9] =
    ["insert", "update", "delete", "merge", "replace", "into", "create", "alter", "drop"];
/// What a statement that only reads may name of SQLite's own.
const SQLITES_OWN: [&str; 4] = ["sqlite_master", "sqlite_schema", "sqlite_sequence", "sqlite_version"];
/// Tables that SQLite makes up when they are read, and that plugins may read.
pub(super) const MADE_UP: [&str; 2] = ["json_each", "json_tree"];
/// What plugins may read of PostgreSQL's `information_schema`.
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
/// PostgreSQL's types whose values are names: a text that becomes one can name what no word of the statement
/// names.
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
/// Says what is wrong with it, for the guest's author.
pub(super) fn check(dialect: Dialect<'_>, statement: &str) -> Result<Checked, String> {
    if statement.len() > LENGTH {
        return Err(format!("the statement has {} bytes; {LENGTH} is the limit", statement.len()));
    }
    // Even within a literal: there are functions that take one for a table's name.
    if contains(statement, "posthouse_") {
        return Err(
            "names that begin with `posthouse_` are the host's; pass such a text as a parameter".into()
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
            "`{shown}` is not for plugins: the transaction and the session are the host's; a statement may be \
             SELECT, VALUES, WITH, INSERT, UPDATE, DELETE, MERGE, REPLACE, or CREATE, ALTER and DROP of a table, \
             an index, a view, a sequence or a type"
        ));
    }
    if ["create", "alter", "drop"].iter().any(|word| first.is(word)) {
        let what = tokens[1..].iter().find(|token| !(token.is("or") || token.is("replace")));
        match what {
            Some(what) if MADE.iter().any(|word| what.is(word)) => {}
            Some(what) => return Err(format!("`{shown} {}` is not for plugins", what.text.to_uppercase())),
            None => return Err(format!("`{shown}` of nothing")),
        }
    }
    Ok(())
}

/// `SELECT … INTO t` of PostgreSQL makes a table.
fn selects_into(tokens: &[Token<'_>]) -> bool {
    let writes_rows = |before: &Token<'_>| before.is("insert") || before.is("merge") || before.is("replace");
    tokens.windows(2).any(|pair| pair[1].is("into") && !writes_rows(&pair[0]))
}

/// SQLite takes a text in quotes for a name, too, where only a name can stand.
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

/// `json_each` is a table that SQLite makes up. A table of that name would take its place in all statements.
fn check_sqlites_made_up(tokens: &[Token<'_>]) -> Result<(), String> {
    for pair in tokens.windows(2) {
        let name = &pair[1].text;
        if pair[0].is("to") && MADE_UP.iter().any(|made_up| name.eq_ignore_ascii_case(made_up)) {
            return Err(format!("`{name}` is the name of a table that SQLite makes up; choose another one"));
        }
    }
    Ok(())
}

/// What describes a plugin's tables can be read. The rest describes functions, roles and other servers.
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

/// What lives as long as a session.
fn check_session(tokens: &[Token<'_>]) -> Result<(), String> {
    for (at, pair) in tokens.windows(2).enumerate() {
        let after = ["into", "local", "global"].iter().any(|word| pair[0].is(word));
        // `INSERT INTO temp` is about a table of that name.
        let inserts = at > 0 && tokens[at - 1].is("insert");
        if after && !inserts && (pair[1].is("temp") || pair[1].is("temporary")) {
            return Err("a temporary table lives as long as a session, which is the host's".into());
        }
    }
    Ok(())
}

/// PostgreSQL keeps names that begin with `pg_` for itself: catalogs, the temporary schema, functions.
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
            _ => format!("names that begin with `pg_` are PostgreSQL's own, and `{name}` is not for plugins"),
        });
    }
    Ok(())
}

/// `'t'::regclass` and `regclass 't'` name what the statement shows; a computed text could name anything.
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
                "`{}` makes a name of a value; write a text before it, as in `'name'::regclass`",
                token.text
            ));
        }
    }
    Ok(())
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}
