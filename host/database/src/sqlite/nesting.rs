//! Bounds how large a statement becomes when SQLite flattens its subqueries and views.
//!
//! SQLite replaces each reference to a column of a subquery, a view or a common table expression by a copy of
//! that column's expression. `SELECT x + x AS x FROM (SELECT x + x AS x FROM (…))` doubles at each level.
//! Thirty levels make a billion copies, without a check of the deadline. SQLite has no limit for that.
//!
//! This file computes an upper bound from the words of the statement. Add up the sizes of the queries that a
//! query selects from, and multiply by the count of its most frequent word. The size of the query is at most
//! that, plus the number of its own words. The words of a query within an expression also count for the query
//! around it, since they may name that one's columns. The words of a `FROM` or a `WITH` do not.

use std::collections::HashMap;

use rusqlite::Connection;

/// The largest size of a flattened statement, in words and signs.
const MOST: u64 = 1_000_000;

/// The most words and signs of a statement. Some steps of SQLite's compiler take the square of their number.
const WORDS: usize = 20_000;

/// Refuses a statement that would become too large.
///
/// # Errors
/// The error in the statement, for the guest's author.
pub(super) fn check(connection: &Connection, text: &str) -> Result<(), String> {
    let tokens = tokens(text);
    if tokens.len() > WORDS {
        return Err(format!(
            "the statement has {} words and signs; {WORDS} is the limit. Pass values as parameters, or use several \
             statements",
            tokens.len()
        ));
    }
    let views = views(connection, &tokens);
    let mut sizes = Sizes { queries: views, known: HashMap::new() };
    if sizes.of(&tokens, &HashMap::new(), 0) > MOST {
        return Err(format!(
            "the statement would grow beyond {MOST} words and signs when its subqueries and views are put into it, \
             each as often as its columns are named; use fewer levels, or MATERIALIZED"
        ));
    }
    Ok(())
}

/// The queries of the database's views, by name, if the statement names any view.
fn views(connection: &Connection, tokens: &[String]) -> HashMap<String, Vec<String>> {
    let list = || -> rusqlite::Result<HashMap<_, _>> {
        let mut list =
            connection.prepare_cached("SELECT lower(name), sql FROM sqlite_schema WHERE type = 'view'")?;
        let rows = list.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.collect()
    };
    let all = list().unwrap_or_default();
    if !tokens.iter().any(|word| all.contains_key(word)) {
        return HashMap::new();
    }
    all.into_iter().map(|(name, text)| (name, body(&text))).collect()
}

/// The tokens after the `AS` of `CREATE VIEW`.
fn body(view: &str) -> Vec<String> {
    let mut tokens = tokens(view);
    let begins = tokens.iter().position(|token| token == "as").map_or(0, |at| at + 1);
    tokens.split_off(begins)
}

/// Computes the sizes of queries.
struct Sizes {
    /// The queries of the views.
    queries: HashMap<String, Vec<String>>,
    known: HashMap<String, u64>,
}

/// The deepest nesting of queries. Beyond it the size counts as infinite.
const DEPTH: usize = 100;

impl Sizes {
    /// The size of a query, which may name the queries in `with` and the views.
    fn of(&mut self, tokens: &[String], with: &HashMap<String, u64>, depth: usize) -> u64 {
        if depth > DEPTH {
            return u64::MAX;
        }
        let mut with = with.clone();
        let mut often: HashMap<&str, u64> = HashMap::new();
        let (mut inner, mut own) = (0_u64, 0_u64);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if token == "(" && is_query(&tokens[at + 1..]) {
                let end = at + closing(&tokens[at..]);
                let within = &tokens[at + 1..end];
                let size = self.of(within, &with, depth + 1);
                match named(&tokens[..at]) {
                    Some(name) => drop(with.insert(name.clone(), size)),
                    None => {
                        inner = inner.saturating_add(size);
                        if !is_source(&tokens[..at]) {
                            within.iter().for_each(|word| *often.entry(word).or_default() += 1);
                        }
                    }
                }
                at = end;
            } else {
                own += 1;
                *often.entry(token).or_default() += 1;
                inner = inner.saturating_add(self.named(token, &with, depth));
            }
            at += 1;
        }
        // Only names refer to columns, and `*`, which means all of them.
        let names = often.iter().filter(|(word, _)| is_name(word)).map(|(_, count)| *count);
        names.max().unwrap_or(0).saturating_mul(inner).saturating_add(own)
    }

    /// The size of the query that the word names.
    fn named(&mut self, word: &str, with: &HashMap<String, u64>, depth: usize) -> u64 {
        if let Some(size) = with.get(word).or_else(|| self.known.get(word)) {
            return *size;
        }
        let Some(view) = self.queries.remove(word) else { return 0 };
        let size = self.of(&view, &HashMap::new(), depth + 1);
        self.known.insert(word.to_owned(), size);
        size
    }
}

fn is_query(tokens: &[String]) -> bool {
    tokens.first().is_some_and(|first| ["select", "with", "values"].contains(&first.as_str()))
}

/// Whether the next query is a source of a `FROM`. Such a query can't refer to the other sources.
fn is_source(before: &[String]) -> bool {
    before.last().is_some_and(|last| ["from", "join"].contains(&last.as_str()))
}

/// The position at which the first parenthesis is closed; the end of the tokens if it is not.
fn closing(tokens: &[String]) -> usize {
    let mut open = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "(" => open += 1,
            ")" => open -= 1,
            _ => {}
        }
        if open == 0 {
            return at;
        }
    }
    tokens.len()
}

/// The name of the common table expression whose query follows: `name AS (`, `name (a, b) AS MATERIALIZED
/// (`. A materialized one is computed separately, and not copied into another query.
fn named(before: &[String]) -> Option<&String> {
    let mut rest = before;
    if let [start @ .., last] = rest
        && last == "materialized"
    {
        rest = start;
    }
    if let [start @ .., last] = rest
        && last == "not"
    {
        rest = start;
    }
    let [start @ .., last] = rest else { return None };
    if last != "as" {
        return None;
    }
    let [.., last] = start else { return None };
    if last != ")" {
        return Some(last);
    }
    let opening = start.iter().rposition(|token| token == "(")?;
    start[..opening].last()
}

fn is_name(token: &str) -> bool {
    token == "*" || token.starts_with(|c: char| c.is_alphabetic() || c == '_') && !RESERVED.contains(&token)
}

/// Words that name nothing.
const RESERVED: [&str; 28] = [
    "select", "from", "where", "and", "or", "as", "on", "join", "left", "inner", "is", "not", "null", "in",
    "union", "all", "values", "case", "when", "then", "else", "end", "by", "between", "like", "set",
    "exists", "limit",
];

/// Words, names and signs, in lower case and without quotes. A text or a number is one token.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '\'' => quoted(rest, '\''),
            '"' | '`' => quoted(rest, first),
            '[' => quoted(rest, ']'),
            c if in_word(c) => rest.find(|c| !in_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        tokens.push(match first {
            '\'' => "'".to_owned(),
            '"' | '`' | '[' => token[1..].trim_end_matches(['"', '`', ']']).to_lowercase(),
            _ => token.to_lowercase(),
        });
    }
    tokens
}

/// Bytes up to the closing sign. A doubled sign is part of the text.
fn quoted(text: &str, close: char) -> usize {
    let mut at = 1;
    loop {
        let Some(end) = text[at..].find(close) else { return text.len() };
        at += end + 1;
        if close == ']' || !text[at..].starts_with(close) {
            return at;
        }
        at += 1;
    }
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nests `SELECT x + x … AS x` in itself, `levels` deep, with `names` references at each level.
    fn nested(levels: usize, names: usize) -> String {
        (0..levels).fold("SELECT n AS x FROM t".to_owned(), |inner, _| {
            format!("SELECT {} AS x FROM ({inner})", vec!["x"; names].join(" + "))
        })
    }

    #[test]
    fn queries_that_double_at_each_level_are_refused_however_they_are_nested() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (n INTEGER); CREATE VIEW v0 AS SELECT n AS x FROM t")
            .unwrap();
        for level in 1..=30 {
            let below = level - 1;
            let view = format!("CREATE VIEW v{level} AS SELECT x + x AS x FROM v{below}");
            connection.execute_batch(&view).unwrap();
        }
        let with: Vec<_> =
            (1..=30).map(|level| format!("w{level} AS (SELECT x + x AS x FROM w{})", level - 1)).collect();
        let with = format!("WITH w0(x) AS (SELECT n FROM t), {} SELECT x FROM w30", with.join(", "));
        for statement in
            [nested(30, 2), nested(3, 200), "SELECT x FROM v30".into(), "SELECT x FROM \"V30\"".into(), with]
        {
            assert!(check(&connection, &statement).is_err(), "{statement}");
        }
        assert_eq!(check(&connection, "SELECT x FROM v6"), Ok(()));
        assert_eq!(check(&connection, &nested(9, 2)), Ok(()));
        // SQLite also copies a query into one that is within an expression.
        let hidden =
            |inner: &str| format!("SELECT (SELECT {}) AS x FROM ({inner})", vec!["x"; 200].join(" + "));
        assert!(check(&connection, &hidden(&hidden(&hidden("SELECT n AS x FROM t")))).is_err());
    }

    #[test]
    fn a_report_in_many_steps_passes() {
        let connection = Connection::open_in_memory().unwrap();
        let report = "
            WITH members AS (SELECT user_id, org_id, joined_at FROM membership WHERE left_at IS NULL),
            seats AS (SELECT org_id, count(*) AS used FROM members GROUP BY org_id),
            plans AS (SELECT org_id, name, seats FROM plan WHERE active),
            over AS (SELECT s.org_id, s.used, p.seats, s.used - p.seats AS more FROM seats s JOIN plans p ON
                     p.org_id = s.org_id WHERE s.used > p.seats),
            named AS (SELECT o.org_id, org.name, o.used, o.seats, o.more FROM over o JOIN org ON org.id = o.org_id),
            ranked AS (SELECT org_id, name, more, row_number() OVER (ORDER BY more DESC) AS place FROM named)
            SELECT r.place, r.name, r.more, (SELECT max(joined_at) FROM members m WHERE m.org_id = r.org_id)
            FROM ranked r WHERE r.place <= $1 ORDER BY r.place";
        assert_eq!(check(&connection, report), Ok(()));
    }

    #[test]
    fn statements_of_very_many_words_are_refused() {
        let connection = Connection::open_in_memory().unwrap();
        let list = |values: usize| format!("SELECT 1 WHERE 1 IN ({})", vec!["1"; values].join(","));
        assert_eq!(check(&connection, &list(9_000)), Ok(()));
        assert!(check(&connection, &list(12_000)).unwrap_err().contains("words and signs"));
    }
}
