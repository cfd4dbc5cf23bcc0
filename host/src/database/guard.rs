//! The guard: which statements a guest may run, decided before the database sees them.
//!
//! The transaction and the session are the host's. So a statement is one of a few kinds (rows read and
//! written, tables made and changed), there is exactly one of it, and it does not name what is the host's:
//! tables that begin with `posthouse_`, and on PostgreSQL the functions by which a session reaches out of
//! its transaction.
//!
//! PostgreSQL must not read a statement in another way than this file does. Therefore what runs is what
//! was read: the text is written out anew, without comments, and what two lexers could take differently
//! (dollar quotes, escapes, prefixed literals) is refused; it can go in as a parameter. On SQLite the
//! authorizer stands behind this.

/// Whose language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// A statement that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// What is to run.
    pub(super) text: String,
    /// Whether it only reads, as far as its words say.
    pub(super) reads: bool,
    /// The highest number of a `$n` in it.
    pub(super) parameters: usize,
}

impl Checked {
    /// Whether it makes, changes or drops a table, an index or a view.
    pub(super) fn changes_schema(&self) -> bool {
        let first = self.text.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next();
        let first = first.unwrap_or_default();
        ["create", "alter", "drop"].iter().any(|word| first.eq_ignore_ascii_case(word))
    }
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

/// Words of PostgreSQL by which a statement reaches out of its transaction, its tables or its database;
/// a `*` stands for any ending. Among them are the functions that run a text as SQL.
const OUT_OF_REACH: [&str; 18] = [
    "pg_*",
    "set_config",
    "dblink*",
    "lo_*",
    "loread",
    "lowrite",
    "query_to_xml*",
    "table_to_xml*",
    "schema_to_xml*",
    "database_to_xml*",
    "cursor_to_xml*",
    "ts_stat",
    "ts_rewrite",
    "crosstab*",
    "connectby*",
    "temp",
    "temporary",
    "setseed",
];
/// Of those, the ones that do no harm.
const HARMLESS: [&str; 3] = ["pg_typeof", "pg_column_size", "pg_input_is_valid"];

/// Checks a statement.
///
/// # Errors
/// Says what is wrong with it, for the guest's author.
pub(super) fn check(dialect: Dialect, statement: &str) -> Result<Checked, String> {
    if statement.len() > LENGTH {
        return Err(format!("the statement has {} bytes; {LENGTH} is the limit", statement.len()));
    }
    // Even within a literal: there are functions that take one for a table's name.
    if contains(statement, "posthouse_") {
        return Err(
            "names that begin with `posthouse_` are the host's; pass such a text as a parameter".into()
        );
    }
    let scanned = Scanner { dialect, rest: statement, out: Scanned::default() }.run()?;
    check_kind(&scanned.words)?;
    if dialect == Dialect::Postgres
        && let Some(word) = scanned.words.iter().find(|word| out_of_reach(word))
    {
        return Err(format!("`{word}` reaches out of the attempt's transaction, which is the host's"));
    }
    let reads = !scanned.words.iter().any(|word| WRITES.contains(&word.as_str()));
    Ok(Checked { text: scanned.text, reads, parameters: scanned.parameters })
}

fn check_kind(words: &[String]) -> Result<(), String> {
    let Some(first) = words.first() else { return Err("there is no statement".into()) };
    let shown = first.to_uppercase();
    if !FIRST.contains(&first.as_str()) {
        return Err(format!(
            "`{shown}` is not for plugins: the transaction and the session are the host's; a statement may be \
             SELECT, VALUES, WITH, INSERT, UPDATE, DELETE, MERGE, REPLACE, or CREATE, ALTER and DROP of a table, \
             an index, a view, a sequence or a type"
        ));
    }
    if ["create", "alter", "drop"].contains(&first.as_str()) {
        let what = words[1..].iter().find(|word| !["or", "replace"].contains(&word.as_str()));
        match what.map(String::as_str) {
            Some(what) if MADE.contains(&what) => {}
            Some(what) => return Err(format!("`{shown} {}` is not for plugins", what.to_uppercase())),
            None => return Err(format!("`{shown}` of nothing")),
        }
    }
    Ok(())
}

fn out_of_reach(word: &str) -> bool {
    let meant = |rule: &&str| match rule.strip_suffix('*') {
        Some(stem) => word.starts_with(stem),
        None => word == *rule,
    };
    OUT_OF_REACH.iter().any(meant) && !HARMLESS.contains(&word)
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

#[derive(Default)]
struct Scanned {
    text: String,
    /// Words and names, quoted ones too, in lower case.
    words: Vec<String>,
    parameters: usize,
}

/// Reads a statement token by token and writes it out anew.
struct Scanner<'a> {
    dialect: Dialect,
    rest: &'a str,
    out: Scanned,
}

impl<'a> Scanner<'a> {
    fn run(mut self) -> Result<Scanned, String> {
        while let Some(first) = self.rest.chars().next() {
            match first {
                '\0' => return Err("it holds a NUL".into()),
                c if c.is_ascii_whitespace() || c == '\u{b}' => {
                    self.skip(1);
                    self.space();
                }
                '-' if self.rest.starts_with("--") => {
                    let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
                    self.skip(end);
                    self.space();
                }
                '/' if self.rest.starts_with("/*") => self.comment()?,
                '\'' => drop(self.quoted('\'')?),
                '"' => self.name('"')?,
                '`' | '[' if self.dialect == Dialect::Sqlite => {
                    self.name(if first == '[' { ']' } else { first })?;
                }
                '`' | '\\' => return Err(format!("it holds `{first}` outside of a text")),
                '$' => self.parameter()?,
                '?' | ':' | '@' | '#' if self.dialect == Dialect::Sqlite => {
                    return Err(format!("it holds `{first}`; parameters are `$1`, `$2` and so on"));
                }
                ';' => return self.end(),
                c if c.is_ascii_digit() => {
                    let end = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '.'));
                    self.take(end.unwrap_or(self.rest.len()));
                }
                c if in_word(c) => {
                    let goes_on = |c: char| in_word(c) || c.is_ascii_digit() || c == '$';
                    let end = self.rest.find(|c| !goes_on(c)).unwrap_or(self.rest.len());
                    let word = self.take(end).to_ascii_lowercase();
                    self.out.words.push(word);
                }
                c => drop(self.take(c.len_utf8())),
            }
        }
        Ok(self.out)
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Copies so many bytes.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.out.text.push_str(taken);
        self.rest = rest;
        taken
    }

    fn space(&mut self) {
        if !self.out.text.is_empty() && !self.out.text.ends_with(' ') {
            self.out.text.push(' ');
        }
    }

    /// A comment within a comment is one, as PostgreSQL has it.
    fn comment(&mut self) -> Result<(), String> {
        let mut depth = 0;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
            } else {
                match self.rest.chars().next() {
                    Some(c) => self.skip(c.len_utf8()),
                    None => return Err("it ends within a comment".into()),
                }
            }
            if depth == 0 {
                self.space();
                return Ok(());
            }
        }
    }

    /// Copies a text or a name up to its closing sign, which stands for itself where it is doubled.
    fn quoted(&mut self, close: char) -> Result<String, String> {
        let before = self.out.text.chars().next_back().unwrap_or(' ');
        let prefixed = in_word(before) || before.is_ascii_digit() || matches!(before, '&' | '$');
        // `x'00'` of SQLite has one meaning only.
        if prefixed && (self.dialect == Dialect::Postgres || !matches!(before, 'x' | 'X')) {
            return Err(format!("`{before}` stands before a quote; put a space there, or pass a parameter"));
        }
        let mut content = String::new();
        self.take(1);
        loop {
            let Some(end) = self.rest.find(close) else {
                return Err("it ends within quotes".into());
            };
            content.push_str(self.take(end));
            self.take(1);
            if close == ']' || !self.rest.starts_with(close) {
                break;
            }
            content.push(close);
            self.take(1);
        }
        if content.contains('\0') {
            return Err("it holds a NUL".into());
        }
        // What follows must not be taken for a part of it.
        if self.rest.starts_with(|c: char| in_word(c) || c.is_ascii_digit() || "'\"".contains(c)) {
            self.out.text.push(' ');
        }
        Ok(content)
    }

    fn name(&mut self, close: char) -> Result<(), String> {
        let name = self.quoted(close)?.to_ascii_lowercase();
        self.out.words.push(name);
        Ok(())
    }

    fn parameter(&mut self) -> Result<(), String> {
        let digits = self.rest[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len() - 1);
        let number = self.rest[1..1 + digits].parse::<usize>().ok().filter(|n| (1..=1000).contains(n));
        let Some(number) = number else {
            return Err("it holds a `$` that begins no parameter; `$1` to `$1000` do".into());
        };
        if self.rest[1 + digits..].starts_with(|c| in_word(c) || c == '$') {
            return Err(format!("`${number}` runs into a word; put a space there"));
        }
        // Written anew, so that `$01` is `$1`.
        self.skip(1 + digits);
        self.out.text.push_str(&format!("${number}"));
        self.out.parameters = self.out.parameters.max(number);
        Ok(())
    }

    /// After a semicolon nothing may come but space and comments.
    fn end(mut self) -> Result<Scanned, String> {
        self.skip(1);
        let before = std::mem::take(&mut self.out);
        let mut rest = Scanner { dialect: self.dialect, rest: self.rest, out: Scanned::default() };
        while rest.rest.starts_with(';') {
            rest.skip(1);
        }
        let after = rest.run()?;
        if after.text.trim().is_empty() { Ok(before) } else { Err("it is more than one statement".into()) }
    }
}

/// Whether the sign may stand in a word. What is not ASCII may, in both engines.
fn in_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(statement: &str) -> [Result<Checked, String>; 2] {
        [Dialect::Sqlite, Dialect::Postgres].map(|dialect| check(dialect, statement))
    }

    #[test]
    fn what_reads_and_writes_rows_passes_as_it_stands() {
        for statement in [
            "SELECT 'it''s; -- not a comment', \"a b\" FROM t WHERE n = $1",
            "insert into t (a, b) values ($1, $2) on conflict (a) do update set b = excluded.b returning a",
            "WITH c AS (SELECT 1) UPDATE t SET n = n + 1",
            "CREATE UNIQUE INDEX i ON t (n)",
            "ALTER TABLE t ADD COLUMN m TEXT",
        ] {
            for checked in both(statement) {
                assert_eq!(checked.unwrap().text, statement);
            }
        }
    }

    #[test]
    fn comments_and_a_last_semicolon_are_left_out() {
        for checked in both("SELECT /* a /* b */ c */ 1 -- d\n + $2;; -- e") {
            let checked = checked.unwrap();
            assert_eq!((checked.text.as_str(), checked.parameters), ("SELECT 1 + $2", 2));
            assert!(checked.reads);
        }
    }

    #[test]
    fn what_is_the_hosts_is_refused_in_every_disguise() {
        for statement in [
            "",
            "-- nothing",
            "BEGIN",
            "commit",
            "ROLLBACK TO SAVEPOINT x",
            "/* x */ COMMIT",
            "/* /* */ SELECT 1 -- */ */ COMMIT",
            "SELECT 1; COMMIT",
            "SELECT 1;\u{b}COMMIT",
            "ATTACH 'other.db' AS o",
            "DETACH main",
            "PRAGMA journal_mode = DELETE",
            "VACUUM INTO '/tmp/x'",
            "COPY t TO PROGRAM 'sh'",
            "SET ROLE postgres",
            "RESET ALL",
            "DO $$ BEGIN END $$",
            "CALL p()",
            "LISTEN x",
            "NOTIFY x",
            "LOCK TABLE t",
            "LOAD 'x'",
            "PREPARE x AS SELECT 1",
            "DECLARE c CURSOR FOR SELECT 1",
            "EXPLAIN ANALYZE DELETE FROM t",
            "GRANT ALL ON t TO PUBLIC",
            "TRUNCATE t",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE c",
            "CREATE EXTENSION dblink",
            "CREATE TEMP TABLE t (n INT)",
            "CREATE VIRTUAL TABLE t USING fts5(a)",
            "CREATE ROLE r",
            "ALTER SYSTEM SET x = 1",
            "DROP DATABASE app",
            "SELECT * FROM posthouse_kv",
            "SELECT * FROM \"POSTHOUSE_deliveries\"",
            "SELECT 'posthouse_kv'::regclass",
            "SELECT 1 $",
            "SELECT 'open",
            "SELECT /* open",
            "SELECT $1a",
            "SELECT $0",
            "SELECT $1001",
        ] {
            for refused in both(statement) {
                assert!(refused.is_err(), "{statement}: {refused:?}");
            }
        }
    }

    #[test]
    fn what_reaches_out_of_a_postgres_session_is_refused() {
        for statement in [
            "SELECT set_config('role', 'postgres', false)",
            "SELECT pg_advisory_lock(1)",
            "SELECT \"pg_advisory_lock\"(1)",
            "SELECT pg_catalog.set_config('a', 'b', false)",
            "SELECT PG_READ_FILE('/etc/passwd')",
            "SELECT pg_terminate_backend(1)",
            "SELECT lo_import('/etc/passwd')",
            "SELECT * FROM dblink('', 'COMMIT') AS t (n int)",
            "SELECT query_to_xml('SELECT 1', true, true, '')",
            "SELECT ts_stat('SELECT 1')",
            "SELECT 1 INTO TEMP x",
            "SELECT E'\\'; COMMIT; --'",
            "SELECT U&\"\\0070osthouse_kv\"",
            "SELECT U&'x'",
            "SELECT $$x$$",
            "SELECT $tag$x$tag$",
            "SELECT 1 \\ 2",
            "SELECT `x`",
            "CREATE TABLE pg_temp.t (n int)",
        ] {
            assert!(check(Dialect::Postgres, statement).is_err(), "{statement}");
        }
        for statement in ["SELECT pg_typeof($1)", "SELECT a ? 'b' FROM t", "SELECT a[1]::text FROM t"] {
            assert!(check(Dialect::Postgres, statement).is_ok(), "{statement}");
        }
    }

    #[test]
    fn sqlites_own_signs_for_parameters_are_refused_and_its_names_are_read() {
        for statement in ["SELECT ?", "SELECT ?1", "SELECT :a", "SELECT @a", "SELECT #a"] {
            assert!(check(Dialect::Sqlite, statement).unwrap_err().contains("parameters are `$1`"));
        }
        for statement in ["SELECT [a; b] FROM `t ; u`", "SELECT x'00'"] {
            assert!(check(Dialect::Sqlite, statement).is_ok(), "{statement}");
        }
        assert!(check(Dialect::Sqlite, "SELECT * FROM [posthouse_kv]").is_err());
    }
}
