//! Finds the functions that a PostgreSQL statement calls.
//!
//! A call is a name that a bracket follows. So are the columns of a table, an alias or a WITH query, and the
//! length of a type. The token before the name distinguishes those. The rule is: anything not known to be
//! something else is a call. A call must be to a built-in function that only computes, or to one that the
//! operator granted.
//!
//! `row.name` and `(value).name` also call the function `name` if there is no such column. Only the server
//! knows its columns and functions, so the guard returns these names, and the session asks the server about
//! them before the statement runs.

use super::{
    functions::is_built_in,
    grants::Grants,
    keywords::{is_keyword, is_syntax, is_syntax_or_call},
    lexer::{Kind, Token},
};

/// Names that the server has to be asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Called without a schema, by the name of a built-in function. The operator may have created another
    /// function of that name.
    pub(crate) called: Vec<String>,
    /// Names after a row: a column, or a function of the row.
    pub(crate) of_rows: Vec<String>,
    /// Names after any value: a field, or a function of the value.
    pub(crate) of_values: Vec<String>,
}

impl Names {
    /// Whether there is nothing to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.called.is_empty() && self.of_rows.is_empty() && self.of_values.is_empty()
    }
}

/// Checks every call.
///
/// # Errors
/// The function that may not be called.
pub(super) fn check(tokens: &[Token<'_>], grants: &Grants) -> Result<Names, String> {
    let statement = Statement::new(tokens)?;
    let mut names = Names::default();
    for at in 0..tokens.len() {
        if !tokens[at].is_name() {
            continue;
        }
        let before = at.checked_sub(1).map(|before| &tokens[before]);
        if tokens.get(at + 1).is_some_and(|next| next.is_sign("(")) {
            if let Some(call) = statement.call(at)? {
                allow(&call, grants, &mut names)?;
            }
        } else if before.is_some_and(|before| before.is_sign(".")) {
            let name = tokens[at].text.as_ref();
            let of = match statement.head(at) {
                _ if grants.function(name) => continue,
                Some(_) => &mut names.of_rows,
                None if is_built_in(name) => &mut names.called,
                None => &mut names.of_values,
            };
            add(of, name);
        }
    }
    Ok(names)
}

/// A function call.
struct Call<'a> {
    /// The schemas before the name, with dots between them.
    schema: Option<String>,
    name: &'a str,
    quoted: bool,
}

fn allow(call: &Call<'_>, grants: &Grants, names: &mut Names) -> Result<(), String> {
    match call.schema.as_deref() {
        None if grants.function(call.name) => Ok(()),
        None if is_built_in(call.name) || (!call.quoted && is_syntax_or_call(call.name)) => {
            add(&mut names.called, call.name);
            Ok(())
        }
        None => Err(grants.refusal(call.name)),
        Some(schema) => {
            let whole = format!("{schema}.{}", call.name);
            let allowed = grants.function(&whole) || (schema == "pg_catalog" && is_built_in(call.name));
            if allowed { Ok(()) } else { Err(grants.refusal(&whole)) }
        }
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

/// The tokens, and facts about them.
struct Statement<'a, 'b> {
    tokens: &'b [Token<'a>],
    /// The position of the bracket that matches the one at this position.
    pairs: Vec<usize>,
    /// The positions of the names of WITH queries.
    with: Vec<usize>,
}

impl<'a, 'b> Statement<'a, 'b> {
    fn new(tokens: &'b [Token<'a>]) -> Result<Self, String> {
        let mut pairs = vec![0; tokens.len()];
        let mut open = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            if token.is_sign("(") {
                open.push(at);
            } else if token.is_sign(")") {
                let Some(opened) = open.pop() else {
                    return Err("a bracket closes that was not opened".into());
                };
                pairs[at] = opened;
                pairs[opened] = at;
            }
        }
        if !open.is_empty() {
            return Err("a bracket is not closed".into());
        }
        let mut statement = Self { tokens, pairs, with: Vec::new() };
        statement.with = statement.with_queries();
        Ok(statement)
    }

    fn token(&self, at: usize) -> Option<&'b Token<'a>> {
        self.tokens.get(at)
    }

    fn is(&self, at: Option<usize>, word: &str) -> bool {
        at.is_some_and(|at| self.tokens[at].is(word))
    }

    fn is_sign(&self, at: Option<usize>, sign: &str) -> bool {
        at.is_some_and(|at| self.tokens[at].is_sign(sign))
    }

    /// `WITH [RECURSIVE] name [(columns)] AS [[NOT] MATERIALIZED] (…), name …`
    fn with_queries(&self) -> Vec<usize> {
        let mut names = Vec::new();
        for at in (0..self.tokens.len()).filter(|at| self.tokens[*at].is("with")) {
            let mut name = at + 1;
            if self.token(name).is_some_and(|token| token.is("recursive")) {
                name += 1;
            }
            while let Some(after) = self.with_query(name) {
                names.push(name);
                if !self.token(after).is_some_and(|token| token.is_sign(",")) {
                    break;
                }
                name = after + 1;
            }
        }
        names
    }

    /// The position after the WITH query whose name is at this position.
    fn with_query(&self, name: usize) -> Option<usize> {
        // `f() WITH ORDINALITY AS …` is not a WITH query.
        self.token(name).filter(|token| token.is_name() && !token.is("ordinality"))?;
        let mut at = name + 1;
        if self.token(at)?.is_sign("(") {
            at = self.pairs[at] + 1;
        }
        if !self.token(at)?.is("as") {
            return None;
        }
        at += 1;
        for word in ["not", "materialized"] {
            if self.token(at)?.is(word) {
                at += 1;
            }
        }
        self.token(at).filter(|token| token.is_sign("("))?;
        Some(self.pairs[at] + 1)
    }

    /// Where the dotted chain begins that the name at this position ends. None if it begins with a value.
    fn head(&self, at: usize) -> Option<usize> {
        let mut head = at;
        while head >= 1 && self.tokens[head - 1].is_sign(".") {
            head = head.checked_sub(2)?;
            if !self.tokens[head].is_name() {
                return None;
            }
        }
        Some(head)
    }

    /// The call of the name at this position, which a bracket follows. None if it is something else.
    fn call(&self, at: usize) -> Result<Option<Call<'b>>, String> {
        let name: &'b str = self.tokens[at].text.as_ref();
        let Some(head) = self.head(at) else {
            return Err(format!("`{name}` follows a value and a dot, and a bracket follows it"));
        };
        let before = head.checked_sub(1);
        if head == at && self.tokens[at].kind == Kind::Word {
            if name == "operator" {
                return Err("plugins may not use `OPERATOR(…)`; write the operator alone".into());
            }
            if is_syntax(name) || self.is_clause(name, before) {
                return Ok(None);
            }
        }
        if self.is_named(at, head, before) {
            return Ok(None);
        }
        let schema = (head < at).then(|| {
            let parts = self.tokens[head..at - 1].iter().filter(|token| token.is_name());
            parts.map(|token| token.text.as_ref()).collect::<Vec<_>>().join(".")
        });
        Ok(Some(Call { schema, name, quoted: self.tokens[at].kind == Kind::Quoted }))
    }

    /// Whether the word, which could be a name, is part of a clause after this other word.
    fn is_clause(&self, word: &str, before: Option<usize>) -> bool {
        const CLAUSES: [(&str, &str); 18] = [
            ("bit", "varying"),
            ("by", "cube"),
            ("by", "rollup"),
            ("char", "varying"),
            ("character", "varying"),
            ("foreign", "key"),
            ("group", "by"),
            ("grouping", "sets"),
            ("nchar", "varying"),
            ("on", "conflict"),
            ("order", "by"),
            ("partition", "by"),
            ("primary", "key"),
            ("tablesample", "bernoulli"),
            ("tablesample", "system"),
            ("then", "insert"),
            ("time", "zone"),
            ("update", "set"),
        ];
        let Some(before) = before else { return false };
        let pair = (self.tokens[before].text.as_ref(), word);
        self.tokens[before].kind == Kind::Word
            && (CLAUSES.contains(&pair)
                || (pair == ("not", "materialized") && self.is(before.checked_sub(1), "as"))
                || (pair.0 == "by"
                    && ["range", "list", "hash"].contains(&word)
                    && self.is(before.checked_sub(1), "partition")
                    && self.makes("table")))
    }

    /// Whether the name belongs to a table, an alias, a WITH query or a type, and is not a call.
    fn is_named(&self, at: usize, head: usize, before: Option<usize>) -> bool {
        let Some(before) = before else { return false };
        let token = &self.tokens[before];
        match token.kind {
            // A column with its type, or a table with its alias: no expression follows a name.
            Kind::Quoted => true,
            Kind::Word if !is_keyword(&token.text) => true,
            Kind::Word => match token.text.as_ref() {
                "as" | "into" | "of" | "only" | "ordinality" | "references" | "table" | "view" => true,
                // ALTER COLUMN c TYPE t(n)
                "type" => self.tokens[0].is("alter"),
                "exists" => self.is(before.checked_sub(1), "not") && self.is(before.checked_sub(2), "if"),
                // CREATE INDEX i ON t (a), CREATE INDEX i ON t USING gin (a)
                "on" => self.makes("index") && self.is_first(before, "on"),
                "using" => {
                    head == at
                        && ((self.makes("index") && self.is_first(before, "using"))
                            || self.is(before.checked_sub(1), "exclude"))
                }
                _ => self.with.contains(&at) && head == at,
            },
            Kind::Sign => match token.text.as_ref() {
                // An alias, such as `(VALUES (1)) v (n)`. An expression follows DISTINCT ON (…).
                ")" => {
                    let opened = self.pairs[before];
                    !(self.is(opened.checked_sub(1), "on") && self.is(opened.checked_sub(2), "distinct"))
                }
                "]" => true,
                "," => self.with.contains(&at) && head == at,
                // A type.
                ":" => self.is_sign(before.checked_sub(1), ":"),
                _ => false,
            },
            Kind::Text | Kind::Number | Kind::Parameter => false,
        }
    }

    /// Whether the statement is a CREATE of this kind of object.
    fn makes(&self, thing: &str) -> bool {
        let made = self
            .tokens
            .iter()
            .skip(1)
            .find(|token| !["or", "replace", "unique"].iter().any(|word| token.is(word)));
        self.tokens[0].is("create") && made.is_some_and(|made| made.is(thing))
    }

    fn is_first(&self, at: usize, word: &str) -> bool {
        self.tokens.iter().position(|token| token.is(word)) == Some(at)
    }
}
