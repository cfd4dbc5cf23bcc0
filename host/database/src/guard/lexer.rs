//! The lexer reads a statement token by token, and writes it out from the tokens.
//!
//! PostgreSQL must not read a statement differently than this file does. So the text that runs is written from
//! the tokens, without comments. The lexer refuses text that two lexers could read differently (dollar quotes,
//! escape strings, prefixed literals). Such text can be passed as a parameter.

use std::borrow::Cow;

use super::Dialect;

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// A name in quotes.
    Quoted,
    /// A text in single quotes.
    Text,
    /// The digits of a number.
    Number,
    /// `$1` to `$1000`.
    Parameter,
    /// One character of an operator, a bracket or a separator.
    Sign,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// A word in lower case; a quoted name or text without its quotes; or the token unchanged.
    pub(super) text: Cow<'a, str>,
}

impl Token<'_> {
    /// Whether it is this keyword. `word` is in lower case.
    pub(super) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    /// Whether it is this character, outside of quotes.
    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// Whether it can be the name of a table, a column, a function or a schema.
    pub(super) fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::Quoted)
    }
}

/// A statement, read into tokens.
#[derive(Debug, Default)]
pub(super) struct Scanned<'a> {
    /// The text to run.
    pub(super) text: String,
    pub(super) tokens: Vec<Token<'a>>,
    /// The highest parameter number.
    pub(super) parameters: usize,
}

/// Reads a statement.
///
/// # Errors
/// The part of the statement that cannot be read.
pub(super) fn scan<'a>(dialect: Dialect<'_>, statement: &'a str) -> Result<Scanned<'a>, String> {
    let sqlite = matches!(dialect, Dialect::Sqlite);
    Scanner { sqlite, rest: statement, out: Scanned::default() }.run()
}

struct Scanner<'a> {
    sqlite: bool,
    rest: &'a str,
    out: Scanned<'a>,
}

impl<'a> Scanner<'a> {
    fn run(mut self) -> Result<Scanned<'a>, String> {
        while let Some(first) = self.rest.chars().next() {
            match first {
                '\0' => return Err("it contains a NUL".into()),
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
                '\'' => self.quoted(Kind::Text, '\'')?,
                '"' => self.quoted(Kind::Quoted, '"')?,
                '`' if self.sqlite => self.quoted(Kind::Quoted, '`')?,
                '[' if self.sqlite => self.quoted(Kind::Quoted, ']')?,
                '`' | '\\' => return Err(format!("it contains `{first}` outside of a text")),
                '$' => self.parameter()?,
                '?' | ':' | '@' | '#' if self.sqlite => {
                    return Err(format!("it contains `{first}`; parameters are `$1`, `$2` and so on"));
                }
                ';' => return self.end(),
                c if c.is_ascii_digit() => {
                    let end = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '.'));
                    let digits = self.take(end.unwrap_or(self.rest.len()));
                    self.token(Kind::Number, digits);
                }
                c if in_word(c) => {
                    let goes_on = |c: char| in_word(c) || c.is_ascii_digit() || c == '$';
                    let end = self.rest.find(|c| !goes_on(c)).unwrap_or(self.rest.len());
                    let word = self.take(end);
                    if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
                        self.token(Kind::Word, word.to_ascii_lowercase());
                    } else {
                        self.token(Kind::Word, word);
                    }
                }
                c => {
                    let sign = self.take(c.len_utf8());
                    self.token(Kind::Sign, sign);
                }
            }
        }
        Ok(self.out)
    }

    fn token(&mut self, kind: Kind, text: impl Into<Cow<'a, str>>) {
        self.out.tokens.push(Token { kind, text: text.into() });
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Copies this many bytes.
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

    /// Skips a comment. Comments nest, as in PostgreSQL.
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

    /// Copies a text or a name up to its closing sign. A doubled closing sign is part of the content.
    fn quoted(&mut self, kind: Kind, close: char) -> Result<(), String> {
        let before = self.out.text.chars().next_back().unwrap_or(' ');
        let prefixed = in_word(before) || before.is_ascii_digit() || matches!(before, '&' | '$');
        // SQLite's `x'00'` is unambiguous.
        if prefixed && (!self.sqlite || !matches!(before, 'x' | 'X')) {
            return Err(format!(
                "`{before}` is directly before a quote; put a space between them, or pass a parameter"
            ));
        }
        self.take(1);
        let mut content = Cow::Borrowed("");
        loop {
            let Some(end) = self.rest.find(close) else {
                return Err("it ends within quotes".into());
            };
            let part = self.take(end);
            self.take(1);
            if content.is_empty() {
                content = Cow::Borrowed(part);
            } else {
                content.to_mut().push_str(part);
            }
            if close == ']' || !self.rest.starts_with(close) {
                break;
            }
            content.to_mut().push(close);
            self.take(1);
        }
        if content.contains('\0') {
            return Err("it contains a NUL".into());
        }
        // The next token must not be read as part of this one.
        if self.rest.starts_with(|c: char| in_word(c) || c.is_ascii_digit() || "'\"".contains(c)) {
            self.out.text.push(' ');
        }
        self.out.tokens.push(Token { kind, text: content });
        Ok(())
    }

    fn parameter(&mut self) -> Result<(), String> {
        let digits = self.rest[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len() - 1);
        let number = self.rest[1..1 + digits].parse::<usize>().ok().filter(|n| (1..=1000).contains(n));
        let Some(number) = number else {
            return Err("it contains a `$` that is not a parameter; parameters are `$1` to `$1000`".into());
        };
        if self.rest[1 + digits..].starts_with(|c| in_word(c) || c == '$') {
            return Err(format!("`${number}` is directly before a word; put a space between them"));
        }
        // Written from the number, so that `$01` becomes `$1`.
        self.skip(1 + digits);
        let parameter = format!("${number}");
        self.out.text.push_str(&parameter);
        self.token(Kind::Parameter, parameter);
        self.out.parameters = self.out.parameters.max(number);
        Ok(())
    }

    /// Checks that only space and comments follow a semicolon.
    fn end(mut self) -> Result<Scanned<'a>, String> {
        self.skip(1);
        let before = std::mem::take(&mut self.out);
        let mut rest = Scanner { sqlite: self.sqlite, rest: self.rest, out: Scanned::default() };
        while rest.rest.starts_with(';') {
            rest.skip(1);
        }
        let after = rest.run()?;
        if after.text.trim().is_empty() { Ok(before) } else { Err("it is more than one statement".into()) }
    }
}

/// Whether the character may be in a word. In both engines, any character outside ASCII may.
fn in_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}
