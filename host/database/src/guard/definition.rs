//! Checks CREATE, ALTER and DROP on PostgreSQL. Plugins may create and change their own tables, indexes, views,
//! sequences and types.
//!
//! Everything else is refused. It would give objects to other roles, hide rows, name functions without calling
//! them, run prepared statements, or drop objects that the statement does not name.

use super::lexer::Token;

/// What ALTER may do with each thing: the first word of an action.
const ACTIONS: [(&str, &[&str]); 6] = [
    ("table", &["add", "alter", "attach", "detach", "drop", "rename", "validate"]),
    ("index", &["rename"]),
    ("view", &["alter", "rename"]),
    ("materialized", &["rename"]),
    (
        "sequence",
        &[
            "as",
            "cache",
            "cycle",
            "increment",
            "maxvalue",
            "minvalue",
            "no",
            "owned",
            "rename",
            "restart",
            "start",
        ],
    ),
    ("type", &["add", "alter", "drop", "rename"]),
];

/// Words that CREATE, ALTER and DROP may not contain, and what they do.
const NOT_WITHIN: [(&str, &str); 3] = [
    ("execute", "runs a prepared statement, which is the host's"),
    ("inherits", "adds rows to what others read from another table"),
    ("tablespace", "chooses a disk, which is the operator's"),
];

/// Checks a statement, if it begins with CREATE, ALTER or DROP.
///
/// # Errors
/// The part of the statement that is refused, and why.
pub(super) fn check(tokens: &[Token<'_>]) -> Result<(), String> {
    if !["create", "alter", "drop"].iter().any(|word| tokens[0].is(word)) {
        return Ok(());
    }
    for (at, token) in tokens.iter().enumerate() {
        if let Some((word, does)) = NOT_WITHIN.iter().find(|(word, _)| token.is(word)) {
            return Err(format!("plugins may not use `{}`: it {does}", word.to_uppercase()));
        }
        // ON DELETE CASCADE and ON UPDATE CASCADE apply to rows.
        let of_rows = at > 0 && (tokens[at - 1].is("delete") || tokens[at - 1].is("update"));
        if token.is("cascade") && !of_rows {
            return Err(
                "`CASCADE` drops objects that the statement does not name; drop those first, by name".into(),
            );
        }
    }
    let made = tokens.get(1).map_or("", |token| token.text.as_ref());
    if tokens[0].is("create") && made == "type" {
        check_type(tokens)
    } else if tokens[0].is("alter") {
        check_actions(made, tokens)
    } else {
        Ok(())
    }
}

/// A type may be a row or an enumeration. The other kinds name functions that the server calls.
fn check_type(tokens: &[Token<'_>]) -> Result<(), String> {
    let as_at = tokens.iter().position(|token| token.is("as"));
    let what = as_at.and_then(|at| tokens.get(at + 1));
    if what.is_some_and(|what| what.is_sign("(") || what.is("enum")) {
        return Ok(());
    }
    Err("a type is made by `CREATE TYPE … AS (…)` or `CREATE TYPE … AS ENUM (…)`".into())
}

fn check_actions(thing: &str, tokens: &[Token<'_>]) -> Result<(), String> {
    let actions = ACTIONS.iter().find(|(named, _)| *named == thing).map_or(&[][..], |(_, actions)| actions);
    let mut at = if thing == "materialized" { 3 } else { 2 };
    for word in ["if", "exists", "only"] {
        if tokens.get(at).is_some_and(|token| token.is(word)) {
            at += 1;
        }
    }
    // The name, with its schema.
    at += 1;
    while tokens.get(at).is_some_and(|token| token.is_sign(".")) {
        at += 2;
    }
    if tokens.get(at).is_some_and(|token| token.is_sign("*")) {
        at += 1;
    }
    let mut depth = 0;
    let mut begins = true;
    for token in tokens.iter().skip(at) {
        if begins && !actions.iter().any(|action| token.is(action)) {
            return Err(format!(
                "plugins may not use `ALTER {} … {}`; allowed are {}",
                thing.to_uppercase(),
                token.text.to_uppercase(),
                actions.join(", ").to_uppercase()
            ));
        }
        begins = false;
        match token.text.as_ref() {
            "(" => depth += 1,
            ")" => depth -= 1,
            "," => begins = depth == 0,
            _ => {}
        }
    }
    Ok(())
}
